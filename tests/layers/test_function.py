"""Chainer's own way of testing a function: forward, and both backwards."""
import cases
import chainer
import chainer.functions as F
import kinds
import numpy
import pytest
from chainer import testing

import shared_linear as sl
from shared_linear.layers import function

DTYPES = [
    {'x_dtype': 'e', 'W_dtype': 'e'},
    {'x_dtype': 'f', 'W_dtype': 'f'},
    {'x_dtype': 'd', 'W_dtype': 'd'},
    {'x_dtype': 'e', 'W_dtype': 'f'},
    {'x_dtype': 'd', 'W_dtype': 'f'},
]
SHAPES = [
    {'batch_shape': (4,), 'data_shape': (12,), 'contiguous': 'C'},
    {'batch_shape': (4,), 'data_shape': (12,), 'contiguous': None},
    {'batch_shape': (1,), 'data_shape': (3, 2, 2), 'contiguous': None},
    {'batch_shape': (2, 3, 1), 'data_shape': (6, 2), 'contiguous': 'C'},
]
BIAS = [{'nobias': True}, {'nobias': False}]
PLAIN, MIXED, ORDERED = (
    [{'form_name': name} for name in kinds.FORMS if test(name)] for test in (
        lambda name: 'mixed' not in name and 'order' not in name,
        lambda name: 'mixed' in name and 'order' not in name,
        lambda name: 'order' in name))


# What gathers its inputs does so from any shape and memory order.
@testing.parameterize(
    *testing.product_dict(DTYPES, SHAPES, PLAIN, BIAS),
    *testing.product_dict(DTYPES, SHAPES[1::2], MIXED, BIAS),
    *testing.product_dict(DTYPES[:3], SHAPES[1::2], ORDERED))
@testing.inject_backend_tests(None, cases.BACKENDS)
class TestForm(kinds.FormCase, testing.FunctionTestCase):
    pass


@kinds.EACH_FORM
@pytest.mark.parametrize('shape, n_batch_axes', [
    ((0, 12), 1), ((0, 3, 4), 1), ((0, 3, 12), 2), ((3, 0, 12), 2)])
def test_empty_batch(form, shape, n_batch_axes):
    x = chainer.Variable(numpy.zeros(shape, 'f'))
    W = chainer.Variable(numpy.ones(form.W_shape, 'f'))
    b = chainer.Variable(numpy.ones(kinds.OUT, 'f'))
    y = form(x, W, b, n_batch_axes=n_batch_axes)
    assert y.shape == shape[:n_batch_axes] + (kinds.OUT,)
    F.sum(y).backward()
    assert x.grad.shape == shape
    assert (W.grad == 0).all() and W.grad.shape == W.shape
    assert (b.grad == 0).all()


@pytest.mark.parametrize('method', function.METHODS)
def test_no_columns_and_no_rows(method):
    b = numpy.arange(2, dtype='f')
    x, W = numpy.zeros((3, 0), 'f'), numpy.zeros((2, 0), 'f')
    y = sl.shared_linear(x, W, b, method=method)
    numpy.testing.assert_array_equal(y.array, F.linear(x, W, b).array)
    y = sl.shared_linear(
        numpy.ones((3, 4), 'f'), numpy.ones((0, 2), 'f'), method=method)
    assert y.shape == (3, 0)


@kinds.EACH_FORM
def test_any_strides(form):
    drawn_x, W, _, drawn_gy = form.draw(6)
    for lay_out in cases.LAYOUTS.values():
        x, gy = lay_out(numpy, drawn_x), lay_out(numpy, drawn_gy)
        inputs = chainer.Variable(x), chainer.Variable(W)
        y = form(*inputs)
        numpy.testing.assert_allclose(
            y.array, form.expected(x, W), rtol=1e-12, atol=1e-14)
        grads = chainer.grad([y], inputs, [chainer.Variable(gy)])
        for grad, expected in zip(
                grads, form.gradients(x, W, gy)[:2], strict=True):
            numpy.testing.assert_allclose(
                grad.array, expected, rtol=1e-11, atol=1e-13)


@kinds.EACH_FORM
def test_results_own_their_memory(form):
    """Writing to a result in place changes no input."""
    x, W, _, gy = map(chainer.Variable, form.draw())
    y = form(x, W)
    y.grad = gy.array
    y.backward()
    for result in (y.array, x.grad, W.grad):
        for other in (x.array, W.array, y.grad):
            assert not numpy.shares_memory(result, other)


@kinds.EACH_FORM
def test_results_are_not_the_scratch_memory(form):
    x, W, _, _ = form.draw()
    first = form(x, W)
    kept = first.array.copy()
    form(2 * x, W)
    numpy.testing.assert_array_equal(first.array, kept)


@pytest.mark.parametrize('n_tiles', [1, 3])
@pytest.mark.parametrize('function', [sl.fold, sl.tile])
def test_fold_and_tile_own_their_memory(function, n_tiles):
    x = numpy.random.randn(4, 6)
    assert not numpy.shares_memory(function(x, n_tiles).array, x)


@kinds.EACH_FORM
def test_one_node_of_x_W_and_b(form):
    x, W, b, _ = map(chainer.Variable, form.draw())
    node = form(x, W, b).creator_node
    assert type(node) in (sl.SharedLinearFunction, sl.MixedLinearFunction)
    assert [v.get_variable_or_none() for v in node.inputs] == [x, W, b]


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
