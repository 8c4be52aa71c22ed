"""What the errors of a layer's outputs do to the outputs of the model."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy

from shared_linear.compression import capture, memory
from shared_linear.compression.problems import Layer
from shared_linear.compression.rows import Split
from shared_linear.layers.tiled_link import to_cpu

Array = numpy.ndarray

# Rows for each output of a layer, to know what its errors weigh; and the most
# outputs for which it is asked.
ROWS_PER_OUTPUT = 10
MOST_WEIGHTED = 2048
# Rows to know what the errors of a layer do in all; and the least that they
# are taken to do, as a part of the mean of all layers.
ROWS_FOR_EFFECT = 500
LEAST_EFFECT = .01


class Effects:

    """What errors weigh, within each layer and among the layers.

    Within a layer it is the mean of two, M (o, o): that all outputs weigh
    alike, and E[J^T J], what the error does to the outputs of the model, by
    its derivative J.

    Args:
        layers: The layers by path.

    """

    def __init__(self, layers: dict[str, Layer]) -> None:
        self._layers = layers
        self._weights: dict[str, Array] = {}
        self._of_errors: dict[str, float] = {}
        # Of the outputs of each, as the problem of the layer has them.
        self.variances: dict[str, float] = {}

    def measure(
            self, model: Any, batches: list[Any], split: Split,
            n_rows: dict[str, float], wind_back: Callable[[], None],
            but: Iterable[str] = ()) -> None:
        """Differentiates the outputs of the model.

        Args:
            model: The model.
            batches: Its inputs.
            split: Which of them are fitted to.
            n_rows: What each layer is fed for an input, about.
            wind_back: Winds the random numbers back.
            but: Paths of layers whose outputs weigh alike.

        """
        sums = {
            path: numpy.zeros((len(layer.W),) * 2)
            for path, layer in self._layers.items()
            if 1 < len(layer.W) <= MOST_WEIGHTED and path not in but}
        squares = dict.fromkeys(self._layers, 0.)
        rng = numpy.random.RandomState(0)
        links = {path: layer.link for path, layer in self._layers.items()}
        every = max(1, int(split.n_inputs() * min(
            n_rows[path] / (
                ROWS_PER_OUTPUT * len(layer.W) if path in sums
                else ROWS_FOR_EFFECT)
            for path, layer in self._layers.items())))
        most = max(1., *(n_rows[path] for path in self._layers))
        for i, some in _sample(batches, every, most):
            wind_back()
            gradients = capture.sensitivities(
                model, batches[i][some], links, rng)
            for path, gradient in gradients.items():
                rows = split.rows(i, len(gradient), some)
                gradient = to_cpu(gradient)[
                    rows.train].astype(numpy.float64)
                if path in sums:
                    sums[path] += gradient.T @ gradient
                squares[path] += float((gradient ** 2).sum())
        for path, square in squares.items():
            if numpy.isfinite(square) and square > 0:
                self._of_errors[path] = square / len(self._layers[path].W)
                if path in sums:
                    M = sums[path] / self._of_errors[path]
                    self._weights[path] = (M + numpy.eye(len(M))) / 2

    def weight(self, path: str) -> Array | None:
        """M of a layer, (o, o), if its outputs do not weigh alike."""
        return self._weights.get(path)

    def root(self, path: str, rows: Array | None = None) -> Array | None:
        """L with L L^T = M, of some of the outputs."""
        M = self._weights.get(path)
        if M is None:
            return None
        return numpy.linalg.cholesky(M if rows is None else M[rows][:, rows])

    def of_layers(self) -> dict[str, float]:
        """What an error of as much as the variance of each layer's outputs
        does to those of the model, as a part of the mean of all layers.

        To the first order errors add up to tr(J^T J cov(error)), so that the
        sum of those of the layers is that of the model.
        """
        known = {
            path: effect * self.variances[path]
            for path, effect in self._of_errors.items()}
        mean = numpy.mean(list(known.values())) if known else 1.
        return {
            path: float(max(known.get(path, mean) / mean, LEAST_EFFECT))
            for path in self._layers}


def _sample(
        batches: list[Any], every: int,
        n_rows: float) -> Iterator[tuple[int, slice]]:
    """The batches, and which of their inputs: one of so many.

    Not more at a time than a graph, which keeps all values, has room for.
    """
    step = every * max(1, int(memory.MOST_DIFFERENTIATED / n_rows))
    start = 0
    for i, batch in enumerate(batches):
        while start < len(batch):
            yield i, slice(start, min(start + step, len(batch)), every)
            start += step
        start = (start - len(batch)) % every
