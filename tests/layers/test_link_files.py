"""Links in pickles and files: what is saved comes back, and goes on."""
import io
import pickle

import chainer
import chainer.functions as F
import chainer.links as L
import kinds
import numpy
import pytest
from chainer import optimizers, serializers
from kinds import (
    EACH,
    EACH_LAZY,
    EACH_LAZY_OR_NOT,
    ORDER,
    X,
    arrays,
    assert_right,
    assert_same,
)

import shared_linear as sl


@EACH_LAZY_OR_NOT
@pytest.mark.parametrize('initialW', [
    None, chainer.initializers.HeNormal(), 0.5, numpy.ones],
    ids=['default', 'He', 'scalar', 'array'])
def test_pickle_of_every_protocol(kind, lazy, initialW):
    if initialW is numpy.ones:
        initialW = kind.initialW(
            *(numpy.ones(shape, 'f') for shape in kind.shapes.values()))
    link = kind.make(lazy, initialW=initialW)
    others = [
        pickle.loads(pickle.dumps(link, protocol))
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)]
    for each in (link, *others):
        numpy.random.seed(0)
        each(X)
    for other in others:
        assert_same(link, other)
        assert_right(kind, other)


def save_and_load(file_format, source, target):
    if file_format == 'npz':
        file = io.BytesIO()
        serializers.save_npz(file, source)
        file.seek(0)
        serializers.load_npz(file, target)  # strict: raises on what differs
    else:
        import h5py
        with h5py.File(io.BytesIO(), 'w') as f:
            serializers.HDF5Serializer(f).save(source)
            serializers.HDF5Deserializer(f).load(target)


FORMATS = pytest.mark.parametrize('file_format', ['npz', 'hdf5'])
LOADED = [{}, {'lazy': True, 'order': None}]
LOADED_WITH_ORDER = [
    *LOADED, {'order': None}, {'order': ORDER[::-1]},
    {'order': numpy.arange(12)}]


@FORMATS
@pytest.mark.parametrize('kind, changes', [
    (kind, changes) for kind in kinds.KINDS.values()
    for changes in (LOADED if kind.order is None else LOADED_WITH_ORDER)])
def test_save_and_load(file_format, kind, changes):
    source, target = kind.make(), kind.make(**changes)
    save_and_load(file_format, source, target)
    assert target.in_size == 12
    again = kind.make(lazy=True, order=None)
    save_and_load(file_format, target, again)
    for link in (target, again):
        assert_same(source, link)
        assert_right(kind, link)
        numpy.testing.assert_array_equal(link.order, kind.order)
        assert kind.order is None or link.order.dtype == numpy.int32


@FORMATS
@EACH
def test_save_and_load_files(file_format, kind, tmp_path):
    path = tmp_path / ('model.' + file_format)
    source, target = kind.make(), kind.make()
    getattr(serializers, 'save_' + file_format)(path, source)
    getattr(serializers, 'load_' + file_format)(path, target)
    assert_same(source, target)


@FORMATS
@EACH_LAZY
def test_save_and_load_what_has_no_weight_yet(file_format, kind):
    source, target = kind.make(lazy=True), kind.make(lazy=True)
    save_and_load(file_format, source, target)
    assert target.in_size is None
    numpy.testing.assert_array_equal(target.b.array, source.b.array)
    assert target(X).shape == (4, 6)


@FORMATS
def test_what_a_file_holds_is_what_L_Linear_writes(file_format):
    ours = sl.SharedLinear(12, 5, n_tiles=1)
    theirs = L.Linear(12, 5)
    save_and_load(file_format, ours, theirs)
    numpy.testing.assert_array_equal(ours.W.array, theirs.W.array)
    other = sl.SharedLinear(None, 5, n_tiles=1)
    save_and_load(file_format, theirs, other)
    assert_same(ours, other)
    assert other.in_size == 12


@FORMATS
@EACH
def test_optimizer_and_lazy_model_resume(file_format, kind):
    def start():
        model = chainer.Sequential(
            kind.make(lazy=True), F.relu, sl.MixedLinear(2, **kinds.MIXING))
        return model, optimizers.Adam(0.05).setup(model)

    def step(model, optimizer):
        loss = F.sum((model(X) - 1) ** 2)
        model.cleargrads()
        loss.backward()
        optimizer.update()
        return float(loss.array)

    model, optimizer = start()
    first = step(model, optimizer)
    other, other_optimizer = start()
    save_and_load(file_format, model, other)
    save_and_load(file_format, optimizer, other_optimizer)
    for _ in range(25):
        assert step(model, optimizer) == step(other, other_optimizer)
    for a, b in zip(arrays(model), arrays(other), strict=True):
        numpy.testing.assert_array_equal(a, b)
    assert step(model, optimizer) < first / 10


