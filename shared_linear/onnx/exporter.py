"""Writes a model that contains the layers as ONNX, in standard operators."""
from __future__ import annotations

import operator
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chainer
import numpy

from shared_linear.files import write_atomically
from shared_linear.onnx import compat, finishing
from shared_linear.onnx.checking import check as check_trace
from shared_linear.onnx.compat import ExportError
from shared_linear.onnx.dynamic import DynamicAxes, traced_freely
from shared_linear.onnx.tracing import Inputs, trace

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx
    from chainer import Variable
    from chainer.types import NdArray

    Converter = Callable[[Any], Sequence[onnx.NodeProto]]
    Input = Variable | NdArray

__all__ = ['ExportError', 'export']

LOWEST_OPSET = 7
# The first with an operator for layer normalization, and old enough for what
# runs today.
DEFAULT_OPSET = 17

# What one protocol buffer, and so a file without others beside it, can hold.
MAX_BYTES = 2 ** 31 - 1


def _check_opset_version(onnx: Any, version: Any) -> int:
    highest = onnx.defs.onnx_opset_version()
    if version is None:
        return min(DEFAULT_OPSET, highest)
    try:
        if isinstance(version, (bool, numpy.bool_)):
            raise TypeError
        version = operator.index(version)
    except TypeError:
        raise TypeError(
            'opset_version must be an int from {} to {}, not {!r}'.format(
                LOWEST_OPSET, highest, version)) from None
    if not LOWEST_OPSET <= version <= highest:
        raise ValueError(
            'opset_version must be from {} to {}, which is the newest of the '
            'installed onnx, not {}'.format(LOWEST_OPSET, highest, version))
    return version


def _check_model(model: Any) -> None:
    if not isinstance(model, chainer.Link) or not callable(model):
        raise TypeError(
            'model must be a chainer.Link that can be called, not {}'.format(
                type(model).__name__))
    missing = [
        name for name, param in model.namedparams() if param.array is None]
    if missing:
        raise ValueError(
            'the model has parameters without a value ({}): call it on an '
            'input first'.format(', '.join(missing)))


def _check_graph(onnx: Any, proto: Any) -> None:
    size = sum(len(array.raw_data) for array in proto.graph.initializer)
    if size > MAX_BYTES:
        raise ExportError(
            'the arrays of the model take {:,} bytes, and one ONNX file '
            'holds {:,}'.format(size, MAX_BYTES))
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError,
            onnx.shape_inference.InferenceError) as e:
        raise ExportError(
            'the graph is no valid ONNX: {}'.format(
                ' '.join(str(e).split()))) from e


def export(
        model: chainer.Link,
        x: Input | Sequence[Input] | Mapping[str, Input],
        filename: str | os.PathLike[str],
        *,
        opset_version: int | None = None,
        input_names: Sequence[str] | None = None,
        output_names: Sequence[str] | None = None,
        converters: Mapping[str, Converter] | None = None,
        dynamic_axes: Mapping[
            str, Mapping[int, str] | Sequence[int]] | None = None,
        check: bool = True,
) -> onnx.ModelProto:
    """Writes a model to an ONNX file, with :class:`SharedLinear` folded.

    What the model computes from ``x``, in test mode, becomes a graph of
    standard operators of ONNX. In it a layer of :math:`n` tiles is

    .. math::

        y = fold(x) \\, W^\\top + b,

    which is ``Reshape`` to :math:`(B, n, m)`, ``ReduceSum`` over the tiles
    and ``Gemm``, for both methods of :func:`shared_linear`. The file holds
    :math:`W` once, as it is, of shape :math:`(M, m)`: :math:`n` times less
    than a dense layer. :class:`MixedLinear` becomes a gather, a sum over the
    tiles and one product for all blocks. Its :math:`W` is stored once, too,
    and beside it are the permutations, which ONNX cannot make from a seed:
    an int32 for each input in each block.

    The first axis of the inputs and outputs is named ``batch`` and may have
    any size, whatever it is in ``x``; ``dynamic_axes`` frees others. To find
    where these sizes enter, the model is run at several. A model that does
    not run at them, or computes with the batch size (``x * (1 / len(x))``),
    gives a file for the batch size of ``x``, and a warning that says why; for
    an axis that was asked for it is an error.

    The file is run, too, on ``x`` and at another size of the free axes, by
    onnxruntime where it is installed and else by onnx's own reference. If it
    gives other numbers than the model, beyond rounding, there is an error
    that names the first function that differs, and no file. The same holds
    if the model computes from ``x`` outside of Chainer's functions
    (``F.where(x.array > 0, x, y)``): the file would hold what it is for this
    ``x``. Of a branch in Python the file holds the side that ``x`` took.

    A model after :func:`surgery.quantize` is written with the weights as
    integers of 8 bits and ``DequantizeLinear``, and with pairs of
    ``QuantizeLinear`` and ``DequantizeLinear`` for the activations, by which
    a runtime knows that it may compute in integers.

    The functions that are known, and with which arguments, are listed in
    :doc:`onnx`. The weights, their gradients, the statistics, the state of
    recurrent links and the random state are the same after the export as
    before.

    Args:
        model (~chainer.Link): A chain, or any link that can be called. All
            of its parameters have to be initialized.
        x (:class:`~chainer.Variable` or :ref:`ndarray`): Input of any batch
            size. For a model of several, a tuple, a list or a dict by the
            names of the arguments.
        filename (path): The file. It is replaced if it exists, and only by
            a whole one.
        opset_version (int): Version of ONNX's operators, from 7 to the newest
            of the installed onnx. By default 17.
        input_names (sequence of str): By default ``x``, or ``x_0``, ``x_1``,
            ..., or the keys of a dict.
        output_names (sequence of str): By default ``y``, or ``y_0``,
            ``y_1``, ..., or the keys of a dict.
        converters (dict): For functions that are not known, or to replace
            what is: the name of the class, and a function as
            ``onnx_chainer`` takes them for ``external_converters``.
        dynamic_axes (dict): Axes that may have any size, as in
            ``torch.onnx.export``: ``{'x': {2: 'height', 3: 'width'}}``, by
            the names of inputs, or of outputs, whose axes only get their
            name by it. Axes of one name have one size.
        check (bool): Whether the file is run and compared with the model.

    Returns:
        onnx.ModelProto: What was written. It has passed ONNX's full check.

    Raises:
        ImportError: If onnx is not installed.
        TypeError: If ``model``, ``x`` or ``dynamic_axes`` is of another type.
        ValueError: If a parameter is not initialized, ``opset_version`` is
            out of range, there are too few, too many or equal names, or
            ``dynamic_axes`` names what there is not.
        ExportError: If the model cannot be written as ONNX, or the file would
            compute something else. It is a ``ValueError``, and names the
            function at which it fails.
        OSError: If the file cannot be written.

    .. note::
        onnxruntime has no kernels in float64 or float16 for some operators
        (of the float16 ones it runs most in float32, on a CPU). Those of the
        layer itself run in all three.

    .. admonition:: Example

        >>> import tempfile
        >>> model = chainer.Sequential(
        ...     sl.SharedLinear(8, 6, n_tiles=4), F.relu, L.Linear(6, 3))
        >>> x = np.zeros((1, 8), np.float32)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     proto = sl.onnx.export(model, x, folder + '/model.onnx')
        >>> [node.op_type for node in proto.graph.node]
        ['Reshape', 'ReduceSum', 'Gemm', 'Relu', 'Gemm']
        >>> [list(w.dims) for w in proto.graph.initializer
        ...  if w.name == 'param_0_W']
        [[6, 2]]

    """
    onnx = compat.require_onnx()
    path = Path(os.fsdecode(filename))
    _check_model(model)
    opset_version = _check_opset_version(onnx, opset_version)
    inputs = Inputs(model, x, input_names)
    dynamic = DynamicAxes(dynamic_axes, inputs)
    # Chainer computes on the device in use, which may be another.
    with compat.readied(onnx) as exporter, chainer.using_device(model.device):
        proto, traces = traced_freely(
            onnx,
            lambda sizes, other_values: trace(
                onnx, exporter, model, inputs, sizes, opset_version,
                output_names, converters, other_values),
            dynamic, check)
    finishing.finish(onnx, proto)
    _check_graph(onnx, proto)
    if check:
        for one, where in traces:
            check_trace(onnx, proto, one, where)
    content = proto.SerializeToString(deterministic=True)
    write_atomically(path, lambda file: file.write(content))
    return proto
