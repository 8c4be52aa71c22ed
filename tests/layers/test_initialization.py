"""Weights are drawn as those of a dense layer of the same in_size."""
import chainer
import chainer.links as L
import numpy
import pytest
from chainer import initializers

import shared_linear as sl

DRAWN = [
    None, initializers.LeCunNormal(), initializers.LeCunUniform(),
    initializers.HeNormal(), initializers.HeNormal(fan_option='fan_out'),
    initializers.HeUniform(), initializers.GlorotNormal(),
    initializers.GlorotUniform(), initializers.Normal(0.3),
    initializers.Uniform(0.3), initializers.Orthogonal(),
]


class Halves(initializers.HeNormal):
    """A subclass may scale by a rule of its own."""

    def __call__(self, array):
        super().__call__(array)
        array /= 2


def name_of(value):
    return type(value).__name__


@pytest.mark.parametrize('initialW', DRAWN + [Halves()], ids=name_of)
@pytest.mark.parametrize('in_size, out_size, n_tiles', [
    (1000, 200, 10),  # a tile is narrower than the output is wide
    (1000, 50, 4),  # and wider
    (60, 900, 2),  # narrower even as a whole
])
def test_deviation_is_that_of_the_dense_layer(
        initialW, in_size, out_size, n_tiles):
    W = sl.SharedLinear(
        in_size, out_size, initialW=initialW, n_tiles=n_tiles).W.array
    V = L.Linear(in_size, out_size, initialW=initialW).W.array
    # Of N normal samples the deviation is known to 1 / sqrt(2 N): 5 of them.
    margin = 5 * (1 / (2 * W.size) + 1 / (2 * V.size)) ** .5
    assert W.std() == pytest.approx(V.std(), rel=margin)
    assert abs(W.mean()) < 5 * W.std() / W.size ** .5


def test_default_deviation():
    W = sl.SharedLinear(1000, 900, n_tiles=10).W.array
    assert W.shape == (900, 100)
    assert W.std() == pytest.approx(1000 ** -.5, rel=5 / (2 * W.size) ** .5)


def test_output_has_the_variance_of_a_dense_layer():
    x = numpy.random.randn(500, 1000).astype('f')
    y = sl.SharedLinear(1000, 400, n_tiles=20)(x).array
    assert y.std() == pytest.approx(1, rel=0.05)


def test_rows_are_orthogonal():
    link = sl.SharedLinear(
        60, 10, initialW=initializers.Orthogonal(1), n_tiles=3)
    V = link.to_linear().W.array
    numpy.testing.assert_allclose(V @ V.T, numpy.eye(10), atol=1e-6)


@pytest.mark.parametrize('mode', ['auto', 'projection'])
def test_orthogonal_where_a_tile_is_narrower_than_the_output(mode):
    initialW = initializers.Orthogonal(1, mode=mode)
    W = sl.SharedLinear(100, 90, initialW=initialW, n_tiles=10).W.array
    assert W.std() == pytest.approx(0.1, rel=0.1)


def test_what_fills_the_array_is_taken_as_it_is():
    array = numpy.random.randn(5, 4).astype('f')

    def fill(a):
        a[...] = array

    for initialW in (
            array, fill, initializers.Constant(array),
            initializers.Constant(array, dtype='f')):
        W = sl.SharedLinear(12, 5, initialW=initialW, n_tiles=3).W.array
        numpy.testing.assert_array_equal(W, array)
    for initialW, value in [
            (0.25, 0.25), (numpy.float32(2), 2), (0, 0),
            (initializers.Zero(), 0), (initializers.One(), 1)]:
        W = sl.SharedLinear(12, 5, initialW=initialW, n_tiles=3).W.array
        assert (W == value).all()
    W = sl.SharedLinear(
        12, 4, initialW=initializers.Identity(2), n_tiles=3).W.array
    numpy.testing.assert_array_equal(W, 2 * numpy.eye(4))
    W = sl.SharedLinear(
        12, 5, initialW=initializers.NaN(), n_tiles=3).W.array
    assert numpy.isnan(W).all()


@pytest.mark.parametrize('initialW', DRAWN + [Halves()], ids=name_of)
def test_one_tile_and_the_same_seed_give_the_weights_of_L_Linear(initialW):
    numpy.random.seed(7)
    ours = sl.SharedLinear(30, 20, initialW=initialW, n_tiles=1)
    numpy.random.seed(7)
    theirs = L.Linear(30, 20, initialW=initialW)
    numpy.testing.assert_array_equal(ours.W.array, theirs.W.array)


@pytest.mark.parametrize('lazy', [True, False])
def test_the_same_seed_gives_the_same_weights(lazy):
    def draw():
        numpy.random.seed(5)
        link = sl.SharedLinear(None if lazy else 12, 5, n_tiles=3)
        link(numpy.ones((1, 12), 'f'))
        return link.W.array

    numpy.testing.assert_array_equal(draw(), draw())


def test_an_initializer_may_have_its_own_random_state():
    def draw(seed):
        initialW = initializers.Normal(rng=numpy.random.RandomState(seed))
        return sl.SharedLinear(12, 5, initialW=initialW, n_tiles=3).W.array

    numpy.testing.assert_array_equal(draw(1), draw(1))
    assert (draw(1) != draw(2)).any()


@pytest.mark.parametrize('config', ['e', 'f', 'd', chainer.mixed16])
def test_dtype_of_parameters_follows_the_configuration(config):
    with chainer.using_config('dtype', config):
        ours = sl.SharedLinear(12, 5, n_tiles=3)
        theirs = L.Linear(12, 5)
        lazy = sl.SharedLinear(5, n_tiles=3)
        x = numpy.ones((2, 12), ours.W.dtype)
        assert lazy(x).dtype == ours(x).dtype == theirs(x).dtype
    for link in (ours, lazy):
        assert link.W.dtype == theirs.W.dtype
        assert link.b.dtype == theirs.b.dtype


@pytest.mark.parametrize('dtype', ['e', 'f', 'd'])
@pytest.mark.parametrize('kind', [
    initializers.LeCunNormal, initializers.Orthogonal, Halves])
def test_dtype_of_an_initializer_wins(dtype, kind):
    for out_size in (2, 30):
        link = sl.SharedLinear(
            12, out_size, initialW=kind(dtype=dtype), n_tiles=3)
        assert link.W.dtype == numpy.dtype(dtype)
        lazy = sl.SharedLinear(
            out_size, initialW=kind(dtype=dtype), n_tiles=3)
        assert lazy.W.dtype == numpy.dtype(dtype)


def test_an_array_takes_the_dtype_of_the_configuration():
    W = numpy.ones((5, 4), 'd')
    link = sl.SharedLinear(12, 5, initialW=W, n_tiles=3)
    assert link.W.dtype == L.Linear(4, 5, initialW=W).W.dtype == 'f'
