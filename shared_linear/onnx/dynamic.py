"""Which axes of the inputs are free, and the runs that make them so."""
from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from shared_linear.onnx.axes import (
    Axis,
    free_axes,
    slim,
    values_in_constants,
)
from shared_linear.onnx.compat import ExportError
from shared_linear.onnx.sizes import Ambiguous, Frozen, function_of
from shared_linear.onnx.tracing import Inputs, Trace

BATCH = 'batch'

# Sizes by name of the input and axis; whether the values are others.
Run = Callable[[dict[tuple[str, int], int], bool], Trace]


class DynamicAxes:

    """What the user asked for, and the batch.

    Attributes:
        axes (list of Axis): The free axes of the inputs.
        outputs (dict): Names of the axes of outputs.
        reason (str or None): Why the batch is none of them.

    """

    def __init__(self, given: Any, inputs: Inputs) -> None:
        arrays = dict(zip(inputs.names, inputs.arrays, strict=True))
        places: dict[str, list[tuple[str, int]]] = {}
        asked = set()
        self.outputs: dict[str, dict[int, str]] = {}
        for name, names in _checked(given).items():
            if name not in arrays:
                self.outputs[name] = names
                continue
            for axis, symbol in names.items():
                ndim = arrays[name].ndim
                if not -ndim <= axis < ndim:
                    raise ValueError(
                        'dynamic_axes names axis {} of {!r}, which has {} '
                        'axes'.format(axis, name, ndim))
                places.setdefault(symbol, []).append((name, axis % ndim))
                asked.add(symbol)
        taken = {place for some in places.values() for place in some}
        rows = [(name, 0) for name in arrays if (name, 0) not in taken]
        sizes = {
            arrays[name].shape[0] if arrays[name].ndim else None
            for name, _ in rows}
        self.reason = None
        if len(sizes) == 1 and None not in sizes:
            places.setdefault(BATCH, []).extend(rows)
        elif rows:
            self.reason = 'the inputs have not one number of rows'
        self.axes = []
        for symbol, some in places.items():
            own = [arrays[name].shape[axis] for name, axis in some]
            if len(set(own)) > 1:
                raise ValueError(
                    'the axes named {!r} must be of one size, and are of '
                    '{}'.format(symbol, ', '.join(
                        '{} ({}, axis {})'.format(size, name, axis)
                        for size, (name, axis) in zip(
                            own, some, strict=True))))
            self.axes.append(Axis(symbol, some, own[0], symbol in asked))

    def check_outputs(self, trace: Trace) -> None:
        known = {
            value.name: len(value.type.tensor_type.shape.dim)
            for value in trace.proto.graph.output}
        for name, axes in self.outputs.items():
            if name not in known:
                raise ValueError(
                    'dynamic_axes names {!r}, which is neither an input ({}) '
                    'nor an output ({})'.format(
                        name, ', '.join(trace.feeds), ', '.join(known)))
            ndim = known[name]
            for axis in axes:
                if not -ndim <= axis < ndim:
                    raise ValueError(
                        'dynamic_axes names axis {} of {!r}, which has {} '
                        'axes'.format(axis, name, ndim))
            self.outputs[name] = {a % ndim: s for a, s in axes.items()}


def _checked(given: Any) -> dict[str, dict[int, str]]:
    """As torch.onnx.export takes it: lists get names of their own."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(
            "dynamic_axes must be a dict such as {{'x': {{2: 'height'}}}}, "
            'not {}'.format(type(given).__name__))
    checked = {}
    for name, axes in given.items():
        if isinstance(axes, Mapping):
            own = dict(axes)
        elif isinstance(axes, Sequence) and not isinstance(axes, str):
            own = {
                axis: '{}_dynamic_axes_{}'.format(name, n + 1)
                for n, axis in enumerate(axes)}
        else:
            raise TypeError(
                'the axes of {!r} in dynamic_axes must be a dict or a list, '
                'not {}'.format(name, type(axes).__name__))
        for axis, symbol in own.items():
            if isinstance(axis, bool) or not isinstance(axis, int) or (
                    not isinstance(symbol, str) or not symbol):
                raise TypeError(
                    'dynamic_axes must give a name to each axis, an int; '
                    'for {!r} it has {!r}: {!r}'.format(name, axis, symbol))
        checked[name] = own
    return checked


def _sizes(pairs: Iterable[tuple[Axis, int]]) -> dict[tuple[str, int], int]:
    return {
        place: size for axis, size in pairs for place in axis.places}


class Runs:

    """Runs of one model at different sizes."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def again(
            self, sizes: dict[tuple[str, int], int],
            other_values: bool = False) -> Trace:
        with warnings.catch_warnings():
            # The first run gave them.
            warnings.simplefilter('ignore')
            try:
                return self.run(sizes, other_values)
            except Exception as e:
                what = str(e).strip().splitlines() or ['']
                raise Frozen('the model fails on {} ({}: {})'.format(
                    _in_words(sizes), type(e).__name__, what[0])) from e


def _in_words(sizes: Mapping[tuple[str, int], int]) -> str:
    rows = {size for (_, axis), size in sizes.items() if axis == 0}
    if len(rows) == 1 and all(axis == 0 for _, axis in sizes):
        return '{} rows'.format(*rows)
    return ', '.join(
        '{} along axis {} of {}'.format(size, axis, name)
        for (name, axis), size in sizes.items())


def traced_freely(
        onnx: Any, run: Run, dynamic: DynamicAxes, check: bool,
) -> tuple[Any, list[tuple[Trace, str]]]:
    """Returns the graph, with free axes, and runs to check it by.

    Where an axis that was not asked for cannot be free, a warning says why.
    """
    runs = Runs(run)
    axes = dynamic.axes
    # Of the given sizes, but for a batch of no rows.
    begin = {a.name: a.size or a.first for a in axes}
    given = _sizes((a, begin[a.name]) for a in axes)
    first = run(given, False)
    dynamic.check_outputs(first)
    if check:
        _check_constants(onnx, runs, first, given)
    where = 'as given'
    reason = dynamic.reason
    checks = [(first, '')]
    proto = first.proto
    while axes:
        try:
            proto, second = _free(
                onnx, runs, axes, first, begin, dynamic.outputs)
        except Frozen as e:
            if all(a.asked for a in axes) or len(axes) == 1 and axes[0].asked:
                raise ExportError(
                    'dynamic_axes asks for {}, which the file cannot leave '
                    'free: {}'.format(
                        ', '.join(repr(a.name) for a in axes), e)) from e
            reason = str(e)
            where = 'at {}'.format(*(
                begin[a.name] for a in axes if not a.asked))
            axes = [a for a in axes if a.asked]
            continue
        checks.append(second)
        break
    if reason is not None:
        warnings.warn('the batch size in the file is frozen {}: {}'.format(
            where, reason), stacklevel=3)
    return proto, checks


def _free(
        onnx: Any, runs: Runs, axes: Sequence[Axis], first: Trace,
        begin: Mapping[str, int],
        outputs: Mapping[str, Mapping[int, str]],
) -> tuple[Any, tuple[Trace, str]]:
    try:
        return _free_from(onnx, runs, axes, first, begin, outputs)
    except Frozen:
        # A window that happens to be as large as the picture is no more at
        # another size, so that it may be free from there.
        if not any(a.asked for a in axes):
            raise
        larger = [a._replace(size=a.others[0]) for a in axes]
        try:
            return _free_from(onnx, runs, larger, first, begin, outputs)
        except Frozen:
            pass
        raise


def _free_from(
        onnx: Any, runs: Runs, axes: Sequence[Axis], first: Trace,
        begin: Mapping[str, int],
        outputs: Mapping[str, Mapping[int, str]],
) -> tuple[Any, tuple[Trace, str]]:
    base_sizes = [(a, a.first) for a in axes]
    base = first if all(
        begin[a.name] == size for a, size in base_sizes
    ) else runs.again(_sizes(base_sizes))
    failure: Frozen | None = None
    for near, far in _choices(axes):
        try:
            traces = [base]
            for axis in axes:
                traces.append(slim(runs.again(_sizes(
                    (a, near[a.name] if a is axis else a.first)
                    for a in axes)), keep_values=len(axes) == 1))
            joint = _sizes((a, far[a.name]) for a in axes)
            if len(axes) > 1:
                traces.append(slim(runs.again(joint), keep_values=True))
        except Frozen as e:
            failure = failure or e
            continue
        try:
            proto = free_axes(onnx, traces, axes, outputs)
        except Ambiguous:
            traces.append(slim(runs.again(joint), keep_values=True))
            proto = free_axes(onnx, traces, axes, outputs)
        last = traces[-1]
        return proto, (last, ' at other sizes ({})'.format(', '.join(
            '{} {}'.format(name, 'x'.join(map(str, v.shape)))
            for name, v in last.feeds.items())))
    assert failure is not None
    raise failure


def _choices(
        axes: Sequence[Axis],
) -> Iterable[tuple[dict[str, int], dict[str, int]]]:
    """Other sizes, and yet others where the model fails on these.

    The first try ends at a size that is no multiple of anything, where a
    division that was rounded shows.
    """
    near = {a.name: a.others[0] for a in axes}
    far = {a.name: a.others[1] for a in axes}
    if any(a.asked for a in axes):
        yield near, {
            a.name: far[a.name] if a.places[0][1] == 0 else near[a.name] + 1
            for a in axes}
    yield near, far
    if any(a.asked for a in axes):
        yield (
            {a.name: 2 * a.first for a in axes},
            {a.name: 3 * a.first for a in axes})


def _check_constants(
        onnx: Any, runs: Runs, first: Trace,
        sizes: dict[tuple[str, int], int]) -> None:
    """An array that is computed from x outside of functions is none."""
    try:
        other = slim(runs.again(sizes, True))
        names = values_in_constants(first.proto, other.proto)
    except Frozen:
        # The model cannot run on others, or takes another way for them.
        return
    if names:
        raise ExportError(
            '{} takes numbers that are drawn at random, or computed from x '
            "outside of Chainer's functions, and that the file would hold as "
            'they are for this x: compute them by functions, or make them '
            'an input of the model'.format(function_of(names[0])))
