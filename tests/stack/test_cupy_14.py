"""Chainer on CuPy 14: its own kernels in float16, and what adds at indices."""
import copy

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer.backends import cuda
from chainer.training.updaters import multiprocess_parallel_updater

import shared_linear  # noqa: F401  (it readies Chainer)

ROIS = numpy.array([[0, 0, 3, 3], [1, 0, 2, 3]])


class Sampler:

    """Always the same samples, on the device of those who ask."""

    def __init__(self, xp):
        self.xp = xp

    def __call__(self, shape):
        return self.xp.asarray(
            numpy.arange(numpy.prod(shape)).reshape(shape) % 5, 'i')


def _negative_sampling(xp, x, W, reduce):
    t = xp.array([0, 3, -1, 2], 'i')
    return F.negative_sampling(x, t, W, Sampler(xp), 2, reduce)


def _hierarchical_softmax(xp, x, W):
    link = L.BinaryHierarchicalSoftmax(
        x.shape[1], ((0, 1), ((2, 3), 4)), dtype=x.dtype)
    link.to_device(x.device)
    function = copy.copy(link._func)  # as the link does at each call
    return function(x, xp.array([0, 3, 4, 2], 'i'), W)


def _roi(function, x, xp):
    y = function(
        x.reshape(1, 2, 4, 4), xp.asarray(ROIS, x.dtype),
        xp.zeros(len(ROIS), 'i'), 2, 1.)
    return y[0] if isinstance(y, tuple) else y


CASES = {
    'negative_sampling': (
        (4, 3), (5, 3), lambda xp, x, W: _negative_sampling(xp, x, W, 'sum')),
    'hierarchical_softmax': (
        (4, 3), (4, 3), _hierarchical_softmax),
    'negative_sampling, no sum': (
        (4, 3), (5, 3), lambda xp, x, W: _negative_sampling(xp, x, W, 'no')),
    'embed_id': (
        (3, 4), None, lambda xp, x, _: F.embed_id(
            xp.array([[0, 2], [2, -1]], 'i'), x, ignore_label=-1)),
    'embed_id, all labels': (
        (3, 4), None, lambda xp, x, _: F.embed_id(
            xp.array([[0, 2], [2, 1]], 'i'), x)),
    'get_item': ((3, 4), None, lambda xp, x, _: x[xp.array([0, 2, 0])]),
    'scatter_add': (
        (3, 4), (2, 4),
        lambda xp, x, y: F.scatter_add(x, xp.array([1, 1]), y)),
    'as_strided': (
        (6,), None, lambda xp, x, _: F.as_strided(x, (4, 3), (1, 1))),
    'spatial_transformer_sampler': (
        (1, 2, 4, 4), (1, 2, 3, 3),
        lambda xp, x, grid: F.spatial_transformer_sampler(x, grid / 2)),
    'roi_average_pooling_2d': (
        (2, 4, 4), None,
        lambda xp, x, _: _roi(F.roi_average_pooling_2d, x, xp)),
    'roi_max_pooling_2d': (
        (2, 4, 4), None, lambda xp, x, _: _roi(F.roi_max_pooling_2d, x, xp)),
    'roi_pooling_2d': (
        (2, 4, 4), None, lambda xp, x, _: F.roi_pooling_2d(
            x.reshape(1, 2, 4, 4), xp.asarray(
                numpy.insert(ROIS, 0, 0, axis=1), x.dtype), 2, 2, 1.)),
}


def run(device, function, arrays, gy=None):
    variables = [
        None if a is None else chainer.Variable(device.send(a))
        for a in arrays]
    y = function(device.xp, *variables)
    if gy is None:
        gy = numpy.random.RandomState(1).uniform(
            .5, 1, y.shape).astype(y.dtype)
    gradients = chainer.grad(
        [y], [v for v in variables if v is not None],
        [chainer.Variable(device.send(gy).astype(y.dtype))])
    return [y.array] + [g.array for g in gradients]


@pytest.mark.gpu
@pytest.mark.parametrize('case', CASES)
def test_it_is_what_NumPy_computes_in_float64(case):
    x_shape, W_shape, function = CASES[case]
    random = numpy.random.RandomState(0)
    arrays = [
        None if shape is None
        else random.uniform(-1, 1, shape).astype('e')
        for shape in (x_shape, W_shape)]
    y, *gradients = run(chainer.get_device('@cupy:0'), function, arrays)
    expected = run(
        chainer.get_device('@numpy'), function,
        [None if a is None else a.astype('d') for a in arrays],
        gy=None)
    for actual, e in zip([y, *gradients], expected, strict=True):
        assert actual.dtype == 'e'
        assert isinstance(actual, cuda.ndarray)
        numpy.testing.assert_allclose(
            cuda.to_cpu(actual).astype('d'), e, rtol=1e-2, atol=4e-3)


@pytest.mark.gpu
def test_what_MultiprocessParallelUpdater_passes_on():
    """It gathers all parameters in one array, and puts them back."""
    model = chainer.Sequential(L.Linear(3, 2), L.Linear(2, 2, nobias=True))
    for parameter, dtype in zip(model.params(), 'eef', strict=True):
        parameter.array = numpy.random.normal(
            size=parameter.shape).astype(dtype)
    model.cleargrads()
    model.to_device('@cupy:0')
    paths = [path for path, _ in sorted(model.namedparams())]
    before = {
        path: cuda.to_cpu(p.array) for path, p in model.namedparams()}
    gathered = multiprocess_parallel_updater.gather_params(model)
    numpy.testing.assert_array_equal(
        cuda.to_cpu(gathered),
        numpy.concatenate([before[path].ravel() for path in paths]))
    multiprocess_parallel_updater.scatter_grads(model, 2 * gathered)
    for path, parameter in model.namedparams():
        assert parameter.grad.dtype == parameter.dtype
        numpy.testing.assert_array_equal(
            cuda.to_cpu(parameter.grad), 2 * before[path])
