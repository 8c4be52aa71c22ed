"""Runs a graph, and compares what it computes with what the model did."""
from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy

from shared_linear.onnx.compat import ExportError
from shared_linear.onnx.tracing import Trace

# Differences that rounding makes, in units of the type's last place, relative
# to the largest number of an output. Of the whole model, and of one function
# on the model's own numbers.
WHOLE = 96
PART = 32
# How many times more than if the inputs were rounded otherwise.
AMPLIFIED = 16


class CannotRun(Exception):

    """Nothing at hand runs the graph; the message says why."""


class Runner:

    """Runs graphs: onnxruntime where it is installed, or onnx's reference."""

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.refused: str | None = None
        self.runtime: Any = None
        with contextlib.suppress(ImportError):
            self.runtime = importlib.import_module('onnxruntime')

    def __call__(
            self, proto: Any, feeds: Mapping[str, Any],
            names: list[str] | None = None) -> list[numpy.ndarray]:
        if self.runtime is not None and self.refused is None:
            try:
                return self._run(proto, feeds, names)
            except Exception as e:  # noqa: BLE001 It has a class for each.
                self.refused = _line(e)
        try:
            return self._refer(proto, feeds, names)
        except Exception as e:
            raise CannotRun('; '.join(
                '{}: {}'.format(who, why) for who, why in (
                    ('onnxruntime', self.refused),
                    ("onnx's ReferenceEvaluator", _line(e))) if why)) from e

    def _run(
            self, proto: Any, feeds: Mapping[str, Any],
            names: list[str] | None) -> list[numpy.ndarray]:
        options = self.runtime.SessionOptions()
        # Errors are raised; what it would log beside them are the same.
        options.log_severity_level = 4
        options.add_session_config_entry(
            'session.intra_op.allow_spinning', '0')
        session = self.runtime.InferenceSession(
            proto.SerializeToString(), options,
            providers=['CPUExecutionProvider'])
        outputs: list[numpy.ndarray] = session.run(names, dict(feeds))
        return outputs

    def _refer(
            self, proto: Any, feeds: Mapping[str, Any],
            names: list[str] | None) -> list[numpy.ndarray]:
        reference = importlib.import_module('onnx.reference')
        with warnings.catch_warnings(), numpy.errstate(all='ignore'):
            warnings.simplefilter('ignore')
            outputs = reference.ReferenceEvaluator(proto).run(
                names, dict(feeds))
        return [numpy.asarray(y) for y in outputs]


def _line(error: Exception) -> str:
    words = ' '.join(str(error).split()) or type(error).__name__
    return words if len(words) < 250 else words[:250] + ' ...'


def check(onnx: Any, proto: Any, trace: Trace, where: str = '') -> None:
    """Raises if the graph computes something else than the model did.

    Args:
        proto (onnx.ModelProto): The graph.
        trace (Trace): A run of the model, whose functions have the names of
            the graph's values.
        where (str): Which run it is, for errors.

    Raises:
        ExportError: It names the first function that differs, by what it
            gives for the model's own numbers.

    """
    runner = Runner(onnx)
    names = [value.name for value in proto.graph.output]
    try:
        outputs = runner(proto, trace.feeds)
    except CannotRun as e:
        raise ExportError(
            'the file cannot be checked{}, as nothing runs it: {} '
            '(check=False writes it unchecked)'.format(where, e)) from e
    if all(_off(y, trace.values[name], WHOLE) is None
           for name, y in zip(names, outputs, strict=True)):
        if runner.refused is not None:
            warnings.warn(
                "onnxruntime does not run the file, which onnx's "
                'ReferenceEvaluator found right: ' + runner.refused,
                stacklevel=3)
        return
    # Which function is it, or is it rounding that the model amplifies?
    for function, kind, outputs_of in trace.functions:
        for message in _differences(onnx, runner, proto, trace, outputs_of):
            raise ExportError(
                'the file would compute something else than the model{}: '
                '{}, the first function that differs ({}), gives {}; '
                'pass a converter for it, or compute it from others '
                '(check=False writes the file as it is)'.format(
                    where, function, kind, message))


def _off(
        y: numpy.ndarray, expected: numpy.ndarray, units: int,
        allowed: float = 0) -> str | None:
    """How an output differs from what it should be, in words."""
    y = numpy.asarray(y)
    if y.shape != expected.shape:
        return 'the shape {} for {}'.format(y.shape, expected.shape)
    if y.dtype != expected.dtype:
        return 'the type {} for {}'.format(y.dtype, expected.dtype)
    if expected.dtype.kind not in 'fc':
        wrong = int((y != expected).sum())
        return None if not wrong else '{} of {} elements wrong'.format(
            wrong, y.size)
    a, b = (v.astype(numpy.float64) for v in (y, expected))
    finite = numpy.isfinite(b)
    same = (a == b) | (numpy.isnan(a) & numpy.isnan(b))
    with numpy.errstate(invalid='ignore'):
        difference = numpy.where(same, 0, abs(a - b))
    scale = abs(b[finite]).max(initial=0)
    bound = max(units * float(numpy.finfo(expected.dtype).eps) * scale,
                float(numpy.finfo(expected.dtype).tiny), allowed)
    worst = difference.max(initial=0)
    if worst <= bound:
        return None
    return 'numbers that are off by {:.2g} where the largest is {:.2g}'.format(
        worst, scale)


def _differences(
        onnx: Any, runner: Runner, proto: Any, trace: Trace,
        outputs: tuple[str, ...]) -> Iterator[str]:
    """Runs the nodes of one function on the numbers that the model gave it."""
    part, feeds = _part(onnx, proto, trace, outputs)
    if part is None:
        return
    names = [value.name for value in part.graph.output]
    try:
        results = runner(part, feeds)
    except CannotRun:
        # The whole ran.
        return
    moved = None
    for name, y in zip(names, results, strict=True):
        expected = trace.values[name]
        message = _off(y, expected, PART)
        if message is None:
            continue
        if y.shape == expected.shape and y.dtype == expected.dtype:
            if moved is None:
                moved = _moved(runner, part, feeds, results)
            if _off(y, expected, PART, AMPLIFIED * moved[name]) is None or (
                    expected.dtype.kind not in 'fc' and moved[name]):
                continue
        yield message


def _moved(
        runner: Runner, part: Any, feeds: Mapping[str, Any],
        results: list[numpy.ndarray]) -> dict[str, float]:
    """By how much outputs change if the inputs were rounded otherwise."""
    random = numpy.random.RandomState(0)
    moved = dict.fromkeys([v.name for v in part.graph.output], 0.)
    for _ in range(2):
        near = {}
        for name, value in feeds.items():
            if value.dtype.kind == 'f':
                sign = random.choice([-1, 1], value.shape)
                value = (value * (1 + sign * numpy.finfo(value.dtype).eps)
                         ).astype(value.dtype)
            near[name] = value
        for name, y, other in zip(
                list(moved), results, runner(part, near), strict=True):
            with numpy.errstate(invalid='ignore'):
                d = abs(y.astype(float) - other.astype(float))
            moved[name] = max(
                moved[name], float(numpy.nanmax(d, initial=0)))
    return moved


def _part(
        onnx: Any, proto: Any, trace: Trace, outputs: tuple[str, ...],
) -> tuple[Any, dict[str, Any]]:
    """The nodes between a function's outputs and its inputs, as a model."""
    nodes = list(proto.graph.node)
    makers = {name: i for i, n in enumerate(nodes) for name in n.output}
    arrays = {array.name: array for array in proto.graph.initializer}
    known = {**trace.feeds, **trace.values}
    wanted = [name for name in outputs if name in makers]
    if not wanted:
        return None, {}
    needed, feeds, used = set(), {}, {}
    queue = list(wanted)
    while queue:
        place = makers[queue.pop()]
        if place in needed:
            continue
        needed.add(place)
        for name in nodes[place].input:
            if name in arrays:
                used[name] = arrays[name]
            elif name in known and name not in outputs:
                feeds[name] = numpy.ascontiguousarray(known[name]).reshape(
                    numpy.shape(known[name]))
            elif name:
                queue.append(name)
    kind = onnx.helper.np_dtype_to_tensor_dtype
    part = onnx.helper.make_model(
        onnx.helper.make_graph(
            [nodes[place] for place in sorted(needed)], 'part',
            [onnx.helper.make_tensor_value_info(n, kind(v.dtype), v.shape)
             for n, v in feeds.items()],
            [onnx.helper.make_tensor_value_info(
                n, kind(trace.values[n].dtype), None) for n in wanted],
            initializer=list(used.values())),
        opset_imports=proto.opset_import)
    part.ir_version = proto.ir_version
    return part, feeds
