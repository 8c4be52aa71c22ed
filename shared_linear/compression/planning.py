"""Which form each layer of a model takes, for a given cost.

A layer has forms: dense; folded by n tiles; of a rank; both; or with fewer
of the hidden units before it, of any rank. The sum of their relative errors,
each times what it does to the outputs of the model, is minimised by one
Lagrange multiplier: each layer takes the form with the least
error + multiplier * cost, which is on the lower hull of its (cost, error)
points. How many hidden units are left costs the layer before, too, so that
layers in a row are chosen together (Viterbi's algorithm). What the
multiplier leaves over of the budget is spent on single layers. Where there
are few forms, as of tiles alone, all choices are compared.
"""
from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy

from shared_linear.compression.between import Pair

Array = numpy.ndarray

N_STEPS = 60
# Forms of a layer, and choices for the layers so far, that are all compared.
MOST_FORMS = 100
MOST_CHOICES = 20000


class Form(NamedTuple):

    """What becomes of a layer.

    Attributes:
        n_tiles: Number of tiles.
        rank: Rank, or ``None`` for one weight.
        n_units: Inputs that are left, if some are left out.
        n_blocks: Number of blocks of the outputs that share the weight.

    """

    n_tiles: int = 1
    rank: int | None = None
    n_units: int | None = None
    n_blocks: int = 1


class Curve(NamedTuple):

    """The errors of all ranks with one fold, or with fewer units.

    Attributes:
        n_tiles: Number of tiles.
        n_units: Inputs that are left, or ``None`` for all.
        width: Inputs of the product.
        errors: Of each rank from 0 on; the last is that of full rank.
        n_blocks: Number of blocks of the outputs that share the weight.

    """

    n_tiles: int
    n_units: int | None
    width: int
    errors: Array
    n_blocks: int = 1


class Size(NamedTuple):

    """A layer's sizes and weights: what a form of it costs.

    Attributes:
        in_size: Inputs.
        out_size: Outputs.
        has_bias: Whether it has a bias.
        rows: How often it is applied for one input of the model.
        keeps_order: Whether it has to keep the order of its inputs itself.
        adds_bias: Whether it gets a bias where its weight is shared.
        effect: What an error of as much as its variance does to the outputs
            of the model.

    """

    in_size: int
    out_size: int
    has_bias: bool
    rows: float
    keeps_order: bool
    adds_bias: bool = False
    effect: float = 1.


class Costs:

    """What is counted: parameters, operations or bytes.

    Args:
        of: ``'parameters'``, ``'operations'`` or ``'bytes'``.
        itemsize: Bytes of a parameter.
        n_bits: Bits of a weight, for ``'bytes'``: 8, with 4 bytes more for
            each row of it, or as many as the parameters have.

    """

    def __init__(self, of: str, itemsize: int, n_bits: int | None) -> None:
        self.of = of
        self._itemsize = itemsize
        self._n_bits = n_bits

    def of_form(
            self, size: Size, n_tiles: int, width: int, ranks: Array,
            out_size: int, n_blocks: int = 1) -> Array:
        """Costs by rank; a rank of 0 stands for one weight."""
        whole = ranks == 0
        weights = numpy.where(
            whole, width * out_size, ranks * (width + out_size))
        if self.of == 'operations':
            added = n_blocks * (size.in_size - width) if n_tiles > 1 else 0
            return size.rows * (2. * weights + added)
        weights = numpy.where(whole, weights // n_blocks, weights)
        shared = n_tiles > 1 or n_blocks > 1
        has_bias = size.has_bias or size.adds_bias and shared
        bias = out_size if has_bias else 0
        if self.of == 'parameters':
            return weights + bias
        order = 4 * size.in_size * (n_tiles > 1 and size.keeps_order)
        if self._n_bits is None:
            return self._itemsize * (weights + bias) + order
        rows = numpy.where(whole, out_size, ranks + out_size)
        return weights + 4 * rows + self._itemsize * bias + order


class _Options:

    """The forms of a layer with the same units before it."""

    def __init__(self, curves, size):
        forms, errors, widths, tiles, ranks = [], [], [], [], []
        for curve in curves:
            kept = numpy.arange(1, len(curve.errors))
            dense = curve.width == size.in_size and curve.n_blocks == 1
            at = numpy.append(kept, 0)
            values = numpy.append(
                curve.errors[kept], 0. if dense else curve.errors[-1])
            forms += [
                Form(
                    curve.n_tiles, int(r) or None, curve.n_units,
                    curve.n_blocks)
                for r in at]
            errors.append(values)
            widths.append(numpy.full(len(at), curve.width))
            tiles.append(numpy.full(len(at), curve.n_tiles))
            ranks.append(at)
        self.forms = forms
        self.errors = size.effect * numpy.concatenate(errors)
        self._by_curve = list(zip(
            [c.n_tiles for c in curves], [c.width for c in curves], ranks,
            [c.n_blocks for c in curves], strict=True))

    def costs(self, costs, size, out_size):
        return numpy.concatenate([
            costs.of_form(size, n_tiles, width, ranks, out_size, n_blocks)
            for n_tiles, width, ranks, n_blocks in self._by_curve])


class Plan(NamedTuple):

    """The forms by path, and what they cost."""

    forms: dict[str, Form]
    cost: float
    error: float


class Planner:

    """All forms of all layers.

    Args:
        sizes: Of the layers, in the order of their calls.
        curves: Their errors.
        pairs: The layers before them.
        costs: What is counted.

    """

    def __init__(
            self, sizes: dict[str, Size], curves: dict[str, list[Curve]],
            pairs: dict[str, Pair], costs: Costs) -> None:
        self._sizes = sizes
        self._after = {pair.before: path for path, pair in pairs.items()}
        self._before = {path: pair.before for path, pair in pairs.items()}
        self._options: dict[str, dict[int | None, _Options]] = {}
        for path, of_path in curves.items():
            by_units: dict[int | None, list[Curve]] = {}
            for curve in of_path:
                by_units.setdefault(curve.n_units, []).append(curve)
            self._options[path] = {
                n_units: _Options(some, sizes[path])
                for n_units, some in by_units.items()}
        # Costs by path, units before and units after.
        self._costs = {
            (path, n_units, after): options.costs(
                costs, sizes[path],
                sizes[path].out_size if after is None else after)
            for path, by_units in self._options.items()
            for n_units, options in by_units.items()
            for after in self._units_after(path)}
        self._chains = [
            self._chain(path) for path in sizes
            if self._before.get(path) not in sizes]

    def _units_after(self, path):
        after = self._after.get(path)
        return [None] if after is None else list(self._options[after])

    def _chain(self, path):
        chain = [path]
        while chain[-1] in self._after:
            chain.append(self._after[chain[-1]])
        return chain

    def choose(self, allowed: float) -> Plan | None:
        """The least error of what costs no more than is allowed."""
        if all(list(by_units) == [None]
               and len(by_units[None].forms) <= MOST_FORMS
               for by_units in self._options.values()):
            return self._exactly(allowed)
        low, high = 1e-18, 1e3
        best = self._at(high)
        if best.cost > allowed:
            best = self._at(1e18)
        if best.cost > allowed:
            return None
        for _ in range(N_STEPS):
            middle = math.sqrt(low * high)
            plan = self._at(middle)
            if plan.cost <= allowed:
                high = middle
                if plan.error <= best.error or best.cost > allowed:
                    best = plan
            else:
                low = middle
        return self._spend(best, allowed)

    def least_cost(self) -> float:
        return self._at(1e18).cost

    def _at(self, multiplier):
        forms, cost, error = {}, 0., 0.
        for chain in self._chains:
            # By the units behind the layer: value, cost, error, forms.
            states: dict[int | None, Any] = {None: (0., 0., 0., {})}
            first = True
            for path in chain:
                following: dict[int | None, Any] = {}
                for after in self._units_after(path):
                    choices = []
                    for n_units, options in self._options[path].items():
                        if first and n_units is not None:
                            continue
                        costs = self._costs[path, n_units, after]
                        values = options.errors + multiplier * costs
                        i = int(values.argmin())
                        value, c, e, before = states[n_units]
                        choices.append((
                            value + values[i], c + costs[i],
                            e + options.errors[i],
                            {**before, path: options.forms[i]}))
                    following[after] = min(choices, key=lambda c: c[0])
                states, first = following, False
            _, c, e, of_chain = states[None]
            cost, error = cost + c, error + e
            forms.update(of_chain)
        return Plan(forms, float(cost), float(error))

    def _exactly(self, allowed):
        """Compares all choices, layer by layer.

        Of two for the layers so far, one that has neither a lower cost nor a
        smaller error is dropped.
        """
        options = {path: of[None] for path, of in self._options.items()}
        costs = {path: self._costs[path, None, None] for path in options}
        to_come = sum(c.min() for c in costs.values())
        total, error, steps = numpy.zeros(1), numpy.zeros(1), []
        for path, of_path in options.items():
            to_come -= costs[path].min()
            total = (total[:, None] + costs[path]).ravel()
            error = (error[:, None] + of_path.errors).ravel()
            kept = _undominated(total, error, allowed - to_come)
            if not len(kept):
                return None
            total, error = total[kept], error[kept]
            steps.append((path, kept))
        forms, at = {}, len(total) - 1
        for path, kept in reversed(steps):
            at, form = divmod(int(kept[at]), len(options[path].forms))
            forms[path] = options[path].forms[form]
        return Plan(
            {path: forms[path] for path in options}, float(total[-1]),
            float(error[-1]))

    def _spend(self, plan, allowed):
        """Spends what is left on single layers."""
        forms, cost, error = dict(plan.forms), plan.cost, plan.error
        while True:
            best = None
            for path, form in forms.items():
                after = self._after.get(path)
                n_after = None if after is None else forms[after].n_units
                options = self._options[path][form.n_units]
                costs = self._costs[path, form.n_units, n_after]
                now = options.forms.index(form)
                gain = options.errors[now] - options.errors
                extra = costs - costs[now]
                gain[extra > allowed - cost] = -1
                i = int(gain.argmax())
                if gain[i] > 1e-12 and (best is None or gain[i] > best[0]):
                    best = gain[i], path, options.forms[i], extra[i]
            if best is None:
                return Plan(forms, float(cost), float(error))
            forms[best[1]] = best[2]
            cost += best[3]
            error -= best[0]


def _undominated(costs, errors, allowed):
    """Those that may be the best, by rising cost and falling error."""
    order = numpy.lexsort((errors, costs))
    order = order[costs[order] <= allowed]
    least = numpy.minimum.accumulate(errors[order])
    better = numpy.ones(len(order), bool)
    better[1:] = errors[order][1:] < least[:-1]
    order = order[better]
    if len(order) > MOST_CHOICES:
        # Of those of nearly the same cost the last, which errs least.
        step = numpy.floor(costs[order] * (MOST_CHOICES / allowed))
        order = order[numpy.append(numpy.diff(step) > 0, True)]
    return order
