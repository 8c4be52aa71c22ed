"""What each form of a layer would lose, alone."""
from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy

from shared_linear.compression import blocks, folds, grouping, regression
from shared_linear.compression.between import Pair
from shared_linear.compression.planning import Curve
from shared_linear.compression.regression import InputMap
from shared_linear.layers.mixing import Mixing

Array = numpy.ndarray

# Numbers of tiles and parts of hidden units that are considered.
MOST_TILES = 100
LEAST_STEP = 1.2
# A finer choice of units costs little, one decomposition each, and is worth a
# tenth of the error.
UNITS = tuple(.9 ** i for i in range(1, 28))
# Of a search for the plan alone.
QUICK_SWEEPS = 4


class Found(NamedTuple):

    """Curves of a layer; the ridge; its hidden units, the best first."""

    curves: list[Curve]
    ridge: float
    units: Array | None


def find_curves(
        problem: folds.Problem, pair: Pair | None, seed: int) -> Found:
    """Of all ranks, with numbers of tiles and of hidden units."""
    in_size = problem.W.shape[1]
    plain = regression.decompose(
        problem, InputMap.identity(in_size), regression.RIDGES[0])
    curves = [Curve(1, None, in_size, plain.errors)]
    numbers = _numbers_of_tiles(in_size)
    ridge = regression.RIDGES[0]
    # The ridge is chosen once, where it matters as it does in the middle.
    numbers.sort(key=lambda n: abs(n - 8))
    scalable = pair is not None and pair.scalable
    for i, n_tiles in enumerate(numbers):
        fold = folds.find_fold(
            problem, plain, n_tiles, folds.N_DIRECTIONS, scalable, ridge,
            seed=seed, n_sweeps=grouping.default_sweeps(
                in_size, n_tiles, most=QUICK_SWEEPS,
                least=0 if scalable else 1))
        if i == 0:
            fit, ridge = regression.best(problem, fold, None)
        else:
            fit = regression.decompose(problem, fold, ridge)
        curves.append(Curve(n_tiles, None, fold.width, fit.errors))
    units = None
    numbers = sorted({
        max(1, round(part * in_size)) for part in UNITS} - {in_size})
    if numbers and pair is not None and pair.narrowable:
        units = folds.choose_units(problem, plain, ridge, numbers[-1])
        for n_units in numbers:
            fit = regression.decompose(
                problem, InputMap(units[None, :n_units]), ridge)
            curves.append(Curve(1, n_units, n_units, fit.errors))
    return Found(curves, ridge, units)


def find_tile_curves(
        problem: folds.Problem, pair: Pair | None, seed: int,
        mixing_of: Callable[[int], Mixing] | None = None) -> list[Curve]:
    """Of all numbers of tiles, of one weight.

    Args:
        problem: The problem of the layer.
        pair: The layer before.
        seed: See :func:`group_inputs`.
        mixing_of: What blocks of the outputs see, by the number of tiles, if
            they share the weight as well.

    """
    in_size = problem.W.shape[1]
    curves = [Curve(1, None, in_size, numpy.zeros(1))]
    plain = None
    for n_tiles in range(2, in_size + 1):
        if in_size % n_tiles != 0:
            continue
        n_blocks = 1
        if mixing_of is not None:
            mixing = mixing_of(n_tiles)
            n_blocks = mixing.n_blocks
            error = blocks.best(
                problem, blocks.folds_of(mixing, in_size)).error
        else:
            if plain is None:
                plain = regression.decompose(
                    problem, InputMap.identity(in_size), regression.RIDGES[0])
            fold = folds.find_fold(
                problem, plain, n_tiles, None,
                pair is not None and pair.scalable, regression.RIDGES[0],
                seed=seed, n_sweeps=grouping.default_sweeps(
                    in_size, n_tiles, most=QUICK_SWEEPS, least=1))
            error = regression.best(problem, fold, None)[0].full_error
        curves.append(Curve(
            n_tiles, None, in_size // n_tiles, numpy.array([error]),
            n_blocks))
    return curves


def _numbers_of_tiles(in_size: int) -> list[int]:
    """Divisors, but for those that are next to another one."""
    numbers: list[int] = []
    for n in range(2, min(MOST_TILES, in_size) + 1):
        if in_size % n == 0 and (
                not numbers or n >= LEAST_STEP * numbers[-1]):
            numbers.append(n)
    return numbers
