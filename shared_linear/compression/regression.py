"""Reduced-rank regression of a layer's outputs on folds of its inputs.

With y = W x + b the outputs of a dense layer, or others to aim at, F a fold
of the inputs or a choice of some, and L L^T the weight of the errors, the
layer y' = B A F x + c of rank r with the least error

    E|L^T (y - y')|^2 + ridge |L^T (W - B A F)|^2

follows from one decomposition for every rank (Izenman, Reduced-rank
regression for the multivariate linear model, 1975). With S = cov(x) + ridge,
C = cov(y, x) + ridge W, and R R^T = F S F^T,

    K = L^T C F^T R^-T = U s V^T,
    B = L^-T U_r,    A = U_r^T L^T C F^T (F S F^T)^-1.

All that is kept of the calibration inputs are their moments, or, where a
layer is too wide for its covariance, the inputs themselves. Every tenth of
them is held out: it is not fitted to, but says how good a fit is.
"""
from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy

from shared_linear.compression.calibration import Moments

Array = numpy.ndarray

# In units of the mean variance of an input.
RIDGES = 1e-3, 1e-2, 1e-1, 1., 10.

# Of outputs that vary by less, as a part of their squares, it is rounding.
LEAST_VARIANCE = 1e-10


class InputMap(NamedTuple):

    """What a layer makes of its inputs before its product: F (m, d).

    Attributes:
        units: Inputs, (n, m) ints: those of a column are added.
        scales: What each is multiplied by, (n, m), or ``None``.

    """

    units: Array
    scales: Array | None = None

    @classmethod
    def of_order(
            cls, order: Array, n_tiles: int,
            scales: Array | None = None) -> InputMap:
        return cls(
            order.reshape(n_tiles, -1),
            None if scales is None else scales.reshape(n_tiles, -1))

    @classmethod
    def identity(cls, in_size: int) -> InputMap:
        return cls(numpy.arange(in_size)[None])

    @property
    def n_tiles(self) -> int:
        return len(self.units)

    @property
    def width(self) -> int:
        return self.units.shape[1]

    def rows(self, matrix: Array) -> Array:
        """F @ matrix, for a matrix or a vector of d rows."""
        if self._takes_all(len(matrix)):
            return matrix
        result: Any = None
        for i, units in enumerate(self.units):
            rows = matrix[units]
            if self.scales is not None:
                rows = (rows.T * self.scales[i].astype(matrix.dtype)).T
            result = rows if result is None else numpy.add(
                result, rows, out=result)
        return result

    def columns(self, x: Array) -> Array:
        """x @ F^T, for inputs x (k, d)."""
        if self._takes_all(x.shape[1]):
            return x
        result: Any = None
        for i, units in enumerate(self.units):
            columns = x[:, units]
            if self.scales is not None:
                columns *= self.scales[i].astype(x.dtype)
            result = columns if result is None else numpy.add(
                result, columns, out=result)
        return result

    def _takes_all(self, in_size):
        """Whether it is the identity, which needs no copy."""
        return self.scales is None and self.units.shape == (
            1, in_size) and bool((self.units == numpy.arange(in_size)).all())


class Covariances:

    """The problem of a layer, by the moments of its inputs.

    Args:
        train: Moments of the inputs to fit to; and of the outputs to aim at,
            times L, if they are not W x + b.
        held_out: Those of the inputs that are held out.
        W: Weight of the dense layer, times L, (o, d).
        b: Its bias, times L, or ``None``.
        has_bias: Whether the new layer has a bias.

    """

    def __init__(
            self, train: Moments, held_out: Moments, W: Array,
            b: Array | None, has_bias: bool) -> None:
        self.W = W
        self.has_bias = has_bias
        aimed = train.y_mean.size == len(W)
        self.x_mean = train.x_mean
        self.S = train.xx(centred=has_bias)
        bias = numpy.zeros(len(W)) if b is None else b
        self.y_mean = (
            train.y_mean if aimed else W @ train.x_mean + bias)
        if aimed:
            self.C = train.yx(centred=has_bias)
            self.variance = train.yy(centred=has_bias)
        else:
            self.C = W @ self.S
            self.variance = float((self.C * W).sum())
            if not has_bias and b is not None:
                self.C += numpy.outer(b, self.x_mean)
        # What is held out, about the means of the others.
        x_shift = held_out.x_mean - self.x_mean * has_bias
        self.held_S = held_out.xx() + numpy.outer(x_shift, x_shift)
        if aimed:
            y_shift = held_out.y_mean - self.y_mean * has_bias
            self.held_C = held_out.yx() + numpy.outer(y_shift, x_shift)
            self.held_variance = held_out.yy() + float(y_shift @ y_shift)
            spread = held_out.yy()
        else:
            self.held_C = W @ self.held_S
            spread = float((W @ held_out.xx() * W).sum())
            self.held_variance = float((self.held_C * W).sum())
            if not has_bias and b is not None:
                self.held_C += numpy.outer(b, held_out.x_mean)
                self.held_variance += float(
                    2 * b @ W @ held_out.x_mean + b @ b)
        # Errors are in units of the variance, also without a bias.
        self.unit = unit_of_errors(
            spread, self.held_variance + float(self.y_mean @ self.y_mean))
        self.scale = self.S.trace() / len(self.S) or 1.

    def normal(self, fold: InputMap, ridge: float) -> tuple[Array, Array]:
        """F S F^T (m, m) and F C^T (m, o), with the ridge."""
        ridge *= self.scale
        S = self.S.copy()
        S[numpy.diag_indices(len(S))] += ridge
        return (
            fold.rows(fold.rows(S).T),
            fold.rows(self.C.T) + ridge * fold.rows(self.W.T))

    def fit(self, fold: InputMap, ridge: float) -> tuple[Array, Array]:
        """The directions of the outputs, the best first, (o, k).

        And what each explains of what is held out, (k,).
        """
        A, B = self.normal(fold, ridge)
        G = numpy.linalg.solve(A, B)
        if len(A) >= G.shape[1]:
            U = directions(G.T @ A @ G)
        else:
            # Of K^T K the eigenvectors V give U = K V / s.
            K = G.T @ numpy.linalg.cholesky((A + A.T) / 2)
            U = unit_columns(K @ directions(K.T @ K))
        A = fold.rows(fold.rows(self.held_S).T)
        B = fold.rows(self.held_C.T)
        H = G @ U
        return U, 2 * ((B @ U) * H).sum(0) - (H * (A @ H)).sum(0)

    def weight(
            self, fold: InputMap, ridge: float,
            U: Array | None = None) -> Array:
        """The fit of full rank G (m, o), or G U (m, k)."""
        A, B = self.normal(fold, ridge)
        return numpy.linalg.solve(A, B if U is None else B @ U)

    def mean(self, fold: InputMap) -> Array:
        return fold.rows(self.x_mean)


def unit_of_errors(variance: float, size: float) -> float:
    """The variance of outputs, or, where they hardly vary, their size."""
    return variance if variance > LEAST_VARIANCE * size else size or 1.


class Problem(Protocol):

    """What there is to fit: :class:`Covariances`, or samples."""

    W: Array
    has_bias: bool
    y_mean: Array
    held_variance: float
    unit: float
    scale: float

    def fit(self, fold: InputMap, ridge: float) -> tuple[Array, Array]:
        """The directions of the outputs, the best first, (o, k); and what
        each explains of what is held out, (k,)."""

    def weight(
            self, fold: InputMap, ridge: float,
            U: Array | None = None) -> Array:
        """The fit of full rank G (m, o), or G U."""

    def mean(self, fold: InputMap) -> Array:
        """That of the inputs behind the fold."""


class Factors(NamedTuple):

    """Fits of all ranks for one fold: y = U_r U_r^T G^T F x.

    Attributes:
        fold: The fold.
        ridge: That of the fit.
        U: Directions of the outputs, times L, (o, k), the best first.
        errors: Error of each rank from 0 to k on what is held out, in units
            of the variance; (k + 1,).

    """

    fold: InputMap
    ridge: float
    U: Array
    errors: Array

    @property
    def full_error(self) -> float:
        return float(self.errors[-1])


def decompose(problem: Problem, fold: InputMap, ridge: float) -> Factors:
    """Fits all ranks at once."""
    U, gains = problem.fit(fold, ridge)
    errors = problem.held_variance - numpy.concatenate(
        [[0.], numpy.cumsum(gains)])
    return Factors(fold, ridge, U, numpy.maximum(errors, 0.) / problem.unit)


def directions(gram: Array) -> Array:
    """Eigenvectors by falling eigenvalue; those of nothing left out."""
    values, vectors = numpy.linalg.eigh((gram + gram.T) / 2)
    values, vectors = values[::-1], vectors[:, ::-1]
    count = int((values > 1e-12 * max(values[0], 0.)).sum())
    return vectors[:, :max(count, 1)]


def unit_columns(matrix: Array) -> Array:
    norms = numpy.sqrt((matrix * matrix).sum(0))
    return matrix / numpy.maximum(norms, 1e-300)


class Solution(NamedTuple):

    """A layer: W (o, m) in full rank, or B (o, r) and A (r, m); and b."""

    W: Array | None
    B: Array | None
    A: Array | None
    b: Array | None


def cut(
        problem: Problem, factors: Factors, rank: int | None,
        L: Array | None) -> Solution:
    """The layer of a rank, or of full rank as one weight.

    The factors are balanced: A A^T = B^T B, as it is best for training.

    Args:
        problem: The problem.
        factors: Of :func:`decompose`.
        rank: The rank, or ``None`` for a weight that is not factored.
        L: By which the outputs of the problem are multiplied, (o, o); the
            identity by default.

    """
    fold = factors.fold
    if rank is None:
        product = problem.weight(fold, factors.ridge).T
        y = product @ problem.mean(fold)
        W = _unweighted(L, product)
        A = B = None
    else:
        U = factors.U[:, :rank]
        A = problem.weight(fold, factors.ridge, U).T.astype(numpy.float64)
        U = U.astype(numpy.float64)
        y = U @ (A @ problem.mean(fold))
        B = _unweighted(L, U)
        B, A = balance(B, A)
        W = None
    b = _unweighted(L, problem.y_mean - y) if problem.has_bias else None
    return Solution(W, B, A, b)


def _unweighted(L, array):
    return array if L is None else numpy.linalg.solve(L.T, array)


def balance(B: Array, A: Array) -> tuple[Array, Array]:
    """Factors of the same product with A A^T = B^T B."""
    left, inner_left = numpy.linalg.qr(B)
    right, inner_right = numpy.linalg.qr(A.T)
    U, s, V = numpy.linalg.svd(inner_left @ inner_right.T)
    root = numpy.sqrt(s[:len(A)])
    return left @ (U * root), (root[:, None] * V) @ right.T


def best(
        problem: Problem, fold: InputMap,
        rank: int | None) -> tuple[Factors, float]:
    """The fit by the ridge that is best on what is held out, and the ridge.

    Ridges are tried from the least on, until one is worse than the one
    before.
    """
    best_fit, best_ridge = decompose(problem, fold, RIDGES[0]), RIDGES[0]
    for ridge in RIDGES[1:]:
        fit = decompose(problem, fold, ridge)
        if error_at(fit, rank) >= error_at(best_fit, rank):
            break
        best_fit, best_ridge = fit, ridge
    return best_fit, best_ridge


def error_at(factors: Factors, rank: int | None) -> float:
    if rank is None:
        return factors.full_error
    return float(factors.errors[min(rank, len(factors.errors) - 1)])
