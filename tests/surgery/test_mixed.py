"""Edits of networks with mixed sharing, against the definition in float64."""
import copy
import pickle

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
import reference
from networks import parameters, snapshot, vectors
from test_batch_norm import assert_close, bn, evaluate, normalized
from test_quantization import by_hand

import shared_linear as sl
from shared_linear import surgery


def mixed(in_size=6, out_size=6, n_tiles=2, n_blocks=3, seed=1, order=None,
          nobias=False):
    link = sl.MixedLinear(
        in_size, out_size, nobias, n_tiles=n_tiles, n_blocks=n_blocks,
        seed=seed, order=order)
    random = np.random.RandomState(seed)
    for param in link.params():
        param.array[...] = random.randn(*param.shape)
    return link


def defined(link, x, W=None):
    """What the layer computes, in float64."""
    mixing = {'n_tiles': link.n_tiles, 'n_blocks': link.n_blocks,
              'seed': link.seed, 'order': link.order}
    return reference.mixed_linear(
        x, link.W.array if W is None else W,
        None if link.b is None else link.b.array, mixing)


def relu(x):
    return np.maximum(x, 0)


class Network(chainer.Chain):

    def __init__(self):
        super().__init__()
        random = np.random.RandomState(0)
        with self.init_scope():
            self.l1 = mixed(seed=1)
            self.l2 = mixed(seed=2)
            self.l3 = L.Linear(6, 3, initialW=random.randn(3, 6))

    def forward(self, x):
        h = F.relu(self.l1(x))
        h = F.relu(self.l2(h))
        return self.l3(h)


def head(model, h):
    return h @ model.l3.W.array.T.astype(float) + model.l3.b.array


def test_trace():
    model, x = Network(), vectors()
    graph = surgery.trace(model, x)
    assert [node.address for node in graph] == [
        '/l1/MixedLinearFunction', '/ReLU', '/l2/MixedLinearFunction',
        '/ReLU_1', '/l3/LinearFunction']
    node = graph['/l2/MixedLinearFunction']
    assert node.link is model.l2
    assert [v.origin for v in node.inputs[1:]] == ['/l2/W', '/l2/b']
    assert [v.shape for v in node.inputs] == [(4, 6), (2, 3), (6,)]
    assert_close(
        node.outputs[0].array,
        defined(model.l2, relu(defined(model.l1, x)).astype('f')))
    assert [n.link for n in graph.find(link=sl.MixedLinear)] == [
        model.l1, model.l2]
    assert graph.find(link=sl.SharedLinear) == []


@pytest.mark.parametrize('address', ['/l1', '/l1/MixedLinearFunction'])
def test_insert_after(address):
    model, x = Network(), vectors()
    new = mixed(seed=9)
    surgery.insert_after(model, address, new, name='new')
    h = defined(new, defined(model.l1, x))
    h = relu(defined(model.l2, relu(h)))
    assert_close(evaluate(model, x), head(model, h))
    assert '/l1/new/W' in parameters(model) or '/new/W' in parameters(model)
    # Trained on, all four layers learn.
    model.cleargrads()
    F.sum(model(x)).backward()
    assert all(p.grad is not None for p in model.params())


def test_insert_before():
    model, x = Network(), vectors()
    surgery.insert_before(model, '/l2', F.tanh, input=0)
    h = np.tanh(relu(defined(model.l1, x)))
    assert_close(
        evaluate(model, x), head(model, relu(defined(model.l2, h))))


def test_a_function_on_the_weight():
    model, x = Network(), vectors()
    surgery.insert_before(
        model, '/l1/MixedLinearFunction', lambda W: 2 * W, input=1)
    h = relu(defined(model.l1, x, 2 * model.l1.W.array))
    assert_close(
        evaluate(model, x), head(model, relu(defined(model.l2, h))))


def test_replace():
    model, x = Network(), vectors()
    new = mixed(n_tiles=3, n_blocks=2, seed=7)
    surgery.replace(model, '/l1', new, name='new')
    h = relu(defined(model.l2, relu(defined(new, x))))
    assert_close(evaluate(model, x), head(model, h))
    surgery.revert(model)
    h = relu(defined(model.l2, relu(defined(model.l1, x))))
    assert_close(evaluate(model, x), head(model, h))


def test_replace_a_dense_layer_by_one_that_is_fitted():
    class Dense(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.l = mixed().to_linear()

        def forward(self, x):
            return F.relu(self.l(x))

    model, x = Dense(), vectors()
    before = evaluate(model, x)
    surgery.replace(model, '/l', sl.MixedLinear.from_linear(
        model.l, 2, n_blocks=3, seed=1))
    assert_close(evaluate(model, x), before)


def test_remove():
    model, x = Network(), vectors()
    surgery.remove(model, '/l1')
    h = relu(defined(model.l2, relu(x)))
    assert_close(evaluate(model, x), head(model, h))


def test_rewire():
    model, x = Network(), vectors()
    surgery.rewire(model, '/l3', source='/l1')
    assert_close(evaluate(model, x), head(model, defined(model.l1, x)))


def test_gradients_are_those_of_the_network_written_by_hand():
    class ByHand(Network):
        def forward(self, x):
            h = F.tanh(F.relu(self.l1(x)))
            return self.l3(self.l2(h))

    model, by_hand, x = Network(), ByHand(), vectors()
    surgery.insert_after(model, '/ReLU', F.tanh)
    surgery.remove(model, '/ReLU_1')
    for m in model, by_hand:
        m.cleargrads()
        F.sum(m(x) ** 2).backward()
    for (name, p), (_, q) in zip(
            sorted(model.namedparams()), sorted(by_hand.namedparams()),
            strict=True):
        np.testing.assert_array_equal(p.grad, q.grad, err_msg=name)


@pytest.mark.parametrize('make', [
    copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)),
    lambda m: m.copy('copy')])
def test_copies_and_files(tmp_path, make):
    model, x = Network(), vectors()
    surgery.insert_after(model, '/ReLU', mixed(seed=9), name='new')
    before = evaluate(model, x)
    np.testing.assert_array_equal(evaluate(make(model), x), before)
    chainer.serializers.save_npz(tmp_path / 'model.npz', model)
    other = Network()
    surgery.insert_after(other, '/ReLU', mixed(seed=9), name='new')
    for param in other.params():
        param.array[...] = 0
    chainer.serializers.load_npz(tmp_path / 'model.npz', other)
    np.testing.assert_array_equal(evaluate(other, x), before)


def test_quantize():
    model, x = Network(), vectors(16)
    plain = copy.deepcopy(model)
    report = surgery.quantize(model, x, n_bits=6)
    assert [one.what for one in report] == [
        '/l1/W', 'output', '/l2/W', 'output', '/l3/W']

    def rounded(W):
        return np.stack([
            by_hand(row, row.min(), row.max(), 6, True) for row in W])

    def layer(link, h):
        return defined(link, h, rounded(link.W.array))

    def activation(h):
        return by_hand(relu(h), 0, relu(h).max(), 6, False)

    h = activation(layer(plain.l1, x))
    h = activation(layer(plain.l2, h))
    y = h @ rounded(plain.l3.W.array).T + plain.l3.b.array
    assert_close(evaluate(model, x), y)
    surgery.revert(model)
    assert snapshot(model) == snapshot(plain)


def scaled(scale):
    """A batch normalization of a given scale, and of a shift of any kind."""
    normalization = bn(len(scale))
    normalization.gamma.array[...] = scale * np.sqrt(
        normalization.avg_var + normalization.eps)
    return normalization


def check_folded(model, x, expected, into):
    assert_close(evaluate(model, x), expected)
    report = surgery.fold_batch_normalization(model, x)
    assert [one.into for one in report] == [into], str(report)
    assert_close(evaluate(model, x), expected)
    assert [n.function for n in surgery.trace(model, x)] == [
        'MixedLinearFunction']


def check_left_alone(model, x, reason):
    before, y = parameters(model), evaluate(model, x)
    report = surgery.fold_batch_normalization(model, x)
    assert [one.into for one in report] == [None]
    assert reason in report[0].reason
    np.testing.assert_array_equal(evaluate(model, x), y)
    for name, array in parameters(model).items():
        np.testing.assert_array_equal(array, before[name])
    assert surgery.edits(model) == []


ORDER = np.array([3, 1, 5, 0, 4, 2])
KINDS = pytest.mark.parametrize('order, nobias', [
    (None, False), (None, True), (ORDER, False)])


@KINDS
class TestBehind:

    def test_blocks_with_scales_of_their_own(self, order, nobias):
        """W cannot take them in, whatever the bias can."""
        model = chainer.Sequential(
            mixed(order=order, nobias=nobias), bn(6))
        check_left_alone(
            model, vectors(), 'the scale differs between blocks of outputs, '
            'which share a weight')

    def test_blocks_with_the_same_scale(self, order, nobias):
        link = mixed(order=order, nobias=nobias)
        model = chainer.Sequential(
            link, scaled(np.tile([.5, -2.], 3)))
        x = vectors()
        check_folded(
            model, x, normalized(defined(link, x), model[1]), '/0')
        assert link.W.shape == (2, 3) and link.b.shape == (6,)

    def test_one_block(self, order, nobias):
        link = mixed(n_blocks=1, order=order, nobias=nobias)
        model, x = chainer.Sequential(link, bn(6)), vectors()
        check_folded(
            model, x, normalized(defined(link, x), model[1]), '/0')

    def test_reverting(self, order, nobias):
        link = mixed(order=order, nobias=nobias)
        model = chainer.Sequential(link, scaled(np.ones(6)))
        x = vectors()
        expected = normalized(defined(link, x), model[1])
        surgery.fold_batch_normalization(model, x)
        surgery.revert(model)
        assert (link.b is None) is nobias
        assert_close(evaluate(model, x), expected)


@KINDS
class TestInFront:

    def test_scales_of_their_own(self, order, nobias):
        model = chainer.Sequential(bn(6), mixed(order=order, nobias=nobias))
        check_left_alone(
            model, vectors(),
            'the scale differs between inputs that share a weight')

    @pytest.mark.parametrize('n_blocks', [1, 3])
    def test_the_same_scale(self, order, nobias, n_blocks):
        link = mixed(order=order, nobias=nobias, n_blocks=n_blocks)
        model = chainer.Sequential(scaled(np.full(6, -2.)), link)
        x = vectors()
        check_folded(
            model, x, defined(link, normalized(x, model[0])), '/1')

    def test_the_same_scale_in_each_column_of_one_block(
            self, order, nobias):
        link = mixed(n_blocks=1, order=order, nobias=nobias)
        (permutation, _), = reference.mixed_permutations(6, 1, 1, order)
        scale = np.empty(6)
        scale[permutation] = [.5, 2, -3, .5, 2, -3]
        model, x = chainer.Sequential(scaled(scale), link), vectors()
        check_folded(
            model, x, defined(link, normalized(x, model[0])), '/1')

    def test_the_same_scale_in_the_columns_of_the_first_block_only(
            self, order, nobias):
        link = mixed(n_blocks=2, order=order, nobias=nobias)
        (permutation, _), _ = reference.mixed_permutations(6, 2, 1, order)
        scale = np.empty(6)
        scale[permutation] = [.5, 2, -3, .5, 2, -3]
        check_left_alone(
            chainer.Sequential(scaled(scale), link), vectors(),
            'the scale differs between inputs that share a weight')


def test_by_the_channels_of_an_image():
    link = mixed(8, n_tiles=4)
    model = chainer.Sequential(scaled(np.full(2, 3.)), link)
    x = vectors(width=8).reshape(4, 2, 2, 2)
    check_folded(model, x, defined(link, normalized(x, model[0])), '/1')
    model = chainer.Sequential(bn(2), link)
    check_left_alone(
        model, x, 'the scale differs between inputs that share a weight')


def test_the_layer_on_the_other_side_takes_it():
    """What the blocks cannot take in, a dense layer next to it can."""
    for layers in ((L.Linear(6, 6), bn(6), mixed()),
                   (mixed(), bn(6), L.Linear(6, 6))):
        model, x = chainer.Sequential(*layers), vectors()
        paths = {type(link): path for path, link in model.namedlinks()}
        before = evaluate(model, x)
        report = surgery.fold_batch_normalization(model, x)
        assert [one.into for one in report] == [paths[L.Linear]]
        assert_close(evaluate(model, x), before)


def test_a_class_derived_from_it():
    class Own(sl.MixedLinear):
        pass

    model = chainer.Sequential(
        Own(6, 6, n_tiles=2, n_blocks=3, seed=1), bn(6))
    check_left_alone(model, vectors(), 'which share a weight')
