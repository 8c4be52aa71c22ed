"""A trained model, compressed to a budget without labels or training."""
from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from typing import Any, NamedTuple

import chainer
import chainer.links as L
import numpy
from chainer import backend

from shared_linear import surgery
from shared_linear.compression import (
    between,
    calibration,
    capture,
    comparison,
    dense,
    memory,
    planning,
)
from shared_linear.compression.compressing import Course, Layer, Outcome
from shared_linear.compression.paths import matching
from shared_linear.compression.progress import Progress
from shared_linear.compression.regression import InputMap
from shared_linear.compression.report import LayerReport, Report
from shared_linear.layers.initial_weights import initialize_as
from shared_linear.layers.link import SharedLinear
from shared_linear.layers.low_rank_link import LowRankLinear, low_rank_like
from shared_linear.layers.tiled_link import link_like

Array = numpy.ndarray

KINDS = 'parameters', 'operations', 'bytes'
BATCH_SIZE = 500
N_COMPARED = 16
# One example of so many is held out.
HELD_OUT = 10


def compress(
        model: chainer.Chain | chainer.ChainList,
        x: Any,
        budget: float,
        *,
        of: str = 'parameters',
        exclude: Iterable[str] | str = (),
        mask: Any = None,
        seed: int = 0,
        n_sweeps: int | None = None,
        progress: bool = False,
) -> tuple[Any, Report]:
    """Compresses a trained model, without labels or training.

    Each fully connected layer (:class:`chainer.links.Linear`) takes the form
    that loses least at its cost: dense; folded by tiles
    (:class:`SharedLinear`); of low rank; both (:class:`LowRankLinear`),

    .. math:: y = B A \\, fold(x) + b;

    or, where only element-wise functions lie between it and the layer
    before, with fewer of the hidden units between, of any rank. All ranks of
    a fold follow from one decomposition (reduced-rank regression; Izenman,
    1975), and the forms are chosen together, for the least sum of the
    relative errors of the layers' outputs.

    Then the layers are fitted in the order of their calls, by least squares:
    each to what the layers before, compressed already, feed it, and aimed at
    what the original gave, so that it mends what they have lost. Where
    something is added to its outputs, as in a residual block, it is aimed at
    what is missing of the original's sum. The dense layers behind a
    compressed one are fitted in the same way.

    A tenth of the inputs is not fitted to. It chooses the ridge of each fit
    and ends the searches for what to add up, and the errors in the report
    are those on it.

    The new model is an ordinary one, and an epoch of training mends most of
    what it has lost: set up an optimizer with it.

    Args:
        model (chainer.Chain or chainer.ChainList): Trained model. Copies of
            it are run on ``x`` in test mode, and it is not changed. Of a
            :class:`chainer.links.Classifier` the predictor is run.
        x: Calibration inputs of the model, as for :func:`share_weights`:
            an array or a Variable, a dataset, a Chainer iterator or an
            iterator of batches, whose lengths may differ. Some thousands are
            good. Labels are not used.
        budget (float): Part of the parameters, operations or bytes that may
            be left, more than 0 and at most 1.
        of (str): ``'parameters'``: those of the whole model.
            ``'operations'``: floating-point operations of its fully
            connected layers. ``'bytes'``: those of the parameters, where to
            quantize all weights to 8 bits by :func:`surgery.quantize` is a
            choice, too.
        exclude (str or iterable of str): Patterns of paths of layers that
            are to stay as they are.
        mask: Which rows are inputs and which are padding: a function of a
            batch that returns booleans of the shape of the minibatch axes of
            the layers, as ``lambda ids: ids != 0``; or such an array for all
            of ``x``, if ``x`` is an array. Padding is not fitted to.
        seed (int): See :func:`group_inputs`.
        n_sweeps (int): Step limit of the searches, for each layer.
        progress (bool): Whether to draw a progress bar for the whole.

    Returns:
        tuple: The new model, of the class of ``model``, with parameters of
        the same dtypes on the same device; and a :class:`Report`, which
        prints as a table of the layers.

    Raises:
        TypeError: If ``model``, ``x`` or ``budget`` is of no such kind.
        ValueError: If there is no layer to compress, or the budget cannot be
            met; if ``x`` has less than two inputs, has a value that is not
            finite, or is not what the model takes; if ``mask`` does not fit.
        MemoryError: If it would take more memory than there is.

    Layers that the model calls twice or never, that share a parameter with
    others or have hooks stay as they are; the report says which and why.

    .. admonition:: Example

        >>> model = chainer.Sequential(
        ...     L.Linear(12, 40), F.relu, L.Linear(40, 5))
        >>> x = np.random.RandomState(0).normal(size=(500, 12)).astype('f')
        >>> new, report = sl.compress(model, x, budget=1/2)
        >>> report.parameters <= report.dense_parameters / 2
        True
        >>> new(x).shape
        (500, 5)

    """
    _check_arguments(model, budget, of)
    batches = [
        batch for batch in calibration.iterate_batches(x, BATCH_SIZE)
        if len(batch)]
    masks = _masks(mask, x, batches)
    held_out = _hold_out(batches)
    with capture.same_random_numbers(model) as wind_back:
        batches = [model.device.send(batch) for batch in batches]
        work = _Work(
            model, batches, masks, held_out, exclude, wind_back, seed,
            n_sweeps, progress)
        new, report = work.compress(float(budget), of)
    return new, report


def _check_arguments(model, budget, of):
    if not isinstance(model, (chainer.Chain, chainer.ChainList)):
        raise TypeError(
            'compress takes a Chain or a ChainList, not a {}{}'.format(
                type(model).__name__,
                '; for a layer alone there is LowRankLinear.from_linear'
                if isinstance(model, chainer.Link) else ''))
    if isinstance(budget, bool) or not isinstance(budget, numbers.Real):
        raise TypeError(
            'budget must be a number, not a {}'.format(type(budget).__name__))
    if not 0 < float(budget) <= 1:
        raise ValueError(
            'budget is the part that may be left, more than 0 and at most 1, '
            'not {}'.format(budget))
    if of not in KINDS:
        raise ValueError('of must be one of {}, not {!r}'.format(
            ', '.join(map(repr, KINDS)), of))


def _hold_out(batches: list[Any]) -> list[Array]:
    """Every tenth example of all, and at least one."""
    count = sum(map(len, batches))
    if count < 2:
        raise ValueError(
            'there are too few calibration inputs: {}; give two at the very '
            'least, one to fit to and one to hold out'.format(count))
    held_out = numpy.arange(count) % HELD_OUT == HELD_OUT - 1
    held_out[-1] |= not held_out.any()
    return numpy.split(held_out, numpy.cumsum([len(b) for b in batches])[:-1])


def _masks(mask: Any, x: Any, batches: list[Any]) -> list[Array] | None:
    if mask is None:
        return None
    if callable(mask):
        masks = [_cpu(mask(batch)) for batch in batches]
    else:
        mask = _cpu(chainer.as_array(mask))
        if len(mask) != sum(map(len, batches)) or not hasattr(x, 'shape'):
            raise ValueError(
                'a mask that is an array goes with inputs x that are one, of '
                'as many: x has {}, the mask {}'.format(
                    sum(map(len, batches)), len(mask)))
        masks = numpy.split(
            mask, numpy.cumsum([len(batch) for batch in batches])[:-1])
    for one in masks:
        if one.dtype != bool:
            raise TypeError(
                'mask must be of booleans, not of {}'.format(one.dtype))
    return masks


class _Built(NamedTuple):

    """A new model; its errors; its layers."""

    model: Any
    outcomes: dict[str, Outcome]
    error: float
    cosine: float
    n_bits: int | None


class _Work:

    """One model on its way."""

    def __init__(
            self, model, batches, masks, held_out, exclude, wind_back, seed,
            n_sweeps, progress):
        self.batches = batches
        self.masks = masks
        self.held_out = held_out
        self.wind_back = wind_back
        # A copy no longer shares all that the model shares.
        self.ties = dense.find_ties(model)
        self.original = capture.copy_model(model)
        links = dense.dense_layers(self.original, 'compress')
        excluded = matching(links, exclude)
        missing = [
            (name, parameter)
            for name, parameter in self.original.namedparams()
            if not parameter.is_initialized]
        self.compared = batches[0][:N_COMPARED]
        wind_back()
        self.readers = dense.Readers(links)
        with self.readers:
            self.recorded = capture.run(
                self.original, self.compared, links, graph=True)
        for name, parameter in missing:
            if parameter.is_initialized:
                raise ValueError(
                    '{} has no weight yet, before the first call: only a '
                    'trained model can be compressed'.format(
                        name.rpartition('/')[0]))
        self.notes = self._notes(links, excluded)
        called = list(dict.fromkeys(c.path for c in self.recorded.calls))
        self.dense = {path: links[path] for path in called} | links
        self.layers = {
            path: Layer(
                path, links[path], _array(links[path].W),
                _array(links[path].b))
            for path in called if path not in self.notes}
        if not self.layers:
            raise ValueError('there is no layer to compress: ' + '; '.join(
                '{} {}'.format(*note) for note in self.notes.items()))
        if masks is not None:
            self._check_mask()
        self.memory = memory.estimate(
            batches, {p: layer.W.shape for p, layer in self.layers.items()},
            self.recorded)
        memory.check(self.memory)
        self.progress = Progress(progress, self.memory.total)
        pairs = between.find_pairs(
            self.original, self.compared, self.recorded, self.layers,
            wind_back)
        self.course = Course(
            self.original, batches, masks, held_out, self.layers, pairs,
            between.find_skips(self.recorded, self.layers), wind_back, seed,
            n_sweeps, self.progress.tick)
        self.pairs = pairs

    def _notes(self, links, excluded):
        """Why some layers stay as they are."""
        n_calls = dict.fromkeys(links, 0)
        for call in self.recorded.calls:
            n_calls[call.path] += 1
        ties = self.ties | self.readers.ties(n_calls)
        notes = {}
        for path, link in links.items():
            others = [p for p, o in links.items() if o is link and p != path]
            if path in excluded:
                notes[path] = 'is excluded'
            elif others:
                notes[path] = 'is one link with ' + ', '.join(others)
            elif n_calls[path] != 1:
                notes[path] = (
                    'is called {} times'.format(n_calls[path])
                    if n_calls[path] else 'is never called')
            elif link.local_link_hooks:
                notes[path] = 'has link hooks'
            elif path in ties:
                notes[path] = 'shares a parameter with ' + ties[path]
        return notes

    def _check_mask(self):
        shapes = [numpy.shape(mask) for mask in self.masks]
        size = numpy.size(self.masks[0][:N_COMPARED])
        rows = {
            path: len(call.x) for call in self.recorded.calls
            for path in [call.path]}
        if size not in rows.values():
            raise ValueError(
                'mask of shape {} for a batch of {}: no layer has such '
                'minibatch axes'.format(shapes[0], self.batches[0].shape))

    def compress(self, budget, of):
        totals = {
            kind: self._total(kind) for kind in ('parameters', of)}
        self.progress.expect(2 * len(self.layers))
        self.course.weigh()
        curves = self.course.measure()
        built = []
        bits = (None, 8) if of == 'bytes' else (None,)
        plans = {}
        for n_bits in bits:
            plan = self._plan(curves, budget, of, n_bits, totals[of])
            if plan is not None:
                plans[n_bits] = plan
        if not plans:
            self._refuse(curves, budget, of, bits[-1], totals[of])
        if len(plans) > 1:
            self.progress.expect(3 * len(self.layers))
        for n_bits, plan in plans.items():
            built.append(self._build(plan.forms, n_bits))
        best = min(built, key=lambda one: one.error)
        self.progress.close()
        best.model.cleargrads()
        return best.model, self._report(best, of, budget)

    def _total(self, of):
        """What is counted of the original in all, and of its open layers."""
        if of == 'operations':
            rows: dict[str, int] = {}
            for call in self.recorded.calls:
                rows[call.path] = rows.get(call.path, 0) + len(call.x)
            each = {
                path: 2. * link.W.size * rows.get(path, 0)
                / len(self.compared) for path, link in self.dense.items()}
            return sum(each.values()), sum(each[p] for p in self.layers)
        size = {'parameters': lambda a: a.size, 'bytes': lambda a: a.nbytes}
        count = size[of]
        parameters = {id(p): p.array for p in self.original.params()}
        return (
            sum(count(array) for array in parameters.values()),
            sum(count(layer.W) + (0 if layer.b is None else count(layer.b))
                for layer in self.layers.values()))

    def _planner(self, curves, of, n_bits):
        itemsize = next(iter(self.layers.values())).W.dtype.itemsize
        return planning.Planner(
            self.course.sizes(), curves, self.pairs,
            planning.Costs(of, itemsize, n_bits))

    def _plan(self, curves, budget, of, n_bits, totals):
        whole, reached = totals
        # The product of a budget like 1 / 3 may end below the number meant.
        allowed = math.floor(budget * whole * (1 + 1e-12)) - (whole - reached)
        if budget == 1 and n_bits is None:
            return planning.Plan(
                dict.fromkeys(curves, planning.Form()), reached, 0.)
        return self._planner(curves, of, n_bits).choose(allowed)

    def _refuse(self, curves, budget, of, n_bits, totals):
        whole, reached = totals
        least = self._planner(curves, of, n_bits).least_cost()
        smallest = math.ceil((whole - reached + least) / whole * 1e6) / 1e6
        raise ValueError(
            'a budget of {:g} cannot be met: the smallest that can is {:g}. '
            'Of {:,.0f} {}, {:,.0f} are not of layers that can be '
            'compressed{}'.format(
                budget, smallest, whole, of, whole - reached,
                _largest_others(self.original, self.layers, of)))

    def _build(self, forms, n_bits):
        built = self.course.build(forms)
        new = capture.copy_model(self.original)
        for parameter in new.params():
            # An optimizer's, with the state that it has gathered.
            parameter.update_rule = None
        for path, link in self._links(built.outcomes).items():
            capture.replace_link(new, path, link)
        self._check_results(new, built.results)
        results = built.results
        if n_bits is not None:
            surgery.quantize(new, self.batches[:4], n_bits)
            results = [
                (before, self._results(new, batch))
                for (before, _), batch in zip(
                    results, self.batches, strict=True)]
        error, cosine = self._compare(results)
        return _Built(new, built.outcomes, error, cosine, n_bits)

    def _results(self, model, batch):
        self.wind_back()
        recorded = capture.run(model, batch, {})
        return [_cpu(chainer.as_array(r)) for r in recorded.results]

    def _links(self, outcomes):
        """The new layers by path."""
        links = {}
        for path, outcome in outcomes.items():
            kept = outcome.fold.n_tiles > 1 and path not in self.pairs
            links[path] = _make_link(
                self.layers[path].link, outcome,
                outcome.fold.units.ravel() if kept else None)
        for path, outcome in outcomes.items():
            if outcome.fold.n_tiles > 1 and path in self.pairs:
                before = self.pairs[path].before
                links[before] = _choose_rows(
                    links.get(before, self.layers[before].link),
                    outcome.fold)
        return links

    def _check_results(self, new, results):
        """Whether the new model is what was fitted, in all that it gives."""
        links = dict(new.namedlinks(skipself=True))
        self.wind_back()
        try:
            calls = capture.run(
                new, self.compared, {p: links[p] for p in self.layers}).calls
        except (ValueError, IndexError) as error:
            raise comparison.Untrue(
                'the new model does not run, since it calls a layer by '
                'another reference than its place, or knows the size of one; '
                'exclude it') from error
        called = [call.path for call in calls]
        if called != list(self.layers):
            raise comparison.Untrue(
                'the new model does not call each layer once by its place in '
                'the model: it calls {} and not {}; exclude those it calls '
                'by another reference'.format(
                    ', '.join(called) or 'none', ', '.join(self.layers)))
        for batch, (_, fitted) in zip(self.batches, results, strict=True):
            for a, b in zip(fitted, self._results(new, batch), strict=True):
                if not _near(a, b):
                    raise comparison.Untrue(
                        'the new model does not give what its layers were '
                        'fitted to give: something else than their weights '
                        'decides what they compute')

    def _compare(self, results):
        """Error and mean cosine of the outputs on what is held out."""
        before: list[Any] = []
        after: list[Any] = []
        for i, (ys, zs) in enumerate(results):
            held = self.held_out[i]
            pairs = [
                (y[held], z[held]) for y, z in zip(ys, zs, strict=True)
                if y.dtype.kind == 'f' and numpy.ndim(y)
                and len(y) == len(held)]
            if held.any() and pairs:
                for side, arrays in ((before, 0), (after, 1)):
                    side.append(numpy.concatenate([
                        pair[arrays].reshape(int(held.sum()), -1)
                        for pair in pairs], axis=1).astype(numpy.float64))
        return _error_and_cosine(before, after)

    def _report(self, built, of, budget):
        links = dict(built.model.namedlinks(skipself=True))
        rows = self.course.rows_per_input
        layers = []
        for path, link in self.dense.items():
            outcome = built.outcomes.get(path)
            new = links[path]
            layers.append(LayerReport(
                path, link.in_size, link.out_size,
                getattr(new, 'n_tiles', 1), _count(link), _count(new),
                numpy.nan if outcome is None else outcome.error,
                self._order(path, outcome), 1,
                rank=getattr(new, 'rank', None), inputs=new.in_size,
                outputs=new.out_size, rows=rows.get(path, 1.),
                note=self.notes.get(path, '')))
        return Report(
            layers, _count(self.original), _count(built.model),
            error=built.error, cosine=built.cosine,
            n_held_out=int(sum(h.sum() for h in self.held_out)),
            dense_bytes=_bytes(self.original, None),
            bytes=_bytes(built.model, built.n_bits),
            unreachable=_count(self.original) - sum(
                _count(self.layers[path].link) for path in self.layers),
            n_bits=built.n_bits, memory=self.memory.total)

    def _order(self, path, outcome):
        if outcome is None or outcome.fold.n_tiles == 1:
            return ''
        pair = self.pairs.get(path)
        return 'kept' if pair is None else 'in ' + pair.before


def _make_link(link, outcome, order):
    """A layer of the dtypes and on the device of the dense one."""
    solution, n_tiles = outcome.solution, outcome.fold.n_tiles
    if solution.W is None:
        return low_rank_like(
            link, solution.B, solution.A, solution.b, n_tiles, order)
    if n_tiles > 1:
        return link_like(
            SharedLinear, link, solution.W, solution.b, n_tiles=n_tiles,
            order=order)
    W = solution.W.astype(link.W.dtype, copy=False)
    b = solution.b
    dense = L.Linear(
        W.shape[1], len(W), b is None, initialize_as(W),
        None if b is None else initialize_as(b.astype(link.b.dtype)))
    return dense.to_device(link.device)


def _choose_rows(link: Any, fold: InputMap) -> Any:
    """A layer whose outputs are some of another's, scaled."""
    units = fold.units.ravel()
    scales = 1. if fold.scales is None else fold.scales.ravel()

    def chosen(parameter):
        array = _array(parameter)
        if array is None:
            return None
        return (array[units].T * scales).T

    b = chosen(link.b)
    if isinstance(link, LowRankLinear):
        return low_rank_like(
            link, chosen(link.B), _array(link.A), b, link.n_tiles, link.order)
    if isinstance(link, SharedLinear):
        return link_like(
            SharedLinear, link, chosen(link.W), b, n_tiles=link.n_tiles,
            order=_array(link.order))
    W = chosen(link.W)
    dense = L.Linear(
        W.shape[1], len(W), b is None,
        initialize_as(W.astype(link.W.dtype)),
        None if b is None else initialize_as(b.astype(link.b.dtype)))
    return dense.to_device(link.device)


def _near(a, b):
    if a.shape != b.shape:
        return False
    if a.dtype.kind != 'f':
        # A class, say, which rounding may turn.
        return True
    tolerance = max(1e-3, 100 * float(numpy.finfo(a.dtype).eps))
    scale = numpy.sqrt((a.astype(numpy.float64) ** 2).mean()) if a.size else 0
    return bool((abs(a - b) <= tolerance * (scale + abs(a))).all())


def _error_and_cosine(before, after):
    if not before:
        return numpy.nan, numpy.nan
    squares = sum(float(((y - z) ** 2).sum())
                  for y, z in zip(before, after, strict=True))
    widths = {y.shape[1] for y in before}
    if len(widths) == 1:
        y = numpy.concatenate(before)
        variance = float(((y - y.mean(0)) ** 2).sum())
    else:
        # Batches of different lengths have no common mean of each element.
        variance = sum(float(((y - y.mean()) ** 2).sum()) for y in before)
    cosines = numpy.concatenate([
        (y * z).sum(1) / numpy.maximum(
            numpy.linalg.norm(y, axis=1) * numpy.linalg.norm(z, axis=1),
            1e-300) for y, z in zip(before, after, strict=True)])
    return squares / (variance or 1.), float(cosines.mean())


def _largest_others(model, layers, of):
    """The links with the most parameters that cannot be compressed."""
    if of == 'operations':
        return ''
    others = sorted((
        (-_count(link), path) for path, link in model.namedlinks(
            skipself=True)
        if path not in layers and not list(link.children())
        and _count(link)))[:3]
    if not others:
        return ''
    return ': ' + ', '.join(
        '{} {:,}'.format(path, -count) for count, path in others)


def _bytes(model, n_bits):
    """Bytes of the parameters, and of the orders of inputs that are kept."""
    total = 0
    for array in {id(p): p.array for p in model.params()}.values():
        quantized = n_bits is not None and array.ndim > 1
        total += (array.size * n_bits // 8 + 4 * len(array)) if quantized \
            else array.nbytes
    return total + sum(
        link.order.nbytes for link in model.links()
        if getattr(link, 'order', None) is not None)


def _count(link):
    return sum({id(p): p.size for p in link.params()}.values())


def _array(variable):
    if variable is None:
        return None
    return _cpu(chainer.as_array(variable))


def _cpu(array):
    return backend.CpuDevice().send(array)
