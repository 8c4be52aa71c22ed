"""The nodes that stand for one function, in the form of any opset.

Operators took their axes, sizes and bounds as attributes once, and take them
as inputs since. What changed when is here, and nowhere else.
"""
from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy
from chainer.backends import cuda

# How Slice says "to the end".
END = numpy.iinfo(numpy.int64).max
BEGIN = numpy.iinfo(numpy.int64).min


class Nodes:

    """Builds the nodes of one function.

    Args:
        params (FunctionConverterParams): What onnx_chainer gives a converter.

    Attributes:
        func: The function, as it ran.
        opset (int): The version of the operators that are written.
        inputs (list of str): Names of the function's inputs.
        shapes (list of tuple): Their shapes in this run.
        dtypes (list of numpy.dtype): Their types.

    """

    def __init__(self, params: Any) -> None:
        from onnx_chainer import onnx_helper  # type: ignore[import-untyped]
        self.params = params
        self.func: Any = params.func
        self.opset: int = params.opset_version
        self.inputs: list[str] = list(params.input_names)
        self.shapes: list[tuple[int, ...]] = [
            v.shape for v in self.func.inputs]
        self.dtypes = [numpy.dtype(v.dtype) for v in self.func.inputs]
        self._builder = onnx_helper.GraphBuilder()
        self._constants: set[str] = set()

    @property
    def x(self) -> str:
        """The first input."""
        return self.inputs[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.shapes[0]

    @property
    def ndim(self) -> int:
        return len(self.shapes[0])

    @property
    def dtype(self) -> Any:
        return self.dtypes[0]

    def axis(self, axis: int, ndim: int | None = None) -> int:
        """An axis counted from the front."""
        return int(axis) % (self.ndim if ndim is None else ndim)

    def needs(self, opset: int, what: str) -> None:
        if self.opset < opset:
            raise ValueError('{} begins with opset {}'.format(what, opset))

    def add(self, kind: str, *names: str, **attributes: Any) -> str:
        name: str = self._builder.op(kind, list(names), **attributes)
        return name

    def add_several(
            self, kind: str, *names: str, outputs: int,
            **attributes: Any) -> list[str]:
        made = self._builder.op(
            kind, list(names), num_outputs=outputs, **attributes)
        return [made] if outputs == 1 else list(made)

    def constant(self, value: Any, name: str) -> str:
        for number in itertools.count():
            unique = '{}_{}'.format(name, number) if number else name
            if unique not in self._constants:
                break
        self._constants.add(unique)
        array = numpy.ascontiguousarray(cuda.to_cpu(value)).reshape(
            numpy.shape(value))
        added: str = self.params.context.add_const(array, unique)
        return added

    def number(self, value: Any, name: str, dtype: Any = None) -> str:
        """A constant without axes, of the first input's type."""
        return self.constant(
            numpy.array(value, self.dtype if dtype is None else dtype), name)

    def ints(self, values: Iterable[Any], name: str) -> str:
        return self.constant(
            numpy.array([int(v) for v in values], numpy.int64), name)

    def cast(self, name: str, source: Any, target: Any) -> str:
        if numpy.dtype(source) == numpy.dtype(target):
            return name
        import onnx
        return self.add('Cast', name, to=onnx.helper.np_dtype_to_tensor_dtype(
            numpy.dtype(target)))

    def exact(self, *values: float) -> bool:
        """Whether attributes, which are float32, hold numbers for the type."""
        return self.dtype != numpy.float64 or all(
            float(numpy.float32(v)) == float(v) for v in values)

    # Operators whose form changed.

    def _with_axes(
            self, kind: str, name: str, axes: Sequence[int], since: int,
            **attributes: Any) -> str:
        if self.opset < since:
            return self.add(kind, name, axes=list(axes), **attributes)
        return self.add(kind, name, self.ints(axes, 'axes'), **attributes)

    def squeeze(self, name: str, axes: Sequence[int]) -> str:
        if not axes:
            return name
        return self._with_axes('Squeeze', name, axes, 13)

    def unsqueeze(self, name: str, axes: Sequence[int]) -> str:
        if not axes:
            return name
        return self._with_axes('Unsqueeze', name, axes, 13)

    def reduce(
            self, kind: str, name: str, axes: Sequence[int] | None,
            keepdims: bool, ndim: int | None = None) -> str:
        """ReduceSum, ReduceMean and so on; ``None`` means all axes."""
        ndim = self.ndim if ndim is None else ndim
        axes = range(ndim) if axes is None else [
            self.axis(a, ndim) for a in axes]
        if not axes:
            # ONNX would take that for all axes.
            return name
        return self._with_axes(
            'Reduce' + kind, name, list(axes), 13 if kind == 'Sum' else 18,
            keepdims=int(keepdims))

    def slice(
            self, name: str, starts: Sequence[int], ends: Sequence[int],
            axes: Sequence[int], steps: Sequence[int] | None = None) -> str:
        if not axes:
            return name
        if steps is not None and all(s == 1 for s in steps):
            steps = None
        if self.opset < 10:
            if steps is not None:
                raise ValueError('a slice by steps begins with opset 10')
            return self.add(
                'Slice', name, axes=list(axes), starts=list(starts),
                ends=list(ends))
        names = [
            self.ints(starts, 'starts'), self.ints(ends, 'ends'),
            self.ints(axes, 'axes')]
        if steps is not None:
            names.append(self.ints(steps, 'steps'))
        return self.add('Slice', name, *names)

    def split(self, name: str, sizes: Sequence[int], axis: int) -> list[str]:
        if len(sizes) == 1:
            return [name]
        if self.opset < 13:
            return self.add_several(
                'Split', name, outputs=len(sizes), axis=axis,
                split=list(sizes))
        return self.add_several(
            'Split', name, self.ints(sizes, 'split'), outputs=len(sizes),
            axis=axis)

    def clip(
            self, name: str, low: float | None, high: float | None,
            dtype: Any = None) -> str:
        dtype = self.dtype if dtype is None else dtype
        if self.opset >= 11:
            # Clip-11 is for float32 alone, and 12 for all numbers.
            if self.opset >= 12 or dtype == numpy.float32:
                bounds = [
                    '' if v is None else self.number(v, n, dtype)
                    for v, n in ((low, 'low'), (high, 'high'))]
                return self.add('Clip', name, *bounds)
        elif dtype != numpy.float64:
            bounds_ = {
                k: float(v) for k, v in (('min', low), ('max', high))
                if v is not None}
            return self.add('Clip', name, **bounds_)
        for kind, bound in ('Max', low), ('Min', high):
            if bound is not None:
                self.needs(8, '{} of a number and an array'.format(kind))
                name = self.add(kind, name, self.number(bound, kind, dtype))
        return name

    def pad(
            self, name: str, pads: Sequence[int], mode: str = 'constant',
            value: float = 0, dtype: Any = None) -> str:
        """``pads`` are the begins of all axes, and then their ends."""
        if not any(pads):
            return name
        if self.opset < 11:
            return self.add(
                'Pad', name, mode=mode, pads=list(pads), value=float(value))
        names = [self.ints(pads, 'pads')]
        if mode == 'constant':
            names.append(self.number(value, 'value', dtype))
        return self.add('Pad', name, *names, mode=mode)

    def softmax(self, kind: str, name: str, axis: int, ndim: int) -> str:
        """Softmax or LogSoftmax along one axis.

        Until opset 13 the operator took all later axes together with it.
        """
        axis = self.axis(axis, ndim)
        if self.opset >= 13 or axis == ndim - 1:
            return self.add(kind, name, axis=axis)
        perm = list(range(ndim))
        perm[axis], perm[-1] = perm[-1], perm[axis]
        name = self.add('Transpose', name, perm=perm)
        name = self.add(kind, name, axis=ndim - 1)
        return self.add('Transpose', name, perm=perm)

    def reshape(self, name: str, sizes: Sequence[int]) -> str:
        """0 stands for the size that the axis has in the input."""
        return self.add('Reshape', name, self.ints(sizes, 'shape'))

    def reshape_as(self, name: str, other: str) -> str:
        return self.add('Reshape', name, self.add('Shape', other))

    def expand(self, name: str, sizes: Sequence[int]) -> str:
        self.needs(8, 'Expand')
        return self.add('Expand', name, self.ints(sizes, 'shape'))

    def transpose(self, name: str, perm: Sequence[int]) -> str:
        if list(perm) == list(range(len(perm))):
            return name
        return self.add('Transpose', name, perm=[int(p) for p in perm])

    def enlarge(self, name: str, factors: Sequence[int]) -> str:
        """Repeats each element so many times along each axis."""
        if all(f == 1 for f in factors):
            return name
        scales = [float(f) for f in factors]
        if self.opset < 9:
            return self.add('Upsample', name, scales=scales)
        array = self.constant(numpy.array(scales, numpy.float32), 'scales')
        if self.opset < 11:
            return self.add(
                'Upsample' if self.opset < 10 else 'Resize', name, array)
        return self.add(
            'Resize', name, self.absent('roi'), array, mode='nearest',
            nearest_mode='floor', coordinate_transformation_mode='asymmetric')

    def absent(self, name: str) -> str:
        """An input of Resize that is not given."""
        return '' if self.opset >= 13 else self.constant(
            numpy.zeros(0, numpy.float32), name)

    def gemm(
            self, a: str, b: str, bias: Sequence[str], dtype: Any,
            **transposed: int) -> str:
        if not bias and self.opset < 11:
            # Until then Gemm wants a bias. It may be a single number.
            bias = [self.constant(numpy.zeros(1, dtype), 'bias')]
        return self.add('Gemm', a, b, *bias, **transposed)

    def where(self, condition: str, x: str, y: str) -> str:
        self.needs(9, 'Where')
        return self.add('Where', condition, x, y)

    def wide(self, name: str) -> tuple[str, Any]:
        """The first input in float32 at least, and that type."""
        dtype = numpy.result_type(self.dtype, numpy.float32)
        return self.cast(name, self.dtype, dtype), dtype

    def finished(self, *results: str) -> Any:
        """The nodes, whose outputs have the names of the function's."""
        names: dict[str, str] = {}
        for result, output in zip(
                results, self.params.output_names, strict=True):
            if result in self.params.input_names or result in names or (
                    result in self._constant_names()):
                result = self.add('Identity', result)
            names[result] = output
        nodes = self._builder.nodes()
        for node in nodes:
            for values in node.input, node.output:
                values[:] = [names.get(name, name) for name in values]
        return nodes

    def _constant_names(self) -> set[str]:
        return {
            node.output[0] for node in self.params.context.constants}


Convert = Callable[[Nodes], 'str | Sequence[str]']


def operator(kind: str, since: int = 7, **attributes: Any) -> Convert:
    """The conversion of a function that is an operator as it is."""
    def convert(nodes: Nodes) -> str:
        nodes.needs(since, kind)
        return nodes.add(kind, *nodes.inputs, **attributes)

    return convert
