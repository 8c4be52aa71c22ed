"""chainer.functions.pooling in ONNX."""
from __future__ import annotations

from typing import Any

import numpy
from chainer.functions.pooling.average_pooling_2d import AveragePooling2D
from chainer.functions.pooling.average_pooling_nd import AveragePoolingND
from chainer.functions.pooling.max_pooling_nd import MaxPoolingND
from chainer.functions.pooling.pooling_2d import Pooling2D
from chainer.functions.pooling.roi_pooling_2d import ROIPooling2D
from chainer.functions.pooling.unpooling_2d import Unpooling2D
from chainer.functions.pooling.unpooling_nd import UnpoolingND
from chainer.functions.pooling.upsampling_2d import Upsampling2D
from chainer.utils.conv import get_conv_outsize

from shared_linear.onnx.converters.connection import transposed_convolution
from shared_linear.onnx.nodes import END, Convert, Nodes


def _windows(func: Any) -> tuple[Any, Any, Any]:
    if isinstance(func, Pooling2D):
        return (func.kh, func.kw), (func.sy, func.sx), (func.ph, func.pw)
    return tuple(func.ksize), tuple(func.stride), tuple(func.pad)


def _is_global(nodes: Nodes, ksize: Any, pad: Any) -> bool:
    """Whether the window is the whole picture, of whatever size."""
    return tuple(ksize) == nodes.shape[2:] and not any(pad)


def convert_max_pooling(nodes: Nodes) -> str:
    """``cover_all`` lets the stride begin a window that ends outside.

    That is as many windows as with s - 1 more of padding at the end, whatever
    the size. onnxruntime refuses a padding of a whole window, and with
    ``ceil_mode`` it leaves windows out.
    """
    ksize, stride, pad = _windows(nodes.func)
    with_indices = id(
        getattr(nodes.func, 'indexes', None)) in nodes.params.context.indices
    if _is_global(nodes, ksize, pad) and not with_indices:
        return nodes.add('GlobalMaxPool', nodes.x)
    more = [s - 1 if nodes.func.cover_all else 0 for s in stride]
    ends: Any = [p + m for p, m in zip(pad, more, strict=True)]
    name = nodes.x
    if any(end >= k for end, k in zip(ends, ksize, strict=True)):
        if with_indices:
            raise ValueError('indices of windows beyond the end')
        n = len(ksize)
        for size, k, step, p in zip(
                nodes.shape[2:], ksize, stride, pad, strict=True):
            windows = get_conv_outsize(
                size, k, step, p, nodes.func.cover_all)
            if (windows - 1) * step >= size + p:
                # Of nothing, -inf in Chainer, and in onnxruntime not.
                raise ValueError('a window lies wholly in the padding')
        name = nodes.pad(
            name, [0, 0, *pad, 0, 0, *ends], value=-numpy.inf)
        pad = ends = (0,) * n
    outputs = nodes.add_several(
        'MaxPool', name, outputs=1 + with_indices,
        kernel_shape=ksize, strides=stride, pads=[*pad, *ends])
    if len(outputs) == 2:
        nodes.params.context.indices[id(nodes.func.indexes)] = (
            outputs[1], nodes.x, nodes.shape)
    return outputs[0]


def convert_average_pooling(nodes: Nodes) -> str:
    ksize, stride, pad = _windows(nodes.func)
    if _is_global(nodes, ksize, pad):
        return nodes.add('GlobalAveragePool', nodes.x)
    counted = getattr(nodes.func, 'pad_value', 0) is not None
    return nodes.add(
        'AveragePool', nodes.x, kernel_shape=ksize, strides=stride,
        pads=[*pad, *pad], count_include_pad=int(counted))


def convert_unpooling(nodes: Nodes) -> str:
    """Each element all over its window, and windows that overlap added."""
    func = nodes.func
    ksize, stride, pad = _windows(func)
    outs = (func.outh, func.outw) if isinstance(
        func, Unpooling2D) else tuple(func.outs)
    n = len(ksize)
    if ksize != stride:
        ones = numpy.ones((nodes.shape[1], 1, *ksize), nodes.dtype)
        return transposed_convolution(
            nodes, [nodes.x, nodes.constant(ones, 'ones')], ksize, stride,
            pad, (1,) * n, outs, nodes.shape[1])
    name = nodes.enlarge(nodes.x, (1, 1, *ksize))
    # How much the output is longer than the enlarged input without padding.
    longer = [
        out + p - k * size for out, p, k, size in zip(
            outs, pad, ksize, nodes.shape[2:], strict=True)]
    ends = [min(e, 0) or END for e in longer]
    if any(pad) or any(e != END for e in ends):
        name = nodes.slice(name, pad, ends, range(2, 2 + n))
    return nodes.pad(
        name, [0] * (4 + n) + [max(e, 0) for e in longer])


def convert_upsampling(nodes: Nodes) -> str:
    """Back to where a max pooling took the elements from."""
    nodes.needs(11, 'ScatterElements')
    func = nodes.func
    pool = nodes.params.context.indices.get(id(func.indexes))
    if pool is None:
        raise ValueError('indices that no max pooling of the model gave')
    ksize, stride, _ = _windows(func)
    if any(s < k for s, k in zip(stride, ksize, strict=True)):
        raise ValueError('windows that overlap')
    indices, pooled, shape = pool
    if shape[2:] != (func.outh, func.outw):
        raise ValueError('an output of the size {}, where the input of the '
                         'pooling has {}'.format(
                             (func.outh, func.outw), shape[2:]))
    # MaxUnpool wants sizes that its windows fill.
    size = nodes.add('Shape', pooled)
    zeros = nodes.add('ConstantOfShape', nodes.reduce(
        'Prod', size, [0], True, 1), value=_zero(nodes))
    scattered = nodes.add(
        'ScatterElements', zeros, nodes.reshape(indices, [-1]),
        nodes.reshape(nodes.x, [-1]), axis=0)
    return nodes.add('Reshape', scattered, size)


def _zero(nodes: Nodes) -> Any:
    from onnx import numpy_helper
    return numpy_helper.from_array(numpy.zeros(1, nodes.dtype))


def convert_roi_pooling(nodes: Nodes) -> str:
    func = nodes.func
    return nodes.add(
        'MaxRoiPool', *nodes.inputs, pooled_shape=[func.outh, func.outw],
        spatial_scale=float(func.spatial_scale))


CONVERTERS: dict[type, Convert] = {
    AveragePooling2D: convert_average_pooling,
    AveragePoolingND: convert_average_pooling,
    MaxPoolingND: convert_max_pooling,
    ROIPooling2D: convert_roi_pooling,
    Unpooling2D: convert_unpooling,
    UnpoolingND: convert_unpooling,
    Upsampling2D: convert_upsampling,
}
