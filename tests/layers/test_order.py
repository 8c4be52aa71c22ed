"""A permutation of the inputs that comes before the fold."""
import kinds
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shared_linear as sl
from shared_linear.layers import tiling

import chainer  # isort: skip
import chainer.links as L  # isort: skip
from chainer import gradient_check  # isort: skip

N_TILES, WIDTH, OUT = 3, 4, 5
SIZE = N_TILES * WIDTH
TOLERANCE = {numpy.float16: 2e-2, numpy.float32: 1e-5, numpy.float64: 1e-12}


def random_order(seed=0, size=SIZE):
    return numpy.random.RandomState(seed).permutation(size)


def sharing_matrix(order, n_tiles):
    """F of z = F x, entry by entry."""
    width = len(order) // n_tiles
    matrix = numpy.zeros((width, len(order)))
    for position, column in enumerate(order):
        matrix[position % width, column] = 1
    return matrix


def normal(*shape, seed=0, dtype=numpy.float64):
    return numpy.random.RandomState(seed).normal(size=shape).astype(dtype)


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize(
    'shape', [(SIZE,), (7, SIZE), (2, 3, SIZE), (0, SIZE)])
def test_fold_is_a_matrix_product(shape, dtype):
    x = normal(*shape, dtype=dtype)
    z = sl.fold(x, N_TILES, random_order())
    expected = x.astype(float) @ sharing_matrix(random_order(), N_TILES).T
    assert z.dtype == dtype
    numpy.testing.assert_allclose(
        z.array, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize('dtype', TOLERANCE)
def test_tile_is_the_transposed_product(dtype):
    z = normal(7, WIDTH, dtype=dtype)
    x = sl.tile(z, N_TILES, random_order())
    assert x.dtype == dtype
    numpy.testing.assert_array_equal(
        x.array, z @ sharing_matrix(random_order(), N_TILES).astype(dtype))


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_adjoint(n_tiles, width, seed):
    order = random_order(seed, n_tiles * width)
    x = normal(3, n_tiles * width, seed=seed)
    z = normal(3, width, seed=seed + 1)
    left = (sl.fold(x, n_tiles, order).array * z).sum()
    right = (x * sl.tile(z, n_tiles, order).array).sum()
    numpy.testing.assert_allclose(left, right, rtol=1e-10, atol=1e-10)


def test_the_identity_changes_nothing():
    x = normal(7, SIZE)
    numpy.testing.assert_array_equal(
        sl.fold(x, N_TILES, numpy.arange(SIZE)).array,
        sl.fold(x, N_TILES).array)


def test_no_inputs_at_all():
    link = sl.SharedLinear(
        0, OUT, initialW=0, n_tiles=N_TILES, order=numpy.empty(0, int))
    x = numpy.empty((2, 0), numpy.float32)
    numpy.testing.assert_array_equal(link(x).array, numpy.zeros((2, OUT)))
    assert sl.tile(x, N_TILES, numpy.empty(0, int)).shape == (2, 0)


def test_rows_beyond_one_block():
    size = 1000
    rows = 3 * tiling.GATHER_BYTES // (8 * size) + 1
    x = normal(rows, size)
    order = random_order(size=size)
    numpy.testing.assert_allclose(
        sl.fold(x, 10, order).array, x @ sharing_matrix(order, 10).T,
        rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('layout', ['F', 'strided'])
def test_memory_layouts(layout):
    x = normal(8, 2 * SIZE)
    x = (numpy.asfortranarray(x[:, :SIZE]) if layout == 'F'
         else x[::2, ::-2])
    numpy.testing.assert_allclose(
        sl.fold(x, N_TILES, random_order()).array,
        x @ sharing_matrix(random_order(), N_TILES).T)


@pytest.mark.parametrize('function,width', [(sl.fold, SIZE), (sl.tile, WIDTH)])
def test_gradients_of_fold_and_tile(function, width):
    def f(x):
        return function(x, N_TILES, random_order())
    x = normal(3, width)
    gy = normal(*f(x).shape, seed=1)
    gradient_check.check_backward(
        f, x, gy, rtol=1e-7, atol=1e-7, dtype=numpy.float64)
    gradient_check.check_double_backward(
        lambda x: f(x) ** 2, x, gy, normal(3, width, seed=2), rtol=1e-6,
        atol=1e-6, dtype=numpy.float64)


def make_link(**kwargs):
    return sl.SharedLinear(
        SIZE, OUT, n_tiles=N_TILES, order=random_order(), **kwargs)


@kinds.EACH_ORDERED
def test_an_order_gives_the_input_size(kind):
    assert kind.make(lazy=True).in_size == SIZE


@kinds.EACH_ORDERED
def test_the_order_is_a_copy(kind):
    order = kind.order.astype(numpy.int32)
    link = kind.make(order=order)
    order[:] = 0
    numpy.testing.assert_array_equal(link.order, kind.order)
    assert link.order.dtype == numpy.int32


@pytest.mark.parametrize('save,load', [
    (chainer.serializers.save_npz, chainer.serializers.load_npz),
    (chainer.serializers.save_hdf5, chainer.serializers.load_hdf5)])
def test_plain_snapshots(tmp_path, save, load):
    plain = sl.SharedLinear(SIZE, OUT, n_tiles=N_TILES)
    save(tmp_path / 'snapshot.npz', plain)
    with pytest.raises(KeyError):
        load(tmp_path / 'snapshot.npz', make_link())
    other = sl.SharedLinear(OUT, n_tiles=N_TILES)
    load(tmp_path / 'snapshot.npz', other)
    assert other.order is None


def test_a_plain_snapshot_has_the_names_of_a_dense_layer(tmp_path):
    for name, link in (
            ('shared', sl.SharedLinear(SIZE, OUT, n_tiles=N_TILES)),
            ('dense', L.Linear(SIZE, OUT)), ('ordered', make_link())):
        chainer.serializers.save_npz(tmp_path / (name + '.npz'), link)
    names = {name: set(numpy.load(tmp_path / (name + '.npz')))
             for name in ('shared', 'dense', 'ordered')}
    assert names['shared'] == names['dense']
    assert names['ordered'] == names['dense'] | {'order'}


def test_a_snapshot_of_another_size(tmp_path):
    chainer.serializers.save_npz(tmp_path / 'snapshot.npz', make_link())
    link = sl.SharedLinear(2 * SIZE, OUT, n_tiles=N_TILES)
    with pytest.raises(ValueError, match='the 24 inputs, but has 12'):
        chainer.serializers.load_npz(tmp_path / 'snapshot.npz', link)


def test_orders_as_rows_are_for_blocks():
    with pytest.raises(ValueError, match=r'one axis, not the shape \(2, 6\)'):
        sl.SharedLinear(
            SIZE, OUT, n_tiles=N_TILES, order=random_order().reshape(2, 6))


def test_an_order_of_another_width():
    for call in (
            lambda: sl.fold(normal(2, SIZE), 2, [1, 0]),
            lambda: sl.tile(normal(2, SIZE), 2, [1, 0]),
            lambda: sl.shared_linear(
                normal(2, SIZE), normal(OUT, WIDTH), order=[1, 0])):
        with pytest.raises(
                chainer.utils.type_check.InvalidType,
                match=r'order\.(size = 2|shape = \(2,\))'):
            call()


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', TOLERANCE)
def test_gpu(dtype):
    cupy = chainer.backends.cuda.cupy
    x = normal(7, SIZE, dtype=dtype)
    z = sl.fold(cupy.asarray(x), N_TILES, random_order())
    expected = x.astype(float) @ sharing_matrix(random_order(), N_TILES).T
    numpy.testing.assert_allclose(
        cupy.asnumpy(z.array), expected, atol=TOLERANCE[dtype],
        rtol=TOLERANCE[dtype])
    link = make_link(initialW=chainer.initializers.Normal(dtype=dtype),
                     initial_bias=chainer.initializers.Zero(dtype=dtype))
    y = link(x)
    link.to_device('@cupy:0')
    assert isinstance(link.order, cupy.ndarray)
    numpy.testing.assert_allclose(
        cupy.asnumpy(link(cupy.asarray(x)).array), y.array,
        rtol=5 * TOLERANCE[dtype], atol=5 * TOLERANCE[dtype])
