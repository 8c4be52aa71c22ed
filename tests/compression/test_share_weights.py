"""sl.share_weights: a whole model, layer by layer."""
import pickle
import random

import held_out
import numpy
import pytest

import shared_linear as sl
from shared_linear.compression import between, capture
from shared_linear.compression.inputs import Batch

import chainer  # isort: skip
import chainer.functions as F  # isort: skip
import chainer.link_hooks  # isort: skip
import chainer.links as L  # isort: skip

N_INPUTS = 300


def inputs(size=12, count=N_INPUTS, seed=0, dtype=numpy.float32):
    rng = numpy.random.RandomState(seed)
    mixture = rng.normal(size=(4, size))
    x = rng.normal(size=(count, 4)) @ mixture
    return (x + .3 * rng.normal(size=x.shape)).astype(dtype)


class MLP(chainer.Chain):

    activation = staticmethod(F.relu)

    def __init__(self, nobias=False):
        super().__init__()
        numpy.random.seed(1)
        with self.init_scope():
            self.l1 = L.Linear(12, 20)
            self.l2 = L.Linear(20, 16, nobias)
            self.l3 = L.Linear(16, 3)
        for link in (self.l1, self.l3):
            link.b.array[...] = numpy.random.normal(size=link.b.shape)

    def forward(self, x):
        h = self.activation(self.l1(x))
        h = self.activation(self.l2(h))
        return self.l3(h)


def state(model):
    """All that may not change, as bytes."""
    return pickle.dumps([
        {name: (p.array, p.grad) for name, p in model.namedparams()},
        [vars(link).keys() for link in model.links()],
        [[vars(link)[name] for name in sorted(link._persistent)]
         for link in model.links()],
        [link.local_link_hooks.keys() for link in model.links()],
    ].__repr__())


def relative_error(model, new, x):
    with chainer.using_config('train', False):
        y, z = model(x).array, new(x).array
    return ((y - z) ** 2).sum() / ((y - y.mean(0)) ** 2).sum()


def tiled(link, n_tiles, order):
    """Makes a layer's weight one that can be shared without loss."""
    link.W.array[...] = sl.tile(
        link.W.array[:, :link.W.shape[1] // n_tiles], n_tiles, order).array


def test_nothing_is_lost_on_weights_that_are_shared_already():
    model = MLP()
    rng = numpy.random.RandomState(0)
    tiled(model.l1, 3, rng.permutation(12))
    tiled(model.l2, 4, rng.permutation(20))
    new, report = sl.share_weights(model, inputs(), {'/l1': 3, '/l2': 4})
    assert relative_error(model, new, inputs(seed=1)) < 1e-4
    assert type(new) is MLP
    assert (new.l1.n_tiles, new.l2.n_tiles) == (3, 4)
    assert new.l1.W.shape == (20, 4) and new.l2.W.shape == (16, 5)
    assert type(new.l3) is L.Linear
    assert max(layer.error for layer in report.layers[:2]) < 1e-4


def test_the_permutation_of_hidden_units_is_free():
    model = MLP()
    model.activation = F.tanh
    new, report = sl.share_weights(model, inputs(), 4)
    assert new.l1.order is not None
    assert new.l2.order is None and new.l3.order is None
    assert [layer.order for layer in report.layers] == [
        'kept', 'in /l1', 'in /l2']
    explicit, _ = sl.share_weights(
        model, inputs(), {'/l2': 4}, exclude=['/l1', '/l3'])
    free, _ = sl.share_weights(model, inputs(), {'/l2': 4}, exclude='/l3')
    assert explicit.l2.order is not None and free.l2.order is None
    # The same network: only the hidden units have other places.
    numpy.testing.assert_allclose(
        explicit(inputs()).array, free(inputs()).array, rtol=1e-4, atol=1e-5)
    numpy.testing.assert_array_equal(
        free.l1.W.array, model.l1.W.array[explicit.l2.order])
    numpy.testing.assert_array_equal(
        free.l1.b.array, model.l1.b.array[explicit.l2.order])


@pytest.mark.parametrize('activation', [
    F.sigmoid, F.tanh, F.elu, F.leaky_relu, F.selu, F.dropout,
    lambda x: .5 * x * (1 + F.tanh(.8 * (x + .044715 * x ** 3))),
    lambda x: F.dropout(F.relu(x * 2 + 1), .3), lambda x: x])
def test_elementwise_functions(activation):
    model = MLP()
    model.activation = activation
    new, report = sl.share_weights(model, inputs(), {'/l2': 4})
    assert report.layers[1].order == 'in /l1'


def second_use(self, x):
    h = F.relu(self.l1(x))
    return F.concat([self.l3(F.relu(self.l2(h))), h])


def second_result(self, x):
    h = F.relu(self.l1(x))
    return {'scores': self.l3(F.relu(self.l2(h))), 'features': [h]}


def outside_the_graph(self, x):
    h = F.relu(self.l1(x))
    return F.concat([self.l3(F.relu(self.l2(h))), h.array[:, -3:]])


def cut_graph(self, x):
    return self.l3(F.relu(self.l2(F.relu(self.l1(x)).array)))


def normalized(self, x):
    return self.l3(F.relu(self.l2(F.normalize(self.l1(x)))))


def weighted_by_unit(self, x):
    h = self.l1(x) * numpy.arange(20, dtype=numpy.float32)
    return self.l3(F.relu(self.l2(h)))


def softmax(self, x):
    return self.l3(F.relu(self.l2(F.softmax(self.l1(x)))))


def tied(self, x):
    h = F.relu(self.l1(x))
    return F.concat([
        self.l3(F.relu(self.l2(h))), F.matmul(h, self.l1.W)])


@pytest.mark.parametrize('forward', [
    second_use, second_result, outside_the_graph, cut_graph, normalized,
    weighted_by_unit, softmax, tied])
def test_elsewhere_the_order_is_kept(forward, monkeypatch):
    monkeypatch.setattr(MLP, 'forward', forward)
    model = MLP()
    tiled(model.l2, 4, numpy.random.RandomState(0).permutation(20))
    new, report = sl.share_weights(model, inputs(), {'/l2': 4})
    assert report.layers[1].order == 'kept'
    assert new.l2.order is not None
    numpy.testing.assert_array_equal(new.l1.W.array, model.l1.W.array)
    y, z = model(inputs()), new(inputs())
    if isinstance(y, dict):
        y, z = (F.concat([r['scores'], *r['features']]) for r in (y, z))
    assert ((z - y).array ** 2).mean() < 1e-2 * y.array.var(0).mean()


@pytest.mark.parametrize('forward', [second_use, second_result, tied])
def test_the_graph_shows_who_else_needs_the_units(forward, monkeypatch):
    def find(model):
        layers = {'/l1': model.l1, '/l2': model.l2}
        x = Batch([inputs()])
        run = capture.run(model, x, layers, graph=True)
        return between.find_pairs(
            model, x, run, layers, lambda: None).get('/l2')
    assert find(MLP()) == between.Pair('/l1', True, True)
    monkeypatch.setattr(MLP, 'forward', forward)
    assert find(MLP()) is None


def test_a_copy_leaves_the_graph_behind():
    model = L.Classifier(MLP())
    model(inputs(), numpy.zeros(N_INPUTS, int))
    copied = capture.copy_model(model)
    assert model.loss.creator is not None and copied.loss.creator is None
    numpy.testing.assert_array_equal(copied.loss.array, model.loss.array)
    copied.loss.array[...] = 0
    assert model.loss.array != 0


def test_original_untouched():
    class Model(MLP):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.bn = L.BatchNormalization(12)

        def forward(self, x):
            self.noise = numpy.random.normal()
            self.h = F.dropout(self.bn(x))
            return super().forward(self.h) + random.random()

    model = Model()
    model(inputs()).array.sum()
    F.sum(model(inputs())).backward()
    before = state(model), model.h, model.noise
    states = random.getstate(), numpy.random.get_state()[1].tolist()
    new, _ = sl.share_weights(model, inputs(), budget=.5)
    assert (state(model), model.h, model.noise) == before
    assert (random.getstate(), numpy.random.get_state()[1].tolist()) == states
    assert all(p.grad is None for p in new.params())
    # Nor later, when the new one is trained.
    new(inputs())
    assert state(model) == before[0]
    assert new.bn.avg_mean is not model.bn.avg_mean


def test_the_optimizer_stays_with_the_original():
    model = MLP()
    optimizer = chainer.optimizers.Adam().setup(model)
    new, _ = sl.share_weights(model, inputs(), {'/l2': 4})
    assert all(p.update_rule is None for p in new.params())
    assert all(p.update_rule is not None for p in model.params())
    chainer.optimizers.Adam().setup(new)
    assert optimizer.target is model


def test_asymmetric_reconstruction():
    """Each layer is fitted to what the shared ones before it feed it."""
    model, x = MLP(), inputs(dtype=numpy.float32)
    model.activation = F.tanh
    new, report = sl.share_weights(model, x, {'/l1': 4, '/l2': 5})
    # The second layer, fitted by least squares on the new first layer's
    # outputs, to the original second layer's.
    h = F.tanh(new.l1(x)).array.astype(float)
    y = model.l2(F.tanh(model.l1(x))).array.astype(float)
    plain, _ = sl.share_weights(model, x, {'/l1': 4, '/l2': 5}, refit=False)
    # W in the new order of the first layer's units, found by its rows.
    W = model.l2.W.array[:, unit_order(model, new, x)]
    found = held_out.fits(h, y, W, [numpy.tile(numpy.eye(4), 5)], True)
    distances = [abs(new.l2.W.array - W_).max() for W_, _, _ in found]
    W_, b, error = found[numpy.argmin(distances)]
    numpy.testing.assert_allclose(new.l2.W.array, W_, rtol=1e-3, atol=1e-4)
    numpy.testing.assert_allclose(new.l2.b.array, b, rtol=1e-3, atol=1e-3)
    numpy.testing.assert_allclose(
        report.layers[1].error, error, rtol=1e-3)
    # The ridge is chosen by errors that are weighted.
    assert error < 1.05 * min(e for _, _, e in found)
    numpy.testing.assert_array_equal(plain.l2.W.array, new.l2.W.array)


def unit_order(model, new, x):
    """The order of the second layer, by the rows of the first one."""
    alone, _ = sl.share_weights(model, x, {'/l1': 4}, refit=False)
    rows = alone.l1.W.array
    order = [abs(rows - row).sum(1).argmin() for row in new.l1.W.array]
    assert sorted(order) == list(range(20))
    return order


def with_two_uses(model):
    class Model(MLP):
        def forward(self, x):
            h = F.tanh(self.l1(x))
            return self.l3(F.tanh(self.l2(h))), h
    other = Model()
    other.copyparams(model)
    return other


def test_dense_layers_behind_are_fitted_too():
    model, x = MLP(), inputs()
    refitted, report = sl.share_weights(model, x, {'/l2': 10})
    kept, other = sl.share_weights(model, x, {'/l2': 10}, refit=False)
    excluded, _ = sl.share_weights(model, x, {'/l2': 10}, exclude='/l3')
    for new in (kept, excluded):
        numpy.testing.assert_array_equal(new.l3.W.array, model.l3.W.array)
        numpy.testing.assert_array_equal(new.l3.b.array, model.l3.b.array)
    assert relative_error(model, refitted, x) < .9 * relative_error(
        model, kept, x)
    assert report.layers[2].error > 0 and numpy.isnan(other.layers[2].error)
    numpy.testing.assert_allclose(
        report.layers[2].error, relative_error(model, refitted, x[9::10]),
        rtol=1e-3)
    assert report.error == pytest.approx(report.layers[2].error, rel=1e-3)


def test_a_layer_before_is_not_fitted():
    model = MLP()
    new, _ = sl.share_weights(
        with_two_uses(model), inputs(), {'/l3': 4})
    numpy.testing.assert_array_equal(new.l1.W.array, model.l1.W.array)


def test_chains_of_all_kinds():
    numpy.random.seed(0)
    model = chainer.Sequential()
    for link in (L.Linear(12, 20), F.relu, L.Linear(20, 16), F.relu,
                 L.Linear(16, 3)):
        model.append(link)
    model = chainer.ChainList(model)
    model.forward = lambda x: model[0](x)

    class Nested(chainer.Chain):
        def __init__(self):
            super().__init__(
                body=chainer.ChainList(L.Linear(12, 20), L.Linear(20, 16)))
            with self.init_scope():
                self.head = chainer.Sequential(F.relu, L.Linear(16, 3))

        def forward(self, x):
            for link in self.body:
                x = F.relu(link(x))
            return self.head(x)

    new, report = sl.share_weights(Nested(), inputs(), 4)
    assert [type(link) for link in new.links()].count(sl.SharedLinear) == 3
    assert {layer.path for layer in report.layers} == {
        '/body/0', '/body/1', '/head/0'}
    assert new.copy('copy')(inputs()).shape == (N_INPUTS, 3)


def test_sequential_keeps_the_places_of_its_links():
    numpy.random.seed(0)
    model = chainer.Sequential()
    for link in (L.Linear(12, 20), F.relu, L.Linear(20, 16), F.relu,
                 L.Linear(16, 16), F.relu, L.Linear(16, 3)):
        model.append(link)
    new, report = sl.share_weights(model, inputs(), 4)
    assert [layer.in_size for layer in report.layers] == [12, 20, 16, 16]
    for (path, link), (new_path, new_link) in zip(
            model.namedlinks(), new.namedlinks(), strict=True):
        assert path == new_path
        if isinstance(link, L.Linear):
            assert new_link.in_size == link.W.shape[1]
    assert new(inputs()).shape == (N_INPUTS, 3)


def test_classifier():
    model = L.Classifier(MLP())
    model(inputs(), numpy.zeros(N_INPUTS, int)).backward()
    new, _ = sl.share_weights(model, inputs(), {'/predictor/l2': 4})
    assert type(new) is L.Classifier
    optimizer = chainer.optimizers.Adam().setup(new)
    before = new.predictor.l2.W.array.copy()
    optimizer.update(new, inputs(), numpy.zeros(N_INPUTS, numpy.int32))
    assert (new.predictor.l2.W.array != before).any()


def test_head_of_a_convolutional_network():
    class Model(chainer.Chain):
        def __init__(self):
            super().__init__()
            numpy.random.seed(0)
            with self.init_scope():
                self.conv = L.Convolution2D(1, 4, 2)
                self.fc1 = L.Linear(24, 10)
                self.fc2 = L.Linear(10, 3)

        def forward(self, x):
            return self.fc2(F.relu(self.fc1(F.relu(self.conv(x)))))

    model = Model()
    x = inputs().reshape(-1, 1, 3, 4)
    new, report = sl.share_weights(model, x, {'/fc1': 4, '/fc2': 2})
    assert [layer.order for layer in report.layers] == ['kept', 'in /fc1']
    numpy.testing.assert_array_equal(new.conv.W.array, model.conv.W.array)
    assert report.dense_parameters == sum(p.size for p in model.params())
    assert report.parameters == sum(p.size for p in new.params())


def test_several_minibatch_axes():
    class Model(MLP):
        def forward(self, x):
            h = F.relu(self.l1(x, n_batch_axes=2))
            return self.l3(self.l2(h, 2), n_batch_axes=2)
    model = Model()
    tiled(model.l2, 4, numpy.random.RandomState(1).permutation(20))
    x = inputs().reshape(60, 5, 12)
    new, report = sl.share_weights(model, x, {'/l2': 4})
    assert report.layers[1].order == 'in /l1'
    numpy.testing.assert_allclose(
        new(x).array, model(x).array, rtol=1e-2, atol=1e-2)


def test_batches_of_different_lengths():
    class Model(MLP):
        def forward(self, x):
            h = F.relu(self.l1(x, n_batch_axes=2))
            return self.l3(self.l2(h, 2), n_batch_axes=2)
    model = Model()
    x = inputs().reshape(60, 5, 12)
    expected, _ = sl.share_weights(model, x, {'/l2': 4})
    # The same rows, as sequences of other lengths; others are held out.
    parts = iter([x[:30], x[30:].reshape(50, 3, 12)])
    new, report = sl.share_weights(model, parts, {'/l2': 4})
    assert report.n_held_out == 8
    ratio = relative_error(model, new, x) / relative_error(model, expected, x)
    assert .8 < ratio < 1.25


@pytest.mark.parametrize('make', [
    lambda x: chainer.Variable(x),
    lambda x: chainer.datasets.TupleDataset(x, numpy.zeros(len(x))),
    lambda x: list(x),
    lambda x: iter([x[:100], x[100:]]),
    lambda x: chainer.iterators.SerialIterator(list(x), 50, shuffle=False),
], ids=['Variable', 'dataset', 'list', 'iterator', 'SerialIterator'])
def test_kinds_of_inputs(make):
    expected, _ = sl.share_weights(MLP(), inputs(), 4)
    new, _ = sl.share_weights(MLP(), make(inputs()), 4)
    numpy.testing.assert_allclose(
        new(inputs()).array, expected(inputs()).array, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    'dtype', [numpy.float16, numpy.float32, numpy.float64])
def test_dtype_is_kept(dtype):
    with chainer.using_config('dtype', dtype):
        model = MLP()
    new, _ = sl.share_weights(model, inputs(dtype=dtype), 4)
    assert {p.dtype for p in new.params()} == {numpy.dtype(dtype)}
    assert new(inputs(dtype=dtype)).dtype == dtype


def test_a_bias_is_made_if_asked():
    kept, _ = sl.share_weights(MLP(nobias=True), inputs(), {'/l2': 4})
    made, _ = sl.share_weights(
        MLP(nobias=True), inputs(), {'/l2': 4}, add_bias=True)
    assert kept.l2.b is None and made.l2.b.shape == (16,)


def test_repeatable():
    models = [sl.share_weights(MLP(), inputs(), 4)[0] for _ in range(2)]
    for a, b in zip(*(m.params() for m in models), strict=True):
        numpy.testing.assert_array_equal(a.array, b.array)


@pytest.mark.parametrize('budget', [1, .7, .4, .25, .2])
def test_budget(budget):
    model = MLP()
    total = sum(p.size for p in model.params())
    new, report = sl.share_weights(model, inputs(), budget=budget)
    assert sum(p.size for p in new.params()) <= budget * total
    assert report.parameters == sum(p.size for p in new.params())
    assert report.parameters > .5 * budget * total


def test_a_budget_that_cannot_be_met():
    model = MLP()
    total = sum(p.size for p in model.params())
    # A weight and a bias for each output.
    smallest = 2 * (20 + 16 + 3)
    with pytest.raises(ValueError, match=r'0\.05 cannot be met.*78 par'):
        sl.share_weights(model, inputs(), budget=.05)
    new, _ = sl.share_weights(
        model, inputs(), budget=numpy.ceil(1e6 * smallest / total) / 1e6)
    assert sum(p.size for p in new.params()) == smallest


def test_report():
    new, report = sl.share_weights(MLP(), inputs(), {'/l1': 3, '/l2': 4})
    first, second, third = report.layers
    assert (first.in_size, first.out_size, first.n_tiles) == (12, 20, 3)
    assert (first.dense_parameters, first.parameters) == (260, 100)
    assert (first.dense_flops, first.flops) == (480, 2 * 4 * 20 + 8)
    assert (report.dense_parameters, report.parameters) == (
        260 + 336 + 51, 100 + 96 + 51)
    assert report.compression == 647 / 247
    text = str(report)
    assert text.splitlines()[0].split() == [
        'layer', 'n', 'in', 'out', 'parameters', 'FLOPs', 'error', 'order']
    assert '260  -> 100' in text and 'kept' in text and 'in /l1' in text
    *_, times, last = text.splitlines()
    assert times == (
        '2.6 times fewer parameters, {:.1f} times fewer FLOPs in these '
        'layers'.format(report.dense_flops / report.flops))
    assert last == (
        'on 30 held out: error {:.2%} of the variance of the outputs, mean '
        'cosine {:.4f}'.format(report.error, report.cosine))
    assert max(map(len, text.splitlines())) <= 90


@pytest.mark.parametrize('kwargs,message', [
    ({}, 'either n_tiles or a budget'),
    ({'n_tiles': 4, 'budget': .5}, 'either n_tiles or a budget'),
    ({'budget': 0}, 'more than 0 and at most 1, not 0'),
    ({'budget': 10}, 'more than 0 and at most 1, not 10'),
    ({'budget': .1}, 'cannot be met: the smallest that can is 0.12'),
    ({'n_tiles': 7}, 'n_tiles = 7 divides no input size: .* of /l1'),
    ({'n_tiles': {'/l1': 5}}, '/l1: .* nearest that do are 4 and 6'),
    ({'n_tiles': {'/l4': 5}}, "no layer matches '/l4': there are /l1, /l2"),
    ({'n_tiles': {}}, 'no layer to share'),
    ({'n_tiles': 4, 'exclude': '/*'}, 'every layer is excluded'),
    ({'n_tiles': 4, 'exclude': ['/l9']}, "no layer matches '/l9'"),
    ({'n_tiles': 0}, 'n_tiles must be a positive int'),
])
def test_bad_arguments(kwargs, message):
    model = MLP()
    before = state(model)
    with pytest.raises(ValueError, match=message):
        sl.share_weights(model, inputs(), **kwargs)
    assert state(model) == before


@pytest.mark.parametrize('x,message', [
    (inputs(13), r'does not take calibration inputs of shape \(16, 13\)'),
    (inputs()[:0], 'no calibration inputs'),
    (iter(()), 'no calibration inputs'),
    (numpy.full((5, 12), numpy.nan, 'f'), '/l1: .* NaN'),
])
@pytest.mark.parametrize('how', [{'n_tiles': 4}, {'budget': .5}])
def test_bad_inputs(x, message, how):
    model = MLP()
    before = state(model)
    with pytest.raises(ValueError, match=message):
        sl.share_weights(model, x, **how)
    assert state(model) == before


def called_twice(self, x):
    h = F.relu(self.l1(x))
    return self.l3(F.relu(self.l2(h)) + F.relu(self.l2(-h)))


def never_called(self, x):
    return F.relu(self.l1(x))


@pytest.mark.parametrize('forward,message', [
    (called_twice, '/l2 is called 2 times'),
    (never_called, '/l2 is never called')])
def test_a_layer_that_is_not_called_once(forward, message, monkeypatch):
    monkeypatch.setattr(MLP, 'forward', forward)
    for how in ({'n_tiles': 4}, {'budget': .6}, {'n_tiles': {'/l2': 4}}):
        with pytest.raises(ValueError, match=message):
            sl.share_weights(MLP(), inputs(), **how)
    new, _ = sl.share_weights(MLP(), inputs(), 4, exclude=['/l2', '/l3'])
    assert type(new.l1) is sl.SharedLinear and type(new.l2) is L.Linear


def test_one_link_in_two_places():
    model = MLP()
    with model.init_scope():
        model.l4 = model.l3
    with pytest.raises(ValueError, match='/l3 is one link with /l4'):
        sl.share_weights(model, inputs(), {'/l3': 4})


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
        sl.share_weights(Model(), inputs(), 4)


def test_link_hooks():
    model = MLP()
    model.l2.add_hook(chainer.link_hooks.SpectralNormalization())
    with pytest.raises(ValueError, match='SpectralNormalization'):
        sl.share_weights(model, inputs(), {'/l2': 4})
    # Its weight is not the one that it computes with, nor to be fitted.
    new, _ = sl.share_weights(model, inputs(), {'/l1': 4})
    numpy.testing.assert_array_equal(new.l2.W.array, model.l2.W.array)


@pytest.mark.parametrize(
    'how', [{'n_tiles': 4}, {'budget': .5}, {'n_tiles': {'/l2': 4}},
            {'n_tiles': {'/l1': 4}}])
def test_a_layer_without_a_weight(how):
    model = MLP()
    del model.l2
    with model.init_scope():
        model.l2 = L.Linear(None, 16)
    with pytest.raises(ValueError, match='/l2 has no weight yet'):
        sl.share_weights(model, inputs(), **how)
    assert not model.l2.W.is_initialized


def test_nothing_to_share():
    with pytest.raises(ValueError, match='no chainer.links.Linear'):
        sl.share_weights(
            chainer.Sequential(L.Convolution2D(1, 4, 2)), inputs(), 4)
    with pytest.raises(TypeError, match='from_linear'):
        sl.share_weights(L.Linear(12, 4), inputs(), 4)
    with pytest.raises(TypeError, match='not a function'):
        sl.share_weights(F.relu, inputs(), 4)


@pytest.mark.gpu
def test_gpu():
    model = MLP()
    expected, _ = sl.share_weights(model, inputs(), 4)
    model.to_device('@cupy:0')
    new, _ = sl.share_weights(model, inputs(), 4)
    assert {p.device for p in new.params()} == {model.device}
    new.to_device('@numpy')
    numpy.testing.assert_allclose(
        new(inputs()).array, expected(inputs()).array, rtol=1e-3, atol=1e-3)
