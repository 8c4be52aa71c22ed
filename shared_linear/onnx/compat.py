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
from collections.abc import Iterator
from typing import Any

import chainer
import numpy
from chainer.backends import cuda
from chainer.utils.conv import get_conv_outsize, get_deconv_outsize


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


def accept_external_converters(exporter: Any) -> contextlib.ExitStack:
    """``external_converters`` warn, and turn a broken graph into a warning.

    The warning is that they are experimental. The graph is checked here by
    the caller, who lets nothing pass.
    """
    stack = contextlib.ExitStack()
    stack.enter_context(replaced(
        chainer, 'disable_experimental_feature_warning', True))
    stack.enter_context(replaced(
        exporter, 'check_onnx_model', lambda *args: None))
    return stack


def name_function_in_errors(
        exporter: Any) -> contextlib.AbstractContextManager[None]:
    """A function without a converter is answered by ``'X is not supported'``.

    Where its converter fails, the error does not name the function.
    """
    create_node = exporter.Graph.create_node

    def create_named_node(
            graph: Any, name: str, function: Any, *args: Any) -> Any:
        opset = graph.specified_opset_version
        if name not in graph.converters:
            raise no_converter(function, name)
        try:
            return create_node(graph, name, function, *args)
        except ExportError:
            raise
        except Exception as e:
            raise ExportError(
                '{} has no form in ONNX opset {}: {}'.format(
                    _full_name(function), opset,
                    ' '.join(str(e).split()) or type(e).__name__)
                + ('; a newer opset_version may have one'
                   if opset < exporter.MAXIMUM_OPSET_VERSION else '')) from e

    return replaced(exporter.Graph, 'create_node', create_named_node)


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


def convert_permutate(params: Any) -> Any:
    """The indices of ``F.permutate`` are named, and then not written.

    Below opset 9 there is no converter at all.
    """
    from onnx_chainer import onnx_helper  # type: ignore[import-untyped]
    func = params.func
    indices = cuda.to_cpu(func.indices).astype(numpy.int64)
    if func.inv:
        indices = numpy.argsort(indices)
    x, = params.input_names
    return onnx_helper.make_node(
        'Gather', [x, params.context.add_const(indices, 'indices')],
        # Chainer permutes the first axis if it is given a negative one.
        params.output_names, axis=max(func.axis, 0)),


def convert_get_item(params: Any) -> Any:
    """A mask is written as indices: rows 0 and 1 for False and True."""
    from onnx_chainer import mapping
    slices = []
    for index in params.func.slices:
        array = numpy.asarray(cuda.to_cpu(index)) if isinstance(
            index, (list, *chainer.get_array_types())) else None
        if array is None or array.dtype != bool:
            slices.append(index)
        elif array.ndim == 1:
            slices.append(numpy.flatnonzero(array))
        else:
            raise ValueError('a mask of {} axes'.format(array.ndim))
    params.func.slices = tuple(slices)
    return mapping.converters['GetItem'](params)


def convert_max_pooling(params: Any) -> Any:
    """Windows beyond the end, ``cover_all``, are not what a runtime makes.

    onnxruntime refuses a padding of a whole window, and with ``ceil_mode`` it
    leaves windows out. A padding of just what is missing is neither.
    """
    from onnx_chainer import onnx_helper
    func = params.func
    shape = func.inputs[0].shape[2:]
    ends = []
    for size, k, stride, pad in zip(
            shape, func.ksize, func.stride, func.pad, strict=True):
        n = get_conv_outsize(size, k, stride, pad, func.cover_all)
        end = max(pad, (n - 1) * stride + k - size - pad)
        if end >= k:
            raise ValueError('a window lies wholly in the padding')
        ends.append(end)
    return onnx_helper.make_node(
        'MaxPool', params.input_names, params.output_names,
        kernel_shape=func.ksize, pads=[*func.pad, *ends],
        strides=func.stride),


def convert_convolution_nd(params: Any) -> Any:
    """``ConvolutionND`` is written without its dilation."""
    import onnx
    from onnx_chainer import mapping
    node, = mapping.converters['ConvolutionND'](params)
    node.attribute.append(
        onnx.helper.make_attribute('dilations', params.func.dilate))
    return node,


def check_deconvolution(params: Any) -> Any:
    """``outsize`` is padded at the wrong end, and a dilation left out."""
    from onnx_chainer import mapping
    func = params.func
    name = type(func).__name__
    if name == 'DeconvolutionND':
        strides, pads, outs, dilate = (
            func.stride, func.pad, func.outs, func.dilate)
    else:
        strides, pads = (func.sy, func.sx), (func.ph, func.pw)
        outs, dilate = (func.outh, func.outw), (func.dy, func.dx)
    sizes, kernel = (v.shape[2:] for v in func.inputs[:2])
    if any(d != 1 for d in dilate):
        raise ValueError('dilate is {}'.format(tuple(dilate)))
    if tuple(outs) != tuple(
            get_deconv_outsize(size, k, stride, pad) for size, k, stride, pad
            in zip(sizes, kernel, strides, pads, strict=True)):
        raise ValueError('outsize is {}'.format(tuple(outs)))
    return mapping.converters[name](params)


def check_batch_normalization(params: Any) -> Any:
    """ONNX normalizes each index of the second axis, whatever Chainer's axes.

    ``onnx_chainer`` does not look at ``func.axis``, and writes another
    function than the model's if there are axes between or after.
    """
    from onnx_chainer import mapping
    func = params.func
    ndim = len(func.inputs[0].shape)
    axis = tuple(sorted(a % ndim for a in func.axis))
    if axis != (0,) + tuple(range(2, ndim)):
        raise ValueError(
            'the axes {} of {} are not all but the second'.format(axis, ndim))
    return mapping.converters[type(func).__name__](params)


@contextlib.contextmanager
def readied(onnx: Any) -> Iterator[Any]:
    """Mends onnx_chainer for a while, and gives its ``export`` module."""
    with provide_mapping(onnx):
        forget_failed_import()
        exporter = importlib.import_module('onnx_chainer.export')
        with accept_external_converters(exporter), \
                name_function_in_errors(exporter):
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
