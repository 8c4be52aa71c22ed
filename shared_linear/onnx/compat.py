"""Readies onnx_chainer, the exporter that Chainer bundles, for today's onnx.

It was last tested on onnx 1.6. Each function below mends one thing that
breaks since, or that it leaves half done, and says what happens without it.
Those that patch a module do so during an export only.
"""
from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

import chainer
import chainer.functions as F
import numpy
from chainer.backends import cuda
from chainer.functions.pooling.upsampling_2d import Upsampling2D

from shared_linear.onnx.converters import WRAPPED, conversion_of
from shared_linear.onnx.nodes import Nodes


class ExportError(ValueError):

    """A model that cannot be written as ONNX; the message says why."""


def require_onnx() -> Any:
    """``onnx_chainer`` asks for ``onnx<1.7.0``, which no Python >= 3.9 has."""
    try:
        return importlib.import_module('onnx')
    except ModuleNotFoundError as e:
        if e.name != 'onnx':
            raise
        raise ImportError(
            'exporting needs the package onnx: pip install '
            '"shared_linear[onnx]", or pip install ".[onnx]" in a checkout'
        ) from None


@contextlib.contextmanager
def provide_mapping(onnx: Any) -> Iterator[None]:
    """``onnx_chainer`` reads ``onnx.mapping``, which newer onnx has not got.

    It takes the failed import for a missing onnx. Older releases warn at each
    look into the module, so this one takes its place there too.
    """
    mapping: Any = types.ModuleType('onnx.mapping')
    mapping.NP_TYPE_TO_TENSOR_TYPE = {
        numpy.dtype(kind): onnx.helper.np_dtype_to_tensor_dtype(
            numpy.dtype(kind))
        for kind in '?bBhHiIqQefdFD'}
    # Into which field a constant goes as text: none, so it stays in bytes.
    mapping.STORAGE_TENSOR_TYPE_TO_FIELD = {}

    missing = object()
    module = sys.modules.get(mapping.__name__, missing)
    attribute = vars(onnx).get('mapping', missing)
    sys.modules[mapping.__name__] = onnx.mapping = mapping
    try:
        yield
    finally:
        if module is missing:
            del sys.modules[mapping.__name__]
        else:
            sys.modules[mapping.__name__] = module  # type: ignore[assignment]
        if attribute is missing:
            del onnx.mapping
        else:
            onnx.mapping = attribute


def forget_failed_import() -> None:
    """``import onnx_chainer`` without ``onnx.mapping`` half succeeds.

    Whoever imported it before this package mended it (or before onnx was
    installed) left modules behind that go on calling onnx not installed.
    """
    exporter = sys.modules.get('onnx_chainer.export')
    if exporter is not None and not getattr(exporter, '_available', True):
        for name in [m for m in sys.modules
                     if m.partition('.')[0] == 'onnx_chainer']:
            del sys.modules[name]


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Sets an attribute for a while."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def accept_newer_opsets(
        onnx: Any, exporter: Any) -> contextlib.ExitStack:
    """A newer opset than the exporter knows makes it warn.

    The operators are not its own here. The graph is checked by the caller,
    too, who lets nothing pass.
    """
    stack = contextlib.ExitStack()
    stack.enter_context(replaced(
        exporter, 'MAXIMUM_OPSET_VERSION', onnx.defs.onnx_opset_version()))
    stack.enter_context(replaced(
        exporter, 'check_onnx_model', lambda *args: None))
    return stack


class Record:

    """What ran, and what it computed.

    Attributes:
        calls (dict): Each function node, its outputs and its inputs, by the
            id of the node, which no other takes so.
        functions (list): Name in the graph, class, names of the outputs and
            outputs of each function that was written.

    """

    def __init__(self) -> None:
        self.calls: dict[int, tuple[Any, Any, Any]] = {}
        self.functions: list[
            tuple[str, str, tuple[str, ...], list[Any]]] = []

    @property
    def indices(self) -> dict[int, Any]:
        """Those that the model upsamples by."""
        return {
            id(node.indexes): None for node, *_ in self.calls.values()
            if isinstance(node, Upsampling2D)}


@contextlib.contextmanager
def recorded() -> Iterator[Record]:
    """Keeps the outputs of all functions that run."""
    record = Record()
    apply = chainer.FunctionNode.apply

    def apply_and_keep(node: Any, inputs: Any) -> Any:
        outputs = apply(node, inputs)
        # Of an input that nobody holds, the exporter cannot find the array.
        record.calls[id(node)] = node, outputs, inputs
        return outputs

    with replaced(chainer.FunctionNode, 'apply', apply_and_keep):
        yield record


@contextlib.contextmanager
def converted(
        exporter: Any, converters: Mapping[str, Any],
        record: Record) -> Iterator[None]:
    """Functions are converted here, and those of the user by his.

    ``onnx_chainer`` answers a function that it does not know by ``'X is not
    supported'``, and where a converter fails the error names none.
    """
    mapping = importlib.import_module('onnx_chainer.mapping')
    helper = importlib.import_module('onnx_chainer.onnx_helper')
    params_of = importlib.import_module(
        'onnx_chainer.functions.converter').FunctionConverterParams
    wrap = importlib.import_module(
        'onnx_chainer.replace_func').fake_as_funcnode

    def wrap_if_variable(function: Any, name: str, **options: Any) -> Any:
        wrapped = wrap(function, name, **options)

        def call(x: Any) -> Any:
            return (wrapped if isinstance(x, chainer.Variable)
                    else function)(x)

        return call

    def create_node(
            graph: Any, name: str, function: Any, inputs: Any,
            outputs: Any) -> list[Any]:
        opset = graph.specified_opset_version
        context = graph.context
        if not hasattr(context, 'indices'):
            context.indices = record.indices
        call = record.calls.get(id(getattr(function, 'node', function)))
        if call is None:
            raise ExportError(
                'the model takes what {} computed in an earlier run: reset '
                'its state before the export'.format(_full_name(function)))
        params = params_of(function, opset, inputs, outputs, context)
        convert = conversion_of(function)
        if name not in converters and convert is None:
            raise no_converter(function, name)
        try:
            if name in converters:
                nodes = list(converters[name](params))
            else:
                nodes = list(convert_by(params, convert))
        except ExportError:
            raise
        except Exception as e:
            raise ExportError(
                '{} has no form in ONNX opset {}: {}'.format(
                    _full_name(function), opset,
                    ' '.join(str(e).split()) or type(e).__name__)
                + ('; a newer opset_version may have one'
                   if ' begins with opset ' in str(e) else '')) from e
        label = helper.get_func_name()
        for node in nodes:
            # By it errors and the free axes name the function.
            node.name = node.name or label
        record.functions.append((
            label, _full_name(function), tuple(outputs),
            [cuda.to_cpu(y.array) for y in call[1]]))
        return nodes

    with contextlib.ExitStack() as stack:
        stack.enter_context(replaced(
            exporter.Graph, 'create_node', create_node))
        stack.enter_context(replaced(mapping, '_supported_function_set', {
            (F, name) for name in WRAPPED}))
        stack.enter_context(replaced(
            mapping, 'fake_as_funcnode', wrap_if_variable))
        yield


def convert_by(params: Any, convert: Any) -> Any:
    nodes = Nodes(params)
    results = convert(nodes)
    return nodes.finished(
        *([results] if isinstance(results, str) else results))


def no_converter(function: Any, name: str) -> ExportError:
    """The error for a function that is looked up by a name in vain."""
    return ExportError(
        'the model calls {}, for which there is no ONNX converter: compute '
        'it from functions that have one, or pass '
        'converters={{{!r}: converter}}'.format(_full_name(function), name))


def _full_name(function: Any) -> str:
    kind = type(function)
    wrapped = getattr(function, 'custom_function_node_name', None)
    return wrapped or '{}.{}'.format(kind.__module__, kind.__qualname__)


@contextlib.contextmanager
def readied(onnx: Any) -> Iterator[Any]:
    """Mends onnx_chainer for a while, and gives its ``export`` module."""
    with provide_mapping(onnx):
        forget_failed_import()
        exporter = importlib.import_module('onnx_chainer.export')
        with accept_newer_opsets(onnx, exporter):
            yield exporter


def separate_parameters(model: Any) -> None:
    """The exporter lists each parameter as an input, as IR version 3 wants.

    onnxruntime then takes them for values that may change from run to run.
    Unused ones are written too, such as those of a layer that an edit
    removed, and arrays that are no parameters in an order and under names
    that differ from run to run. Shapes are constant nodes, which hold nothing
    but floats before opset 9. Here all these arrays are initializers, in the
    order of their use.
    """
    graph = model.graph
    arrays = {array.name: array for array in graph.initializer}
    inputs = [value for value in graph.input if value.name not in arrays]
    nodes = []
    for node in graph.node:
        if node.op_type == 'Constant':
            array = arrays[node.output[0]] = node.attribute[0].t
            array.name = node.output[0]
        else:
            nodes.append(node)
    used = dict.fromkeys(
        name for node in nodes for name in node.input if name in arrays)
    taken = {value.name for value in inputs}.union(
        used, *(node.output for node in nodes))
    names: dict[str, str] = {}
    for name in used:
        # Neither a parameter's nor one that a converter gave.
        if name[0] == 'v' and name[1:].isdecimal():
            number = len(names)
            while 'array_{}'.format(number) in taken:
                number += 1
            names[name] = 'array_{}'.format(number)
            taken.add(names[name])
            arrays[name].name = names[name]
    for node in nodes:
        for i, name in enumerate(node.input):
            if name and name not in taken:
                raise ExportError(
                    '{} takes an array that no function has computed, and '
                    'that is not written: make it of x by functions, or an '
                    'input of the model'.format(node.name))
            node.input[i] = names.get(name, name)
    kept = [arrays[name] for name in used]
    del graph.initializer[:], graph.input[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.input.extend(inputs)
    graph.node.extend(nodes)


def choose_ir_version(onnx: Any, model: Any) -> None:
    """``onnx.IR_VERSION``, the newest, is more than onnxruntime reads.

    The oldest that the operators are made for will do, and that is at least
    4, the first in which a parameter need not be an input.
    """
    model.ir_version = max(
        4, onnx.helper.find_min_ir_version_for(model.opset_import))
