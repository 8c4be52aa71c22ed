"""The nearest shared layer to a dense one: what ``from_linear`` does."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import chainer
import chainer.links as L
import numpy

from shared_linear.compression import (
    blocks,
    calibration,
    dense,
    folds,
    grouping,
    regression,
)
from shared_linear.compression.examples import (
    LEAST_HELD_OUT,
    are_held_out,
)
from shared_linear.compression.samples import WIDEST_COVARIANCE, Samples
from shared_linear.layers import checks, tiling
from shared_linear.layers.link import SharedLinear
from shared_linear.layers.low_rank_link import LowRankLinear, low_rank_like
from shared_linear.layers.mixed_link import MixedLinear
from shared_linear.layers.mixing import Mixing
from shared_linear.layers.tiled_link import (
    link_like,
    parameter_arrays,
    register_fit,
    to_cpu,
    to_float64,
)

if TYPE_CHECKING:
    from chainer.types import NdArray


@register_fit(SharedLinear)
def fit_shared(
        cls: type[SharedLinear], link: L.Linear, n_tiles: int, x: Any,
        order: NdArray | str | None, *, add_bias: bool, seed: int,
        n_sweeps: int | None, time_limit: float | None,
        progress: bool) -> SharedLinear:
    W, b, n_tiles = _dense_arrays(link, n_tiles)
    in_size = W.shape[1]
    order, search = _check_order(order, in_size)
    if x is None:
        if search or add_bias:
            raise ValueError(
                "order='search' and add_bias=True need inputs x")
        with chainer.using_device(link.device):
            W = tiling.fold_array(
                W, n_tiles, order=link.device.send(order)) / n_tiles
        return link_like(cls, link, W, b, n_tiles=n_tiles, order=to_cpu(order))
    given = _measure(x, to_float64(W), to_float64(b), add_bias)
    if search:
        order = _search(
            given, n_tiles, None, seed=seed, n_sweeps=n_sweeps,
            time_limit=time_limit, progress=progress)
    order = to_cpu(order)
    W, b = _solve(given, [_fold(order, in_size, n_tiles)])
    return link_like(cls, link, W, b, n_tiles=n_tiles, order=order)


@register_fit(MixedLinear)
def fit_mixed(
        cls: type[MixedLinear], link: L.Linear, n_tiles: int, x: Any,
        order: NdArray | None, *, n_blocks: int, seed: int,
        add_bias: bool) -> MixedLinear:
    W, b, n_tiles = _dense_arrays(link, n_tiles)
    out_size, in_size = W.shape
    n_blocks = checks.check_positive_int(n_blocks, 'n_blocks')
    if out_size % n_blocks != 0:
        raise ValueError(
            checks.describe_divisors(out_size, n_blocks, 'n_blocks'))
    mixing = Mixing.checked(n_tiles, n_blocks, seed, order, in_size)
    if x is not None:
        W, b = _solve(
            _measure(x, to_float64(W), to_float64(b), add_bias),
            blocks.folds_of(mixing, in_size))
    elif add_bias:
        raise ValueError('add_bias=True needs inputs x')
    else:
        W = blocks.nearest_weight(to_float64(W), mixing)
    return link_like(
        cls, link, W, b, n_tiles=n_tiles, n_blocks=n_blocks, seed=mixing.seed,
        order=mixing.order_array)


def _dense_arrays(link, n_tiles):
    """The arrays of a dense layer, and a number of tiles that divides it."""
    why_not = dense.why_not_dense(link)
    if why_not is not None:
        raise TypeError(
            'from_linear takes a chainer.links.Linear, not a {}'.format(
                type(link).__name__) + (
                    ': it ' + why_not if isinstance(link, L.Linear) else ''))
    if link.local_link_hooks:
        raise ValueError(
            'the layer has link hooks, which would be lost: delete {}'.format(
                ', '.join(link.local_link_hooks)))
    W, b = parameter_arrays(link)
    n_tiles = checks.check_n_tiles(n_tiles)
    if W.shape[1] % n_tiles != 0:
        raise ValueError(checks.describe_divisors(W.shape[1], n_tiles))
    return W, b, n_tiles


def _check_order(order, in_size):
    """A good order, or None; and whether to search for one."""
    if isinstance(order, str):
        if order != 'search':
            raise ValueError(
                "order must be None, 'search' or a permutation, not "
                '{!r}'.format(order))
        return None, True
    return None if order is None else checks.check_order(order, in_size), False


class _Given(NamedTuple):

    """What there is to fit: with inputs held out, if enough; and of all.

    ``moments`` are those of all, where the layer is not too wide for them.
    """

    problem: Any
    whole: Any
    moments: calibration.Moments | None = None


def _solve(given, folds):
    """The weight and the bias, of all inputs by the ridge that is best."""
    found = blocks.best(given.problem, folds)
    solution = found.solution
    if given.whole is not given.problem:
        solution = blocks.solve(given.whole, folds, found.ridge)
    return solution.W, solution.b


def _fold(order, in_size, n_tiles):
    return regression.InputMap.of_order(
        numpy.arange(in_size) if order is None else order, n_tiles)


def _search(given, n_tiles, rank, **search):
    """The order by which a layer loses least."""
    problem, moments = given.problem, given.moments
    in_size = problem.W.shape[1]
    if rank is None and moments is not None and (
            n_tiles == 1 or moments.count >= folds.ENOUGH * in_size):
        return grouping.search_order(
            grouping.Sums(moments, problem.W, problem.has_bias), n_tiles,
            **search)
    ridge = regression.RIDGES[0]
    plain = regression.decompose(problem, _fold(None, in_size, 1), ridge)
    fold = folds.find_fold(
        problem, plain, n_tiles, rank, False, ridge, **search)
    return fold.units.ravel()


@register_fit(LowRankLinear)
def fit_low_rank(
        cls: type[LowRankLinear], link: L.Linear, rank: int, n_tiles: int,
        x: Any, order: NdArray | str | None, *, add_bias: bool, seed: int,
        n_sweeps: int | None, time_limit: float | None,
        progress: bool) -> LowRankLinear:
    W, b, n_tiles = _dense_arrays(link, n_tiles)
    out_size, in_size = W.shape
    rank = checks.check_positive_int(rank, 'rank')
    most = min(out_size, in_size // n_tiles)
    if rank > most:
        raise ValueError(
            'rank = {} is more than a weight of shape {} with n_tiles = {} '
            'can have; the most is {}'.format(rank, W.shape, n_tiles, most))
    order, search = _check_order(order, in_size)
    if x is None:
        if search or add_bias:
            raise ValueError(
                "order='search' and add_bias=True need inputs x")
        mean = tiling.fold_array(
            to_float64(W), n_tiles, order=to_cpu(order)) / n_tiles
        U, s, V = numpy.linalg.svd(mean, full_matrices=False)
        root = numpy.sqrt(s[:rank])
        return low_rank_like(
            link, U[:, :rank] * root, root[:, None] * V[:rank], b, n_tiles,
            order, cls)
    given = _measure(x, to_float64(W), to_float64(b), add_bias)
    if search:
        order = None
        if n_tiles > 1:
            order = _search(
                given, n_tiles, rank, seed=seed, n_sweeps=n_sweeps,
                time_limit=time_limit, progress=progress)
    fold = _fold(to_cpu(order), in_size, n_tiles)
    factors, ridge = regression.best(given.problem, fold, rank)
    if given.whole is not given.problem:
        factors = regression.decompose(given.whole, fold, ridge)
    solution = regression.cut(given.whole, factors, rank, None)
    return low_rank_like(
        link, solution.B, solution.A, solution.b, n_tiles, order, cls)


def _measure(x, W, b, add_bias):
    """With every tenth input held out, if there are enough; and of all."""
    in_size = W.shape[1]
    has_bias = add_bias or b is not None
    if in_size > WIDEST_COVARIANCE:
        samples = _samples(x, W, b, has_bias)
        return _Given(samples, samples)
    moments = [calibration.Moments(in_size), calibration.Moments(in_size)]
    count = 0
    for batch in calibration.iterate_rows(x, in_size):
        held = are_held_out(count + numpy.arange(len(batch)))
        moments[0].add(batch[~held])
        moments[1].add(batch[held])
        count += len(batch)
    if count == 0:
        raise ValueError('there are no calibration inputs')
    train, held_out = moments
    whole = calibration.Moments(in_size)
    whole.merge(train)
    whole.merge(held_out)
    of_all = regression.Covariances(whole, whole, W, b, has_bias)
    if count < LEAST_HELD_OUT:
        return _Given(of_all, of_all, whole)
    return _Given(
        regression.Covariances(train, held_out, W, b, has_bias), of_all, whole)


def _samples(x, W, b, has_bias):
    """The inputs themselves, of a layer too wide for their covariance."""
    batches = [
        calibration.finite(batch, numpy.float32)
        for batch in calibration.iterate_rows(x, W.shape[1])]
    if not sum(map(len, batches)):
        raise ValueError('there are no calibration inputs')
    x = numpy.concatenate(batches)
    held = are_held_out(numpy.arange(len(x)))
    if len(x) < LEAST_HELD_OUT:
        parts = [x, x.copy()]
    else:
        parts = [x[~held], x[held]]
    W = W.astype(numpy.float32)
    ys = [part @ W.T for part in parts]
    if b is not None:
        ys = [y + b.astype(numpy.float32) for y in ys]
    (x, held_x), (y, held_y) = parts, ys
    return Samples(x, y, held_x, held_y, W, has_bias)
