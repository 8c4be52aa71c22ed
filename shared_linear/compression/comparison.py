"""Compares a model whose layers were changed with the original."""
from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

import numpy

from shared_linear.compression.regression import unit_of_errors

Array = numpy.ndarray

# Of an error that is reported, the part by which rounding may raise it; and
# how many roundings of an output, relative to its size, are always granted.
SLACK = .05
ROUNDINGS = 64


class Untrue(RuntimeError):

    """A changed model does not compute what is said of it."""


class Errors:

    """E|y - y'|^2 of each layer, of its outputs y before and y' now.

    Args:
        rows: By path of a layer whose units were put into another order,
            left out or taken twice: that order and, or ``None``, the factors
            by which they were scaled.

    """

    def __init__(self, rows: Mapping[
            str, tuple[Array, Array | None]] | None = None) -> None:
        self._rows = rows or {}
        self._count: dict[str, int] = {}
        self._mean: dict[str, Array] = {}
        self._variance: dict[str, float] = {}
        self._size: dict[str, float] = {}
        self._error: dict[str, float] = {}
        self._eps: dict[str, float] = {}
        self._alike: dict[str, bool] = {}

    def add(self, before: Iterable[tuple[str, Array, Array]],
            after: Iterable[tuple[str, Array, Array]]) -> None:
        """Adds a batch: the calls of layers, in their order, in both models.

        Args:
            before: Of the original: path, inputs and outputs, as rows.
            after: Of the new model, likewise.

        Raises:
            Untrue: If the new model calls its layers in another order.

        """
        before, after = list(before), list(after)
        paths, others = [c[0] for c in before], [c[0] for c in after]
        if paths != others:
            raise Untrue(
                'the new model calls its layers in another order than the '
                'original: {} and not {}'.format(
                    ', '.join(others), ', '.join(paths)))
        for (path, x, y), (_, new_x, new_y) in zip(
                before, after, strict=True):
            self._eps[path] = float(numpy.finfo(new_y.dtype).eps)
            self._alike[path] = (
                self._alike.get(path, True) and x.shape == new_x.shape
                and y.shape == new_y.shape
                and numpy.array_equal(x, new_x, equal_nan=True))
            y, new_y = y.astype(numpy.float64), new_y.astype(numpy.float64)
            if path in self._rows:
                y, new_y = _same_units(y, new_y, *self._rows[path])
            self._add_one(path, y, new_y)

    def _add_one(self, path: str, y: Array, new_y: Array) -> None:
        k, n = len(y), self._count.get(path, 0)
        if k == 0:
            return
        mean = y.mean(0)
        shift = mean - self._mean.get(path, 0.)
        self._variance[path] = (
            self._variance.get(path, 0.) + ((y - mean) ** 2).sum()
            + n * k / (n + k) * (shift ** 2).sum())
        self._mean[path] = self._mean.get(path, 0.) + k / (n + k) * shift
        self._count[path] = n + k
        self._size[path] = self._size.get(path, 0.) + (y ** 2).sum()
        self._error[path] = (
            self._error.get(path, 0.) + ((y - new_y) ** 2).sum())

    def check(self, reported: Mapping[str, float],
              uncentred: Container[str] = ()) -> None:
        """Raises unless each layer errs by what is reported, or by less.

        Args:
            reported: The error of each layer in units of the variance of y,
                by path; not a number for one that stayed as it was, whose
                outputs on the same inputs must be the same.
            uncentred: Paths of layers whose errors are in units of E|y|^2.

        Raises:
            Untrue: If one errs by more.

        """
        for path, error in self._error.items():
            said = reported.get(path, numpy.nan)
            if numpy.isnan(said):
                if not self._alike[path]:
                    continue
                said = 0.
            unit = (self._size if path in uncentred else self._variance)[path]
            granted = (
                unit * said * (1 + SLACK)
                + (ROUNDINGS * self._eps[path]) ** 2 * self._size[path])
            if not error <= granted:
                raise Untrue(
                    '{} of the new model errs by {:.3g} of the variance of '
                    'its outputs on the calibration inputs, and {:.3g} was '
                    'expected: something else than its weight decides what '
                    'it computes; exclude it'.format(
                        path, error / (unit or 1), said))


def _same_units(
        y: Array, new_y: Array, order: Array, scales: Array | None,
) -> tuple[Array, Array]:
    """Outputs of the units that are left, each once, as they were scaled."""
    units, places = numpy.unique(order, return_index=True)
    new_y = new_y[:, places]
    if scales is not None:
        new_y = new_y / scales[places]
    return y[:, units], new_y


def compare(
        batches: Iterable[Any],
        run: Callable[[Any], Any], new_run: Callable[[Any], Any],
        reported: Mapping[str, float],
        uncentred: Container[str] = (),
        rows: Mapping[str, tuple[Array, Array | None]] | None = None,
) -> None:
    """Raises unless a new model differs by what is reported.

    Args:
        batches: Calibration inputs.
        run: Function of a batch to the calls of the layers of the original:
            path, inputs and outputs, as rows in the memory of the CPU.
        new_run: Likewise of the new model.
        reported: See :meth:`Errors.check`.
        uncentred: Likewise.
        rows: See :class:`Errors`.

    """
    errors = Errors(rows)
    for batch in batches:
        errors.add(run(batch), new_run(batch))
    errors.check(reported, uncentred)


def near(a: Array, b: Array) -> bool:
    """Whether the results of two models are the same but for rounding."""
    if a.shape != b.shape:
        return False
    if a.dtype.kind != 'f':
        # A class, say, which rounding may turn.
        return True
    tolerance = max(1e-3, 100 * float(numpy.finfo(a.dtype).eps))
    scale = numpy.sqrt((a.astype(numpy.float64) ** 2).mean()) if a.size else 0
    return bool((abs(a - b) <= tolerance * (scale + abs(a))).all())


def error_and_cosine(
        before: list[Array], after: list[Array]) -> tuple[float, float]:
    """Error of outputs in units of their variance, and mean cosine.

    Args:
        before: Outputs by batch, with an input a row.
        after: Those of the new model.

    """
    if not before:
        return numpy.nan, numpy.nan
    squares = sum(float(((y - z) ** 2).sum())
                  for y, z in zip(before, after, strict=True))
    widths = {y.shape[1] for y in before}
    if len(widths) == 1:
        y = numpy.concatenate(before)
        variance = float(((y - y.mean(0)) ** 2).sum())
    else:
        # Batches of different lengths have no common mean of each element.
        variance = sum(float(((y - y.mean()) ** 2).sum()) for y in before)
    cosines = numpy.concatenate([
        (y * z).sum(1) / numpy.maximum(
            numpy.linalg.norm(y, axis=1) * numpy.linalg.norm(z, axis=1),
            1e-300) for y, z in zip(before, after, strict=True)])
    size = sum(float((y * y).sum()) for y in before)
    return squares / unit_of_errors(variance, size), float(cosines.mean())
