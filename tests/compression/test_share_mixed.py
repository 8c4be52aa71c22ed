"""sl.share_weights(..., n_blocks=k): layers become MixedLinear, fitted."""
import dataclasses
import itertools
import random

import held_out
import numpy
import pytest
import reference
from test_share_weights import MLP, N_INPUTS, inputs, relative_error, state

import shared_linear as sl

import chainer  # isort: skip
import chainer.functions as F  # isort: skip
import chainer.links as L  # isort: skip


def double(nobias=False):
    """The network in float64, which leaves little to rounding."""
    with chainer.using_config('dtype', numpy.float64):
        return MLP(nobias)


X = inputs(dtype=numpy.float64)


def folds(link):
    """Of each block F (m, d), from the formula."""
    in_size = link.n_tiles * link.W.shape[1]
    return [
        reference.fold(
            numpy.eye(in_size)[:, p] * numpy.array(s), link.n_tiles).T
        for p, s in reference.mixed_permutations(
            in_size, link.n_blocks, link.seed)]


def check_fit(new, x, y, dense, error):
    W, b, expected = held_out.best(
        x, y, dense.W.array, folds(new), new.b is not None)
    numpy.testing.assert_allclose(new.W.array, W, rtol=1e-7, atol=1e-8)
    if b is not None:
        numpy.testing.assert_allclose(new.b.array, b, rtol=1e-7, atol=1e-8)
    mixing = {'n_tiles': new.n_tiles, 'n_blocks': new.n_blocks,
              'seed': new.seed}
    _, held = held_out.rows(len(x))
    numpy.testing.assert_allclose(error, held_out.error(
        y[held], reference.mixed_linear(x[held], W, b, mixing)), rtol=1e-6)
    numpy.testing.assert_allclose(error, expected, rtol=1e-6)


@pytest.mark.parametrize('n_tiles, n_blocks', [
    (3, 4), (1, 4), (12, 20), (4, 5)])
@pytest.mark.parametrize('seed', [0, 3])
def test_the_first_layer(n_tiles, n_blocks, seed):
    model = double()
    new, report = sl.share_weights(
        model, X, {'/l1': n_tiles}, n_blocks=n_blocks, seed=seed)
    assert type(new) is MLP and type(new.l1) is sl.MixedLinear
    assert (new.l1.n_tiles, new.l1.n_blocks) == (n_tiles, n_blocks)
    assert new.l1.seed == seed
    assert new.l1.W.shape == (20 // n_blocks, 12 // n_tiles)
    check_fit(new.l1, X, model.l1(X).array, model.l1, report.layers[0].error)


@pytest.mark.parametrize('first', [{}, {'/l1': 2}])
@pytest.mark.parametrize('nobias, add_bias', [
    (False, False), (True, False), (True, True)])
def test_a_layer_behind_shared_ones(first, nobias, add_bias):
    """It is fed what they feed it, and aimed at what it gave before."""
    model = double(nobias)
    new, report = sl.share_weights(
        model, X, {'/l1': 4, '/l2': 5}, n_blocks={'/l2': 4, **first},
        add_bias=add_bias)
    assert type(new.l1) is (sl.MixedLinear if first else sl.SharedLinear)
    assert (new.l2.b is None) is (nobias and not add_bias)
    with chainer.no_backprop_mode():
        x = F.relu(new.l1(X)).array
        y = model.l2(F.relu(model.l1(X))).array
    assert abs(x - F.relu(model.l1(X)).array).max() > .1
    check_fit(new.l2, x, y, model.l2, report.layers[1].error)


def test_dense_layers_behind_are_fitted_too():
    model = double()
    new, report = sl.share_weights(model, X, {'/l1': 3}, n_blocks=4)
    kept, _ = sl.share_weights(model, X, {'/l1': 3}, n_blocks=4, refit=False)
    numpy.testing.assert_array_equal(new.l1.W.array, kept.l1.W.array)
    numpy.testing.assert_array_equal(kept.l2.W.array, model.l2.W.array)
    assert relative_error(model, new, X) < .9 * relative_error(model, kept, X)
    numpy.testing.assert_allclose(
        report.layers[2].error, relative_error(model, new, X[9::10]),
        rtol=1e-6)


def test_nothing_is_lost_on_weights_that_are_mixed_already():
    model = double()
    for place, name in enumerate(['l1', 'l2']):
        dense = model[name]
        out_size, in_size = dense.W.shape
        W = numpy.random.RandomState(place).normal(
            size=(out_size // 4, in_size // 2))
        dense.W.array[...] = reference.mixed_weight(W, 2, 4, seed=5 + place)
    new, report = sl.share_weights(
        model, X, {'/l[12]': 2}, n_blocks=4, seed=5)
    assert max(layer.error for layer in report.layers) < 1e-10
    numpy.testing.assert_allclose(
        new(X).array, model(X).array, rtol=1e-6, atol=1e-8)
    # And with other permutations it is.
    _, report = sl.share_weights(model, X, {'/l[12]': 2}, n_blocks=4, seed=6)
    assert min(layer.error for layer in report.layers[:2]) > .1


@pytest.mark.parametrize('seed, seeds', [
    (0, [0, 1, 2]), (7, [7, 8, 9]),
    (2 ** 32 - 2, [2 ** 32 - 2, 2 ** 32 - 1, 0])])
def test_each_layer_has_a_seed_of_its_own(seed, seeds):
    model = chainer.Sequential(*(L.Linear(12, 12) for _ in range(3)))
    new, report = sl.share_weights(model, inputs(), 2, n_blocks=3, seed=seed)
    assert [link.seed for link in new] == seeds
    # Whichever others are shared.
    new, _ = sl.share_weights(
        model, inputs(), 2, n_blocks=3, seed=seed,
        exclude=[layer.path for layer in report.layers[:2]])
    assert new[2].seed == seeds[2]


def test_a_number_is_for_the_layers_that_it_divides():
    new, report = sl.share_weights(MLP(), inputs(), 4, n_blocks=4)
    assert [type(link) for link in new.children()] == [
        sl.MixedLinear, sl.MixedLinear, sl.SharedLinear]
    assert [layer.n_blocks for layer in report.layers] == [4, 4, 1]
    # 8 divides no input size but one: the others stay dense.
    new, report = sl.share_weights(MLP(), inputs(), 8, n_blocks=3)
    assert [type(link) for link in new.children()] == [
        L.Linear, L.Linear, sl.MixedLinear]


def test_numbers_by_patterns_of_which_the_first_counts():
    new, report = sl.share_weights(
        MLP(), inputs(), 4, n_blocks={'/l2': 8, '/l[12]': 2})
    assert [layer.n_blocks for layer in report.layers] == [2, 8, 1]
    assert [layer.n_tiles for layer in report.layers] == [4, 4, 4]
    # Those that are not shared are of no concern.
    new, _ = sl.share_weights(MLP(), inputs(), {'/l1': 4}, n_blocks={'/*': 5})
    assert (new.l1.n_blocks, type(new.l2)) == (5, L.Linear)


@pytest.mark.parametrize('n_blocks', [1, {'/*': 1}, numpy.int64(1)])
@pytest.mark.parametrize('how', [{'n_tiles': 4}, {'budget': .5}])
def test_one_block_is_what_it_was(n_blocks, how):
    expected, table = sl.share_weights(MLP(), inputs(), **how)
    new, report = sl.share_weights(
        MLP(), inputs(), **how, n_blocks=n_blocks)
    assert str(report) == str(table)
    # As tuples: what was not measured is the same NaN, which is not equal.
    assert dataclasses.astuple(report) == dataclasses.astuple(table)
    assert ' k ' not in str(report).splitlines()[0]
    for (path, link), (_, other) in zip(
            new.namedlinks(), expected.namedlinks(), strict=True):
        assert type(link) is type(other), path
    for p, q in zip(new.params(), expected.params(), strict=True):
        numpy.testing.assert_array_equal(p.array, q.array)


def test_nothing_is_put_into_the_layer_before():
    model = MLP()
    new, report = sl.share_weights(model, inputs(), {'/l2': 4}, n_blocks=4)
    numpy.testing.assert_array_equal(new.l1.W.array, model.l1.W.array)
    assert [layer.order for layer in report.layers] == ['', '', '']
    assert new.l2.order is None
    # The rows of a layer of blocks have no order of their own to give.
    new, report = sl.share_weights(
        model, inputs(), {'/l1': 3, '/l2': 4}, n_blocks={'/l1': 2})
    alone, _ = sl.share_weights(model, inputs(), {'/l1': 3}, n_blocks=2)
    assert report.layers[1].order == 'kept' and new.l2.order is not None
    numpy.testing.assert_array_equal(new.l1.W.array, alone.l1.W.array)


def test_a_mixed_layer_that_is_there_stays():
    mixed = sl.MixedLinear(20, 16, n_tiles=4, n_blocks=4, seed=3)
    model = chainer.Sequential(L.Linear(12, 20))
    for layer in F.relu, mixed, F.relu, L.Linear(16, 3):
        model.append(layer)
    new, report = sl.share_weights(model, inputs(), 4)
    assert [type(link) for link in new if isinstance(link, chainer.Link)] == [
        sl.SharedLinear, sl.MixedLinear, sl.SharedLinear]
    assert len(report.layers) == 2
    # Its blocks share their rows, which cannot be permuted.
    assert [layer.order for layer in report.layers] == ['kept', 'kept']
    numpy.testing.assert_array_equal(new[2].W.array, mixed.W.array)
    assert report.parameters == sum(p.size for p in new.params())


@pytest.mark.parametrize('budget', [1, .6, .3, .1])
@pytest.mark.parametrize('n_blocks', [4, {'/l2': 8}])
def test_budget(budget, n_blocks):
    model = MLP()
    total = sum(p.size for p in model.params())
    new, report = sl.share_weights(
        model, inputs(), budget=budget, n_blocks=n_blocks)
    assert report.parameters == sum(p.size for p in new.params())
    assert .5 * budget * total < report.parameters <= budget * total
    for layer in report.layers:
        assert layer.n_blocks == 1 or layer.n_tiles > 1


def test_a_budget_that_cannot_be_met():
    # One column of weights, of one block, and the biases.
    smallest = (20 + 16) // 4 + 3 + 20 + 16 + 3
    message = 'smallest .* of {} '.format(smallest)
    with pytest.raises(ValueError, match=message):
        sl.share_weights(MLP(), inputs(), budget=.01, n_blocks=4)


def test_a_budget_is_spent_for_the_least_error():
    """Of all numbers of tiles, at the given numbers of blocks."""
    model, blocks = MLP(), {'/l1': 4, '/l2': 8}
    total = sum(p.size for p in model.params())
    choices = []
    for name, k in ('l1', 4), ('l2', 8), ('l3', 1):
        link, path = model[name], '/' + name
        others = ['/l1', '/l2', '/l3']
        others.remove(path)
        out_size, in_size = link.W.shape
        sizes = [(1, link.W.size, 0.)]
        for n in range(2, in_size + 1):
            if in_size % n == 0 and k > 1:
                _, report = sl.share_weights(
                    model, inputs(), {path: n}, n_blocks=k, exclude=others)
                error, = (layer.error for layer in report.layers
                          if layer.path == path)
                sizes.append((n, in_size // n * out_size // k, error))
        choices.append(sizes)
    biases = 20 + 16 + 3
    for budget in .8, .5, .35:
        best = min(
            (sum(error for _, _, error in choice), [n for n, _, _ in choice])
            for choice in itertools.product(*choices)
            if biases + sum(size for _, size, _ in choice) <= budget * total)
        _, report = sl.share_weights(
            model, inputs(), budget=budget, n_blocks=blocks, exclude='/l3')
        assert [layer.n_tiles for layer in report.layers] == best[1]
        assert [layer.n_blocks for layer in report.layers] == [
            k if n > 1 else 1 for n, k in zip(best[1], (4, 8, 1), strict=True)]


def test_report():
    new, report = sl.share_weights(
        MLP(), inputs(), {'/l1': 3, '/l2': 4}, n_blocks={'/l1': 5})
    first, second, _ = report.layers
    assert (first.n_tiles, first.n_blocks) == (3, 5)
    assert (first.dense_parameters, first.parameters) == (260, 4 * 4 + 20)
    # The product is that of three tiles; each block adds up its own.
    assert first.flops == 2 * 4 * 20 + 5 * 8
    assert second.flops == 2 * 5 * 16 + 15
    assert report.parameters == 36 + 96 + 51
    lines = str(report).splitlines()
    assert lines[0].split() == [
        'layer', 'n', 'k', 'in', 'out', 'parameters', 'FLOPs', 'error',
        'order']
    assert lines[2].split()[:5] == ['/l1', '3', '5', '12', '20']
    assert lines[3].split()[:5] == ['/l2', '4', '1', '20', '16']
    assert max(map(len, lines)) <= 95


def test_it_is_where_training_begins():
    model = MLP()
    new, _ = sl.share_weights(model, inputs(), 2, n_blocks=4)
    x, t = inputs(), model(inputs()).array
    before = relative_error(model, new, x)
    optimizer = chainer.optimizers.Adam(.01).setup(new)
    for _ in range(100):
        optimizer.update(lambda: F.mean_squared_error(new(x), t))
    assert relative_error(model, new, x) < .5 * before


@pytest.mark.parametrize('dtype', ['e', 'f', 'd'])
def test_dtype_is_kept(dtype):
    with chainer.using_config('dtype', numpy.dtype(dtype)):
        model = MLP()
    new, _ = sl.share_weights(model, inputs(dtype=dtype), 4, n_blocks=4)
    assert {p.dtype for p in new.params()} == {numpy.dtype(dtype)}
    assert new(inputs(dtype=dtype)).dtype == dtype


def test_classifier_and_files(tmp_path):
    model = L.Classifier(MLP())
    new, _ = sl.share_weights(
        model, inputs(), {'/predictor/l2': 4}, n_blocks={'/predictor/l2': 8})
    again, _ = sl.share_weights(
        model, inputs(), {'/predictor/l2': 4}, n_blocks={'/predictor/l2': 8})
    chainer.serializers.save_npz(tmp_path / 'model.npz', new)
    again.predictor.l2.W.array[...] = 0
    chainer.serializers.load_npz(tmp_path / 'model.npz', again)
    numpy.testing.assert_array_equal(
        again.predictor(inputs()).array, new.predictor(inputs()).array)


def test_repeatable():
    models = [sl.share_weights(MLP(), inputs(), 4, n_blocks=4)[0]
              for _ in range(2)]
    for a, b in zip(*(m.params() for m in models), strict=True):
        numpy.testing.assert_array_equal(a.array, b.array)


@pytest.mark.parametrize('how', [{'n_tiles': 2}, {'budget': .3}])
def test_original_untouched(how):
    model = MLP()
    F.sum(model(inputs())).backward()
    before = state(model)
    states = random.getstate(), numpy.random.get_state()[1].tolist()
    new, _ = sl.share_weights(model, inputs(), n_blocks=4, **how)
    assert state(model) == before
    assert (random.getstate(), numpy.random.get_state()[1].tolist()) == states
    assert all(p.grad is None for p in new.params())
    new.cleargrads()
    F.sum(new(inputs())).backward()
    for p in new.params():
        p.array[...] = 0
    assert state(model) == before


@pytest.mark.parametrize('how', [{'n_tiles': 4}, {'budget': .5}])
@pytest.mark.parametrize('n_blocks, error, message', [
    (0, ValueError, 'n_blocks must be a positive int, not 0'),
    (-1, ValueError, 'n_blocks must be a positive int, not -1'),
    (1.5, TypeError, 'n_blocks must be a positive int, not 1.5'),
    (1., TypeError, 'n_blocks must be a positive int, not 1.0'),
    (True, TypeError, 'n_blocks must be a positive int, not True'),
    ('4', TypeError, "n_blocks must be a positive int, not '4'"),
    (None, TypeError, 'n_blocks must be a positive int, not None'),
    (7, ValueError, 'n_blocks = 7 divides no output size: .* 20; the nearest '
                    'that do are 5 and 10 of /l1'),
    ({'/l1': 0}, ValueError, 'n_blocks must be a positive int, not 0'),
    ({'/l1': True}, TypeError, 'n_blocks must be a positive int, not True'),
    ({'/l1': 3}, ValueError, '/l1: n_blocks = 3 does not divide 20; the '
                             'nearest that do are 2 and 4'),
    ({'/l9': 4}, ValueError, "no layer matches '/l9': there are /l1, /l2"),
    ({}, ValueError, 'n_blocks is of no layer that is shared'),
])
def test_bad_numbers(n_blocks, error, message, how):
    model = MLP()
    before = state(model)
    with pytest.raises(error, match=message):
        sl.share_weights(model, inputs(), n_blocks=n_blocks, **how)
    assert state(model) == before


def test_numbers_for_layers_that_are_not_shared():
    for arguments in {'n_tiles': {'/l2': 4}}, {
            'n_tiles': 4, 'exclude': '/l1'}, {'budget': .6, 'exclude': '/l1'}:
        with pytest.raises(ValueError, match='of no layer that is shared'):
            sl.share_weights(
                MLP(), inputs(), n_blocks={'/l1': 4}, **arguments)


@pytest.mark.parametrize('seed, error', [
    (-1, ValueError), (2 ** 32, ValueError), (1.5, TypeError),
    (True, TypeError)])
def test_bad_seeds(seed, error):
    with pytest.raises(error, match='seed must be'):
        sl.share_weights(MLP(), inputs(), 4, n_blocks=4, seed=seed)


@pytest.mark.parametrize('x, message', [
    (inputs(13), r'does not take calibration inputs of shape \(16, 13\)'),
    (inputs()[:0], 'no calibration inputs'),
    (numpy.full((5, 12), numpy.nan, 'f'), '/l1: .* NaN')])
def test_bad_inputs(x, message):
    with pytest.raises(ValueError, match=message):
        sl.share_weights(MLP(), x, 4, n_blocks=4)


def test_a_link_that_is_called_by_another_reference():
    class Model(MLP):
        def __init__(self):
            super().__init__()
            self.layers = [self.l1, self.l2, self.l3]

        def forward(self, x):
            for link in self.layers:
                x = link(x)
            return x

    with pytest.raises(ValueError, match='by another reference'):
        sl.share_weights(Model(), inputs(), 4, n_blocks=4)


@pytest.mark.gpu
def test_gpu():
    model = MLP()
    expected, _ = sl.share_weights(model, inputs(), 2, n_blocks=4)
    model.to_device('@cupy:0')
    new, _ = sl.share_weights(model, inputs(), 2, n_blocks=4)
    assert {p.device for p in new.params()} == {model.device}
    new.to_device('@numpy')
    assert new(inputs()).shape == (N_INPUTS, 3)
    numpy.testing.assert_allclose(
        new(inputs()).array, expected(inputs()).array, rtol=1e-3, atol=1e-3)
