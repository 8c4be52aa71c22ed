"""The course of compressing a model, layer by layer."""
from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy
from chainer import backend

from shared_linear.compression import (
    between,
    blocks,
    capture,
    folds,
    grouping,
    memory,
    regression,
)
from shared_linear.compression.calibration import Moments
from shared_linear.compression.lockstep import Lockstep
from shared_linear.compression.planning import Curve, Form, Size
from shared_linear.compression.regression import InputMap, Solution
from shared_linear.compression.samples import Samples, is_by_samples
from shared_linear.layers.mixing import Mixing

Array = numpy.ndarray

# Rows for each output of a layer, to know what its errors weigh; the most
# outputs for which it is asked; and the rows that are differentiated at once.
ROWS_PER_OUTPUT = 10
MOST_WEIGHTED = 2048
# Rows to know what the errors of a layer do in all; and the least that they
# are taken to do, as a part of the mean of all layers.
ROWS_FOR_EFFECT = 500
LEAST_EFFECT = .01
# Numbers of tiles and parts of hidden units that are considered.
MOST_TILES = 100
LEAST_STEP = 1.2
# A finer choice of units costs little, one decomposition each, and is worth a
# tenth of the error.
UNITS = tuple(.9 ** i for i in range(1, 28))
# Of the searches for the plan alone.
QUICK_SWEEPS = 4
QUICK_PASSES = 3


class Layer(NamedTuple):

    """A fully connected layer of the original, and how many are before."""

    path: str
    link: Any
    W: Array
    b: Array | None
    place: int = 0


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


class Rows(NamedTuple):

    """Which rows of a layer's inputs are fitted to, and which held out."""

    train: Array
    held_out: Array


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
        self._masks = masks
        self._held_out = held_out
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
        self._holds_out = any(held.any() for held in held_out)
        self._after = {pair.before: path for path, pair in pairs.items()}
        self._weights: dict[str, Array] = {}
        self._effects: dict[str, float] = {}
        self._variances: dict[str, float] = {}
        self._ridges: dict[str, float] = {}
        self._units: dict[str, Array] = {}
        self.rows_per_input: dict[str, float] = {}

    # What is known before a plan.

    def weigh(self, but: Iterable[str] = ()) -> None:
        """What an error of each layer's outputs weighs, M (o, o).

        It is the mean of two: that all outputs weigh alike, and E[J^T J],
        what the error does to the outputs of the model, by its derivative J.

        Args:
            but: Paths of layers whose outputs weigh alike.

        """
        sums = {
            path: numpy.zeros((len(layer.W),) * 2)
            for path, layer in self._layers.items()
            if 1 < len(layer.W) <= MOST_WEIGHTED and path not in but}
        squares = dict.fromkeys(self._layers, 0.)
        rng = numpy.random.RandomState(0)
        links = {path: layer.link for path, layer in self._layers.items()}
        for i, some in self._sample({
                path: ROWS_PER_OUTPUT * len(layer.W) if path in sums
                else ROWS_FOR_EFFECT for path, layer in self._layers.items()}):
            self._wind_back()
            gradients = capture.sensitivities(
                self._model, self._batches[i][some], links, rng)
            for path, gradient in gradients.items():
                rows = self._rows(i, len(gradient), some)
                gradient = _cpu(gradient)[rows.train].astype(numpy.float64)
                if path in sums:
                    sums[path] += gradient.T @ gradient
                squares[path] += float((gradient ** 2).sum())
        for path, square in squares.items():
            if numpy.isfinite(square) and square > 0:
                self._effects[path] = square / len(self._layers[path].W)
                if path in sums:
                    M = sums[path] / self._effects[path]
                    self._weights[path] = (M + numpy.eye(len(M))) / 2

    def effects(self) -> dict[str, float]:
        """What an error of as much as the variance of each layer's outputs
        does to those of the model, as a part of the mean of all layers.

        To the first order errors add up to tr(J^T J cov(error)), so that the
        sum of those of the layers is that of the model.
        """
        known = {
            path: effect * self._variances[path]
            for path, effect in self._effects.items()}
        mean = numpy.mean(list(known.values())) if known else 1.
        return {
            path: float(max(known.get(path, mean) / mean, LEAST_EFFECT))
            for path in self._layers}

    def _sample(self, needed):
        """Enough of the inputs to weigh by: the batch of each, and which.

        Args:
            needed: Rows, by path.

        """
        n_inputs: float = sum(map(len, self._batches))
        if self._masks is not None:
            n_inputs *= sum(map(numpy.sum, self._masks)) / sum(
                map(numpy.size, self._masks))
        every = max(1, int(n_inputs * min(
            self._rows_about[path] / n_rows
            for path, n_rows in needed.items())))
        # A graph keeps all values.
        most = max(1., *(self._rows_about[path] for path in needed))
        step = every * max(1, int(memory.MOST_DIFFERENTIATED / most))
        start = 0
        for i, batch in enumerate(self._batches):
            while start < len(batch):
                yield i, slice(start, min(start + step, len(batch)), every)
                start += step
            start = (start - len(batch)) % every

    def _L(self, path, rows=None):
        M = self._weights.get(path)
        if M is None:
            return None
        return numpy.linalg.cholesky(M if rows is None else M[rows][:, rows])

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
                    problem = self._problem(
                        path, stops, None, None, has_bias=self._add_bias)
                    curves[path] = curves_of(path, problem)
                self._variances[path] = problem.unit
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
        effects = self.effects()
        return {
            path: Size(
                layer.W.shape[1], len(layer.W), layer.b is not None,
                self.rows_per_input[path], path not in self._pairs,
                self._add_bias, effects[path])
            for path, layer in self._layers.items()}

    def tile_curves(
            self, path: str, problem: Any, n_blocks: int = 1) -> list[Curve]:
        """The errors of all numbers of tiles, of one weight."""
        in_size = problem.W.shape[1]
        curves = [Curve(1, None, in_size, numpy.zeros(1))]
        pair = self._pairs.get(path)
        ridge = regression.RIDGES[0]
        plain = None
        for n_tiles in range(2, in_size + 1):
            if in_size % n_tiles != 0:
                continue
            if n_blocks > 1:
                mixing = self._mixing(path, n_tiles, n_blocks)
                error = blocks.best(
                    problem, blocks.folds_of(mixing, in_size)).error
            else:
                if plain is None:
                    plain = regression.decompose(
                        problem, InputMap(numpy.arange(in_size)[None]), ridge)
                fold = folds.find_fold(
                    problem, plain, n_tiles, None,
                    pair is not None and pair.scalable, ridge,
                    seed=self._seed, n_sweeps=grouping.default_sweeps(
                        in_size, n_tiles, most=QUICK_SWEEPS, least=1))
                error = regression.best(problem, fold, None)[0].full_error
            curves.append(Curve(
                n_tiles, None, in_size // n_tiles, numpy.array([error]),
                n_blocks))
        return curves

    def _mixing(self, path, n_tiles, n_blocks):
        """Layers of one seed would mix alike, so that each has its own."""
        seed = (self._seed + self._layers[path].place) % 2 ** 32
        return Mixing(n_tiles, n_blocks, seed)

    def _curves(self, path, problem):
        in_size = problem.W.shape[1]
        everything = InputMap(numpy.arange(in_size)[None])
        plain = regression.decompose(problem, everything, regression.RIDGES[0])
        curves = [Curve(1, None, in_size, plain.errors)]
        pair = self._pairs.get(path)
        numbers = _numbers_of_tiles(in_size)
        ridge = regression.RIDGES[0]
        # The ridge is chosen once, where it matters as it does in the middle.
        numbers.sort(key=lambda n: abs(n - 8))
        scalable = pair is not None and pair.scalable
        for i, n_tiles in enumerate(numbers):
            fold = folds.find_fold(
                problem, plain, n_tiles, folds.N_DIRECTIONS,
                scalable, ridge, seed=self._seed,
                n_sweeps=grouping.default_sweeps(
                    in_size, n_tiles, most=QUICK_SWEEPS,
                    least=0 if scalable else 1),
                n_passes=QUICK_PASSES)
            if i == 0:
                fit, ridge = regression.best(problem, fold, None)
            else:
                fit = regression.decompose(problem, fold, ridge)
            curves.append(Curve(n_tiles, None, fold.width, fit.errors))
        self._ridges[path] = ridge
        if pair is not None and pair.narrowable:
            numbers = sorted({
                max(1, round(part * in_size)) for part in UNITS} - {in_size})
            if numbers:
                order = folds.choose_units(problem, plain, ridge, numbers[-1])
                self._units[path] = order
                for n_units in numbers:
                    fold = InputMap(order[None, :n_units])
                    fit = regression.decompose(problem, fold, ridge)
                    curves.append(Curve(1, n_units, n_units, fit.errors))
        return curves

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
                            _cpu(stop.original()) for stop in new.stops]
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
                ([_cpu_result(r) for r in one.results],
                 [_cpu_result(r) for r in other.results])
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
        for i, y in enumerate(map(_cpu, originals)):
            kept = original.runs[i].kept.get(path)
            if kept is not None:
                other = new.runs[i].kept[path]
                y = y + (_cpu(kept) - _cpu(other)).reshape(y.shape)
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
        L = self._L(path, rows)
        problem = self._problem(
            path, stops, targets, L, rows, units, has_bias)
        in_size = problem.W.shape[1]
        pair = self._pairs_now.get(path)
        fold = InputMap(numpy.arange(in_size)[None])
        if form.n_tiles > 1:
            ridge = self._ridges.get(path, regression.RIDGES[0])
            plain = regression.decompose(problem, fold, ridge)
            fold = folds.find_fold(
                problem, plain, form.n_tiles, form.rank,
                pair is not None and pair.scalable, ridge,
                seed=self._seed, judged=self._ends_early(in_size, stops),
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
            _apply(solution, fold, _cpu(stop.x), layer.link.W.dtype)
            for stop in stops]
        if rows is not None:
            targets = [y[:, rows] for y in targets]
        error = self._error(stops, targets, answers)
        if form == Form():
            # A dense layer behind a changed one: is it better as it was?
            as_it_was = Solution(
                layer.W if rows is None else layer.W[rows], None, None,
                layer.b if rows is None or layer.b is None
                else layer.b[rows])
            others = [
                _apply(as_it_was, fold, _cpu(stop.x), layer.link.W.dtype)
                for stop in stops]
            other_error = self._error(stops, targets, others)
            if other_error <= error:
                solution, answers, error = as_it_was, others, other_error
        if rows is not None:
            answers = [_widened(y, rows, len(layer.W)) for y in answers]
        return Outcome(
            form._replace(rank=rank), solution, fold, rows, error,
            None if pair is None else pair.before), answers

    def _ends_early(self, in_size, stops):
        return not self._patient or in_size * folds.ENOUGH > sum(
            int(self._rows(i, len(stop.x)).train.sum())
            for i, stop in enumerate(stops))

    def _fit_blocks(self, path, form, stops, targets, has_bias):
        problem = self._problem(path, stops, targets, None, has_bias=has_bias)
        mixing = self._mixing(path, form.n_tiles, form.n_blocks)
        solution = blocks.best(
            problem, blocks.folds_of(mixing, problem.W.shape[1])).solution
        W: Any = solution.W
        dtype = self._layers[path].link.W.dtype
        answers = []
        for stop in stops:
            x = _cpu(stop.x)
            y = blocks.apply(W.astype(dtype), mixing, x)
            answers.append(
                _with_bias(y, solution.b, dtype).astype(x.dtype, copy=False))
        return Outcome(
            form, solution, InputMap(numpy.arange(problem.W.shape[1])[None]),
            None, self._error(stops, targets, answers), None, mixing), answers

    def _error(self, stops, targets, answers):
        """On what is held out, in units of the variance."""
        squares, ys = 0., []
        for i, (y, z) in enumerate(zip(targets, answers, strict=True)):
            held = self._rows(i, len(stops[i].x)).held_out
            difference = (y[held] - z[held]).astype(numpy.float64)
            squares += float((difference ** 2).sum())
            ys.append(y[held])
        y = numpy.concatenate(ys).astype(numpy.float64)
        return squares / regression.unit_of_errors(
            float(((y - y.mean(0)) ** 2).sum()), float((y * y).sum()))

    def _rows(self, i, n_rows, some=slice(None)):
        """Which rows of a batch are fitted to, and which are held out.

        Args:
            i: Of the batch.
            n_rows: How many a layer is fed for it.
            some: Which inputs of the batch, if not all.

        """
        held = self._held_out[i][some]
        if not self._holds_out:
            held = numpy.zeros(n_rows, bool)
        elif len(held) and n_rows % len(held) == 0:
            held = numpy.repeat(held, n_rows // len(held))
        else:
            held = numpy.arange(n_rows) % 10 == 9
        mask = numpy.ones(n_rows, bool)
        if self._masks is not None:
            of_batch = numpy.asarray(self._masks[i])[some].ravel()
            if of_batch.size == n_rows:
                mask = of_batch
        return Rows(mask & ~held, mask & held if self._holds_out else mask)

    def _problem(
            self, path, stops, targets, L, rows=None, units=None,
            has_bias=False):
        layer = self._layers[path]
        has_bias = has_bias or layer.b is not None
        split = [
            self._rows(i, len(stop.x)) for i, stop in enumerate(stops)]
        n_train = sum(int(s.train.sum()) for s in split)
        n_held = sum(int(s.held_out.sum()) for s in split)
        if not n_train or not n_held:
            raise ValueError(
                'there are too few calibration inputs: {} to fit to, and {} '
                'to hold out'.format(n_train, n_held))
        in_size = layer.W.shape[1] if units is None else len(units)
        by_samples = is_by_samples(in_size, n_train)
        W: Any = layer.W.astype(
            numpy.float32 if by_samples else numpy.float64, copy=False)
        b = None if layer.b is None else layer.b.astype(numpy.float64)
        if targets is None:
            L = self._L(path)
        if rows is not None:
            W, b = W[rows], None if b is None else b[rows]
        if units is not None:
            W = W[:, units]
        if L is not None:
            W = L.T.astype(W.dtype) @ W
            b = None if b is None else L.T @ b

        def parts(which):
            for i, stop in enumerate(stops):
                x = _cpu(stop.x)[getattr(split[i], which)]
                if units is not None:
                    x = x[:, units]
                if not numpy.isfinite(x).all():
                    raise ValueError(
                        'calibration inputs must be finite, but some are '
                        'NaN or infinite')
                y = None
                if targets is not None:
                    y = targets[i][getattr(split[i], which)]
                    if rows is not None:
                        y = y[:, rows]
                    if L is not None:
                        y = y @ L
                yield x, y

        if by_samples:
            arrays: list[Any] = []
            for which in ('train', 'held_out'):
                xs, ys = zip(*parts(which), strict=True)
                x = numpy.concatenate(xs).astype(numpy.float32, copy=False)
                del xs
                if targets is None:
                    y = x @ W.T
                    if b is not None:
                        y += b.astype(numpy.float32)
                else:
                    y = numpy.concatenate(ys).astype(
                        numpy.float32, copy=False)
                arrays += [x, y]
            x, y, held_x, held_y = arrays
            return Samples(x, y, held_x, held_y, W, has_bias)
        moments = []
        for which in ('train', 'held_out'):
            one = Moments(in_size, len(W) if targets is not None else 0)
            for x, y in parts(which):
                one.add(x, y)
            moments.append(one)
        train, held_out = moments
        return regression.Covariances(train, held_out, W, b, has_bias)


def _numbers_of_tiles(in_size: int) -> list[int]:
    """Divisors, but for those that are next to another one."""
    numbers: list[int] = []
    for n in range(2, min(MOST_TILES, in_size) + 1):
        if in_size % n == 0 and (
                not numbers or n >= LEAST_STEP * numbers[-1]):
            numbers.append(n)
    return numbers


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
    a, b = _cpu(a), _cpu(b)
    return a.shape == b.shape and bool((a == b).all())


def _widened(y, rows, size):
    wide = numpy.zeros((len(y), size), y.dtype)
    wide[:, rows] = y
    return wide


def _cpu(array):
    return backend.CpuDevice().send(array)


def _cpu_result(result):
    return _cpu(getattr(result, 'array', result))


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
