"""All that happens to a link besides being called."""
import copy
import io
import pickle

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer import link_hooks, optimizer_hooks, optimizers, serializers

import shared_linear as sl

LAZY = pytest.mark.parametrize('lazy', [False, True])
X = numpy.random.RandomState(1).randn(4, 12).astype('f')


def new_link(lazy=False, **kwargs):
    return sl.SharedLinear(
        None if lazy else 12, 5, initial_bias=chainer.initializers.Normal(1),
        n_tiles=3, **kwargs)


def assert_same(a, b):
    assert (a.W.array is None) == (b.W.array is None)
    if a.W.array is not None:
        numpy.testing.assert_array_equal(a.W.array, b.W.array)
        numpy.testing.assert_array_equal(a(X).array, b(X).array)
    numpy.testing.assert_array_equal(a.b.array, b.b.array)
    assert repr(a) == repr(b)


@LAZY
def test_deepcopy(lazy):
    link = new_link(lazy)
    other = copy.deepcopy(link)
    assert_same(link, other)
    other(X)
    other.W.array[...] = 0
    assert lazy or (link.W.array != 0).all()
    assert link.W.array is not other.W.array or lazy


@LAZY
def test_copy_shares_copies_or_draws_again(lazy):
    link = new_link(lazy)
    if lazy:
        for mode in ('share', 'copy', 'init'):
            other = link.copy(mode)
            assert other(X).shape == (4, 5)
            assert other.in_size == 12
        return
    share, copied, init = (link.copy(m) for m in ('share', 'copy', 'init'))
    assert share.W is not link.W
    assert share.W.array is link.W.array
    assert_same(link, copied)
    assert not numpy.shares_memory(copied.W.array, link.W.array)
    assert init.W.shape == link.W.shape
    assert (init.W.array != link.W.array).any()
    assert (init.b.array != link.b.array).any()


def test_copied_links_draw_with_the_dense_deviation():
    link = sl.SharedLinear(1000, 100, n_tiles=10)
    assert link.copy('init').W.array.std() == pytest.approx(
        1000 ** -.5, rel=0.05)


@LAZY
def test_repeat_draws_each(lazy):
    link = sl.SharedLinear(None if lazy else 12, 12, n_tiles=3)
    model = link.repeat(3)
    assert model(X).shape == (4, 12)
    weights = [child.W.array for child in model]
    assert len(weights) == 3
    assert (weights[0] != weights[1]).any()
    assert (weights[1] != weights[2]).any()
    assert all(w.std() == pytest.approx(12 ** -.5, rel=0.5) for w in weights)


def test_in_sequential_and_chain_list():
    layers = [new_link(), F.relu, sl.SharedLinear(2, n_tiles=5)]
    model = chainer.Sequential(*layers)
    expected = layers[2](F.relu(layers[0](X)))
    numpy.testing.assert_array_equal(model(X).array, expected.array)
    assert 'n_tiles=5' in str(model)
    flat = chainer.Sequential(model, F.tanh).flatten()
    assert len(flat) == 4
    chain_list = chainer.ChainList(layers[0], layers[2])
    assert chain_list.count_params() == model.count_params()
    assert [n for n, _ in chain_list.namedparams()] == [
        '/0/W', '/0/b', '/1/W', '/1/b']


@LAZY
@pytest.mark.parametrize('protocol', range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize('initialW', [
    None, chainer.initializers.HeNormal(), 0.5, numpy.ones((5, 4), 'f')],
    ids=['default', 'He', 'scalar', 'array'])
def test_pickle(lazy, protocol, initialW):
    link = new_link(lazy, initialW=initialW)
    other = pickle.loads(pickle.dumps(link, protocol))
    assert_same(link, other)
    numpy.random.seed(0)
    link(X)
    numpy.random.seed(0)
    other(X)
    assert_same(link, other)


class Model(chainer.Chain):

    def __init__(self, first, second):
        super().__init__()
        with self.init_scope():
            self.first = first
            self.second = second

    def forward(self, x):
        return self.second(F.relu(self.first(x)))


def models(make, lazy):
    return (
        Model(new_link(), make(None if lazy else 5, 2)) for _ in range(2))


def save_and_load(kind, source, target):
    if kind == 'npz':
        file = io.BytesIO()
        serializers.save_npz(file, source)
        file.seek(0)
        serializers.load_npz(file, target)  # strict: raises on what differs
    else:
        import h5py
        with h5py.File(io.BytesIO(), 'w') as f:
            serializers.HDF5Serializer(f).save(source)
            serializers.HDF5Deserializer(f).load(target)


FORMATS = pytest.mark.parametrize('kind', ['npz', 'hdf5'])


@FORMATS
@LAZY
def test_save_and_load(kind, lazy):
    source, target = new_link(), new_link(lazy)
    save_and_load(kind, source, target)
    assert target.in_size == 12
    assert_same(source, target)


@FORMATS
def test_save_and_load_files(kind, tmp_path):
    path = tmp_path / ('model.' + kind)
    source, target = new_link(), new_link()
    getattr(serializers, 'save_' + kind)(path, source)
    getattr(serializers, 'load_' + kind)(path, target)
    assert_same(source, target)


@FORMATS
def test_save_and_load_what_has_no_weight_yet(kind):
    source, target = new_link(lazy=True), new_link(lazy=True)
    save_and_load(kind, source, target)
    assert target.W.array is None
    numpy.testing.assert_array_equal(target.b.array, source.b.array)
    assert target(X).shape == (4, 5)


@FORMATS
def test_what_a_file_holds_is_what_L_Linear_writes(kind):
    ours = sl.SharedLinear(12, 5, n_tiles=1)
    theirs = L.Linear(12, 5)
    save_and_load(kind, ours, theirs)
    numpy.testing.assert_array_equal(ours.W.array, theirs.W.array)
    other = sl.SharedLinear(None, 5, n_tiles=1)
    save_and_load(kind, theirs, other)
    assert_same(ours, other)
    assert other.in_size == 12


@FORMATS
def test_optimizer_and_lazy_model_resume(kind):
    def start():
        model = Model(sl.SharedLinear(5, n_tiles=3), L.Linear(2))
        return model, optimizers.Adam().setup(model)

    def step(model, optimizer):
        optimizer.update(lambda: F.sum(model(X) ** 2))

    model, optimizer = start()
    step(model, optimizer)
    other, other_optimizer = start()
    save_and_load(kind, model, other)
    save_and_load(kind, optimizer, other_optimizer)
    step(model, optimizer)
    step(other, other_optimizer)
    for a, b in zip(model.params(), other.params(), strict=True):
        numpy.testing.assert_array_equal(a.array, b.array)


@LAZY
def test_to_device_cpu(lazy):
    link = new_link(lazy)
    assert link.to_device('@numpy') is link
    with pytest.warns(DeprecationWarning):
        assert link.to_cpu() is link
    assert link(X).shape == (4, 5)
    assert link.xp is numpy


@pytest.mark.chainerx
def test_to_chainerx_and_back():
    link = new_link()
    expected = link(X).array
    link.to_chx()
    y = link(link.device.send(X))
    numpy.testing.assert_allclose(
        chainer.get_device('@numpy').send(y.array), expected, rtol=1e-5)
    link.from_chx()
    numpy.testing.assert_array_equal(link(X).array, expected)


@LAZY
def test_gradients_are_cleared_and_added(lazy):
    link = new_link(lazy)
    link.cleargrads()
    F.sum(link(X)).backward()
    if lazy:
        link.cleargrads()
        F.sum(link(X)).backward()
    grad = link.W.grad.copy()
    F.sum(link(X)).backward()
    numpy.testing.assert_allclose(link.W.grad, 2 * grad, rtol=1e-6)
    other = link.copy('copy')
    other.cleargrads()
    F.sum(other(X)).backward()
    link.addgrads(other)
    numpy.testing.assert_allclose(link.W.grad, 3 * grad, rtol=1e-6)
    link.cleargrads()
    assert link.W.grad is None and link.b.grad is None


def test_copyparams_from_a_dense_layer_of_the_same_shape():
    dense, link = L.Linear(12, 5), sl.SharedLinear(12, 5, n_tiles=1)
    link.copyparams(dense)
    numpy.testing.assert_array_equal(link(X).array, dense(X).array)


def test_count_params():
    link = sl.SharedLinear(1000, 900, n_tiles=10)
    assert link.count_params() == 900 * 100 + 900
    assert sl.SharedLinear(
        1000, 900, nobias=True, n_tiles=10).count_params() == 900 * 100
    with pytest.warns(UserWarning, match='not been initialized'):
        assert new_link(lazy=True).count_params() == 5


@pytest.mark.parametrize('hook', [
    optimizer_hooks.WeightDecay(0.1), optimizer_hooks.Lasso(0.1),
    optimizer_hooks.GradientClipping(0.5),
    optimizer_hooks.GradientHardClipping(-0.1, 0.1),
    optimizer_hooks.GradientLARS()],
    ids=lambda hook: hook.name)
@LAZY
def test_optimizer_hooks(hook, lazy):
    """What a hook does to a parameter, it does to this layer's."""
    def step(link, x):
        optimizer = optimizers.SGD(0.1).setup(link)
        optimizer.add_hook(hook)
        optimizer.update(lambda: F.sum(link(x) ** 2))
        return link

    numpy.random.seed(0)
    link = step(sl.SharedLinear(None if lazy else 12, 5, n_tiles=3), X)
    # The layer is a dense one on the folded input.
    numpy.random.seed(0)
    dense = L.Linear(4, 5)
    dense.W.array[...] /= 3 ** .5
    step(dense, sl.fold(X, 3).array)
    numpy.testing.assert_allclose(
        link.W.array, dense.W.array, rtol=1e-5, atol=1e-6)
    numpy.testing.assert_allclose(link.b.array, dense.b.array, rtol=1e-5)


def test_update_rules():
    link = new_link()
    optimizer = optimizers.MomentumSGD(0.1).setup(link)
    assert link.W.update_rule.hyperparam.lr == 0.1
    before = link.W.array.copy(), link.b.array.copy()
    link.W.update_rule.enabled = False
    optimizer.update(lambda: F.sum(link(X)))
    numpy.testing.assert_array_equal(link.W.array, before[0])
    assert (link.b.array != before[1]).all()
    link.enable_update()
    optimizer.update(lambda: F.sum(link(X)))
    assert (link.W.array != before[0]).any()
    link.disable_update()
    before = link.W.array.copy()
    optimizer.update(lambda: F.sum(link(X)))
    numpy.testing.assert_array_equal(link.W.array, before)


def test_mixed_precision_updates_in_float32():
    with chainer.using_config('dtype', chainer.mixed16):
        link = sl.SharedLinear(12, 5, n_tiles=3)
        optimizer = optimizers.SGD(1e-5).setup(link)
        optimizer.use_fp32_update()
        before = link.W.array.copy()
        for _ in range(100):  # each alone is lost in float16
            optimizer.update(lambda: F.sum(link(X.astype('e'))))
    assert link.W.dtype == numpy.float16
    moved = link.W.array.astype('f') - before
    assert (moved != 0).mean() > 0.5


def test_link_timer_hook():
    with link_hooks.TimerHook() as timer:
        new_link()(X)
    assert [s for s in timer.summary() if 'SharedLinear' in s]


def test_function_timer_hook():
    hook = chainer.function_hooks.TimerHook()
    with hook:
        F.sum(new_link()(X)).backward()
    assert 'SharedLinearFunction' in hook.summary()


@pytest.mark.parametrize('hook', [
    link_hooks.SpectralNormalization, link_hooks.WeightStandardization])
@LAZY
def test_hooks_that_replace_the_weight(hook, lazy):
    """They put a Variable that is no Parameter in the place of W."""
    link = new_link(lazy)
    link.add_hook(hook())
    link.cleargrads()
    y = link(X)
    F.sum(y).backward()
    assert isinstance(link.W, chainer.Parameter)
    assert link.W.grad is not None
    assert link.in_size == 12

    dense = L.Linear(4, 5)
    dense.W.array[...] = link.W.array
    dense.b.array[...] = link.b.array
    dense.add_hook(hook())
    if hook is link_hooks.SpectralNormalization:
        dense.W_u[...] = link.W_u  # its power iteration starts at random
        for _ in range(50):
            dense(X[:, :4])
            link(X)
    numpy.testing.assert_allclose(
        link(X).array, dense(sl.fold(X, 3)).array, rtol=1e-4, atol=1e-5)


def test_computational_graph_is_readable():
    link = new_link()
    link.name = 'fc'
    x = chainer.Variable(X, name='x')
    graph = chainer.computational_graph.build_computational_graph([link(x)])
    dot = graph.dump()
    assert dot.startswith('digraph')
    assert dot.count('label="SharedLinearFunction"') == 1
    for label in ('x: (4, 12), float32', 'W: (5, 4), float32',
                  'b: (5), float32'):
        assert label in dot


def test_static_graph(capfd):
    class Static(chainer.Chain):

        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.layer = new_link()

        @chainer.static_graph
        def forward(self, x):
            return self.layer(x)

    model = Static()
    for scale in (1, 2, 3):
        x = chainer.Variable(scale * X)
        model.cleargrads()
        y = model(x)
        F.sum(y).backward()
        expected = model.layer.copy('copy')
        expected.cleargrads()
        y_ = expected(scale * X)
        F.sum(y_).backward()
        numpy.testing.assert_allclose(y.array, y_.array, rtol=1e-6)
        numpy.testing.assert_allclose(
            model.layer.W.grad, expected.W.grad, rtol=1e-6)
    capfd.readouterr()  # Chainer prints as it builds a schedule


def test_training_equals_that_of_a_dense_layer_with_tied_weights():
    """Adam, written out in float64, on the tiled weight's folded gradient."""
    rng = numpy.random.RandomState(0)
    x, t = rng.randn(32, 12), rng.randn(32, 5)
    with chainer.using_config('dtype', numpy.dtype('d')):
        link = sl.SharedLinear(12, 5, n_tiles=3)
    optimizer = optimizers.Adam(0.05).setup(link)
    W, b = link.W.array.copy(), link.b.array.copy()
    moments = [[numpy.zeros_like(p), numpy.zeros_like(p)] for p in (W, b)]
    losses = []
    for step in range(1, 101):
        optimizer.update(
            lambda: F.mean_squared_error(link(x), t))

        V = numpy.hstack([W, W, W])
        error = x @ V.T + b - t
        losses.append((error ** 2).mean())
        gV = 2 * error.T @ x / error.size
        gW = gV[:, :4] + gV[:, 4:8] + gV[:, 8:]
        gb = 2 * error.sum(0) / error.size
        for p, g, (m, v) in zip((W, b), (gW, gb), moments, strict=True):
            m += (1 - 0.9) * (g - m)
            v += (1 - 0.999) * (g * g - v)
            rate = 0.05 * (1 - 0.999 ** step) ** .5 / (1 - 0.9 ** step)
            p -= rate * m / (v ** .5 + 1e-8)
    numpy.testing.assert_allclose(link.W.array, W, rtol=1e-8)
    numpy.testing.assert_allclose(link.b.array, b, rtol=1e-8)

    # It has come to where least squares on the folded input would be.
    folded = numpy.c_[x[:, :4] + x[:, 4:8] + x[:, 8:], numpy.ones(32)]
    best = t - folded @ numpy.linalg.lstsq(folded, t, rcond=None)[0]
    assert losses[0] > 1.5 * losses[-1]
    assert losses[-1] == pytest.approx((best ** 2).mean(), rel=0.02)
