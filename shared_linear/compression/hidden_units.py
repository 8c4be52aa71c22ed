"""Which hidden units a shared layer adds up, and how much of each.

Inside a network the inputs of a layer are the units of the layer before. Where
the functions between them are positively homogeneous, f(s h) = s f(h) for
s > 0, as ReLU is, a unit can be scaled by the rows of the layer before, which
costs nothing. Nor does it to have a unit twice, in two groups, and another
one, which matters little, not at all. The fold is then any F (m, d) with n
elements in each row that are positive, and the others zero, instead of one
in each column that is 1. The free scale is that of cross-layer equalization
(Nagel, van Baalen, Blankevoort and Welling, Data-free quantization through
weight equalization and bias correction, 2019), here chosen for the least
error.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from shared_linear.compression import grouping

Array = numpy.ndarray

N_PASSES = 10
LEAST_SCALE = 1e-3
# Groups whose gradients are computed together.
BLOCK = 64


def search_units(
        fit: Any, n_tiles: int,
        judge: Callable[[Array, Array], float] | None = None,
        **search: Any) -> tuple[Array, Array]:
    """Finds the units whose scaled sums lose least of the outputs.

    It starts from the groups that are best for units as large as their
    weights, |W_i| x_i, so that what is compared is the direction of W_i.

    Args:
        fit: The least-squares problem of the layer.
        n_tiles: Number of units in a group.
        judge: Says the error of units and scales on other inputs.
        search: See :func:`group_inputs`.

    Returns:
        The units, (d,) ints, and the scale of each, (d,) positive floats: the
        first m are the first tile, and so on.

    """
    scales = numpy.sqrt((fit.W * fit.W).sum(0))
    scales = numpy.maximum(scales, LEAST_SCALE * (scales.max() or 1.))
    order = grouping.search_order(
        fit.scaled(scales), n_tiles, **search,
        judge=None if judge is None else lambda o: judge(o, scales[o]))
    return improve_units(fit, n_tiles, order, scales[order], judge=judge)


def improve_units(
        fit: Any, n_tiles: int, units: Array, scales: Array,
        n_passes: int = N_PASSES,
        judge: Callable[[Array, Array], float] | None = None,
) -> tuple[Array, Array]:
    """Takes for each unit in turn the one that is best in its place.

    With the shared weight W' as it is, the error is a quadratic function of
    each element of F. Unit k in the place of another one in group p gains

        t h_k - t^2 K_pp S_kk / 2,    h = (W'^T C - K F S)_p,    K = W'^T W',

    where F is without the one that leaves; this is greatest, and half of
    h_k^2 / (K_pp S_kk), for the scale t = h_k / (K_pp S_kk). W' is fitted anew
    after each pass (coordinate descent), so that the error never grows.

    Args:
        fit: The least-squares problem of the layer.
        n_tiles: Number of units in a group.
        units: Units to start from, (d,).
        scales: Their scales, (d,).
        n_passes: How often to go through all units.
        judge: Says the error of units and scales on other inputs; the best
            are kept, and the first pass that is worse is the last.

    Returns:
        Units and scales. The mean square of the scales in a group is 1.

    """
    units = units.reshape(n_tiles, -1).copy()
    scales = scales.reshape(n_tiles, -1).astype(numpy.float64)
    variances = fit.S.diagonal()
    best = units.copy(), scales.copy()
    least = numpy.inf
    if judge is not None:
        least = judge(units.ravel(), scales.ravel())
    for _ in range(n_passes):
        FS = _fold_rows(fit.S, units, scales)
        W = numpy.linalg.solve(
            _fold_rows(FS.T, units, scales),
            _fold_rows(fit.C.T, units, scales))
        K, WC = W @ W.T, W @ fit.C
        for start in range(0, len(K), BLOCK):
            stop = min(start + BLOCK, len(K))
            # h of a block at once; then less what changed within it.
            h = WC[start:stop] - K[start:stop] @ FS
            changes = -FS[start:stop]
            for i, p in enumerate(range(start, stop)):
                if K[p, p] > 0:
                    _improve_group(
                        units[:, p], scales[:, p], fit.S, variances,
                        h[i] - K[p, start:p] @ changes[:i], K[p, p], FS[p])
                changes[i] += FS[p]
        if judge is not None:
            error = judge(units.ravel(), scales.ravel())
            if error >= least:
                break
            least = error
        best = units.copy(), scales.copy()
    units, scales = best
    scales /= numpy.sqrt((scales * scales).mean(0))
    return units.ravel(), scales.ravel()


def _fold_rows(matrix, units, scales):
    """F @ matrix; F has one element in each row for each tile."""
    return sum(
        tile_scales[:, None] * matrix[tile_units]
        for tile_units, tile_scales in zip(units, scales, strict=True))


def _improve_group(units, scales, S, variances, h, k, sums):
    """Chooses the units of one group; ``sums`` is its row of F S."""
    for j, unit in enumerate(units):
        h = h + k * scales[j] * S[unit]
        gains = numpy.maximum(h, 0) ** 2 / variances
        gains[numpy.delete(units, j)] = 0
        best = int(gains.argmax())
        if gains[best] > 0:
            scale = h[best] / (k * variances[best])
            sums += scale * S[best] - scales[j] * S[unit]
            units[j], scales[j] = best, scale
        h -= k * scales[j] * S[units[j]]
