"""What lies between the layers of a model: hidden units, and skips.

The graph shows which layer feeds which, and that nothing else needs what is
between. What the functions between do is tried, not looked up: GELU may be
one function or seven.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import chainer
import numpy
from chainer.functions.array import cast, reshape
from chainer.functions.math import basic_math
from chainer.utils import type_check

from shared_linear.compression import capture
from shared_linear.compression.lockstep import Run, Settings

Array = numpy.ndarray


class Pair(NamedTuple):

    """A layer, and the one before it whose outputs are its hidden units.

    Attributes:
        before: Path of the layer before.
        scalable: Whether f(s x) = s f(x) for what lies between.
        narrowable: Whether it takes fewer units as well.

    """

    before: str
    scalable: bool
    narrowable: bool


def find_pairs(
        model: Any, batch: Any, recorded: capture.Run, paths: Iterable[str],
        wind_back: Callable[[], None]) -> dict[str, Pair]:
    """The layers whose inputs are but hidden units, by path.

    Where each hidden unit is a function of one output of the layer before,
    the same for all, units can be reordered, taken twice and left out by the
    rows of that layer.

    Args:
        model: Chain.
        batch: Some inputs, on which it is tried.
        recorded: What the model did to them, with its graph.
        paths: Layers that are called once and may be changed.
        wind_back: Winds the random numbers back.

    """
    calls = {call.path: call for call in recorded.calls}
    befores = _by_graph(recorded, {path: calls[path] for path in paths})

    def passing(candidates, what):
        wind_back()
        good = _try(model, batch, recorded, calls, candidates, what)
        if good is not None:
            return good
        # Something else saw a change: which of them it was is seen alone.
        result: dict[str, str] = {}
        for path, before in candidates.items():
            wind_back()
            result |= _try(
                model, batch, recorded, calls, {path: before}, what) or {}
        return result

    rng = numpy.random.RandomState(0)
    befores = passing(befores, lambda size: (
        rng.randint(0, size, size), numpy.ones(size)))
    # Powers of two are exact.
    scalable = passing(befores, lambda size: (
        rng.randint(0, size, size), rng.choice([.5, 1., 2.], size)))
    narrowable = passing(befores, lambda size: (
        rng.randint(0, size, (size + 1) // 2), numpy.ones((size + 1) // 2)))
    return {
        path: Pair(before, path in scalable, path in narrowable)
        for path, before in befores.items()}


def _by_graph(recorded, calls):
    """The layer before each, where nothing else needs what is between."""
    uses: dict[int, list[Any]] = {}
    for function in recorded.functions:
        for needed in function.inputs or ():
            uses.setdefault(id(needed), []).append(id(function))
    results = {
        id(result.node) for result in recorded.results
        if isinstance(result, chainer.Variable)}
    outs = {id(call.out.node): path for path, call in calls.items()}
    befores = {}
    for path, call in calls.items():
        found = _reach_back(call.node, outs)
        if found is None or len(uses.get(id(call.node), ())) != 1:
            continue
        before, nodes, functions = found
        functions |= set(uses[id(call.node)])
        if not any(
                node in results or not functions.issuperset(uses[node])
                for node in nodes):
            befores[path] = before
    return befores


def _reach_back(node, outs):
    """The one layer behind a node, with the nodes and functions between."""
    if node.creator_node is None:
        return None
    befores, nodes, functions = set(), set(), set()
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if id(node) in nodes or node.creator_node is None:
            continue
        nodes.add(id(node))
        if id(node) in outs:
            befores.add(outs[id(node)])
        else:
            functions.add(id(node.creator_node))
            waiting += node.creator_node.inputs
    if len(befores) != 1:
        return None
    return befores.pop(), nodes, functions


def _try(model, batch, recorded, calls, befores, what):
    """Which layers see but other units, if those before give others.

    Returns:
        Those, or ``None`` if another layer or the result changed.

    """
    units = {
        before: what(calls[before].y.shape[1]) for before in befores.values()}
    run = Run(model, batch, calls, Settings())
    good = {}
    try:
        stop = run.proceed()
        while stop is not None:
            call = calls[stop.path]
            if stop.path in befores:
                before = befores[stop.path]
                if alike(_take(call.x, *units[before]), stop.x):
                    good[stop.path] = before
            elif not alike(call.x, stop.x):
                return None
            answer = call.y
            if stop.path in units:
                answer = _take(answer, *units[stop.path])
            stop = run.proceed(answer)
    except (ValueError, TypeError, IndexError, type_check.InvalidType):
        return None
    finally:
        run.abandon()
    results = [chainer.as_array(result) for result in run.results]
    others = [chainer.as_array(result) for result in recorded.results]
    same = len(results) == len(others) and all(
        map(alike, others, results))
    return good if same else None


def _take(y, units, scales):
    return y[:, units] * _as(y, scales)


def _as(y, scales):
    xp = chainer.backend.get_array_module(y)
    return xp.asarray(scales, dtype=y.dtype)


def alike(array: Any, other: Any) -> bool:
    """Whether two arrays are the same but for rounding errors."""
    a, b = (
        chainer.backend.CpuDevice().send(chainer.as_array(one))
        for one in (array, other))
    if a.shape != b.shape:
        return False
    if a.dtype.kind != 'f':
        return bool((a == b).all())
    tolerance = 100 * numpy.finfo(a.dtype).eps * abs(a).max(initial=0)
    return bool((abs(a - b) <= tolerance).all())


class Skip(NamedTuple):

    """What is added to a layer's outputs: where it is met before.

    Attributes:
        taker: What takes it: the number of a function, in the order of the
            calls of those that are not within layers; or the path of a layer.
        place: Which of the inputs it is.

    """

    taker: int | str
    place: int


def find_skips(
        recorded: capture.Run, paths: Iterable[str]) -> dict[str, Skip]:
    """What the graph adds to the outputs of layers, by path.

    It has to be there before the layer runs: some function takes it, or a
    layer before.
    """
    paths = set(paths)
    users: dict[int, list[int]] = {}
    for i, function in enumerate(recorded.functions):
        for needed in function.inputs or ():
            users.setdefault(id(needed), []).append(i)
    # Values are told apart by their arrays, which are all alive: those that
    # are no variables become another one for each function.
    first_taken: dict[int, tuple[int, Skip]] = {}
    number = 0
    for i, arrays in enumerate(recorded.inputs):
        layer = recorded.layers[i]
        if layer in paths:
            if recorded.layers.index(layer) == i:
                first_taken.setdefault(id(arrays[0]), (i, Skip(layer, 0)))
            continue
        for place, array in enumerate(arrays):
            first_taken.setdefault(id(array), (i, Skip(number, place)))
        number += 1
    skips = {}
    for call in recorded.calls:
        if call.path in paths:
            skip = _find_skip(recorded, call, users, first_taken)
            if skip is not None:
                skips[call.path] = skip
    return skips


def _find_skip(recorded, call, users, first_taken):
    node: Any = call.out.node
    while len(users.get(id(node), ())) == 1:
        i, = users[id(node)]
        function: Any = recorded.functions[i]
        inputs, outputs = function.inputs, function.outputs
        if isinstance(function, (reshape.Reshape, cast.Cast)):
            node = outputs[0]()
            continue
        if not isinstance(function, basic_math.Add) or len(inputs) != 2:
            break
        place = 1 if inputs[0] is node else 0
        other = recorded.inputs[i][place]
        taken, skip = first_taken.get(id(other), (i, None))
        if other.size == call.y.size and taken < recorded.layers.index(
                call.path):
            return skip
        break
    return None
