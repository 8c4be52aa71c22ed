"""sl.compress: what the errors of a layer do to the outputs of the model."""
import numpy
import pytest

import shared_linear as sl
from shared_linear.compression import effects as effects_of_errors
from shared_linear.compression.examples import hold_out
from shared_linear.compression.inputs import Batch
from shared_linear.compression.pipeline import Compression

import chainer  # isort: skip
import chainer.functions as F  # isort: skip
import chainer.links as L  # isort: skip

SCALE = .1


class Beside(chainer.Chain):

    """Two layers of the same inputs, of which one says little."""

    def __init__(self):
        super().__init__()
        rng = numpy.random.RandomState(0)
        with self.init_scope():
            for name in 'loud', 'soft':
                setattr(self, name, L.Linear(
                    12, 8, initialW=rng.normal(size=(8, 12))))

    def forward(self, x):
        return self.loud(x) + SCALE * self.soft(x)


class Chosen(Beside):

    """Of one layer only the place of the largest output is given."""

    def forward(self, x):
        return self.loud(x), F.argmax(self.soft(x), axis=1)


class Scored(Beside):

    """One layer has a single output."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.score = L.Linear(8, 1)

    def forward(self, x):
        return self.score(F.tanh(super().forward(x)))


def inputs(seed=0):
    return numpy.random.RandomState(seed).normal(
        size=(400, 12)).astype(numpy.float32)


def measured(model, x):
    batches = [Batch([x])]
    held_out = hold_out(batches)
    work = Compression(
        model, batches, None, held_out, (), lambda: None, 0, 1)
    work.measure()
    return work.course.effects.of_layers(), held_out[0]


def test_it_is_the_variance_times_what_the_model_makes_of_it():
    model, x = Beside(), inputs()
    effects, held_out = measured(model, x)
    expected = [
        scale ** 2 * (x[held_out] @ link.W.array.T).var(0).sum()
        for link, scale in ((model.loud, 1), (model.soft, SCALE))]
    expected /= numpy.mean(expected)
    assert [effects['/loud'], effects['/soft']] == pytest.approx(
        [float(e) for e in expected], rel=.05)


def test_what_matters_little_is_made_smaller(monkeypatch):
    model, other = Beside(), inputs(1)

    def compress():
        new, report = sl.compress(model, inputs(), .6)
        sizes = {layer.path: layer.parameters for layer in report.layers}
        return sizes, float(((
            model(other).array - new(other).array) ** 2).sum())

    sizes, error = compress()
    assert sizes['/soft'] < sizes['/loud']
    monkeypatch.setattr(
        effects_of_errors.Effects, 'of_layers',
        lambda self: dict.fromkeys(self._layers, 1))
    _, other_error = compress()
    assert error < .2 * other_error


@pytest.mark.parametrize('most', [2048, 4])
def test_layers_of_which_less_is_known(most, monkeypatch):
    """No derivative, one output, more outputs than are weighed singly."""
    monkeypatch.setattr(effects_of_errors, 'MOST_WEIGHTED', most)
    effects, _ = measured(Chosen(), inputs())
    assert effects == {'/loud': 1, '/soft': 1}
    effects, _ = measured(Scored(), inputs())
    assert set(effects) == {'/loud', '/soft', '/score'}
    assert effects['/loud'] > effects['/soft']
    assert effects['/soft'] >= effects_of_errors.LEAST_EFFECT
    _, report = sl.compress(Scored(), inputs(), .6)
    assert report.parameters <= .6 * report.dense_parameters
