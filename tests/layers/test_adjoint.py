"""A linear map and its transpose: <A x, z> = <x, A^T z>."""
import chainer
import kinds
import numpy
import pytest

import shared_linear as sl


def inner(a, b):
    a, b = (getattr(v, 'array', v) for v in (a, b))
    assert a.shape == b.shape
    return float((a.astype('d') * b.astype('d')).sum())


def assert_equal(a, b):
    assert a == pytest.approx(b, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize('shape, n_tiles', [
    ((12,), 1), ((12,), 12), ((3, 12), 4), ((0, 12), 3), ((2, 3, 1, 10), 5)])
def test_fold_and_tile(shape, n_tiles):
    x = numpy.random.randn(*shape)
    z = numpy.random.randn(*shape[:-1], shape[-1] // n_tiles)
    assert_equal(
        inner(sl.fold(x, n_tiles), z), inner(x, sl.tile(z, n_tiles)))


def test_fold_of_tile_is_n_times():
    z = numpy.random.randn(3, 4)
    numpy.testing.assert_allclose(
        sl.fold(sl.tile(z, 5), 5).array, 5 * z, rtol=1e-14)


@kinds.EACH_FORM
def test_backward_of_the_layer_is_its_transpose(form):
    x, W, _, gy = map(chainer.Variable, form.draw(5))
    y = form(x, W)
    gx, gW = chainer.grad([y], [x, W], [gy])
    assert_equal(inner(y, gy), inner(x, gx))
    assert_equal(inner(y, gy), inner(W, gW))


@kinds.EACH_FORM
def test_it_is_linear_in_each_input(form):
    def f(x, W, b):
        return form(x, W, b).array

    (x1, W1, b1, _), (x2, W2, b2, _) = form.draw(), form.draw()
    o = 0 * b1
    for total, parts in [
            (f(x1 + 2 * x2, W1, o), (f(x1, W1, o), f(x2, W1, o))),
            (f(x1, W1 + 2 * W2, o), (f(x1, W1, o), f(x1, W2, o))),
            (f(0 * x1, W1, b1 + 2 * b2), (f(0 * x1, W1, b1),
                                          f(0 * x1, W1, b2)))]:
        numpy.testing.assert_allclose(
            total, parts[0] + 2 * parts[1], rtol=1e-12, atol=1e-12)
