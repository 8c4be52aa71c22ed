"""Which inputs a layer adds up, or does without, for a rank."""
from __future__ import annotations

from typing import Any

import numpy

from shared_linear.compression import grouping, hidden_units
from shared_linear.compression.regression import (
    Covariances,
    Factors,
    InputMap,
)
from shared_linear.compression.samples import WIDEST_COVARIANCE, Samples

Array = numpy.ndarray

# Directions of the outputs that a search looks at, and to which a problem in
# sample space is projected.
N_DIRECTIONS = 128
# A search needs the covariance of the inputs; of wider layers there is none.
WIDEST_SEARCH = WIDEST_COVARIANCE
# Above so many, where a sweep takes its time, there are fewer of them by
# samples, of which more sweeps would but learn the noise: the most and the
# least, as of grouping.default_sweeps.
LONG_SWEEPS = 2000
SWEEPS_BY_SAMPLES = 20, 1
# Units are chosen one by one so often, and then so many at a time.
MOST_SINGLE = 1024
BLOCK = 64
# With so many inputs for each element of one, a search fits little noise.
ENOUGH = 1

Problem = Covariances | Samples


class Aim:

    """What a search for a fold minimises: the outputs in some directions.

    Args:
        problem: The problem of the layer.
        U: Directions of the outputs, (o, k).
        ridge: As in :func:`regression.decompose`.

    """

    def __init__(self, problem: Problem, U: Array, ridge: float) -> None:
        ridge *= problem.scale
        self.W = (U.T @ problem.W).astype(numpy.float64, copy=False)
        if isinstance(problem, Samples):
            x, Y = problem.x, problem.y @ U
            self.S = (x.T @ x).astype(numpy.float64)
            self.S /= len(x)
            self.C = (Y.T @ x).astype(numpy.float64) / len(x)
        else:
            self.S, self.C = problem.S.copy(), U.T @ problem.C
        self.S[numpy.diag_indices(len(self.S))] += ridge
        self.C += ridge * self.W
        self.variance = problem.variance
        self._held: Any = (
            problem.held_x, problem.held_y @ U
        ) if isinstance(problem, Samples) else (
            problem.held_S, U.T @ problem.held_C)
        self._by_samples = isinstance(problem, Samples)

    def scaled(self, scales: Array) -> Any:
        """The problem for inputs times ``scales``."""
        scaled = object.__new__(Aim)
        scaled.S = self.S * scales
        scaled.S *= scales[:, None]
        scaled.C, scaled.W = self.C * scales, self.W * scales
        scaled.variance = self.variance
        return scaled

    def judge(self, fold: InputMap) -> float:
        """The error on what is held out, but for a constant."""
        A = fold.rows(fold.rows(self.S).T)
        G = numpy.linalg.solve(A, fold.rows(self.C.T))
        if self._by_samples:
            x, Y = self._held
            Z = fold.columns(x) @ G
            return float(((Z - 2 * Y) * Z).sum()) / len(Z)
        S, C = self._held
        return float(
            (G * (fold.rows(fold.rows(S).T) @ G)).sum()
            - 2 * (G * fold.rows(C.T)).sum())


def find_fold(
        problem: Problem, plain: Factors, n_tiles: int, rank: int | None,
        scalable: bool, ridge: float, *, seed: int, judged: bool = True,
        n_sweeps: int | None = None, **search: Any) -> InputMap:
    """Finds the inputs whose sums lose least of the outputs.

    Args:
        problem: The problem of the layer.
        plain: Its fit by all inputs: a layer of a low rank need only give
            the first directions of the outputs.
        n_tiles: Number of inputs in a sum.
        rank: Of the layer.
        scalable: Whether an input can be scaled, and taken twice, at no cost.
        ridge: The ridge of the search.
        seed: See :func:`group_inputs`, as for what follows.
        judged: Whether the search ends by what is held out. That takes a
            third of the time, and loses some of what it would find.

    """
    in_size = problem.W.shape[1]
    if n_tiles == 1:
        return InputMap.identity(in_size)
    if n_sweeps is None:
        n_sweeps = grouping.default_sweeps(in_size, n_tiles)
        if isinstance(problem, Samples) and in_size > LONG_SWEEPS:
            n_sweeps = grouping.default_sweeps(
                in_size, n_tiles, *SWEEPS_BY_SAMPLES)
    U = plain.U[:, :rank]
    if in_size > WIDEST_SEARCH:
        return InputMap.of_order(
            _clusters(problem, U, n_tiles, seed), n_tiles)
    aim = Aim(problem, U, ridge)

    def judge(units, scales=None):
        return aim.judge(InputMap.of_order(units, n_tiles, scales))

    search |= {
        'seed': seed, 'n_sweeps': n_sweeps,
        'judge': judge if judged else None}
    if scalable:
        units, scales = hidden_units.search_units(aim, n_tiles, **search)
        return InputMap.of_order(units, n_tiles, scales)
    return InputMap.of_order(
        grouping.search_order(aim, n_tiles, **search), n_tiles)


def _clusters(
        problem: Problem, U: Array, n_tiles: int, seed: int) -> Array:
    """The order of a layer that is too wide for a search."""
    C, variances = _correlations(problem, U[:, :N_DIRECTIONS])
    points = C.T / numpy.sqrt(variances + 1e-3 * problem.scale)[:, None]
    groups = grouping.cluster_points(
        points, n_tiles, numpy.random.RandomState(seed))
    return grouping.order_of(groups, n_tiles)


def _correlations(problem: Problem, U: Array) -> tuple[Array, Array]:
    """cov(U^T y, x) (k, d), and the variances of the inputs, (d,)."""
    if isinstance(problem, Samples):
        C = (problem.y @ U).T @ problem.x / numpy.float32(len(problem.x))
        return C.astype(numpy.float64), problem.variances
    return U.T @ problem.C, problem.S.diagonal()


def choose_units(
        problem: Problem, plain: Factors, ridge: float,
        most: int) -> Array:
    """Inputs by what they add to those before, (most,) ints.

    Forward selection: with S and C of what the inputs before do not
    explain, the next is that of the largest |C_i|^2 / S_ii (pivoted Cholesky
    decomposition; orthogonal least squares of Chen, Cowan and Grant, 1991).
    Behind the first thousand they come by the dozen, the best of the moment;
    and where there are no more samples to tell them apart, all at once.
    """
    C, diagonal = _correlations(problem, plain.U[:, :N_DIRECTIONS])
    diagonal = diagonal + ridge * problem.scale
    floor = diagonal.copy()
    told = most
    if isinstance(problem, Samples):
        told = min(most, len(problem.x))
    columns = numpy.empty((told, len(diagonal)))
    chosen: list[int] = []
    while len(chosen) < told:
        i = len(chosen)
        size = 1 if i < MOST_SINGLE else min(BLOCK, told - i)
        left = numpy.maximum(diagonal, 1e-9 * floor)
        units = _best_units(C, left, chosen, size)
        rows = _covariances_of(problem, units)
        rows -= columns[:i, units].T @ columns[:i]
        rows[numpy.arange(len(units)), units] = left[units]
        root = numpy.linalg.cholesky(rows[:, units])
        rows = numpy.linalg.solve(root, rows)
        columns[i:i + len(units)] = rows
        # The part of C that the units explain.
        C -= numpy.linalg.solve(root, C[:, units].T).T @ rows
        diagonal = diagonal - (rows * rows).sum(0)
        chosen += units
    left = numpy.maximum(diagonal, 1e-9 * floor)
    return numpy.array(
        chosen + _best_units(C, left, chosen, most - told), int)


def _best_units(C, left, chosen, size):
    gains = (C * C).sum(0) / left
    gains[chosen] = -1
    if size == 1:
        return [int(gains.argmax())]
    return numpy.argsort(-gains, kind='stable')[:size].tolist()


def _covariances_of(problem: Problem, units: list[int]) -> Array:
    if isinstance(problem, Samples):
        x = problem.x
        return (x[:, units].T @ x).astype(numpy.float64) / len(x)
    return problem.S[units]
