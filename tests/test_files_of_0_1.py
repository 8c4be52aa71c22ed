"""Files that 0.1 wrote before its modules moved mean what they meant.

Each pickle is of (object, x, y): what it is of, an input, and what it gave.
"""
import pickle
from pathlib import Path

import numpy
import pytest

import shared_linear as sl
from shared_linear import surgery

import chainer  # isort: skip

FILES = Path(__file__).parent / 'files_of_0_1'


def load(name):
    with open(FILES / (name + '.pickle'), 'rb') as f:
        return pickle.load(f)


def outputs(link, x):
    with chainer.using_config('train', False):
        return link(x).array


@pytest.mark.parametrize('name, cls', [
    ('shared', sl.SharedLinear), ('mixed', sl.MixedLinear)])
def test_a_pickled_link(name, cls):
    link, x, y = load(name)
    assert type(link) is cls
    numpy.testing.assert_allclose(outputs(link, x), y, rtol=1e-5)
    again = pickle.loads(pickle.dumps(link))
    numpy.testing.assert_array_equal(outputs(again, x), outputs(link, x))
    numpy.testing.assert_allclose(
        outputs(link.to_linear(), x), y, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('make', [
    lambda: sl.SharedLinear(12, 4, n_tiles=3),
    lambda: sl.SharedLinear(12, 4, n_tiles=3, order=numpy.arange(12))])
def test_a_snapshot_of_a_shared_link(make):
    link = make()
    chainer.serializers.load_npz(FILES / 'shared.npz', link)
    _, x, y = load('shared')
    numpy.testing.assert_allclose(outputs(link, x), y, rtol=1e-5)


def test_a_snapshot_of_a_mixed_link():
    link = sl.MixedLinear(12, 4, n_tiles=3, n_blocks=2, seed=7)
    chainer.serializers.load_npz(FILES / 'mixed.npz', link)
    _, x, y = load('mixed')
    numpy.testing.assert_allclose(outputs(link, x), y, rtol=1e-5)


def test_a_pickled_link_without_weights():
    link, _, _ = load('shared_lazy')
    link(numpy.ones((1, 60000), 'f'))
    assert link.W.shape == (4, 20000)
    # The pickled initializer draws them as those of a dense layer.
    assert link.W.array.std() == pytest.approx(60000 ** -.5, rel=.02)


def test_a_pickled_report():
    report, _, _ = load('report')
    assert isinstance(report, sl.Report)
    assert report.layers[0].path == '/0'
    assert '/0' in str(report)


def test_a_pickled_model_with_edits():
    model, x, y = load('edited')
    numpy.testing.assert_allclose(outputs(model, x), y, rtol=1e-4, atol=1e-6)
    assert len(surgery.edits(model)) > 0
    copy = load('edited')[0]
    for param in copy.params():
        param.array[...] = 0
    chainer.serializers.load_npz(FILES / 'edited.npz', copy)
    numpy.testing.assert_array_equal(outputs(copy, x), outputs(model, x))
    surgery.revert(model)
    assert surgery.edits(model) == []
