"""Batch normalization folds into a layer of low rank."""
import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest

import shared_linear as sl
from shared_linear import surgery

ORDER = numpy.array([3, 1, 5, 0, 4, 2])
KINDS = pytest.mark.parametrize('n_tiles, order, nobias', [
    (1, None, False), (1, None, True), (1, ORDER, False), (2, ORDER, False)])


def normalization(size, seed=0):
    rng = numpy.random.RandomState(seed)
    link = L.BatchNormalization(size)
    for array in (link.avg_mean, link.gamma.array, link.beta.array):
        array[...] = rng.normal(size=size)
    link.avg_var[...] = rng.rand(size) + .5
    return link


def layer(n_tiles, order, nobias):
    link = sl.LowRankLinear(
        6, 5, nobias, rank=3, n_tiles=n_tiles, order=order)
    if not nobias:
        link.b.array[...] = numpy.arange(5)
    return link


def evaluate(model, x):
    with chainer.using_config('train', False):
        return model(x).array


def check_folded(model, x, into):
    # In float64, by hand: the links as they are before.
    expected = evaluate(model, x)
    weights = {name: p.array.copy() for name, p in model.namedparams()}
    report = surgery.fold_batch_normalization(model, x)
    assert [one.into for one in report] == [into], str(report)
    numpy.testing.assert_allclose(
        evaluate(model, x), expected, rtol=1e-4, atol=1e-4)
    assert [n.function for n in surgery.trace(model, x)] == [
        'SharedLinearFunction'] * 2
    return weights


@KINDS
def test_behind_the_layer(n_tiles, order, nobias):
    model = chainer.Sequential(
        layer(n_tiles, order, nobias), normalization(5))
    x = numpy.random.normal(size=(4, 6)).astype('f')
    weights = check_folded(model, x, '/0')
    numpy.testing.assert_array_equal(model[0].A.array, weights['/0/A'])
    assert (model[0].B.array != weights['/0/B']).all()


@KINDS
def test_before_the_layer(n_tiles, order, nobias):
    norm = normalization(6)
    if n_tiles > 1:
        # Inputs that share a weight have the same scale.
        scale = numpy.empty(6, 'f')
        scale[order] = numpy.tile([1.5, -2., .5], n_tiles)
        norm.gamma.array[...] = scale * numpy.sqrt(norm.avg_var + norm.eps)
    model = chainer.Sequential(norm, layer(n_tiles, order, nobias))
    x = numpy.random.normal(size=(4, 6)).astype('f')
    weights = check_folded(model, x, '/1')
    numpy.testing.assert_array_equal(model[1].B.array, weights['/1/B'])
    assert (model[1].A.array != weights['/1/A']).all()


def test_a_scale_that_differs_within_a_group_is_left_alone():
    model = chainer.Sequential(normalization(6), layer(2, ORDER, False))
    x = numpy.random.normal(size=(4, 6)).astype('f')
    before = {name: p.array.copy() for name, p in model.namedparams()}
    report = surgery.fold_batch_normalization(model, x)
    assert report[0].into is None and 'share a weight' in report[0].reason
    for name, parameter in model.namedparams():
        numpy.testing.assert_array_equal(parameter.array, before[name])


@pytest.mark.parametrize('name', ['A', 'B'])
def test_a_weight_that_is_read_elsewhere_is_left_alone(name):
    class Model(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.layer = layer(1, None, False)
                self.norm = normalization(5)

        def forward(self, x):
            y = self.norm(self.layer(x))
            return y * F.sum(getattr(self.layer, name))

    x = numpy.random.normal(size=(4, 6)).astype('f')
    report = surgery.fold_batch_normalization(Model(), x)
    assert report[0].into is None
    assert 'is read by' in report[0].reason


def test_quantized():
    model = chainer.Sequential(layer(2, ORDER, False), F.relu)
    x = numpy.random.normal(size=(50, 6)).astype('f')
    y = evaluate(model, x)
    report = surgery.quantize(model, x)
    assert [one.what for one in report] == ['/0/A', '/0/B', 'output']
    assert abs(evaluate(model, x) - y).max() < .05 * abs(y).max()
