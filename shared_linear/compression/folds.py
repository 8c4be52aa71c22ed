"""Which inputs a layer adds up, or does without, for a rank."""
from __future__ import annotations

from typing import Any

import numpy

from shared_linear.compression import grouping, hidden_units
from shared_linear.compression.regression import (
    Covariances,
    Factors,
    InputMap,
    Problem,
    Samples,
)

Array = numpy.ndarray

# Directions of the outputs that a search looks at, and to which a problem in
# sample space is projected.
N_DIRECTIONS = 128


class Aim:

    """What a search for a fold minimises: the outputs in some directions.

    Args:
        problem: The problem of the layer.
        U: Directions of the outputs, (o, k).
        ridge: As in :func:`regression.decompose`.

    """

    def __init__(self, problem: Covariances, U: Array, ridge: float) -> None:
        ridge *= problem.scale
        self.S = problem.S.copy()
        self.S[numpy.diag_indices(len(self.S))] += ridge
        self.W = U.T @ problem.W
        self.C = U.T @ problem.C + ridge * self.W
        self.variance = problem.variance
        self._held_S = problem.held_S
        self._held_C = U.T @ problem.held_C

    def scaled(self, scales: Array) -> Any:
        """The problem for inputs times ``scales``."""
        scaled = object.__new__(Aim)
        scaled.S = self.S * scales * scales[:, None]
        scaled.C, scaled.W = self.C * scales, self.W * scales
        scaled.variance = self.variance
        return scaled

    def judge(self, fold: InputMap) -> float:
        """The error on what is held out, but for a constant."""
        A = fold.rows(fold.rows(self.S).T)
        G = numpy.linalg.solve(A, fold.rows(self.C.T))
        held_A = fold.rows(fold.rows(self._held_S).T)
        return float(
            (G * (held_A @ G)).sum()
            - 2 * (G * fold.rows(self._held_C.T)).sum())


def find_fold(
        problem: Problem, plain: Factors, n_tiles: int, rank: int | None,
        scalable: bool, ridge: float, *, seed: int,
        n_sweeps: int | None = None, n_passes: int = hidden_units.N_PASSES,
        **search: Any) -> InputMap:
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

    """
    in_size = problem.W.shape[1]
    if n_tiles == 1:
        return InputMap(numpy.arange(in_size)[None])
    if n_sweeps is None:
        n_sweeps = grouping.default_sweeps(in_size, n_tiles)
    U = plain.U[:, :rank]
    if isinstance(problem, Samples):
        return InputMap.of_order(
            _clusters(problem, U, n_tiles, seed), n_tiles)
    aim = Aim(problem, U, ridge)
    if scalable:
        def judge(units, scales):
            return aim.judge(InputMap.of_order(units, n_tiles, scales))
        units, scales = hidden_units.search_units(
            aim, n_tiles, judge, seed=seed, n_sweeps=n_sweeps, **search)
        return InputMap.of_order(units, n_tiles, scales)
    order = grouping.search_order(
        aim, n_tiles, seed=seed, n_sweeps=n_sweeps, **search,
        judge=lambda order: aim.judge(InputMap.of_order(order, n_tiles)))
    return InputMap.of_order(order, n_tiles)


def _clusters(
        problem: Samples, U: Array, n_tiles: int, seed: int) -> Array:
    Y = problem.y @ U[:, :N_DIRECTIONS].astype(problem.y.dtype)
    C = problem.x.T @ Y / numpy.float32(len(Y))
    variances = (problem.x ** 2).mean(0, dtype=float)
    points = C / numpy.sqrt(variances + 1e-3 * problem.scale)[:, None]
    groups = grouping.cluster_points(
        points, n_tiles, numpy.random.RandomState(seed))
    return grouping.order_of(groups, n_tiles)


def choose_units(
        problem: Problem, plain: Factors, ridge: float,
        most: int) -> Array:
    """Inputs by what they add to those before, (most,) ints.

    Forward selection: with S and C of what the inputs before do not
    explain, the next is that of the largest |C_i|^2 / S_ii (pivoted Cholesky
    decomposition; orthogonal least squares of Chen, Cowan and Grant, 1991).
    """
    if isinstance(problem, Samples):
        x = problem.x[:, :]
        S = None
        C = (plain.U[:, :N_DIRECTIONS].T @ problem.y.T @ x) / len(x)
        diagonal = (x ** 2).mean(0, dtype=float)
    else:
        x, S = None, problem.S
        C = plain.U[:, :N_DIRECTIONS].T @ problem.C
        diagonal = S.diagonal().copy()
    C = C.astype(float)
    least = ridge * problem.scale
    diagonal = diagonal + least
    floor = diagonal.copy()
    columns = numpy.empty((most, len(diagonal)))
    chosen: list[int] = []
    for i in range(most):
        gains = (C * C).sum(0) / numpy.maximum(diagonal, 1e-9 * floor)
        gains[chosen] = -1
        unit = int(gains.argmax())
        row = S[unit] if S is not None else x[:, unit] @ x / len(x)
        row = row - columns[:i, unit] @ columns[:i]
        row[unit] = diagonal[unit]
        row /= numpy.sqrt(max(diagonal[unit], 1e-9 * floor[unit]))
        columns[i] = row
        # The part of C that the unit explains.
        C -= numpy.outer(C[:, unit] / row[unit], row)
        diagonal = diagonal - row * row
        chosen.append(unit)
    return numpy.array(chosen)
