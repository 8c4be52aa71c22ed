"""What is done to a graph as a whole, once it is made."""
from __future__ import annotations

from typing import Any


def finish(onnx: Any, proto: Any) -> None:
    """Changes the graph in place; what it computes stays the same."""
    store_once(onnx, proto)


def store_once(onnx: Any, proto: Any) -> None:
    """A weight that is used twice is quantized twice, to equal integers."""
    small = {onnx.TensorProto.INT8, onnx.TensorProto.UINT8,
             onnx.TensorProto.INT16, onnx.TensorProto.UINT16}
    graph = proto.graph
    kept: dict[Any, str] = {}
    names: dict[str, str] = {}
    for array in graph.initializer:
        if array.data_type in small and array.dims:
            names[array.name] = kept.setdefault(
                (array.data_type, tuple(array.dims), array.raw_data),
                array.name)
    arrays = [
        a for a in graph.initializer if names.get(a.name, a.name) == a.name]
    if len(arrays) == len(graph.initializer):
        return
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    del graph.initializer[:]
    graph.initializer.extend(arrays)
