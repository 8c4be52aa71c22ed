"""Permutations and signs: from a seed alone, the same everywhere."""
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy
import pytest
import reference

import shared_linear as sl
from shared_linear.layers import mixing
from shared_linear.layers.mixing import Mixing


@pytest.mark.parametrize('in_size, n_tiles, n_blocks, seed', [
    (12, 3, 1, 0), (12, 3, 5, 0), (784, 8, 8, 7), (6, 6, 2, 2 ** 32 - 1),
    (6, 1, 3, 1), (0, 1, 2, 0)])
def test_permutations_are_those_of_the_definition(
        in_size, n_tiles, n_blocks, seed):
    permutations, signs = Mixing(n_tiles, n_blocks, seed).permutations(in_size)
    expected = reference.mixed_permutations(in_size, n_blocks, seed)
    assert permutations.tolist() == [p for p, _ in expected]
    assert signs.tolist() == [s for _, s in expected]


def test_they_never_change():
    """Snapshots hold the seed only: another stream would break them all."""
    permutations, signs = Mixing(2, 3, 5).permutations(8)
    assert permutations.tolist() == [
        [2, 0, 4, 7, 5, 6, 1, 3],
        [7, 5, 6, 1, 0, 3, 4, 2],
        [4, 2, 5, 3, 6, 0, 1, 7]]
    assert signs.tolist() == [
        [-1, -1, -1, 1, -1, -1, 1, -1],
        [-1, -1, -1, 1, 1, -1, -1, -1],
        [-1, 1, 1, 1, -1, -1, 1, -1]]


def test_more_blocks_begin_with_the_same():
    few, many = (Mixing(4, k, 3).permutations(40) for k in (2, 5))
    for a, b in zip(few, many, strict=True):
        numpy.testing.assert_array_equal(a, b[:2])


def test_they_leave_the_global_generator_alone():
    numpy.random.seed(0)
    expected = numpy.random.random_sample()
    numpy.random.seed(0)
    sl.mixed_linear(
        numpy.ones((1, 10), 'f'), numpy.ones((1, 5), 'f'), n_tiles=2, seed=99)
    assert numpy.random.random_sample() == expected


def test_another_process_makes_the_same():
    code = (
        'import numpy, shared_linear as sl;'
        'x = numpy.arange(24.).reshape(2, 12);'
        'W = numpy.arange(8.).reshape(2, 4);'
        'y = sl.mixed_linear(x, W, n_tiles=3, n_blocks=2, seed=4);'
        'print(y.array.tolist())')
    out = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True,
        check=True).stdout
    x, W = numpy.arange(24.).reshape(2, 12), numpy.arange(8.).reshape(2, 4)
    y = reference.mixed_linear(
        x, W, None, {'n_tiles': 3, 'n_blocks': 2, 'seed': 4})
    numpy.testing.assert_allclose(eval(out), y, rtol=1e-12)


def test_blocks_differ_and_signs_are_balanced():
    permutations, signs = Mixing(1, 50, 0).permutations(400)
    assert len(numpy.unique(permutations, axis=0)) == 50
    # 20,000 coins: the mean is known to 1 / sqrt(20000).
    assert abs(signs.mean()) < 5 / 20000 ** .5
    assert set(numpy.unique(signs)) == {-1, 1}


@pytest.mark.parametrize('n_ordered', [1, 2, 3])
def test_orders_take_the_places_of_the_first_blocks(n_ordered):
    order = numpy.array([
        numpy.random.permutation(12) for _ in range(n_ordered)])
    plain = Mixing(3, 3, 1).permutations(12)
    mixed = Mixing.checked(3, 3, 1, order).permutations(12)
    numpy.testing.assert_array_equal(mixed[0][:n_ordered], order)
    assert (mixed[1][:n_ordered] == 1).all()
    for a, b in zip(plain, mixed, strict=True):
        numpy.testing.assert_array_equal(a[n_ordered:], b[n_ordered:])
    if n_ordered == 1:
        assert Mixing.checked(3, 3, 1, order[0]) == Mixing.checked(
            3, 3, 1, order)


@pytest.mark.parametrize('n_tiles, n_blocks, rank', [
    (8, 1, 8), (8, 2, 16), (8, 4, 32), (8, 8, 64), (2, 4, 64)])
def test_rank_grows_with_the_blocks(n_tiles, n_blocks, rank):
    """min(k m, in, out) for 64 inputs; the tiles alone have m."""
    W = numpy.random.randn(80 // n_blocks, 64 // n_tiles)
    V = Mixing(n_tiles, n_blocks).dense_weight(W)
    assert V.shape == (80, 64)
    assert numpy.linalg.matrix_rank(V) == rank


def test_batches_of_many_slices(monkeypatch):
    """What is gathered at a time makes no difference."""
    x, W = numpy.random.randn(37, 24), numpy.random.randn(3, 6)
    gy = numpy.random.randn(37, 15)
    mix = Mixing(4, 5, 2)

    def run():
        folded = mixing.fold_blocks(x, mix, numpy.dtype('d'))
        split = mixing.split_blocks(gy, 5)
        return folded, mixing.tile_product(split, W, mix, numpy.dtype('d'))

    whole = run()
    monkeypatch.setattr(mixing, 'GATHER_BYTES', 500)
    monkeypatch.setattr(mixing, 'MIN_ROWS', 3)
    monkeypatch.setattr(mixing, 'SCRATCH_BYTES', 100)
    monkeypatch.setattr(mixing, '_scratch', mixing._Scratch())
    for a, b in zip(whole, run(), strict=True):
        numpy.testing.assert_allclose(a, b, rtol=1e-12)


def test_split_and_join_are_inverse():
    y = numpy.arange(24.).reshape(2, 12)
    split = mixing.split_blocks(y, 3)
    assert split.tolist() == numpy.concatenate(
        numpy.split(y, 3, axis=1)).tolist()
    numpy.testing.assert_array_equal(mixing.join_blocks(split, 3), y)


def test_threads_do_not_share_their_scratch_memory():
    W = numpy.random.randn(25, 50)
    mixing = {'n_tiles': 8, 'n_blocks': 4}
    inputs = [numpy.random.randn(64, 400) for _ in range(16)]
    expected = [
        reference.mixed_linear(x, W, None, mixing) for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            results = pool.map(
                lambda x: sl.mixed_linear(x, W, **mixing).array, inputs)
            for y, y_ in zip(results, expected, strict=True):
                numpy.testing.assert_allclose(y, y_, rtol=1e-10, atol=1e-10)
