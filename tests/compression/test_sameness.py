"""share_weights changes what it says, and nothing else.

Whatever the model's author did with its layers: keep an order, tie weights,
extend the call.
"""
import numpy
import pytest

import shared_linear as sl
from shared_linear.compression import comparison, dense

import chainer  # isort: skip
import chainer.functions as F  # isort: skip
import chainer.link_hooks  # isort: skip
import chainer.links as L  # isort: skip


def inputs(n=300, width=8, seed=0):
    return numpy.random.RandomState(seed).randn(n, width).astype('f')


class Ordered(chainer.Chain):

    """Runs what is registered, in that order."""

    def __init__(self, **links):
        super().__init__()
        self.names = []
        with self.init_scope():
            for name, link in links.items():
                setattr(self, name, link)

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if self.within_init_scope and callable(value):
            self.names.append(name)

    def __delattr__(self, name):
        super().__delattr__(name)
        self.names.remove(name)

    def forward(self, x):
        for name in self.names:
            x = self[name](x)
        return x


class Counting(chainer.Chain):

    """Runs its children in the order in which they were last set."""

    def __init__(self):
        super().__init__()
        self.order = {}
        with self.init_scope():
            self.b = L.Linear(8, 8)
            self.a = L.Linear(8, 8)
            self.c = L.Linear(8, 8)

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if isinstance(value, chainer.Link):
            self.order.pop(name, None)
            self.order[name] = len(self.order)

    def forward(self, x):
        for name in self.order:
            x = F.relu(getattr(self, name)(x))
        return x


class Hooked(chainer.ChainList):

    def __init__(self):
        super().__init__(L.Linear(8, 8), L.Linear(8, 8), L.Linear(8, 4))

    def __setitem__(self, index, link):
        raise AssertionError('nobody may set a link')

    def forward(self, x):
        for link in self.children():
            x = F.tanh(link(x))
        return x


def calls(model, x):
    paths = {id(link): path for path, link in model.namedlinks()}
    seen = []

    class Hook(chainer.LinkHook):
        def forward_preprocess(self, args):
            seen.append(paths[id(args.link)])

    with Hook(), chainer.using_config('train', False):
        model(x)
    return seen


@pytest.mark.parametrize('make, path', [
    (lambda: Ordered(fc6=L.Linear(8, 8), r=F.relu, fc7=L.Linear(8, 8)),
     '/fc6'),
    (Counting, '/b'), (Counting, '/a'), (Hooked, '/1'),
    (lambda: chainer.Sequential(
        L.Linear(8, 8), F.relu, L.Linear(8, 8), F.relu, L.Linear(8, 4)),
     '/1'),
    (lambda: chainer.Sequential(Hooked(), F.relu), '/0/1')])
def test_the_order_of_the_layers_stays(make, path):
    model, x = make(), inputs()
    before = calls(model, x)
    new, _ = sl.share_weights(model, x, {path: 2})
    assert calls(new, x) == before
    assert type(dict(new.namedlinks())[path]) is sl.SharedLinear
    if isinstance(model, Ordered):
        assert new.names == model.names == ['fc6', 'r', 'fc7']


class Tied(chainer.Chain):

    def __init__(self, how):
        super().__init__()
        with self.init_scope():
            self.embed = L.EmbedID(50, 8)
            self.l1 = L.Linear(8, 8)
            self.l2 = L.Linear(8, 8)
            self.out = L.Linear(8, 50)
        how(self)

    def forward(self, x):
        h = F.relu(self.l1(F.sum(self.embed(x), axis=1)))
        return self.out(F.relu(self.l2(h)))


def same_parameter(model):
    model.out.W = model.embed.W


def same_array(model):
    model.out.W.array = model.embed.W.array


def view(model):
    model.out.W.array = model.embed.W.array[:]


def kept_in_a_list(model):
    model.regularized = [{'weight': model.out.W}]


def kept_as_an_array(model):
    model.other = model.out.W.array.T


def same_bias(model):
    model.embed.add_param('bias', (50,), initializer=0)
    model.out.b = model.embed.bias


@pytest.mark.parametrize('how', [
    same_parameter, same_array, view, kept_in_a_list, kept_as_an_array,
    same_bias])
def test_what_is_tied_is_neither_written_nor_cut(how):
    numpy.random.seed(1)
    model = Tied(how)
    x = numpy.random.randint(0, 50, (400, 4)).astype('i')
    before = {path: p.array.copy() for path, p in model.namedparams()}
    new, report = sl.share_weights(model, x, {'/l1': 2})
    for one in model, new:
        for path in '/embed/W', '/out/W', '/out/b':
            numpy.testing.assert_array_equal(
                dict(one.namedparams())[path].array, before[path])
    # The others are fitted as ever.
    assert not numpy.array_equal(new.l2.W.array, model.l2.W.array)
    if how is same_parameter:
        assert new.out.W is new.embed.W
    with pytest.raises(ValueError, match='/out shares a parameter with /'):
        sl.share_weights(model, x, {'/out': 2})


def test_equal_siamese_halves_are_tied():
    class Halves(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.a = L.Linear(8, 8)
                self.b = self.a.copy('share')
                self.c = L.Linear(8, 8)

        def forward(self, x):
            return self.b(F.relu(self.c(F.relu(self.a(x)))))

    model, x = Halves(), inputs()
    assert set(dense.find_ties(model)) == {'/a', '/b'}
    new, _ = sl.share_weights(model, x, {'/c': 2})
    numpy.testing.assert_array_equal(new.b.W.array, model.a.W.array)
    assert new.a.W.array is new.b.W.array
    with pytest.raises(ValueError, match='/a shares a parameter with /b/W'):
        sl.share_weights(model, x, {'/a': 2})


class Autoencoder(chainer.Chain):

    """Its decoder is the transpose of its encoder."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.encoder = L.Linear(8, 8)
            self.middle = L.Linear(8, 8)

    def forward(self, x):
        h = F.relu(self.middle(F.relu(self.encoder(x))))
        return F.matmul(h, self.encoder.W)


def test_a_weight_that_the_model_reads_by_itself_is_tied():
    model, x = Autoencoder(), inputs()
    new, _ = sl.share_weights(model, x, {'/middle': 2})
    numpy.testing.assert_array_equal(
        new.encoder.W.array, model.encoder.W.array)
    with pytest.raises(ValueError, match='/encoder shares a parameter with '
                       'the model itself, by .*MatMul'):
        sl.share_weights(model, x, {'/encoder': 2})


class OldStyle(L.Linear):
    def __call__(self, x):
        return F.relu(super().__call__(x))


class NewStyle(L.Linear):
    def forward(self, x):
        return F.relu(super().forward(x))


class Doubled(L.Linear):

    """Of whose bias the layer adds twice as much."""

    @property
    def b(self):
        return vars(self)['b'] * 2

    @b.setter
    def b(self, value):
        vars(self)['b'] = value


class Plain(L.Linear):
    """Only a name."""


def patched():
    link = L.Linear(8, 8)
    link.forward = lambda x: F.relu(F.linear(x, link.W, link.b))
    return link


def edited():
    link = L.Linear(8, 8)
    return sl.surgery.insert_after(link, '/LinearFunction', F.relu)


@pytest.mark.parametrize('make', [
    lambda: OldStyle(8, 8), lambda: NewStyle(8, 8), lambda: Doubled(8, 8),
    patched, edited])
def test_a_subclass_that_does_more_is_no_dense_layer(make):
    link = make()
    assert not dense.is_dense(link)
    for convert in (
            lambda: sl.SharedLinear.from_linear(link, 2),
            lambda: sl.MixedLinear.from_linear(link, 2, n_blocks=2)):
        with pytest.raises(TypeError, match='takes a chainer.links.Linear'):
            convert()
    model = chainer.Sequential(L.Linear(8, 8), link, L.Linear(8, 8))
    x = inputs()
    new, report = sl.share_weights(model, x, 2)
    assert len(report.layers) == 2
    np_y = new(x).array
    assert numpy.isfinite(np_y).all()
    # The layer in the middle is what it was.
    h = new[0](x)
    numpy.testing.assert_allclose(
        new[1](h).array, link(h).array, rtol=1e-6)
    with pytest.raises(ValueError):
        sl.share_weights(chainer.Sequential(link), x, 2)


def test_a_subclass_in_name_only_is_dense():
    assert dense.is_dense(Plain(8, 8))
    assert type(sl.SharedLinear.from_linear(Plain(8, 8), 2)) is (
        sl.SharedLinear)


def test_from_linear_does_not_drop_a_hook():
    link = L.Linear(8, 8)
    link.add_hook(chainer.link_hooks.SpectralNormalization())
    with pytest.raises(ValueError, match='SpectralNormalization'):
        sl.SharedLinear.from_linear(link, 2)


def test_the_end_compares(monkeypatch):
    """A shared layer that computes something else is found out."""
    forward = sl.SharedLinear.forward
    monkeypatch.setattr(
        sl.SharedLinear, 'forward',
        lambda self, x, n_batch_axes=1: forward(self, x, n_batch_axes) + 1)
    with pytest.raises(RuntimeError, match='/1 of the new model does not g'):
        sl.share_weights(
            chainer.Sequential(L.Linear(8, 8), L.Linear(8, 8)), inputs(),
            {'/1': 2})


def test_comparison():
    rng = numpy.random.RandomState(0)
    y, z = rng.randn(100, 3).astype('f'), rng.randn(100, 2).astype('f')
    fitted = {'/a': y, '/b': z}
    near = y + numpy.float32(1e-5)
    comparison.check_layers([('/a', near), ('/b', z)], fitted)
    comparison.check_results([y, z], [near, z])
    for bad in y + numpy.float32(.01), y * numpy.nan, y[:, :2], y[:50]:
        with pytest.raises(comparison.Untrue, match='/a of the new model'):
            comparison.check_layers([('/a', bad), ('/b', z)], fitted)
        with pytest.raises(comparison.Untrue, match='does not give what its'):
            comparison.check_results([z, y], [z, bad])
    for called in [('/b', z), ('/a', y)], [('/a', y)], []:
        with pytest.raises(comparison.Misplaced, match='by another reference'):
            comparison.check_layers(called, fitted)
    with pytest.raises(comparison.Untrue):
        comparison.check_results([y, z], [y])
