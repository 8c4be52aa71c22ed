"""Rounds to what few bits can hold."""
from collections.abc import Iterator
from typing import Any

import chainer
import numpy
from chainer import function_node
from chainer.utils import type_check

RANGES = 'min_max', 'moving_average', 'current'


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
        if axis is not None and (
                isinstance(axis, bool) or not isinstance(axis, int)):
            raise TypeError(
                f'axis must be an int or None, not {type(axis).__name__}')
        if not isinstance(decay, (int, float)):
            raise TypeError(
                f'decay must be a number, not {type(decay).__name__}')
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
        if not isinstance(serializer, chainer.Deserializer):
            super().serialize(serializer)
            return
        before = dict(vars(self))
        try:
            # Of another shape they would be broadcast into what is there.
            self.low = self.high = None
            super().serialize(serializer)
            self._take_loaded(before)
        except (TypeError, ValueError) as error:
            self.__dict__.update(before)
            raise ValueError('the snapshot of a FakeQuantize is none: '
                             + str(error)) from error
        except BaseException:
            self.__dict__.update(before)
            raise

    def _take_loaded(self, before: dict[str, Any]) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError('it has one end of a range only')
        self.calibrating = bool(self.calibrating)
        self.n_observed = int(self.n_observed)
        if self.low is None:
            return
        # What was None is loaded as the file's own kind of array.
        low, high = numpy.asarray(self.low), numpy.asarray(self.high)
        n_axes = 0 if self.axis is None else 1
        if (low.shape != high.shape or low.ndim != n_axes
                or low.dtype.kind != 'f' or high.dtype != low.dtype):
            raise ValueError(
                f'it has ranges of shapes '
                f'{low.shape} and {high.shape} and of {low.dtype} and '
                f'{high.dtype}, not floats with {n_axes} axes')
        held = before['low']
        if held is not None and held.shape != low.shape:
            raise ValueError(
                f'it has {low.size} ranges, and '
                f'the link {held.size}')
        if not (numpy.isfinite(low) & numpy.isfinite(high)
                & (low <= high)).all():
            raise ValueError('it has ranges that are not finite, or end '
                             'before they begin')
        self.low, self.high = self.device.send(low), self.device.send(high)

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
