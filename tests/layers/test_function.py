"""Chainer's own way of testing a function: forward, and both backwards."""
import cases
import chainer
import chainer.functions as F
import numpy
import pytest
from chainer import testing

import shared_linear as sl
from shared_linear.layers import function


@testing.parameterize(*testing.product_dict(
    [
        {'x_dtype': 'e', 'W_dtype': 'e'},
        {'x_dtype': 'f', 'W_dtype': 'f'},
        {'x_dtype': 'd', 'W_dtype': 'd'},
        {'x_dtype': 'e', 'W_dtype': 'f'},
        {'x_dtype': 'd', 'W_dtype': 'f'},
    ],
    [
        {'batch_shape': (4,), 'data_shape': (12,), 'contiguous': 'C'},
        {'batch_shape': (4,), 'data_shape': (12,), 'contiguous': None},
        {'batch_shape': (1,), 'data_shape': (3, 2, 2), 'contiguous': None},
        {'batch_shape': (2, 3, 1), 'data_shape': (6, 2), 'contiguous': 'C'},
    ],
    [{'n_tiles': 1}, {'n_tiles': 3}],
    [{'nobias': True}, {'nobias': False}],
    [{'method': 'fold'}, {'method': 'tile'}],
))
@testing.inject_backend_tests(None, cases.BACKENDS)
class TestSharedLinear(cases.SharedLinearCase, testing.FunctionTestCase):
    pass


@pytest.mark.parametrize('method', function.METHODS)
@pytest.mark.parametrize('n_tiles', [1, 4])
def test_empty_batch(method, n_tiles):
    x = chainer.Variable(numpy.zeros((0, 8), 'f'))
    W = chainer.Variable(numpy.ones((3, 8 // n_tiles), 'f'))
    b = chainer.Variable(numpy.ones(3, 'f'))
    y = sl.shared_linear(x, W, b, method=method)
    assert y.shape == (0, 3)
    F.sum(y).backward()
    assert x.grad.shape == (0, 8)
    assert (W.grad == 0).all() and W.grad.shape == W.shape
    assert (b.grad == 0).all()


@pytest.mark.parametrize('shape, n_batch_axes', [
    ((0, 2, 4), 1), ((0, 3, 8), 2), ((3, 0, 8), 2)])
def test_empty_batch_of_many_axes(shape, n_batch_axes):
    x = numpy.zeros(shape, 'f')
    y = sl.shared_linear(
        x, numpy.ones((3, 2), 'f'), n_batch_axes=n_batch_axes)
    assert y.shape == shape[:n_batch_axes] + (3,)


@pytest.mark.parametrize('method', function.METHODS)
def test_no_columns_and_no_rows(method):
    b = numpy.arange(2, dtype='f')
    x, W = numpy.zeros((3, 0), 'f'), numpy.zeros((2, 0), 'f')
    y = sl.shared_linear(x, W, b, method=method)
    numpy.testing.assert_array_equal(y.array, F.linear(x, W, b).array)
    y = sl.shared_linear(
        numpy.ones((3, 4), 'f'), numpy.ones((0, 2), 'f'), method=method)
    assert y.shape == (3, 0)


@pytest.mark.parametrize('n_tiles', [1, 3])
@pytest.mark.parametrize('method', function.METHODS)
def test_results_own_their_memory(method, n_tiles):
    """Writing to a result in place changes no input."""
    x = chainer.Variable(numpy.random.randn(4, 6).astype('f'))
    W = chainer.Variable(numpy.random.randn(5, 6 // n_tiles).astype('f'))
    y = sl.shared_linear(x, W, method=method)
    y.grad = numpy.ones((4, 5), 'f')
    y.backward()
    results = [
        y.array, x.grad, W.grad, sl.fold(x, n_tiles).array,
        sl.tile(x, n_tiles).array]
    for result in results:
        for other in [x.array, W.array, y.grad]:
            assert not numpy.shares_memory(result, other)


def test_with_one_tile_it_is_F_linear_bit_for_bit():
    x = numpy.random.randn(7, 11).astype('f')
    W = numpy.random.randn(5, 11).astype('f')
    b = numpy.random.randn(5).astype('f')

    def run(f):
        inputs = [chainer.Variable(a) for a in (x, W, b)]
        y = f(*inputs)
        F.sum(y * y).backward()
        return [y.array] + [v.grad for v in inputs]

    for ours, theirs in zip(
            run(sl.shared_linear), run(F.linear), strict=True):
        numpy.testing.assert_array_equal(ours, theirs)


def test_without_type_check():
    x, W = numpy.ones((3, 6), 'f'), numpy.ones((5, 2), 'f')
    with chainer.using_config('type_check', False):
        assert (sl.shared_linear(x, W).array == 6).all()
        assert (sl.fold(x, 2).array == 2).all()


def test_n_tiles_may_be_asserted():
    x, W = numpy.ones((3, 6), 'f'), numpy.ones((5, 2), 'f')
    assert sl.shared_linear(x, W, n_tiles=3).shape == (3, 5)
