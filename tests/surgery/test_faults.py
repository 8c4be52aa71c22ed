"""Faults that were found by trying real models, each with the right value."""
import warnings

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from networks import vectors

from shared_linear import surgery


class Mixer(chainer.Chain):

    def __init__(self, first, second, call):
        super().__init__()
        self.call = call
        with self.init_scope():
            self.first, self.second = first, second

    def forward(self, x):
        return self.call(self, x)


ARGUMENTS = {
    'by keyword': (
        L.BatchNormalization, lambda: L.Linear(8, 5),
        lambda m, x: m.second(m.first(x), n_batch_axes=2)),
    'by position': (
        L.BatchNormalization, lambda: L.Linear(8, 5),
        lambda m, x: m.second(m.first(x), 2)),
    'of one size': (
        lambda n: L.BatchNormalization(n), lambda: L.Linear(4, 4),
        lambda m, x: m.second(m.first(x[:, :, :4]), n_batch_axes=2)),
    'before': (
        lambda n: L.Linear(8, 8), lambda: L.BatchNormalization(4),
        lambda m, x: m.second(m.first(x, n_batch_axes=2))),
    'with x by its name': (
        L.BatchNormalization, lambda: L.Linear(32, 5),
        lambda m, x: m.second(x=m.first(x))),
}


@pytest.mark.parametrize('how', ARGUMENTS)
def test_folding_takes_the_arguments_that_the_model_gave(how):
    first, second, call = ARGUMENTS[how]
    model = Mixer(first(4), second(), call)
    x = chainer.Variable(
        np.random.RandomState(0).randn(30, 4, 8).astype(np.float32))
    for _ in range(9):
        model(3 * x + 1)
    with chainer.using_config('train', False):
        y = model(x).array
        report = surgery.fold_batch_normalization(model, x)
        np.testing.assert_allclose(
            model(x).array, y, rtol=1e-4, atol=1e-4)
    assert len(report) == 1
    assert report[0].into is not None or report[0].reason
    assert len(surgery.edits(model)) == len(report.folded)


def test_statistics_that_two_share_are_not_folded():
    class Net(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.a, self.b = L.Linear(6, 6), L.Linear(6, 6)
                self.n, self.m = (
                    L.BatchNormalization(6), L.BatchNormalization(6))
            self.m.gamma = self.n.gamma

        def forward(self, x):
            return self.m(F.tanh(self.b(F.tanh(self.n(self.a(x))))))

    model, x = Net(), vectors()
    model.n.gamma.array[...] = 3
    for _ in range(3):
        model(x)
    with chainer.using_config('train', False):
        y = model(x).array
        report = surgery.fold_batch_normalization(model, x)
        np.testing.assert_array_equal(model(x).array, y)
    assert report.folded == []
    assert 'shares a parameter' in report[0].reason


def test_a_subclass_is_not_folded_though_it_computes_the_same_here():
    class Clipped(L.Linear):
        def forward(self, x):
            return F.clipped_relu(super().forward(x) + 50, 100.) - 50

    model, x = chainer.Sequential(
        Clipped(6, 6), L.BatchNormalization(6)), vectors()
    model(x)
    before = model[0].W.array.copy()
    report = surgery.fold_batch_normalization(model, x)
    assert report.folded == []
    np.testing.assert_array_equal(model[0].W.array, before)


def test_an_optimizer_does_not_train_what_a_fold_adds_and_says_so():
    model = chainer.Sequential(
        L.Linear(6, 6, nobias=True), L.BatchNormalization(6))
    model(vectors())
    chainer.optimizers.SGD(.1).setup(model)
    with pytest.warns(UserWarning, match='biases were added to /0') as said:
        surgery.fold_batch_normalization(model, vectors())
    assert said[0].filename == __file__
    other = chainer.Sequential(L.Linear(6, 6), L.BatchNormalization(6))
    other(vectors())
    chainer.optimizers.SGD(.1).setup(other)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert surgery.fold_batch_normalization(other, vectors()).folded


def test_a_warning_of_an_insertion_points_at_the_users_line():
    model, x = chainer.Sequential(L.Linear(6, 6), F.relu), vectors()
    chainer.optimizers.SGD(.1).setup(model)
    for options in {}, {'x': x}:
        with pytest.warns(UserWarning, match='an optimizer') as said:
            surgery.insert_after(model, '/ReLU', L.Linear(6, 6), **options)
        assert said[0].filename == __file__


@pytest.mark.parametrize('source', ['/Sin', '/0', '/0/LinearFunction'])
def test_a_replaced_function_can_be_rewired(source):
    model, x = chainer.Sequential(
        L.Linear(6, 6), F.sin, F.relu, F.tanh), vectors()
    h = model[0](x)
    surgery.replace(model, '/Tanh', F.cos, x=x)
    surgery.rewire(model, '/Tanh', source=source, x=x)
    expected = F.cos(F.sin(h) if source == '/Sin' else h)
    np.testing.assert_array_equal(model(x).array, expected.array)
    with pytest.raises(surgery.EditError, match='computed later'):
        surgery.rewire(model, '/Sin', source='/Tanh', x=x)


def test_links_of_several_layers_and_steps_can_be_quantized():
    xs = [np.ones((3, 4), 'f'), np.ones((2, 4), 'f')]
    report = surgery.quantize(
        L.NStepLSTM(1, 4, 5, 0.), (None, None, xs))
    assert {one.what for one in report} == {f'/0/w{i}' for i in range(8)}
    gru = L.StatefulGRU(4, 5)
    report = surgery.quantize(gru, np.ones((3, 4), 'f'))
    assert gru.h is None
    # Of the first step, and of those that have a state.
    assert {one.what for one in report} == {
        'output', '/W_z/W', '/W/W', '/W_r/W', '/U_r/W', '/U_z/W', '/U/W'}


def test_an_addition_of_activations_is_no_weight():
    class Net(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.pos = chainer.Parameter(np.ones((1, 6), 'f'))
                self.l = L.Linear(6, 6)

        def forward(self, x):
            h = x + self.pos
            return h + F.relu(self.l(h))

    report = surgery.quantize(Net(), chainer.Variable(vectors()))
    assert sorted(one.what for one in report) == ['/l/W', '/pos', 'output']
