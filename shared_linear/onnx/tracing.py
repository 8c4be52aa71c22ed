"""Runs a model once, and writes down what it did as a graph of ONNX."""
from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import chainer
import chainer.functions as F
import numpy
from chainer import Parameter, Variable
from chainer.backends import cuda

from shared_linear.onnx import compat
from shared_linear.onnx.compat import ExportError

# The attribute of a link in which surgery keeps its edits.
_EDITS = '_surgery'


class Trace(NamedTuple):

    """One run of a model.

    Attributes:
        proto (onnx.ModelProto): What it did.
        values (dict): What each function computed, by the names in the graph.
        functions (list): Name, class and names of the outputs of each.
        feeds (dict): The inputs, by their names.

    """

    proto: Any
    values: dict[str, Any]
    functions: list[tuple[str, str, tuple[str, ...]]]
    feeds: dict[str, Any]


class Call:

    """A model's call, with the outputs in a list and named.

    It takes the model's place in the exporter, which reads the parameters
    and calls it.
    """

    def __init__(
            self, model: chainer.Link, inputs: Inputs,
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
        # The exporter runs the model as if it was a part of backward, in
        # which hooks take what they had kept of forward.
        with chainer.using_config('in_recomputing', False):
            try:
                if keys is None:
                    result = self.model(*args)
                else:
                    result = self.model(**dict(zip(keys, args, strict=True)))
            except TypeError as e:
                if not isinstance(
                        getattr(self.model, 'predictor', None), chainer.Link):
                    raise
                raise ExportError(
                    'the model computes a loss and does not run on {} alone '
                    '({}): export the predictor, model.predictor'.format(
                        ', '.join(self.inputs.names), e)) from e
        names, outputs = _name_outputs(result, self.given_names)
        if self.given_names is None:
            # A model may return a dict of what it was given.
            names = [
                name + '_out' if name in self.inputs.names else name
                for name in names]
        self.output_names[:] = different(names, self.inputs.names)
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


def different(
        names: Sequence[str], others: Sequence[str] = ()) -> Sequence[str]:
    if len({*names, *others}) < len(names) + len(others):
        raise ValueError(
            'the names of inputs and outputs must differ, and here are '
            '{}'.format(', '.join(map(repr, [*others, *names]))))
    return names


class Inputs:

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
            self.names = list(different(names))

    def variables(
            self, sizes: Mapping[tuple[str, int], int],
            other_values: bool = False) -> list[Variable]:
        """Fresh copies.

        Args:
            sizes (dict): The size of an axis, by the input's name and the
                axis. The elements begin anew where there are more.
            other_values (bool): Whether they are others than the given, of
                the same kind.

        """
        copies = []
        for name, array in zip(self.names, self.arrays, strict=True):
            xp = chainer.backend.get_array_module(array)
            copy = array.copy()
            for axis, size in enumerate(array.shape):
                wanted = sizes.get((name, axis), size)
                if wanted == size:
                    continue
                if size:
                    copy = xp.take(copy, xp.arange(wanted) % size, axis=axis)
                else:
                    shape = list(copy.shape)
                    shape[axis] = wanted
                    copy = xp.zeros(shape, array.dtype)
            if other_values and copy.size:
                copy = _others(xp, copy)
            copies.append(chainer.Variable(copy))
        return copies


def _others(xp: Any, array: Any) -> Any:
    """The values at other places, and floats a little smaller.

    So that neither a number nor a mean of them is as before.
    """
    rolled = xp.roll(array.ravel(), 1 + array.size // 3).reshape(array.shape)
    if array.dtype.kind != 'f':
        return rolled
    if bool((rolled == array).all()):
        noise = numpy.random.RandomState(0).uniform(.1, .9, array.shape)
        return array + xp.asarray(noise.astype(array.dtype))
    return rolled * array.dtype.type(.75)


def _forget_runs(model: chainer.Link) -> None:
    """The state that an earlier run left is a constant, and not computed."""
    for link in model.links():
        for name, value in vars(link).items():
            if isinstance(value, Variable) and value.creator is not None:
                link.__dict__[name] = Variable(value.array)


def _draw_others(model: chainer.Link) -> None:
    random.seed(1)
    numpy.random.seed(1)
    if model.xp is cuda.cupy:
        cuda.cupy.random.seed(1)


@contextlib.contextmanager
def unchanged(model: chainer.Link) -> Iterator[None]:
    """Puts back what a run may change, in the model and in random state.

    All but the edits of surgery, which find their place in the first run of
    a model, whichever it is.
    """
    links = list(model.links())
    hooks = [h for link in links for h in (link._local_link_hooks or {}
                                           ).values()]
    owners = [*links, *hooks]
    attributes = [dict(vars(owner)) for owner in owners]
    arrays = [
        (value, value.copy())
        for owner, before in zip(owners, attributes, strict=True)
        for value in map(before.get, getattr(owner, '_persistent', ()))
        if isinstance(value, chainer.get_array_types())]
    python_state, numpy_state = random.getstate(), numpy.random.get_state()
    on_gpu = model.xp is cuda.cupy
    if on_gpu:
        cupy_state = cuda.cupy.random.get_random_state()
        cuda.cupy.random.set_random_state(cuda.cupy.random.RandomState(0))
    try:
        yield
    finally:
        for owner, before in zip(owners, attributes, strict=True):
            before.pop(_EDITS, None)
            edits = {k: v for k, v in vars(owner).items() if k == _EDITS}
            owner.__dict__.clear()
            owner.__dict__.update(before, **edits)
        for array, before in arrays:
            # One that cannot be written to has not changed.
            if getattr(getattr(array, 'flags', None), 'writeable', True):
                chainer.backend.copyto(array, before)
        random.setstate(python_state)
        numpy.random.set_state(numpy_state)
        if on_gpu:
            # The other generator goes, and may have to draw yet.
            model.device.device.synchronize()
            cuda.cupy.random.set_random_state(cupy_state)


def trace(
        onnx: Any, exporter: Any, model: chainer.Link, inputs: Inputs,
        sizes: Mapping[tuple[str, int], int], opset_version: int,
        output_names: Sequence[str] | None,
        converters: Mapping[str, Any] | None,
        other_values: bool = False) -> Trace:
    """Runs the model once, and returns what it did."""
    call = Call(model, inputs, output_names)
    variables = inputs.variables(sizes, other_values)
    feeds = {
        name: cuda.to_cpu(v.array).copy()
        for name, v in zip(inputs.names, variables, strict=True)}
    with unchanged(model), compat.recorded() as record, \
            compat.converted(exporter, converters or {}, record):
        _forget_runs(model)
        if other_values:
            _draw_others(model)
        proto = exporter.export(
            call, variables, opset_version=opset_version,
            input_names=inputs.names, output_names=call.output_names)
        values = {
            name: y for _, _, names, ys in record.functions
            for name, y in zip(names, ys, strict=True)}
        functions = [
            (name, kind, names) for name, kind, names, _ in record.functions]
    compat.separate_parameters(proto)
    compat.choose_ir_version(onnx, proto)
    return Trace(proto, values, functions, feeds)
