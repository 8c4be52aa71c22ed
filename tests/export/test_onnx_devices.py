"""A model on a GPU, in use or not, is exported as one on the CPU."""
import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from gpus import random_numbers_go_on
from links import LINKS, WITH_ORDER

import shared_linear as sl
from shared_linear import surgery

onnx = pytest.importorskip('onnx')
pytestmark = pytest.mark.gpu
X = numpy.random.RandomState(1).normal(size=(3, 24)).astype('f')


def plain(proto):
    """What is in the file: nodes, and arrays by name."""
    return (
        [(n.op_type, list(n.input), list(n.output))
         for n in proto.graph.node],
        {a.name: onnx.numpy_helper.to_array(a).tolist()
         for a in proto.graph.initializer})


def check(model, x, device, where, tmp_path):
    expected = sl.onnx.export(model, x, tmp_path / 'expected.onnx')
    model.to_device(device)
    proto = sl.onnx.export(
        model, chainer.get_device(where).send(x), tmp_path / 'model.onnx')
    assert plain(proto) == plain(expected)
    for link in model.links():
        assert link.device == device
        for parameter in link.params():
            assert parameter.device == device


@pytest.mark.parametrize('where', ['@numpy', '@cupy:0', '@cupy:1'])
@pytest.mark.parametrize('kind', [*LINKS, *WITH_ORDER])
def test_every_link(some_gpu, kind, where, tmp_path):
    if where == '@cupy:1' and some_gpu.device.id == 0:
        pytest.skip('as with the GPUs exchanged')
    link = {**LINKS, **WITH_ORDER}[kind]()
    model = chainer.Sequential(L.Linear(24, 24), F.relu, link)
    check(model, X, some_gpu, where, tmp_path)


def test_other_functions_with_arrays_of_their_own(some_gpu, tmp_path):
    """Statistics, indices, fold and tile with an order, and dropout."""
    order = numpy.random.RandomState(2).permutation(24)

    def permute(h):
        return F.permutate(h, h.xp.arange(24)[::-1].astype('i'), axis=1)

    model = chainer.Sequential(
        L.BatchNormalization(24), permute, F.dropout,
        lambda h: sl.tile(sl.fold(h, 4, order), 4, order),
        lambda h: h[:, ::2])
    model(X)
    check(model, X, some_gpu, '@numpy', tmp_path)


def test_a_quantized_model(some_gpu, tmp_path):
    model = chainer.Sequential(L.Linear(24, 6), F.relu, L.Linear(6, 3))
    surgery.quantize(model, X)
    check(model, X, some_gpu, '@cupy:0', tmp_path)


def test_the_random_numbers_there_go_on(some_gpu, tmp_path):
    model = chainer.Sequential(L.Linear(24, 6)).to_device(some_gpu)
    with random_numbers_go_on(some_gpu):
        sl.onnx.export(model, X, tmp_path / 'model.onnx')
