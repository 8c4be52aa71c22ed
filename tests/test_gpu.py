"""On CuPy, the same as on NumPy. conftest.py skips it where there is none."""
import io

import cases
import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
import reference
from chainer import optimizers, serializers

import shared_linear as sl
from shared_linear import function

pytestmark = pytest.mark.gpu
METHODS = pytest.mark.parametrize('method', function.METHODS)


@pytest.fixture
def gpu():
    device = chainer.get_device('@cupy:0')
    device.use()
    return device


def to_numpy(array):
    return chainer.get_device('@numpy').send(getattr(array, 'array', array))


def draw(*shape, dtype='f'):
    return numpy.random.uniform(-1, 1, shape).astype(dtype)


def assert_close(actual, expected, dtype):
    numpy.testing.assert_allclose(
        to_numpy(actual).astype('d'), expected, **cases.TOLERANCES[dtype])


@METHODS
@pytest.mark.parametrize('x_dtype, W_dtype', [
    ('e', 'e'), ('f', 'f'), ('d', 'd'), ('e', 'f'), ('f', 'd')])
@pytest.mark.parametrize('n_tiles', [1, 3])
def test_forward_and_both_backwards(gpu, method, x_dtype, W_dtype, n_tiles):
    x, W, b = (
        draw(4, 12, dtype=x_dtype), draw(5, 12 // n_tiles, dtype=W_dtype),
        draw(5, dtype=x_dtype))
    gy = draw(4, 5, dtype=x_dtype)
    inputs = [chainer.Variable(gpu.send(a)) for a in (x, W, b)]
    y = sl.shared_linear(*inputs, method=method)
    gy_ = chainer.Variable(gpu.send(gy))
    grads = chainer.grad([y], inputs, [gy_], enable_double_backprop=True)
    directions = [draw(*v.shape, dtype=v.dtype.char) for v in inputs]
    second = chainer.grad(
        grads, [*inputs[:2], gy_],
        [chainer.Variable(gpu.send(d)) for d in directions])

    low = min(x_dtype, W_dtype, key='efd'.index)
    assert y.xp is gpu.xp and y.dtype == x.dtype
    assert_close(y, reference.shared_linear(x, W, b), low)
    for g, v, e in zip(
            grads, inputs, reference.gradients(x, W, gy), strict=True):
        assert g.dtype == v.dtype
        assert_close(g, e, low)
    for g, e in zip(
            second, reference.second_gradients(x, W, gy, *directions),
            strict=True):
        assert_close(g, e, low)


@METHODS
@pytest.mark.parametrize('order', ['F', 'reversed', 'strided', 'broadcast'])
def test_memory_orders(gpu, method, order):
    x, W = draw(4, 12), draw(5, 4)
    x_ = gpu.send(x)
    x_ = {
        'F': lambda: gpu.xp.asfortranarray(x_),
        'reversed': lambda: gpu.xp.ascontiguousarray(x_[::-1, ::-1])[
            ::-1, ::-1],
        'strided': lambda: gpu.xp.repeat(x_, 2, axis=1)[:, ::2],
        'broadcast': lambda: gpu.xp.broadcast_to(x_[:1], x_.shape),
    }[order]()
    x = to_numpy(x_)
    v, w = chainer.Variable(x_), chainer.Variable(gpu.send(W))
    y = sl.shared_linear(v, w, method=method)
    F.sum(y).backward()  # a gradient of stride zero
    assert_close(y, reference.shared_linear(x, W), 'f')
    gx, gW, _ = reference.gradients(x, W, numpy.ones((4, 5)))
    assert_close(v.grad, gx, 'f')
    assert_close(w.grad, gW, 'f')
    numpy.testing.assert_array_equal(to_numpy(x_), x)


@METHODS
def test_empty_batch(gpu, method):
    x = chainer.Variable(gpu.xp.zeros((0, 12), 'f'))
    w = chainer.Variable(gpu.xp.ones((5, 4), 'f'))
    y = sl.shared_linear(x, w, method=method)
    F.sum(y).backward()
    assert y.shape == (0, 5)
    assert x.grad.shape == (0, 12)
    assert (to_numpy(w.grad) == 0).all()


@pytest.mark.parametrize('n_tiles', [2, 10])
def test_float16_is_about_as_close_as_F_linear(gpu, n_tiles):
    """CuPy rounds the folded input to float16, and then the result."""
    ours = theirs = 0
    for seed in range(30):
        rng = numpy.random.RandomState(seed)
        x = rng.randn(16, 20 * n_tiles).astype('e')
        W = (rng.randn(30, 20) / (20 * n_tiles) ** .5).astype('e')
        expected = reference.shared_linear(x, W)
        y = sl.shared_linear(gpu.send(x), gpu.send(W))
        ours += abs(to_numpy(y).astype('d') - expected).mean()
        y = F.linear(gpu.send(x), gpu.send(numpy.tile(W, (1, n_tiles))))
        theirs += abs(to_numpy(y).astype('d') - expected).mean()
    assert ours <= 2 * theirs


@pytest.mark.parametrize('initialW', [
    None, chainer.initializers.HeNormal(), chainer.initializers.Orthogonal()])
def test_size_left_to_the_first_input(gpu, initialW):
    link = sl.SharedLinear(40, initialW=initialW, n_tiles=10).to_device(gpu)
    y = link(gpu.xp.ones((4, 1000), 'f'))
    assert y.shape == (4, 40)
    assert isinstance(link.W.array, gpu.xp.ndarray)
    dense = L.Linear(1000, 40, initialW=initialW)
    assert to_numpy(link.W).std() == pytest.approx(
        dense.W.array.std(), rel=0.1)


@pytest.mark.parametrize('there', ['@numpy', '@cupy:0'])
def test_save_here_and_load_there(gpu, there):
    link = sl.SharedLinear(12, 5, n_tiles=3).to_device(
        '@cupy:0' if there == '@numpy' else '@numpy')
    file = io.BytesIO()
    serializers.save_npz(file, link)
    file.seek(0)
    other = sl.SharedLinear(None, 5, n_tiles=3).to_device(there)
    serializers.load_npz(file, other)
    assert other.device == chainer.get_device(there)
    numpy.testing.assert_array_equal(to_numpy(other.W), to_numpy(link.W))


def test_conversions_stay_on_the_device(gpu):
    link = sl.SharedLinear(12, 5, n_tiles=3).to_device(gpu)
    dense = link.to_linear()
    back = sl.SharedLinear.from_linear(dense, 3)
    assert dense.device == back.device == gpu
    numpy.testing.assert_allclose(
        to_numpy(back.W), to_numpy(link.W), rtol=1e-6)
    W, b = gpu.send(draw(5, 4)), gpu.send(draw(5))
    other = sl.SharedLinear.from_params(W, b, n_tiles=3).to_device(gpu)
    numpy.testing.assert_array_equal(to_numpy(other.W), to_numpy(W))


def test_training_is_that_on_numpy(gpu):
    x, t = draw(32, 12), draw(32, 5)

    def train(device):
        numpy.random.seed(0)
        link = sl.SharedLinear(12, 5, n_tiles=3).to_device(device)
        optimizer = optimizers.Adam(0.01).setup(link)
        for _ in range(20):
            optimizer.update(lambda: F.mean_squared_error(
                link(device.send(x)), device.send(t)))
        return to_numpy(link.W)

    numpy.testing.assert_allclose(
        train(gpu), train(chainer.get_device('@numpy')),
        rtol=1e-3, atol=1e-4)
