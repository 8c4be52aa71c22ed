"""MixedLinear.from_linear: a dense layer fitted, stacked over the blocks."""
import numpy
import pytest
import reference

import shared_linear as sl
from shared_linear.compression.calibration import RIDGE

import chainer  # isort: skip
import chainer.links as L  # isort: skip

IN, OUT = 12, 6
ORDER = numpy.random.RandomState(3).permutation(IN)
SHARES = [(3, 2), (1, 3), (4, 1), (12, 6), (2, 6), (1, 1)]


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


def folded(x, n_tiles, n_blocks, seed, order=None):
    """What each block sees, from the formula."""
    return [
        reference.fold(x[:, p] * numpy.array(s), n_tiles)
        for p, s in reference.mixed_permutations(
            x.shape[1], n_blocks, seed, order)]


def expected_fit(x, dense, has_bias, n_tiles, n_blocks, seed, order=None):
    """Least squares on the rows of all blocks, with the ridge as more rows."""
    V = dense.W.array.astype(float)
    y = x @ V.T + (0 if dense.b is None else dense.b.array)
    x_mean, y_mean = (a.mean(0) if has_bias else 0 * a[0] for a in (x, y))
    # Without any variance, the ridge alone decides.
    ridge = numpy.sqrt(
        RIDGE * ((x - x_mean) ** 2).mean() * len(x) or 1) * numpy.eye(IN)
    mixing = n_tiles, n_blocks, seed, order
    design = folded(x - x_mean, *mixing) + folded(ridge, *mixing)
    target = numpy.split(y - y_mean, n_blocks, axis=1) + numpy.split(
        ridge @ V.T, n_blocks, axis=1)
    W = numpy.linalg.lstsq(
        numpy.concatenate(design), numpy.concatenate(target), rcond=None)[0].T
    b = y_mean - numpy.concatenate([
        z[0] @ W.T for z in folded(x_mean[None], *mixing)])
    return W, b if has_bias else None


def check(mixed, W, b, tolerance=1e-8):
    numpy.testing.assert_allclose(
        mixed.W.array, W, rtol=tolerance, atol=tolerance)
    if b is None:
        assert mixed.b is None
    else:
        numpy.testing.assert_allclose(
            mixed.b.array, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('n_tiles, n_blocks', SHARES)
@pytest.mark.parametrize('order', [None, ORDER], ids=['random', 'order'])
@pytest.mark.parametrize('nobias, add_bias', [
    (False, False), (False, True), (True, False), (True, True)])
def test_least_squares(n_tiles, n_blocks, order, nobias, add_bias):
    dense, x = make_dense(nobias), make_inputs()
    mixed = sl.MixedLinear.from_linear(
        dense, n_tiles, x, order, n_blocks=n_blocks, seed=4,
        add_bias=add_bias)
    assert (mixed.n_tiles, mixed.n_blocks, mixed.seed) == (
        n_tiles, n_blocks, 4)
    assert mixed.W.shape == (OUT // n_blocks, IN // n_tiles)
    has_bias = add_bias or not nobias
    check(mixed, *expected_fit(
        x, dense, has_bias, n_tiles, n_blocks, 4, order))


@pytest.mark.parametrize('n_tiles, n_blocks', SHARES)
@pytest.mark.parametrize('order', [None, ORDER], ids=['random', 'order'])
@pytest.mark.parametrize('nobias', [False, True])
def test_without_inputs_it_is_the_nearest_weight(
        n_tiles, n_blocks, order, nobias):
    """On inputs of no correlation: least squares on the identity."""
    dense = make_dense(nobias)
    mixed = sl.MixedLinear.from_linear(
        dense, n_tiles, order=order, n_blocks=n_blocks, seed=4)
    W = numpy.linalg.lstsq(
        numpy.concatenate(
            folded(numpy.eye(IN), n_tiles, n_blocks, 4, order)),
        numpy.concatenate(numpy.split(dense.W.array.T, n_blocks, axis=1)),
        rcond=None)[0].T
    check(mixed, W, None if nobias else dense.b.array, 1e-12)


@pytest.mark.parametrize('n_tiles, n_blocks', SHARES)
@pytest.mark.parametrize('order', [None, ORDER], ids=['random', 'order'])
@pytest.mark.parametrize('x', [None, make_inputs()], ids=['mean', 'fit'])
def test_a_mixed_dense_weight_is_recovered(n_tiles, n_blocks, order, x):
    random = numpy.random.RandomState(2)
    W = random.normal(size=(OUT // n_blocks, IN // n_tiles))
    dense = make_dense()
    dense.W.array[...] = reference.mixed_weight(W, n_tiles, n_blocks, 4, order)
    mixed = sl.MixedLinear.from_linear(
        dense, n_tiles, x, order, n_blocks=n_blocks, seed=4)
    check(mixed, W, dense.b.array, 1e-9)
    x = make_inputs(seed=5)
    numpy.testing.assert_allclose(mixed(x).array, dense(x).array, rtol=1e-7)


def test_with_another_seed_it_is_not():
    """So the seed is that of the permutations, and not of something else."""
    mixed = sl.MixedLinear(IN, OUT, n_tiles=3, n_blocks=2, seed=4)
    again = sl.MixedLinear.from_linear(
        mixed.to_linear(), 3, make_inputs(), n_blocks=2, seed=5)
    x = make_inputs(dtype=numpy.float32)
    y = mixed(x).array
    assert ((again(x).array - y) ** 2).sum() > .1 * (
        (y - y.mean(0)) ** 2).sum()


def test_the_fit_is_better_than_the_mean():
    dense, x = make_dense(), make_inputs()
    errors = [
        ((sl.MixedLinear.from_linear(dense, 3, given, n_blocks=2)(x).array
          - dense(x).array) ** 2).sum() for given in (None, x)]
    assert errors[0] > errors[1]


def constant(x):
    x[:, [1, 5]] = 3


def dead(x):
    x[:, [0, 7, 8]] = 0


def twins(x):
    x[:, 6:] = x[:, :6]


def all_constant(x):
    x[:] = 3  # Its mean is no rounded number.


@pytest.mark.parametrize('spoil', [constant, dead, twins, all_constant])
@pytest.mark.parametrize('nobias', [False, True])
def test_inputs_that_decide_too_little(spoil, nobias):
    """There the ridge draws to the nearest weight."""
    dense, x = make_dense(nobias), make_inputs()
    spoil(x)
    mixed = sl.MixedLinear.from_linear(dense, 3, x, n_blocks=2, seed=4)
    check(mixed, *expected_fit(x, dense, not nobias, 3, 2, 4), 1e-7)
    if spoil is all_constant and not nobias:
        nearest = sl.MixedLinear.from_linear(dense, 3, n_blocks=2, seed=4)
        check(mixed, nearest.W.array, mixed.b.array)
        numpy.testing.assert_allclose(mixed(x).array, dense(x).array)


@pytest.mark.parametrize('count', [1, 2, 3])
@pytest.mark.parametrize('n_tiles, n_blocks', [(1, 2), (2, 3), (1, 1)])
def test_fewer_inputs_than_columns(count, n_tiles, n_blocks):
    dense, x = make_dense(), make_inputs(count)
    mixed = sl.MixedLinear.from_linear(
        dense, n_tiles, x, n_blocks=n_blocks, seed=4)
    check(mixed, *expected_fit(x, dense, True, n_tiles, n_blocks, 4), 1e-6)
    assert numpy.isfinite(mixed.W.array).all()


@pytest.mark.parametrize('make', [
    lambda x: chainer.Variable(x),
    lambda x: chainer.datasets.TupleDataset(x, numpy.zeros(len(x))),
    lambda x: iter([x[:33], x[33:]]),
    lambda x: chainer.iterators.SerialIterator(list(x), 40, shuffle=False),
    lambda x: x.reshape(-1, 3, 2, 2),
], ids=['Variable', 'dataset', 'iterator', 'SerialIterator', 'images'])
def test_kinds_of_inputs(make):
    dense, x = make_dense(), make_inputs()
    mixed = sl.MixedLinear.from_linear(
        dense, 3, make(x), n_blocks=2, seed=4)
    check(mixed, *expected_fit(x, dense, True, 3, 2, 4))


@pytest.mark.parametrize('dtype, tolerance', [
    (numpy.float16, 2e-3), (numpy.float32, 1e-5), (numpy.float64, 1e-8)])
@pytest.mark.parametrize('given', [False, True])
def test_dtypes(dtype, tolerance, given):
    dense = make_dense(dtype=dtype)
    x = make_inputs(dtype=numpy.float32)
    mixed = sl.MixedLinear.from_linear(
        dense, 3, x if given else None, n_blocks=2, seed=4)
    assert {p.dtype for p in mixed.params()} == {numpy.dtype(dtype)}
    if given:
        check(mixed, *expected_fit(
            x.astype(float), dense, True, 3, 2, 4), tolerance)


def test_the_dense_layer_is_not_changed():
    dense, x = make_dense(), make_inputs()
    before = [p.array.copy() for p in dense.params()], x.copy()
    for given in None, x:
        mixed = sl.MixedLinear.from_linear(dense, 3, given, n_blocks=2)
        for p in mixed.params():
            p.array[...] = 0
    for p, array in zip(dense.params(), before[0], strict=True):
        numpy.testing.assert_array_equal(p.array, array)
    numpy.testing.assert_array_equal(x, before[1])


@pytest.mark.parametrize('arguments, error, message', [
    ({'n_tiles': 5}, ValueError, 'n_tiles = 5 .* 12; .* are 4 and 6'),
    ({'n_tiles': 0}, ValueError, 'n_tiles must be a positive int, not 0'),
    ({'n_blocks': 4}, ValueError, 'n_blocks = 4 .* 6; .* are 3 and 6'),
    ({'n_blocks': 0}, ValueError, 'n_blocks must be a positive int, not 0'),
    ({'n_blocks': 1.5}, TypeError, 'n_blocks must be a positive int'),
    ({'n_blocks': True}, TypeError, 'n_blocks must be a positive int'),
    ({'seed': -1}, ValueError, 'seed must be at least 0'),
    ({'seed': 'a'}, TypeError, "seed must be an int, not 'a'"),
    ({'order': [.5] * 12}, TypeError, 'order must be'),
    ({'order': numpy.zeros(12, int)}, ValueError, 'order must be'),
    ({'order': numpy.arange(6)}, ValueError, 'order must be'),
    ({'add_bias': True, 'x': None}, ValueError, 'add_bias=True needs inputs'),
    ({'x': numpy.empty((0, 12))}, ValueError, 'no calibration inputs'),
    ({'x': numpy.ones((3, 13))}, ValueError, '13 elements .* takes 12'),
    ({'x': numpy.full((3, 12), numpy.inf)}, ValueError, 'finite'),
    ({'x': 'digits'}, TypeError, 'calibration inputs must be'),
    ({'link': L.Convolution2D(1, 2, 3)}, TypeError, 'not a Convolution2D'),
    ({'link': L.Linear(6)}, ValueError, 'has no weight yet'),
    ({'link': sl.SharedLinear(6, 3, n_tiles=2)}, TypeError,
     'a chainer.links.Linear, not a SharedLinear'),
])
def test_bad_arguments(arguments, error, message):
    given = {'link': make_dense(), 'n_tiles': 3, 'x': make_inputs(),
             'n_blocks': 2, **arguments}
    with pytest.raises(error, match=message):
        sl.MixedLinear.from_linear(**given)


@pytest.mark.gpu
@pytest.mark.parametrize('given', [False, True])
def test_gpu(given):
    dense, x = make_dense(), make_inputs()
    expected = sl.MixedLinear.from_linear(
        dense, 3, x if given else None, n_blocks=2)
    dense.to_device('@cupy:0')
    mixed = sl.MixedLinear.from_linear(
        dense, 3, dense.xp.asarray(x) if given else None, n_blocks=2)
    assert {p.device for p in mixed.params()} == {dense.device}
    mixed.to_device('@numpy')
    check(mixed, expected.W.array, expected.b.array, 1e-7)
