"""Whatever the shapes, strides and dtypes: the float64 reference's numbers."""
import chainer
import numpy
import reference
from hypothesis import example, given, settings
from hypothesis import strategies as st

import shared_linear as sl
from shared_linear.layers import function

# Relative to the sum of the absolute terms, which bounds the rounding.
ROUNDING = {'e': 2e-3, 'f': 2e-6, 'd': 1e-14}

LAYOUTS = [
    'C', 'F', 'reversed', 'strided', 'broadcast', 'transposed', 'read-only',
    'unaligned']


def lay_out(array, layout):
    """The same numbers in another memory order."""
    if layout == 'F':
        return numpy.asfortranarray(array)
    if layout == 'reversed':
        flip = (slice(None, None, -1),) * array.ndim
        return array[flip].copy()[flip]
    if layout == 'strided':
        wide = numpy.zeros([2 * s for s in array.shape], array.dtype)
        view = wide[(slice(None, None, 2),) * array.ndim]
        view[...] = array
        return view
    if layout == 'broadcast':
        row = array[:1].copy() if array.ndim > 1 else array[:1] * 0 + 1
        return numpy.broadcast_to(row, array.shape)
    if layout == 'transposed':
        return array.T.copy().T if array.ndim < 3 else (
            array.swapaxes(0, -1).copy().swapaxes(0, -1))
    if layout == 'read-only':
        array = array.copy()
        array.flags.writeable = False
        return array
    if layout == 'unaligned':
        raw = numpy.zeros(array.nbytes + 1, 'b')[1:]
        view = raw.view(array.dtype).reshape(array.shape)
        view[...] = array
        return view
    return array.copy()


@st.composite
def problems(draw):
    batch_shape = tuple(draw(st.lists(st.integers(0, 4), min_size=1,
                                      max_size=3)))
    data_shape = tuple(draw(st.lists(st.integers(1, 4), min_size=0,
                                     max_size=2)))
    n_tiles = draw(st.integers(1, 6))
    width = draw(st.integers(1, 5))
    if draw(st.booleans()):
        data_shape = data_shape + (n_tiles * width,)
    else:
        data_shape = (n_tiles * width,) + data_shape
    in_size = int(numpy.prod(data_shape))
    n_batch_axes = len(batch_shape)
    x_dtype, W_dtype = draw(st.sampled_from('efd')), draw(
        st.sampled_from('efd'))
    out_size = draw(st.integers(0, 5))
    rng = numpy.random.RandomState(draw(st.integers(0, 2 ** 16)))

    def array(shape, dtype):
        values = rng.uniform(-1, 1, shape).astype(dtype)
        return lay_out(values, draw(st.sampled_from(LAYOUTS)))

    x = array(batch_shape + data_shape, x_dtype)
    W = array((out_size, in_size // n_tiles), W_dtype)
    b = array((out_size,), x_dtype) if draw(st.booleans()) else None
    gy = array(batch_shape + (out_size,), x_dtype)
    return x, W, b, gy, n_batch_axes


def assert_close(actual, expected, bound, dtype):
    """Within the rounding of a sum of terms of this absolute total."""
    assert actual.shape == expected.shape
    error = abs(actual.astype('d') - expected)
    assert (error <= ROUNDING[dtype] * (bound + 1e-3)).all()


@settings(max_examples=400, deadline=None, derandomize=True)
@given(problems(), st.sampled_from(function.METHODS))
def test_forward_and_gradients(problem, method):
    x, W, b, gy, n_batch_axes = problem
    arrays = [a for a in (x, W, b) if a is not None]
    before = [a.tobytes() for a in [*arrays, gy]]
    inputs = [chainer.Variable(a) for a in arrays]
    y = sl.shared_linear(*inputs, n_batch_axes=n_batch_axes, method=method)
    y.grad = gy
    y.backward()

    assert y.dtype == x.dtype
    assert before == [a.tobytes() for a in [*arrays, gy]]

    absolute = [None if a is None else abs(a.astype('d')) for a in (x, W, b)]
    low = min([x.dtype.char, W.dtype.char], key='efd'.index)
    assert_close(
        y.array, reference.shared_linear(x, W, b, n_batch_axes),
        reference.shared_linear(*absolute, n_batch_axes), low)
    grads = reference.gradients(x, W, gy, n_batch_axes)
    bounds = reference.gradients(
        *absolute[:2], abs(gy.astype('d')), n_batch_axes)
    for v, grad, bound in zip(inputs, grads, bounds, strict=False):
        assert v.grad.dtype == v.dtype
        assert_close(v.grad, grad, bound, low)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(problems(), st.sampled_from(function.METHODS), st.integers(0, 99))
def test_second_gradients(problem, method, seed):
    x, W, b, gy, n_batch_axes = problem
    rng = numpy.random.RandomState(seed)
    if b is None:
        b = numpy.zeros(len(W), x.dtype)
    inputs = [chainer.Variable(a) for a in (x, W, b)]
    directions = [
        rng.uniform(-1, 1, v.shape).astype(v.dtype) for v in inputs]
    gy_ = chainer.Variable(gy)
    y = sl.shared_linear(*inputs, n_batch_axes=n_batch_axes, method=method)
    first = chainer.grad([y], inputs, [gy_], enable_double_backprop=True)
    second = chainer.grad(
        first, [*inputs[:2], gy_], [chainer.Variable(d) for d in directions])

    low = min([x.dtype.char, W.dtype.char], key='efd'.index)
    args = [x, W, gy, *directions]
    expected = reference.second_gradients(*args, n_batch_axes)
    bounds = reference.second_gradients(
        *[abs(a.astype('d')) for a in args], n_batch_axes)
    for g, e, bound in zip(second, expected, bounds, strict=True):
        assert_close(g.array, e, bound, low)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(0, 4), max_size=3), st.integers(0, 5),
    st.integers(1, 7), st.sampled_from('efd'), st.sampled_from(LAYOUTS))
@example([3, 2], 4, 5, 'f', 'C')
def test_fold_and_tile(shape, width, n_tiles, dtype, layout):
    values = numpy.random.RandomState(0).uniform(
        -1, 1, [*shape, n_tiles * width]).astype(dtype)
    x = lay_out(values, layout)
    before = x.tobytes()
    folded = sl.fold(x, n_tiles)
    tiled = sl.tile(x, n_tiles)
    assert folded.dtype == tiled.dtype == x.dtype
    assert before == x.tobytes()
    numpy.testing.assert_array_equal(tiled.array, reference.tile(x, n_tiles))
    assert_close(
        folded.array, reference.fold(x, n_tiles),
        reference.fold(abs(x.astype('d')), n_tiles), dtype)
