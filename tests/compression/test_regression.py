"""Reduced-rank regression behind a fold, against formulae of NumPy alone."""
import numpy
import pytest

from shared_linear.compression import folds, regression, samples
from shared_linear.compression.calibration import Moments
from shared_linear.compression.regression import InputMap

IN, OUT = 12, 7


def data(seed=0, count=400):
    rng = numpy.random.RandomState(seed)
    mixture = numpy.random.RandomState(7).normal(size=(IN, IN))
    return rng.normal(size=(count, IN)) @ mixture + 2


def layer(seed=1):
    rng = numpy.random.RandomState(seed)
    return rng.normal(size=(OUT, IN)), rng.normal(size=OUT)


def weight_of_errors():
    rng = numpy.random.RandomState(3)
    root = rng.normal(size=(OUT, OUT))
    return numpy.linalg.cholesky(root @ root.T + numpy.eye(OUT))


def targets(x, seed=5):
    """Other outputs than those of the layer, as behind changed layers."""
    W, b = layer()
    noise = numpy.random.RandomState(seed).normal(size=(len(x), OUT))
    return numpy.tanh(x @ W.T / 5) + b + .1 * noise


def problem(kind, L=None, aimed=True, has_bias=True):
    W, b = layer()
    L = numpy.eye(OUT) if L is None else L
    W, b = L.T @ W, L.T @ b
    x, held_x = data(), data(1, 60)
    if kind == 'samples':
        y, held_y = (
            (targets(z) @ L if aimed else z @ W.T + b).astype('f')
            for z in (x, held_x))
        return samples.Samples(
            x.astype('f'), y, held_x.astype('f'), held_y, W.astype('f'),
            has_bias)
    moments = []
    for z in (x, held_x):
        one = Moments(IN, OUT if aimed else 0)
        for part in numpy.array_split(z, 3):
            one.add(part, targets(part) @ L if aimed else None)
        moments.append(one)
    return regression.Covariances(*moments, W, b, has_bias)


def maps():
    rng = numpy.random.RandomState(2)
    return {
        'all': InputMap(numpy.arange(IN)[None]),
        'fold': InputMap.of_order(rng.permutation(IN), 3),
        'scaled': InputMap.of_order(
            rng.randint(0, IN, IN), 3, rng.rand(IN) + .5),
        'chosen': InputMap(numpy.array([[3, 0, 7, 9, 4]]))}


def matrix(fold):
    F = numpy.zeros((fold.width, IN))
    for j in range(fold.n_tiles):
        for i in range(fold.width):
            F[i, fold.units[j, i]] += (
                1 if fold.scales is None else fold.scales[j, i])
    return F


@pytest.mark.parametrize('name', ['all', 'fold', 'scaled', 'chosen'])
def test_a_map_is_its_matrix(name):
    fold, x = maps()[name], data()
    numpy.testing.assert_allclose(fold.columns(x), x @ matrix(fold).T)
    numpy.testing.assert_allclose(fold.rows(x.T), matrix(fold) @ x.T)


def least_squares(x, y, F, rank, L, W, ridge, has_bias):
    """By rows added for the ridge, and by projection: another way."""
    mean_x, mean_y = x.mean(0) * has_bias, y.mean(0) * has_bias
    centred, t = x - mean_x, (y - mean_y) @ L
    # The sum of squares of the ridge, as rows more.
    more = numpy.sqrt(ridge * len(x)) * numpy.eye(IN)
    Z = numpy.concatenate([centred, more]) @ F.T
    T = numpy.concatenate([t, more @ W.T @ L])
    full = numpy.linalg.lstsq(Z, T, rcond=None)[0]
    if rank is not None:
        axes = numpy.linalg.svd(Z @ full, full_matrices=False)[2][:rank]
        full = full @ axes.T @ axes
    weight = numpy.linalg.solve(L.T, full.T) @ F
    return weight, mean_y - weight @ mean_x if has_bias else 0


@pytest.mark.parametrize('has_bias', [True, False])
@pytest.mark.parametrize('name', ['all', 'fold', 'scaled', 'chosen'])
@pytest.mark.parametrize('rank', [1, 3, None])
def test_the_best_layer_of_a_rank(rank, name, has_bias):
    L, fold = weight_of_errors(), maps()[name]
    of_layer = problem('covariances', L, has_bias=has_bias)
    factors = regression.decompose(of_layer, fold, 1e-2)
    new = regression.cut(of_layer, factors, rank, L)
    x, held_x = data(), data(1, 60)
    y, held_y = (
        numpy.concatenate([targets(part) for part in numpy.array_split(z, 3)])
        for z in (x, held_x))
    weight, bias = least_squares(
        x, y, matrix(fold), rank, L, layer()[0], 1e-2 * of_layer.scale,
        has_bias)
    product = new.W if rank is None else new.B @ new.A
    numpy.testing.assert_allclose(
        product @ matrix(fold), weight, rtol=1e-6, atol=1e-8)
    if has_bias:
        numpy.testing.assert_allclose(new.b, bias, rtol=1e-6, atol=1e-8)
    else:
        assert new.b is None
    # The error is that on the others, weighted, in units of their variance.
    residual = (held_y - held_x @ weight.T - bias) @ L
    spread = (held_y - held_y.mean(0)) @ L
    assert regression.error_at(factors, rank) == pytest.approx(
        (residual ** 2).sum() / (spread ** 2).sum(), rel=1e-6)


def test_of_the_layer_itself_nothing_is_lost():
    for has_bias in (True, False):
        of_layer = problem('covariances', aimed=False, has_bias=has_bias)
        factors = regression.decompose(of_layer, maps()['all'], 1e-3)
        new = regression.cut(of_layer, factors, OUT, None)
        if has_bias:
            assert factors.full_error < 1e-12
            numpy.testing.assert_allclose(new.B @ new.A, layer()[0])
            numpy.testing.assert_allclose(new.b, layer()[1])


@pytest.mark.parametrize('aimed', [True, False])
@pytest.mark.parametrize('name', ['all', 'fold', 'chosen'])
@pytest.mark.parametrize('ridge', [1e-3, 1e-1])
def test_sample_space_is_the_same(name, aimed, ridge):
    L, fold = weight_of_errors(), maps()[name]
    errors = [
        regression.decompose(problem(kind, L, aimed), fold, ridge).errors
        for kind in ('covariances', 'samples')]
    least = min(map(len, errors))
    # The ridge does not turn the directions there, and is next to nothing.
    numpy.testing.assert_allclose(
        errors[1][:least], errors[0][:least], rtol=.05, atol=2e-3)


@pytest.mark.parametrize('rank', [None, 4])
@pytest.mark.parametrize('n_tiles', [1, 2, 8])
@pytest.mark.parametrize('count', [30, 500])
def test_by_samples_as_by_rows_more(count, n_tiles, rank):
    """In float64, with the ridge as rows of its own: no other formula.

    With 30 inputs there are less of them than sums, but for the last fold.
    """
    rng = numpy.random.RandomState(0)
    in_size, mixture = 160, rng.normal(size=(40, 160))
    x, held_x = (
        rng.normal(size=(n, 40)) @ mixture + rng.normal(size=(n, 160)) + 1
        for n in (count, 50))
    W = rng.normal(size=(OUT, in_size))
    y, held_y = (
        numpy.tanh(z @ W.T / 50) + .1 * rng.normal(size=(len(z), OUT))
        for z in (x, held_x))
    of_layer = samples.Samples(
        *(a.astype('f') for a in (x, y, held_x, held_y, W)), True)
    fold = InputMap.of_order(rng.permutation(in_size), n_tiles)
    factors = regression.decompose(of_layer, fold, 1e-2)
    new = regression.cut(of_layer, factors, rank, None)

    F = numpy.zeros((in_size // n_tiles, in_size))
    for units in fold.units:
        F[numpy.arange(len(F)), units] = 1
    Z, T = (x - x.mean(0)) @ F.T, y - y.mean(0)
    ridge = 1e-2 * (x - x.mean(0)).var(0).mean()
    more = numpy.sqrt(ridge * count) * numpy.eye(in_size)
    full = numpy.linalg.lstsq(
        numpy.concatenate([Z, more @ F.T]),
        numpy.concatenate([T, more @ W.T]), rcond=None)[0]
    if rank is not None:
        axes = numpy.linalg.svd(Z @ full, full_matrices=False)[2][:rank]
        full = full @ axes.T @ axes
    weight = new.W if rank is None else new.B @ new.A
    numpy.testing.assert_allclose(
        weight, full.T, atol=2e-4 * abs(full).max())
    residual = held_y - y.mean(0) - (held_x - x.mean(0)) @ F.T @ full
    assert regression.error_at(factors, rank) == pytest.approx(
        (residual ** 2).sum() / ((held_y - held_y.mean(0)) ** 2).sum(),
        rel=1e-3)


@pytest.mark.parametrize('scalable', [True, False])
def test_samples_choose_as_covariances_do(scalable):
    """Folds and units are as good on other inputs, in float64."""
    rng = numpy.random.RandomState(0)
    mixture, W = rng.normal(size=(20, 96)), rng.normal(size=(30, 96))

    def inputs(count):
        return numpy.maximum(
            rng.normal(size=(count, 20)) @ mixture
            + .5 * rng.normal(size=(count, 96)), 0)

    x, held_x, other = inputs(80), inputs(40), inputs(2000)
    moments = [Moments(96), Moments(96)]
    for one, z in zip(moments, (x, held_x), strict=True):
        one.add(z)
    problems = (
        regression.Covariances(*moments, W, None, True),
        samples.Samples(*(a.astype('f') for a in (
            x, x @ W.T, held_x, held_x @ W.T, W)), True))

    def error(fold):
        """Of the least squares behind a fold on many others."""
        Z, Y = fold.columns(other), other @ W.T
        Z, Y = Z - Z.mean(0), Y - Y.mean(0)
        rest = Y - Z @ numpy.linalg.lstsq(Z, Y, rcond=None)[0]
        return (rest ** 2).sum() / (Y ** 2).sum()

    for n_tiles in (4, 12):
        errors = [error(folds.find_fold(
            one, regression.decompose(
                one, InputMap(numpy.arange(96)[None]), 1e-3),
            n_tiles, 10, scalable, 1e-3, seed=0)) for one in problems]
        plain = error(InputMap.of_order(numpy.arange(96), n_tiles))
        assert errors[1] < 1.05 * errors[0] < .8 * plain
    errors = [error(InputMap(folds.choose_units(
        one, regression.decompose(
            one, InputMap(numpy.arange(96)[None]), 1e-3), 1e-3, 24)[None]))
        for one in problems]
    assert errors[1] < 1.05 * errors[0] < .8 * error(
        InputMap(numpy.arange(24)[None]))


@pytest.mark.parametrize('n_single', [1024, 8])
def test_units_by_the_dozen(n_single, monkeypatch):
    """Little worse than one by one, and each of them once."""
    monkeypatch.setattr(folds, 'MOST_SINGLE', n_single)
    monkeypatch.setattr(folds, 'BLOCK', 4)
    rng = numpy.random.RandomState(1)
    mixture = rng.normal(size=(30, 60))
    x = numpy.maximum(
        rng.normal(size=(70, 30)) @ mixture + rng.normal(size=(70, 60)), 0)
    W = rng.normal(size=(20, 60))
    y = x @ W.T
    one = samples.Samples(*(
        a.astype('f') for a in (x, y, x, y, W)), True)
    order = folds.choose_units(one, regression.decompose(
        one, InputMap(numpy.arange(60)[None]), 1e-3), 1e-3, 60)
    assert sorted(order) == list(range(60))
    errors = []
    for units in (order[:32], numpy.arange(32)):
        Z, Y = x[:, units] - x[:, units].mean(0), y - y.mean(0)
        rest = Y - Z @ numpy.linalg.lstsq(Z, Y, rcond=None)[0]
        errors.append((rest ** 2).sum() / (Y ** 2).sum())
    assert errors[0] < .7 * errors[1]
    # More than there are samples to tell apart: all are there still.
    few = samples.Samples(*(
        a.astype('f') for a in (x[:10], y[:10], x, y, W)), True)
    order = folds.choose_units(few, regression.decompose(
        few, InputMap(numpy.arange(60)[None]), 1e-3), 1e-3, 45)
    assert len(set(order)) == 45


def test_wider_than_there_are_rows():
    """The fit is the one of least change of the weight: by the dual."""
    rng = numpy.random.RandomState(0)
    x, W = rng.normal(size=(30, 200)), rng.normal(size=(OUT, 200))
    y = x @ W.T + rng.normal(size=(30, OUT))
    of_layer = samples.Samples(
        *(a.astype('f') for a in (x, y, x, y)), W.astype('f'), False)
    factors = regression.decompose(
        of_layer, InputMap(numpy.arange(200)[None]), 1e-2)
    ridge = 1e-2 * of_layer.scale
    expected = numpy.linalg.solve(
        x.T @ x / 30 + ridge * numpy.eye(200),
        x.T @ y / 30 + ridge * W.T)
    numpy.testing.assert_allclose(
        of_layer.weight(factors.fold, 1e-2), expected, atol=1e-3)


def test_the_ridge_goes_up_until_it_is_worse():
    rng = numpy.random.RandomState(0)
    x, held = rng.normal(size=(14, IN)), rng.normal(size=(500, IN))
    W, b = layer()
    moments = [Moments(IN, OUT), Moments(IN, OUT)]
    for one, z in zip(moments, (x, held), strict=True):
        one.add(z, z @ W.T + rng.normal(size=(len(z), OUT)))
    of_layer = regression.Covariances(*moments, W, b, True)
    fold = maps()['all']
    fit, ridge = regression.best(of_layer, fold, 3)
    errors = {r: regression.error_at(
        regression.decompose(of_layer, fold, r), 3)
        for r in regression.RIDGES}
    assert ridge > 1e-3
    assert regression.error_at(fit, 3) == errors[ridge] < errors[1e-3]


def test_units_that_say_all_are_chosen_first():
    """Three inputs are all that matters: the others but resemble them."""
    rng = numpy.random.RandomState(0)
    base = rng.normal(size=(500, 3))
    x = numpy.empty((500, IN))
    x[:, [2, 5, 9]] = base
    rest = [i for i in range(IN) if i not in (2, 5, 9)]
    x[:, rest] = .2 * base @ rng.normal(size=(3, len(rest))) \
        + .5 * rng.normal(size=(500, len(rest)))
    one = Moments(IN)
    one.add(x)
    W, b = layer()
    W[:, rest] = 0
    of_layer = regression.Covariances(one, one, W, b, True)
    plain = regression.decompose(of_layer, maps()['all'], 1e-3)
    order = folds.choose_units(of_layer, plain, 1e-3, IN - 1)
    assert set(order[:3]) == {2, 5, 9}
    assert len(set(order)) == IN - 1
