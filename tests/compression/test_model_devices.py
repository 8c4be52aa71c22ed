"""A model on a GPU, in use or not, is shared as one on the CPU."""
import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from gpus import random_numbers_go_on

import shared_linear as sl

pytestmark = pytest.mark.gpu
CPU = chainer.get_device('@numpy')
X = numpy.random.RandomState(3).normal(size=(60, 12)).astype('f')


class Network(chainer.Chain):

    noise = 0.

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(12, 20)
            self.l2 = L.Linear(20, 16)
            self.l3 = L.Linear(16, 8)
            self.norm = L.BatchNormalization(8)
            self.l4 = L.Linear(8, 5)

    def forward(self, x):
        h = F.sigmoid(self.l2(F.relu(self.l1(x))))
        if self.noise:
            h += self.noise * self.xp.random.normal(size=h.shape).astype('f')
        return self.l4(self.norm(F.relu(self.l3(h))))


def make_model():
    model = Network()
    model(X)  # for the statistics
    return model


CONVERSIONS = {
    'share_weights': lambda model, x: sl.share_weights(
        model, x, {'/l2': 4, '/l4': 2}, n_sweeps=2),
    'share_weights, blocks': lambda model, x: sl.share_weights(
        model, x, 4, n_blocks={'/l2': 2}, n_sweeps=2, add_bias=True),
    'share_weights, budget': lambda model, x: sl.share_weights(
        model, x, budget=.5, n_sweeps=2),
    'compress': lambda model, x: sl.compress(model, x, budget=.5),
}


@pytest.mark.parametrize('of_x', [
    '@numpy', '@cupy:0', '@cupy:1', 'dataset', 'dataset on @cupy:0'])
@pytest.mark.parametrize('kind', CONVERSIONS)
def test_it_is_what_a_model_on_the_cpu_becomes(some_gpu, kind, of_x):
    if of_x == '@cupy:1' and some_gpu.device.id == 0:
        pytest.skip('as with the GPUs exchanged')
    model = make_model()
    expected, said = CONVERSIONS[kind](model, X)
    model.to_device(some_gpu)
    if 'dataset' in of_x:
        there = (chainer.get_device('@cupy:0') if '0' in of_x
                 else some_gpu).send(X)
        x = [(there[i], i) for i in range(len(X))]
    else:
        x = chainer.get_device(of_x).send(X)
    new, report = CONVERSIONS[kind](model, x)

    for link in *model.links(), *new.links():
        assert link.device == some_gpu
        for parameter in link.params(include_uninit=False):
            assert parameter.device == some_gpu
            assert parameter.array.device.id == some_gpu.device.id
    with chainer.using_config('train', False), \
            chainer.using_device(some_gpu):
        y = new(some_gpu.send(X))
    if kind == 'compress':
        # Of forms as good as each other rounding decides: on the CPU too, an
        # input that differs by 1e-7 gives another one.
        assert report.parameters <= .5 * report.dense_parameters
        assert report.dense_parameters == said.dense_parameters
        assert y.device == some_gpu and numpy.isfinite(CPU.send(y.array)).all()
        return
    # Under a budget the search goes on to where two orders tie: on the CPU
    # too, an input that differs by 1e-7 gives the one or the other.
    ties = kind == 'share_weights, budget'
    for layer, e in zip(report.layers, said.layers, strict=True):
        assert (layer.path, layer.n_tiles, layer.parameters) == (
            e.path, e.n_tiles, e.parameters)
        numpy.testing.assert_allclose(
            layer.error, e.error, rtol=.2 if ties else 1e-2, atol=1e-5)
    if ties:
        assert numpy.isfinite(CPU.send(y.array)).all()
        return
    with chainer.using_config('train', False):
        numpy.testing.assert_allclose(
            CPU.send(y.array), expected(X).array, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize('of_x', ['@numpy', '@cupy:0', 'there'])
def test_a_mask_is_made_where_the_inputs_are(some_gpu, of_x):
    """And the inputs are then sent to the model."""
    def mask(batch):
        return batch[:, 0] > batch.mean()

    model = make_model()
    x = (some_gpu if of_x == 'there' else chainer.get_device(of_x)).send(X)
    _, report = sl.compress(model.to_device(some_gpu), x, .5, mask=mask)
    assert report.parameters <= .5 * report.dense_parameters


@pytest.mark.parametrize('kind', CONVERSIONS)
def test_a_model_that_draws_numbers_there(some_gpu, kind):
    """It gives the same each time, and the user's numbers go on as before."""
    model = make_model().to_device(some_gpu)
    model.noise = .1
    with random_numbers_go_on(some_gpu):
        reports = [
            str(CONVERSIONS[kind](model, X)[1]) for _ in range(2)]
    assert reports[0] == reports[1]
