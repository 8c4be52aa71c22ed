"""Edits hold in copies, pickles, files, containers, and on every device."""
import copy
import pickle
import types

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.backends import cuda
from networks import (
    CNN,
    MLP,
    Bias,
    Block,
    OldStyle,
    Skips,
    images,
    parameters,
    randomize,
    vectors,
)

from shared_linear import surgery


def make_bias(node):
    return Bias(.5)


def edited_skips():
    model = randomize(Skips())
    surgery.trace(model, vectors())
    surgery.insert_after(model, '/ReLU', Bias(1.), name='bias')
    surgery.insert_before(model, '/b/LinearFunction', F.tanh, input=1)
    surgery.rewire(model, '/Concat', input=0, source='/a')
    surgery.insert_after(model, '/Add', make_bias, each=True, name='each')
    return model


def deep(model):
    return copy.deepcopy(model)


def pickled(model):
    return pickle.loads(pickle.dumps(model))


COPIES = [deep, pickled, lambda model: model.copy('copy'),
          lambda model: model.copy('share'), lambda model: model.copy(),
          lambda model: model.repeat(1, 'copy')[0],
          lambda model: pickled(deep(model.copy()))]


@pytest.mark.parametrize('make', COPIES)
def test_copies_compute_the_same(make):
    model = edited_skips()
    new = make(model)
    assert new is not model
    assert type(new).__name__ == 'Skips'
    assert isinstance(new, Skips)
    np.testing.assert_array_equal(
        new(vectors()).array, model(vectors()).array)
    assert [str(one) for one in surgery.edits(new)] == [
        str(one) for one in surgery.edits(model)]
    # With layers of its own: the copy's gradients are not the model's.
    model.cleargrads()
    new.cleargrads()
    F.sum(new(vectors())).backward()
    assert new.bias.shift.grad is not None
    assert model.bias.shift.grad is None
    # And edits of its own.
    surgery.revert(new)
    assert type(new) is Skips
    assert len(surgery.edits(model)) == 4


def test_share_mode_shares_arrays_and_copy_mode_does_not():
    model = edited_skips()
    shared, copied = model.copy('share'), model.copy('copy')
    model.bias.shift.array[...] = 5
    assert shared.bias.shift.array == 5
    assert copied.bias.shift.array == 1
    np.testing.assert_array_equal(
        shared(vectors()).array, model(vectors()).array)


def test_init_mode_draws_layers_anew():
    model = MLP()
    surgery.insert_after(model, '/ReLU', L.Linear(5, 5), name='extra')
    new = model.copy('init')
    assert new.extra.W.shape == (5, 5)
    assert not np.array_equal(new.extra.W.array, model.extra.W.array)


def test_repeat():
    block = randomize(Block())
    x = vectors()
    surgery.insert_after(block, '/ReLU', Bias(1.), name='bias')
    model = block.repeat(3, 'copy')
    expected = x
    for _ in range(3):
        expected = F.relu(block.l(expected)).array + 1
    np.testing.assert_array_equal(model(x).array, expected)
    assert [path for path, _ in model.namedparams() if 'bias' in path] == [
        '/0/bias/shift', '/1/bias/shift', '/2/bias/shift']
    assert len(surgery.edits(model)) == 3
    # An edit of the whole on top of those of the copies.
    surgery.insert_after(model, '/1/ReLU', lambda h: h * 2, x=x)
    expected = x
    for link in model:
        expected = F.relu(block.l(expected)).array + 1
        # Sequential does not number its links in the order of its layers.
        expected *= 2 if link.name == '1' else 1
    np.testing.assert_array_equal(model(x).array, expected)


def test_rewired_copies_in_one_model_keep_apart():
    inner = randomize(Skips())
    surgery.rewire(inner, '/Concat', input=0, source='/a', x=vectors())
    model = chainer.ChainList(inner, inner.copy('copy'))
    randomize(model, seed=4)

    class Both(chainer.Chain):
        def __init__(self, inner):
            super().__init__()
            with self.init_scope():
                self.inner = inner

        def forward(self, x):
            return self.inner[0](x), self.inner[1](x)

    both = Both(model)
    for y, link in zip(both(vectors()), model, strict=True):
        np.testing.assert_array_equal(y.array, link(vectors()).array)


class Runs(chainer.ChainList):

    def forward(self, x):
        for link in self:
            x = F.relu(link(x))
        return x


@pytest.mark.parametrize('root', [chainer.Sequential, chainer.ChainList])
def test_containers_hold_layers_without_running_them(root):
    links = L.Linear(6, 6), L.Linear(6, 6)
    if root is chainer.Sequential:
        model = chainer.Sequential(links[0], F.relu, links[1], F.relu)
    else:
        model = Runs(*links)
    randomize(model)
    size, names = len(model), set(parameters(model))
    x = vectors()
    by_hand = F.relu(links[1](F.relu(links[0](x)).array + 1)).array
    surgery.insert_after(model, '/ReLU', Bias(1.), name='bias')
    np.testing.assert_array_equal(model(x).array, by_hand)
    assert len(model) == size
    assert set(parameters(model)) - names == {'/bias/shift'}
    for make in COPIES:
        new = make(model)
        np.testing.assert_array_equal(new(x).array, by_hand)
        assert new.bias.shift.array == 1
    model.cleargrads()
    F.sum(model(x)).backward()
    assert model.bias.shift.grad is not None
    surgery.revert(model)
    assert set(parameters(model)) == names


def test_a_link_without_children_holds_layers():
    link = randomize(L.Linear(6, 5))
    surgery.insert_after(link, '/LinearFunction', Bias(2.), name='bias')
    model = chainer.Sequential(link)
    assert set(parameters(model)) == {'/0/W', '/0/b', '/0/bias/shift'}
    np.testing.assert_array_equal(
        model(vectors()).array,
        F.linear(vectors(), link.W, link.b).array + 2)


def test_names_of_parameters_stay_and_new_ones_are_their_own():
    model = randomize(CNN())
    before = parameters(model)
    surgery.insert_after(
        model, '/ReLU*', make_bias, each=True, name='bias', x=images())
    after = parameters(model)
    for name, array in before.items():
        np.testing.assert_array_equal(after.pop(name), array)
    assert set(after) == {'/bias_ReLU/shift', '/bias_ReLU_1/shift'}
    assert [path for path, _ in model.namedlinks()][-2:] == [
        '/bias_ReLU', '/bias_ReLU_1']


@pytest.mark.parametrize('extension', ['npz', 'h5'])
def test_files(tmp_path, extension):
    save = getattr(
        chainer.serializers, {'npz': 'save_npz', 'h5': 'save_hdf5'}[extension])
    load = getattr(
        chainer.serializers, {'npz': 'load_npz', 'h5': 'load_hdf5'}[extension])
    if extension == 'h5':
        pytest.importorskip('h5py')
    original = randomize(Skips(), seed=3)
    model = edited_skips()
    model.bias.n_calls = 11
    save(tmp_path / f'edited.{extension}', model)
    save(tmp_path / f'original.{extension}', original)

    again = edited_skips()
    randomize(again, seed=8)
    load(tmp_path / f'edited.{extension}', again)
    assert again.bias.n_calls == 11
    np.testing.assert_array_equal(
        again(vectors()).array, model(vectors()).array)

    # The edited model's file loads into the model as its author wrote it.
    plain = Skips()
    load(tmp_path / f'edited.{extension}', plain)
    for name, array in parameters(plain).items():
        np.testing.assert_array_equal(array, parameters(model)[name])

    if extension == 'npz':
        # The other way, what is missing is said, and strict=False helps.
        with pytest.raises(KeyError, match='belongs to the inserted layer '
                           "'(bias|each_Add)'.*before editing, or with "
                           'strict=False'):
            load(tmp_path / f'original.{extension}', model)
        load(tmp_path / f'original.{extension}', model, strict=False)
        np.testing.assert_array_equal(model.a.W.array, original.a.W.array)
        assert model.bias.shift.array == 1


def test_edits_without_parameters_load_old_files(tmp_path):
    original = randomize(Skips(), seed=3)
    chainer.serializers.save_npz(tmp_path / 'original.npz', original)
    model = Skips()
    surgery.insert_after(model, '/ReLU', F.tanh)
    chainer.serializers.load_npz(tmp_path / 'original.npz', model)
    np.testing.assert_array_equal(model.a.W.array, original.a.W.array)


def test_parameters_and_gradients_are_copied_between_models():
    model, other = edited_skips(), edited_skips()
    randomize(other, seed=5)
    other.bias.shift.array[...] = 9
    model.copyparams(other)
    assert model.bias.shift.array == 9
    np.testing.assert_array_equal(model.a.W.array, other.a.W.array)
    model.copyparams(randomize(Skips(), seed=6))
    assert model.bias.shift.array == 9
    for one in model, other:
        one.cleargrads()
        F.sum(one(vectors())).backward()
    before = model.bias.shift.grad.copy()
    model.addgrads(other)
    np.testing.assert_allclose(
        model.bias.shift.grad, before + other.bias.shift.grad)


def test_devices():
    class Visitor(chainer.device_resident.DeviceResidentsVisitor):
        def __init__(self):
            self.links, self.params, self.arrays = [], [], []

        def visit_device_resident(self, link):
            self.links.append(link)

        def visit_variable(self, param):
            self.params.append(param)

        def visit_array(self, array):
            self.arrays.append(array)
            return array

    model = edited_skips()
    # As to_device does.
    visitor = Visitor()
    model.device_resident_accept(visitor)
    assert set(map(id, visitor.links)) == set(map(id, model.links()))
    assert set(map(id, visitor.params)) == set(map(id, model.params()))
    assert any(link is model.bias for link in visitor.links)
    y = model(vectors()).array
    model.to_device('@numpy')
    np.testing.assert_array_equal(model(vectors()).array, y)


@pytest.mark.gpu
def test_another_device():
    cupy = pytest.importorskip('cupy')
    if cupy.cuda.runtime.getDeviceCount() == 0:
        pytest.skip('no GPU')
    model = edited_skips()
    y = model(vectors()).array
    model.to_device('@cupy:0')
    assert model.bias.shift.device == chainer.get_device('@cupy:0')
    got = model(model.device.send(vectors()))
    np.testing.assert_allclose(
        chainer.get_device('@numpy').send(got.array), y, rtol=1e-5)
    surgery.insert_after(model, '/ReLU', Bias(1.))
    assert len(surgery.edits(model)) == 5


def test_cupy_without_a_gpu(monkeypatch):
    """As on a cluster's login node, where CuPy is and no driver."""
    def no_driver():
        raise RuntimeError('cudaErrorInsufficientDriver')

    monkeypatch.setattr(cuda, 'available', True)
    monkeypatch.setattr(cuda, 'cupy', types.SimpleNamespace(
        get_array_module=lambda *arrays: np,
        cuda=types.SimpleNamespace(
            Device=no_driver, is_available=lambda: False)))
    model = MLP()
    surgery.insert_after(model, '/ReLU', Bias(1.), x=vectors())
    assert len(surgery.edits(model)) == 1
    assert surgery.trace(model, vectors()) is not None


def test_printing_names_the_layers():
    model = MLP()
    before = str(model)
    surgery.insert_after(model, '/ReLU', surgery.FakeQuantize(4), name='q')
    assert '(q): FakeQuantize(n_bits=4' in str(model)
    surgery.revert(model)
    assert str(model) == before


def test_a_lambda_cannot_be_pickled_and_says_so():
    model = MLP()
    surgery.insert_after(model, '/ReLU', lambda h: h)
    np.testing.assert_array_equal(
        copy.deepcopy(model)(vectors()).shape, (4, 3))
    with pytest.raises(pickle.PicklingError, match='the inserted lambda'):
        pickle.dumps(model)


def test_a_factory_that_cannot_be_pickled_is_not_needed_any_more():
    model = MLP()
    surgery.insert_after(
        model, '/ReLU*', lambda node: Bias(1.), each=True, x=vectors())
    new = pickled(model)
    with chainer.using_config('train', False):
        np.testing.assert_array_equal(
            new(vectors()).array, model(vectors()).array)


def test_a_function_met_after_unpickling_has_no_layer():
    model = Loops()
    surgery.trace(model, vectors(), 1)
    surgery.insert_after(
        model, '/ReLU*', lambda node: Bias(1.), each=True)
    new = pickled(model)
    assert new(vectors(), 1).shape == (4, 6)
    with pytest.raises(surgery.EditError, match='no layer for /ReLU_1'):
        new(vectors(), 2)


class Loops(chainer.Chain):

    def forward(self, x, n):
        for _ in range(n):
            x = F.relu(x)
        return x


def test_a_sequential_with_a_lambda_pickles_no_better_than_before():
    model = chainer.Sequential(L.Linear(6, 6), lambda x: F.relu(x))
    surgery.insert_after(model, '/ReLU', F.tanh)
    with pytest.raises(ValueError, match='at least one lambda'):
        pickle.dumps(model)
    assert model.copy()(vectors()).shape == (4, 6)


def test_old_style_models():
    model = randomize(OldStyle())
    surgery.insert_after(model, '/OldSquare', F.tanh)
    for make in COPIES:
        np.testing.assert_array_equal(
            make(model)(vectors()).array, model(vectors()).array)
