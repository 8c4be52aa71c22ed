"""share_weights is fitted as compress is: on held-out rows, in one run."""
import threading

import held_out
import numpy
import pytest
import reference
from test_share_weights import MLP, inputs, relative_error

import shared_linear as sl
from shared_linear.compression import (
    between,
    blocks,
    calibration,
    examples,
    grouping,
    regression,
    samples,
)
from shared_linear.compression.inputs import OfModel
from shared_linear.layers.mixing import Mixing

import chainer  # isort: skip
import chainer.functions as F  # isort: skip
import chainer.links as L  # isort: skip

WAYS = {
    'tiles': {'n_tiles': 4},
    'blocks': {'n_tiles': 4, 'n_blocks': 4},
    'budget': {'budget': .4},
}
EACH_WAY = pytest.mark.parametrize('way', WAYS)


def parameters(model):
    return {name: p.array.tobytes() for name, p in model.namedparams()}


class Deep(chainer.Chain):

    n_runs = 0

    def __init__(self, depth):
        super().__init__()
        numpy.random.seed(2)
        with self.init_scope():
            self.layers = chainer.ChainList(
                *(L.Linear(12, 12) for _ in range(depth)))

    def forward(self, x):
        type(self).n_runs += 1
        for link in self.layers:
            x = F.tanh(link(x))
        return x


@EACH_WAY
def test_the_model_is_run_as_often_however_deep(way):
    runs = []
    for depth in 2, 12:
        Deep.n_runs = 0
        sl.share_weights(Deep(depth), inputs(count=100), **WAYS[way])
        runs.append(Deep.n_runs)
    assert runs[1] <= runs[0] + 2


@EACH_WAY
def test_what_is_held_out_is_not_fitted_to(way):
    """A little change of it changes nothing, and of the others all."""
    x = inputs()
    expected, report = sl.share_weights(MLP(), x, **WAYS[way])
    assert report.n_held_out == len(x) // 10
    for first, same in ((9, True), (8, False)):
        changed = x.copy()
        changed[first::10] *= numpy.float32(1.0001)
        new, other = sl.share_weights(MLP(), changed, **WAYS[way])
        assert (parameters(new) == parameters(expected)) == same
        assert other.error != report.error


@EACH_WAY
def test_the_error_is_that_on_other_inputs(way):
    """On those it was fitted to it is less."""
    rng = numpy.random.RandomState(0)
    model = chainer.Sequential(L.Linear(60, 60), F.tanh, L.Linear(60, 20))
    x, other = (rng.normal(size=(n, 60)).astype('f') for n in (200, 3000))
    new, report = sl.share_weights(model, x, **WAYS[way])
    error = relative_error(model, new, other)
    assert 1 / 1.3 < report.error / error < 1.3
    # What blocks at random have in common is little, of any inputs.
    assert relative_error(model, new, numpy.delete(
        x, numpy.s_[9::10], 0)) < (.99 if way == 'blocks' else .9) * error


@pytest.mark.parametrize('count', [1, 2, 19])
@EACH_WAY
def test_of_few_inputs_none_is_held_out(way, count):
    """Errors are those on what was fitted to, and it says so."""
    model, x = MLP(), inputs()[:count]
    new, report = sl.share_weights(model, x, **WAYS[way])
    assert report.n_held_out == 0
    assert numpy.isfinite(new(inputs()).array).all()
    if count > 1:
        assert report.error == pytest.approx(
            relative_error(model, new, x), rel=1e-2)
        assert str(report).splitlines()[-1].startswith(
            'on what was fitted to: error {:.2%} '.format(report.error))


def test_twenty_are_enough():
    _, report = sl.share_weights(MLP(), inputs()[:20], 4)
    assert report.n_held_out == 2


class Sequences(chainer.Chain):

    def __init__(self):
        super().__init__()
        numpy.random.seed(3)
        with self.init_scope():
            self.l1 = L.Linear(12, 20)
            self.l2 = L.Linear(20, 12)

    def forward(self, x):
        return x + self.l2(F.relu(self.l1(x, 2)), 2)


@EACH_WAY
def test_padding_can_be_left_out(way):
    x = inputs(count=500).reshape(100, 5, 12)
    garbage = x.copy()
    garbage[:, 3:] = 50 * inputs(count=200, seed=5).reshape(100, 2, 12)
    mask = numpy.zeros((100, 5), bool)
    mask[:, :3] = True
    how = {'budget': .5} if way == 'budget' else WAYS[way]
    model = Sequences()
    new, report = sl.share_weights(model, garbage, mask=mask, **how)
    same, said = sl.share_weights(
        model, garbage, mask=lambda batch: numpy.tile(
            [True, True, True, False, False], (len(batch), 1)), **how)
    assert parameters(new) == parameters(same)
    plain, _ = sl.share_weights(model, garbage, **how)
    short = x[:, :3]
    assert relative_error(model, new, short) < .9 * relative_error(
        model, plain, short)
    with pytest.raises(ValueError, match='no layer has such minibatch axes'):
        sl.share_weights(model, x, mask=numpy.ones((100, 7), bool), **how)
    with pytest.raises(TypeError, match='of booleans'):
        sl.share_weights(model, x, mask=numpy.ones((100, 5)), **how)


def test_residual_targets_lose_less(monkeypatch):
    class Residual(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.blocks = chainer.ChainList(
                    *(Sequences() for _ in range(3)))

        def forward(self, x):
            for block in self.blocks:
                x = block(x)
            return x

    model, x = Residual(), inputs(count=500).reshape(100, 5, 12)
    other = inputs(count=500, seed=1).reshape(100, 5, 12)

    def error():
        new, _ = sl.share_weights(model, x, 2)
        return relative_error(model, new, other)

    with_skips = error()
    monkeypatch.setattr(between, 'find_skips', lambda *args: {})
    assert with_skips < error()


class Scaled(MLP):
    def forward(self, x, scale):
        return super().forward(x * scale)


def test_small_batches_are_joined():
    """Each batch has a thread of its own."""
    x = inputs()
    found = examples.read((x[i:i + 2] for i in range(0, 300, 2)),
                          OfModel(MLP()))
    batch, = found
    numpy.testing.assert_array_equal(batch.args[0], x)
    lengths = [3, 4, 3, 3, 3, 4, 4]
    found = examples.read(
        (x[:4 * n].reshape(4, n, 12) for n in lengths), OfModel(MLP()))
    assert [b.args[0].shape for b in found] == [
        (4, 3, 12), (4, 4, 12), (12, 3, 12), (8, 4, 12)]
    found = examples.read(
        ((x[:200], None, x[:200] > 0) for _ in range(4)),
        OfModel(MLP(), 3))
    assert [len(b) for b in found] == [400, 400]
    assert [len(b.args) for b in found] == [3, 3]
    found = examples.read(
        ({'x': x[:3], 'scale': s} for s in (1., 1., 2.)),
        OfModel(Scaled()))
    assert [len(b) for b in found] == [6, 3]
    expected, said = sl.share_weights(MLP(), x, 4)
    n_threads = threading.active_count()
    new, report = sl.share_weights(
        MLP(), (x[i:i + 2] for i in range(0, 300, 2)), 4)
    assert parameters(new) == parameters(expected)
    assert str(report) == str(said)
    assert threading.active_count() == n_threads


def test_a_budget_gives_what_its_numbers_of_tiles_give():
    model, x = MLP(), inputs()
    new, report = sl.share_weights(model, x, budget=.4)
    numbers = {layer.path: layer.n_tiles for layer in report.layers}
    assert max(numbers.values()) > 1
    same, said = sl.share_weights(model, x, numbers)
    assert parameters(new) == parameters(same)
    assert str(said) == str(report)


def test_the_search_goes_on_to_the_end(monkeypatch):
    """If there are as many inputs as they have elements."""
    rng = numpy.random.RandomState(1)
    mixture = rng.normal(size=(20, 40))
    x = (rng.normal(size=(100, 20)) @ mixture).astype('f')
    model = chainer.Sequential(L.Linear(40, 30))

    def errors(count):
        result = []
        for patience in 8, 1:
            monkeypatch.setattr(grouping, 'PATIENCE', patience)
            result.append(
                sl.share_weights(model, x[:count], 4)[1].layers[0].error)
        return result

    enough, few = errors(100), errors(40)
    assert enough[0] == enough[1] and few[0] != few[1]


@pytest.mark.parametrize('budget', [.2, .3, .5, .8, .95, 1])
def test_biases_that_are_made_are_within_the_budget(budget):
    model = MLP(nobias=True)
    total = sum(p.size for p in model.params())
    new, report = sl.share_weights(
        model, inputs(), budget=budget, add_bias=True)
    assert report.parameters == sum(p.size for p in new.params())
    assert report.parameters <= budget * total
    assert (new.l2.b is None) == (type(new.l2) is L.Linear)


@pytest.mark.parametrize('how', [
    lambda model, x: sl.share_weights(model, x, 4),
    lambda model, x: sl.compress(model, x, .5)])
def test_attributes_of_the_same_names_are_the_models_own(how):
    class Named(L.Linear):
        order, rank, n_blocks, n_tiles = 'first', 'second', [], {}

    model = chainer.Sequential(L.Linear(12, 20), F.relu, Named(20, 3))
    model.order = {'not': 'an array'}
    new, report = how(model, inputs())
    assert new.order == model.order
    assert report.bytes == sum(p.array.nbytes for p in new.params()) + sum(
        link.order.nbytes for link in new
        if getattr(link, 'order', None) is not None
        and not isinstance(link, L.Linear))
    with pytest.raises(ValueError, match='divides no input size'):
        sl.share_weights(model, inputs(), 7)


N_TILES, N_BLOCKS, IN, OUT = 4, 3, 48, 6


def covariances(x, y, held_x, held_y, W, has_bias):
    moments = []
    for rows in (x, y), (held_x, held_y):
        moments.append(calibration.Moments(IN, OUT))
        moments[-1].add(*rows)
    return regression.Covariances(*moments, W, None, has_bias)


@pytest.mark.parametrize('make', [covariances, samples.Samples])
@pytest.mark.parametrize('count', [3, 30, 400])
@pytest.mark.parametrize('has_bias', [False, True])
def test_blocks_by_covariances_and_by_samples(make, count, has_bias):
    """Few rows are solved in their own space."""
    rng = numpy.random.RandomState(count)
    mixture = rng.normal(size=(IN, IN))
    x, held_x = (rng.normal(size=(n, IN)) @ mixture + 2 for n in (count, 50))
    W = rng.normal(size=(OUT, IN))
    y, held_y = (
        a @ W.T + rng.normal(size=(len(a), OUT)) for a in (x, held_x))
    dtype = numpy.float32 if make is samples.Samples else numpy.float64
    arrays = [a.astype(dtype) for a in (x, y, held_x, held_y, W)]
    solution, error, chosen = blocks.best(
        make(*arrays, has_bias),
        blocks.folds_of(Mixing(N_TILES, N_BLOCKS, 5), IN))
    folds = [
        reference.fold(numpy.eye(IN)[:, p] * numpy.array(s), N_TILES).T
        for p, s in reference.mixed_permutations(IN, N_BLOCKS, 5)]
    found = []
    for ridge in held_out.RIDGES:
        V, b = held_out.fit(x, y, W, folds, has_bias, ridge)
        found.append((held_out.error(
            held_y, held_out.outputs(held_x, V, b, folds)), V, b))
        if len(found) > 1 and found[-1][0] >= found[-2][0]:
            found.pop()
            break
    expected, V, b = found[-1]
    assert chosen == held_out.RIDGES[len(found) - 1]
    tolerance = 2e-2 if dtype is numpy.float32 else 1e-6
    assert error == pytest.approx(expected, rel=tolerance)
    numpy.testing.assert_allclose(
        solution.W, V, rtol=tolerance, atol=tolerance)
    assert (solution.b is None) == (b is None)
    if has_bias:
        numpy.testing.assert_allclose(
            solution.b, b, rtol=tolerance, atol=10 * tolerance)
    numpy.testing.assert_allclose(
        blocks.apply(V, Mixing(N_TILES, N_BLOCKS, 5), x),
        held_out.outputs(x, V, None, folds))


@pytest.mark.parametrize('way', [*WAYS, 'compress'])
def test_a_model_that_chooses_rows(way):
    """None of the first input, as experts may."""
    class Some(MLP):
        def forward(self, x):
            return super().forward(x[x[:, 0] < x[0, 0] - 1])

    x = inputs()
    model = Some()
    new, report = (
        sl.compress(model, x, .5) if way == 'compress'
        else sl.share_weights(model, x, **WAYS[way]))
    assert report.layers[0].error < .9
    assert new(x).shape == model(x).shape

    class None_(MLP):
        def forward(self, x):
            return super().forward(x[:0])

    with pytest.raises(ValueError, match='/l1: there are too few .*: 0 to'):
        (sl.compress(None_(), x, .5) if way == 'compress'
         else sl.share_weights(None_(), x, **WAYS[way]))


@EACH_WAY
def test_sample_space_is_as_good(way, monkeypatch):
    model, x, other = MLP(), inputs(), inputs(seed=1)
    how = {**WAYS[way], 'exclude': '/l3'}
    expected, _ = sl.share_weights(model, x, **how)
    monkeypatch.setattr(samples, 'WIDEST_COVARIANCE', 4)
    new, report = sl.share_weights(model, x, **how)
    assert relative_error(model, new, other) < 1.2 * relative_error(
        model, expected, other) + 1e-3
    assert report.error == pytest.approx(
        relative_error(model, new, x[9::10]), rel=1e-3)
    if way == 'blocks':
        numpy.testing.assert_allclose(
            new(other).array, expected(other).array, rtol=1e-2, atol=1e-2)
