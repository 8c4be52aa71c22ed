"""sl.compress: a whole model to a budget."""
import pickle
import random
import threading

import numpy
import pytest

import shared_linear as sl
from shared_linear import surgery
from shared_linear.compression import between, capture, memory, samples
from shared_linear.compression.comparison import Untrue
from shared_linear.compression.compress import hold_out
from shared_linear.compression.inputs import Batch
from shared_linear.compression.pipeline import Compression

import chainer  # isort: skip
import chainer.functions as F  # isort: skip
import chainer.link_hooks  # isort: skip
import chainer.links as L  # isort: skip


def inputs(count=600, size=12, seed=0, dtype=numpy.float32):
    rng = numpy.random.RandomState(seed)
    mixture = numpy.random.RandomState(99).normal(size=(6, size))
    x = rng.normal(size=(count, 6)) @ mixture
    return (x + .1 * rng.normal(size=x.shape)).astype(dtype)


class MLP(chainer.Chain):

    activation = staticmethod(F.relu)

    def __init__(self, sizes=(12, 40, 30, 5), nobias=False):
        super().__init__()
        numpy.random.seed(1)
        with self.init_scope():
            for i, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False)):
                link = L.Linear(a, b, nobias)
                if not nobias:
                    link.b.array[...] = numpy.random.normal(size=b)
                setattr(self, 'l{}'.format(i + 1), link)

    def forward(self, x):
        return self.l3(self.activation(self.l2(self.activation(self.l1(x)))))


def outputs(model, x):
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        return model(x).array


def relative_error(model, new, x):
    y, z = outputs(model, x).astype(float), outputs(new, x).astype(float)
    return ((y - z) ** 2).sum() / ((y - y.mean(0)) ** 2).sum()


def count(model):
    return sum(parameter.size for parameter in model.params())


def held_out(x):
    return x[numpy.arange(len(x)) % 10 == 9]


@pytest.mark.parametrize('budget', [.9, .5, .2, .1])
def test_a_budget_of_parameters(budget):
    model = MLP()
    new, report = sl.compress(model, inputs(), budget)
    assert type(new) is MLP
    assert count(new) <= budget * count(model)
    assert (report.dense_parameters, report.parameters) == (
        count(model), count(new))
    assert [layer.parameters for layer in report.layers] == [
        count(link) for link in new.children()]
    # The error is that on what is held out, and as large on other inputs.
    error = relative_error(model, new, held_out(inputs()))
    assert report.error == pytest.approx(error, rel=1e-3, abs=1e-6)
    assert report.n_held_out == 60
    assert error < {.9: .01, .5: .05, .2: .2, .1: .5}[budget]
    assert relative_error(model, new, inputs(seed=1)) < 1.5 * error + 1e-3


def test_a_budget_of_operations():
    model = MLP()
    new, report = sl.compress(model, inputs(), .25, of='operations')
    flops = 0
    for link in new.children():
        shapes = [p.shape for p in link.params() if p.ndim == 2]
        flops += sum(2 * a * b for a, b in shapes)
        tiles = getattr(link, 'n_tiles', 1)
        flops += link.in_size - link.in_size // tiles
    assert report.flops == flops
    dense = 2 * (12 * 40 + 40 * 30 + 30 * 5)
    assert report.dense_flops == dense and .2 * dense < flops <= .25 * dense


def test_a_budget_of_bytes():
    model = MLP()
    size = 4 * count(model)
    plain, report = sl.compress(model, inputs(), 1., of='bytes')
    assert report.n_bits is None and report.bytes == size
    new, report = sl.compress(model, inputs(), .3, of='bytes')
    # A quarter of the bytes is what 8 bits take: that loses next to nothing.
    assert report.n_bits == 8 and report.bytes <= .3 * size
    weights = [p for p in new.params() if p.ndim == 2]
    assert report.bytes == sum(
        p.size + 4 * len(p.array) for p in weights) + 4 * sum(
            p.size for p in new.params() if p.ndim == 1) + sum(
                link.order.nbytes for link in new.links()
                if getattr(link, 'order', None) is not None)
    assert surgery.edits(new)
    assert report.error == pytest.approx(
        relative_error(model, new, held_out(inputs())), rel=1e-3)
    assert '8 bits' in str(report)
    floats, other = sl.compress(model, inputs(), .3, of='parameters')
    assert report.error < other.error


def test_nothing_is_lost_where_nothing_need_be():
    model = MLP()
    rng = numpy.random.RandomState(0)
    for link, rank in ((model.l1, 3), (model.l2, 3)):
        out_size, in_size = link.W.shape
        link.W.array[...] = rng.normal(size=(out_size, rank)) @ rng.normal(
            size=(rank, in_size)) / in_size
    budget = (3 * 52 + 40 + 3 * 70 + 30 + 155 + 10) / count(model)
    new, report = sl.compress(model, inputs(), budget)
    assert relative_error(model, new, inputs(seed=1)) < 1e-4
    assert isinstance(new.l2, sl.LowRankLinear)


def test_a_budget_of_all_changes_nothing():
    model = MLP()
    new, report = sl.compress(model, inputs(), 1)
    for a, b in zip(model.params(), new.params(), strict=True):
        numpy.testing.assert_array_equal(a.array, b.array)
        assert a.array is not b.array
    assert report.error == 0


@pytest.mark.parametrize('ratio', [2, 4, 8, 16])
def test_one_layer_loses_no_more_than_each_way_alone(ratio):
    rng = numpy.random.RandomState(0)
    model = chainer.Sequential(L.Linear(48, 40))
    model[0].W.array[...] *= numpy.repeat(rng.rand(12) * 2, 4)
    x = (rng.normal(size=(2000, 24)) @ rng.normal(size=(24, 48))
         + .3 * rng.normal(size=(2000, 48))).astype('f')
    other = (x + 0)[::-1][:500]
    new, report = sl.compress(model, x, 1 / ratio)
    error = relative_error(model, new, other)
    budget = count(model) / ratio - 40
    low_rank = chainer.Sequential(sl.LowRankLinear.from_linear(
        model[0], int(budget // 88), x=x)) if budget >= 88 else None
    tiles = min(n for n in (2, 3, 4, 6, 8, 12, 16, 24, 48)
                if 40 * 48 / n <= budget) if budget >= 40 else None
    if low_rank is not None:
        assert error <= 1.05 * relative_error(model, low_rank, other) + 1e-6
    if tiles is not None:
        shared = chainer.Sequential(sl.SharedLinear.from_linear(
            model[0], tiles, x, order='search'))
        assert error <= 1.05 * relative_error(model, shared, other) + 1e-6


def state(model):
    return pickle.dumps([
        [(name, p.array.tobytes(), p.grad is None)
         for name, p in sorted(model.namedparams())],
        [sorted(vars(link)) for link in model.links()]])


def test_the_original_and_the_random_numbers_stay():
    class Model(MLP):
        def forward(self, x):
            self.noise = numpy.random.normal()
            self.h = F.dropout(x)
            return super().forward(self.h) + self.noise + random.random()

    model = Model()
    optimizer = chainer.optimizers.Adam().setup(model)
    model(inputs())
    before = state(model), model.noise
    states = random.getstate(), numpy.random.get_state()[1].tolist()
    new, _ = sl.compress(model, inputs(), .3)
    assert (state(model), model.noise) == before
    assert (random.getstate(), numpy.random.get_state()[1].tolist()) == states
    assert all(p.update_rule is None and p.grad is None for p in new.params())
    assert all(p.update_rule is not None for p in model.params())
    assert optimizer.target is model
    # The new one trains.
    optimizer = chainer.optimizers.Adam().setup(new)
    before = [p.array.copy() for p in new.params()]
    optimizer.update(lambda: F.sum(new(inputs()) ** 2))
    assert all((a != p.array).any()
               for a, p in zip(before, new.params(), strict=True))


def test_repeatable():
    first, second = (sl.compress(MLP(), inputs(), .2)[0] for _ in range(2))
    for a, b in zip(first.params(), second.params(), strict=True):
        numpy.testing.assert_array_equal(a.array, b.array)


def gelu(x):
    return .5 * x * (1 + F.tanh(.7978845608 * (x + .044715 * x ** 3)))


@pytest.mark.parametrize('activation, scalable', [
    (F.relu, True), (F.leaky_relu, True), (F.tanh, False), (gelu, False),
    (F.sigmoid, False), (lambda x: F.dropout(F.relu(x)), True),
    (lambda x: x, True)])
def test_functions_are_found_element_wise_by_trial(activation, scalable):
    model = MLP()
    model.activation = activation
    assert pairs_of(model) == {
        '/l2': between.Pair('/l1', scalable, True),
        '/l3': between.Pair('/l2', scalable, True)}


def pairs_of(model, x=None):
    x = Batch([inputs(16) if x is None else x])
    links = {path: link for path, link in model.namedlinks(skipself=True)
             if isinstance(link, L.Linear)}
    recorded = capture.run(model, x, links, graph=True)
    with capture.same_random_numbers(model) as wind_back:
        return between.find_pairs(model, x, recorded, links, wind_back)


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


def weighted_by_unit(self, x):
    h = self.l1(x) * numpy.arange(40, dtype=numpy.float32)
    return self.l3(F.relu(self.l2(h)))


def of_all_units(function):
    def forward(self, x):
        return self.l3(F.relu(self.l2(function(self.l1(x)))))
    return forward


@pytest.mark.parametrize('forward', [
    second_use, second_result, outside_the_graph, cut_graph,
    weighted_by_unit, of_all_units(F.softmax), of_all_units(F.normalize),
    of_all_units(lambda h: h + h[:, ::-1])])
def test_units_that_are_needed_elsewhere_stay(forward, monkeypatch):
    monkeypatch.setattr(MLP, 'forward', forward)
    model = MLP()
    assert '/l2' not in pairs_of(model)
    new, report = sl.compress(model, inputs(), .3)
    assert new.l1.out_size == 40 and new.l2.in_size == 40
    assert report.layers[0].outputs == 40
    assert report.error < .3


def test_units_are_left_out_where_they_can_be():
    model = MLP()
    # Half of the units are dead: they cost parameters and do nothing.
    model.l1.b.array[::2] = -1e3
    new, report = sl.compress(model, inputs(), .6)
    assert new.l1.out_size == new.l2.in_size <= 30
    assert report.layers[0].outputs == report.layers[1].inputs
    assert report.error < 1e-3


class Block(chainer.Chain):

    """Residual blocks, as in a transformer, over (B, T, 12)."""

    def __init__(self, depth=2):
        super().__init__()
        numpy.random.seed(2)
        with self.init_scope():
            self.blocks = chainer.ChainList(*(
                chainer.ChainList(L.Linear(12, 48), L.Linear(48, 12))
                for _ in range(depth)))

    def forward(self, x):
        for first, second in self.blocks:
            y = second(gelu(first(x, n_batch_axes=2)), n_batch_axes=2)
            x = x + F.reshape(y, x.shape)
        return x


def sequences(count=80, length=5, seed=0):
    return inputs(count * length, seed=seed).reshape(count, length, 12)


class NormalizedBlock(Block):

    """What is added is taken by a function first, not by a layer."""

    def forward(self, x):
        for first, second in self.blocks:
            y = second(gelu(first(F.tanh(x), 2)), n_batch_axes=2)
            x = F.reshape(y, x.shape) + x
        return x


@pytest.mark.parametrize('make, takers', [
    # What is added in the first block is no variable, and is the same before
    # and after.
    (Block, {'/blocks/1/1': '/blocks/1/0', '/blocks/2/1': '/blocks/2/0'}),
    # One tanh, eight functions of GELU and a sum a block.
    (NormalizedBlock, {'/blocks/0/1': 0, '/blocks/1/1': 10,
                       '/blocks/2/1': 20})])
def test_skips_are_seen_in_the_graph(make, takers):
    model = make(3)
    links = {path: link for path, link in model.namedlinks(skipself=True)
             if isinstance(link, L.Linear)}
    recorded = capture.run(model, Batch([sequences()]), links, graph=True)
    skips = between.find_skips(recorded, links)
    assert skips == {
        path: between.Skip(taker, 0) for path, taker in takers.items()}


@pytest.mark.parametrize('make', [Block, NormalizedBlock])
def test_residual_targets_lose_less(make, monkeypatch):
    model = make(3)
    _, report = sl.compress(model, sequences(), .3)
    other = sequences(seed=1)
    with_skips = relative_error(
        model, sl.compress(model, sequences(), .3)[0], other)
    monkeypatch.setattr(between, 'find_skips', lambda *args: {})
    without = relative_error(
        model, sl.compress(model, sequences(), .3)[0], other)
    assert with_skips < without
    assert report.layers[0].rows == 5


def test_padding_can_be_left_out():
    model = Block()
    x = sequences(100)
    x[:, 3:] = 0
    garbage = x.copy()
    garbage[:, 3:] = 50 * inputs(200, seed=5).reshape(100, 2, 12)
    mask = numpy.zeros((100, 5), bool)
    mask[:, :3] = True
    news = [
        sl.compress(model, x, .3, mask=mask)[0],
        sl.compress(model, garbage, .3, mask=lambda batch: numpy.tile(
            [True, True, True, False, False], (len(batch), 1)))[0]]
    plain, _ = sl.compress(model, garbage, .3)
    short = x[:, :3]
    # The weights of errors come from the whole model, which sees padding.
    errors = [relative_error(model, new, short) for new in (*news, plain)]
    assert errors[1] == pytest.approx(errors[0], rel=.2)
    assert errors[1] < .7 * errors[2]


def test_batches_of_different_lengths():
    model = Block()
    batches = [sequences(20, length, seed=length) for length in (3, 5, 8, 5)]
    new, report = sl.compress(model, iter(batches), .3)
    assert report.n_held_out == 8
    assert relative_error(model, new, sequences(seed=9)) < .2


def test_work_grows_with_the_depth():
    """A model is run as often, however deep it is."""
    class Counting(Block):
        n_runs = 0

        def forward(self, x):
            type(self).n_runs += 1
            return super().forward(x)

    runs = []
    for depth in (1, 6):
        Counting.n_runs = 0
        sl.compress(Counting(depth), sequences(40), .4)
        runs.append(Counting.n_runs)
    assert runs[1] <= runs[0] + 6


def test_values_that_a_model_keeps_are_those_of_its_batch():
    class Model(MLP):
        def forward(self, x):
            self.h = F.relu(self.l1(x))
            y = F.relu(self.l2(self.h))
            # Read after the layer: the batches take turns there.
            return F.concat([self.l3(y), self.h])

    model = Model()
    new, report = sl.compress(model, inputs(1700), .4)
    assert relative_error(model, new, inputs(seed=1)) < .2


def test_no_thread_is_left():
    class Failing(MLP):
        def forward(self, x):
            h = self.l1(x)
            if len(x) == 100:
                raise RuntimeError('of the model')
            return self.l3(F.relu(self.l2(F.relu(h))))

    before = threading.active_count()
    with pytest.raises(RuntimeError, match='of the model'):
        sl.compress(Failing(), inputs(600), .4)
    with pytest.raises(ValueError, match='/l2: .*finite'):
        model = MLP()
        model.activation = lambda h: F.relu(h) * numpy.float32('nan')
        sl.compress(model, inputs(600), .4)
    assert threading.active_count() == before


def test_layers_in_another_order():
    class Model(MLP):
        def forward(self, x):
            h = F.relu(self.l1(x))
            if len(x) < 500 and len(x) > 16:
                self.l3(h[:, :30])
                return F.relu(self.l2(h))[:, :5]
            return self.l3(F.relu(self.l2(h)))

    with pytest.raises(ValueError, match='in another order on some inputs'):
        sl.compress(Model(), inputs(700), .4)


class Notes(MLP):

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.embed = L.EmbedID(50, 12)
            self.twice = L.Linear(12, 12)
            self.never = L.Linear(4, 4)
            self.tied = L.Linear(5, 50)
            self.hooked = L.Linear(5, 5)
        self.tied.W.array = numpy.random.normal(
            size=(50, 5)).astype('f')
        self.table = self.tied.W

    def forward(self, ids):
        h = self.twice(F.relu(self.twice(self.embed(ids))))
        y = self.hooked(super().forward(h))
        return self.tied(y) + F.sum(self.table) * 0


def test_what_stays_and_why():
    model = Notes()
    model.hooked.add_hook(chainer.link_hooks.SpectralNormalization())
    ids = numpy.random.RandomState(0).randint(0, 50, 600).astype('i')
    new, report = sl.compress(model, ids, .7, exclude='/l3')
    notes = {layer.path: layer.note for layer in report.layers}
    assert notes['/twice'] == 'is called 2 times'
    assert notes['/never'] == 'is never called'
    assert notes['/hooked'] == 'has link hooks: SpectralNormalization'
    assert notes['/tied'].startswith('shares a parameter with')
    assert notes['/l3'] == 'is excluded'
    assert notes['/l1'] == notes['/l2'] == ''
    for path in ('twice', 'never', 'tied', 'hooked', 'l3'):
        numpy.testing.assert_array_equal(
            model[path].W.array, new[path].W.array)
    assert report.unreachable == count(model) - count(model.l1) - count(
        model.l2)
    assert 'are of no layer that could be compressed' in str(report)
    with pytest.raises(ValueError, match=(
            r'budget of 0.1 cannot be met: the smallest that can is '
            r'0\.\d+, of .* parameters. Of .* not of layers that can change: '
            '/embed 600')):
        sl.compress(model, ids, .1)


@pytest.mark.parametrize('activation', [F.relu, F.tanh])
def test_folds_alone_go_into_the_rows_before(activation):
    """Behind ReLU units are scaled, too."""
    model, x = MLP(), inputs()
    model.activation = activation
    batches = [Batch([x[:300]]), Batch([x[300:]])]
    with capture.same_random_numbers(model) as wind_back:
        work = Compression(
            model, batches, None, hold_out(batches), (), wind_back, 0)
        curves = {
            path: [c._replace(errors=c.errors[-1:]) for c in of_layer
                   if c.n_units is None and (path != '/l2') == (
                       c.n_tiles == 1)]
            for path, of_layer in work.measure().items()}
        new, report = work.compress(curves, .7, 'parameters')
    assert isinstance(new.l2, sl.SharedLinear) and new.l2.order is None
    assert report.layers[1].order == 'in /l1'
    rows = [numpy.c_[link.W.array, link.b.array] for link in (
        model.l1, new.l1)]
    lengths = [numpy.linalg.norm(r, axis=1)[:, None] for r in rows]
    cosines = (rows[1] / lengths[1]) @ (rows[0] / lengths[0]).T
    assert (cosines.max(1) > 1 - 1e-5).all()
    kept = (abs(rows[1] - rows[0][cosines.argmax(1)]) < 1e-5).all()
    assert kept == (activation is F.tanh)
    assert relative_error(model, new, held_out(x)) == pytest.approx(
        report.error, rel=1e-3)


def test_what_is_held_out_is_not_fitted_to():
    """A little change of it changes nothing, and of the others all."""
    x = inputs()
    expected, report = sl.compress(MLP(), x, .4)
    for first, same in ((9, True), (8, False)):
        which = slice(first, None, 10)
        changed = x.copy()
        changed[which] *= numpy.float32(1.0001)
        new, other = sl.compress(MLP(), changed, .4)
        assert all((a.array == b.array).all() for a, b in zip(
            new.params(), expected.params(), strict=True)) == same
        assert other.error != report.error


def test_the_error_is_that_on_other_inputs():
    rng = numpy.random.RandomState(0)
    model = MLP((60, 50, 40, 30))
    x, other = (rng.normal(size=(n, 60)).astype('f') for n in (400, 3000))
    new, report = sl.compress(model, x, .3)
    assert 1 / 1.3 < report.error / relative_error(model, new, other) < 1.3


def test_memory_is_announced(monkeypatch):
    model = MLP()
    need = sl.compress(model, inputs(), .5)[1].memory
    assert need > 600 * 12 * 4
    monkeypatch.setattr(memory, 'available', lambda _: need - 1)
    with pytest.raises(MemoryError, match=(
            'fitting the layers takes about .* GiB, .*/l[12] of .* inputs .* '
            'GiB are free')):
        sl.compress(model, inputs(), .5)


def test_sample_space_is_as_good(monkeypatch):
    model, x, other = MLP(), inputs(), inputs(seed=1)
    expected = relative_error(model, sl.compress(model, x, .2)[0], other)
    monkeypatch.setattr(samples, 'WIDEST_COVARIANCE', 4)
    new, report = sl.compress(model, x, .2)
    error = relative_error(model, new, other)
    assert error < 1.2 * expected + 1e-3
    assert report.error == pytest.approx(
        relative_error(model, new, held_out(x)), rel=1e-3)


def test_wider_than_there_are_inputs():
    model = chainer.Sequential(
        L.Linear(1500, 30), F.relu, L.Linear(30, 4))
    x = inputs(200, 1500)
    new, report = sl.compress(model, x, .1)
    assert count(new) <= .1 * count(model)
    assert relative_error(model, new, inputs(300, 1500, seed=1)) < .1


@pytest.mark.parametrize('dtype', [numpy.float16, numpy.float64])
def test_dtype_is_kept(dtype):
    with chainer.using_config('dtype', dtype):
        model = MLP()
    new, report = sl.compress(model, inputs(dtype=dtype), .4)
    assert {p.dtype for p in new.params()} == {numpy.dtype(dtype)}
    assert new(inputs(dtype=dtype)).dtype == dtype
    assert report.error < .1


def test_no_bias_stays_none():
    model = MLP(nobias=True)
    new, _ = sl.compress(model, inputs(), .4)
    assert all(link.b is None for link in new.children())
    assert relative_error(model, new, inputs(seed=1)) < .2


def test_chains_of_all_kinds():
    numpy.random.seed(0)
    x = inputs().reshape(-1, 1, 3, 4)
    head = chainer.Sequential(
        F.relu, L.Linear(24, 40), F.relu, L.Linear(40, 5))
    model = chainer.Sequential(L.Convolution2D(1, 4, 2), head)
    new, report = sl.compress(L.Classifier(model), x, .5)
    assert type(new) is L.Classifier
    assert [layer.path for layer in report.layers] == [
        '/predictor/1/0', '/predictor/1/1']
    numpy.testing.assert_array_equal(
        new.predictor[0].W.array, model[0].W.array)
    assert count(new) <= .5 * count(model)
    assert outputs(new.predictor, x).shape == (600, 5)


@pytest.mark.parametrize('make', [
    lambda x: chainer.Variable(x),
    lambda x: chainer.datasets.TupleDataset(x, numpy.zeros(len(x))),
    lambda x: iter([x[:100], x[100:]]),
    lambda x: chainer.iterators.SerialIterator(list(x), 50, shuffle=False),
], ids=['Variable', 'dataset', 'iterator', 'SerialIterator'])
def test_kinds_of_inputs(make):
    new, report = sl.compress(MLP(), make(inputs()), .4)
    assert report.n_held_out == 60 and report.error < .1


def test_a_copy_elsewhere_is_found_out():
    class Model(MLP):
        def __init__(self):
            super().__init__()
            self.alias = [self.l2]

        def forward(self, x):
            return self.l3(F.relu(self.alias[0](F.relu(self.l1(x)))))

    with pytest.raises(Untrue, match='by another reference'):
        sl.compress(Model(), inputs(), .4)


def test_copies_pickles_and_onnx(tmp_path):
    new, _ = sl.compress(MLP(), inputs(), .3)
    other = pickle.loads(pickle.dumps(new))
    numpy.testing.assert_array_equal(
        outputs(new, inputs()), outputs(other, inputs()))
    onnxruntime = pytest.importorskip('onnxruntime')
    path = str(tmp_path / 'model.onnx')
    sl.onnx.export(new, inputs(2), path)
    y, = onnxruntime.InferenceSession(
        path, providers=['CPUExecutionProvider']).run(None, {'x': inputs()})
    numpy.testing.assert_allclose(
        y, outputs(new, inputs()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('args, kwargs, error, words', [
    ((inputs(), 0), {}, ValueError, 'more than 0 and at most 1, not 0'),
    ((inputs(), 1.5), {}, ValueError, 'at most 1, not 1.5'),
    ((inputs(), True), {}, TypeError, 'must be a number'),
    ((inputs(), .5), {'of': 'flops'}, ValueError, "'operations'.*'flops'"),
    ((inputs(), .5), {'exclude': '/l9'}, ValueError, 'no layer matches'),
    ((inputs(), .5), {'exclude': '*'}, ValueError, 'no layer to compress'),
    ((inputs(1), .5), {}, ValueError, 'too few calibration inputs: 1'),
    ((inputs(0), .5), {}, ValueError, 'too few calibration inputs: 0'),
    ((inputs(size=11), .5), {}, ValueError, 'does not take calibration'),
    ((inputs() * numpy.nan, .5), {}, ValueError, '/l1: .*finite'),
    ((inputs(), .5), {'mask': numpy.ones(5, bool)}, ValueError, 'of as many'),
    ((inputs(), .5), {'mask': numpy.ones(600)}, TypeError, 'booleans'),
    ((inputs(), .5), {'mask': numpy.ones((600, 7), bool)}, ValueError,
     'no layer has such'),
    ((inputs(), 1e-3), {}, ValueError, 'cannot be met'),
    ((inputs(), .5), {'seed': -1}, ValueError, 'seed'),
])
def test_bad_arguments(args, kwargs, error, words):
    model = MLP()
    before = state(model)
    with pytest.raises(error, match=words):
        sl.compress(model, *args, **kwargs)
    assert state(model) == before


def test_bad_models():
    with pytest.raises(TypeError, match='LowRankLinear.from_linear'):
        sl.compress(L.Linear(12, 5), inputs(), .5)
    with pytest.raises(ValueError, match='no chainer.links.Linear'):
        sl.compress(chainer.Sequential(F.relu), inputs(), .5)
    with pytest.raises(ValueError, match='no weight yet'):
        sl.compress(chainer.Sequential(L.Linear(None, 5)), inputs(), .5)


def test_layers_that_do_nothing():
    """What hardly varies is rounding, and no error."""
    for name in 'l1', 'l2':
        model = MLP()
        model[name].W.array[...] = 0
        new, report = sl.compress(model, inputs(), .4)
        assert report.error < 1e-6
        numpy.testing.assert_allclose(
            outputs(new, inputs()), outputs(model, inputs()), rtol=1e-3,
            atol=1e-3)
    new, report = sl.compress(MLP(), numpy.ones_like(inputs()), .4)
    assert report.error < 1e-6


def test_a_layer_without_sizes_that_is_never_called():
    class Model(MLP):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.lazy = L.Linear(None, 5)

    new, report = sl.compress(Model(), inputs(), .4)
    assert [layer.path for layer in report.layers] == ['/l1', '/l2', '/l3']
    assert not new.lazy.W.is_initialized


def test_a_model_that_gives_classes():
    class Model(MLP):
        def forward(self, x):
            return super().forward(x).array.argmax(1)

    new, report = sl.compress(Model(), inputs(), .4)
    assert numpy.isnan(report.error)
    assert 'no numbers to compare' in str(report)
    same = (new(inputs()) == Model()(inputs())).mean()
    assert same > .8


def test_progress_is_of_the_whole(capsys):
    sl.compress(MLP(), inputs(), .5, progress=True)
    shown = capsys.readouterr().out
    assert shown.startswith('fitting the layers takes about')
    assert '6 of 6' in shown


@pytest.mark.gpu
def test_on_a_gpu():
    model = MLP()
    expected, _ = sl.compress(model, inputs(), .3)
    model.to_device('@cupy:0')
    new, report = sl.compress(model, inputs(), .3)
    assert new.device == model.device
    x = model.device.send(inputs())
    numpy.testing.assert_allclose(
        chainer.backend.CpuDevice().send(outputs(new, x)),
        outputs(expected, inputs()), rtol=.05, atol=.05)
