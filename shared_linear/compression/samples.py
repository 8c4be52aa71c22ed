"""The least squares of a layer that is too wide for its covariance.

Of N inputs x (N, d) and outputs y (N, o), where d is thousands, nothing of
d x d is made, but for the inputs themselves. With Z = x F^T the inputs behind
a fold, and G_0 = F W^T / n what is nearest to W where the inputs say nothing,
the fit of full rank and what it gives are (the dual form of ridge regression;
Saunders, Gammerman and Vovk, Ridge regression learning algorithm in dual
variables, 1998)

    G = G_0 + Z^T a,    a = (Z Z^T + ridge N)^-1 (y - Z G_0),
    Z G = y - ridge N a,

so that G itself, as large as the weight, is made only for the layer that is
kept in the end. Where the fold leaves less sums than there are inputs, it is
the other way round: G = G_0 + b, with a matrix of the sums.
"""
from __future__ import annotations

from typing import Any, NamedTuple

import numpy

from shared_linear.compression.regression import (
    InputMap,
    directions,
    unit_columns,
    unit_of_errors,
)

Array = numpy.ndarray

# A layer of more inputs is fitted by the inputs themselves, as is one of
# more inputs than there are to fit to, or so few.
WIDEST_COVARIANCE = 5000
FEW_ROWS = 1000
# Outputs that differ by less, as a part of the largest, are the same ones.
ROUNDING = 1e-5


def is_by_samples(in_size: int, n_rows: int) -> bool:
    """Whether a layer is fitted by the inputs themselves."""
    return in_size > min(WIDEST_COVARIANCE, max(n_rows, FEW_ROWS))


class _Folded(NamedTuple):

    """What a fold makes of the problem, for every ridge.

    Attributes:
        fold: The fold.
        Z: Inputs behind it, (N, m).
        held_Z: Those that are held out.
        G: G_0^T, (o, m).
        Y: Z G_0, (N, o).
        held_Y: The same of what is held out.
        rest: y - Z G_0, of float64; ``None`` if it is nothing.
        square: Z Z^T (N, N) or Z^T Z (m, m), the smaller, of float64.

    """

    fold: InputMap
    Z: Array
    held_Z: Array
    G: Array
    Y: Array
    held_Y: Array
    rest: Array | None
    square: Array | None

    @property
    def is_dual(self) -> bool:
        return self.Z.shape[1] > len(self.Z)


class Samples:

    """The problem of a layer, by the inputs themselves.

    The arrays are kept, and changed: they are about their means in the end.

    Args:
        x: Inputs to fit to, (N, d) of float32.
        y: Outputs to aim at, times L, (N, o) of float32.
        held_x: Inputs that are held out.
        held_y: Their outputs.
        W: Weight of the dense layer, times L, (o, d), of float32.
        has_bias: Whether the new layer has a bias.

    """

    def __init__(
            self, x: Array, y: Array, held_x: Array, held_y: Array, W: Array,
            has_bias: bool) -> None:
        self.W = W
        self.has_bias = has_bias
        self.x_mean = x.mean(0, dtype=numpy.float64)
        self.y_mean = y.mean(0, dtype=numpy.float64)
        if has_bias:
            for array, mean in (
                    (x, self.x_mean), (held_x, self.x_mean),
                    (y, self.y_mean), (held_y, self.y_mean)):
                array -= mean.astype(array.dtype)
        self.x, self.y, self.held_x, self.held_y = x, y, held_x, held_y
        self.variances = numpy.einsum(
            'ij,ij->j', x, x, dtype=numpy.float64) / len(x)
        self.variance = _mean_square(y)
        self.held_variance = _mean_square(held_y)
        self.unit = unit_of_errors(
            float(held_y.var(0, dtype=numpy.float64).sum()),
            self.held_variance + float(self.y_mean @ self.y_mean))
        self.scale = float(self.variances.mean()) or 1.
        self._last: _Folded | None = None

    def _folded(self, fold):
        """Of the last fold it is kept: ridges are tried one by one."""
        if self._last is None or self._last.fold is not fold:
            self._last = None
            Z, held_Z = fold.columns(self.x), fold.columns(self.held_x)
            G = fold.columns(self.W)
            if fold.n_tiles > 1:
                G /= numpy.float32(fold.n_tiles)
            Y = Z @ G.T
            rest: Any = (self.y - Y).astype(numpy.float64)
            square = None
            if abs(rest).max(initial=0) > ROUNDING * abs(
                    self.y).max(initial=0):
                square = Z @ Z.T if Z.shape[1] > len(Z) else Z.T @ Z
                square = square.astype(numpy.float64)
            else:
                rest = None
            self._last = _Folded(
                fold, Z, held_Z, G, Y, held_Z @ G.T, rest, square)
        return self._last

    def _ridge(self, folded, ridge):
        """Beside sums over all inputs; each tile adds its own."""
        return ridge * self.scale * folded.fold.n_tiles * len(folded.Z)

    def _change(self, folded, ridge):
        """a (N, o), or b (m, o)."""
        square = folded.square.copy()
        square[numpy.diag_indices(len(square))] += self._ridge(folded, ridge)
        rest = folded.rest
        if not folded.is_dual:
            rest = folded.Z.T @ rest.astype(folded.Z.dtype)
        return numpy.linalg.solve(square, rest).astype(folded.Z.dtype)

    def fit(self, fold: InputMap, ridge: float) -> tuple[Array, Array]:
        """As of :class:`Covariances`; but the ridge does not turn U."""
        folded = self._folded(fold)
        Y, held_Y = folded.Y, folded.held_Y
        if folded.rest is not None:
            change = self._change(folded, ridge)
            if folded.is_dual:
                # Z Z^T a + Z G_0
                Y = self.y - numpy.float32(self._ridge(folded, ridge)) * change
                held_Y = held_Y + (folded.held_Z @ folded.Z.T) @ change
            else:
                Y = Y + folded.Z @ change
                held_Y = held_Y + folded.held_Z @ change
        Y = Y.astype(numpy.float64)
        if len(Y) < Y.shape[1]:
            U = unit_columns(Y.T @ directions(Y @ Y.T))
        else:
            U = directions(Y.T @ Y)
        U = U.astype(folded.Z.dtype)
        P, Q = self.held_y @ U, held_Y @ U
        gains = (2 * P * Q - Q * Q).sum(0, dtype=numpy.float64) / len(Q)
        return U, gains

    def weight(
            self, fold: InputMap, ridge: float,
            U: Array | None = None) -> Array:
        """G (m, o) of the fit, or G U (m, k)."""
        folded = self._folded(fold)
        G = folded.G.T
        change: Any = None
        if folded.rest is not None:
            change = self._change(folded, ridge)
        if U is not None:
            G = G @ U
            change = None if change is None else change @ U
        if change is None:
            return G
        return G + (folded.Z.T @ change if folded.is_dual else change)

    def mean(self, fold: InputMap) -> Array:
        return fold.rows(self.x_mean)


def _mean_square(y):
    return float(numpy.einsum('ij,ij->', y, y, dtype=numpy.float64)) / len(y)
