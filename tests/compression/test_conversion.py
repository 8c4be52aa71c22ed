"""SharedLinear.from_linear: a dense layer fitted on real inputs."""
import numpy
import pytest

import shared_linear as sl
from shared_linear.compression.calibration import RIDGE, Fit, Moments

import chainer  # isort: skip
import chainer.links as L  # isort: skip

IN, OUT, N_TILES = 12, 5, 3
WIDTH = IN // N_TILES
ORDER = numpy.random.RandomState(3).permutation(IN)


def make_dense(nobias=False, dtype=numpy.float64):
    with chainer.using_config('dtype', dtype):
        dense = L.Linear(IN, OUT, nobias)
    random = numpy.random.RandomState(1)
    for parameter in dense.params():
        parameter.array[...] = random.normal(size=parameter.shape)
    return dense


def make_inputs(count=200, seed=0, dtype=numpy.float64):
    random = numpy.random.RandomState(seed)
    mixture = random.normal(size=(IN, IN))
    return (random.normal(size=(count, IN)) @ mixture + 2).astype(dtype)


def fold(x, order=None):
    """Independent of the package: a sum over explicit columns."""
    x = x if order is None else x[..., order]
    return sum(
        x[..., i * WIDTH:(i + 1) * WIDTH] for i in range(N_TILES))


def expected_fit(x, dense, has_bias, order=None):
    """Least squares on the design matrix, with the ridge as more rows."""
    W = dense.W.array.astype(float)
    b = 0 if dense.b is None else dense.b.array
    y = x @ W.T + b
    centre = x.mean(0) if has_bias else 0
    y_centre = y.mean(0) if has_bias else 0
    squares = ((x - centre) ** 2).sum(0)
    ridge = numpy.sqrt(RIDGE * squares.mean() or 1e-9) * numpy.eye(IN)
    design = numpy.concatenate([fold(x - centre, order), fold(ridge, order)])
    target = numpy.concatenate([y - y_centre, ridge @ W.T])
    solution = numpy.linalg.lstsq(design, target, rcond=None)[0].T
    bias = y_centre - solution @ fold(centre, order) if has_bias else None
    return solution, bias


@pytest.mark.parametrize('order', [None, ORDER], ids=['plain', 'order'])
@pytest.mark.parametrize('nobias', [False, True])
@pytest.mark.parametrize('add_bias', [False, True])
def test_least_squares(order, nobias, add_bias):
    dense, x = make_dense(nobias), make_inputs()
    shared = sl.SharedLinear.from_linear(
        dense, N_TILES, x, order, add_bias=add_bias)
    has_bias = add_bias or not nobias
    W, b = expected_fit(x, dense, has_bias, order)
    numpy.testing.assert_allclose(shared.W.array, W, rtol=1e-8, atol=1e-9)
    if has_bias:
        numpy.testing.assert_allclose(shared.b.array, b, rtol=1e-8, atol=1e-8)
    else:
        assert shared.b is None


def test_the_fit_is_better_than_the_mean_of_the_tiles():
    dense, x = make_dense(), make_inputs()
    errors = [
        ((sl.SharedLinear.from_linear(dense, N_TILES, *args)(x).array
          - dense(x).array) ** 2).sum()
        for args in ((), (x,), (x, 'search'))]
    assert errors[0] > errors[1] > errors[2]


def test_search_is_group_inputs():
    dense, x = make_dense(), make_inputs()
    shared = sl.SharedLinear.from_linear(dense, N_TILES, x, 'search', seed=4)
    numpy.testing.assert_array_equal(
        shared.order, sl.group_inputs(x, N_TILES, dense.W, seed=4))
    W, _ = expected_fit(x, dense, True, shared.order)
    numpy.testing.assert_allclose(shared.W.array, W, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize('order', [None, ORDER], ids=['plain', 'order'])
@pytest.mark.parametrize('x', [None, make_inputs()], ids=['mean', 'fit'])
def test_back_from_the_dense_layer(order, x):
    shared = sl.SharedLinear(IN, OUT, n_tiles=N_TILES, order=order)
    again = sl.SharedLinear.from_linear(shared.to_linear(), N_TILES, x, order)
    numpy.testing.assert_allclose(
        again.W.array, shared.W.array, rtol=1e-4, atol=1e-5)
    numpy.testing.assert_allclose(again.b.array, shared.b.array, atol=1e-4)


def test_the_mean_of_the_tiles_under_an_order():
    dense = make_dense()
    shared = sl.SharedLinear.from_linear(dense, N_TILES, order=ORDER)
    numpy.testing.assert_allclose(
        shared.W.array, fold(dense.W.array, ORDER) / N_TILES)


class Batches:
    """Any kind of calibration inputs that are the same numbers."""

    x = make_inputs(250)
    kinds = {
        'Variable': lambda x: chainer.Variable(x),
        'more axes': lambda x: x.reshape(-1, 3, 4),
        'dataset': lambda x: chainer.datasets.TupleDataset(
            x, numpy.zeros(len(x), int)),
        'list of examples': lambda x: list(x),
        'generator': lambda x: (x[i:i + 33] for i in range(0, len(x), 33)),
        'generator of pairs': lambda x: (
            (x[i:i + 33], None) for i in range(0, len(x), 33)),
        'SerialIterator': lambda x: chainer.iterators.SerialIterator(
            chainer.datasets.TupleDataset(x), 50),
        'SerialIterator, once': lambda x: chainer.iterators.SerialIterator(
            list(x), 33, repeat=False, shuffle=False),
    }


@pytest.mark.parametrize('kind', Batches.kinds)
def test_kinds_of_inputs(kind):
    dense = make_dense()
    expected, expected_b = expected_fit(Batches.x, dense, True)
    shared = sl.SharedLinear.from_linear(
        dense, N_TILES, Batches.kinds[kind](Batches.x))
    numpy.testing.assert_allclose(
        shared.W.array, expected, rtol=1e-8, atol=1e-9)
    numpy.testing.assert_allclose(shared.b.array, expected_b, rtol=1e-8)


def test_an_iterator_is_read_batch_by_batch():
    """More inputs than fit in memory: no batch is kept."""
    alive = []

    def batches():
        import weakref
        for seed in range(20):
            batch = make_inputs(10, seed)
            alive.append(weakref.ref(batch))
            assert sum(ref() is not None for ref in alive) <= 2
            yield batch
    sl.SharedLinear.from_linear(make_dense(), N_TILES, batches())
    assert len(alive) == 20


def test_moments_far_from_zero():
    random = numpy.random.RandomState(0)
    x = 1e8 + random.normal(size=(300, 4))
    y = -1e7 + random.normal(size=(300, 2))
    moments = Moments(4, 2)
    for start in range(0, 300, 70):
        moments.add(x[start:start + 70], y[start:start + 70])
    both = numpy.cov(numpy.concatenate([x, y], 1).T, bias=True)
    numpy.testing.assert_allclose(moments.xx(), both[:4, :4], rtol=1e-6,
                                  atol=1e-8)
    numpy.testing.assert_allclose(moments.yx(), both[4:, :4], rtol=1e-6,
                                  atol=1e-8)
    numpy.testing.assert_allclose(
        moments.yy(), both[4:, 4:].trace(), rtol=1e-6)


def test_float16_inputs_are_added_up_in_float64():
    x = make_inputs(5000).astype(numpy.float16)
    dense = make_dense()
    W, _ = expected_fit(x.astype(float), dense, True)
    shared = sl.SharedLinear.from_linear(dense, N_TILES, x)
    numpy.testing.assert_allclose(shared.W.array, W, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize('has_bias', [False, True])
def test_relative_error(has_bias):
    dense, x = make_dense(not has_bias), make_inputs()
    moments = Moments(IN)
    moments.add(x)
    W = dense.W.array
    b = dense.b.array if has_bias else None
    W_, b_, error = Fit(moments, W, b, has_bias).solve(N_TILES, ORDER)
    y = dense(x).array
    residual = y - fold(x, ORDER) @ W_.T - (b_ if has_bias else 0)
    variance = ((y - (y.mean(0) if has_bias else 0)) ** 2).sum()
    numpy.testing.assert_allclose(
        error, (residual ** 2).sum() / variance, rtol=1e-7)


@pytest.mark.parametrize('change', [
    lambda x: x * (numpy.arange(IN) % 3 > 0),
    lambda x: numpy.where(numpy.arange(IN) < 6, 7., x),
    lambda x: x[:, [0, 1, 2, 3] * 3],
    lambda x: x[:4],
    lambda x: x[:1],
    lambda x: numpy.zeros_like(x),
], ids=['dead', 'constant', 'repeated', 'few', 'one', 'nothing'])
@pytest.mark.parametrize('order', [None, 'search'])
def test_ill_conditioned_inputs(change, order):
    """What was seen is fitted, and the rest stays of a weight's size."""
    dense, x = make_dense(), change(make_inputs())
    shared = sl.SharedLinear.from_linear(dense, N_TILES, x, order)
    assert abs(shared.W.array).max() < 10 * abs(dense.W.array).max()
    W, b = expected_fit(x, dense, True, shared.order)
    numpy.testing.assert_allclose(shared.W.array, W, rtol=1e-5, atol=1e-6)
    numpy.testing.assert_allclose(shared.b.array, b, rtol=1e-5, atol=1e-5)


def test_inputs_that_never_vary_give_the_mean_of_the_tiles():
    dense = make_dense()
    shared = sl.SharedLinear.from_linear(
        dense, N_TILES, numpy.ones((9, IN)))
    numpy.testing.assert_allclose(
        shared.W.array, fold(dense.W.array) / N_TILES)
    numpy.testing.assert_allclose(
        shared(numpy.ones((1, IN))).array, dense(numpy.ones((1, IN))).array)


@pytest.mark.parametrize(
    'dtype', [numpy.float16, numpy.float32, numpy.float64])
def test_dtype_is_kept(dtype):
    dense = make_dense(dtype=dtype)
    before = [p.array.copy() for p in dense.params()]
    shared = sl.SharedLinear.from_linear(
        dense, N_TILES, make_inputs(dtype=dtype), 'search')
    assert shared.W.dtype == shared.b.dtype == dtype
    for parameter, array in zip(dense.params(), before, strict=True):
        numpy.testing.assert_array_equal(parameter.array, array)


def test_an_added_bias_has_the_dtype_of_the_weight():
    shared = sl.SharedLinear.from_linear(
        make_dense(True, numpy.float16), N_TILES, make_inputs(),
        add_bias=True)
    assert shared.b.dtype == numpy.float16


@pytest.mark.parametrize('kwargs,error,message', [
    ({'x': numpy.ones((5, 11))}, ValueError,
     r'\(5, 11\) have 11 elements each, but the layer takes 12'),
    ({'x': numpy.ones((0, IN))}, ValueError, 'no calibration inputs'),
    ({'x': iter(())}, ValueError, 'no calibration inputs'),
    ({'x': []}, ValueError, 'no calibration inputs'),
    ({'x': numpy.full((5, IN), numpy.nan)}, ValueError, 'NaN'),
    ({'x': numpy.ones((5, IN)), 'order': 'best'}, ValueError, "'best'"),
    ({'x': numpy.ones((5, IN)), 'order': [0] * IN}, ValueError,
     'permutation of 0 to 11, but has 0 12 times'),
    ({'order': 'search'}, ValueError, 'need inputs x'),
    ({'add_bias': True}, ValueError, 'need inputs x'),
])
def test_bad_input(kwargs, error, message):
    with pytest.raises(error, match=message):
        sl.SharedLinear.from_linear(make_dense(), N_TILES, **kwargs)


def test_ridge_must_be_positive():
    moments = Moments(IN)
    moments.add(make_inputs())
    with pytest.raises(ValueError, match='ridge must be positive'):
        Fit(moments, make_dense().W.array, None, True, ridge=0.)


@pytest.mark.gpu
def test_gpu():
    dense = make_dense(dtype=numpy.float32)
    expected = sl.SharedLinear.from_linear(
        dense, N_TILES, make_inputs(), 'search')
    dense.to_device('@cupy:0')
    shared = sl.SharedLinear.from_linear(
        dense, N_TILES, dense.device.send(make_inputs()), 'search')
    assert shared.device == dense.device
    shared.to_device('@numpy')
    numpy.testing.assert_array_equal(shared.order, expected.order)
    numpy.testing.assert_allclose(
        shared.W.array, expected.W.array, rtol=1e-4, atol=1e-5)
