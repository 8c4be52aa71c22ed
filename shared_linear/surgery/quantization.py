"""Simulates computing with few bits, in training and after it."""
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import chainer

from shared_linear.surgery import edited
from shared_linear.surgery.addresses import EditError, Pattern
from shared_linear.surgery.attachment import next_number
from shared_linear.surgery.callables import Portable, label_of
from shared_linear.surgery.fake_quantize import RANGES, FakeQuantize
from shared_linear.surgery.graph import Graph
from shared_linear.surgery.kinds import Edit, InsertAfter, InsertBeforeWeight
from shared_linear.surgery.nodes import Node
from shared_linear.surgery.preservation import (
    all_links,
    preserved,
    transaction,
)
from shared_linear.surgery.trace import Example, record_steps
from shared_linear.surgery.trial import tried

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
        calibration: A batch of inputs (an array, or a tuple or a dict of
            arguments), or an iterable of batches.
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
    _check_link(model)
    example = batches[0]
    with chainer.using_config('train', False):
        edited.settle(model, *example[:2])
    with transaction(model):
        if _quantizers(model):
            raise EditError('the model is quantized already: revert those '
                            'edits first, or calibrate it anew')
        # What runs in a later step only, once a recurrent link has a state.
        graphs = record_steps(model, example, False, 2)
        _insert(model, graphs, example, {
            'activation': ActivationQuantizer(n_bits, symmetric, ranges),
            'weight': WeightQuantizer(n_bits, per_channel)})
        calibrate(model, batches)
        graphs = record_steps(model, example, False, 2)
        paths = {id(link): path for path, link in model.namedlinks()}
        return QuantizationReport(_rows(
            [node for graph in graphs for node in graph], paths))


def _check_link(model: chainer.Link) -> None:
    if not isinstance(model, chainer.Link):
        raise TypeError('only a chainer.Link can be quantized, not '
                        f'{type(model).__name__}')


def _quantizers(model: chainer.Link) -> list[FakeQuantize]:
    return [link for link in all_links(model)
            if isinstance(link, FakeQuantize)]


def _insert(model: chainer.Link, graphs: list[Graph], example: Example,
            factories: 'dict[str, Callable[..., Any]]') -> None:
    nodes = [node for graph in graphs for node in graph]
    activations = [n for n in nodes if n.function in ACTIVATIONS]
    weights = [(n, i) for n in nodes for i, value in enumerate(n.inputs)
               if value.is_weight]
    if not activations and not weights:
        raise EditError('the model has no activation function and reads no '
                        'weight in reach of edits: there is nothing to '
                        'quantize')

    def insert(kind: type[Edit], nodes: list[Node], name: str,
               **index: int) -> None:
        factory = factories[name]
        edit = kind(
            [Pattern(text) for text in _exactly(nodes)], name,
            content=f'one of {label_of(factory)} each',
            factory=Portable(factory, optional=True), **index)
        edit.number = next_number(model)
        tried(model, edit, graphs, example)

    if activations:
        insert(InsertAfter, activations, 'activation')
    for index in sorted({i for _, i in weights}):
        insert(InsertBeforeWeight, [n for n, i in weights if i == index],
               'weight', input=index)


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
    _check_link(model)
    quantizers = _quantizers(model)
    if not quantizers:
        raise ValueError('the model has no FakeQuantize to calibrate')
    batches = _batches(calibration)
    with transaction(model):
        for quantizer in quantizers:
            quantizer.reset()
        # Nothing else is to remember that it ran, such as a recurrent link.
        given = [(*batch.args, *batch.kwargs.values()) for batch in batches]
        with preserved(model, given, leave=quantizers), \
                chainer.using_config('train', False), \
                chainer.no_backprop_mode():
            for batch in batches:
                model(*batch.args, **batch.kwargs)
        for quantizer in _quantizers(model):
            # One that saw nothing would fail when it is reached in train
            # mode.
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


def _batches(calibration: Any) -> list[Example]:
    arrays = (chainer.Variable, *chainer.get_array_types())
    if isinstance(calibration, arrays):
        return [Example((calibration,), {})]
    if isinstance(calibration, (tuple, dict)):
        return [_example(calibration)]
    if not isinstance(calibration, Iterable):
        raise TypeError(
            'calibration must be a batch or an iterable of batches, not '
            f'{type(calibration).__name__}')
    return [_example(batch) for batch in calibration]


def _example(batch: Any) -> Example:
    if isinstance(batch, Example):
        return batch
    if isinstance(batch, dict):
        return Example((), batch)
    return Example(batch if isinstance(batch, tuple) else (batch,), {})
