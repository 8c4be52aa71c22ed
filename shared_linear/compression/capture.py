"""What the layers of a model are given, and what lies between them."""
from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import chainer
import numpy
from chainer import utils
from chainer.backends import cuda
from chainer.utils import type_check

from shared_linear.compression import signature
from shared_linear.compression.inputs import Batch


class Call(NamedTuple):

    """One call of a layer, with the minibatch axes as one."""

    path: str
    x: Any
    y: Any
    node: Any
    out: Any


class _Layers(chainer.LinkHook):

    """Records the calls of some links. It is added to none of them.

    ``within`` is the path of the one that is running.
    """

    name = 'SharedLinearLayers'

    def __init__(self, paths):
        self.paths = paths
        self.calls = []
        self.within = None

    def forward_preprocess(self, args):
        path = self.paths.get(id(args.link))
        if path is not None and args.forward_name == 'forward':
            self.within = path

    def forward_postprocess(self, args):
        path = self.paths.get(id(args.link))
        if path is None or args.forward_name != 'forward':
            return
        self.within = None
        given = dict(zip(('x', 'n_batch_axes'), args.args, strict=False))
        given.update(args.kwargs)
        x = chainer.as_variable(given['x'])
        shape = x.shape[:given.get('n_batch_axes', 1)]
        rows = utils.size_of_shape(shape)
        self.calls.append(Call(
            path,
            x.array.reshape(rows, utils.size_of_shape(x.shape[len(shape):])),
            args.out.array.reshape(rows, -1 if rows else args.out.shape[-1]),
            x.node,
            args.out))


class _Functions(chainer.FunctionHook):

    """Records every function, and what each needed."""

    name = 'SharedLinearFunctions'

    def __init__(self, layers):
        self.functions = []
        self.inputs = []
        self.layers = []
        self._layers = layers

    def forward_postprocess(self, function, in_data):
        self.functions.append(function)
        self.inputs.append(in_data)
        self.layers.append(self._layers.within)


class Run(NamedTuple):

    """What happened when a model ran: calls of layers, functions, results.

    Of each function there are its inputs, and the path of the layer that it
    is part of, if it is.
    """

    calls: list[Call]
    functions: list[Any]
    results: list[Any]
    inputs: list[Any]
    layers: list[str | None]


def run(
        model: Any, batch: Batch, layers: dict[str, Any], graph: bool = False,
) -> Run:
    """Runs a model in test mode, and records the calls of some layers.

    Args:
        model: Chain. Of a Classifier the predictor is called.
        batch: Some of its inputs.
        layers: Links by path.
        graph: Whether to build the computational graph.

    Raises:
        TypeError: If the model does not take as many inputs, or such names.
        ValueError: If it does not take the inputs.

    """
    recorder = _Layers({id(link): path for path, link in layers.items()})
    functions = _Functions(recorder)
    batch = batch.to_device(model.device)
    with contextlib.ExitStack() as stack:
        stack.enter_context(chainer.using_config('train', False))
        stack.enter_context(chainer.using_config('enable_backprop', graph))
        stack.enter_context(chainer.using_device(model.device))
        stack.enter_context(recorder)
        if graph:
            stack.enter_context(functions)
        with _same_attributes(model):
            results = call_model(model, batch)
    return Run(
        recorder.calls, functions.functions, results, functions.inputs,
        functions.layers)


@contextlib.contextmanager
def _same_attributes(model: Any) -> Iterator[None]:
    """Each batch meets the model as it was, not the state of the last."""
    links = list(model.links())
    before = [dict(vars(link)) for link in links]
    try:
        yield
    finally:
        for link, attributes in zip(links, before, strict=True):
            # But for its edits, which the first run may have tried.
            edits = {key: value for key, value in vars(link).items()
                     if key == '_surgery'}
            attributes.pop('_surgery', None)
            vars(link).clear()
            vars(link).update(attributes, **edits)


def call_model(model: Any, batch: Batch) -> list[Any]:
    """The results of a model, of a Classifier those of its predictor."""
    signature.check(model, batch.args, batch.kwargs)
    try:
        return list(_flatten(batch.call(signature.called(model))))
    except type_check.InvalidType as error:
        raise ValueError(
            'the model does not take calibration inputs of {}: {}'.format(
                batch, ' '.join(str(error).split()))) from error


def count_rows(
        model: Any, batches: list[Batch], layers: dict[str, Any],
        wind_back: Callable[[], None]) -> list[dict[str, float]]:
    """Rows that layers are fed for one input, of each batch, by path.

    A sentence has as many as tokens, so that it depends on the batch. One
    input is run of those of each shape.
    """
    known: dict[Any, dict[str, float]] = {}
    counts = []
    for batch in batches:
        shapes = tuple(array.shape[1:] for array in batch.arrays)
        if shapes not in known:
            wind_back()
            rows = known[shapes] = dict.fromkeys(layers, 0.)
            one = batch[:1]
            for call in run(model, one, layers).calls:
                rows[call.path] += len(call.x) / len(one)
        counts.append(known[shapes])
    return counts


def mean_rows(
        batches: list[Batch], counts: list[dict[str, float]],
) -> dict[str, float]:
    """Of the inputs of all batches."""
    total = sum(map(len, batches))
    return {
        path: sum(
            len(batch) * rows[path]
            for batch, rows in zip(batches, counts, strict=True)) / total
        for path in counts[0]}


def sensitivities(
        model: Any, batch: Batch, layers: dict[str, Any],
        rng: Any) -> dict[str, Any]:
    """How the outputs of a model change with those of its layers.

    With J the derivative of the first by the second, and random signs e, it
    is J^T e, whose covariance is J^T J (Hutchinson, A stochastic estimator of
    the trace of the influence matrix, 1989).

    Args:
        model: Chain.
        batch: Some of its inputs.
        layers: Layers by path, each of which is called once.
        rng: Random state, for the signs.

    Returns:
        By path, array of the shape of the outputs of the layer, with the
        minibatch axes as one; none where there is no derivative.

    """
    recorded = run(model, batch, layers, graph=True)
    results = [
        result for result in recorded.results
        if isinstance(result, chainer.Variable) and result.dtype.kind == 'f']
    if not results:
        return {}
    signs = [
        chainer.Variable(result.device.send(
            rng.choice([-1, 1], result.shape).astype(result.dtype)))
        for result in results]
    with chainer.using_config('train', False), \
            chainer.using_device(model.device):
        gradients = chainer.grad(
            results, [call.out for call in recorded.calls], signs)
    return {
        call.path: gradient.array.reshape(call.y.shape)
        for call, gradient in zip(recorded.calls, gradients, strict=True)
        if gradient is not None}


def _flatten(results: Any) -> Iterator[Any]:
    if isinstance(results, (chainer.Variable, *chainer.get_array_types())):
        yield results
    elif isinstance(results, dict):
        for value in results.values():
            yield from _flatten(value)
    elif isinstance(results, (tuple, list)):
        for value in results:
            yield from _flatten(value)


@contextlib.contextmanager
def same_random_numbers(model: Any) -> Iterator[Callable[[], None]]:
    """Puts the device of a model to use, and the same random numbers.

    Yields a function that winds the random numbers back; so does the end. A
    model that draws any then gives the same before and after an edit.
    """
    generator = new_generator(model)
    with chainer.using_device(model.device), using_generator(generator):
        state, numpy_state = random.getstate(), numpy.random.get_state()

        def wind_back():
            random.setstate(state)
            numpy.random.set_state(numpy_state)
            if generator is not None:
                # What is asked for already is drawn from the old state.
                model.device.device.synchronize()
                generator.seed(0)

        try:
            yield wind_back
        finally:
            wind_back()


def new_generator(model: Any) -> Any:
    """A random state of CuPy, which cannot be read; None on the CPU."""
    if not isinstance(model.device, chainer.backend.GpuDevice):
        return None
    with chainer.using_device(model.device):
        return model.xp.random.RandomState(0)


@contextlib.contextmanager
def using_generator(generator: Any) -> Iterator[None]:
    """Draws from a random state of CuPy, on the device in use, for a while."""
    if generator is None:
        yield
        return
    cupy_random = cuda.cupy.random
    before = cupy_random.get_random_state()
    cupy_random.set_random_state(generator)
    try:
        yield
    finally:
        # What is asked for already is drawn before it is seeded, or goes.
        cuda.cupy.cuda.Device().synchronize()
        cupy_random.set_random_state(before)


def copy_model(model: Any) -> Any:
    """A deep copy of a model, without the graphs that its variables end.

    A Classifier, for one, keeps the loss of its last batch.
    """
    memo: dict[int, Any] = {}
    for link in model.links():
        for value in vars(link).values():
            if (isinstance(value, chainer.Variable)
                    and not isinstance(value, chainer.Parameter)):
                array = None if value.array is None else value.array.copy()
                memo[id(value)] = chainer.Variable(array, name=value.name)
    return copy.deepcopy(model, memo)


def replace_link(model: Any, path: str, link: Any) -> None:
    """Puts a link in the place of another in a chain or a list."""
    *names, last = path.strip('/').split('/')
    parent = model
    for name in names:
        parent = (
            parent._children[int(name)]
            if isinstance(parent, chainer.ChainList) else vars(parent)[name])
    # Straight into its place: what the author's class does when a link is
    # added or taken away, such as to count them, is not to be done again.
    link.name = last
    if isinstance(parent, chainer.ChainList):
        old = parent._children[int(last)]
        parent._children[int(last)] = link
        if isinstance(parent, chainer.Sequential):
            parent._layers = [
                link if layer is old else layer for layer in parent._layers]
    else:
        vars(parent)[last] = link
