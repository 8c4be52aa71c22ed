import random

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from networks import (
    CNN,
    MLP,
    Article,
    Block,
    Forgetful,
    OldStyle,
    Recurrent,
    Skips,
    images,
    randomize,
    vectors,
)

from shared_linear import surgery


def test_functions_have_addresses_in_the_order_of_the_run():
    graph = surgery.trace(MLP(), vectors())
    assert [node.address for node in graph] == [
        '/l1/LinearFunction', '/ReLU', '/Dropout', '/l2/LinearFunction',
        '/ReLU_1', '/l3/LinearFunction']
    assert len(graph) == 6
    assert '/l2' in graph
    assert '/l4' not in graph


def test_a_node_tells_what_ran():
    model = MLP()
    x = vectors()
    graph = surgery.trace(model, x)
    node = graph['/l1/LinearFunction']
    assert node.function == 'LinearFunction'
    assert node.link is model.l1
    assert node.path == '/l1'
    assert [v.origin for v in node.inputs] == ['input', '/l1/W', '/l1/b']
    assert [v.shape for v in node.outputs] == [(4, 5)]
    np.testing.assert_allclose(
        node.outputs[0].array,
        x.astype(np.float64) @ model.l1.W.array.T + model.l1.b.array,
        rtol=1e-5, atol=1e-6)
    assert graph['/ReLU'].inputs[0] is node.outputs[0]
    assert graph['/ReLU'].inputs[0].producer is node
    assert graph['/ReLU'].link is model
    assert graph['/Dropout'].args['dropout_ratio'] == .5
    assert graph['/l2'].is_call
    assert graph['/l2'].outputs == graph['/l2/LinearFunction'].outputs
    assert graph.outputs == [graph['/l3'].outputs[0]]


def test_arguments_are_those_before_the_function_ran():
    args = surgery.trace(MLP(), vectors())['/Dropout'].args
    # Its forward draws the mask; replaying that would freeze dropout.
    assert args['mask'] is None


def test_it_prints_a_table():
    lines = str(surgery.trace(MLP(), vectors())).splitlines()
    assert lines[0].split() == [
        'address', 'function', 'inputs', 'outputs', 'dtype', 'parameters']
    assert lines[1].split() == [
        '/l1/LinearFunction', 'LinearFunction', '(4,', '6)', '(4,', '5)',
        'float32', '/l1/W,', '/l1/b']
    assert len(lines) == 7


def test_find_by_pattern_and_by_link():
    model = CNN()
    graph = surgery.trace(model, images())
    assert [n.address for n in graph.find('/ReLU*')] == ['/ReLU', '/ReLU_1']
    assert [n.address for n in graph.find('/conv*')] == ['/conv1', '/conv2']
    assert [n.address for n in graph.find('/conv*/*')] == [
        '/conv1/Convolution2DFunction', '/conv2/Convolution2DFunction']
    normalizations = graph.find(link=L.BatchNormalization)
    assert [n.link for n in normalizations] == [model.bn1, model.bn2]
    assert graph.find('/bn1/*', link=L.BatchNormalization) == [
        normalizations[0]]
    assert graph.find('/nothing') == []


def test_a_missing_address_names_the_nearest():
    graph = surgery.trace(MLP(), vectors())
    with pytest.raises(KeyError, match='nothing ran at.*/ReLU'):
        graph['/relu']


def test_visiting_is_repeatable_inputs_first_and_each_once():
    model, x = Skips(), vectors()
    orders = []
    for _ in range(3):
        seen = []
        surgery.trace(model, x).visit(seen.append)
        orders.append([node.address for node in seen])
        done = set()
        for node in seen:
            for value in node.inputs:
                assert value.producer is None or value.producer in done
            assert node not in done
            done.add(node)
    assert orders[0] == orders[1] == orders[2]
    assert orders[0] == [
        '/a/LinearFunction', '/ReLU', '/b/LinearFunction', '/Add', '/Concat',
        '/c/LinearFunction']


def test_repeated_calls_of_a_link_are_counted():
    graph = surgery.trace(Recurrent(), np.stack([vectors()] * 3))
    assert [n.address for n in graph.find('/lstm/LSTM*')] == [
        '/lstm/LSTM', '/lstm/LSTM_1', '/lstm/LSTM_2']
    assert [n.address for n in graph.find('/lstm*')] == [
        '/lstm', '/lstm_1', '/lstm_2']


def test_a_counted_name_never_is_the_name_of_another_link():
    class Named(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.l = L.Linear(6, 6)
                self.l_1 = L.Linear(6, 6)
                self.ReLU = Block()

        def forward(self, x):
            return F.relu(self.ReLU(self.l_1(self.l(self.l(x)))))

    model = Named()
    graph = surgery.trace(model, vectors())
    assert graph['/l'].link is model.l
    assert graph['/l_2'].link is model.l
    assert graph['/l_1'].link is model.l_1
    assert graph['/ReLU'].is_call
    assert graph['/ReLU_1'].link is model
    assert len(set(graph.addresses)) == len(graph.functions) + len(
        graph.calls)


def test_old_style_functions_and_links():
    graph = surgery.trace(OldStyle(), vectors())
    assert [n.address for n in graph] == ['/l1/LinearFunction', '/OldSquare']


def test_links_in_containers_without_names():
    class Listed(chainer.Chain):
        def __init__(self):
            super().__init__()
            self.hidden = [L.Linear(6, 6)]

        def forward(self, x):
            return F.relu(self.hidden[0](x))

    # What is no child has no path: what it runs belongs to its caller.
    graph = surgery.trace(Listed(), vectors())
    assert [n.address for n in graph] == ['/LinearFunction', '/ReLU']


def test_a_grandchild_called_directly_keeps_its_path():
    class Direct(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.block = Block()

        def forward(self, x):
            return self.block.l(x)

    model = Direct()
    graph = surgery.trace(model, vectors())
    assert graph['/block/l'].link is model.block.l
    surgery.insert_after(model, '/block/l', F.tanh)
    np.testing.assert_array_equal(
        model(vectors()).array, np.tanh(model.block.l(vectors()).array))


def test_a_child_whose_forward_is_called_keeps_its_path():
    class Direct(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.block = Block()

        def forward(self, x):
            return self.block.forward(x)

    model = randomize(Direct())
    x = vectors()
    addresses = [n.address for n in surgery.trace(model, x)]
    assert addresses == ['/block/l/LinearFunction', '/block/ReLU']
    forward = Block.__dict__['forward']
    surgery.insert_after(model, 'ReLU', F.tanh)
    np.testing.assert_array_equal(
        model(x).array, np.tanh(np.maximum(model.block.l(x).array, 0)))
    # Neither the edit nor who calls changes where it runs.
    assert [n.address for n in surgery.trace(model, x)] == [
        *addresses, '/block/tanh/Tanh']
    assert Block.__dict__['forward'] is forward


def test_a_class_that_extends_forward_and_call():
    class Extended(Block):
        def __call__(self, x):
            return super().__call__(x) + 1

        def forward(self, x):
            return super().forward(x) * 2

    graph = surgery.trace(chainer.Sequential(Extended()), vectors())
    assert [n.address for n in graph] == [
        '/0/l/LinearFunction', '/0/ReLU', '/0/MulConstant',
        '/0/AddConstant']
    assert [n.address for n in graph.calls] == ['/0/l', '/0']


def test_three_thousand_functions():
    class Deep(chainer.Chain):
        def forward(self, x):
            for _ in range(3000):
                x = x + 1
            return x

    model = Deep()
    x = chainer.Variable(np.zeros(1, np.float32))
    graph = surgery.trace(model, x)
    count = []
    graph.visit(count.append)
    assert len(count) == 3000
    assert count[-1].address == '/AddConstant_2999'
    assert graph.to_dot().count('shape=box') == 3000
    surgery.insert_after(model, '/AddConstant_2999', F.square)
    assert model(x).array == 9000000


def test_what_runs_in_forget_is_hidden():
    graph = surgery.trace(Forgetful(), vectors())
    assert [n.address for n in graph] == [
        '/l1/LinearFunction', '/Forget', '/Sigmoid']
    assert graph.hidden == ['/ReLU', '/Tanh']


def test_keyword_arguments_and_several_inputs():
    class Two(chainer.Chain):
        def forward(self, x, y, scale):
            return F.matmul(x, y) * scale

    x, y = (chainer.Variable(vectors(3, 3, seed)) for seed in (0, 1))
    graph = surgery.trace(Two(), x, y, scale=2.)
    assert [v.origin for v in graph['/MatMul'].inputs] == [
        'input 0', 'input 1']
    assert graph['/MulConstant'].args['value'] == 2.


def test_an_array_outside_chainer_is_explained():
    with pytest.raises(ValueError, match='wrap the input in a chainer.Var'):
        surgery.trace(Article(), np.zeros(1, np.float32))


def test_only_links_can_be_traced():
    with pytest.raises(TypeError, match='needs a chainer.Link, not function'):
        surgery.trace(lambda x: x, vectors())


class TestNothingChanges:

    def test_statistics(self):
        model = randomize(CNN())
        before = {path: (link.avg_mean.copy(), link.avg_var.copy(), link.N)
                  for path, link in model.namedlinks()
                  if isinstance(link, L.BatchNormalization)}
        arrays = {path: link.avg_mean for path, link in model.namedlinks()
                  if path in before}
        with chainer.using_config('train', True):
            surgery.trace(model, images())
        assert len(before) == 2
        for path, link in model.namedlinks():
            if path in before:
                mean, var, n = before[path]
                np.testing.assert_array_equal(link.avg_mean, mean)
                np.testing.assert_array_equal(link.avg_var, var)
                assert link.N == n
                assert link.avg_mean is arrays[path]
        # The check can fail: a run in train mode does move them.
        model(images())
        assert not np.array_equal(model.bn1.avg_mean, before['/bn1'][0])

    def test_random_generators(self):
        model = MLP()
        np.random.seed(3)
        random.seed(3)
        expected = np.random.rand(), random.random()
        np.random.seed(3)
        random.seed(3)
        surgery.trace(model, vectors())  # Draws a mask for dropout.
        assert (np.random.rand(), random.random()) == expected

    def test_generators_of_the_model(self):
        class Noisy(chainer.Chain):
            def __init__(self):
                super().__init__()
                self.old = np.random.RandomState(0)
                self.new = np.random.default_rng(0)

            def forward(self, x):
                noise = self.old.rand() + self.new.random()
                return F.relu(x + np.float32(noise))

        model, x = Noisy(), chainer.Variable(vectors())
        surgery.trace(model, x)
        np.testing.assert_array_equal(model(x).array, Noisy()(x).array)

    def test_gradients(self):
        model = MLP()
        F.sum(model(vectors())).backward()
        before = {p: v.grad.copy() for p, v in model.namedparams()}
        surgery.trace(model, vectors())
        for path, param in model.namedparams():
            np.testing.assert_array_equal(param.grad, before[path])

    def test_recurrent_state(self):
        model = L.LSTM(6, 5)
        model(vectors())
        c, h = model.c, model.h
        surgery.trace(model, vectors())
        assert model.c is c
        assert model.h is h

    def test_lazy_parameters(self):
        def make():
            return chainer.Sequential(
                L.Linear(None, 5), L.BatchNormalization(axis=0), F.relu)

        model = make()
        np.random.seed(5)
        graph = surgery.trace(model, vectors())
        assert graph['/0/LinearFunction'].outputs[0].shape == (4, 5)
        assert model[0].W.array is None
        assert not model[0].W.is_initialized
        assert model[1].avg_mean is None
        assert model[1].gamma.array is None
        # So the first real run draws what it would have drawn.
        y = model(vectors()).array
        np.random.seed(5)
        np.testing.assert_array_equal(y, make()(vectors()).array)
        assert model[0].W.array is not None
        F.sum(model(vectors())).backward()
        assert model[0].W.grad is not None

    def test_reports_and_what_a_classifier_keeps(self):
        model = L.Classifier(MLP())
        t = np.zeros(4, np.int32)
        reporter = chainer.Reporter()
        reporter.add_observer('main', model)
        with reporter:
            surgery.trace(model, vectors(), t)
            assert reporter.observation == {}
            assert model.loss is None
            model(vectors(), t)
            assert 'main/loss' in reporter.observation

    def test_lists_of_the_model(self):
        class Remembers(chainer.Chain):
            def __init__(self):
                super().__init__()
                self.seen = []
                self.last = {}
                self.kinds = {'a'}

            def forward(self, x):
                self.seen.append(x.shape)
                self.last['x'] = x
                self.kinds.add('b')
                self.added = x
                return F.relu(x)

        model = Remembers()
        surgery.trace(model, vectors())
        assert (model.seen, model.last, model.kinds) == ([], {}, {'a'})
        assert not hasattr(model, 'added')

    def test_hooks_are_not_called(self):
        hook = chainer.function_hooks.TimerHook()
        with hook:
            surgery.trace(MLP(), vectors())
            assert hook.call_history == []
            F.relu(vectors())
            assert len(hook.call_history) == 1

    def test_attributes_and_classes(self):
        model = MLP()
        before = [(type(link), dict(vars(link))) for link in model.links()]
        surgery.trace(model, vectors())
        assert [(type(link), dict(vars(link)))
                for link in model.links()] == before
        assert surgery.edits(model) == []

    def test_nothing_stays_installed(self):
        apply = chainer.FunctionNode.__dict__['apply']
        call = chainer.Link.__dict__['__call__']
        own = OldStyle.__dict__['__call__']
        surgery.trace(OldStyle(), vectors())
        assert chainer.FunctionNode.__dict__['apply'] is apply
        assert chainer.Link.__dict__['__call__'] is call
        assert OldStyle.__dict__['__call__'] is own

    def test_even_when_the_model_fails(self):
        model = randomize(CNN())
        mean = model.bn1.avg_mean.copy()
        apply = chainer.FunctionNode.__dict__['apply']
        np.random.seed(0)
        expected = np.random.rand()
        np.random.seed(0)
        model.fc.W.array = np.zeros((3, 7), np.float32)
        with pytest.raises(chainer.utils.type_check.InvalidType):
            surgery.trace(model, images())
        assert chainer.FunctionNode.__dict__['apply'] is apply
        np.testing.assert_array_equal(model.bn1.avg_mean, mean)
        assert np.random.rand() == expected
