"""from_linear of each class: a dense layer fitted on real inputs.

With n_blocks, the fit is stacked over the blocks.
"""
import held_out
import numpy
import pytest
import reference

import shared_linear as sl
from shared_linear.compression import from_dense
from shared_linear.compression.calibration import Moments

import chainer  # isort: skip
import chainer.links as L  # isort: skip

IN, OUT, N_TILES = 12, 6, 3
ORDER = numpy.random.RandomState(3).permutation(IN)


def shared(n_tiles, **arguments):
    return sl.SharedLinear, {'n_tiles': n_tiles, **arguments}


def mixed(n_tiles, n_blocks, **arguments):
    return sl.MixedLinear, {
        'n_tiles': n_tiles, 'n_blocks': n_blocks, 'seed': 4, **arguments}


SHARES = {
    '{} tiles, {}'.format(n_tiles, order_name): shared(n_tiles, order=order)
    for n_tiles in (1, 2, 3, 12)
    for order_name, order in (('plain', None), ('order', ORDER))}
SHARES.update({
    '{} tiles, {} blocks, {}'.format(*sizes, order_name): mixed(
        *sizes, order=order)
    for sizes in [(3, 2), (1, 3), (4, 1), (12, 6), (2, 6), (1, 1)]
    for order_name, order in (('random', None), ('order', ORDER))})
CLASSES = {'SharedLinear': shared(3), 'MixedLinear': mixed(3, 2)}
EACH, EACH_CLASS = (
    pytest.mark.parametrize(
        'link_class, sharing', table.values(), ids=list(table))
    for table in (SHARES, CLASSES))


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


def folded(x, n_tiles, n_blocks=1, seed=None, order=None):
    """What each block sees, from the formula."""
    if seed is None and order is None:
        return [reference.fold(x, n_tiles)]
    return [
        reference.fold(x[:, p] * numpy.array(s), n_tiles)
        for p, s in reference.mixed_permutations(
            x.shape[1], n_blocks, seed, order)]


def expected_fit(x, dense, has_bias, sharing):
    """Least squares on the rows of all blocks, with the ridge as more rows.

    It is the ridge that is best on every tenth input.
    """
    V = dense.W.array.astype(float)
    y = x @ V.T + (0 if dense.b is None else dense.b.array)
    return held_out.best_of_all(
        x, y, V, [z.T for z in folded(numpy.eye(IN), **sharing)], has_bias)


def check(link, W, b, tolerance=1e-8):
    numpy.testing.assert_allclose(
        link.W.array, W, rtol=tolerance, atol=tolerance)
    if b is None:
        assert link.b is None
    else:
        numpy.testing.assert_allclose(
            link.b.array, b, rtol=tolerance, atol=tolerance)


@EACH
@pytest.mark.parametrize('nobias, add_bias', [
    (False, False), (False, True), (True, False), (True, True)])
def test_least_squares(link_class, sharing, nobias, add_bias):
    dense, x = make_dense(nobias), make_inputs()
    link = link_class.from_linear(dense, x=x, add_bias=add_bias, **sharing)
    for name, value in sharing.items():
        numpy.testing.assert_array_equal(getattr(link, name), value)
    assert link.W.shape == (
        OUT // sharing.get('n_blocks', 1), IN // sharing['n_tiles'])
    has_bias = add_bias or not nobias
    check(link, *expected_fit(x, dense, has_bias, sharing))


@EACH
@pytest.mark.parametrize('nobias', [False, True])
def test_without_inputs_it_is_the_nearest_weight(link_class, sharing, nobias):
    """On inputs of no correlation: least squares on the identity."""
    dense = make_dense(nobias)
    link = link_class.from_linear(dense, **sharing)
    W = numpy.linalg.lstsq(
        numpy.concatenate(folded(numpy.eye(IN), **sharing)),
        numpy.concatenate(numpy.split(
            dense.W.array.T, sharing.get('n_blocks', 1), axis=1)),
        rcond=None)[0].T
    check(link, W, None if nobias else dense.b.array, 1e-12)


def test_without_inputs_it_is_the_mean_of_the_tiles():
    dense = make_dense()
    link = sl.SharedLinear.from_linear(dense, 3, order=ORDER)
    check(
        link, reference.fold(dense.W.array[:, ORDER], 3) / 3, dense.b.array,
        1e-12)


@EACH
@pytest.mark.parametrize('x', [None, make_inputs()], ids=['mean', 'fit'])
def test_what_is_shared_already_is_recovered(link_class, sharing, x):
    dense = make_dense()
    W = numpy.random.RandomState(2).normal(size=(
        OUT // sharing.get('n_blocks', 1), IN // sharing['n_tiles']))
    # <fold(unit), W> of each input, block for block.
    dense.W.array[...] = numpy.concatenate([
        W @ z.T for z in folded(numpy.eye(IN), **sharing)])
    link = link_class.from_linear(dense, x=x, **sharing)
    check(link, W, dense.b.array, 1e-9)
    x = make_inputs(seed=5)
    numpy.testing.assert_allclose(link(x).array, dense(x).array, rtol=1e-7)
    again = link_class.from_linear(link.to_linear(), x=x, **sharing)
    check(again, W, dense.b.array, 1e-8)


def test_with_another_seed_it_is_not():
    """So the seed is that of the permutations, and not of something else."""
    mixed = sl.MixedLinear(IN, OUT, n_tiles=3, n_blocks=2, seed=4)
    again = sl.MixedLinear.from_linear(
        mixed.to_linear(), 3, make_inputs(), n_blocks=2, seed=5)
    x = make_inputs(dtype=numpy.float32)
    y = mixed(x).array
    assert ((again(x).array - y) ** 2).sum() > .1 * (
        (y - y.mean(0)) ** 2).sum()


def squared_error(link):
    x = make_inputs()
    return ((link(x).array - make_dense()(x).array) ** 2).sum()


@EACH_CLASS
def test_the_fit_is_better_than_the_mean(link_class, sharing):
    dense, x = make_dense(), make_inputs()
    errors = [
        squared_error(link_class.from_linear(dense, x=given, **sharing))
        for given in (None, x)]
    assert errors[0] > errors[1]


def test_search_is_group_inputs():
    dense, x = make_dense(), make_inputs()
    link = sl.SharedLinear.from_linear(dense, N_TILES, x, 'search', seed=4)
    numpy.testing.assert_array_equal(
        link.order, sl.group_inputs(x, N_TILES, dense.W, seed=4))
    check(link, *expected_fit(
        x, dense, True, {'n_tiles': N_TILES, 'order': link.order}))
    assert squared_error(link) < squared_error(
        sl.SharedLinear.from_linear(dense, N_TILES, x))


def test_of_few_inputs_the_search_ends_by_what_is_held_out():
    """Where all of it would fit noise."""
    mixture = numpy.random.RandomState(99).normal(size=(30, 60))

    def given(count, seed):
        rng = numpy.random.RandomState(seed)
        x = rng.normal(size=(count, 30)) @ mixture
        return numpy.maximum(x + rng.normal(size=x.shape), 0).astype('f')

    dense, x, other = L.Linear(60, 60), given(30, 1), given(2000, 2)
    dense.W.array[...] = numpy.random.RandomState(5).normal(size=(60, 60))

    def error(order):
        link = sl.SharedLinear.from_linear(dense, 4, x, order)
        return held_out.error(dense(other).array, link(other).array)

    assert error('search') < .9 * error(sl.group_inputs(x, 4, dense.W))


def test_the_ridge_is_chosen_by_what_is_held_out():
    """Of 30 inputs of noise for 12 columns: the rest stays as it was."""
    x, other = (numpy.random.RandomState(seed).normal(size=(n, IN))
                for seed, n in ((0, 30), (1, 1000)))
    dense = make_dense()

    def error(link):
        return ((link(other).array - dense(other).array) ** 2).sum()

    for link_class, sharing in CLASSES.values():
        link = link_class.from_linear(dense, x=x, **sharing)
        check(link, *expected_fit(x, dense, True, sharing))
        little = held_out.fit(
            x, dense(x).array, dense.W.array,
            [z.T for z in folded(numpy.eye(IN), **sharing)], True, 1e-3)
        fitted = link_class.from_linear(dense, x=x[:19], **sharing)
        assert abs(link.W.array - little[0]).max() > 1e-3
        assert error(link) < error(fitted)


@EACH_CLASS
def test_too_wide_for_its_covariance(link_class, sharing, monkeypatch):
    dense, x = make_dense(), make_inputs()
    expected = link_class.from_linear(dense, x=x, **sharing)
    monkeypatch.setattr(from_dense, 'WIDEST_COVARIANCE', 5)
    link = link_class.from_linear(dense, x=x, **sharing)
    # A tenth of the inputs is not fitted to.
    assert squared_error(link) < 1.05 * squared_error(expected)
    few = link_class.from_linear(dense, x=x[:5], **sharing)
    monkeypatch.undo()
    check(link_class.from_linear(dense, x=x[:5], **sharing),
          few.W.array, few.b.array, 1e-3)
    monkeypatch.setattr(from_dense, 'WIDEST_COVARIANCE', 5)
    for bad, message in (x[:0], 'no calibration inputs'), (
            x * numpy.nan, 'finite'), (x[:, 1:], 'takes 12'):
        with pytest.raises(ValueError, match=message):
            link_class.from_linear(dense, x=bad, **sharing)


# Any kind of calibration inputs that are the same numbers.
KINDS_OF_INPUTS = {
    'Variable': lambda x: chainer.Variable(x),
    'more axes': lambda x: x.reshape(-1, 3, 4),
    'images': lambda x: x.reshape(-1, 3, 2, 2),
    'dataset': lambda x: chainer.datasets.TupleDataset(
        x, numpy.zeros(len(x), int)),
    'list of examples': lambda x: list(x),
    'generator': lambda x: (x[i:i + 33] for i in range(0, len(x), 33)),
    'generator of pairs': lambda x: (
        (x[i:i + 33], None) for i in range(0, len(x), 33)),
    'SerialIterator': lambda x: chainer.iterators.SerialIterator(
        chainer.datasets.TupleDataset(x), 50, shuffle=False),
    'SerialIterator, once': lambda x: chainer.iterators.SerialIterator(
        list(x), 33, repeat=False, shuffle=False),
}


@pytest.mark.parametrize('kind', KINDS_OF_INPUTS)
@EACH_CLASS
def test_kinds_of_inputs(link_class, sharing, kind):
    dense, x = make_dense(), make_inputs(250)
    link = link_class.from_linear(
        dense, x=KINDS_OF_INPUTS[kind](x), **sharing)
    check(link, *expected_fit(x, dense, True, sharing))


@EACH_CLASS
def test_an_iterator_is_read_batch_by_batch(link_class, sharing):
    """More inputs than fit in memory: no batch is kept."""
    alive = []

    def batches():
        import weakref
        for seed in range(20):
            batch = make_inputs(10, seed)
            alive.append(weakref.ref(batch))
            assert sum(ref() is not None for ref in alive) <= 2
            yield batch
    link_class.from_linear(make_dense(), x=batches(), **sharing)
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


@EACH_CLASS
def test_float16_inputs_are_added_up_in_float64(link_class, sharing):
    x = make_inputs(5000).astype(numpy.float16)
    dense = make_dense()
    link = link_class.from_linear(dense, x=x, **sharing)
    check(link, *expected_fit(x.astype(float), dense, True, sharing))


def all_constant(x):
    return 3 + 0 * x  # Its mean is no rounded number.


@pytest.mark.parametrize('link_class, sharing', [
    shared(3), shared(3, order='search'), mixed(3, 2), mixed(3, 2, order=ORDER)
], ids=['plain', 'search', 'random', 'order'])
@pytest.mark.parametrize('nobias', [False, True])
@pytest.mark.parametrize('change', [
    lambda x: x * (numpy.arange(IN) % 3 > 0),
    lambda x: numpy.where(numpy.arange(IN) < 6, 7., x),
    lambda x: x[:, [0, 1, 2, 3] * 3],
    lambda x: numpy.concatenate([x[:, :6]] * 2, axis=1),
    lambda x: x[:4],
    lambda x: x[:1],
    lambda x: numpy.zeros_like(x),
    all_constant,
], ids=['dead', 'constant', 'repeated', 'twins', 'few', 'one', 'nothing',
        'all constant'])
def test_ill_conditioned_inputs(link_class, sharing, change, nobias):
    """What was seen is fitted, and the rest stays of a weight's size.

    There the ridge draws to the nearest weight.
    """
    dense, x = make_dense(nobias), change(make_inputs())
    link = link_class.from_linear(dense, x=x, **sharing)
    assert abs(link.W.array).max() < 10 * abs(dense.W.array).max()
    check(link, *expected_fit(
        x, dense, not nobias, {**sharing, 'order': link.order}), 1e-7)
    if change is all_constant and not nobias:
        nearest = link_class.from_linear(
            dense, **{**sharing, 'order': link.order})
        check(link, nearest.W.array, link.b.array)
        numpy.testing.assert_allclose(link(x).array, dense(x).array)


@pytest.mark.parametrize('count', [1, 2, 3])
@pytest.mark.parametrize('link_class, sharing', [
    shared(1), shared(3), mixed(1, 2), mixed(2, 3), mixed(1, 1)])
def test_fewer_inputs_than_columns(link_class, sharing, count):
    dense, x = make_dense(), make_inputs(count)
    link = link_class.from_linear(dense, x=x, **sharing)
    check(link, *expected_fit(x, dense, True, sharing), 1e-6)
    assert numpy.isfinite(link.W.array).all()


@EACH_CLASS
@pytest.mark.parametrize('dtype, tolerance', [
    (numpy.float16, 2e-3), (numpy.float32, 1e-5), (numpy.float64, 1e-8)])
@pytest.mark.parametrize('given', [False, True])
def test_dtype_is_kept(link_class, sharing, dtype, tolerance, given):
    dense = make_dense(dtype=dtype)
    x = make_inputs(dtype=dtype)
    link = link_class.from_linear(dense, x=x if given else None, **sharing)
    assert {p.dtype for p in link.params()} == {numpy.dtype(dtype)}
    if given:
        check(link, *expected_fit(
            x.astype(float), dense, True, sharing), tolerance)


@EACH_CLASS
def test_the_dense_layer_is_not_changed(link_class, sharing):
    dense, x = make_dense(), make_inputs()
    before = [p.array.copy() for p in dense.params()], x.copy()
    for given in None, x:
        link = link_class.from_linear(dense, x=given, **sharing)
        for p in link.params():
            p.array[...] = 0
    for p, array in zip(dense.params(), before[0], strict=True):
        numpy.testing.assert_array_equal(p.array, array)
    numpy.testing.assert_array_equal(x, before[1])


@EACH_CLASS
def test_an_added_bias_has_the_dtype_of_the_weight(link_class, sharing):
    link = link_class.from_linear(
        make_dense(True, numpy.float16), x=make_inputs(), add_bias=True,
        **sharing)
    assert link.b.dtype == numpy.float16


BAD = [
    ({'n_tiles': 5}, ValueError, 'n_tiles = 5 .* 12; .* are 4 and 6'),
    ({'n_tiles': 0}, ValueError, 'n_tiles must be a positive int, not 0'),
    ({'order': [.5] * 12}, TypeError, 'order must be'),
    ({'order': numpy.arange(6)}, ValueError, 'order must be'),
    ({'order': [0] * IN}, ValueError,
     'permutation of 0 to 11, but has 0 12 times'),
    ({'order': [0] * IN, 'x': None}, ValueError, 'order must be'),
    ({'add_bias': True, 'x': None}, ValueError, 'need.* inputs'),
    ({'x': numpy.empty((0, IN))}, ValueError, 'no calibration inputs'),
    ({'x': iter(())}, ValueError, 'no calibration inputs'),
    ({'x': []}, ValueError, 'no calibration inputs'),
    ({'x': numpy.ones((5, 11))}, ValueError,
     r'\(5, 11\) have 11 elements each, but the layer takes 12'),
    ({'x': numpy.ones((3, 13))}, ValueError, '13 elements .* takes 12'),
    ({'x': numpy.full((5, IN), numpy.nan)}, ValueError, 'NaN'),
    ({'x': numpy.full((3, IN), numpy.inf)}, ValueError, 'finite'),
    ({'x': 'digits'}, TypeError, 'calibration inputs must be'),
    ({'link': L.Convolution2D(1, 2, 3)}, TypeError, 'not a Convolution2D'),
    ({'link': L.Linear(6)}, ValueError, 'has no weight yet'),
    ({'link': sl.SharedLinear(6, 3, n_tiles=2)}, TypeError,
     'a chainer.links.Linear, not a SharedLinear'),
]
BAD_OF_A_CLASS = {
    'SharedLinear': [
        ({'order': 'best'}, ValueError, "'best'"),
        ({'order': 'search', 'x': None}, ValueError, 'need inputs x')],
    'MixedLinear': [
        ({'n_blocks': 4}, ValueError, 'n_blocks = 4 .* 6; .* are 3 and 6'),
        ({'n_blocks': 0}, ValueError,
         'n_blocks must be a positive int, not 0'),
        ({'n_blocks': 1.5}, TypeError, 'n_blocks must be a positive int'),
        ({'n_blocks': True}, TypeError, 'n_blocks must be a positive int'),
        ({'seed': -1}, ValueError, 'seed must be at least 0'),
        ({'seed': 'a'}, TypeError, "seed must be an int, not 'a'")]}


@pytest.mark.parametrize('name, arguments, error, message', [
    (name, *bad) for name in CLASSES for bad in BAD + BAD_OF_A_CLASS[name]])
def test_bad_arguments(name, arguments, error, message):
    link_class, sharing = CLASSES[name]
    given = {'link': make_dense(), 'x': make_inputs(), **sharing, **arguments}
    with pytest.raises(error, match=message):
        link_class.from_linear(**given)


@pytest.mark.gpu
@pytest.mark.parametrize('link_class, sharing', [
    shared(3), shared(3, order='search'), mixed(3, 2)])
@pytest.mark.parametrize('given', [False, True])
def test_gpu(link_class, sharing, given):
    if not given:
        sharing = {**sharing, 'order': None}
    dense, x = make_dense(), make_inputs()
    expected = link_class.from_linear(dense, x=x if given else None, **sharing)
    dense.to_device('@cupy:0')
    link = link_class.from_linear(
        dense, x=dense.device.send(x) if given else None, **sharing)
    assert {p.device for p in link.params()} == {dense.device}
    assert link.device == dense.device
    link.to_device('@numpy')
    numpy.testing.assert_array_equal(link.order, expected.order)
    check(link, expected.W.array, expected.b.array, 1e-7)
