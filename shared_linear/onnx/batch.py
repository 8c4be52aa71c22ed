"""Makes the batch size of an exported graph a free one.

An exporter that runs the model once writes down the sizes of that run. Two
runs at different batch sizes show which of the numbers in the graph are the
batch size's, whatever part of the model they come from.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy

BATCH = 'batch'


class Frozen(Exception):

    """The graph holds for one batch size only; the message says why."""


class Sizes(NamedTuple):

    """Batch sizes of two runs of one model."""

    first: int
    second: int

    def multiple(self, first: int, second: int) -> int | None:
        """The k for which two sizes are k times the batch sizes, if any."""
        k, rest = divmod(first, self.first)
        return k if rest == 0 and second == k * self.second else None


def free_batch_size(onnx: Any, model: Any, other: Any, sizes: Sizes) -> Any:
    """Returns a graph that holds for every batch size.

    Args:
        model (onnx.ModelProto): The model, run at the first of the sizes.
        other (onnx.ModelProto): The same, run at the second.
        sizes (Sizes): Both batch sizes, positive.

    Returns:
        onnx.ModelProto: A copy whose inputs and outputs have the axis
        ``batch``.

    Raises:
        Frozen: If the two differ by more than shapes.

    """
    names = _pair_names(model, other)
    shapes, other_shapes = _shapes(onnx, model), _shapes(onnx, other)
    free = onnx.ModelProto()
    free.CopyFrom(model)
    graph = free.graph
    for name, first, second in _varying_arrays(onnx, model, other, names):
        place, user = next(
            (i, n) for i, n in enumerate(graph.node) if name in n.input)
        array = next(a for a in graph.initializer if a.name == name)
        shape = None
        if user.op_type == 'Reshape' and user.input[1] == name:
            shape = _relative_shape(*(
                (shapes.get(n), other_shapes.get(names[n]))
                for n in (user.input[0], user.output[0])))
        if shape is not None:
            array.CopyFrom(onnx.numpy_helper.from_array(shape, name))
            continue
        graph.initializer.remove(array)
        arrays, nodes = _computed_shape(
            onnx, name, graph.input[0].name, first, second, sizes)
        graph.initializer.extend(arrays)
        for node in reversed(nodes):
            graph.node.insert(place, node)

    for value in free.graph.input:
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    for value, twin in zip(
            free.graph.output, other.graph.output, strict=True):
        for dim, size in zip(
                value.type.tensor_type.shape.dim, _dims(twin), strict=True):
            if dim.dim_value != size:
                _name_axis(dim, sizes.multiple(dim.dim_value, size))
    return free


def _name_axis(dim: Any, multiple: int | None) -> None:
    if multiple is None:
        dim.Clear()
    else:
        dim.dim_param = BATCH if multiple == 1 else '{}*{}'.format(
            multiple, BATCH)


def _varying_arrays(
        onnx: Any, model: Any, other: Any, names: Mapping[str, str],
) -> list[tuple[str, numpy.ndarray, numpy.ndarray]]:
    """The shapes in the graph that are of one run only."""
    for node, twin in zip(model.graph.node, other.graph.node, strict=True):
        if list(node.attribute) != list(twin.attribute):
            raise Frozen('a constant of {} depends on it'.format(
                _function_of(node.name)))
    twins = {array.name: array for array in other.graph.initializer}
    varying = []
    for array in model.graph.initializer:
        first, second = (
            onnx.numpy_helper.to_array(a)
            for a in (array, twins[names[array.name]]))
        same_kind = (first.dtype, first.shape) == (second.dtype, second.shape)
        if same_kind and first.tobytes() == second.tobytes():
            continue
        if not same_kind or first.dtype != numpy.int64 or first.ndim != 1:
            user = next(n for n in model.graph.node if array.name in n.input)
            raise Frozen('a constant of {} depends on it'.format(
                _function_of(user.name)))
        varying.append((array.name, first, second))
    return varying


def _function_of(name: str) -> str:
    """The exporter's name of a function, Add_0, in that of a part of it."""
    for mark in '_const_', '_tmp_':
        name = name.partition(mark)[0]
    return name


def _values(model: Any) -> Iterator[str]:
    graph = model.graph
    for value in graph.input:
        yield value.name
    for node in graph.node:
        yield from node.input
        yield from node.output


def _pair_names(model: Any, other: Any) -> dict[str, str]:
    """Each value's name in the other run: the exporter may number anew."""
    if [n.op_type for n in model.graph.node] != [
            n.op_type for n in other.graph.node]:
        raise Frozen('it calls other functions for other batch sizes')
    values, twins = list(_values(model)), list(_values(other))
    if len(values) != len(twins):
        raise Frozen('it passes more values on for larger batch sizes')
    pairs: dict[str, str] = {}
    for name, twin in zip(values, twins, strict=True):
        if pairs.setdefault(name, twin) != twin:
            raise Frozen('it connects its functions otherwise for others')
    return pairs


def _shapes(onnx: Any, model: Any) -> dict[str, tuple[int, ...]]:
    graph = onnx.shape_inference.infer_shapes(
        model, strict_mode=True, data_prop=True).graph
    return {
        value.name: _dims(value)
        for values in (graph.input, graph.value_info, graph.output)
        for value in values}


def _dims(value: Any) -> tuple[int, ...]:
    return tuple(d.dim_value for d in value.type.tensor_type.shape.dim)


def _relative_shape(
        source: tuple[Any, Any], result: tuple[Any, Any],
) -> numpy.ndarray | None:
    """Reshape's target by 0 (as in the input) and -1 (what is left over).

    None where these two do not suffice. ``source`` and ``result`` are the
    shapes of input and output in both runs.
    """
    if None in source or None in result:
        return None
    shape = []
    for axis, sizes in enumerate(zip(*result, strict=True)):
        if sizes[0] == sizes[1]:
            shape.append(sizes[0])
        elif axis < len(source[0]) and sizes == (
                source[0][axis], source[1][axis]):
            shape.append(0)
        else:
            shape.append(-1)
    # A size of 0 in both runs would be taken for "as in the input".
    if (0, 0) in zip(*result, strict=True) or shape.count(-1) > 1:
        return None
    return numpy.array(shape, numpy.int64)


def _computed_shape(
        onnx: Any, name: str, batch: str, first: numpy.ndarray,
        second: numpy.ndarray, sizes: Sizes) -> tuple[list[Any], list[Any]]:
    """Arrays and nodes that compute a shape at run time.

    It is multiples * batch size + fixed.
    """
    fixed, multiples = [], []
    for pair in zip(first.tolist(), second.tolist(), strict=True):
        multiple = 0 if pair[0] == pair[1] else sizes.multiple(*pair)
        if multiple is None:
            raise Frozen('a size in {} is no multiple of it'.format(
                _function_of(name)))
        multiples.append(multiple)
        fixed.append(0 if multiple else pair[0])

    def part(suffix: str) -> str:
        return '{}_{}'.format(name, suffix)

    def node(kind: str, *inputs: str, output: str) -> Any:
        return onnx.helper.make_node(kind, inputs, [output], name=output)

    arrays = [
        onnx.numpy_helper.from_array(
            numpy.array(value, numpy.int64), part(suffix))
        for suffix, value in (
            ('axis', [0]), ('multiples', multiples), ('fixed', fixed))]
    nodes = [
        node('Shape', batch, output=part('shape')),
        node('Gather', part('shape'), part('axis'), output=part(BATCH)),
        node('Mul', part(BATCH), part('multiples'), output=part('scaled')),
        node('Add', part('scaled'), part('fixed'), output=name),
    ]
    return arrays, nodes
