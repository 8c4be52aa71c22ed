"""Writes a model that contains the layer as ONNX, in standard operators."""
from __future__ import annotations

import contextlib
import operator
import os
import random
import secrets
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chainer
import chainer.functions as F
import numpy
from chainer import Parameter
from chainer.backends import cuda

from shared_linear.onnx import compat
from shared_linear.onnx.batch import Frozen, Sizes, free_batch_size
from shared_linear.onnx.compat import ExportError
from shared_linear.onnx.converters import CONVERTERS

if TYPE_CHECKING:
    import onnx
    from chainer import Variable
    from chainer.types import NdArray

    from shared_linear.onnx.converters import Converter

    Input = Variable | NdArray

__all__ = ['ExportError', 'export']

# What one protocol buffer, and so a file without others beside it, can hold.
MAX_BYTES = 2 ** 31 - 1

# The attribute of a link in which surgery keeps its edits.
_EDITS = '_surgery'


class _Call:

    """A model's call, with the outputs in a list and named.

    It takes the model's place in the exporter, which reads the parameters
    and calls it.
    """

    def __init__(
            self, model: chainer.Link, inputs: _Inputs,
            output_names: Sequence[str] | None) -> None:
        self.namedlinks = model.namedlinks
        self.namedparams = model.namedparams
        self.model = model
        self.inputs = inputs
        self.given_names = output_names
        # The exporter reads it after the call.
        self.output_names: list[str] = []

    def __call__(self, *args: Variable) -> list[Variable]:
        keys = self.inputs.keys
        if keys is None:
            result = self.model(*args)
        else:
            result = self.model(**dict(zip(keys, args, strict=True)))
        names, outputs = _name_outputs(result, self.given_names)
        if self.given_names is None:
            # A model may return a dict of what it was given.
            names = [
                name + '_out' if name in self.inputs.names else name
                for name in names]
        self.output_names[:] = _different(names, self.inputs.names)
        # An output has to be made by a function, and has one name.
        known = {id(v) for v in args}
        distinct = []
        for name, y in zip(names, outputs, strict=True):
            made = y.creator_node is not None
            if not (made or id(y) in known or isinstance(y, Parameter)):
                raise ExportError(
                    'the output {} is made outside of functions, and would '
                    'be the same for every input'.format(name))
            if not made or id(y) in known:
                y = F.identity(y)
            known.add(id(y))
            distinct.append(y)
        return distinct


def _name_outputs(
        result: Any, given: Sequence[str] | None,
) -> tuple[list[str], list[Variable]]:
    if isinstance(result, Mapping):
        outputs, names = list(result.values()), [str(k) for k in result]
    elif isinstance(result, (tuple, list)):
        outputs = list(result)
        names = ['y_{}'.format(i) for i in range(len(outputs))]
    else:
        outputs, names = [result], ['y']
    for y in outputs:
        if not isinstance(y, chainer.Variable):
            raise ExportError(
                'the model returns {} where ONNX needs a chainer.Variable, '
                'or a tuple, a list or a dict of them'.format(
                    type(y).__name__))
    if not outputs:
        raise ExportError('the model returns no output')
    if given is not None:
        if len(given) != len(outputs):
            raise ValueError(
                '{} output_names for the {} outputs of the model'.format(
                    len(given), len(outputs)))
        names = list(given)
    return names, outputs


def _different(
        names: Sequence[str], others: Sequence[str] = ()) -> Sequence[str]:
    if len({*names, *others}) < len(names) + len(others):
        raise ValueError(
            'the names of inputs and outputs must differ, and here are '
            '{}'.format(', '.join(map(repr, [*others, *names]))))
    return names


class _Inputs:

    """What the model is called with: arrays, and their names."""

    def __init__(
            self, model: chainer.Link, x: Any,
            names: Sequence[str] | None) -> None:
        self.keys: list[str] | None = None
        if isinstance(x, Mapping):
            values = list(x.values())
            self.keys = [str(key) for key in x]
            self.names = self.keys
        elif isinstance(x, (tuple, list)):
            values = list(x)
            self.names = ['x_{}'.format(i) for i in range(len(values))]
        else:
            values, self.names = [x], ['x']
        if not values:
            raise ValueError('x is empty: the model needs an input')
        self.arrays = []
        for value in values:
            array = getattr(value, 'array', value)
            if not isinstance(array, chainer.get_array_types()):
                raise TypeError(
                    'x must be an array or a chainer.Variable, or a tuple, a '
                    'list or a dict of them, not {}'.format(
                        type(value).__name__))
            self.arrays.append(model.device.send(array))
        if names is not None:
            if len(names) != len(values):
                raise ValueError('{} input_names for {} inputs'.format(
                    len(names), len(values)))
            self.names = list(_different(names))

    @property
    def batch_size(self) -> int | None:
        """The number of rows that all inputs have, if it is one number."""
        sizes = {a.shape[0] if a.ndim else None for a in self.arrays}
        return sizes.pop() if len(sizes) == 1 else None

    def variables(self, batch_size: int | None) -> list[Variable]:
        """Fresh copies, with rows repeated up to a batch size."""
        copies = []
        for array in self.arrays:
            if batch_size is None or array.shape[0] == batch_size:
                copy = array.copy()
            else:
                xp = chainer.backend.get_array_module(array)
                copy = xp.zeros((batch_size,) + array.shape[1:], array.dtype)
                for start in range(
                        0, batch_size if len(array) else 0, len(array) or 1):
                    stop = min(start + len(array), batch_size)
                    copy[start:stop] = array[:stop - start]
            copies.append(chainer.Variable(copy))
        return copies


@contextlib.contextmanager
def _unchanged(model: chainer.Link) -> Iterator[None]:
    """Puts back what a run may change, in the model and in random state.

    All but the edits of surgery, which find their place in the first run of
    a model, whichever it is.
    """
    links = list(model.links())
    attributes = [dict(vars(link)) for link in links]
    arrays = [
        (value, value.copy()) for link, before in zip(
            links, attributes, strict=True)
        for value in map(before.get, link._persistent)
        if isinstance(value, chainer.get_array_types())]
    python_state, numpy_state = random.getstate(), numpy.random.get_state()
    on_gpu = model.xp is cuda.cupy
    if on_gpu:
        cupy_state = cuda.cupy.random.get_random_state()
        cuda.cupy.random.set_random_state(cuda.cupy.random.RandomState(0))
    try:
        yield
    finally:
        for link, before in zip(links, attributes, strict=True):
            before.pop(_EDITS, None)
            edits = {k: v for k, v in vars(link).items() if k == _EDITS}
            link.__dict__.clear()
            link.__dict__.update(before, **edits)
        for array, before in arrays:
            chainer.backend.copyto(array, before)
        random.setstate(python_state)
        numpy.random.set_state(numpy_state)
        if on_gpu:
            cuda.cupy.random.set_random_state(cupy_state)


def _trace(
        onnx: Any, exporter: Any, model: chainer.Link, inputs: _Inputs,
        batch_size: int | None, opset_version: int,
        output_names: Sequence[str] | None,
        converters: Mapping[str, Converter] | None) -> Any:
    """Runs the model once, and returns what it did as an onnx.ModelProto."""
    call = _Call(model, inputs, output_names)
    with _unchanged(model):
        proto = exporter.export(
            call, inputs.variables(batch_size), opset_version=opset_version,
            input_names=inputs.names, output_names=call.output_names,
            external_converters={**CONVERTERS, **(converters or {})})
    compat.separate_parameters(proto)
    compat.choose_ir_version(onnx, proto)
    _check_graph(onnx, proto)
    return proto


def _trace_any_batch_size(
        onnx: Any, trace: Callable[[int | None], Any],
        inputs: _Inputs) -> Any:
    """Returns the graph for every batch size, or, with a warning, for one."""
    given = inputs.batch_size
    if given is None:
        proto = trace(None)
        reason, where = 'the inputs have not one number of rows', 'as given'
    else:
        # Few models run on an empty batch, and many broadcast a single row.
        sizes = Sizes(max(given, 2), max(given, 2) + 1)
        size = given or sizes.first
        proto, where = trace(size), 'at {}'.format(size)
        try:
            first = proto if size == sizes.first else _trace_again(
                trace, sizes.first)
            second = _trace_again(trace, sizes.second)
            return free_batch_size(onnx, first, second, sizes)
        except Frozen as e:
            reason = str(e)
    warnings.warn('the batch size in the file is frozen {}: {}'.format(
        where, reason), stacklevel=3)
    return proto


def _trace_again(trace: Callable[[int], Any], size: int) -> Any:
    with warnings.catch_warnings():
        # The first run gave them.
        warnings.simplefilter('ignore')
        try:
            return trace(size)
        except Exception as e:
            what = str(e).strip().splitlines() or ['']
            raise Frozen('the model fails on {} rows ({}: {})'.format(
                size, type(e).__name__, what[0])) from e


def _check_opset_version(exporter: Any, onnx: Any, version: Any) -> int:
    lowest = exporter.MINIMUM_OPSET_VERSION
    highest = min(
        exporter.MAXIMUM_OPSET_VERSION, onnx.defs.onnx_opset_version())
    if version is None:
        return highest
    try:
        if isinstance(version, (bool, numpy.bool_)):
            raise TypeError
        version = operator.index(version)
    except TypeError:
        raise TypeError(
            'opset_version must be an int from {} to {}, not {!r}'.format(
                lowest, highest, version)) from None
    if not lowest <= version <= highest:
        raise ValueError(
            'opset_version must be from {} to {}, not {}'.format(
                lowest, highest, version))
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


def _write(path: Path, content: bytes) -> None:
    """Writes under another name, and renames the file when it is whole.

    Whatever happens, ``path`` is the old file or the new one.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(
        '.{}.{}.tmp'.format(target.name, secrets.token_hex(4)))
    try:
        try:
            with open(temporary, 'xb') as file:
                file.write(content)
                file.flush()
                # The new name must not reach the disk before the content.
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as e:
        if e.errno is None:
            raise
        # In the words of the user, who knows nothing of another name.
        raise OSError(e.errno, os.strerror(e.errno), str(path)) from e


def export(
        model: chainer.Link,
        x: Input | Sequence[Input] | Mapping[str, Input],
        filename: str | os.PathLike[str],
        *,
        opset_version: int | None = None,
        input_names: Sequence[str] | None = None,
        output_names: Sequence[str] | None = None,
        converters: Mapping[str, Converter] | None = None,
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
    an int32 for each input in each block, in whose place the sign is.

    The first axis of the inputs and outputs is named ``batch`` and may have
    any size, whatever it is in ``x``. To find where the batch size enters,
    the model is run at two of them. A model that does not run at the second,
    or computes with it (``x * (1 / len(x))``), gives a file for the batch
    size of ``x``, and a warning that says why. What else a model computes
    outside of Chainer's functions is a constant of the file: which way it
    takes for the values in ``x``, for instance.

    The functions of a model are those that ``onnx_chainer`` knows, which
    comes with Chainer, and those of this package. The weights, their
    gradients, the statistics, the state of recurrent links and the random
    state are the same after the export as before.

    Args:
        model (~chainer.Link): A chain, or any link that can be called. All
            of its parameters have to be initialized.
        x (:class:`~chainer.Variable` or :ref:`ndarray`): Input of any batch
            size. For a model of several, a tuple, a list or a dict by the
            names of the arguments.
        filename (path): The file. It is replaced if it exists, and only by
            a whole one.
        opset_version (int): Version of ONNX's operators, from 7 to 11, which
            is the default and the newest that ``onnx_chainer`` writes.
        input_names (sequence of str): By default ``x``, or ``x_0``, ``x_1``,
            ..., or the keys of a dict.
        output_names (sequence of str): By default ``y``, or ``y_0``,
            ``y_1``, ..., or the keys of a dict.
        converters (dict): For functions that ``onnx_chainer`` does not know:
            the name of the class, and a function as it takes them for
            ``external_converters``.

    Returns:
        onnx.ModelProto: What was written. It has passed ONNX's full check.

    Raises:
        ImportError: If onnx is not installed.
        TypeError: If ``model`` or ``x`` is of another type.
        ValueError: If a parameter is not initialized, ``opset_version`` is
            out of range, or there are too few, too many or equal names.
        ExportError: If the model cannot be written as ONNX. It is a
            ``ValueError``, and names the function at which it fails.
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
    inputs = _Inputs(model, x, input_names)
    with compat.readied(onnx) as exporter:
        opset_version = _check_opset_version(exporter, onnx, opset_version)
        proto = _trace_any_batch_size(
            onnx,
            lambda batch_size: _trace(
                onnx, exporter, model, inputs, batch_size, opset_version,
                output_names, converters),
            inputs)
    _check_graph(onnx, proto)
    _write(path, proto.SerializeToString(deterministic=True))
    return proto
