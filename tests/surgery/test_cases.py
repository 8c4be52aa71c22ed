"""The cases that a rewired network must pass, after NNabla's own tests."""
import copy

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from networks import (
    CNN,
    MLP,
    Article,
    Recurrent,
    Skips,
    images,
    parameters,
    randomize,
    vectors,
)

from shared_linear import surgery


def outputs(model, x):
    found = []
    surgery.trace(model, x).visit(
        lambda node: found.append(float(node.outputs[0].array[0])))
    return found


def gradients(model, y):
    model.cleargrads()
    F.sum(y * y).backward()
    return {path: param.grad for path, param in model.namedparams()}


def assert_same_gradients(actual, expected, pairs):
    for ours, theirs in pairs.items():
        assert actual[ours] is not None, ours
        np.testing.assert_allclose(
            actual[ours], expected[theirs], rtol=1e-5, atol=1e-6,
            err_msg=ours)


def test_1_the_article():
    model = Article()
    x = chainer.Variable(np.zeros(1, np.float32))
    assert outputs(model, x) == [0.5, -1.0]
    assert surgery.insert_after(model, '/AddConstant', F.square) is model
    assert outputs(model, x) == [0.5, 0.25, -0.5]
    # As its author would have written it.
    np.testing.assert_array_equal(model(x).array, (x.array + .5) ** 2 * -2)
    x = chainer.Variable(np.array([3.], np.float32))
    F.sum(model(x)).backward()
    np.testing.assert_allclose(x.grad, 2 * (3 + .5) * -2)


class Composed(chainer.Chain):

    """Two networks, each run on an input of its own."""

    def __init__(self, rewired=False):
        super().__init__()
        self.rewired = rewired
        with self.init_scope():
            self.a = L.Linear(6, 5)
            self.b1 = L.Linear(5, 4)
            self.b2 = L.Linear(5, 4)

    def forward(self, x, z):
        y = F.tanh(self.a(x))
        if self.rewired:
            z = y
        return F.relu(self.b1(z)), F.sigmoid(self.b2(z))


def composed_pair():
    by_hand = randomize(Composed(rewired=True))
    edited = randomize(Composed())
    return edited, by_hand


@pytest.mark.parametrize('branch', [0, 1])
def test_2_and_3_the_root_of_b_is_rewired_onto_a(branch):
    edited, by_hand = composed_pair()
    x, z = vectors(), vectors(width=5, seed=1)
    surgery.trace(edited, x, z)
    surgery.rewire(edited, ['/b1', '/b2'], input=0, source='/Tanh')
    got, expected = edited(x, z), by_hand(x, z)
    for y, wanted in zip(got, expected, strict=True):
        np.testing.assert_array_equal(y.array, wanted.array)
    # Backward through each branch in turn.
    for i in (branch, 1 - branch):
        ours, theirs = (
            gradients(model, y[i])
            for model, y in ((edited, got), (by_hand, expected)))
        used = ['/a/W', '/a/b', f'/b{i + 1}/W', f'/b{i + 1}/b']
        assert_same_gradients(ours, theirs, {name: name for name in used})
        assert ours[f'/b{2 - i}/W'] is None


def test_2_structure_of_the_rewired_network():
    edited, by_hand = composed_pair()
    x, z = vectors(), vectors(width=5, seed=1)
    surgery.rewire(
        edited, ['/b1/LinearFunction', '/b2/LinearFunction'], input=0,
        source='/Tanh', x=(x, z))

    def edges(model):
        return [(node.address, [v.origin for v in node.inputs])
                for node in surgery.trace(model, x, z)]

    assert edges(edited) == edges(by_hand)


def test_4_a_removed_function():
    class Without(MLP):
        def forward(self, x):
            h = F.relu(self.l1(x))
            h = F.relu(self.l2(h))
            return self.l3(h)

    edited, by_hand = randomize(MLP()), randomize(Without())
    surgery.trace(edited, vectors())
    surgery.remove(edited, '/dropout', input=0)
    with chainer.using_config('train', True):
        got, expected = edited(vectors()), by_hand(vectors())
        np.testing.assert_array_equal(got.array, expected.array)
        names = {name: name for name in parameters(edited)}
        assert_same_gradients(
            gradients(edited, got), gradients(by_hand, expected), names)
        assert [n.address for n in surgery.trace(edited, vectors())] == [
            n.address for n in surgery.trace(by_hand, vectors())]


def test_4_a_removed_function_still_has_inputs():
    seen = []

    class Keeps(chainer.Chain):
        def forward(self, x):
            function = F.activation.relu.ReLU()
            y, = function.apply((x,))
            seen.append((function, x))
            return F.tanh(y)

    model = surgery.remove(Keeps(), '/ReLU')
    model(chainer.Variable(vectors()))
    function, x = seen[-1]
    assert function.inputs == (x.node,)


def test_4_an_inserted_output_fans_out():
    class ByHand(Skips):
        def forward(self, x):
            h = F.tanh(F.relu(self.a(x)))
            s = h + self.b(h)
            return self.c(F.concat([h, s]))

    edited, by_hand = randomize(Skips()), randomize(ByHand())
    surgery.insert_after(edited, '/ReLU', F.tanh, name='squash')
    got, expected = edited(vectors()), by_hand(vectors())
    np.testing.assert_array_equal(got.array, expected.array)
    names = {name: name for name in parameters(by_hand)}
    assert_same_gradients(
        gradients(edited, got), gradients(by_hand, expected), names)
    graph = surgery.trace(edited, vectors())
    readers = graph['/squash/Tanh'].outputs[0].readers
    assert [(node.address, i) for node, i in readers] == [
        ('/b/LinearFunction', 0), ('/Add', 0), ('/Concat', 0)]
    assert [n.address for n, _ in graph['/ReLU'].outputs[0].readers] == [
        '/squash/Tanh']


def test_4_an_input_taken_from_an_earlier_function():
    class ByHand(Skips):
        def forward(self, x):
            h = F.relu(self.a(x))
            s = h + self.b(h)
            return self.c(F.concat([self.a_out, s]))

    edited, by_hand = randomize(Skips()), randomize(ByHand())
    surgery.rewire(edited, '/Concat', input=0, source='/a')
    by_hand.a_out = by_hand.a(vectors())
    np.testing.assert_array_equal(
        edited(vectors()).array, by_hand(vectors()).array)
    graph = surgery.trace(edited, vectors())
    assert graph['/Concat'].inputs[0].origin == '/a/LinearFunction'


def test_4_an_input_taken_from_later_is_refused():
    model = Skips()
    surgery.trace(model, vectors())
    with pytest.raises(
            surgery.EditError,
            match='source /Concat is computed later than its reader /Add'):
        surgery.rewire(model, '/Add', input=0, source='/Concat')
    assert surgery.edits(model) == []


def test_4_a_link_cannot_read_what_runs_in_it():
    model = Skips()
    surgery.trace(model, vectors())
    with pytest.raises(surgery.EditError, match='computed later'):
        surgery.rewire(model, '/b', input=0, source='/b/LinearFunction')


def test_6_quantization_aware_training_saves_and_loads(tmp_path):
    def edit(model):
        surgery.insert_after(
            model, '/ReLU*', lambda node: surgery.FakeQuantize(8),
            each=True, name='act', x=images())
        return model

    model = edit(randomize(CNN()))
    assert model.act_ReLU is not model.act_ReLU_1
    optimizer = chainer.optimizers.SGD(.01).setup(model)
    t = np.zeros(2, np.int32)
    before = parameters(model)
    for seed in range(3):
        optimizer.update(
            lambda x: F.softmax_cross_entropy(model(x), t), images(seed=seed))
    assert not np.array_equal(model.conv1.W.array, before['/conv1/W'])
    for quantizer in (model.act_ReLU, model.act_ReLU_1):
        assert quantizer.n_observed == 3
        quantizer.calibrating = False
    path = tmp_path / 'model.npz'
    chainer.serializers.save_npz(path, model)
    loaded = edit(CNN())
    chainer.serializers.load_npz(path, loaded)
    assert loaded.act_ReLU.calibrating is False
    with chainer.using_config('train', False):
        np.testing.assert_array_equal(
            loaded(images()).array, model(images()).array)
        # And the file loads into the model as its author wrote it.
        original = CNN()
        chainer.serializers.load_npz(path, original)
        surgery.revert(loaded)
        np.testing.assert_array_equal(
            original(images()).array, loaded(images()).array)


def test_8_other_batch_sizes_and_modes():
    class ByHand(CNN):
        def forward(self, x):
            h = F.elu(self.bn1(self.conv1(x)))
            h = F.max_pooling_2d(h, 2)[:, :, :5, :5]
            h = F.pad(h, ((0, 0), (0, 0), (0, 1), (0, 1)), 'constant')
            h = F.elu(self.bn2(F.tanh(self.conv2(h))))
            return self.fc(h)

    edited, by_hand = randomize(CNN()), randomize(ByHand())
    surgery.trace(edited, images())
    surgery.replace(edited, '/ReLU*', F.elu)
    surgery.insert_before(edited, '/bn2', F.tanh, input=0)
    for n in 1, 2, 7:
        for train in False, True:
            with chainer.using_config('train', train):
                np.testing.assert_array_equal(
                    edited(images(n)).array, by_hand(images(n)).array)
    np.testing.assert_array_equal(
        edited.bn2.avg_mean, by_hand.bn2.avg_mean)


def test_8_a_sequence_of_another_length():
    class ByHand(Recurrent):
        def forward(self, xs):
            self.lstm.reset_state()
            for x in xs:
                self.lstm.h = h = F.sigmoid(self.lstm(x))
            return F.tanh(self.out(h))

    edited, by_hand = randomize(Recurrent()), randomize(ByHand())
    surgery.trace(edited, np.stack([vectors()] * 2))
    # Its state is the LSTM's own: the layer goes after the function in it.
    surgery.insert_after(edited, '/lstm/LSTM*', F.sigmoid, output=1)
    for length, n in (2, 4), (5, 4), (3, 1):
        xs = np.stack([vectors(n, seed=i) for i in range(length)])
        got, expected = edited(xs), by_hand(xs)
        np.testing.assert_array_equal(got.array, expected.array)
        names = {name: name for name in parameters(by_hand)}
        assert_same_gradients(
            gradients(edited, got), gradients(by_hand, expected), names)


def test_8_one_layer_for_each_place_serves_every_step():
    model = Recurrent()
    surgery.insert_after(
        model, '/lstm/LSTM*', lambda node: surgery.FakeQuantize(8),
        output=1, each=True, name='q', x=np.stack([vectors()] * 2))
    added = [path for path, link in model.namedlinks()
             if isinstance(link, surgery.FakeQuantize)]
    assert added == ['/lstm/q_LSTM']
    model(np.stack([vectors()] * 5))
    assert model.lstm.q_LSTM.n_observed == 5


def test_edits_leave_a_deep_copy_alone():
    model = randomize(Skips())
    old = copy.deepcopy(model)
    surgery.insert_after(model, '/ReLU', F.tanh)
    assert surgery.edits(old) == []
    assert not np.array_equal(model(vectors()).array, old(vectors()).array)
