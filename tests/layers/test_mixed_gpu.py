"""Mixed sharing on CuPy, the same as on NumPy. Skips where there is none."""
import io

import cases
import chainer
import chainer.functions as F
import numpy
import pytest
import reference
from chainer import optimizers, serializers

import shared_linear as sl

pytestmark = pytest.mark.gpu
MIXING = {'n_tiles': 4, 'n_blocks': 3, 'seed': 7}
ORDER = numpy.random.RandomState(2).permutation(24)


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


@pytest.mark.parametrize('order', [None, ORDER], ids=['random', 'order'])
@pytest.mark.parametrize('x_dtype, W_dtype', [
    ('e', 'e'), ('f', 'f'), ('d', 'd'), ('e', 'f'), ('f', 'd')])
@pytest.mark.parametrize('batch_size', [0, 1, 5])
def test_forward_and_backward(gpu, x_dtype, W_dtype, order, batch_size):
    x, W, b = (
        draw(batch_size, 24, dtype=x_dtype), draw(2, 6, dtype=W_dtype),
        draw(6, dtype=x_dtype))
    gy = draw(batch_size, 6, dtype=x_dtype)
    inputs = [chainer.Variable(gpu.send(a)) for a in (x, W, b)]
    y = sl.mixed_linear(*inputs, order=order, **MIXING)
    gx, gW, gb = chainer.grad([y], inputs, [chainer.Variable(gpu.send(gy))])
    low = min(x_dtype, W_dtype, key='efd'.index)
    V = reference.mixed_weight(W, order=order, **MIXING)
    x, gy = x.astype('d'), gy.astype('d')
    assert y.dtype == numpy.dtype(x_dtype)
    assert_close(y, x @ V.T + b, low)
    assert_close(gx, gy @ V, low)
    assert_close(gb, gy.sum(0), low)
    expected = numpy.zeros(W.shape)
    for i in numpy.ndindex(*W.shape):
        unit = numpy.zeros(W.shape)
        unit[i] = 1
        U = reference.mixed_weight(unit, order=order, **MIXING)
        expected[i] = (x @ U.T * gy).sum()
    assert_close(gW, expected, low)


def test_double_backward(gpu):
    x, W, gy, u = (
        chainer.Variable(gpu.send(draw(*s, dtype='d')))
        for s in [(5, 24), (2, 6), (5, 6), (5, 24)])
    y = sl.mixed_linear(x, W, **MIXING)
    gx, = chainer.grad([y], [x], [gy], enable_double_backprop=True)
    gW, ggy = chainer.grad([gx], [W, gy], [u])
    V = reference.mixed_weight(to_numpy(W), **MIXING)
    assert_close(ggy, to_numpy(u) @ V.T, 'd')
    # <W, gW> = <gx, u>
    assert float((W * gW).array.sum()) == pytest.approx(
        float((gx * u).array.sum()), rel=1e-9)


@pytest.mark.parametrize('layout', [
    lambda x: x.T.copy().T, lambda x: x[:, ::-1], lambda x: x[::2]],
    ids=['fortran', 'negative', 'rows'])
def test_any_strides(gpu, layout):
    x, W = draw(6, 24, dtype='d'), draw(2, 6, dtype='d')
    y = sl.mixed_linear(layout(gpu.send(x)), gpu.send(W), **MIXING)
    assert_close(
        y, reference.mixed_linear(layout(x), W, None, MIXING), 'd')


def test_another_stream(gpu):
    x, W = draw(64, 24), draw(2, 6)
    with gpu.xp.cuda.Stream(non_blocking=True) as stream:
        y = sl.mixed_linear(gpu.send(x), gpu.send(W), **MIXING)
        stream.synchronize()
    assert_close(y, reference.mixed_linear(x, W, None, MIXING), 'f')


def test_a_second_device(gpu):
    if gpu.xp.cuda.runtime.getDeviceCount() < 2:
        pytest.skip('needs two GPUs')
    second = chainer.get_device('@cupy:1')
    link = sl.MixedLinear(24, 6, **MIXING).to_device(second)
    x = draw(4, 24)
    expected = reference.mixed_linear(x, to_numpy(link.W), None, MIXING)
    assert_close(link(second.send(x)), expected, 'f')
    assert link(second.send(x)).array.device.id == 1


@pytest.mark.parametrize('order', [None, ORDER], ids=['random', 'order'])
def test_a_link_trains_there_is_saved_and_comes_back(gpu, order):
    link = sl.MixedLinear(24, 6, order=order, **MIXING).to_device(gpu)
    optimizer = optimizers.Adam(0.05).setup(link)
    x, t = gpu.send(draw(16, 24)), gpu.send(draw(16, 6))
    losses = []
    for _ in range(50):
        optimizer.update(lambda: F.mean_squared_error(link(x), t))
        losses.append(float(F.mean_squared_error(link(x), t).array))
    assert losses[-1] < losses[0] / 2
    file = io.BytesIO()
    serializers.save_npz(file, link)
    file.seek(0)
    other = sl.MixedLinear(24, 6, order=order, **MIXING)
    serializers.load_npz(file, other)
    assert_close(other(to_numpy(x)), to_numpy(link(x)), 'f')
    assert_close(link.to_linear()(x), to_numpy(link(x)), 'f')
    dense = other.to_linear().to_device(gpu)
    assert_close(
        sl.MixedLinear.from_linear(
            dense, 4, x, order, n_blocks=3, seed=7)(x),
        to_numpy(link(x)), 'e')
