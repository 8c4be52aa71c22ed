"""The nearest shared layer to a dense one: what ``from_linear`` does."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import chainer
import chainer.links as L

from shared_linear.compression import calibration, dense, grouping
from shared_linear.layers import checks, tiling
from shared_linear.layers.link import SharedLinear
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
    search = isinstance(order, str)
    if search and order != 'search':
        raise ValueError(
            "order must be None, 'search' or a permutation, not "
            '{!r}'.format(order))
    if order is not None and not search:
        order = checks.check_order(order, in_size)
    if x is None:
        if search or add_bias:
            raise ValueError(
                "order='search' and add_bias=True need inputs x")
        with chainer.using_device(link.device):
            W = tiling.fold_array(
                W, n_tiles, order=link.device.send(order)) / n_tiles
        return link_like(cls, link, W, b, n_tiles=n_tiles, order=to_cpu(order))
    fit = _fit(x, W, b, add_bias)
    if search:
        order = grouping.search_order(
            fit, n_tiles, seed=seed, n_sweeps=n_sweeps,
            time_limit=time_limit, progress=progress)
    order = to_cpu(order)
    W, b, _ = fit.solve(n_tiles, order)
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
        W, b, _ = _fit(x, W, b, add_bias).solve_mixed(mixing)
    elif add_bias:
        raise ValueError('add_bias=True needs inputs x')
    else:
        W = calibration.nearest_weight(to_float64(W), mixing)
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


def _fit(x, W, b, add_bias):
    return calibration.Fit(
        calibration.measure(x, W.shape[1]), to_float64(W), to_float64(b),
        has_bias=add_bias or b is not None)
