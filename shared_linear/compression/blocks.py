"""The weight that blocks of the outputs share, fitted by least squares.

Each block has a fold F_j of its own, as one with random permutations and
signs, and rows C_j of the covariance that it aims at. Their problems are
stacked:

    W' = (sum_j C_j F_j^T) (sum_j F_j S F_j^T)^-1.

One block is the layer of tiles.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

from shared_linear.compression.regression import (
    RIDGES,
    Covariances,
    InputMap,
    Solution,
)
from shared_linear.compression.samples import Samples
from shared_linear.layers.mixing import Mixing

Array = numpy.ndarray


class Fit(NamedTuple):

    """A weight (m, o / k), transposed; and its error on what is held out."""

    G: Array
    error: float


class Best(NamedTuple):

    """The layer by the ridge that is best on what is held out."""

    solution: Solution
    error: float
    ridge: float


def folds_of(mixing: Mixing, in_size: int) -> list[InputMap]:
    """F_j of each block."""
    return [
        InputMap.of_order(permutation, mixing.n_tiles, signs)
        for permutation, signs in zip(
            *mixing.permutations(in_size), strict=True)]


def best(problem: Covariances | Samples, folds: list[InputMap]) -> Best:
    """Tries ridges from the least on, until one is worse than the last."""
    fit = _solver(problem, folds)
    ridge, found = RIDGES[0], fit(RIDGES[0])
    for higher in RIDGES[1:]:
        other = fit(higher)
        if other.error >= found.error:
            break
        ridge, found = higher, other
    return Best(_solution(problem, folds, found.G), found.error, ridge)


def solve(
        problem: Covariances | Samples, folds: list[InputMap],
        ridge: float) -> Solution:
    """The layer by a ridge."""
    return _solution(problem, folds, _solver(problem, folds)(ridge).G)


def _solution(problem, folds, G):
    W = G.T.astype(numpy.float64)
    b = None
    if problem.has_bias:
        b = problem.y_mean - numpy.concatenate([
            W @ fold.rows(problem.x_mean) for fold in folds])
    return Solution(W, None, None, b)


def nearest_weight(W: Array, mixing: Mixing) -> Array:
    """The shared weight (o / k, m) nearest to a dense one, in the squares."""
    folds = folds_of(mixing, W.shape[1])
    return _nearest(W, folds).T


def apply(W: Any, mixing: Mixing, x: Array) -> Array:
    """What the layer makes of its inputs, without the bias."""
    return numpy.concatenate([
        fold.columns(x) @ W.T for fold in folds_of(mixing, x.shape[1])],
        axis=1)


def _nearest(W, folds):
    parts = numpy.split(W, len(folds))
    return sum(
        fold.rows(V.T) for fold, V in zip(folds, parts, strict=True)) / (
            len(folds) * W.dtype.type(folds[0].n_tiles))


def _solver(problem, folds):
    """Function of a ridge to the fit."""
    if isinstance(problem, Samples):
        return _by_samples(problem, folds)
    return _by_covariances(problem, folds)


def _by_covariances(
        problem: Covariances,
        folds: list[InputMap]) -> Callable[[float], Fit]:
    def normal(S, C):
        """sum_j F_j S F_j^T and sum_j F_j C_j^T."""
        parts = numpy.split(C, len(folds))
        return (
            sum(fold.rows(fold.rows(S).T) for fold in folds),
            sum(fold.rows(V.T)
                for fold, V in zip(folds, parts, strict=True)))

    A, B = normal(problem.S, problem.C)
    held_A, held_B = normal(problem.held_S, problem.held_C)
    # A fold of the identity is n times the identity, a block is one of k.
    draw = len(folds) * folds[0].n_tiles
    nearest = _nearest(problem.W, folds)

    def fit(ridge):
        ridge *= problem.scale * draw
        drawn = A.copy()
        drawn[numpy.diag_indices(len(A))] += ridge
        G = numpy.linalg.solve(drawn, B + ridge * nearest)
        error = problem.held_variance - float(
            2 * (G * held_B).sum() - (G * (held_A @ G)).sum())
        return Fit(G, max(error, 0.) / problem.unit)

    return fit


def _by_samples(
        problem: Samples, folds: list[InputMap]) -> Callable[[float], Fit]:
    """In the space of the rows where they are fewer than the columns."""
    n_blocks = len(folds)
    Z = numpy.concatenate([fold.columns(problem.x) for fold in folds])
    y = numpy.concatenate(numpy.split(problem.y, n_blocks, axis=1))
    held_Z = numpy.concatenate([
        fold.columns(problem.held_x) for fold in folds])
    held_y = numpy.concatenate(numpy.split(problem.held_y, n_blocks, axis=1))
    nearest = _nearest(problem.W, folds)
    rest = (y - Z @ nearest).astype(numpy.float64)
    draw = n_blocks * folds[0].n_tiles * len(problem.x)
    by_rows = len(Z) < Z.shape[1]
    gram = (Z @ Z.T if by_rows else Z.T @ Z).astype(numpy.float64)
    drawn_to = rest if by_rows else Z.T @ rest

    def fit(ridge):
        A = gram.copy()
        A[numpy.diag_indices(len(A))] += ridge * problem.scale * draw
        G = numpy.linalg.solve(A, drawn_to).astype(Z.dtype)
        G = nearest + (Z.T @ G if by_rows else G)
        error = float(((held_y - held_Z @ G) ** 2).sum(
            dtype=numpy.float64)) / len(problem.held_x)
        return Fit(G, error / problem.unit)

    return fit
