"""A model on a GPU, in use or not, is edited as one on the CPU."""
import copy
import io
import pickle

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from gpus import random_numbers_go_on
from networks import CNN, MLP, images, randomize, vectors

from shared_linear import surgery

pytestmark = pytest.mark.gpu
CPU = chainer.get_device('@numpy')


class Shift(chainer.Link):

    """A layer with a parameter and an array of its own."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.shift = chainer.Parameter(np.full((1,), .25, 'f'))
        self.factor = np.full((1,), 2, 'f')
        self.register_persistent('factor')

    def forward(self, h):
        return F.scale(h + F.broadcast_to(self.shift, h.shape), self.factor)


def outputs(model, x):
    """In test mode, of a model that is called where it is."""
    with chainer.using_config('train', False), \
            chainer.using_device(model.device):
        return CPU.send(model(model.device.send(x)).array)


def assert_all_on(model, device):
    for link in model.links():
        assert link.device == device
        for array in [p.array for p in link.params(include_uninit=False)] + [
                getattr(link, name) for name in link._persistent]:
            if isinstance(array, chainer.get_array_types()):
                assert chainer.backend.get_device_from_array(array) == device


def insert(model, x):
    surgery.insert_after(model, '/ReLU', Shift(), name='shift', x=x)


def replace(model, x):
    surgery.replace(model, '/ReLU', F.tanh, x=x)


def remove(model, x):
    surgery.remove(model, '/ReLU', x=x)


def rewire(model, x):
    surgery.rewire(model, '/l2', source='/l1', x=x)


def add_and_revert(model, x):
    insert(model, x)
    surgery.revert(model)


@pytest.mark.parametrize('edit', [
    insert, replace, remove, rewire, add_and_revert], ids=lambda f: f.__name__)
def test_edits(some_gpu, edit):
    model, x = randomize(MLP()), vectors()
    here = copy.deepcopy(model)
    edit(here, x)
    model.to_device(some_gpu)
    edit(model, some_gpu.send(x))
    assert_all_on(model, some_gpu)
    assert len(surgery.edits(model)) == len(surgery.edits(here))
    np.testing.assert_allclose(
        outputs(model, x), outputs(here, x), rtol=1e-4, atol=1e-6)


def test_a_layer_that_gets_its_size_there(some_gpu):
    model = randomize(MLP()).to_device(some_gpu)
    x = some_gpu.send(vectors())
    width = model.l1.W.shape[0]
    surgery.insert_after(
        model, '/ReLU', L.Linear(None, width), name='extra', x=x)
    with chainer.using_device(some_gpu):
        model(x)
    assert_all_on(model, some_gpu)
    assert model.extra.W.shape == (width, width)


def test_trace_says_the_same(some_gpu):
    model, x = randomize(CNN()), images(2)
    with chainer.using_config('train', False):
        said = str(surgery.trace(model, x))
        model.to_device(some_gpu)
        assert str(surgery.trace(model, some_gpu.send(x))) == said
        graph = surgery.trace(model, some_gpu.send(x))
    assert graph.to_dot().startswith('digraph')


def test_batch_normalization_is_folded(some_gpu):
    model, x = randomize(CNN()), images(2)
    here = copy.deepcopy(model)
    said = surgery.fold_batch_normalization(here, x)
    model.to_device(some_gpu)
    report = surgery.fold_batch_normalization(model, some_gpu.send(x))
    assert len(report.folded) == len(said.folded) > 0
    assert_all_on(model, some_gpu)
    np.testing.assert_allclose(
        outputs(model, x), outputs(here, x), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('per_channel', [True, False])
def test_quantize(some_gpu, per_channel):
    model = randomize(CNN())
    batches = [images(4, seed=seed) for seed in range(3)]
    here = copy.deepcopy(model)
    said = surgery.quantize(here, batches, per_channel=per_channel)
    model.to_device(some_gpu)
    report = surgery.quantize(
        model, [some_gpu.send(x) for x in batches], per_channel=per_channel)
    assert len(report) == len(said) > 0
    assert_all_on(model, some_gpu)
    expected = outputs(here, batches[0])
    # A value at the border of two steps may round to either.
    assert abs(outputs(model, batches[0]) - expected).max() < (
        .02 * abs(expected).max())
    surgery.calibrate(model, [some_gpu.send(x) for x in batches])
    assert_all_on(model, some_gpu)


def test_an_edited_model_moves_is_copied_and_saved(some_gpu):
    model, x = randomize(MLP()), vectors()
    insert(model, x)
    expected = outputs(model, x)
    for device in some_gpu, CPU, chainer.get_device('@cupy:0'), some_gpu:
        model.to_device(device)
        assert_all_on(model, device)
        np.testing.assert_allclose(outputs(model, x), expected, rtol=1e-4)
    np.testing.assert_allclose(
        outputs(copy.deepcopy(model), x), expected, rtol=1e-4)
    with chainer.using_device(some_gpu):  # CuPy loads where it is used
        again = pickle.loads(pickle.dumps(model))
    assert_all_on(again, some_gpu)
    np.testing.assert_allclose(outputs(again, x), expected, rtol=1e-4)
    file = io.BytesIO()
    chainer.serializers.save_npz(file, model)
    other = randomize(MLP(), seed=7).to_device(some_gpu)
    insert(other, some_gpu.send(x))
    file.seek(0)
    chainer.serializers.load_npz(file, other)
    np.testing.assert_allclose(outputs(other, x), expected, rtol=1e-4)


def test_the_random_numbers_there_go_on(some_gpu):
    """Those of dropout, in a model that is traced in training mode."""
    model = chainer.Sequential(L.Linear(3, 4), F.dropout)
    model.to_device(some_gpu)
    x = some_gpu.send(np.ones((2, 3), 'f'))

    with random_numbers_go_on(some_gpu):
        surgery.trace(model, x)
