"""Which rows of the inputs a layer is fitted to, and which are held out."""
from __future__ import annotations

from typing import Any, NamedTuple

import numpy

from shared_linear.compression.examples import are_held_out

Array = numpy.ndarray


class Rows(NamedTuple):

    """Booleans of the rows that a layer is fed for a batch."""

    train: Array
    held_out: Array


class Split:

    """Which examples are held out, and which of their rows are padding.

    Args:
        held_out: For each batch, which examples are held out. Where none is,
            errors are those on what is fitted to.
        masks: For each batch, booleans of the minibatch axes: ``False`` for
            what is padding; or ``None``.

    """

    def __init__(
            self, held_out: list[Array], masks: list[Array] | None) -> None:
        self._held_out = held_out
        self._masks = masks
        self._holds_out = any(held.any() for held in held_out)

    def n_inputs(self) -> float:
        """How many there are, without those that padding would make up."""
        count: float = sum(map(len, self._held_out))
        if self._masks is not None:
            count *= sum(map(numpy.sum, self._masks)) / sum(
                map(numpy.size, self._masks))
        return count

    def rows(self, i: int, n_rows: int, some: slice = slice(None)) -> Rows:
        """Those of one batch.

        Args:
            i: Number of the batch.
            n_rows: How many a layer is fed for it.
            some: Which inputs of the batch, if not all.

        """
        held = self._held_out[i][some]
        if not self._holds_out:
            held = numpy.zeros(n_rows, bool)
        elif len(held) and n_rows % len(held) == 0:
            held = numpy.repeat(held, n_rows // len(held))
        else:
            held = are_held_out(numpy.arange(n_rows))
        mask = numpy.ones(n_rows, bool)
        if self._masks is not None:
            of_batch = numpy.asarray(self._masks[i])[some].ravel()
            if of_batch.size == n_rows:
                mask = of_batch
        return Rows(mask & ~held, mask & held if self._holds_out else mask)

    def of(self, stops: list[Any]) -> list[Rows]:
        """Those of all batches, of a layer that all runs have reached."""
        return [self.rows(i, len(stop.x)) for i, stop in enumerate(stops)]
