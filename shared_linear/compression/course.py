"""The course of compressing a model, layer by layer."""
from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy

from shared_linear.compression import (
    between,
    blocks,
    folds,
    memory,
    problems,
    regression,
)
from shared_linear.compression.curves import find_curves, find_tile_curves
from shared_linear.compression.effects import Effects
from shared_linear.compression.lockstep import Lockstep
from shared_linear.compression.planning import Curve, Form, Size
from shared_linear.compression.problems import Layer, Part
from shared_linear.compression.regression import InputMap, Solution
from shared_linear.compression.rows import Split
from shared_linear.layers.mixing import Mixing
from shared_linear.layers.tiled_link import to_cpu

Array = numpy.ndarray


class Outcome(NamedTuple):

    """What became of a layer, and its error on what is held out.

    ``before`` is the path of the layer whose rows the choice of inputs goes
    into, if it does.
    """

    form: Form
    solution: Solution
    fold: InputMap
    rows: Array | None
    error: float
    before: str | None = None
    mixing: Mixing | None = None


class Course:

    """What is known of a model, and what becomes of it.

    Args:
        model: The original: a copy, which is run.
        batches: Batches of inputs.
        masks: For each batch, booleans of the minibatch axes: ``False`` for
            what is padding; or ``None``.
        held_out: For each batch, which examples are held out. Where none is,
            errors are those on what is fitted to.
        layers: The layers that may change, in the order of their calls.
        pairs: The layers before them.
        skips: What is added to their outputs.
        rows: What each is fed for one input, about.
        wind_back: Winds the random numbers back.
        seed: See :func:`group_inputs`, as for n_sweeps and time_limit.
        tick: Is told of each layer that is done.
        add_bias: Whether layers whose weight is shared get a bias.
        refit: Whether dense layers behind others are fitted, too.
        patient: Whether to search for folds to the end, where there are
            inputs enough to find more than noise.

    """

    def __init__(
            self, model: Any, batches: list[Any], masks: list[Any] | None,
            held_out: list[Array], layers: dict[str, Layer],
            pairs: dict[str, between.Pair], skips: dict[str, between.Skip],
            rows: dict[str, float], wind_back: Any, seed: int,
            n_sweeps: int | None, tick: Any, *,
            time_limit: float | None = None, add_bias: bool = False,
            refit: bool = True, patient: bool = False) -> None:
        self._model = model
        self._batches = batches
        self._split = Split(held_out, masks)
        self._layers = layers
        self._pairs = pairs
        self._skips: dict[int | str, list[tuple[str, int]]] = {}
        for path, skip in skips.items():
            self._skips.setdefault(skip.taker, []).append((path, skip.place))
        self._rows_about = rows
        self._wind_back = wind_back
        self._seed = seed
        self._search: dict[str, Any] = {
            'n_sweeps': n_sweeps, 'time_limit': time_limit}
        self._tick = tick
        self._add_bias = add_bias
        self._refit = refit
        self._patient = patient
        self._after = {pair.before: path for path, pair in pairs.items()}
        self.effects = Effects(layers)
        self._ridges: dict[str, float] = {}
        self._units: dict[str, Array] = {}
        self.rows_per_input: dict[str, float] = {}

    # What is known before a plan.

    def weigh(self, but: Iterable[str] = ()) -> None:
        """Learns what the errors of the layers weigh.

        Args:
            but: Paths of layers whose outputs weigh alike.

        """
        self.effects.measure(
            self._model, self._batches, self._split, self._rows_about,
            self._wind_back, but)

    def measure(
            self, curves_of: Callable[[str, Any], list[Curve]] | None = None,
    ) -> dict[str, list[Curve]]:
        """The errors of every form of every layer alone.

        Args:
            curves_of: Those that are considered, of a path and its problem.

        """
        curves_of = curves_of or self._curves
        curves = {}
        self._wind_back()
        with Lockstep(self._model, self._batches, self._layers) as original:
            path = original.proceed()
            while path is not None:
                stops = original.stops
                self._count_rows(path, stops)
                with _named(path):
                    problem = problems.pose(
                        self._layers[path], stops, self._split.of(stops),
                        None, Part(self.effects.root(path)),
                        has_bias=self._add_bias)
                    curves[path] = curves_of(path, problem)
                self.effects.variances[path] = problem.unit
                del problem
                answers = [stop.original() for stop in stops]
                self._tick(path)
                del stops
                path = original.proceed(answers)
                del answers
        return curves

    def _count_rows(self, path, stops):
        self.rows_per_input[path] = sum(
            len(stop.x) for stop in stops) / sum(map(len, self._batches))

    def sizes(self) -> dict[str, Size]:
        effects = self.effects.of_layers()
        return {
            path: Size(
                layer.W.shape[1], len(layer.W), layer.b is not None,
                self.rows_per_input[path], path not in self._pairs,
                self._add_bias, effects[path])
            for path, layer in self._layers.items()}

    def tile_curves(
            self, path: str, problem: Any, n_blocks: int = 1) -> list[Curve]:
        """The errors of all numbers of tiles, of one weight."""
        return find_tile_curves(
            problem, self._pairs.get(path), self._seed,
            None if n_blocks == 1 else lambda n_tiles: self._mixing(
                path, n_tiles, n_blocks))

    def _mixing(self, path, n_tiles, n_blocks):
        """Layers of one seed would mix alike, so that each has its own."""
        seed = (self._seed + self._layers[path].place) % 2 ** 32
        return Mixing(n_tiles, n_blocks, seed)

    def _curves(self, path, problem):
        found = find_curves(problem, self._pairs.get(path), self._seed)
        self._ridges[path] = found.ridge
        if found.units is not None:
            self._units[path] = found.units
        return found.curves

    # What becomes of it.

    def build(self, forms: dict[str, Form]) -> Built:
        """Fits the layers, each to what those before it feed it."""
        outcomes: dict[str, Outcome] = {}
        samples: dict[str, Array] = {}
        self._pairs_now = {
            path: pair for path, pair in self._pairs.items()
            # The rows of blocks have no order of their own to give.
            if forms[path].n_blocks == forms[pair.before].n_blocks == 1}
        self._wind_back()
        args = self._model, self._batches, self._layers, self._skips
        with Lockstep(*args) as original, Lockstep(*args) as new:
            path = original.proceed()
            new.proceed()
            while path is not None:
                self._count_rows(path, new.stops)
                with _named(path):
                    originals = [stop.original() for stop in original.stops]
                    if self._stays(path, forms, original, new):
                        answers = [
                            to_cpu(stop.original()) for stop in new.stops]
                    else:
                        outcomes[path], answers = self._fit(
                            path, forms, new.stops,
                            self._targets(path, original, new, originals))
                for run in original.runs + new.runs:
                    run.kept.pop(path, None)
                samples[path] = answers[0]
                self._tick(path)
                answers = [self._model.device.send(y) for y in answers]
                path = original.proceed(originals)
                new.proceed(answers)
                del originals, answers
            results = [
                ([_result_on_cpu(r) for r in one.results],
                 [_result_on_cpu(r) for r in other.results])
                for one, other in zip(original.runs, new.runs, strict=True)]
        return Built(outcomes, results, samples)

    def _stays(self, path, forms, original, new):
        """Whether a layer is left alone: if it is fed what it was, say."""
        if forms[path] != Form() or self._rows_left(path, forms) is not None:
            return False
        return not self._refit or all(
            _same(one.x, other.x) and _same(
                run.kept.get(path), new_run.kept.get(path))
            for one, other, run, new_run in zip(
                original.stops, new.stops, original.runs, new.runs,
                strict=True))

    def _targets(self, path, original, new, originals):
        """The outputs to aim at: those of the original, and what is added to
        them there less what is added here."""
        targets = []
        for i, y in enumerate(map(to_cpu, originals)):
            kept = original.runs[i].kept.get(path)
            if kept is not None:
                other = new.runs[i].kept[path]
                y = y + (to_cpu(kept) - to_cpu(other)).reshape(y.shape)
            targets.append(y)
        return targets

    def _rows_left(self, path, forms):
        """The outputs that the layer behind needs, if not all."""
        after = self._after.get(path)
        if after is None or forms[after].n_units is None:
            return None
        return self._units[after][:forms[after].n_units]

    def _fit(self, path, forms, stops, targets):
        form, layer = forms[path], self._layers[path]
        shared = form.n_tiles > 1 or form.n_blocks > 1
        has_bias = self._add_bias and shared
        if form.n_blocks > 1:
            return self._fit_blocks(path, form, stops, targets, has_bias)
        rows = self._rows_left(path, forms)
        units = None
        if form.n_units is not None:
            units = self._units[path][:form.n_units]
        L = self.effects.root(path, rows)
        split = self._split.of(stops)
        problem = problems.pose(
            layer, stops, split, targets, Part(L, rows, units),
            has_bias=has_bias)
        in_size = problem.W.shape[1]
        pair = self._pairs_now.get(path)
        fold = InputMap.identity(in_size)
        if form.n_tiles > 1:
            ridge = self._ridges.get(path, regression.RIDGES[0])
            plain = regression.decompose(problem, fold, ridge)
            fold = folds.find_fold(
                problem, plain, form.n_tiles, form.rank,
                pair is not None and pair.scalable, ridge,
                seed=self._seed, judged=self._ends_early(in_size, split),
                **self._search)
        factors, _ = regression.best(problem, fold, form.rank)
        rank = form.rank
        if rank is not None:
            rank = min(rank, factors.U.shape[1])
        solution = regression.cut(problem, factors, rank, L)
        del problem
        if units is not None:
            fold = InputMap(units[fold.units], fold.scales)
        answers = [
            _apply(solution, fold, to_cpu(stop.x), layer.link.W.dtype)
            for stop in stops]
        if rows is not None:
            targets = [y[:, rows] for y in targets]
        error = problems.error_of(split, targets, answers)
        if form == Form():
            # A dense layer behind a changed one: is it better as it was?
            as_it_was = Solution(
                layer.W if rows is None else layer.W[rows], None, None,
                layer.b if rows is None or layer.b is None
                else layer.b[rows])
            others = [
                _apply(as_it_was, fold, to_cpu(stop.x), layer.link.W.dtype)
                for stop in stops]
            other_error = problems.error_of(split, targets, others)
            if other_error <= error:
                solution, answers, error = as_it_was, others, other_error
        if rows is not None:
            answers = [_widened(y, rows, len(layer.W)) for y in answers]
        return Outcome(
            form._replace(rank=rank), solution, fold, rows, error,
            None if pair is None else pair.before), answers

    def _ends_early(self, in_size, split):
        return not self._patient or in_size * folds.ENOUGH > sum(
            int(rows.train.sum()) for rows in split)

    def _fit_blocks(self, path, form, stops, targets, has_bias):
        split = self._split.of(stops)
        problem = problems.pose(
            self._layers[path], stops, split, targets, has_bias=has_bias)
        mixing = self._mixing(path, form.n_tiles, form.n_blocks)
        solution = blocks.best(
            problem, blocks.folds_of(mixing, problem.W.shape[1])).solution
        W: Any = solution.W
        dtype = self._layers[path].link.W.dtype
        answers = []
        for stop in stops:
            x = to_cpu(stop.x)
            y = blocks.apply(W.astype(dtype), mixing, x)
            answers.append(
                _with_bias(y, solution.b, dtype).astype(x.dtype, copy=False))
        return Outcome(
            form, solution, InputMap.identity(problem.W.shape[1]), None,
            problems.error_of(split, targets, answers), None,
            mixing), answers


class Built(NamedTuple):

    """The outcomes by path, and the results of both models by batch.

    Of the first batch there is what each layer gave, with all its units in
    the order of the original.
    """

    outcomes: dict[str, Outcome]
    results: list[tuple[list[Any], list[Any]]]
    samples: dict[str, Array]


def _apply(solution, fold, x, dtype):
    """What a new layer gives, in the dtype of the layer."""
    z = fold.columns(x)
    if solution.W is None:
        z = z @ solution.A.astype(dtype).T
        y = z @ solution.B.astype(dtype).T
    else:
        y = z @ solution.W.astype(dtype).T
    return _with_bias(y, solution.b, dtype).astype(x.dtype, copy=False)


def _with_bias(y, b, dtype):
    return y if b is None else y + b.astype(dtype)


def _same(a, b):
    """Whether two arrays are the same, if there are any."""
    if a is None or b is None:
        return a is b
    a, b = to_cpu(a), to_cpu(b)
    return a.shape == b.shape and bool((a == b).all())


def _widened(y, rows, size):
    wide = numpy.zeros((len(y), size), y.dtype)
    wide[:, rows] = y
    return wide


def _result_on_cpu(result):
    return to_cpu(getattr(result, 'array', result))


@contextlib.contextmanager
def _named(path):
    """Errors say of which layer they are."""
    try:
        yield
    except ValueError as error:
        raise ValueError('{}: {}'.format(path, error)) from error
    except MemoryError as error:
        raise MemoryError('{}: {}: {}'.format(
            path, str(error) or 'out of memory', memory.HELP)) from error
