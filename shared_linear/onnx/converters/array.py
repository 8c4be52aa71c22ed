"""chainer.functions.array in ONNX, but for what picks elements."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy
from chainer.functions.array.broadcast import Broadcast, BroadcastTo
from chainer.functions.array.cast import Cast
from chainer.functions.array.concat import Concat
from chainer.functions.array.copy import Copy
from chainer.functions.array.depth2space import Depth2Space
from chainer.functions.array.dstack import Dstack
from chainer.functions.array.expand_dims import ExpandDims
from chainer.functions.array.hstack import Hstack
from chainer.functions.array.moveaxis import Moveaxis
from chainer.functions.array.pad import Pad
from chainer.functions.array.pad_sequence import PadSequence
from chainer.functions.array.repeat import Repeat
from chainer.functions.array.reshape import Reshape
from chainer.functions.array.resize_images import ResizeImages
from chainer.functions.array.rollaxis import Rollaxis
from chainer.functions.array.separate import Separate
from chainer.functions.array.space2depth import Space2Depth
from chainer.functions.array.split_axis import SplitAxis
from chainer.functions.array.squeeze import Squeeze
from chainer.functions.array.stack import Stack
from chainer.functions.array.swapaxes import Swapaxes
from chainer.functions.array.tile import Tile
from chainer.functions.array.transpose import Transpose
from chainer.functions.array.transpose_sequence import TransposeSequence
from chainer.functions.array.vstack import Vstack

from shared_linear.onnx.nodes import Convert, Nodes, operator


def permuting(permute: Callable[[Any, Any], Any]) -> Convert:
    """A function that NumPy has too, whose permutation NumPy tells."""
    def convert(nodes: Nodes) -> str:
        # An array without elements of its own, whose sizes name its axes.
        axes = numpy.broadcast_to(0, range(nodes.ndim))
        return nodes.transpose(
            nodes.x, permute(axes, nodes.func).shape)

    return convert


def convert_broadcast(nodes: Nodes) -> list[str]:
    shape = numpy.broadcast_shapes(*nodes.shapes)
    return [
        name if own == shape else nodes.expand(name, shape)
        for name, own in zip(nodes.inputs, nodes.shapes, strict=True)]


def convert_broadcast_to(nodes: Nodes) -> str:
    return nodes.expand(nodes.x, nodes.func._shape)


def convert_cast(nodes: Nodes) -> str:
    return nodes.cast(nodes.x, nodes.dtype, numpy.dtype(nodes.func.type))


def convert_concat(nodes: Nodes) -> str:
    return nodes.add(
        'Concat', *nodes.inputs, axis=nodes.axis(nodes.func.axis))


def stacking(axis: int, fewest: dict[int, list[int]]) -> Convert:
    """hstack, vstack and dstack: which axes arrays of few axes are given."""
    def convert(nodes: Nodes) -> str:
        return nodes.add('Concat', *(
            nodes.unsqueeze(name, fewest.get(len(shape), []))
            for name, shape in zip(nodes.inputs, nodes.shapes, strict=True)),
            axis=axis)

    return convert


def convert_hstack(nodes: Nodes) -> str | Sequence[str]:
    return stacking(int(nodes.ndim > 1), {0: [0]})(nodes)


def convert_stack(nodes: Nodes) -> str:
    axis = nodes.axis(nodes.func.axis, nodes.ndim + 1)
    return nodes.add(
        'Concat', *(nodes.unsqueeze(n, [axis]) for n in nodes.inputs),
        axis=axis)


def convert_expand_dims(nodes: Nodes) -> str:
    return nodes.unsqueeze(
        nodes.x, [nodes.axis(nodes.func.axis, nodes.ndim + 1)])


def convert_squeeze(nodes: Nodes) -> str:
    axes = nodes.func.axis
    return nodes.squeeze(nodes.x, [
        i for i, size in enumerate(nodes.shape) if size == 1
    ] if axes is None else sorted(nodes.axis(a) for a in axes))


def convert_pad(nodes: Nodes) -> str:
    func = nodes.func
    kinds = {'constant': 'constant', 'edge': 'edge', 'reflect': 'reflect'}
    if func.mode not in kinds:
        raise ValueError('the mode {!r}; it has {}'.format(
            func.mode, ', '.join(kinds)))
    options = dict(func.keywords)
    value = numpy.unique(options.pop('constant_values', 0))
    if options.pop('reflect_type', 'even') != 'even' or options:
        raise ValueError('the options {}'.format(func.keywords))
    if len(value) != 1:
        raise ValueError('several values, {}'.format(value.tolist()))
    widths = numpy.broadcast_to(func.pad_width, (nodes.ndim, 2))
    if func.mode == 'reflect' and (
            widths.max(axis=1) >= numpy.array(nodes.shape)).any():
        raise ValueError('a width of the whole axis or more')
    return nodes.pad(
        nodes.x, widths.T.ravel().tolist(), func.mode, value.item())


def convert_pad_sequence(nodes: Nodes) -> str:
    func = nodes.func
    length = func.length
    if length is None:
        length = max(shape[0] for shape in nodes.shapes)
    rows = []
    for name, shape in zip(nodes.inputs, nodes.shapes, strict=True):
        pads = [0] * (2 * len(shape))
        pads[len(shape)] = length - shape[0]
        rows.append(nodes.unsqueeze(
            nodes.pad(name, pads, value=func.padding), [0]))
    return nodes.add('Concat', *rows, axis=0)


def convert_repeat(nodes: Nodes) -> str:
    func = nodes.func
    name, shape, axis = nodes.x, nodes.shape, func.axis
    if axis is None:
        size = int(numpy.prod(shape))
        name, shape, axis = nodes.reshape(name, [-1]), (size,), 0
    axis = nodes.axis(axis, len(shape))
    repeats = func.repeats
    if len(repeats) > 1 or repeats[0] == 0:
        return nodes.add('Gather', name, nodes.constant(numpy.repeat(
            numpy.arange(shape[axis]), repeats), 'indices'), axis=axis)
    tiled = nodes.add('Tile', nodes.unsqueeze(name, [axis + 1]), nodes.ints(
        [repeats[0] if i == axis + 1 else 1 for i in range(len(shape) + 1)],
        'repeats'))
    sizes = list(shape)
    sizes[axis] *= repeats[0]
    return nodes.reshape(tiled, sizes)


def convert_reshape(nodes: Nodes) -> str:
    shape = [int(size) for size in nodes.func.shape]
    if 0 in shape:
        # Elsewhere a 0 stands for the size in the input.
        nodes.needs(14, 'a size of 0 in Reshape')
        return nodes.add(
            'Reshape', nodes.x, nodes.ints(shape, 'shape'), allowzero=1)
    return nodes.reshape(nodes.x, shape)


def convert_resize_images(nodes: Nodes) -> str:
    """By the corners or by the centres, as Chainer is asked."""
    func = nodes.func
    out = func.out_H, func.out_W
    if nodes.opset < 11:
        return _resized_by_products(nodes)
    if func.mode == 'nearest':
        options = {
            'mode': 'nearest', 'nearest_mode': 'floor',
            'coordinate_transformation_mode': 'asymmetric'}
    else:
        options = {
            'mode': 'linear', 'coordinate_transformation_mode':
            'align_corners' if func.align_corners else 'half_pixel'}
    return nodes.add(
        'Resize', nodes.x, nodes.absent('roi'), nodes.absent('scales'),
        nodes.ints([*nodes.shape[:2], *out], 'sizes'), **options)


def _resized_by_products(nodes: Nodes) -> str:
    """Two products, by what Chainer makes of the rows of a unit matrix.

    Below opset 11 no Resize knows where the corners are.
    """
    func = nodes.func
    matrices = []
    for size, out in zip(
            nodes.shape[2:], (func.out_H, func.out_W), strict=True):
        unit = numpy.eye(size, dtype=nodes.dtype)[None, None]
        same = type(func)((out, size), func.mode, func.align_corners)
        matrices.append(same.forward((unit,))[0][0, 0])
    rows, columns = matrices
    y = nodes.add('MatMul', nodes.constant(rows, 'rows'), nodes.x)
    return nodes.add('MatMul', y, nodes.constant(columns.T, 'columns'))


def convert_separate(nodes: Nodes) -> list[str]:
    axis = nodes.axis(nodes.func.axis)
    return [
        nodes.squeeze(part, [axis])
        for part in nodes.split(nodes.x, [1] * nodes.shape[axis], axis)]


def convert_split_axis(nodes: Nodes) -> list[str]:
    axis = nodes.axis(nodes.func.axis)
    sizes = [shape[axis] for shape in nodes.func._shapes]
    if sum(sizes) != nodes.shape[axis]:
        raise ValueError('parts that overlap, of sizes {}'.format(sizes))
    return nodes.split(nodes.x, sizes, axis)


def convert_tile(nodes: Nodes) -> str:
    reps = nodes.func.reps
    name = nodes.unsqueeze(nodes.x, range(len(reps) - nodes.ndim))
    reps = (1,) * (nodes.ndim - len(reps)) + tuple(reps)
    return nodes.add('Tile', name, nodes.ints(reps, 'repeats'))


def convert_transpose_sequence(nodes: Nodes) -> list[str]:
    """The i-th elements of all sequences that are as long as that."""
    lengths = [shape[0] for shape in nodes.shapes]
    results = []
    for i in range(max(lengths, default=0)):
        rows = [
            nodes.slice(name, [i], [i + 1], [0])
            for name, length in zip(nodes.inputs, lengths, strict=True)
            if length > i]
        results.append(
            nodes.add('Concat', *rows, axis=0) if len(rows) > 1 else rows[0])
    return results


def _axes(axes: Sequence[int] | None, ndim: int) -> Sequence[int]:
    return range(ndim)[::-1] if axes is None else axes


CONVERTERS: dict[type, Convert] = {
    Broadcast: convert_broadcast,
    BroadcastTo: convert_broadcast_to,
    Cast: convert_cast,
    Concat: convert_concat,
    Copy: operator('Identity'),
    Depth2Space: lambda nodes: nodes.add(
        'DepthToSpace', nodes.x, blocksize=nodes.func.r),
    Dstack: stacking(2, {0: [0, 1, 2], 1: [0, 2], 2: [2]}),
    ExpandDims: convert_expand_dims,
    Hstack: convert_hstack,
    Moveaxis: permuting(
        lambda x, f: numpy.moveaxis(x, f.source, f.destination)),
    Pad: convert_pad,
    PadSequence: convert_pad_sequence,
    Repeat: convert_repeat,
    Reshape: convert_reshape,
    ResizeImages: convert_resize_images,
    Rollaxis: permuting(lambda x, f: numpy.rollaxis(x, f.axis, f.start)),
    Separate: convert_separate,
    Space2Depth: lambda nodes: nodes.add(
        'SpaceToDepth', nodes.x, blocksize=nodes.func.r),
    SplitAxis: convert_split_axis,
    Squeeze: convert_squeeze,
    Stack: convert_stack,
    Swapaxes: permuting(lambda x, f: numpy.swapaxes(x, f.axis1, f.axis2)),
    Tile: convert_tile,
    Transpose: permuting(
        lambda x, f: numpy.transpose(x, _axes(f.axes, x.ndim))),
    TransposeSequence: convert_transpose_sequence,
    Vstack: stacking(0, {0: [0, 1], 1: [0]}),
}
