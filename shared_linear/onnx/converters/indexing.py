"""chainer.functions.get_item and what else picks elements, in ONNX."""
from __future__ import annotations

import operator
from typing import Any

import chainer
import numpy
from chainer.backends import cuda
from chainer.functions.array.flip import Flip
from chainer.functions.array.fliplr import FlipLR
from chainer.functions.array.flipud import FlipUD
from chainer.functions.array.get_item import GetItem
from chainer.functions.array.permutate import Permutate
from chainer.functions.array.select_item import SelectItem
from chainer.functions.array.where import Where

from shared_linear.onnx.nodes import BEGIN, END, Convert, Nodes


def _normalized(index: Any) -> Any:
    """An int, a slice, None, Ellipsis or an array of ints."""
    if index is None or index is Ellipsis:
        return index
    if isinstance(index, slice):
        return slice(*(
            None if v is None else operator.index(v)
            for v in (index.start, index.stop, index.step)))
    array = numpy.asarray(cuda.to_cpu(index)) if isinstance(
        index, chainer.get_array_types()) else numpy.asarray(index)
    if array.dtype == bool:
        if array.ndim != 1:
            raise ValueError('a mask of {} axes'.format(array.ndim))
        return numpy.flatnonzero(array)
    if array.size == 0:
        array = array.astype(numpy.int64)
    if array.dtype.kind not in 'iu':
        raise ValueError('an index of type {}'.format(array.dtype))
    return int(array) if array.ndim == 0 else array.astype(numpy.int64)


def convert_get_item(nodes: Nodes) -> str:
    """x[slices], by NumPy's rules.

    The axes that are new are made first, so that there is an index for each
    axis; then come the slices, then the arrays.
    """
    slices = [_normalized(i) for i in nodes.func.slices]
    given = sum(i is not None and i is not Ellipsis for i in slices)
    rest = [slice(None)] * (nodes.ndim - given)
    if any(i is Ellipsis for i in slices):
        place = next(n for n, i in enumerate(slices) if i is Ellipsis)
        slices[place:place + 1] = rest
    else:
        slices += rest
    name = nodes.unsqueeze(
        nodes.x, [n for n, i in enumerate(slices) if i is None])
    sizes = iter(nodes.shape)
    shape = [1 if i is None else next(sizes) for i in slices]
    indices: list[Any] = [slice(None) if i is None else i for i in slices]

    arrays = [n for n, i in enumerate(indices) if isinstance(
        i, numpy.ndarray)]
    ints = [n for n, i in enumerate(indices) if isinstance(i, int)]
    name = _sliced(nodes, name, indices, not arrays)
    if not arrays:
        return nodes.squeeze(name, ints)
    if not ints and len(arrays) == 1:
        axis, = arrays
        return nodes.add('Gather', name, nodes.constant(
            _indices(nodes, indices[axis], shape[axis]), 'indices'),
            axis=axis)
    return _gathered(nodes, name, indices, shape)


def _sliced(
        nodes: Nodes, name: str, indices: list[Any], with_ints: bool) -> str:
    starts, ends, axes, steps = [], [], [], []
    for axis, index in enumerate(indices):
        if isinstance(index, int) and with_ints:
            index = slice(index, index + 1 if index != -1 else None)
        if not isinstance(index, slice) or index == slice(None):
            continue
        step = 1 if index.step is None else index.step
        start, end = (0, END) if step > 0 else (END, BEGIN)
        starts.append(start if index.start is None else index.start)
        ends.append(end if index.stop is None else index.stop)
        axes.append(axis)
        steps.append(step)
    return nodes.slice(name, starts, ends, axes, steps)


def _indices(nodes: Nodes, index: numpy.ndarray, size: int) -> numpy.ndarray:
    """Those from the end begin with opset 11."""
    return index if nodes.opset >= 11 else index % size


def _gathered(
        nodes: Nodes, name: str, indices: list[Any], shape: list[int]) -> str:
    """Several arrays, or arrays and ints, are laid out side by side.

    What they pick stands where they stood, if they are neighbours, and else
    in front.
    """
    nodes.needs(11, 'GatherND')
    axes = [n for n, i in enumerate(indices) if not isinstance(i, slice)]
    others = [n for n, i in enumerate(indices) if isinstance(i, slice)]
    picked = numpy.broadcast_arrays(*(indices[n] for n in axes))
    # GatherND of ReferenceEvaluator takes none from the end.
    table = numpy.stack([
        p % shape[n] for p, n in zip(picked, axes, strict=True)], axis=-1)
    name = nodes.transpose(name, axes + others)
    name = nodes.add('GatherND', name, nodes.constant(table, 'indices'))
    if axes == list(range(axes[0], axes[0] + len(axes))):
        width, before = picked[0].ndim, axes[0]
        perm = list(range(width, width + len(others)))
        perm[before:before] = range(width)
        name = nodes.transpose(name, perm)
    return name


def flip(nodes: Nodes, axis: int) -> str:
    if nodes.opset < 10:
        return nodes.add('Gather', nodes.x, nodes.ints(
            range(nodes.shape[axis])[::-1], 'indices'), axis=axis)
    return nodes.slice(nodes.x, [END], [BEGIN], [axis], [-1])


def convert_flip(nodes: Nodes) -> str:
    return flip(nodes, nodes.axis(nodes.func.axis))


def convert_permutate(nodes: Nodes) -> str:
    func = nodes.func
    indices = cuda.to_cpu(func.indices).astype(numpy.int64)
    if func.inv:
        indices = numpy.argsort(indices)
    return nodes.add(
        'Gather', nodes.x, nodes.constant(indices, 'indices'),
        # Chainer permutes the first axis if it is given a negative one.
        axis=max(func.axis, 0))


def convert_select_item(nodes: Nodes) -> str:
    nodes.needs(11, 'GatherElements')
    x, t = nodes.inputs
    picked = nodes.add('GatherElements', x, nodes.unsqueeze(
        nodes.cast(t, nodes.dtypes[1], 'q'), [1]), axis=1)
    return nodes.squeeze(picked, [1])


def convert_where(nodes: Nodes) -> str:
    """The condition is no input of the function, but an array it holds.

    It is an input of the model, the output of another function, or else a
    constant.
    """
    condition = nodes.func.condition
    known = nodes.params.context.name_list.get(id(condition))
    name = known[0] if known else nodes.constant(
        numpy.asarray(cuda.to_cpu(condition), bool), 'condition')
    return nodes.where(name, *nodes.inputs)


CONVERTERS: dict[type, Convert] = {
    Flip: convert_flip,
    FlipLR: lambda nodes: flip(nodes, 1),
    FlipUD: lambda nodes: flip(nodes, 0),
    GetItem: convert_get_item,
    Permutate: convert_permutate,
    SelectItem: convert_select_item,
    Where: convert_where,
}
