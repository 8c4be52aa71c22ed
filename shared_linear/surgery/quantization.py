"""Simulates computing with few bits, in training and after it."""
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import chainer

from shared_linear.surgery.addresses import EditError
from shared_linear.surgery.attachment import detach
from shared_linear.surgery.editing import edits, insert_after, insert_before
from shared_linear.surgery.fake_quantize import RANGES, FakeQuantize
from shared_linear.surgery.nodes import Node
from shared_linear.surgery.trace import Example, record

# Element by element, and of a float to a float.
ACTIVATIONS = frozenset([
    'CReLU', 'ClippedReLU', 'ELU', 'HardSigmoid', 'LeakyReLU',
    'PReLUFunction', 'RReLU', 'ReLU', 'Sigmoid', 'Softplus', 'Swish',
    'Tanh'])


class Quantized(NamedTuple):

    """What :func:`quantize` did at one place.

    Attributes:
        address (str): The function.
        layer (str): Path of its :class:`FakeQuantize`.
        what (str): ``'output'``, or the path of the weight.

    """

    address: str
    layer: str
    what: str


class QuantizationReport(list[Quantized]):

    """The list of what :func:`quantize` quantized; prints as a table."""

    def __str__(self) -> str:
        return '\n'.join(
            f'{one.address}: {one.what} by {one.layer}' for one in self)


def quantize(model: chainer.Link, calibration: Any, n_bits: int = 8, *,
             symmetric: bool = False, per_channel: bool = True,
             ranges: str = 'min_max') -> QuantizationReport:
    """Quantizes the activations and the weights of a trained model.

    A :class:`FakeQuantize` goes after every activation function, its range
    calibrated in test mode and then fixed, and one, symmetric, before every
    function that reads a parameter of two or more axes, its range always
    that of the parameter. The parameters themselves stay floats, so the
    model can be trained on (quantization-aware training).

    Args:
        model (~chainer.Link): The model, changed in place.
        calibration: A batch of inputs (an array, or a tuple of arguments),
            or an iterable of batches.
        n_bits (int): From 2 to 16.
        symmetric (bool): Whether activations are quantized symmetrically.
        per_channel (bool): Whether each output channel of a weight has a
            range of its own.
        ranges (str): ``'min_max'`` or ``'moving_average'``, for activations.

    Returns:
        QuantizationReport: What was quantized, in the order of the run.

    Raises:
        EditError: If the model is quantized already, or has nothing to
            quantize.
        ValueError: If there is no calibration data, or it is not finite.

    .. admonition:: Example

        >>> import numpy as np
        >>> from shared_linear import surgery
        >>> import chainer.functions as F, chainer.links as L
        >>> model = chainer.Sequential(L.Linear(3, 2), F.relu)
        >>> print(surgery.quantize(model, np.ones((4, 3), np.float32)))
        /0/LinearFunction: /0/W by /0/weight_LinearFunction
        /ReLU: output by /activation_ReLU

    """
    batches = _batches(calibration)
    if not batches:
        raise ValueError('quantize needs at least one batch of calibration '
                         'data, and the iterable is empty')
    if ranges not in RANGES[:2]:
        raise ValueError(
            f'ranges must be min_max or moving_average, not {ranges!r}')
    FakeQuantize(n_bits)  # Raises before the model is touched.
    if any(isinstance(link, FakeQuantize) for link in model.links()):
        raise EditError('the model is quantized already: revert those edits '
                        'first, or calibrate it anew')
    graph = record(model, Example(batches[0], {}), False)
    activations = [n for n in graph if n.function in ACTIVATIONS]
    weights = [(n, i) for n in graph for i, value in enumerate(n.inputs)
               if value.is_parameter and value.ndim >= 2
               and value.dtype.kind == 'f']
    if not activations and not weights:
        raise EditError('the model has no activation function and reads no '
                        'weight in reach of edits: there is nothing to '
                        'quantize')
    before = {one.edit.uid for one in edits(model)}
    try:
        with chainer.using_config('train', False):
            if activations:
                insert_after(
                    model, _exactly(activations),
                    ActivationQuantizer(n_bits, symmetric, ranges),
                    each=True, name='activation', x=batches[0])
            for index in sorted({i for _, i in weights}):
                insert_before(
                    model, _exactly([n for n, i in weights if i == index]),
                    WeightQuantizer(n_bits, per_channel), input=index,
                    each=True, name='weight', x=batches[0])
        calibrate(model, batches)
    except BaseException:
        after = {one.edit.uid for one in edits(model)}
        detach(model, after - before)
        raise
    paths = {id(link): path for path, link in model.namedlinks()}
    return QuantizationReport(_rows(
        record(model, Example(batches[0], {}), False), paths))


def calibrate(model: chainer.Link, calibration: Any) -> chainer.Link:
    """Takes the ranges of all :class:`FakeQuantize` anew, and fixes them.

    Args:
        model (~chainer.Link): The model, which is run in test mode.
        calibration: As for :func:`quantize`.

    Returns:
        ~chainer.Link: ``model``.

    Raises:
        ValueError: If the model has none, or the data is not finite.

    """
    quantizers = [link for link in model.links()
                  if isinstance(link, FakeQuantize)]
    if not quantizers:
        raise ValueError('the model has no FakeQuantize to calibrate')
    for quantizer in quantizers:
        quantizer.reset()
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        for batch in _batches(calibration):
            model(*batch)
    for quantizer in quantizers:
        # One that saw nothing would fail when it is reached in train mode.
        quantizer.calibrating = (
            quantizer.ranges != 'current' and quantizer.low is None)
    return model


@dataclasses.dataclass(frozen=True)
class ActivationQuantizer:

    """Makes the quantizer of an activation; unlike a lambda it pickles."""

    n_bits: int
    symmetric: bool
    ranges: str

    def __call__(self, node: Node) -> FakeQuantize:
        return FakeQuantize(self.n_bits, self.symmetric, ranges=self.ranges)


@dataclasses.dataclass(frozen=True)
class WeightQuantizer:

    """Makes the quantizer of a weight."""

    n_bits: int
    per_channel: bool

    def __call__(self, node: Node) -> FakeQuantize:
        # The weight of a deconvolution begins with the input's axis.
        axis = int('Deconvolution' in node.function)
        return FakeQuantize(self.n_bits, symmetric=True, ranges='current',
                            axis=axis if self.per_channel else None)


def _exactly(nodes: list[Node]) -> list[str]:
    """Patterns of every repetition of the nodes' functions."""
    patterns = []
    for node in nodes:
        base = f'{"" if node.path == "/" else node.path}/{node.function}'
        patterns += [base, f'{base}_[0-9]*']
    return list(dict.fromkeys(patterns))


def _rows(graph: Iterable[Node],
          paths: dict[int, str]) -> Iterator[Quantized]:
    quantized = [node for node in graph
                 if isinstance(node.link, FakeQuantize)]
    seen = set()
    for node in quantized:
        source = node.inputs[0]
        reader = node.outputs[0].readers
        if id(node.link) in seen:
            continue
        seen.add(id(node.link))
        layer = paths[id(node.link)]
        if source.is_parameter:
            yield Quantized(reader[0][0].address, layer, source.origin)
        else:
            yield Quantized(source.origin, layer, 'output')


def _batches(calibration: Any) -> list[tuple[Any, ...]]:
    arrays = (chainer.Variable, *chainer.get_array_types())
    if isinstance(calibration, arrays):
        return [(calibration,)]
    if isinstance(calibration, tuple):
        return [calibration]
    if not isinstance(calibration, Iterable):
        raise TypeError(
            'calibration must be a batch or an iterable of batches, not '
            f'{type(calibration).__name__}')
    return [batch if isinstance(batch, tuple) else (batch,)
            for batch in calibration]
