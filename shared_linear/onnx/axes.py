"""Makes axes of an exported graph free ones.

An exporter that runs the model once writes down the sizes of that run. Runs
at other sizes show which of the numbers in the graph follow from those of the
inputs, whatever part of the model they come from.
"""
from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy

from shared_linear.onnx.compat import ExportError
from shared_linear.onnx.sizes import (
    Frozen,
    Numbers,
    Source,
    computed_shape,
    function_of,
    relative_shape,
)
from shared_linear.onnx.tracing import Trace

# From so many bytes on, an array of a run that is only compared is kept as its
# digest: the weights are the same in each.
LARGE = 2 ** 20
_DIGEST = b'sha256:'


class Axis(NamedTuple):

    """A free axis of the inputs: those of one name have one size.

    Attributes:
        name (str): In the file.
        places (list of (str, int)): Names of inputs, and axes of them.
        size (int): In the given input.
        asked (bool): Whether the user named it.

    """

    name: str
    places: list[tuple[str, int]]
    size: int
    asked: bool

    @property
    def first(self) -> int:
        """Few models run on an empty batch, and many broadcast a row."""
        if any(axis == 0 for _, axis in self.places):
            return max(self.size, 2)
        return self.size

    @property
    def others(self) -> tuple[int, int]:
        """Two more sizes, of which the first is likely to run.

        Networks that halve a picture and enlarge it again want as many
        powers of two as the given size has. Where the batch size enters by a
        division, a batch that is a little larger would not show it.
        """
        first = self.first
        if any(axis == 0 for _, axis in self.places):
            return first + min(first, 16) + 1, first + 2
        step = min(first & -first, 32) or 1
        return first + step, first + 2 * step


def free_axes(
        onnx: Any, traces: Sequence[Trace], axes: Sequence[Axis],
        output_axes: Mapping[str, Mapping[int, str]]) -> Any:
    """Returns a graph that holds for every size of the axes.

    Args:
        traces (list of Trace): The model, run at different sizes. The first
            is the one that is written.
        axes (list of Axis): The axes that differ in them.
        output_axes (dict): Names of axes of outputs that the user gave.

    Returns:
        onnx.ModelProto: A copy whose inputs and outputs have the axes' names.

    Raises:
        Frozen: If the runs differ by more than shapes.

    """
    protos = [trace.proto for trace in traces]
    pairs = [_pair_names(protos[0], proto) for proto in protos]
    shapes = [_shapes(onnx, proto) for proto in protos]
    free = onnx.ModelProto()
    free.CopyFrom(protos[0])
    graph = free.graph
    sources = list(_sources(traces, axes))
    for name, arrays in _varying_arrays(onnx, protos, pairs):
        place, user = next(
            (i, n) for i, n in enumerate(graph.node) if name in n.input)
        array = next(a for a in graph.initializer if a.name == name)
        filled = arrays[0].dtype != numpy.int64 or arrays[0].ndim != 1
        shape = None
        if user.op_type == 'Reshape' and user.input[1] == name:
            shape = relative_shape(*(
                [s.get(p[n]) for s, p in zip(shapes, pairs, strict=True)]
                for n in (user.input[0], user.output[0])))
        if shape is not None:
            array.CopyFrom(onnx.numpy_helper.from_array(shape, name))
            continue
        graph.initializer.remove(array)
        known = _known_before(graph, place)
        rows = [a.shape if filled else a.tolist() for a in arrays]
        made, nodes = computed_shape(
            onnx, name + '_sizes' if filled else name,
            list(zip(*rows, strict=True)), user.input[0],
            [s for s in sources if all(n in known for n, _ in s.places)])
        if filled:
            nodes.append(onnx.helper.make_node(
                'ConstantOfShape', [name + '_sizes'], [name], name=name,
                value=onnx.numpy_helper.from_array(arrays[0].ravel()[:1])))
        graph.initializer.extend(made)
        for node in reversed(nodes):
            graph.node.insert(place, node)
    _name_axes(free, protos, axes, output_axes)
    return free


def _known_before(graph: Any, place: int) -> set[str]:
    known = {value.name for value in graph.input}
    for node in graph.node[:place]:
        known.update(node.output)
    return known


def _name_axes(
        free: Any, protos: Sequence[Any], axes: Sequence[Axis],
        output_axes: Mapping[str, Mapping[int, str]]) -> None:
    names = {place: axis.name for axis in axes for place in axis.places}
    for value in free.graph.input:
        for i, dim in enumerate(value.type.tensor_type.shape.dim):
            if (value.name, i) in names:
                dim.dim_param = names[value.name, i]
    numbers = {
        axis.name: _numbers_of(protos, axis.places[0]) for axis in axes}
    for value, *twins in zip(
            free.graph.output, *(p.graph.output for p in protos),
            strict=True):
        given = output_axes.get(value.name, {})
        sizes = zip(*map(_dims, twins), strict=True)
        for i, (dim, own) in enumerate(zip(
                value.type.tensor_type.shape.dim, sizes, strict=True)):
            if len(set(own)) == 1:
                continue
            dim.Clear()
            found = given.get(i) or next(
                filter(None, (
                    _multiple(name, base, own)
                    for name, base in numbers.items())), None)
            if found:
                dim.dim_param = found


def _numbers_of(
        protos: Sequence[Any], place: tuple[str, int]) -> Numbers:
    name, axis = place
    return tuple(
        _dims(value)[axis] for proto in protos
        for value in proto.graph.input if value.name == name)


def _multiple(name: str, base: Numbers, own: Numbers) -> str | None:
    k, rest = divmod(own[0], base[0])
    if rest or own != tuple(k * b for b in base):
        return None
    return name if k == 1 else '{}*{}'.format(k, name)


def _sources(
        traces: Sequence[Trace], axes: Sequence[Axis]) -> Iterator[Source]:
    """All sizes that differ, those of the inputs first."""
    protos = [trace.proto for trace in traces]
    for axis in axes:
        yield Source((axis.places[0],), _numbers_of(protos, axis.places[0]))
    for name, value in traces[0].values.items():
        twins: list[Any] = [trace.values.get(name) for trace in traces]
        if any(t is None or t.ndim != value.ndim for t in twins):
            continue
        for i, own in enumerate(zip(*(t.shape for t in twins), strict=True)):
            if len(set(own)) > 1:
                yield Source(((name, i),), own)


def _varying_arrays(
        onnx: Any, protos: Sequence[Any],
        pairs: Sequence[Mapping[str, str]],
) -> list[tuple[str, list[numpy.ndarray]]]:
    """The shapes in the graph that are of one run only."""
    first = protos[0]
    for other in protos[1:]:
        for node, twin in zip(
                first.graph.node, other.graph.node, strict=True):
            if list(node.attribute) != list(twin.attribute):
                raise Frozen('a constant of {} depends on it'.format(
                    function_of(node.name)))
    twins = [{a.name: a for a in p.graph.initializer} for p in protos]
    varying = []
    for array in first.graph.initializer:
        own = [
            t[p[array.name]] for t, p in zip(twins, pairs, strict=True)]
        if len({_content(a) for a in own}) == 1:
            continue
        if any(len(a.raw_data) > LARGE for a in own):
            raise Frozen('a constant of {} depends on it'.format(
                _user_of(first, array.name)))
        arrays = [onnx.numpy_helper.to_array(a) for a in own]
        kinds = {(a.dtype, a.shape) for a in arrays}
        is_shape = len(kinds) == 1 and arrays[0].ndim == 1 and (
            arrays[0].dtype == numpy.int64)
        if not is_shape and not _is_filled(arrays, first):
            raise Frozen('a constant of {} depends on it'.format(
                _user_of(first, array.name)))
        varying.append((array.name, arrays))
    return varying


def slim(trace: Trace, keep_values: bool = False) -> Trace:
    """What is needed of a run to compare the sizes in it."""
    for array in trace.proto.graph.initializer:
        if len(array.raw_data) > LARGE:
            array.raw_data = _digest(array.raw_data)
    if keep_values:
        return trace
    return trace._replace(values={
        name: numpy.broadcast_to(numpy.int8(0), value.shape)
        for name, value in trace.values.items()})


def _digest(data: bytes) -> bytes:
    return _DIGEST + hashlib.sha256(data).digest()


def _content(array: Any) -> tuple[int, tuple[int, ...], bytes]:
    data = array.raw_data
    if len(data) > LARGE:
        data = _digest(data)
    return array.data_type, tuple(array.dims), data


def _user_of(proto: Any, name: str) -> str:
    return function_of(next(
        node.name for node in proto.graph.node if name in node.input))


def _is_filled(arrays: Sequence[numpy.ndarray], proto: Any) -> bool:
    """Whether they are of one number everywhere, as a state of zeros is."""
    return proto.opset_import[0].version >= 9 and len(
        {(a.dtype, a.ndim) for a in arrays}) == 1 and all(
            a.size for a in arrays) and len(
                {v.tobytes() for a in arrays for v in (a.min(), a.max())}
            ) == 1 and arrays[0].dtype.kind in 'biuf' and bool(arrays[0].ndim)


def values_in_constants(proto: Any, other: Any) -> list[str]:
    """Names of nodes that hold others in a run on other values."""
    pairs = _pair_names(proto, other)
    names = [
        node.name for node, twin in zip(
            proto.graph.node, other.graph.node, strict=True)
        if list(node.attribute) != list(twin.attribute)]
    twins = {a.name: a for a in other.graph.initializer}
    for array in proto.graph.initializer:
        if _content(array) != _content(twins[pairs[array.name]]):
            names.append(_user_of(proto, array.name))
    return names


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
        raise Frozen('it calls other functions for other sizes')
    values, twins = list(_values(model)), list(_values(other))
    if len(values) != len(twins):
        raise Frozen('it passes more values on for larger sizes')
    pairs: dict[str, str] = {}
    for name, twin in zip(values, twins, strict=True):
        if pairs.setdefault(name, twin) != twin:
            raise Frozen('it connects its functions otherwise for others')
    return pairs


def _shapes(onnx: Any, model: Any) -> dict[str, tuple[int, ...]]:
    try:
        graph = onnx.shape_inference.infer_shapes(
            model, strict_mode=True, data_prop=True).graph
    except onnx.shape_inference.InferenceError as e:
        raise ExportError('the graph is no valid ONNX: {}'.format(
            ' '.join(str(e).split()))) from e
    return {
        value.name: _dims(value)
        for values in (graph.input, graph.value_info, graph.output)
        for value in values}


def _dims(value: Any) -> tuple[int, ...]:
    return tuple(d.dim_value for d in value.type.tensor_type.shape.dim)


