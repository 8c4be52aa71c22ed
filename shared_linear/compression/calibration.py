"""The weight that fits a layer's outputs best, from real inputs."""
from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy
from chainer import backend

from shared_linear.compression import inputs

if TYPE_CHECKING:
    from shared_linear.layers.mixing import Mixing

Array = numpy.ndarray
RIDGE = 1e-3


class Moments:

    """Means and covariances of inputs x and targets y, added up over batches.

    All is kept in float64, about the means: batches are merged as by Chan,
    Golub and LeVeque (Updating formulae and a pairwise algorithm for
    computing sample variances, 1979).

    Args:
        in_size: Width d of the inputs.
        out_size: Width o of the targets; none by default.

    """

    def __init__(self, in_size: int, out_size: int = 0) -> None:
        self.count = 0
        self.x_mean = numpy.zeros(in_size)
        self.y_mean = numpy.zeros(out_size)
        self._xx = numpy.zeros((in_size, in_size))
        self._yx = numpy.zeros((out_size, in_size))
        self._yy = 0.

    def add(self, x: Array, y: Array | None = None) -> None:
        """Adds a batch of inputs (k, d), and of targets (k, o) if there are.

        Raises:
            ValueError: If the width is wrong, or a value is not finite.

        """
        x = self._check(x, self.x_mean.size, 'inputs')
        if y is None:
            y = numpy.empty((len(x), 0))
        y = self._check(y, self.y_mean.size, 'outputs')
        if len(x) == 0:
            return
        x_mean, y_mean = x.mean(0), y.mean(0)
        x -= x_mean
        y -= y_mean
        self._add(
            len(x), x_mean, y_mean, x.T @ x, y.T @ x, float((y * y).sum()))

    def merge(self, other: Moments) -> None:
        """Adds all that others were made of."""
        if other.count:
            self._add(
                other.count, other.x_mean, other.y_mean, other._xx, other._yx,
                other._yy)

    def _add(self, k, x_mean, y_mean, xx, yx, yy):
        weight = self.count * k / (self.count + k)
        x_shift, y_shift = x_mean - self.x_mean, y_mean - self.y_mean
        self._xx += xx
        self._yx += yx
        self._yy += yy + weight * float(y_shift @ y_shift)
        if weight:
            self._xx += numpy.outer(weight * x_shift, x_shift)
            self._yx += numpy.outer(weight * y_shift, x_shift)
        self.count += k
        self.x_mean += k / self.count * x_shift
        self.y_mean += k / self.count * y_shift

    @staticmethod
    def _check(array, width, what):
        if array.ndim != 2 or array.shape[1] != width:
            raise ValueError(
                'calibration {} of shape {} do not have {} elements '
                'each'.format(what, array.shape, width))
        array = array.astype(numpy.float64)
        if not numpy.isfinite(array).all():
            raise ValueError(
                'calibration {} must be finite, but some are NaN or '
                'infinite'.format(what))
        return array

    def xx(self, centred: bool = True) -> Array:
        """Covariance of the inputs, or E[x x^T], (d, d)."""
        result = self._xx / self.count
        if not centred:
            result += numpy.outer(self.x_mean, self.x_mean)
        return result

    def yx(self, centred: bool = True) -> Array:
        """Covariance of targets and inputs, or E[y x^T], (o, d)."""
        result = self._yx / self.count
        if not centred:
            result += numpy.outer(self.y_mean, self.x_mean)
        return result

    def yy(self, centred: bool = True) -> float:
        """Variance of the targets in all, or E|y|^2."""
        result = self._yy / self.count
        if not centred:
            result += float(self.y_mean @ self.y_mean)
        return result


class Fit:

    """The least-squares problem of a shared layer.

    With F the fold of the inputs, W' minimises

        E|y - W' F x - b'|^2 + r |W - W' F|^2,

    with y = W x + b, or other targets if there are any. The ridge term, with
    r a small part of the mean variance of an input, draws W' to the mean of
    the tiles of W where the inputs do not decide. That is where they never
    vary, or move together, or are too few.

    With S = cov(x) + r I, C = cov(y, x) + r W this is

        W' = C F^T (F S F^T)^-1,     b' = E y - W' F E x,

    and if y = W x + b, then C = W S.

    Args:
        moments: Of the inputs, and of the targets where they are not W x + b.
        W: Dense weight, (o, d).
        b: Dense bias, (o,), or ``None``.
        has_bias: Whether the shared layer has a bias. If not, covariances are
            replaced by second moments.
        ridge: r, in units of the mean variance of an input.

    """

    def __init__(
            self, moments: Moments, W: Array, b: Array | None,
            has_bias: bool, ridge: float = RIDGE) -> None:
        if moments.count == 0:
            raise ValueError('there are no calibration inputs')
        if not ridge > 0:
            raise ValueError('ridge must be positive, not {}'.format(ridge))
        self.count = moments.count
        self.has_bias = has_bias
        self.W = W = W.astype(numpy.float64)
        S = moments.xx(centred=has_bias)
        mean_variance = S.trace() / len(S)
        self.ridge = ridge * (mean_variance or 1.)
        self.x_mean = moments.x_mean
        if moments.y_mean.size == len(W):
            C = moments.yx(centred=has_bias)
            self.y_mean = moments.y_mean
            self.variance = moments.yy(centred=has_bias)
        else:
            # y = W x + b is centred as x is; without a bias of its own the
            # shared layer has to reach b by the inputs alone.
            C = W @ S
            self.y_mean = W @ self.x_mean
            self.variance = float((C * W).sum())
            if b is not None:
                self.y_mean += b
                if not has_bias:
                    C += numpy.outer(b, self.x_mean)
        S[numpy.diag_indices(len(S))] += self.ridge
        C += self.ridge * W
        self.S, self.C = S, C

    def solve(
            self, n_tiles: int, order: Array | None = None,
            scales: Array | None = None,
    ) -> tuple[Array, Array | None, float]:
        """Computes the weight (o, m), the bias (o,) and the relative error.

        The error is E|y - y'|^2 in units of the variance of y, on the
        calibration inputs. For ``order`` and ``scales`` see
        :func:`make_fold`.
        """
        F = make_fold(len(self.S), n_tiles, order, scales)
        return self._solve([_Block(F, self.C, self.W)])

    def solve_mixed(
            self, mixing: Mixing) -> tuple[Array, Array | None, float]:
        """As :meth:`solve`, of a weight (o / k, m) that k blocks share.

        The problems of the blocks are stacked: with F_j the fold with the
        permutation and signs of a block, and C_j the rows of C that it aims
        at, W' = (sum_j C_j F_j^T) (sum_j F_j S F_j^T)^-1.
        """
        return self._solve([
            _Block(F, C, W) for F, C, W in zip(
                _make_folds(len(self.S), mixing),
                numpy.split(self.C, mixing.n_blocks),
                numpy.split(self.W, mixing.n_blocks), strict=True)])

    def _solve(self, blocks):
        A = sum(F @ self.S @ F.T for F, _, _ in blocks)
        B = sum(F @ C.T for F, C, _ in blocks)
        W = numpy.linalg.solve(A, B).T
        # Without the ridge: |W - W' F|^2 = |W|^2 - 2 <W F^T, W'> + |W' F|^2.
        explained = 2 * (W.T * B).sum() - (W @ A * W).sum()
        FF = sum(F @ F.T for F, _, _ in blocks)
        dense = sum(F @ V.T for F, _, V in blocks)
        bent = 2 * (W.T * dense).sum() - (W @ FF * W).sum()
        residual = self.variance - explained + self.ridge * bent
        error = max(residual, 0.) / self.variance if self.variance else 0.
        if not self.has_bias:
            return W, None, error
        b = self.y_mean - numpy.concatenate([
            W @ (F @ self.x_mean) for F, _, _ in blocks])
        return W, b, error

    def scaled(self, scales: Array) -> Fit:
        """The problem of choosing an order, for inputs times ``scales``."""
        fit = copy.copy(self)
        fit.S = self.S * scales * scales[:, None]
        fit.C, fit.W = self.C * scales, self.W * scales
        return fit

    def weighted(self, M: Array) -> Fit:
        """The problem of choosing an order, for the error E e^T M e.

        It is that of the outputs L^T y, with M = L L^T. W' does not depend on
        M, but what F is best does.

        Args:
            M: Positive definite, (o, o), with a trace of o.

        """
        fit = copy.copy(self)
        L = numpy.linalg.cholesky(M)
        fit.C, fit.W = L.T @ self.C, L.T @ self.W
        return fit


def make_fold(
        in_size: int, n_tiles: int, order: Array | None = None,
        scales: Array | None = None) -> Array:
    """F (m, d): fold(x[:, order] * scales) is x F^T.

    ``order`` may have an input more than once.
    """
    if order is None:
        order = numpy.arange(in_size)
    F = numpy.zeros((in_size // n_tiles, in_size))
    groups = numpy.arange(in_size) % len(F)
    numpy.add.at(F, (groups, order), 1. if scales is None else scales)
    return F


class _Block(NamedTuple):
    """Outputs that are made from one fold of the inputs."""

    F: Array
    C: Array
    W: Array


def _make_folds(in_size: int, mixing: Mixing) -> list[Array]:
    """F_j of each block."""
    return [
        make_fold(in_size, mixing.n_tiles, permutation, signs)
        for permutation, signs in zip(
            *mixing.permutations(in_size), strict=True)]


def nearest_weight(W: Array, mixing: Mixing) -> Array:
    """The shared weight (o / k, m) nearest to a dense one, in the squares."""
    folded = [
        V @ F.T for F, V in zip(
            _make_folds(W.shape[1], mixing),
            numpy.split(W, mixing.n_blocks), strict=True)]
    return numpy.mean(folded, axis=0) / mixing.n_tiles


def measure(x: Any, in_size: int | None = None) -> Moments:
    """Means and covariances of calibration inputs of any kind.

    Args:
        x: As in :func:`inputs.iterate`.
        in_size: Elements of an input; those of the first one by default.

    Raises:
        ValueError: If there are no inputs, or they do not fit.

    """
    moments = None if in_size is None else Moments(in_size)
    for rows in iterate_rows(x, in_size):
        if moments is None:
            moments = Moments(rows.shape[1])
        moments.add(rows)
    if moments is None or moments.count == 0:
        raise ValueError('there are no calibration inputs')
    return moments


def iterate_rows(x: Any, in_size: int | None = None) -> Iterator[Array]:
    """Yields calibration inputs as matrices on the CPU, with an input a row.

    Args:
        x: As in :func:`inputs.iterate`.
        in_size: Elements of an input; those of the first one by default.

    Raises:
        ValueError: If they do not fit.

    """
    for given in inputs.iterate(x):
        batch = given.args[0]
        if batch.ndim < 2:
            raise ValueError(
                'calibration inputs must come in batches, not as an array of '
                'shape {}'.format(batch.shape))
        size = int(numpy.prod(batch.shape[1:]))
        in_size = size if in_size is None else in_size
        if size != in_size:
            raise ValueError(
                'calibration inputs of shape {} have {} elements each, but '
                'the layer takes {}'.format(batch.shape, size, in_size))
        yield backend.CpuDevice().send(batch).reshape(len(batch), size)
