"""dtypes as in F.linear, and float16 as close to the truth."""
import chainer
import chainer.functions as F
import kinds
import numpy
import pytest
import reference

import shared_linear as sl

DTYPES = [
    (x_dtype, W_dtype) for x_dtype in 'efd' for W_dtype in 'efd']


@kinds.EACH_FORM
def test_dtypes_of_result_and_gradients_are_those_of_F_linear(form):
    def dtypes(f, x, W, b):
        inputs = [chainer.Variable(a) for a in (x, W, b)]
        y = f(*inputs)
        grads = chainer.grad([y], inputs, enable_double_backprop=True)
        second = chainer.grad([F.sum(grads[0] ** 2)], inputs[1:2])
        second += chainer.grad([F.sum(grads[1] ** 2)], inputs[:1])
        return [v.dtype for v in [y, *grads, *second]]

    for x_dtype, W_dtype in DTYPES:
        x, W, b, _ = form.draw(dtype=x_dtype)
        W, V = W.astype(W_dtype), form.weight(W).astype(W_dtype)
        assert dtypes(form, x, W, b) == dtypes(F.linear, x, V, b)


@pytest.mark.parametrize('n_tiles', [2, 10])
@pytest.mark.parametrize('batch_size', [1, 16])
def test_float16_is_as_close_as_F_linear(n_tiles, batch_size):
    """Summed over many draws: single ones are a matter of luck."""
    ours, theirs = numpy.zeros(3), numpy.zeros(3)
    for seed in range(30):
        rng = numpy.random.RandomState(seed)
        x = rng.randn(batch_size, 20 * n_tiles).astype('e')
        W = (rng.randn(30, 20) / (20 * n_tiles) ** .5).astype('e')
        b = rng.randn(30).astype('e')
        gy = rng.randn(batch_size, 30).astype('e')
        y = reference.shared_linear(x, W, b)
        gx, gW, _ = reference.gradients(x, W, gy)

        def errors(f, W, x=x, b=b, gy=gy, y=y, gx=gx, gW=gW):
            x, W = chainer.Variable(x), chainer.Variable(W)
            actual = f(x, W, b)
            actual.grad = gy
            actual.backward()
            W_grad = W.grad
            if W_grad.shape != gW.shape:  # the dense gradient, tile by tile
                W_grad = reference.fold(W_grad, n_tiles)
            return numpy.array([
                abs(a.astype('d') - e).mean()
                for a, e in [(actual.array, y), (x.grad, gx), (W_grad, gW)]])

        ours += errors(sl.shared_linear, W)
        theirs += errors(F.linear, numpy.tile(W, (1, n_tiles)))
    # Where both round once, they differ by the order of BLAS's sums.
    assert (ours <= theirs * (1 + 1e-3)).all()


def test_float16_fold_is_rounded_once():
    x = numpy.full((1, 4096), 1.0009766, 'e')  # 1 + 2 ** -10
    assert sl.fold(x, 4096).array == numpy.float16(4100)


@pytest.mark.parametrize('dtype', ['>f2', '>f4', '>f8', 'g'])
@kinds.EACH_FORM
def test_forward_of_other_float_dtypes(form, dtype):
    """Big-endian, as read from a file, and long double."""
    x, W, b, _ = form.draw(dtype=dtype)
    y = form(x, W, b)
    assert y.dtype == numpy.dtype(dtype)
    numpy.testing.assert_allclose(
        y.array.astype('d'), form.expected(x, W, b),
        rtol=1e-2 if dtype == '>f2' else 1e-5,
        atol=1e-2 if dtype == '>f2' else 1e-5)
