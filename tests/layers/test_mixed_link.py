"""MixedLinear: its blocks, seed and permutations, in files and errors."""
import io
import pickle
import re

import chainer.links as L
import numpy
import pytest
from chainer import serializers
from chainer.utils.type_check import InvalidType
from kinds import KINDS, ORDER, ORDERS, X, assert_same
from test_link_files import FORMATS, save_and_load

import shared_linear as sl

new_link = KINDS['mixed'].make


def test_a_pickle_holds_no_permutations():
    link = sl.MixedLinear(10000, 2, n_tiles=1000, n_blocks=2)
    link(numpy.ones((1, 10000), 'f'))
    assert len(pickle.dumps(link)) < 5000


def test_a_file_holds_the_seed_and_no_permutations(tmp_path):
    serializers.save_npz(tmp_path / 'a.npz', new_link())
    with numpy.load(tmp_path / 'a.npz') as file:
        assert {k: file[k].size for k in file} == {
            'W': 12, 'b': 6, 'n_tiles': 1, 'n_blocks': 1, 'seed': 1}
        assert file['seed'] == 3


@FORMATS
@pytest.mark.parametrize('other, words', [
    ({'seed': 4}, 'seed = 3, but this one has seed = 4'),
    ({'n_tiles': 6}, 'n_tiles = 3, but this one has n_tiles = 6'),
    ({'n_blocks': 3}, 'n_blocks = 2, but this one has n_blocks = 3'),
    ({'order': ORDER}, 'without an order'),
])
def test_a_snapshot_of_another_mixing_is_refused(file_format, other, words):
    source, target = new_link(), new_link(**other)
    before = target.copy('copy')
    with pytest.raises(ValueError, match=words):
        save_and_load(file_format, source, target)
    assert_same(target, before)


def test_a_snapshot_of_a_dense_layer_is_refused():
    file = io.BytesIO()
    serializers.save_npz(file, L.Linear(12, 6))
    file.seek(0)
    with pytest.raises(KeyError, match='n_tiles'):
        serializers.load_npz(file, new_link())


def test_a_bad_order_in_a_snapshot_is_refused():
    file = io.BytesIO()
    serializers.save_npz(file, new_link(order=ORDER))
    file.seek(0)
    arrays = dict(numpy.load(file))
    arrays['order'] = numpy.zeros(12, 'i')
    file = io.BytesIO()
    numpy.savez(file, **arrays)
    file.seek(0)
    target = new_link()
    before = target.copy('copy')
    with pytest.raises(ValueError, match='permutation'):
        serializers.load_npz(file, target)
    assert_same(target, before)


TABLE = {
    'n_blocks does not divide': (
        lambda: sl.MixedLinear(12, 10, n_tiles=2, n_blocks=4),
        ValueError, 'out_size.*n_blocks = 4 does not divide 10.*2 and 5'),
    'no blocks': (
        lambda: new_link(n_blocks=0), ValueError, 'n_blocks.*positive.*0'),
    'half a block': (
        lambda: new_link(n_blocks=.5), TypeError, 'n_blocks.*int.*0.5'),
    'True blocks': (
        lambda: new_link(n_blocks=True), TypeError, 'n_blocks.*True'),
    'seed of no int': (
        lambda: new_link(seed=.5), TypeError, r'seed.*int.*0\.5'),
    'no seed': (lambda: new_link(seed=None), TypeError, 'seed.*None'),
    'True as seed': (lambda: new_link(seed=True), TypeError, 'seed.*True'),
    'negative seed': (lambda: new_link(seed=-1), ValueError, 'seed.*-1'),
    'seed too large': (
        lambda: new_link(seed=2 ** 32), ValueError, 'seed.*4294967296'),
    'order of another size in the function': (
        lambda: sl.mixed_linear(
            X, numpy.ones((2, 4), 'f'), n_tiles=3, order=[1, 0]),
        InvalidType, r'order.shape = \(2,\)'),
    'more orders than blocks': (
        lambda: new_link(order=[ORDER] * 3),
        ValueError, 'order has 3 permutations, but there are 2 blocks'),
    'no orders': (
        lambda: new_link(order=numpy.zeros((0, 12), 'i')),
        ValueError, 'order has 0 permutations'),
    'a bad one of two orders': (
        lambda: new_link(order=[ORDER, [0] * 12]), ValueError, 'permutation'),
    'orders of three axes': (
        lambda: new_link(order=ORDERS[None]), ValueError, 'one axis'),
    'bias': (
        lambda: sl.mixed_linear(
            X, numpy.ones((2, 4), 'f'), numpy.ones(5, 'f'), n_tiles=3,
            n_blocks=2),
        InvalidType, r'b.shape = \(5,\).*\(2, 4\).*n_blocks = 2'),
    'sizes of the parameters': (
        lambda: sl.MixedLinear.from_params(
            numpy.ones((2, 4)), numpy.ones(6), n_tiles=3, n_blocks=2),
        ValueError, r'\(2, 4\), n_blocks = 2, b.shape = \(6,\)'),
}


@pytest.mark.parametrize('what', TABLE)
def test_errors(what):
    call, error, words = TABLE[what]
    with pytest.raises(error) as info:
        call()
    assert re.search(words, str(info.value), re.DOTALL), str(info.value)
