"""The search for which inputs share."""
import itertools
import tracemalloc
import warnings

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shared_linear as sl
from shared_linear.compression import grouping
from shared_linear.compression.swap_search import SwapSearch
from shared_linear.layers import tiling


def covariance(size, seed=0):
    random = numpy.random.RandomState(seed)
    x = random.normal(size=(3 * size, size)) @ random.normal(
        size=(size, size))
    return numpy.cov(x.T)


def problem(size, out_size=5, seed=0):
    S = covariance(size, seed)
    W = numpy.random.RandomState(seed + 1).normal(size=(out_size, size))
    return S, S @ W.T @ W @ S


def explained(S, Q, groups):
    """J by its definition."""
    F = numpy.eye(groups.max() + 1)[:, groups]
    return numpy.trace(numpy.linalg.solve(F @ S @ F.T, F @ Q @ F.T))


def random_groups(size, n_groups, seed=0):
    return numpy.random.RandomState(seed).permutation(
        numpy.arange(size) % n_groups)


def swapped(groups, a, b):
    groups = groups.copy()
    groups[a], groups[b] = groups[b], groups[a]
    return groups


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 4), st.integers(2, 5), st.integers(0, 999))
def test_gains_are_differences_of_the_objective(n_tiles, n_groups, seed):
    size = n_tiles * n_groups
    S, Q = problem(size, seed=seed)
    groups = random_groups(size, n_groups, seed)
    search = SwapSearch(S, Q, groups)
    now = explained(S, Q, groups)
    numpy.testing.assert_allclose(search.explained, now, rtol=1e-7)
    gains = search.rate(numpy.arange(size))
    for a, b in itertools.product(range(size), repeat=2):
        if groups[a] == groups[b]:
            assert gains[a, b] == -numpy.inf
        else:
            numpy.testing.assert_allclose(
                gains[a, b], explained(S, Q, swapped(groups, a, b)) - now,
                rtol=1e-6, atol=1e-7 * now)


def test_updates_are_what_computing_anew_gives():
    S, Q = problem(24)
    search = SwapSearch(S, Q, random_groups(24, 6))
    random = numpy.random.RandomState(0)
    n_swaps = 0
    for _ in range(200):
        a, b = random.choice(24, 2, replace=False)
        if search.groups[a] != search.groups[b]:
            expected = swapped(search.groups, a, b)
            # Swaps that make it worse are taken, too.
            if search.swap(a, b, -numpy.inf):
                n_swaps += 1
                numpy.testing.assert_array_equal(search.groups, expected)
    assert n_swaps > 100
    anew = SwapSearch(S, Q, search.groups)
    for name in ('T', 'R', 'P', 'G', 'PT_own', 'E_own', 'H_diagonal',
                 'L_diagonal', 'explained'):
        value = getattr(anew, name)
        numpy.testing.assert_allclose(
            getattr(search, name), value, rtol=1e-5,
            atol=1e-7 * numpy.abs(value).max())


def test_a_swap_that_gains_too_little_is_left():
    S, Q = problem(12)
    search = SwapSearch(S, Q, random_groups(12, 4))
    gains = search.rate(numpy.arange(12))
    gains[gains == -numpy.inf] = numpy.inf
    a, b = numpy.unravel_index(gains.argmin(), gains.shape)
    assert gains[a, b] < 0
    before = search.groups.copy(), search.explained
    assert not search.swap(a, b, 0.)
    numpy.testing.assert_array_equal(search.groups, before[0])
    assert search.explained == before[1]


def all_groupings(size, n_tiles):
    """Every way to put inputs in groups of n_tiles, once."""
    def extend(left):
        if not left:
            yield []
            return
        for others in itertools.combinations(left[1:], n_tiles - 1):
            group = (left[0], *others)
            rest = [i for i in left if i not in group]
            for groups in extend(rest):
                yield [group, *groups]
    for members in extend(list(range(size))):
        groups = numpy.empty(size, int)
        for i, group in enumerate(members):
            groups[list(group)] = i
        yield groups


def with_ridge(x):
    S = numpy.cov(x.T, bias=True)
    return S + grouping.RIDGE * S.trace() / len(S) * numpy.eye(len(S))


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('n_tiles,size', [(2, 8), (3, 9), (4, 8)])
def test_brute_force(n_tiles, size, seed):
    random = numpy.random.RandomState(seed)
    x = random.normal(size=(50, size)) @ random.normal(size=(size, size))
    W = random.normal(size=(3, size))
    S = with_ridge(x)
    Q = S @ W.T @ W @ S
    best = max(
        explained(S, Q, groups) for groups in all_groupings(size, n_tiles))
    order = sl.group_inputs(x, n_tiles, W)
    found = explained(S, Q, tiling.find_groups(order, n_tiles))
    numpy.testing.assert_allclose(found, best, rtol=1e-9)


def test_equal_weights_share():
    random = numpy.random.RandomState(0)
    W = random.normal(size=(4, 5)).repeat(6, axis=1)
    shuffled = random.permutation(30)
    order = sl.group_inputs(
        random.normal(size=(200, 30)), 6, W[:, shuffled])
    groups = order.reshape(6, 5)
    for group in groups.T:
        assert len(set(shuffled[group] // 6)) == 1


def test_without_a_weight_repeated_columns_share():
    x = numpy.random.RandomState(0).normal(size=(100, 10))
    shuffled = numpy.random.RandomState(1).permutation(20)
    order = sl.group_inputs(numpy.repeat(x, 2, axis=1)[:, shuffled], 2)
    for group in order.reshape(2, 10).T:
        assert len(set(shuffled[group] // 2)) == 1


def test_the_search_beats_its_start_and_the_plain_order():
    S, Q = problem(60, out_size=20)
    x = numpy.random.RandomState(0).multivariate_normal(
        numpy.zeros(60), S, 500)
    W = numpy.random.RandomState(1).normal(size=(20, 60))

    def error(order):
        F = numpy.eye(15)[:, tiling.find_groups(order, 4)]
        y = (x - x.mean(0)) @ W.T
        z = (x - x.mean(0)) @ F.T
        residual = y - z @ numpy.linalg.lstsq(z, y, rcond=None)[0]
        return (residual ** 2).sum()

    start = sl.group_inputs(x, 4, W, n_sweeps=0)
    local = sl.group_inputs(x, 4, W, n_sweeps=10)
    best = sl.group_inputs(x, 4, W, n_sweeps=60)
    assert error(start) < error(numpy.arange(60))
    assert error(local) < .9 * error(start)
    assert error(best) <= error(local) * (1 + 1e-9)


def test_more_sweeps_never_give_a_worse_order():
    random = numpy.random.RandomState(0)
    x, W = random.normal(size=(200, 60)), random.normal(size=(20, 60))
    S = with_ridge(x)
    Q = S @ W.T @ W @ S
    found = [
        explained(S, Q, tiling.find_groups(
            sl.group_inputs(x, 4, W, n_sweeps=n), 4)) for n in range(40)]
    assert (numpy.diff(found) > -1e-9 * found[0]).all()
    assert found[-1] > found[0]


def test_repeatable():
    x = numpy.random.RandomState(0).normal(size=(50, 60))
    state = numpy.random.get_state()[1].copy()
    orders = [sl.group_inputs(x, 3, n_sweeps=3, seed=s) for s in (5, 5, 6)]
    numpy.testing.assert_array_equal(orders[0], orders[1])
    assert (orders[0] != orders[2]).any()
    numpy.testing.assert_array_equal(numpy.random.get_state()[1], state)


def test_the_order_is_the_first_of_equal_ones():
    x = numpy.random.RandomState(0).normal(size=(50, 24))
    order = sl.group_inputs(x, 3, n_sweeps=4)
    members = order.reshape(3, 8)
    assert (numpy.diff(members, axis=0) > 0).all()
    assert (numpy.diff(members[0]) > 0).all()
    assert order.dtype == numpy.int32


def test_a_time_limit_is_not_silent():
    x = numpy.random.RandomState(0).normal(size=(50, 24))
    with pytest.warns(
            sl.StoppedByTimeLimit, match='after 0 of 60 sweeps; n_sweeps=0'):
        stopped = sl.group_inputs(x, 4, time_limit=0)
    numpy.testing.assert_array_equal(
        stopped, sl.group_inputs(x, 4, n_sweeps=0))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        sl.group_inputs(x, 4, n_sweeps=2, time_limit=1000)


def test_fewer_sweeps_where_they_take_long():
    assert grouping.default_sweeps(784, 14) == 60
    assert grouping.default_sweeps(1000, 2) == 30
    assert 3 <= grouping.default_sweeps(4096, 2) < 10


def test_progress_bar(capsys):
    x = numpy.random.RandomState(0).normal(size=(50, 24))
    sl.group_inputs(x, 4, n_sweeps=3, progress=True)
    assert 'of 3 sweeps' in capsys.readouterr().out
    sl.group_inputs(x, 4, n_sweeps=3)
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize('n_tiles', [1, 6])
def test_nothing_to_choose(n_tiles):
    x = numpy.random.RandomState(0).normal(size=(50, 6))
    numpy.testing.assert_array_equal(
        sl.group_inputs(x, n_tiles), numpy.arange(6))


@pytest.mark.parametrize('x', [
    numpy.ones((10, 12)),
    numpy.zeros((10, 12)),
    numpy.random.RandomState(0).normal(size=(3, 12)),
    numpy.random.RandomState(0).normal(size=(1, 12)),
    numpy.random.RandomState(0).normal(size=(99, 1)).repeat(12, axis=1),
    1e6 + numpy.random.RandomState(0).normal(size=(99, 12)),
    numpy.random.RandomState(0).randint(0, 256, (99, 3, 4), numpy.uint8),
], ids=['constant', 'zero', 'few', 'one', 'repeated', 'far', 'bytes'])
def test_ill_conditioned_inputs(x):
    order = sl.group_inputs(x, 3, n_sweeps=5)
    numpy.testing.assert_array_equal(numpy.sort(order), numpy.arange(12))


def test_memory():
    """The search needs a few matrices of S's size, whatever the sweeps."""
    x = numpy.random.RandomState(0).normal(size=(400, 200))
    tracemalloc.start()
    sl.group_inputs(x, 4, n_sweeps=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 8 * 200 ** 2 + 8 * 3 * x.size


@pytest.mark.parametrize('x,n_tiles,W,error,message', [
    (numpy.zeros((0, 6)), 2, None, ValueError, 'no calibration inputs'),
    (numpy.ones((5, 6)), 4, None, ValueError, 'does not divide 6'),
    (numpy.ones((5, 6)), 0, None, ValueError, 'n_tiles'),
    (numpy.ones((5, 6)), 2., None, TypeError, 'n_tiles'),
    (numpy.ones(6), 2, None, ValueError, 'in batches'),
    (numpy.full((5, 6), numpy.nan), 2, None, ValueError, 'NaN'),
    (numpy.full((5, 6), numpy.inf), 2, None, ValueError, 'infinite'),
    (numpy.ones((5, 6)), 2, numpy.ones((3, 8)), ValueError,
     '6 elements each, but the layer takes 8'),
    (numpy.ones((5, 6)), 2, numpy.ones(6), ValueError, r'\(out_size, in_size'),
    (numpy.ones((5, 6), complex), 2, None, TypeError, 'complex128'),
    ('digits', 2, None, TypeError, 'not a str'),
    (3, 2, None, TypeError, 'not a int'),
])
def test_bad_input(x, n_tiles, W, error, message):
    with pytest.raises(error, match=message):
        sl.group_inputs(x, n_tiles, W)


def test_a_negative_limit():
    with pytest.raises(ValueError, match='n_sweeps must not be negative'):
        sl.group_inputs(numpy.ones((5, 6)), 2, n_sweeps=-1)
