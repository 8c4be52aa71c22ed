"""Models of several inputs are shared and compressed as those of one."""
import held_out
import numpy
import pytest

import shared_linear as sl
from shared_linear import surgery

import chainer  # isort: skip
import chainer.functions as F  # isort: skip
import chainer.links as L  # isort: skip

COUNT, ATOMS = 240, 5


def molecules(seed=0, count=COUNT):
    rng = numpy.random.RandomState(seed)
    atoms = rng.randint(0, 9, (count, ATOMS)).astype(numpy.int32)
    adjacency = rng.rand(count, ATOMS, ATOMS).astype(numpy.float32)
    return atoms, adjacency + adjacency.transpose(0, 2, 1)


class Graph(chainer.Chain):

    """As graph networks are: what the atoms are, and their bonds."""

    def __init__(self):
        super().__init__()
        numpy.random.seed(1)
        with self.init_scope():
            self.embed = L.EmbedID(9, 8)
            self.l1 = L.Linear(8, 16)
            self.l2 = L.Linear(16, 12)
            self.out = L.Linear(12, 3)

    def forward(self, atoms, adjacency):
        h = self.l1(self.embed(atoms), n_batch_axes=2)
        h = F.relu(F.matmul(adjacency, h))
        h = F.relu(self.l2(h, n_batch_axes=2))
        return self.out(F.sum(h, axis=1))


class Packed(Graph):

    """The same with its inputs joined to one array by hand."""

    def forward(self, x):
        return super().forward(
            x[:, :ATOMS].astype(numpy.int32),
            x[:, ATOMS:].reshape(-1, ATOMS, ATOMS))


def packed(atoms, adjacency):
    return numpy.hstack([
        atoms.astype(numpy.float32), adjacency.reshape(len(atoms), -1)])


WAYS = {
    'share': lambda model, x, **kwargs: sl.share_weights(
        model, x, 4, **kwargs),
    'blocks': lambda model, x, **kwargs: sl.share_weights(
        model, x, 4, n_blocks={'/l1': 2}, **kwargs),
    'budget': lambda model, x, **kwargs: sl.share_weights(
        model, x, budget=.6, **kwargs),
    'compress': lambda model, x, **kwargs: sl.compress(
        model, x, .6, **kwargs),
    'bytes': lambda model, x, **kwargs: sl.compress(
        model, x, .5, of='bytes', **kwargs),
}
EACH_WAY = pytest.mark.parametrize('way', WAYS)


def parameters(model):
    return {name: p.array.tobytes() for name, p in model.namedparams()}


@EACH_WAY
def test_it_is_what_the_inputs_packed_by_hand_give(way):
    x = molecules()
    expected, said = WAYS[way](Packed(), packed(*x))
    new, report = WAYS[way](Graph(), x)
    assert str(report) == str(said)
    assert parameters(new) == parameters(expected)
    other = molecules(1)
    with chainer.using_config('train', False):
        numpy.testing.assert_array_equal(
            new(*other).array, expected(packed(*other)).array)


def test_quantized_by_names_and_of_a_classifier():
    atoms, adjacency = molecules()
    expected, said = WAYS['bytes'](Graph(), (atoms, adjacency))
    assert said.n_bits == 8
    for model in Graph(), L.Classifier(Graph()):
        new, report = WAYS['bytes'](
            model, {'adjacency': adjacency, 'atoms': atoms})
        new = getattr(new, 'predictor', new)
        assert report.n_bits == 8 and report.bytes == said.bytes
        numpy.testing.assert_array_equal(
            new(atoms, adjacency).array, expected(atoms, adjacency).array)


def dense(link):
    """The weight of a dense layer as a shared one, in float64."""
    W = link.W.array.astype(numpy.float64)
    if not hasattr(link, 'n_tiles'):
        return W
    wide = numpy.tile(W, (1, link.n_tiles))
    if link.order is not None:
        wide[:, link.order.copy()] = wide.copy()
    return wide


def reference(model, atoms, adjacency):
    """What the model gives, in float64 by NumPy alone."""
    def apply(link, h):
        return h @ dense(link).T + link.b.array

    adjacency = adjacency.astype(numpy.float64)
    y1 = apply(model.l1, model.embed.W.array.astype(numpy.float64)[atoms])
    y2 = apply(model.l2, numpy.maximum(adjacency @ y1, 0))
    return apply(model.out, numpy.maximum(y2, 0).sum(1))


def test_the_errors_are_those_of_a_float64_reference():
    model, x = Graph(), molecules()
    new, report = sl.share_weights(model, x, {'/l2': 4, '/out': 2})
    assert [layer.path for layer in report.layers] == ['/l1', '/l2', '/out']
    y, z = reference(model, *x), reference(new, *x)
    assert report.layers[2].error == pytest.approx(
        held_out.error(y[9::10], z[9::10]), rel=1e-3)
    numpy.testing.assert_allclose(new(*x).array, z, rtol=1e-3, atol=1e-4)


def test_what_is_held_out_is_every_tenth_molecule():
    model, x = Graph(), molecules()
    new, report = sl.compress(model, x, .6)
    assert report.n_held_out == COUNT // 10
    y, z = (m(*(a[9::10] for a in x)).array.astype(numpy.float64)
            for m in (model, new))
    error = ((y - z) ** 2).sum() / ((y - y.mean(0)) ** 2).sum()
    assert report.error == pytest.approx(error, rel=1e-3)


def serial(x):
    return chainer.iterators.SerialIterator(x, 60, shuffle=False)


def by_rows(x):
    labels = numpy.arange(len(x[0]))
    return list(zip(*x, labels, strict=True))


def halves(x):
    return [tuple(a[part] for a in x)
            for part in (slice(100), slice(100, None))]


FORMS = {
    'Variables': lambda x: tuple(map(chainer.Variable, x)),
    'dict': lambda x: {'adjacency': x[1], 'atoms': x[0]},
    'TupleDataset': lambda x: chainer.datasets.TupleDataset(*x),
    'with labels': lambda x: chainer.datasets.TupleDataset(
        *x, numpy.zeros(COUNT)),
    'list of tuples': by_rows,
    'tuple of tuples': lambda x: tuple(by_rows(x)),
    'list of dicts': lambda x: [
        {'adjacency': a, 'label': label, 'atoms': ids}
        for ids, a, label in by_rows(x)],
    'SerialIterator': lambda x: serial(by_rows(x)),
    'batches': lambda x: iter(halves(x)),
    'batches with labels': lambda x: ((*b, None) for b in halves(x)),
    'batches of examples': lambda x: map(by_rows, halves(x)),
    'batches, dicts': lambda x: (
        {'atoms': a, 'adjacency': b, 't': None} for a, b in halves(x)),
}


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('way', ['share', 'compress'])
def test_forms(way, form):
    x = molecules()
    expected, said = WAYS[way](Graph(), x)
    new, report = WAYS[way](L.Classifier(Graph()), FORMS[form](x))
    assert [(e.path, e.n_tiles) for e in report.layers] == [
        ('/predictor' + e.path, e.n_tiles) for e in said.layers]
    numpy.testing.assert_allclose(
        [e.error for e in report.layers], [e.error for e in said.layers],
        rtol=1e-3, atol=1e-9)
    if way == 'compress':
        assert report.n_held_out == said.n_held_out
    if 'atch' not in form and form != 'SerialIterator':
        assert parameters(new.predictor) == parameters(expected)


class Translation(chainer.Chain):

    """Source and target, of which the second may be padded."""

    def __init__(self):
        super().__init__()
        numpy.random.seed(2)
        with self.init_scope():
            self.source = L.EmbedID(20, 12)
            self.target = L.EmbedID(20, 12)
            self.l1 = L.Linear(24, 32)
            self.l2 = L.Linear(32, 20)

    def forward(self, source, *, target, scale=None):
        context = F.sum(self.source(source), axis=1, keepdims=True)
        words = self.target(target)
        h = F.concat([words, F.broadcast_to(context, words.shape)], axis=2)
        return self.l2(
            F.relu(self.l1(h, n_batch_axes=2)), n_batch_axes=2)


def sentences(count=200):
    rng = numpy.random.RandomState(3)
    source = rng.randint(1, 20, (count, 7)).astype(numpy.int32)
    target = rng.randint(1, 20, (count, 6)).astype(numpy.int32)
    target[:, 4:] = 0
    return {'source': source, 'target': target, 'scale': None}


def test_masks_go_by_all_inputs():
    x = sentences()
    array = x['target'] != 0
    new, report = sl.compress(Translation(), x, .5, mask=array)
    same, said = sl.compress(
        Translation(), x, .5,
        mask=lambda source, target, scale: target != 0)
    assert parameters(new) == parameters(same) and str(report) == str(said)
    plain, _ = sl.compress(Translation(), x, .5)
    assert parameters(plain) != parameters(new)
    with pytest.raises(ValueError, match='goes with inputs x that are, too'):
        sl.compress(Translation(), iter([x]), .5, mask=array)


def test_the_pairs_of_inputs_and_labels_are_as_they_were():
    model = chainer.Sequential(L.Linear(12, 16), F.relu, L.Linear(16, 4))
    x = numpy.random.RandomState(0).normal(size=(120, 12)).astype('f')
    t = numpy.zeros(120, int)

    class Free(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.body = model.copy('copy')

        def forward(self, *args, **kwargs):
            return self.body(*args, **kwargs)

    expected, _ = sl.share_weights(model, x, 4)
    for one in model, L.Classifier(model), Free():
        for given in (
                chainer.datasets.TupleDataset(x, t), iter([(x, t)]),
                serial(list(zip(x, t, strict=True)))):
            new, _ = sl.share_weights(one, given, 4)
            for a, b in zip(new.params(), expected.params(), strict=True):
                numpy.testing.assert_allclose(
                    a.array, b.array, rtol=1e-3, atol=1e-4)


class Optional(Graph):
    def forward(self, atoms, adjacency=None):
        if adjacency is None:
            adjacency = numpy.ones((len(atoms), ATOMS, ATOMS), 'f')
        return super().forward(atoms, adjacency)


class Any(Graph):
    def forward(self, *args):
        return super().forward(*args)


@pytest.mark.parametrize('make', [Optional, Any])
def test_n_inputs_says_how_many(make):
    x = molecules()
    expected, said = sl.share_weights(Graph(), x, 4)
    new, report = sl.share_weights(make(), by_rows(x), 4, n_inputs=2)
    assert parameters(new) == parameters(expected)
    new, report = sl.compress(make(), by_rows(x), .6, n_inputs=2)
    assert parameters(new) == parameters(sl.compress(Graph(), x, .6)[0])


def test_a_model_with_edits_is_asked_what_its_author_wrote():
    x = molecules()
    model = Graph()
    surgery.insert_after(model, '/ReLU', F.identity, x=x)
    new, report = sl.share_weights(model, by_rows(x), 4)
    assert report.layers[2].n_tiles == 4


atoms, adjacency = molecules(count=40)
BAD = [
    ((atoms, adjacency[:9]), {}, ValueError, 'as many rows each, not 40 and'),
    ((atoms, adjacency, atoms), {}, TypeError, r'Graph are \(atoms, adjac'),
    (atoms, {}, TypeError, "of Graph are .*missing.*'adjacency'"),
    ({'atoms': atoms, 'bonds': adjacency}, {}, TypeError, 'missing a requi'),
    ((atoms, numpy.array(3.)), {}, ValueError, 'more than a scalar'),
    ((atoms, [adjacency]), {}, TypeError, 'one array, not a list'),
    ((atoms, adjacency.astype(str)), {}, TypeError, 'must be numbers'),
    ((atoms[:0], adjacency[:0]), {}, ValueError, 'calibration inputs'),
    ([(a,) for a in atoms], {}, ValueError, 'takes 2 inputs, and the tup'),
    ([(atoms[0], adjacency[0]), atoms[1]], {}, TypeError, 'of one kind'),
    ({'atoms': None, 'adjacency': None}, {}, TypeError, 'there is none'),
    ((atoms, adjacency), {'n_inputs': 0}, ValueError, 'n_inputs must be'),
    (atoms, {'n_inputs': 2}, ValueError, 'n_inputs = 2 is of tuples'),
    ((atoms, adjacency * numpy.nan), {}, ValueError, 'must be finite'),
    ((atoms, adjacency[:, :, :3]), {}, ValueError, 'does not take .* shape'),
]


@pytest.mark.parametrize('x,kwargs,error,words', BAD)
@pytest.mark.parametrize('way', ['share', 'compress'])
def test_bad_inputs(way, x, kwargs, error, words):
    model = Graph()
    before = parameters(model)
    with pytest.raises(error, match=words) as caught:
        WAYS[way](model, x, **kwargs)
    assert '\n' not in str(caught.value)
    assert parameters(model) == before
