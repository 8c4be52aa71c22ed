import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from networks import (
    CNN,
    MLP,
    Bias,
    Block,
    OldStyle,
    Recurrent,
    Skips,
    images,
    randomize,
    snapshot,
    vectors,
)

from shared_linear import surgery


def double(h):
    return h * 2


def increment(h):
    return h + 1


def test_layers_run_in_the_order_in_which_they_were_made():
    model = chainer.Sequential(F.relu)
    x = chainer.Variable(vectors())
    surgery.insert_after(model, '/ReLU', increment)
    surgery.insert_after(model, '/ReLU', double)
    surgery.insert_before(model, '/ReLU', increment)
    surgery.insert_before(model, '/ReLU', double)
    expected = (np.maximum((x.array + 1) * 2, 0) + 1) * 2
    np.testing.assert_array_equal(model(x).array, expected)
    assert [str(one) for one in surgery.edits(model)] == [
        'insert after /ReLU: increment as /increment',
        'insert after /ReLU: double as /double',
        'insert before /ReLU input=0: increment as /increment_1',
        'insert before /ReLU input=0: double as /double_1']


def test_the_last_replacement_counts():
    model = chainer.Sequential(F.relu)
    x = vectors()
    surgery.replace(model, '/ReLU', F.tanh)
    surgery.replace(model, '/ReLU', F.sigmoid)
    np.testing.assert_array_equal(model(x).array, F.sigmoid(x).array)
    surgery.remove(model, '/ReLU')
    np.testing.assert_array_equal(model(x).array, x)


@pytest.mark.parametrize('child_first', [True, False])
def test_edits_of_a_parent_and_of_its_child_both_apply(child_first):
    class Parent(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.block = Block()

        def forward(self, x):
            return self.block(x) + 0

    model = randomize(Parent())
    x = vectors()
    h = np.maximum(x @ model.block.l.W.array.T + model.block.l.b.array, 0)
    both = [lambda: surgery.insert_after(model.block, '/ReLU', double),
            lambda: surgery.insert_after(model, '/block/ReLU', increment)]
    for make in both if child_first else reversed(both):
        make()
    expected = 2 * h + 1 if child_first else 2 * (h + 1)
    np.testing.assert_allclose(model(x).array, expected, rtol=1e-6)
    # The child alone keeps both: that is where they act.
    np.testing.assert_allclose(model.block(x).array, expected, rtol=1e-6)
    listed = [str(one) for one in surgery.edits(model)]
    assert listed == ([
        'insert after /ReLU: double as /double, made on /block',
        'insert after /block/ReLU: increment as /increment'
    ] if child_first else [
        'insert after /block/ReLU: increment as /increment',
        'insert after /ReLU: double as /double, made on /block'])


def test_the_order_is_that_of_making_however_edits_are_tried():
    model = chainer.Sequential(Block())
    x = vectors()
    # Tried on the first run; at once; on the first run.
    surgery.insert_after(model, '/0/ReLU', increment)
    surgery.insert_after(model, '/0/ReLU', double, x=x)
    surgery.insert_after(model[0], '/ReLU', increment, name='last')
    h = np.maximum(model[0].l(x).array, 0)
    np.testing.assert_array_equal(model(x).array, (h + 1) * 2 + 1)
    assert [str(one).split(' as /')[1] for one in surgery.edits(model)] == [
        'increment', 'double', 'last, made on /0']


def test_an_edit_counts_from_the_call_of_the_link_it_was_made_on():
    class Twice(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.inner = Inner()

        def forward(self, x):
            return self.inner(self.inner(x))

    class Inner(chainer.Chain):
        def forward(self, x):
            return F.relu(F.relu(x))

    x = np.abs(vectors())
    model = Twice()
    surgery.insert_after(model.inner, '/ReLU_1', increment)
    np.testing.assert_array_equal(model.inner(x).array, x + 1)
    np.testing.assert_array_equal(model(x).array, x + 1 + 1)
    # The parent's ReLU_1 is the first call's second, counted in the parent.
    surgery.insert_after(model, '/inner/ReLU_1', double)
    np.testing.assert_array_equal(model(x).array, (x + 1) * 2 + 1)


def test_a_classifier_and_its_predictor_alone():
    model = L.Classifier(randomize(MLP()))
    x, t = vectors(), np.zeros(4, np.int32)
    surgery.trace(model, x, t)
    surgery.replace(model, '/predictor/ReLU*', F.elu)
    surgery.remove(model, 'Dropout')
    p = model.predictor

    def by_hand(x):
        h = F.elu(F.linear(x, p.l1.W, p.l1.b))
        h = F.elu(F.linear(h, p.l2.W, p.l2.b))
        return F.linear(h, p.l3.W, p.l3.b)

    np.testing.assert_array_equal(
        model(x, t).array, F.softmax_cross_entropy(by_hand(x), t).array)
    np.testing.assert_array_equal(model.predictor(x).array, by_hand(x).array)
    np.testing.assert_array_equal(
        model.predictor.forward(x).array, by_hand(x).array)


def test_the_layer_is_held_where_it_runs():
    model = L.Classifier(MLP())
    surgery.trace(model, vectors(), np.zeros(4, np.int32))
    surgery.insert_after(model, 'ReLU*', Bias(1.), name='bias')
    assert dict(model.namedparams())['/predictor/bias/shift'].array == 1
    assert model.predictor.bias.shift.array == 1


def test_a_link_can_be_inserted_around_its_call():
    class ByHand(Skips):
        def forward(self, x):
            h = F.relu(self.a(x))
            s = h + F.tanh(self.b(F.sigmoid(h)))
            return self.c(F.concat([h, s]))

    model, by_hand = randomize(Skips()), randomize(ByHand())
    surgery.insert_before(model, '/b', F.sigmoid, input=0)
    surgery.insert_after(model, '/b', F.tanh)
    np.testing.assert_array_equal(
        model(vectors()).array, by_hand(vectors()).array)


def test_replacing_a_link_by_a_trained_link():
    model = randomize(Skips())
    new = randomize(L.Linear(6, 6), seed=9)
    surgery.trace(model, vectors())
    surgery.replace(model, '/b', new, name='b_new')
    h = F.relu(model.a(vectors()))
    expected = model.c(F.concat([h, h + new(h)]))
    y = model(vectors())
    np.testing.assert_array_equal(y.array, expected.array)
    model.cleargrads()
    F.sum(y).backward()
    assert model.b.W.grad is None
    assert new.W.grad is not None
    assert '/b/W' in dict(model.namedparams())


def test_replacing_a_function_that_has_parameters():
    model = randomize(MLP())
    surgery.replace(
        model, '/l1/LinearFunction', lambda x, W, b: F.linear(x, 2 * W, b))
    np.testing.assert_array_equal(
        model.l1(vectors()).array,
        F.linear(vectors(), 2 * model.l1.W, model.l1.b).array)


def test_each_gets_the_node_of_its_place():
    nodes = []

    def make(node):
        nodes.append(node)
        return Bias()

    model = CNN()
    surgery.trace(model, images())
    surgery.insert_after(model, '/ReLU*', make, each=True, name='bias')
    assert [(n.address, n.function, n.outputs[0].shape) for n in nodes] == [
        ('/ReLU', 'ReLU', (2, 4, 8, 8)), ('/ReLU_1', 'ReLU', (2, 6, 3, 3))]
    assert [p for p in sorted(dict(model.namedparams())) if 'bias' in p] == [
        '/bias_ReLU/shift', '/bias_ReLU_1/shift']


def test_each_without_a_trace_makes_layers_on_the_first_run():
    model = CNN()
    surgery.insert_after(
        model, '/ReLU*', lambda node: Bias(3.), each=True, name='bias')
    y = model(images())
    assert model.bias_ReLU.n_calls == model.bias_ReLU_1.n_calls == 1
    F.sum(y).backward()
    assert model.bias_ReLU.shift.grad is not None


def test_each_meets_a_function_that_ran_in_no_trace():
    class Loop(chainer.Chain):
        def forward(self, x, n):
            for _ in range(n):
                x = F.relu(x)
            return x

    model = Loop()
    surgery.trace(model, vectors(), 1)
    surgery.insert_after(
        model, '/ReLU*', lambda node: Bias(1.), each=True, name='bias')
    x = np.zeros((1, 6), np.float32)
    np.testing.assert_array_equal(model(x, 3).array, x + 3)
    assert len(list(model.params())) == 3
    surgery.trace(model, x, 4)
    assert model.bias_ReLU_3.n_calls == 0
    assert model.bias_ReLU_2.n_calls == 1


def test_an_edit_does_not_act_on_its_own_layer():
    model = MLP()
    surgery.trace(model, vectors())
    surgery.insert_after(model, '/**/ReLU*', lambda h: F.relu(h))
    graph = surgery.trace(model, vectors())
    assert len(graph.find('ReLU*')) == 4


def test_an_inserted_layer_can_be_edited_in_turn():
    model = chainer.Sequential(F.relu)
    x = np.abs(vectors())
    surgery.trace(model, x)
    surgery.insert_after(model, '/ReLU', increment, name='more')
    surgery.insert_after(model, '/more', double)
    surgery.replace(model, '/more/AddConstant', lambda h: h + 10)
    np.testing.assert_array_equal(model(x).array, (x + 10) * 2)


def test_addresses_do_not_shift_when_a_layer_is_inserted():
    model = MLP()
    before = [n.address for n in surgery.trace(model, vectors())]
    surgery.insert_after(model, '/l1', lambda h: F.relu(h))
    after = [n.address for n in surgery.trace(model, vectors())]
    assert after == before[:1] + ['/lambda/ReLU'] + before[1:]


def test_ignoring_case_only_where_nothing_matches_exactly():
    class Named(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.relu = Block()

        def forward(self, x):
            return F.relu(self.relu(x) - 1)

    model = randomize(Named())
    surgery.trace(model, vectors())
    surgery.insert_after(model, '/relu', increment)
    expected = np.maximum(model.relu(vectors()).array - 1 + 1, 0)
    np.testing.assert_allclose(model(vectors()).array, expected, atol=1e-6)


def test_old_style_functions_and_calls():
    model = randomize(OldStyle())
    x = vectors()
    surgery.insert_after(model, '/OldSquare', increment)
    surgery.insert_before(model, '/l1', double)
    y = model(x)
    h = 2 * x @ model.l1.W.array.T + model.l1.b.array
    np.testing.assert_allclose(y.array, h * h + 1, rtol=1e-5)
    model.cleargrads()
    F.sum(y).backward()
    np.testing.assert_allclose(
        model.l1.b.grad, (2 * h).sum(axis=0), rtol=1e-4)
    surgery.revert(model)
    assert type(model) is OldStyle


def test_a_recurrent_link_as_the_model():
    model = randomize(L.LSTM(6, 5))
    plain = model.copy('copy')
    surgery.insert_after(model, '/LSTM', Bias(), output=1)
    for seed in range(3):
        np.testing.assert_array_equal(
            model(vectors(seed=seed)).array, plain(vectors(seed=seed)).array)


def test_recursion_of_a_link_into_itself():
    class Tree(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.l = L.Linear(6, 6)

        def forward(self, x, depth):
            if depth:
                x = self(x, depth - 1)
            return F.relu(self.l(x))

    model = randomize(Tree())
    surgery.insert_after(model, '/ReLU*', increment)
    x = vectors()
    expected = x
    for _ in range(3):
        expected = F.relu(model.l(expected)).array + 1
    np.testing.assert_array_equal(model(x, 2).array, expected)


@pytest.mark.parametrize('how', ['forward', '__call__'])
def test_each_call_of_a_recursion_has_the_same_places(how):
    class Tree(chainer.Chain):
        def forward(self, x, depth):
            if depth:
                x = getattr(self, how)(x, depth - 1)
            return F.relu(x)

    class Around(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.tree = Tree()

        def forward(self, x, depth):
            return self.tree(x, depth)

    x = vectors()
    for model in Tree(), Around():
        surgery.trace(model, x, 2)
        tree = getattr(model, 'tree', model)
        surgery.insert_after(
            model, 'ReLU*', lambda node: Bias(1.), each=True, name='bias')
        model(x, 4)
        assert [path for path, _ in tree.namedparams()] == [
            '/bias_ReLU/shift']
        assert tree.bias_ReLU.n_calls == 5
        # The third of the run alone.
        surgery.revert(model)
        prefix = '' if tree is model else '/tree'
        surgery.insert_after(model, f'{prefix}/ReLU_2', double)
        np.testing.assert_array_equal(
            model(x, 3).array, 2 * np.maximum(x, 0))


def test_an_edit_of_everything_does_not_act_on_its_own_layer():
    model = chainer.Sequential(F.relu)
    surgery.insert_after(model, '/*', increment)
    np.testing.assert_array_equal(
        model(vectors()).array, np.maximum(vectors(), 0) + 1)


def test_a_rewired_part_that_runs_alone_runs_unedited():
    class Two(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.a = Block()
                self.b = Block()

        def forward(self, x):
            return self.a(x), self.b(x)

    model = randomize(Two())
    x = vectors()
    expected = F.relu(F.linear(x, model.b.l.W, model.b.l.b)).array
    surgery.rewire(model, '/b/l', source='/a', x=x)
    np.testing.assert_array_equal(model.b(x).array, expected)
    a, b = model(x)
    np.testing.assert_array_equal(b.array, model.b(a.array).array)


class TestRevert:

    def test_all(self):
        model = randomize(CNN())
        before = snapshot(model)
        y = model(images()).array
        surgery.insert_after(model, '/ReLU*', Bias(1.))
        surgery.rewire(model, '/bn1', source='/conv1')
        surgery.insert_before(
            model, '/conv2/Convolution2DFunction', double, input=1)
        model(images())
        assert surgery.revert(model) is model
        assert snapshot(model) == before
        assert surgery.edits(model) == []
        np.testing.assert_array_equal(model(images()).array, y)

    def test_one_by_name(self):
        model = chainer.Sequential(F.relu)
        x = np.abs(vectors())
        surgery.insert_after(model, '/ReLU', increment, name='a')
        surgery.insert_after(model, '/ReLU', double, name='b')
        surgery.revert(model, 'a')
        np.testing.assert_array_equal(model(x).array, 2 * x)
        assert len(surgery.edits(model)) == 1

    def test_edits_below_go_too_and_those_above_stay(self):
        model = chainer.Sequential(Block())
        surgery.insert_after(model, '/0/ReLU', increment)
        surgery.insert_after(model[0], '/ReLU', double)
        surgery.revert(model[0])
        assert [str(one) for one in surgery.edits(model)] == [
            'insert after /0/ReLU: increment as /increment']
        surgery.insert_after(model[0], '/ReLU', double)
        surgery.revert(model)
        assert surgery.edits(model) == []
        assert type(model[0]) is Block


def test_an_optimizer_that_was_set_up_before():
    model = MLP()
    chainer.optimizers.SGD().setup(model)
    with pytest.warns(UserWarning, match='call optimizer.setup.model. again'):
        surgery.insert_after(model, '/ReLU', Bias())
    # Without parameters there is nothing to warn of.
    surgery.insert_after(model, '/ReLU', F.tanh)


def test_inserted_links_are_trained():
    model = randomize(MLP())
    surgery.insert_after(model, '/l3', Bias(), name='bias')
    optimizer = chainer.optimizers.SGD(.1).setup(model)
    optimizer.update(lambda x: F.sum(model(x)), vectors())
    # The gradient of a sum over 4 x 3 outputs is 12.
    np.testing.assert_allclose(model.bias.shift.array, -1.2, rtol=1e-6)


def test_a_trainer_runs_an_edited_model(tmp_path):
    model = L.Classifier(MLP())
    data = chainer.datasets.TupleDataset(
        vectors(8), np.arange(8, dtype=np.int32) % 3)
    surgery.trace(model, *chainer.dataset.concat_examples(data[:4]))
    surgery.insert_after(model, '/predictor/ReLU*', Bias(), name='bias')

    def trainer():
        optimizer = chainer.optimizers.Adam().setup(model)
        iterator = chainer.iterators.SerialIterator(data, 4, shuffle=False)
        updater = chainer.training.StandardUpdater(iterator, optimizer)
        new = chainer.training.Trainer(updater, (2, 'epoch'), tmp_path)
        new.extend(chainer.training.extensions.snapshot(filename='snapshot'))
        new.extend(chainer.training.extensions.Evaluator(
            chainer.iterators.SerialIterator(
                data, 4, repeat=False, shuffle=False), model))
        return new

    first = trainer()
    first.run()
    trained = model.predictor.bias.shift.array.copy()
    assert trained != 0
    model.predictor.bias.shift.array[...] = 7
    chainer.serializers.load_npz(tmp_path / 'snapshot', trainer())
    np.testing.assert_array_equal(model.predictor.bias.shift.array, trained)


def test_a_lazy_layer():
    model = MLP()
    surgery.insert_after(model, '/ReLU', L.Linear(None, 5), name='extra')
    assert '/extra/W' in dict(model.namedparams())
    model(vectors())
    assert model.extra.W.shape == (5, 5)


def test_a_sequence_model_counts_anew_in_each_run():
    model = Recurrent()
    xs = np.stack([vectors()] * 3)
    surgery.insert_after(model, '/lstm/LSTM_1', F.tanh, output=1, x=xs)
    y = model(xs).array
    np.testing.assert_array_equal(model(xs).array, y)


def test_an_iterator_is_not_used_up():
    class Sums(chainer.Chain):
        def forward(self, xs):
            return F.relu(sum(xs))

    model = Sums()
    surgery.insert_after(model, '/ReLU', double)
    x = chainer.Variable(np.ones((2, 3), np.float32))
    np.testing.assert_array_equal(model(iter([x, x])).array, 4 * x.array)


def test_a_link_edited_by_itself_within_forget():
    class Forgets(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.block = Block()

        def forward(self, x):
            return F.forget(self.block, x)

    model = randomize(Forgets())
    by_hand = randomize(Forgets()).block
    surgery.insert_after(model.block, '/ReLU', F.tanh, x=vectors())
    x, z = chainer.Variable(vectors()), chainer.Variable(vectors())
    got, expected = model(x), F.tanh(by_hand(z))
    np.testing.assert_array_equal(got.array, expected.array)
    # Backward runs the block again, by itself, with its edit.
    model.cleargrads()
    by_hand.cleargrads()
    F.sum(got * got).backward()
    F.sum(expected * expected).backward()
    np.testing.assert_allclose(x.grad, z.grad, rtol=1e-6)
    np.testing.assert_allclose(
        model.block.l.W.grad, by_hand.l.W.grad, rtol=1e-5)


def test_example_input_is_left_where_it_is():
    x = vectors()
    graph = surgery.trace(L.Classifier(MLP()), x, np.zeros(4, np.int32))
    assert graph['/predictor/l1'].inputs[0].array is x
