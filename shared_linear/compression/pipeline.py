"""A model that is measured, planned, built anew and checked."""
from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy

from shared_linear import surgery
from shared_linear.compression import (
    between,
    capture,
    comparison,
    dense,
    memory,
    planning,
    rebuilding,
    signature,
)
from shared_linear.compression.course import Course, Outcome
from shared_linear.compression.paths import matching
from shared_linear.compression.problems import Layer
from shared_linear.compression.progress import Progress
from shared_linear.compression.report import LayerReport, Report
from shared_linear.layers.tiled_link import TiledLinear

N_COMPARED = 16


class _Built(NamedTuple):

    """A new model; its errors; its layers."""

    model: Any
    outcomes: dict[str, Outcome]
    error: float
    cosine: float
    n_bits: int | None


class Compression:

    """A model, what is known of it, and what it is compressed to.

    Args:
        model: Chain, which is copied.
        batches: Batches of calibration inputs.
        masks: Booleans of each batch, or ``None``.
        held_out: Which examples of each batch are held out.
        exclude: Patterns of paths of layers to leave as they are.
        wind_back: Function that winds the random numbers back.
        seed: See :func:`compress`, as for n_sweeps and progress.
        purpose: What the user is told that is done to the model.
        how: Other options of the :class:`Course`.

    Attributes:
        dense: All fully connected layers by path, in the order of their
            calls.
        layers: Those that may change.
        notes: Why the others stay as they are.

    """

    def __init__(
            self, model, batches, masks, held_out, exclude, wind_back, seed,
            n_sweeps=None, progress=False, purpose='compress', **how):
        self.batches = batches
        self.masks = masks
        self.held_out = held_out
        self.wind_back = wind_back
        self.purpose = purpose
        # A copy no longer shares all that the model shares.
        self.ties = dense.find_ties(model)
        self.original = capture.copy_model(model)
        links = dense.dense_layers(self.original, purpose)
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
                    '{} has no weight yet, before the first call: {} a '
                    'trained model'.format(name.rpartition('/')[0], purpose))
        self.notes = self._notes(links, excluded)
        called = list(dict.fromkeys(c.path for c in self.recorded.calls))
        self.dense = {path: links[path] for path in called} | links
        self.layers = {
            path: Layer(
                path, links[path], rebuilding.array_of(links[path].W),
                rebuilding.array_of(links[path].b), place)
            for place, path in enumerate(self.dense)
            if path not in self.notes}
        if not self.layers:
            raise ValueError('there is no layer to {}: '.format(purpose) + (
                'every layer is excluded' if len(excluded) == len(links)
                else '; '.join(
                    '{} {}'.format(*note) for note in self.notes.items())))
        if masks is not None:
            self._check_mask()
        # Of batches of sentences some have longer ones than others.
        self.rows = capture.mean_rows(batches, capture.count_rows(
            self.original, batches, links, wind_back))
        self.memory = memory.estimate(
            batches, {p: layer.link for p, layer in self.layers.items()},
            self.rows, self.recorded, self.original)
        memory.check(self.memory)
        self.progress = Progress(progress, self.memory.total, len(self.layers))
        pairs = between.find_pairs(
            self.original, self.compared, self.recorded, self.layers,
            wind_back)
        self.course = Course(
            self.original, batches, masks, held_out, self.layers, pairs,
            between.find_skips(self.recorded, self.layers), self.rows,
            wind_back, seed, n_sweeps, self.progress.tick, **how)
        self.pairs = pairs

    def _notes(self, links, excluded):
        """Why some layers stay as they are."""
        n_calls = dict.fromkeys(links, 0)
        for call in self.recorded.calls:
            n_calls[call.path] += 1
        ties = self.readers.ties(n_calls) | self.ties
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
                notes[path] = 'has link hooks: ' + ', '.join(
                    link.local_link_hooks)
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
                'minibatch axes'.format(shapes[0], self.batches[0]))

    def measure(self, curves_of=None, alike=()):
        """The errors of all forms of all layers, or of some of them.

        Args:
            curves_of: See :meth:`Course.measure`.
            alike: See :meth:`Course.weigh`.

        """
        self.progress.expect(2 * len(self.layers))
        self.course.weigh(alike)
        return self.course.measure(curves_of)

    def plan(self, curves, budget, of='parameters'):
        """The forms with the least errors within a budget."""
        total = self._total(of)
        plan = self._plan(curves, budget, of, None, total)
        if plan is None:
            self._refuse(curves, budget, of, None, total)
        return plan.forms

    def give(self, forms):
        """The new model of some forms, by path, and the report."""
        return self._finish(self._build(forms, None))

    def compress(self, curves, budget, of):
        """The new model and the report.

        Args:
            curves: Of :meth:`measure`, all or some.
            budget: See :func:`compress`, as for what follows.

        """
        totals = {
            kind: self._total(kind) for kind in ('parameters', of)}
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
        return self._finish(min(built, key=lambda one: one.error))

    def _finish(self, built):
        self.progress.close()
        built.model.cleargrads()
        return built.model, self._report(built)

    def _total(self, of):
        """What is counted of the original in all, and of its open layers."""
        if of == 'operations':
            rows = self.rows | self.course.rows_per_input
            each = {
                path: 2. * link.W.size * rows[path]
                for path, link in self.dense.items() if rows[path]}
            return sum(each.values()), sum(each[p] for p in self.layers)
        size = {'parameters': lambda a: a.size, 'bytes': lambda a: a.nbytes}
        count = size[of]
        return (
            sum(map(count, _arrays(self.original))),
            sum(count(layer.W) + (0 if layer.b is None else count(layer.b))
                for layer in self.layers.values()))

    def _planner(self, curves, of, n_bits):
        itemsize = next(iter(self.layers.values())).W.dtype.itemsize
        return planning.Planner(
            self.course.sizes(), curves, self.pairs,
            planning.Costs(of, itemsize, n_bits))

    def _rest(self, n_bits, totals):
        """What is counted of all that stays, but for its bits."""
        whole, reached = totals
        if n_bits is None:
            return whole - reached
        open_ones = {
            id(parameter) for layer in self.layers.values()
            for parameter in layer.link.params()}
        return sum(
            _bytes_of(p.array, n_bits)
            for p in _parameters(self.original) if id(p) not in open_ones)

    def _plan(self, curves, budget, of, n_bits, totals):
        whole, reached = totals
        # The product of a budget like 1 / 3 may end below the number meant.
        allowed = math.floor(
            budget * whole * (1 + 1e-12)) - self._rest(n_bits, totals)
        if budget == 1 and n_bits is None:
            return planning.Plan(
                dict.fromkeys(curves, planning.Form()), reached, 0.)
        return self._planner(curves, of, n_bits).choose(allowed)

    def _refuse(self, curves, budget, of, n_bits, totals):
        whole, reached = totals
        least = self._planner(curves, of, n_bits).least_cost()
        least += self._rest(n_bits, totals)
        smallest = math.ceil(least / whole * 1e6) / 1e6
        raise ValueError(
            'a budget of {:g} cannot be met: the smallest that can is {:g}, '
            'of {:,.0f} {}. Of {:,.0f}, {:,.0f} are not of layers that can '
            'change{}'.format(
                budget, smallest, least, of, whole,
                whole - reached,
                _largest_others(self.original, self.layers, of)))

    def _build(self, forms, n_bits):
        built = self.course.build(forms)
        new = capture.copy_model(self.original)
        for parameter in new.params():
            # An optimizer's, with the state that it has gathered.
            parameter.update_rule = None
        for path, link in self._links(built.outcomes).items():
            capture.replace_link(new, path, link)
        self._check_results(new, built)
        results = built.results
        if n_bits is not None:
            surgery.quantize(
                signature.called(new),
                [batch.kwargs or batch.args for batch in self.batches[:4]],
                n_bits)
            results = [
                (before, self._results(new, batch))
                for (before, _), batch in zip(
                    results, self.batches, strict=True)]
        error, cosine = comparison.compare(results, self.held_out)
        return _Built(new, built.outcomes, error, cosine, n_bits)

    def _results(self, model, batch):
        self.wind_back()
        recorded = capture.run(model, batch, {})
        return [rebuilding.array_of(r) for r in recorded.results]

    def _links(self, outcomes):
        """The new layers by path."""
        links = {}
        for path, outcome in outcomes.items():
            kept = outcome.fold.n_tiles > 1 and outcome.before is None
            links[path] = rebuilding.make_link(
                self.layers[path].link, outcome,
                outcome.fold.units.ravel() if kept else None)
        for outcome in outcomes.values():
            before = outcome.before
            if outcome.fold.n_tiles > 1 and before is not None:
                links[before] = rebuilding.choose_rows(
                    links.get(before, self.layers[before].link),
                    outcome.fold)
        return links

    def _check_results(self, new, built):
        """Whether the new model is what was fitted, in all that it gives."""
        links = dict(new.namedlinks(skipself=True))
        self.wind_back()
        try:
            calls = capture.run(
                new, self.batches[0],
                {p: links[p] for p in self.layers}).calls
        except (ValueError, IndexError) as error:
            raise comparison.Misplaced(
                'the new model does not run, since it calls a layer by '
                'another reference than its place, or knows the size of one; '
                'exclude it') from error
        comparison.check_layers(
            [(call.path, rebuilding.array_of(call.y)) for call in calls],
            rebuilding.rearranged(built.samples, built.outcomes))
        for batch, (_, fitted) in zip(
                self.batches, built.results, strict=True):
            comparison.check_results(fitted, self._results(new, batch))

    def _report(self, built):
        links = dict(built.model.namedlinks(skipself=True))
        rows = self.rows | self.course.rows_per_input
        layers = []
        for path, link in self.dense.items():
            if not link.W.is_initialized:
                continue  # It is never called.
            outcome = built.outcomes.get(path)
            new = links[path]
            layers.append(LayerReport(
                path, link.in_size, link.out_size,
                dense_parameters=_count(link), parameters=_count(new),
                error=numpy.nan if outcome is None else outcome.error,
                order=self._order(outcome), inputs=new.in_size,
                outputs=new.out_size, rows=rows[path],
                note=self.notes.get(path, ''), **_numbers(new)))
        return Report(
            layers, _count(self.original), _count(built.model),
            error=built.error, cosine=built.cosine,
            n_held_out=int(sum(h.sum() for h in self.held_out)),
            dense_bytes=_bytes(self.original, None),
            bytes=_bytes(built.model, built.n_bits),
            unreachable=_count(self.original) - sum(
                _count(self.layers[path].link) for path in self.layers),
            n_bits=built.n_bits, memory=self.memory.total)

    @staticmethod
    def _order(outcome):
        if outcome is None or outcome.fold.n_tiles == 1:
            return ''
        return 'kept' if outcome.before is None else 'in ' + outcome.before


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
    return sum(
        _bytes_of(array, n_bits) for array in _arrays(model)) + sum(
            link.order.nbytes for link in model.links()
            if isinstance(link, TiledLinear) and link.order is not None)


def _numbers(link):
    """Of a layer, which may be anybody's: n_tiles, n_blocks and rank."""
    if not isinstance(link, TiledLinear):
        return {'n_tiles': 1}
    return {
        'n_tiles': link.n_tiles, 'n_blocks': getattr(link, 'n_blocks', 1),
        'rank': getattr(link, 'rank', None)}


def _bytes_of(array, n_bits):
    if n_bits is None or array.ndim < 2:
        return array.nbytes
    return array.size * n_bits // 8 + 4 * len(array)


def _count(link):
    return sum(array.size for array in _arrays(link))


def _arrays(link):
    """Of the parameters that there are, each once."""
    return [parameter.array for parameter in _parameters(link)]


def _parameters(link):
    return {id(p): p for p in link.params(include_uninit=False)}.values()
