"""What surgery.quantize inserts, in ONNX: 8-bit integers where they are."""
from __future__ import annotations

from typing import Any

import chainer
import numpy
from chainer.backends import cuda

from shared_linear.onnx.nodes import Convert, Nodes


class Grid:

    """The integers that a quantizer rounds to.

    Attributes:
        scale (numpy.ndarray): A number, or one for each index of ``axis``.
        zero (numpy.ndarray): The integer for 0, likewise.
        axis (int or None): The axis along which they differ.
        kind (numpy.dtype): The smallest type that holds all integers.

    """

    def __init__(self, func: Any, ndim: int) -> None:
        scale, zero = (
            numpy.asarray(cuda.to_cpu(v)) for v in (
                func.scale, func.zero_point))
        self.low, self.high = int(func.q_min), int(func.q_max)
        self.axis: int | None = None
        self.scale: Any
        self.zero: Any
        if scale.size > 1:
            self.axis = next(
                i + ndim - scale.ndim for i, n in enumerate(scale.shape)
                if n == scale.size)
            self.scale, self.zero = scale.ravel(), zero.ravel()
        else:
            self.scale, self.zero = scale.reshape(()), zero.reshape(())
        names = 'Bb' if self.low >= 0 else 'b'
        self.kind = next(numpy.dtype(k) for k in names + 'hH' if (
            numpy.iinfo(k).min <= self.low
            and self.high <= numpy.iinfo(k).max))

    @property
    def axes(self) -> dict[str, int]:
        return {} if self.axis is None else {'axis': self.axis}

    @property
    def fits_exactly(self) -> bool:
        """Whether the type's own ends are those of the grid."""
        limits = numpy.iinfo(self.kind)
        return (limits.min, limits.max) == (self.low, self.high)

    def beside(self, value: numpy.ndarray, ndim: int) -> numpy.ndarray:
        """Scales or zeros, to be combined with an array of so many axes."""
        if self.axis is None:
            return value
        shape = [1] * ndim
        shape[self.axis] = -1
        return value.reshape(shape)

    def integers(self, array: numpy.ndarray) -> numpy.ndarray:
        wide = numpy.promote_types(array.dtype, numpy.float32)
        q = numpy.rint(
            array.astype(wide) / self.beside(self.scale, array.ndim))
        q += self.beside(self.zero, array.ndim)
        return numpy.clip(q, self.low, self.high).astype(self.kind)


def convert_fake_quantize(nodes: Nodes) -> str:
    """y = s (clip(round(x / s) + z, low, high) - z).

    A parameter is stored as the integers, and only taken back to floats in
    the graph.
    """
    grid = Grid(nodes.func, nodes.ndim)
    variable = nodes.func.inputs[0].get_variable_or_none()
    if isinstance(variable, chainer.Parameter):
        return _stored(nodes, grid, cuda.to_cpu(variable.array))
    if grid.kind.itemsize == 1 and nodes.opset >= (
            10 if grid.axis is None else 13):
        return _quantized(nodes, grid)
    return _computed(nodes, grid)


def _constants(nodes: Nodes, grid: Grid) -> tuple[str, str]:
    return (
        nodes.constant(grid.scale.astype(numpy.float32), 'scale'),
        nodes.constant(grid.zero.astype(grid.kind), 'zero_point'))


def _stored(nodes: Nodes, grid: Grid, array: numpy.ndarray) -> str:
    q = nodes.constant(grid.integers(array), 'int')
    since = 10 if grid.axis is None else 13
    if grid.kind.itemsize == 1 and nodes.opset >= since and (
            grid.scale.dtype == 'f'):
        y = nodes.add('DequantizeLinear', q, *_constants(nodes, grid),
                      **grid.axes)
        return nodes.cast(y, 'f', nodes.dtype)
    dtype = numpy.result_type(nodes.dtype, numpy.float32)
    y = nodes.cast(q, grid.kind, dtype)
    if grid.zero.any():
        y = nodes.add('Sub', y, nodes.constant(
            grid.beside(grid.zero, nodes.ndim).astype(dtype), 'zero_point'))
    y = nodes.add('Mul', y, nodes.constant(
        grid.beside(grid.scale, nodes.ndim).astype(dtype), 'scale'))
    return nodes.cast(y, dtype, nodes.dtype)


def _quantized(nodes: Nodes, grid: Grid) -> str:
    if grid.scale.dtype != 'f':
        return _computed(nodes, grid)
    x = nodes.cast(nodes.x, nodes.dtype, 'f')
    if not grid.fits_exactly:
        # The operator cuts off at the ends of the type only.
        ends = [
            (numpy.float32(end) - grid.zero.astype('f')) * grid.scale
            for end in (grid.low, grid.high)]
        if grid.axis is None:
            x = nodes.clip(x, float(ends[0]), float(ends[1]), 'f')
        else:
            for kind, end in zip(('Max', 'Min'), ends, strict=True):
                x = nodes.add(kind, x, nodes.constant(
                    grid.beside(end, nodes.ndim).astype('f'), kind))
    scale, zero = _constants(nodes, grid)
    y = nodes.add('QuantizeLinear', x, scale, zero, **grid.axes)
    y = nodes.add('DequantizeLinear', y, scale, zero, **grid.axes)
    return nodes.cast(y, 'f', nodes.dtype)


def _computed(nodes: Nodes, grid: Grid) -> str:
    """In float32 at least and rounded once, as in the model."""
    nodes.needs(11, 'rounding')
    dtype = numpy.result_type(nodes.dtype, numpy.float32, grid.scale.dtype)
    x = nodes.cast(nodes.x, nodes.dtype, dtype)
    scale, zero = (
        nodes.constant(grid.beside(v, nodes.ndim).astype(dtype), name)
        for v, name in ((grid.scale, 'scale'), (grid.zero, 'zero_point')))
    q = nodes.add('Add', nodes.add('Round', nodes.add('Div', x, scale)), zero)
    q = nodes.add('Sub', nodes.clip(q, grid.low, grid.high, dtype), zero)
    return nodes.cast(nodes.add('Mul', q, scale), dtype, nodes.dtype)


def converter_of(function: Any) -> Convert | None:
    """By name: surgery does not give the class away."""
    kind = type(function)
    if kind.__name__ == 'FakeQuantizeFunction' and kind.__module__.startswith(
            'shared_linear.surgery.'):
        return convert_fake_quantize
    return None
