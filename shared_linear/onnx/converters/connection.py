"""chainer.functions.connection in ONNX."""
from __future__ import annotations

from typing import Any

from chainer.functions.connection.bilinear import BilinearFunction
from chainer.functions.connection.convolution_2d import Convolution2DFunction
from chainer.functions.connection.convolution_nd import ConvolutionND
from chainer.functions.connection.deconvolution_2d import (
    Deconvolution2DFunction,
)
from chainer.functions.connection.deconvolution_nd import DeconvolutionND
from chainer.functions.connection.embed_id import EmbedIDFunction
from chainer.functions.connection.linear import LinearFunction

from shared_linear.onnx.nodes import Convert, Nodes


def convert_linear(nodes: Nodes) -> str:
    x, W, *b = nodes.inputs
    return nodes.gemm(x, W, b, nodes.dtype, transB=1)


def convert_convolution(nodes: Nodes) -> str:
    func = nodes.func
    if isinstance(func, Convolution2DFunction):
        stride, pad, dilate = (
            (func.sy, func.sx), (func.ph, func.pw), (func.dy, func.dx))
    else:
        stride, pad, dilate = func.stride, func.pad, func.dilate
    # Up to a window that the stride began: as if there was more padding.
    more = [s - 1 if func.cover_all else 0 for s in stride]
    return nodes.add(
        'Conv', *nodes.inputs, kernel_shape=nodes.shapes[1][2:],
        strides=stride, dilations=dilate, group=func.groups,
        pads=[*pad, *(p + m for p, m in zip(pad, more, strict=True))])


def convert_deconvolution(nodes: Nodes) -> str:
    """A size of the output that is given is cut off, or added, at the end."""
    func = nodes.func
    if isinstance(func, Deconvolution2DFunction):
        stride, pad, dilate = (
            (func.sy, func.sx), (func.ph, func.pw), (func.dy, func.dx))
        outs: Any = func.outh, func.outw
    else:
        stride, pad, dilate, outs = (
            func.stride, func.pad, func.dilate, func.outs)
    return transposed_convolution(
        nodes, nodes.inputs, nodes.shapes[1][2:], stride, pad, dilate, outs,
        func.groups)


def transposed_convolution(
        nodes: Nodes, names: list[str], ksize: tuple[int, ...],
        stride: tuple[int, ...], pad: tuple[int, ...],
        dilate: tuple[int, ...], outs: tuple[int, ...], groups: int) -> str:
    ends, added = [], []
    for size, k, s, p, d, out in zip(
            nodes.shape[2:], ksize, stride, pad, dilate, outs, strict=True):
        end = s * (size - 1) + (k - 1) * d + 1 - out - p
        ends.append(max(end, 0))
        added.append(max(-end, 0))
        if -end >= max(s, d):
            raise ValueError('the output has the size {}'.format(outs))
    attributes = {'output_padding': added} if any(added) else {}
    return nodes.add(
        'ConvTranspose', *names, kernel_shape=ksize, strides=stride,
        dilations=dilate, group=groups, pads=[*pad, *ends], **attributes)


def convert_embed_id(nodes: Nodes) -> str:
    x, W = nodes.inputs
    ignored = nodes.func.ignore_label
    if ignored is None:
        return nodes.add('Gather', W, x, axis=0)
    mask = nodes.add('Equal', x, nodes.number(ignored, 'ignore_label'))
    rows = nodes.add(
        'Gather', W, nodes.where(mask, nodes.number(0, 'row'), x), axis=0)
    return nodes.where(
        nodes.unsqueeze(mask, [nodes.ndim]),
        nodes.number(0, 'zero', nodes.dtypes[1]), rows)


def convert_bilinear(nodes: Nodes) -> str:
    """y_l = sum_jk a_j b_k W_jkl + a V1 + b V2 + c."""
    a, b = (
        nodes.add('Flatten', name, axis=1) for name in nodes.inputs[:2])
    n, m, out = nodes.shapes[2]
    pairs = nodes.add(
        'Mul', nodes.unsqueeze(a, [2]), nodes.unsqueeze(b, [1]))
    y = nodes.add(
        'MatMul', nodes.reshape(pairs, [0, n * m]),
        nodes.reshape(nodes.inputs[2], [n * m, out]))
    if len(nodes.inputs) == 6:
        V1, V2, c = nodes.inputs[3:]
        for term in nodes.add('MatMul', a, V1), nodes.add('MatMul', b, V2), c:
            y = nodes.add('Add', y, term)
    return y


CONVERTERS: dict[type, Convert] = {
    BilinearFunction: convert_bilinear,
    Convolution2DFunction: convert_convolution,
    ConvolutionND: convert_convolution,
    Deconvolution2DFunction: convert_deconvolution,
    DeconvolutionND: convert_deconvolution,
    EmbedIDFunction: convert_embed_id,
    LinearFunction: convert_linear,
}
