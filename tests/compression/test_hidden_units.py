"""Hidden units that are chosen and scaled, and what their errors weigh."""
import held_out
import numpy
import pytest

import shared_linear as sl
from shared_linear.compression import (
    calibration,
    capture,
    examples,
    folds,
    hidden_units,
    regression,
)
from shared_linear.compression.inputs import OfModel
from shared_linear.compression.pipeline import Compression

import chainer  # isort: skip
import chainer.functions as F  # isort: skip
import chainer.links as L  # isort: skip

N_TILES, N_GROUPS, OUT = 3, 4, 5
IN = N_TILES * N_GROUPS


def problem(seed=0):
    random = numpy.random.RandomState(seed)
    x = random.normal(size=(200, 6)) @ random.normal(size=(6, IN))
    x = numpy.maximum(x + random.normal(size=x.shape), 0)
    moments = calibration.Moments(IN)
    moments.add(x)
    W = random.normal(size=(OUT, IN))
    fit = regression.Covariances(moments, moments, W, None, has_bias=True)
    return x, W, fit, folds.Aim(fit, numpy.eye(OUT), regression.RIDGES[0])


def matrix(units=None, scales=None):
    """The fold F (m, d)."""
    F_ = numpy.zeros((N_GROUPS, IN))
    for i in range(IN):
        F_[i % N_GROUPS, i if units is None else units[i]] += (
            1 if scales is None else scales[i])
    return F_


def error(fit, F_):
    """E|y - W' F x|^2 + r |W - W' F|^2 at its least, up to a constant."""
    A, B = F_ @ fit.S @ F_.T, F_ @ fit.C.T
    return -numpy.trace(B.T @ numpy.linalg.solve(A, B))


def test_the_fold_of_chosen_units():
    random = numpy.random.RandomState(0)
    x, scales = random.normal(size=(7, IN)), random.uniform(1, 2, IN)
    units = random.randint(IN, size=IN)
    fold = regression.InputMap.of_order(units, N_TILES, scales)
    expected = sl.fold(x[:, units] * scales, N_TILES).array
    numpy.testing.assert_allclose(fold.columns(x), expected)
    numpy.testing.assert_allclose(fold.rows(x.T), expected.T)
    numpy.testing.assert_allclose(x @ matrix(units, scales).T, expected)


def test_the_fit_is_least_squares():
    x, W, fit, _ = problem()
    random = numpy.random.RandomState(1)
    units, scales = random.randint(IN, size=IN), random.uniform(1, 2, IN)
    fold = regression.InputMap.of_order(units, N_TILES, scales)
    y = x @ W.T
    F_ = matrix(units, scales)
    W_, b = held_out.fit(x, y, W, [F_], True, regression.RIDGES[0])
    factors = regression.decompose(fit, fold, regression.RIDGES[0])
    solution = regression.cut(fit, factors, None, None)
    numpy.testing.assert_allclose(solution.W, W_, rtol=1e-9, atol=1e-11)
    numpy.testing.assert_allclose(solution.b, b, rtol=1e-9, atol=1e-11)
    numpy.testing.assert_allclose(factors.full_error, held_out.error(
        y, held_out.outputs(x, W_, b, [F_])), rtol=1e-9)


@pytest.mark.parametrize('seed', range(5))
def test_a_pass_never_makes_it_worse(seed):
    *_, fit = problem(seed)
    random = numpy.random.RandomState(seed)
    units, scales = random.permutation(IN), random.uniform(.1, 3, IN)
    errors = []
    for n_passes in range(6):
        chosen, s = hidden_units.improve_units(
            fit, N_TILES, units, scales, n_passes)
        assert (s > 0).all()
        s = s.reshape(N_TILES, N_GROUPS)
        numpy.testing.assert_allclose((s * s).mean(0), 1)
        for group in chosen.reshape(N_TILES, N_GROUPS).T:
            assert len(set(group)) == N_TILES
        errors.append(error(fit, matrix(chosen, s.ravel())))
    assert (numpy.diff(errors) <= 1e-9 * abs(errors[0])).all()
    assert errors[-1] < errors[0]


def test_the_best_unit_by_brute_force():
    """In each place in turn, with the weight as it is: all, at any scale."""
    *_, fit = problem()
    W = numpy.random.RandomState(1).normal(size=(OUT, N_GROUPS))
    F_ = matrix()
    start = numpy.flatnonzero(F_[0])

    def error_of(units, scales):
        F_[0] = 0
        F_[0, units] = scales
        V = W @ F_
        return numpy.trace(V @ fit.S @ V.T) - 2 * (V * fit.C).sum()

    K, FS = W.T @ W, F_ @ fit.S
    units, scales, sums = start.copy(), numpy.ones(N_TILES), FS[0].copy()
    hidden_units._improve_group(
        units, scales, fit.S, fit.S.diagonal(), (W.T @ fit.C - K @ FS)[0],
        K[0, 0], sums)
    grid = numpy.linspace(.01, 5, 500)
    for j in range(N_TILES):
        others, s = start.copy(), numpy.ones(N_TILES)
        others[:j], s[:j] = units[:j], scales[:j]
        least = numpy.inf
        for k in set(range(IN)) - set(numpy.delete(others, j)):
            for t in grid:
                others[j], s[j] = k, t
                least = min(least, error_of(others, s))
        others[j], s[j] = units[j], scales[j]
        assert error_of(others, s) <= least
    assert (units != start).any()
    error_of(units, scales)
    numpy.testing.assert_allclose(sums, F_[0] @ fit.S)


class MLP(chainer.Chain):

    def __init__(self, activation=F.relu, out_size=3):
        super().__init__()
        numpy.random.seed(1)
        self.activation = activation
        with self.init_scope():
            self.l1 = L.Linear(6, IN)
            self.l2 = L.Linear(IN, OUT)
            self.l3 = L.Linear(OUT, out_size)
        self.l1.b.array[...] = numpy.random.normal(size=IN)

    def forward(self, x):
        return self.l3(self.activation(self.l2(self.activation(self.l1(x)))))


def inputs(count=300):
    return numpy.random.RandomState(2).normal(size=(count, 6)).astype('f')


def with_parallel_columns(model):
    """Columns of a group that are positive multiples of each other."""
    random = numpy.random.RandomState(3)
    order, scales = random.permutation(IN), random.uniform(.3, 3, IN)
    W = sl.tile(model.l2.W.array[:, :N_GROUPS], N_TILES).array
    model.l2.W.array[:, order] = W * scales
    return model


@pytest.mark.parametrize('activation', [
    F.relu, F.leaky_relu, abs, lambda x: x * 2, lambda x: -F.relu(x),
    lambda x: F.dropout(F.relu(x), .3)])
def test_parallel_columns_share_without_loss(activation):
    model, x = with_parallel_columns(MLP(activation)), inputs()
    new, report = sl.share_weights(model, x, {'/l2': N_TILES})
    assert report.layers[1].order == 'in /l1'
    assert report.layers[1].error < 1e-4
    with chainer.using_config('train', False):
        numpy.testing.assert_allclose(
            new(x).array, model(x).array, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize('activation', [
    F.tanh, lambda x: F.relu(x) + 1, F.elu, lambda x: F.relu(x) ** 2])
def test_elsewhere_units_keep_their_size(activation):
    model = with_parallel_columns(MLP(activation))
    new, report = sl.share_weights(model, inputs(), {'/l2': N_TILES})
    assert report.layers[1].order == 'in /l1'
    assert report.layers[1].error > 1e-4
    numpy.testing.assert_array_equal(
        numpy.sort(new.l1.W.array, 0), numpy.sort(model.l1.W.array, 0))


def test_rows_are_scaled_rows():
    model = MLP()
    new, report = sl.share_weights(model, inputs(), {'/l2': N_TILES})
    assert new.l2.order is None
    rows = numpy.c_[model.l1.W.array, model.l1.b.array]
    rows /= numpy.linalg.norm(rows, axis=1)[:, None]
    for row in numpy.c_[new.l1.W.array, new.l1.b.array]:
        assert (rows @ row / numpy.linalg.norm(row)).max() > 1 - 1e-5
    h = F.relu(model.l1(inputs())).array
    y = model.l2(h).array
    z = new.l2(F.relu(new.l1(inputs()))).array
    numpy.testing.assert_allclose(
        report.layers[1].error, held_out.error(y[9::10], z[9::10]), rtol=1e-3)


def weight_of_errors(model, path='/l2', x=None):
    x = inputs() if x is None else x
    with capture.same_random_numbers(model) as wind_back:
        batches = examples.read(x, OfModel(model))
        work = Compression(
            model, batches, None, examples.hold_out(batches), (), wind_back,
            0, purpose='share')
        work.course.weigh()
        M = work.course.effects.weight(path)
        return numpy.eye(OUT) if M is None else M


def test_errors_weigh_what_they_do_to_the_outputs():
    """With one output, J^T J is known: v v^T where both units are above 0."""
    model = MLP(out_size=1)

    def expected(x):
        h = numpy.maximum(
            x.astype(float) @ model.l1.W.array.T + model.l1.b.array, 0)
        above = h @ model.l2.W.array.T + model.l2.b.array > 0
        J = above * model.l3.W.array[0].astype(float)
        M = J.T @ J
        return (numpy.eye(OUT) + OUT * M / M.trace()) / 2

    few, many = inputs(50), inputs(5000)
    train, _ = held_out.rows(50)
    numpy.testing.assert_allclose(
        weight_of_errors(model, x=few), expected(few[train]), rtol=1e-5,
        atol=1e-6)
    # Of many inputs it takes a part, evenly: of a single output 500.
    part = numpy.arange(0, 5000, 10)
    train, _ = held_out.rows(5000)
    numpy.testing.assert_allclose(
        weight_of_errors(model, x=many), expected(many[part[train[part]]]),
        rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('results', [
    lambda y: y.array, lambda y: F.argmax(y, 1), lambda y: chainer.Variable(
        y.array), lambda y: y * 0, lambda y: {}])
def test_all_errors_weigh_alike_without_a_derivative(results):
    class Model(MLP):
        def forward(self, x):
            return results(super().forward(x))
    numpy.testing.assert_array_equal(
        weight_of_errors(Model()), numpy.eye(OUT))


def test_the_last_layer_has_equal_weights():
    M = weight_of_errors(MLP(), '/l3')
    numpy.testing.assert_allclose(M, numpy.eye(3), atol=.1)


@pytest.mark.parametrize('change', ['dead units', 'zero weight', 'few inputs'])
@pytest.mark.parametrize('n_tiles', [2, IN])
def test_ill_conditioned(change, n_tiles):
    model, x = MLP(), inputs()
    if change == 'dead units':
        model.l1.b.array[:5] = -100
    elif change == 'zero weight':
        model.l2.W.array[...] = 0
    else:
        x = x[:2]
    new, report = sl.share_weights(model, x, {'/l2': n_tiles})
    for parameter in new.params():
        assert numpy.isfinite(parameter.array).all()
    # Little is lost where there are hardly any outputs to fit.
    y, z = model(x).array, new(x).array
    if change != 'dead units':
        numpy.testing.assert_allclose(z, y, rtol=.05, atol=.05)
    assert report.layers[1].error < 1
