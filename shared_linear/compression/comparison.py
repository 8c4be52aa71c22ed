"""Compares a model whose layers were changed with the original."""
from __future__ import annotations

import numpy

from shared_linear.compression.regression import unit_of_errors

Array = numpy.ndarray


class Untrue(RuntimeError):

    """A changed model does not compute what is said of it."""


class Misplaced(Untrue, ValueError):

    """A model calls its layers by other references than their places."""


def check_layers(
        called: list[tuple[str, Array]], fitted: dict[str, Array]) -> None:
    """Raises unless each layer of a new model gives what it was fitted to.

    Args:
        called: Paths of the layers and what they gave, in their order.
        fitted: What they should give on the same inputs, in the same order.

    """
    paths = [path for path, _ in called]
    if paths != list(fitted):
        raise Misplaced(
            'the new model does not call each layer once by its place in the '
            'model: it calls {} and not {}; exclude those it calls by another '
            'reference'.format(', '.join(paths) or 'none', ', '.join(fitted)))
    for path, y in called:
        if not near(fitted[path], y):
            raise Untrue(
                '{} of the new model does not give what it was fitted to '
                'give: something else than its weight decides what it '
                'computes; exclude it'.format(path))


def check_results(fitted: list[Array], results: list[Array]) -> None:
    """Raises unless a new model gives what its layers were fitted to give."""
    if len(fitted) != len(results) or not all(map(near, fitted, results)):
        raise Untrue(
            'the new model does not give what its layers were fitted to give: '
            'something else than their weights decides what they compute')


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


def compare(
        results: list[tuple[list[Array], list[Array]]],
        held_out: list[Array]) -> tuple[float, float]:
    """Error and mean cosine of the outputs on what is held out.

    If that is nothing, it is those on all inputs.

    Args:
        results: Of each batch those of the original and of the new model.
        held_out: Of each batch, which examples are held out.

    """
    before: list[Array] = []
    after: list[Array] = []
    if not any(held.any() for held in held_out):
        held_out = [~held for held in held_out]
    for (ys, zs), held in zip(results, held_out, strict=True):
        pairs = [
            (y[held], z[held]) for y, z in zip(ys, zs, strict=True)
            if y.dtype.kind == 'f' and numpy.ndim(y) and len(y) == len(held)]
        if held.any() and pairs:
            for side, arrays in ((before, 0), (after, 1)):
                side.append(numpy.concatenate([
                    pair[arrays].reshape(int(held.sum()), -1)
                    for pair in pairs], axis=1).astype(numpy.float64))
    return error_and_cosine(before, after)


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
