"""Simulates computing with few bits, in training and after it."""
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import chainer
import numpy
from chainer import function_node
from chainer.utils import type_check

from shared_linear.surgery.addresses import EditError
from shared_linear.surgery.editing import (
    detach,
    edits,
    insert_after,
    insert_before,
)
from shared_linear.surgery.graph import Node
from shared_linear.surgery.trace import Example, record

RANGES = 'min_max', 'moving_average', 'current'

# Element by element, and of a float to a float.
ACTIVATIONS = frozenset([
    'CReLU', 'ClippedReLU', 'ELU', 'HardSigmoid', 'LeakyReLU',
    'PReLUFunction', 'RReLU', 'ReLU', 'Sigmoid', 'Softplus', 'Swish',
    'Tanh'])


class FakeQuantizeFunction(function_node.FunctionNode):

    """Rounds to a grid of integers, with a straight-through gradient."""

    def __init__(self, scale: Any, zero_point: Any, q_min: int,
                 q_max: int) -> None:
        self.scale = scale
        self.zero_point = zero_point
        self.q_min = q_min
        self.q_max = q_max

    def check_type_forward(self, in_types: Any) -> None:
        type_check._argname(in_types, ('x',))
        type_check.expect(in_types[0].dtype.kind == 'f')

    def forward(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x, = inputs
        xp = chainer.backend.get_array_module(x)
        # float16 holds no integer above 2048 exactly.
        wide = numpy.promote_types(x.dtype, numpy.float32)
        q = xp.rint(x.astype(wide) / self.scale) + self.zero_point
        self._passes = (q >= self.q_min) & (q <= self.q_max)
        q = xp.clip(q, self.q_min, self.q_max)
        return ((q - self.zero_point) * self.scale).astype(x.dtype),

    def backward(self, indexes: tuple[int, ...],
                 gy: tuple[chainer.Variable, ...],
                 ) -> tuple[chainer.Variable, ...]:
        return gy[0] * self._passes.astype(gy[0].dtype),


class FakeQuantize(chainer.Link):

    """Rounds its input to what ``n_bits`` bits can hold.

    .. math::
       y = s (q - z), \\quad
       q = \\mathrm{clip}(\\mathrm{round}(x / s) + z, q_{min}, q_{max})

    The scale ``s`` and the zero point ``z`` follow from the range of the
    data (Jacob et al., "Quantization and Training of Neural Networks for
    Efficient Integer-Arithmetic-Only Inference", 2018): zero is always on
    the grid. The gradient is passed straight through where ``x`` is in the
    range and is zero outside it (Bengio et al., "Estimating or Propagating
    Gradients Through Stochastic Neurons", 2013).

    While ``calibrating`` is true, as it is in the beginning, each call takes
    the range of its input into account; afterwards the range is fixed.
    The range and ``calibrating`` are saved with the model.

    Args:
        n_bits (int): From 2 to 16.
        symmetric (bool): If ``True``, ``z`` is 0 and the grid reaches from
            :math:`-2^{n-1}+1` to :math:`2^{n-1}-1`, as is usual for weights;
            otherwise it is affine, from 0 to :math:`2^n-1`.
        axis (int): Axis with a range of its own for each index, as 1 for
            the channels of an image and 0 for the outputs of a weight.
            ``None`` means one range for all.
        ranges (str): ``'min_max'``: the least and greatest value observed;
            ``'moving_average'``: their moving averages; ``'current'``: those
            of each input itself, with nothing to calibrate, as for weights
            that are trained.
        decay (float): Decay of the moving average.

    Attributes:
        low (:ref:`ndarray`): Lower end of the range, of shape ``()`` or one
            element for each index of ``axis``.
        high (:ref:`ndarray`): Upper end.
        calibrating (bool): Whether the range follows the data.
        n_observed (int): Number of inputs that were observed.

    .. admonition:: Example

        >>> import numpy as np
        >>> from shared_linear import surgery
        >>> quantizer = surgery.FakeQuantize(2)
        >>> x = np.array([-1., 0., 0.6, 1.2, 2.], np.float32)
        >>> quantizer(x).array
        array([-1.,  0.,  1.,  1.,  2.], dtype=float32)
        >>> quantizer.calibrating = False
        >>> quantizer(3 * x).array
        array([-1.,  0.,  2.,  2.,  2.], dtype=float32)

    """

    def __init__(self, n_bits: int = 8, symmetric: bool = False,
                 axis: 'int | None' = None, ranges: str = 'min_max',
                 decay: float = 0.9) -> None:
        super().__init__()
        if isinstance(n_bits, bool) or not isinstance(n_bits, int):
            raise TypeError(
                f'n_bits must be an int, not {type(n_bits).__name__}')
        if not 2 <= n_bits <= 16:
            raise ValueError(f'n_bits must be from 2 to 16, not {n_bits}')
        if ranges not in RANGES:
            raise ValueError(
                f'ranges must be one of {", ".join(RANGES)}, not {ranges!r}')
        if not 0 <= decay < 1:
            raise ValueError(f'decay must be in [0, 1), not {decay}')
        self.n_bits = n_bits
        self.symmetric = symmetric
        self.axis = axis
        self.ranges = ranges
        self.decay = decay
        self.low: Any = None
        self.high: Any = None
        self.calibrating = ranges != 'current'
        self.n_observed = 0
        for name in 'low', 'high', 'calibrating', 'n_observed':
            self.register_persistent(name)

    @property
    def printable_specs(self) -> Iterator[tuple[str, Any]]:
        for name in 'n_bits', 'symmetric', 'axis', 'ranges', 'calibrating':
            yield name, getattr(self, name)

    def forward(self, x: Any) -> chainer.Variable:
        """Rounds ``x``.

        Args:
            x (:class:`~chainer.Variable` or :ref:`ndarray`): Floats of any
                shape.

        Returns:
            ~chainer.Variable: Of the shape and dtype of ``x``.

        """
        x = chainer.as_variable(x)
        low, high = self._range_for(x.array)
        xp = chainer.backend.get_array_module(x.array)
        if self.axis is not None:
            shape = [1] * x.ndim
            shape[self.axis] = -1
            low, high = low.reshape(shape), high.reshape(shape)
        # Zero is on the grid, so that zero padding stays exact.
        low, high = xp.minimum(low, 0), xp.maximum(high, 0)
        one = low.dtype.type(1)
        if self.symmetric:
            q_max = 2 ** (self.n_bits - 1) - 1
            q_min = -q_max
            scale = xp.maximum(-low, high) / q_max
            scale = xp.where(scale > 0, scale, one)
            zero_point = xp.zeros_like(scale)
        else:
            q_min, q_max = 0, 2 ** self.n_bits - 1
            scale = (high - low) / q_max
            scale = xp.where(scale > 0, scale, one)
            zero_point = xp.clip(xp.rint(-low / scale), q_min, q_max)
        function = FakeQuantizeFunction(scale, zero_point, q_min, q_max)
        return function.apply((x,))[0]

    def reset(self) -> None:
        """Forgets the range and calibrates anew."""
        self.low = self.high = None
        self.n_observed = 0
        self.calibrating = self.ranges != 'current'

    def serialize(self, serializer: Any) -> None:
        super().serialize(serializer)
        if self.low is not None:
            # What was None is loaded as the file's own kind of array.
            self.low = self.device.send(numpy.asarray(self.low))
            self.high = self.device.send(numpy.asarray(self.high))

    def _range_for(self, x: Any) -> tuple[Any, Any]:
        if self.ranges == 'current':
            return self._observed(x)
        if self.calibrating:
            low, high = self._observed(x)
            if self.low is not None:
                if low.shape != self.low.shape:
                    raise ValueError(
                        f'FakeQuantize holds {self.low.size} ranges along '
                        f'axis {self.axis}, and the input of shape {x.shape} '
                        f'has {low.size}')
                low, high = self._merged(low, high)
            self.low, self.high = low, high
            self.n_observed += 1
        if self.low is None:
            raise ValueError(
                'FakeQuantize was fixed before it observed any data: set '
                'calibrating to True and run it on data first')
        return self.low, self.high

    def _observed(self, x: Any) -> tuple[Any, Any]:
        if self.axis is not None and not -x.ndim <= self.axis < x.ndim:
            raise ValueError(
                f'FakeQuantize has axis={self.axis}, and the input of shape '
                f'{x.shape} has {x.ndim} axes')
        if x.size == 0:
            raise ValueError(
                f'FakeQuantize cannot take a range from shape {x.shape}')
        keep = None if self.axis is None else self.axis % x.ndim
        others = tuple(i for i in range(x.ndim) if i != keep)
        wide = numpy.promote_types(x.dtype, numpy.float32)
        low = x.min(axis=others).astype(wide)
        high = x.max(axis=others).astype(wide)
        xp = chainer.backend.get_array_module(x)
        if not bool(xp.isfinite(low).all() & xp.isfinite(high).all()):
            raise ValueError('FakeQuantize cannot take a range from data '
                             'that holds NaN or infinity')
        return xp.asarray(low), xp.asarray(high)

    def _merged(self, low: Any, high: Any) -> tuple[Any, Any]:
        xp = chainer.backend.get_array_module(low)
        if self.ranges == 'min_max':
            low, high = xp.minimum(self.low, low), xp.maximum(self.high, high)
        else:
            old = low.dtype.type(self.decay)
            new = low.dtype.type(1 - self.decay)
            low = old * self.low + new * low
            high = old * self.high + new * high
        # NumPy makes scalars of these, which no device would move.
        return xp.asarray(low), xp.asarray(high)


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
