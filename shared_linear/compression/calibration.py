"""Means and covariances of a layer's inputs and outputs."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy
from chainer import backend

from shared_linear.compression import inputs

Array = numpy.ndarray


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
        return finite(array, numpy.float64, what)

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


def finite(array: Array, dtype: Any, what: str = 'inputs') -> Array:
    """A copy of a dtype, if all values are finite."""
    array = array.astype(dtype)
    if not numpy.isfinite(array).all():
        raise ValueError(
            'calibration {} must be finite, but some are NaN or '
            'infinite'.format(what))
    return array


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
