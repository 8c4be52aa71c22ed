"""What functions become in ONNX: the table, one file for each of their kinds.

A conversion is given a function of a run, and returns the names of the values
that stand for its outputs, computed by standard operators only.
"""
from __future__ import annotations

from typing import Any

from shared_linear.onnx.converters import (
    activation,
    arithmetic,
    array,
    connection,
    indexing,
    layers,
    loss,
    normalization,
    pooling,
    quantization,
    recurrent,
)
from shared_linear.onnx.nodes import Convert

CONVERTERS: dict[type, Convert] = {
    kind: convert for module in (
        activation, arithmetic, array, connection, indexing, layers, loss,
        normalization, pooling, recurrent)
    for kind, convert in module.CONVERTERS.items()}

WRAPPED = arithmetic.WRAPPED


def conversion_of(function: Any) -> Convert | None:
    """The conversion of a function, if it has one."""
    wrapped = getattr(function, 'custom_function_node_name', None)
    if wrapped is not None:
        return WRAPPED.get(wrapped)
    return CONVERTERS.get(type(function)) or quantization.converter_of(
        function)
