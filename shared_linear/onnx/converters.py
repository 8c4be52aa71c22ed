"""What functions become in ONNX, where onnx_chainer does not know or errs.

A converter is given a function of a run, and returns the nodes that stand for
it, of standard operators only.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy
from chainer.backends import cuda
from chainer.functions.array.get_item import GetItem
from chainer.functions.array.permutate import Permutate
from chainer.functions.connection.convolution_nd import ConvolutionND
from chainer.functions.connection.deconvolution_2d import (
    Deconvolution2DFunction,
)
from chainer.functions.connection.deconvolution_nd import DeconvolutionND
from chainer.functions.normalization.batch_normalization import (
    BatchNormalization,
    FixedBatchNormalization,
)
from chainer.functions.pooling.max_pooling_nd import MaxPoolingND

from shared_linear.layers.function import SharedLinearFunction
from shared_linear.layers.mixed_function import MixedLinearFunction
from shared_linear.layers.tiling import Fold, Tile
from shared_linear.onnx import compat

if TYPE_CHECKING:
    import onnx

    Converter = Callable[[Any], Sequence[onnx.NodeProto]]


class _Nodes:

    """The nodes that stand for one function.

    Args:
        params (FunctionConverterParams): What a converter is given.

    """

    def __init__(self, params: Any) -> None:
        from onnx_chainer import onnx_helper  # type: ignore[import-untyped]
        self.params = params
        self.dtypes = [v.dtype for v in params.func.inputs]
        self._builder = onnx_helper.GraphBuilder()

    @property
    def order(self) -> Any:
        return self.params.func.order

    def add(self, kind: str, *names: str, **attributes: Any) -> str:
        return self._builder.op(kind, list(names), **attributes)

    def cast(self, name: str, source: Any, target: Any) -> str:
        if source == target:
            return name
        import onnx
        return self.add(
            'Cast', name, to=onnx.helper.np_dtype_to_tensor_dtype(target))

    def constant(self, value: Any, name: str) -> str:
        return self.params.context.add_const(cuda.to_cpu(value), name)

    def shape(self, sizes: Sequence[int], name: str) -> str:
        return self.constant(numpy.array(sizes, numpy.int64), name)

    def fold(self, name: str) -> str:
        """Sees the last axis as (n_tiles, m), and adds over the first."""
        func: Any = self.params.func
        *axes, width = func.inputs[0].shape
        if self.order is not None:
            name = self.add(
                'Gather', name, self.constant(self.order, 'order'),
                axis=len(axes))
        if func.n_tiles == 1:
            return name
        if width == 0:
            raise ValueError('an input of no columns has no tiles there')
        # 0 stands for the size that the axis has in the input.
        shape = [0] * len(axes) + [func.n_tiles, width // func.n_tiles]
        tiles = self.add('Reshape', name, self.shape(shape, 'tiles'))
        return self.add('ReduceSum', tiles, axes=[len(axes)], keepdims=0)

    def gemm(
            self, a: str, b: str, bias: Sequence[str], dtype: Any,
            **transposed: int) -> str:
        if not bias and self.params.opset_version < 11:
            # Until then Gemm wants a bias. It may be a single number.
            bias = [self.constant(numpy.zeros(1, dtype), 'bias')]
        return self.add('Gemm', a, b, *bias, **transposed)

    def finished(self, last: str) -> Any:
        """The nodes, of which the last gives the function's output."""
        if last in self.params.input_names:
            self.add('Identity', last)
        return self._builder.nodes(self.params.output_names)


def _convert_shared_linear(params: Any) -> Any:
    """y = fold(x) W^T + b, whichever of the two methods Chainer runs.

    Sums and product are in float32 at least and rounded once, as there.
    """
    nodes = _Nodes(params)
    dtype = numpy.result_type(*nodes.dtypes[:2], numpy.float32)
    x, W, *b = (
        nodes.cast(name, source, dtype)
        for name, source in zip(
            params.input_names, nodes.dtypes, strict=True))
    y = nodes.gemm(nodes.fold(x), W, b, dtype, transB=1)
    return nodes.finished(nodes.cast(y, dtype, nodes.dtypes[0]))


def _convert_mixed_linear(params: Any) -> Any:
    """y = concat_j W fold(s_j * x[:, p_j])^T + b.

    One gather of rows of x^T makes the tiles of all blocks: a runtime copies
    a row in one go, and the columns of x number by number. Those whose sign
    is negative are gathered from -x^T, so that no signs are stored.
    """
    nodes = _Nodes(params)
    dtype = numpy.result_type(*nodes.dtypes[:2], numpy.float32)
    x, W, *b = (
        nodes.cast(name, source, dtype)
        for name, source in zip(
            params.input_names, nodes.dtypes, strict=True))
    mixing = params.func.mixing
    n, k = mixing.n_tiles, mixing.n_blocks
    in_size = params.func.inputs[0].shape[1]
    height = params.func.inputs[1].shape[0]
    if 0 in (in_size, height):
        raise ValueError('a weight of no elements has no blocks there')
    rows, signs = mixing.permutations(in_size)
    table = nodes.add('Transpose', x, perm=[1, 0])
    if (signs < 0).any():
        table = nodes.add('Concat', table, nodes.add('Neg', table), axis=0)
        rows = numpy.where(signs < 0, rows + in_size, rows)
    shape = [*([k] if k > 1 else []), *([n] if n > 1 else []), in_size // n]
    z = nodes.add('Gather', table, nodes.constant(
        rows.astype(numpy.int32).reshape(shape), 'rows'), axis=0)
    if n > 1:
        z = nodes.add('ReduceSum', z, axes=[len(shape) - 2], keepdims=0)
    if k == 1:
        y = nodes.gemm(z, W, b, dtype, transA=1, transB=1)
    else:
        y = nodes.add(
            'Transpose', nodes.add('MatMul', W, z), perm=[2, 0, 1])
        # 0 stands for the batch size.
        y = nodes.add('Reshape', y, nodes.shape([0, k * height], 'blocks'))
        if b:
            y = nodes.add('Add', y, *b)
    return nodes.finished(nodes.cast(y, dtype, nodes.dtypes[0]))


def _convert_fold(params: Any) -> Any:
    """z = fold(x), in float32 at least and rounded once."""
    nodes = _Nodes(params)
    dtype = numpy.result_type(*nodes.dtypes, numpy.float32)
    x = nodes.cast(params.input_names[0], nodes.dtypes[0], dtype)
    z = nodes.fold(x)
    return nodes.finished(nodes.cast(z, dtype, nodes.dtypes[0]))


def _convert_tile(params: Any) -> Any:
    """y = tile(x)."""
    nodes = _Nodes(params)
    func, (x,) = params.func, params.input_names
    *axes, width = func.inputs[0].shape
    if nodes.order is None:
        repeats = nodes.shape([1] * len(axes) + [func.n_tiles], 'repeats')
        return nodes.finished(nodes.add('Tile', x, repeats))
    groups = numpy.argsort(cuda.to_cpu(nodes.order)) % width
    return nodes.finished(nodes.add(
        'Gather', x, nodes.constant(groups, 'groups'), axis=len(axes)))


def _convert_fake_quantize(params: Any) -> Any:
    """y = s (clip(round(x / s) + z) - z), of a model that surgery quantized.

    In float32 at least and rounded once, as there.
    """
    func = params.func
    if type(func).__module__ != 'shared_linear.surgery.fake_quantize':
        raise compat.no_converter(func, type(func).__name__)
    if params.opset_version < 11:
        raise ValueError('it rounds, which begins with opset 11')
    nodes = _Nodes(params)
    dtype = numpy.result_type(*nodes.dtypes, numpy.float32)
    scale, zero, low, high = (
        nodes.constant(cuda.to_cpu(value).astype(dtype), name)
        for name, value in (
            ('scale', func.scale), ('zero_point', func.zero_point),
            ('q_min', numpy.array(func.q_min)),
            ('q_max', numpy.array(func.q_max))))
    x = nodes.cast(params.input_names[0], nodes.dtypes[0], dtype)
    q = nodes.add('Add', nodes.add('Round', nodes.add('Div', x, scale)), zero)
    q = nodes.add('Sub', nodes.add('Clip', q, low, high), zero)
    y = nodes.add('Mul', q, scale)
    return nodes.finished(nodes.cast(y, dtype, nodes.dtypes[0]))


def _only(kind: type, convert: Converter) -> Converter:
    """A converter that leaves other classes of the same name to others.

    The exporter looks converters up by the name of the function's class, and
    Chainer has a ``Tile`` too.
    """
    def convert_or_pass(params: Any) -> Any:
        from onnx_chainer import mapping
        if isinstance(params.func, kind):
            return convert(params)
        name = kind.__name__
        if name not in mapping.converters:
            raise compat.no_converter(params.func, name)
        return mapping.converters[name](params)

    return convert_or_pass


CONVERTERS: dict[str, Converter] = {
    kind.__name__: _only(kind, convert) for kind, convert in (
        (BatchNormalization, compat.check_batch_normalization),
        (FixedBatchNormalization, compat.check_batch_normalization),
        (ConvolutionND, compat.convert_convolution_nd),
        (Deconvolution2DFunction, compat.check_deconvolution),
        (DeconvolutionND, compat.check_deconvolution),
        (Fold, _convert_fold),
        (GetItem, compat.convert_get_item),
        (MaxPoolingND, compat.convert_max_pooling),
        (MixedLinearFunction, _convert_mixed_linear),
        (Permutate, compat.convert_permutate),
        (SharedLinearFunction, _convert_shared_linear),
        (Tile, _convert_tile),
    )}
CONVERTERS['FakeQuantizeFunction'] = _convert_fake_quantize
