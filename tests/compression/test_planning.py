"""The forms with the least error, against all there are."""
import itertools

import numpy
import pytest

from shared_linear.compression.between import Pair
from shared_linear.compression.planning import (
    Costs,
    Curve,
    Form,
    Planner,
    Size,
)


def curve(rng, n_tiles, n_units, width, most, scale):
    errors = scale * numpy.sort(rng.rand(most + 1))[::-1]
    errors[0] = 1
    return Curve(n_tiles, n_units, width, errors)


def problem(seed, n_layers=2):
    rng = numpy.random.RandomState(seed)
    sizes, curves, pairs = {}, {}, {}
    widths = [8, 6, 4][:n_layers + 1]
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        path = '/l{}'.format(i)
        sizes[path] = Size(a, b, True, 1., i == 0)
        curves[path] = [
            curve(rng, 1, None, a, min(a, b), .3),
            curve(rng, 2, None, a // 2, min(a // 2, b), .5)]
        curves[path][0].errors[-1] = 0
        if i:
            pairs[path] = Pair('/l{}'.format(i - 1), True, True)
            curves[path] += [
                curve(rng, 1, h, h, min(h, b), .4) for h in (2, 4)]
    return sizes, curves, pairs


def every_choice(sizes, curves, pairs):
    """Forms, parameters and error of all choices, by brute force."""
    def forms(path):
        for c in curves[path]:
            for rank in [*range(1, len(c.errors)), None]:
                dense = c.width == sizes[path].in_size and rank is None
                error = 0. if dense else c.errors[-1 if rank is None
                                                  else rank]
                yield Form(c.n_tiles, rank, c.n_units), c.width, error

    after = {pair.before: path for path, pair in pairs.items()}
    paths = list(sizes)
    for choice in itertools.product(*(list(forms(p)) for p in paths)):
        chosen = dict(zip(paths, choice, strict=True))
        cost = error = 0
        for path, (form, width, e) in chosen.items():
            out = sizes[path].out_size
            if path in after and chosen[after[path]][0].n_units is not None:
                out = chosen[after[path]][0].n_units
            weights = (width * out if form.rank is None
                       else form.rank * (width + out))
            cost += weights + out
            error += e
        yield {p: c[0] for p, c in chosen.items()}, cost, error


@pytest.mark.parametrize('seed', range(6))
def test_no_choice_is_much_better(seed):
    args = problem(seed)
    planner = Planner(*args, Costs('parameters', 4, None))
    choices = list(every_choice(*args))
    costs = {tuple(f.items()): c for f, c, _ in choices}
    dense = max(cost for forms, cost, _ in choices if all(
        form == Form() for form in forms.values()))
    for budget in (1., .8, .6, .4, .3):
        plan = planner.choose(budget * dense)
        best = min((e for _, c, e in choices if c <= budget * dense),
                   default=None)
        assert plan is not None and best is not None
        assert plan.cost == costs[tuple(plan.forms.items())]
        assert plan.cost <= budget * dense
        # A multiplier finds what is on the hull; the rest is spent.
        assert best - 1e-12 <= plan.error <= best + .15
    assert planner.choose(dense).error == 0
    assert planner.least_cost() == min(cost for _, cost, _ in choices)
    assert planner.choose(planner.least_cost() - 1) is None


@pytest.mark.parametrize('blocks', [{}, {'a': 4, 'c': 3}])
@pytest.mark.parametrize('adds_bias', [False, True])
def test_tiles_alone_are_the_best_there_are(blocks, adds_bias):
    """By brute force."""
    rng = numpy.random.RandomState(0)
    numbers = 1, 2, 3, 4, 6, 12
    outs = {'a': (8, True), 'b': (7, False), 'c': (6, True)}
    errors = {path: [0, *numpy.sort(rng.rand(5))] for path in outs}
    curves = {
        path: [Curve(n, None, 12 // n, numpy.array([error]),
                     blocks.get(path, 1) if n > 1 else 1)
               for n, error in zip(numbers, errors[path], strict=True)]
        for path in outs}
    sizes = {
        path: Size(12, out, has_bias, 1., True, adds_bias)
        for path, (out, has_bias) in outs.items()}

    def cost(choice):
        return sum(
            12 // n * out // (blocks.get(path, 1) if n > 1 else 1)
            + out * (has_bias or adds_bias and n > 1)
            for n, (path, (out, has_bias)) in zip(
                choice, outs.items(), strict=True))

    choices = [
        (sum(errors[p][numbers.index(n)] for p, n in zip(
            outs, choice, strict=True)), choice)
        for choice in itertools.product(numbers, repeat=3)]
    planner = Planner(sizes, curves, {}, Costs('parameters', 4, None))
    for allowed in (270, 200, 150, 100, 70, 60):
        error, best = min(c for c in choices if cost(c[1]) <= allowed)
        plan = planner.choose(allowed)
        assert [form.n_tiles for form in plan.forms.values()] == list(best)
        assert [form.n_blocks for form in plan.forms.values()] == [
            blocks.get(path, 1) if n > 1 else 1
            for path, n in zip(outs, best, strict=True)]
        assert plan.cost == cost(best)
        assert plan.error == pytest.approx(error)
    least = min(cost(choice) for _, choice in choices)
    assert planner.least_cost() == least
    assert planner.choose(least) is not None
    assert planner.choose(least - 1) is None


@pytest.mark.parametrize('of, n_bits, form, expected', [
    ('parameters', None, (1, 8, 0, 6), 8 * 6 + 6),
    ('parameters', None, (1, 8, 2, 6), 2 * 14 + 6),
    ('operations', None, (1, 8, 2, 6), 3 * 2 * 28),
    ('operations', None, (2, 4, 0, 6), 3 * (2 * 24 + 4)),
    ('bytes', None, (1, 8, 0, 6), 4 * 54),
    ('bytes', None, (2, 4, 2, 6), 4 * (20 + 6) + 4 * 8),
    ('bytes', 8, (1, 8, 0, 6), 48 + 4 * 6 + 4 * 6),
    ('bytes', 8, (2, 4, 2, 6), 20 + 4 * 8 + 4 * 6 + 4 * 8),
])
def test_what_a_form_costs(of, n_bits, form, expected):
    n_tiles, width, rank, out_size = form
    size = Size(8, 6, True, 3., True)
    cost = Costs(of, 4, n_bits).of_form(
        size, n_tiles, width, numpy.array([rank]), out_size)
    assert cost == expected
