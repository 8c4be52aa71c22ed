"""The least-squares problem of a layer, of what all runs feed it."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy

from shared_linear.compression import folds, regression
from shared_linear.compression.calibration import Moments
from shared_linear.compression.rows import Rows
from shared_linear.compression.samples import Samples, is_by_samples
from shared_linear.layers.tiled_link import to_cpu

Array = numpy.ndarray


class Layer(NamedTuple):

    """A fully connected layer of the original, and how many are before."""

    path: str
    link: Any
    W: Array
    b: Array | None
    place: int = 0


class Part(NamedTuple):

    """What is left of a layer, and what its errors weigh.

    Attributes:
        L: Root of the weight of the errors of what is left of the outputs, if
            they do not weigh alike.
        rows: Which outputs are left, if not all.
        units: Which inputs are left, if not all.

    """

    L: Array | None = None
    rows: Array | None = None
    units: Array | None = None

    def of_parameters(
            self, W: Any, b: Array | None) -> tuple[Any, Array | None]:
        if self.units is not None:
            W = W[:, self.units]
        if self.rows is not None:
            W, b = W[self.rows], None if b is None else b[self.rows]
        if self.L is not None:
            W = self.L.T.astype(W.dtype) @ W
            b = None if b is None else self.L.T @ b
        return W, b

    def of_inputs(self, x: Array) -> Array:
        return x if self.units is None else x[:, self.units]

    def of_outputs(self, y: Array) -> Array:
        if self.rows is not None:
            y = y[:, self.rows]
        return y if self.L is None else y @ self.L


WHOLE = Part()


def pose(
        layer: Layer, stops: list[Any], split: list[Rows],
        targets: list[Array] | None, part: Part = WHOLE, *,
        has_bias: bool = False) -> folds.Problem:
    """Poses the problem by moments, or by samples, if the layer is wide.

    Args:
        layer: The layer.
        stops: Where each run waits, with what it feeds the layer.
        split: Which of these rows are fitted to, and which are held out.
        targets: The outputs to aim at, or ``None`` for the layer's own.
        part: What is left of the layer.
        has_bias: Whether there is to be a bias where there was none.

    """
    n_train = sum(int(rows.train.sum()) for rows in split)
    n_held = sum(int(rows.held_out.sum()) for rows in split)
    if not n_train or not n_held:
        raise ValueError(
            'there are too few calibration inputs: {} to fit to, and {} '
            'to hold out'.format(n_train, n_held))
    has_bias = has_bias or layer.b is not None
    in_size = (
        layer.W.shape[1] if part.units is None else len(part.units))
    by_samples = is_by_samples(in_size, n_train)
    W, b = part.of_parameters(
        layer.W.astype(
            numpy.float32 if by_samples else numpy.float64, copy=False),
        None if layer.b is None else layer.b.astype(numpy.float64))
    if by_samples:
        arrays: list[Any] = []
        for which in Rows._fields:
            xs, ys = zip(
                *_parts(stops, split, which, targets, part), strict=True)
            x = numpy.concatenate(xs).astype(numpy.float32, copy=False)
            del xs
            if targets is None:
                y = x @ W.T
                if b is not None:
                    y += b.astype(numpy.float32)
            else:
                y = numpy.concatenate(ys).astype(numpy.float32, copy=False)
            arrays += [x, y]
        x, y, held_x, held_y = arrays
        return Samples(x, y, held_x, held_y, W, has_bias)
    moments = []
    for which in Rows._fields:
        one = Moments(in_size, len(W) if targets is not None else 0)
        for x, y in _parts(stops, split, which, targets, part):
            one.add(x, y)
        moments.append(one)
    train, held_out = moments
    return regression.Covariances(train, held_out, W, b, has_bias)


def _parts(
        stops: list[Any], split: list[Rows], which: str, targets: Any,
        part: Part) -> Iterator[tuple[Array, Array | None]]:
    """Inputs and outputs to aim at, batch by batch."""
    for i, (stop, of_batch) in enumerate(zip(stops, split, strict=True)):
        rows = getattr(of_batch, which)
        x = part.of_inputs(to_cpu(stop.x)[rows])
        if not numpy.isfinite(x).all():
            raise ValueError(
                'calibration inputs must be finite, but some are NaN or '
                'infinite')
        yield x, (
            None if targets is None else part.of_outputs(targets[i][rows]))


def error_of(
        split: list[Rows], targets: list[Array],
        answers: list[Array]) -> float:
    """On what is held out, in units of the variance."""
    squares, ys = 0., []
    for rows, y, z in zip(split, targets, answers, strict=True):
        held = rows.held_out
        difference = (y[held] - z[held]).astype(numpy.float64)
        squares += float((difference ** 2).sum())
        ys.append(y[held])
    y = numpy.concatenate(ys).astype(numpy.float64)
    return squares / regression.unit_of_errors(
        float(((y - y.mean(0)) ** 2).sum()), float((y * y).sum()))
