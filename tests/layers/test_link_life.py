"""All that happens to a link besides being called."""
import copy

import chainer
import chainer.functions as F
import chainer.links as L
import kinds
import numpy
import pytest
import reference
from chainer import link_hooks, optimizer_hooks, optimizers
from kinds import (
    EACH,
    EACH_LAZY,
    EACH_LAZY_OR_NOT,
    X,
    arrays,
    assert_right,
    assert_same,
)

import shared_linear as sl


@EACH_LAZY_OR_NOT
def test_copies_that_share_nothing(kind, lazy):
    link = kind.make(lazy)
    for other in (copy.deepcopy(link), link.copy('copy')):
        numpy.testing.assert_array_equal(other.order, kind.order)
        if not lazy:
            assert_same(link, other)
        for a, b in zip(arrays(link), arrays(other), strict=True):
            assert a is None or not numpy.shares_memory(a, b)
        assert_right(kind, other)
        assert (link.in_size is None) is lazy


@EACH_LAZY_OR_NOT
def test_copies_that_share_or_draw_again(kind, lazy):
    link = kind.make(lazy)
    for other in (link.copy(), link.copy('share'), copy.copy(link)):
        numpy.testing.assert_array_equal(other.order, kind.order)
        for a, b in zip(arrays(link), arrays(other), strict=True):
            assert a is b
        assert_right(kind, other)
    assert link.copy('share').b is not link.b
    init = link.copy('init')
    numpy.testing.assert_array_equal(init.order, kind.order)
    assert_right(kind, init)
    assert init.in_size == 12
    for a, b in zip(arrays(link), arrays(init), strict=True):
        assert a is None or a.shape == b.shape and (a != b).any()


@EACH_LAZY_OR_NOT
def test_repeat_draws_each(kind, lazy):
    model = kind.make(lazy, out_size=12).repeat(3)
    assert model(X).shape == (4, 12)
    weights = [kind.dense_weight(child) for child in model]
    assert len(weights) == 3
    assert (weights[0] != weights[1]).any()
    assert (weights[1] != weights[2]).any()
    assert all(w.std() == pytest.approx(12 ** -.5, rel=0.5) for w in weights)


@EACH
def test_in_sequential_and_chain_list(kind):
    layers = [kind.make(), F.relu, sl.SharedLinear(2, n_tiles=6)]
    model = chainer.Sequential(*layers)
    expected = layers[2](F.relu(layers[0](X)))
    numpy.testing.assert_array_equal(model(X).array, expected.array)
    assert kind.specs in str(model) and 'n_tiles=6' in str(model)
    flat = chainer.Sequential(model, F.tanh).flatten()
    assert len(flat) == 4
    chain_list = chainer.ChainList(layers[0], layers[2])
    assert chain_list.count_params() == model.count_params()
    assert [n for n, _ in chain_list.namedparams()] == [
        *('/0/' + name for name in sorted([*kind.shapes, 'b'])),
        '/1/W', '/1/b']


@EACH_LAZY_OR_NOT
def test_to_device_cpu(kind, lazy):
    link = kind.make(lazy)
    assert link.to_device('@numpy') is link
    with pytest.warns(DeprecationWarning):
        assert link.to_cpu() is link
    assert link(X).shape == (4, 6)
    assert link.xp is numpy


@pytest.mark.chainerx
@kinds.EACH_CLASS
def test_to_chainerx_and_back(kind):
    link = kind.make()
    expected = link(X).array
    link.to_chx()
    y = link(link.device.send(X))
    numpy.testing.assert_allclose(
        chainer.get_device('@numpy').send(y.array), expected, rtol=1e-5)
    link.from_chx()
    numpy.testing.assert_array_equal(link(X).array, expected)


@EACH_LAZY_OR_NOT
def test_gradients_are_cleared_and_added(kind, lazy):
    def assert_grads(times):
        expected = kind.gradients(link, X, numpy.ones((4, 6)))
        for name, param in link.namedparams():
            numpy.testing.assert_allclose(
                param.grad, times * expected[name[1:]], rtol=1e-5, atol=1e-5)

    def backward(link):
        F.sum(link(X)).backward()

    link = kind.make(lazy)
    link.cleargrads()
    backward(link)
    if lazy:
        link.cleargrads()
        backward(link)
    backward(link)
    assert_grads(2)
    other = link.copy('copy')
    other.cleargrads()
    backward(other)
    link.addgrads(other)
    assert_grads(3)
    link.cleargrads()
    assert all(param.grad is None for param in link.params())


def test_copyparams_from_a_dense_layer_of_the_same_shape():
    dense, link = L.Linear(12, 5), sl.SharedLinear(12, 5, n_tiles=1)
    link.copyparams(dense)
    numpy.testing.assert_array_equal(link(X).array, dense(X).array)


def test_count_params():
    link = sl.SharedLinear(1000, 900, n_tiles=10)
    assert link.count_params() == 900 * 100 + 900
    assert sl.SharedLinear(
        1000, 900, nobias=True, n_tiles=10).count_params() == 900 * 100
    link = sl.MixedLinear(784, 1000, n_tiles=8, n_blocks=8)
    assert link.count_params() == 784 * 1000 // 64 + 1000
    assert (link.in_size, link.out_size) == (784, 1000)


@EACH_LAZY
def test_count_params_of_what_has_no_weight_yet(kind):
    with pytest.warns(UserWarning, match='not been initialized'):
        assert kind.make(lazy=True).count_params() < 6 * 12


@pytest.mark.parametrize('hook', [
    optimizer_hooks.WeightDecay(0.1), optimizer_hooks.Lasso(0.1),
    optimizer_hooks.GradientClipping(0.5),
    optimizer_hooks.GradientHardClipping(-0.1, 0.1),
    optimizer_hooks.GradientLARS()],
    ids=lambda hook: hook.name)
@EACH_LAZY_OR_NOT
def test_optimizer_hooks(hook, kind, lazy):
    """What a hook does to any parameter, it does to this layer's."""
    def step(link, *args):
        optimizer = optimizers.SGD(0.1).setup(link)
        optimizer.add_hook(hook)
        optimizer.update(*args)

    numpy.random.seed(0)
    link = kind.make(lazy)
    step(link, lambda: F.sum(link(X) ** 2))
    # Parameters of the same numbers, with the reference's gradients.
    numpy.random.seed(0)
    drawn = kind.make(lazy)
    drawn(X)
    grads = kind.gradients(drawn, X, 2 * kind.expected(drawn))
    plain = chainer.Link()
    with plain.init_scope():
        for name, grad in grads.items():
            param = chainer.Parameter(getattr(drawn, name).array.copy())
            param.grad = grad.astype('f')
            setattr(plain, name, param)
    step(plain)
    for p, q in zip(link.params(), plain.params(), strict=True):
        numpy.testing.assert_allclose(p.array, q.array, rtol=1e-5, atol=1e-6)


@EACH
def test_update_rules(kind):
    link = kind.make()
    name, *_ = kind.shapes
    W = getattr(link, name)
    optimizer = optimizers.MomentumSGD(0.1).setup(link)
    assert W.update_rule.hyperparam.lr == 0.1
    before = W.array.copy(), link.b.array.copy()
    W.update_rule.enabled = False
    optimizer.update(lambda: F.sum(link(X)))
    numpy.testing.assert_array_equal(W.array, before[0])
    assert (link.b.array != before[1]).all()
    link.enable_update()
    optimizer.update(lambda: F.sum(link(X)))
    assert (W.array != before[0]).any()
    link.disable_update()
    before = W.array.copy()
    optimizer.update(lambda: F.sum(link(X)))
    numpy.testing.assert_array_equal(W.array, before)
    numpy.testing.assert_array_equal(link.order, kind.order)


@EACH
def test_mixed_precision_updates_in_float32(kind):
    with chainer.using_config('dtype', chainer.mixed16):
        link = kind.make()
        optimizer = optimizers.SGD(1e-5).setup(link)
        optimizer.use_fp32_update()
        before = kind.weights(link.copy('copy'))
        for _ in range(100):  # each alone is lost in float16
            optimizer.update(lambda: F.sum(link(X.astype('e'))))
    for name, W in kind.weights(link).items():
        assert W.dtype == numpy.float16
        moved = W.astype('f') - before[name]
        assert (moved != 0).mean() > 0.5


@EACH
def test_timer_hooks(kind):
    function_timer = chainer.function_hooks.TimerHook()
    with link_hooks.TimerHook() as timer, function_timer:
        F.sum(kind.make()(X)).backward()
    assert [s for s in timer.summary() if kind.link_class.__name__ in s]
    assert kind.node in function_timer.summary()


@pytest.mark.parametrize('hook', [
    link_hooks.SpectralNormalization, link_hooks.WeightStandardization])
@EACH_LAZY_OR_NOT
def test_hooks_that_replace_the_weight(hook, kind, lazy):
    """They put a Variable that is no Parameter in the place of W."""
    link = kind.make(lazy)
    name, *_ = kind.shapes
    link.add_hook(hook(weight_name=name))
    link.cleargrads()
    y = link(X)
    F.sum(y).backward()
    W = getattr(link, name)
    assert isinstance(W, chainer.Parameter)
    assert W.grad is not None
    assert link.in_size == 12

    dense = L.Linear(W.shape[1], len(W), nobias=True, initialW=W.array)
    dense.add_hook(hook())
    eye = numpy.eye(W.shape[1], dtype='f')
    dense(eye)
    if hook is link_hooks.SpectralNormalization:
        # Its power iteration starts at random.
        dense.W_u[...] = getattr(link, name + '_u')
        for _ in range(50):
            dense(eye)
            link(X)
    V = kind.weight(**{**kind.weights(link), name: dense(eye).array.T})
    numpy.testing.assert_allclose(
        link(X).array, reference.affine(X, V, link.b.array), rtol=1e-4,
        atol=1e-5)


@EACH
def test_computational_graph_is_readable(kind):
    link = kind.make()
    link.name = 'fc'
    x = chainer.Variable(X, name='x')
    graph = chainer.computational_graph.build_computational_graph([link(x)])
    dot = graph.dump()
    assert dot.startswith('digraph')
    assert dot.count('label="{}"'.format(kind.node)) == len(kind.shapes)
    for name, shape in {'x': (4, 12), **kind.shapes}.items():
        assert '{}: {}, float32'.format(name, shape) in dot
    assert 'b: (6), float32' in dot


@EACH
def test_static_graph(kind, capfd):
    class Static(chainer.Chain):

        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.layer = kind.make()

        @chainer.static_graph
        def forward(self, x):
            return self.layer(x)

    model = Static()
    for scale in (1, 2, 3):
        model.cleargrads()
        y = model(chainer.Variable(scale * X))
        F.sum(y).backward()
        numpy.testing.assert_allclose(
            y.array, kind.expected(model.layer, scale * X), rtol=1e-5,
            atol=1e-5)
        grads = kind.gradients(model.layer, scale * X, numpy.ones((4, 6)))
        for name, grad in grads.items():
            numpy.testing.assert_allclose(
                getattr(model.layer, name).grad, grad, rtol=1e-5, atol=1e-5)
    capfd.readouterr()  # Chainer prints as it builds a schedule


@EACH
def test_training_is_that_of_the_definition(kind):
    """Adam, written out in float64, with the reference's gradients."""
    rng = numpy.random.RandomState(0)
    x, t = rng.randn(32, 12), rng.randn(32, 6)
    with chainer.using_config('dtype', numpy.dtype('d')):
        link, by_hand = kind.make(), kind.make()
    by_hand.copyparams(link)
    optimizer = optimizers.Adam(0.05).setup(link)
    moments = {n: [0, 0] for n in (*kind.shapes, 'b')}
    losses = []
    for step in range(1, 101):
        optimizer.update(
            lambda: F.mean_squared_error(link(x), t))

        error = kind.expected(by_hand, x) - t
        losses.append((error ** 2).mean())
        grads = kind.gradients(by_hand, x, 2 * error / error.size)
        rate = 0.05 * (1 - 0.999 ** step) ** .5 / (1 - 0.9 ** step)
        for name, g in grads.items():
            m, v = moments[name]
            m = m + (1 - 0.9) * (g - m)
            v = v + (1 - 0.999) * (g * g - v)
            moments[name] = m, v
            getattr(by_hand, name).array -= rate * m / (v ** .5 + 1e-8)
    for p, q in zip(link.params(), by_hand.params(), strict=True):
        numpy.testing.assert_allclose(p.array, q.array, rtol=1e-8)
    assert losses[0] > 1.5 * losses[-1]


def test_training_comes_to_least_squares():
    """On the folded input, to which the layer is a dense one."""
    rng = numpy.random.RandomState(0)
    x, t = rng.randn(32, 12), rng.randn(32, 6)
    link = kinds.KINDS['shared'].make()
    optimizer = optimizers.Adam(0.05).setup(link)
    for _ in range(101):
        loss = F.mean_squared_error(link(x.astype('f')), t.astype('f'))
        optimizer.update(lambda loss=loss: loss)
    folded = numpy.c_[reference.fold(x, 3), numpy.ones(32)]
    best = t - folded @ numpy.linalg.lstsq(folded, t, rcond=None)[0]
    assert float(loss.array) == pytest.approx((best ** 2).mean(), rel=0.02)
