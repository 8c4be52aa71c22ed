"""The benchmarks' HashedNets are those of the paper."""
import numpy
import pytest
from chainer import gradient_check

from benchmarks.hashed_linear import (
    Collect,
    HashedLinear,
    LookUp,
    hash_places,
    splitmix64,
)

OUT, IN, K, SEED = 5, 7, 6, 3


def make_layer(dtype='d'):
    layer = HashedLinear(IN, OUT, K, seed=SEED)
    layer.w.array = numpy.random.normal(size=K).astype(dtype)
    layer.b.array = numpy.random.normal(size=OUT).astype(dtype)
    return layer


def hash_of(key):
    """splitmix64 on Python's integers, which have no overflow."""
    mask = 2 ** 64 - 1
    z = key + 0x9e3779b97f4a7c15 & mask
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9 & mask
    z = (z ^ z >> 27) * 0x94d049bb133111eb & mask
    return z ^ z >> 31


def dense_weight(w, out_size, in_size, seed):
    """V_ij = w[h(i, j)] xi(i, j), one by one."""
    V = numpy.empty((out_size, in_size))
    for i in range(out_size):
        for j in range(in_size):
            value = hash_of(hash_of(seed) ^ i * in_size + j)
            V[i, j] = w[(value >> 1) % len(w)] * (-1 if value & 1 else 1)
    return V


def test_hash_is_the_published_one():
    # The first outputs of the generator of seed 1234567.
    step = 0x9e3779b97f4a7c15
    keys = [(1234567 + i * step) % 2 ** 64 for i in range(3)]
    assert splitmix64(numpy.array(keys, numpy.uint64)).tolist() == [
        6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize(('dtype', 'tolerance'), [('d', 1e-12), ('f', 1e-5)])
def test_layer_is_its_definition(dtype, tolerance):
    layer = make_layer(dtype)
    x = numpy.random.normal(size=(4, IN)).astype(dtype)
    V = dense_weight(layer.w.array.astype('d'), OUT, IN, SEED)
    y = layer(x)
    assert y.dtype == dtype
    numpy.testing.assert_allclose(
        y.array, x.astype('d') @ V.T + layer.b.array,
        rtol=tolerance, atol=tolerance)


def test_gradient_is_the_sum_over_the_copies():
    layer = make_layer()
    x = numpy.random.normal(size=(4, IN))
    gy = numpy.random.normal(size=(4, OUT))
    y = layer(x)
    layer.cleargrads()
    y.grad = gy
    y.backward()
    gw = numpy.zeros(K)
    for k, unit in enumerate(numpy.eye(K)):
        gw[k] = (dense_weight(unit, OUT, IN, SEED) * (gy.T @ x)).sum()
    numpy.testing.assert_allclose(layer.w.grad, gw, rtol=1e-10)


def test_gradients_are_the_numeric_ones():
    layer = make_layer()
    x = numpy.random.normal(size=(4, IN))
    gy = numpy.random.normal(size=(4, OUT))

    def forward(x, w, b):
        V, = LookUp(layer.places).apply((w,))
        return (x @ V.T + b) ** 2

    inputs = x, layer.w.array, layer.b.array
    gradient_check.check_backward(
        forward, inputs, gy, dtype='d', atol=1e-7, rtol=1e-7)
    gradient_check.check_double_backward(
        forward, inputs, gy, [numpy.random.normal(size=a.shape)
                              for a in inputs],
        dtype='d', atol=1e-7, rtol=1e-7)


def test_looking_up_and_collecting_are_adjoint():
    places = hash_places(OUT, IN, K, SEED)
    w = numpy.random.normal(size=K)
    gV = numpy.random.normal(size=(OUT, IN))
    V, = LookUp(places).apply((w,))
    gw, = Collect(places, K).apply((gV,))
    numpy.testing.assert_allclose((V.array * gV).sum(), w @ gw.array)


def test_weights_are_used_alike_and_signs_are_fair():
    places = hash_places(300, 784, 3675, seed=0)
    # 64 uses each, Poisson: seven standard deviations.
    counts = numpy.bincount(places.ravel() % 3675, minlength=3675)
    assert counts.min() > 64 - 7 * 8
    assert counts.max() < 64 + 7 * 8
    assert abs((places < 3675).mean() - .5) < 5e-3
    rows = numpy.corrcoef((places[:50] < 3675).astype('d'))
    assert abs(rows - numpy.eye(50)).max() < .2
    other = hash_places(300, 784, 3675, seed=1)
    assert (places == other).mean() < 1e-3


def test_initial_outputs_have_the_variance_of_a_dense_layer():
    layer = HashedLinear(784, 300, 3675)
    x = numpy.random.normal(size=(100, 784)).astype('f')
    assert abs(layer(x).array.std() - 1) < .1
    assert sum(p.size for p in layer.params()) == 3675 + 300
