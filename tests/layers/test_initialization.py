"""Weights are drawn as those of a dense layer of the same in_size."""
import itertools

import chainer
import chainer.links as L
import kinds
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


WIDE = pytest.mark.parametrize('link_class, in_size, out_size, arguments', [
    # a tile is narrower than the output is wide
    (sl.SharedLinear, 1000, 200, {'n_tiles': 10}),
    (sl.SharedLinear, 1000, 50, {'n_tiles': 4}),  # and wider
    (sl.SharedLinear, 60, 900, {'n_tiles': 2}),  # narrower even as a whole
    (sl.MixedLinear, 1000, 200, {'n_tiles': 4, 'n_blocks': 2}),
    (sl.MixedLinear, 500, 100, {'n_tiles': 1, 'n_blocks': 4}),
    (sl.MixedLinear, 240, 960, {'n_tiles': 2, 'n_blocks': 8}),
    (sl.MixedLinear, 960, 240, {'n_tiles': 8, 'n_blocks': 2}),
])


@pytest.mark.parametrize('initialW', DRAWN + [Halves()], ids=name_of)
@WIDE
def test_deviation_is_that_of_the_dense_layer(
        initialW, link_class, in_size, out_size, arguments):
    W = link_class(
        in_size, out_size, initialW=initialW, **arguments).W.array
    V = L.Linear(in_size, out_size, initialW=initialW).W.array
    # Of N normal samples the deviation is known to 1 / sqrt(2 N): 5 of them.
    margin = 5 * (1 / (2 * W.size) + 1 / (2 * V.size)) ** .5
    assert W.std() == pytest.approx(V.std(), rel=margin)
    assert abs(W.mean()) < 5 * W.std() / W.size ** .5


@WIDE
def test_default_deviation(link_class, in_size, out_size, arguments):
    link = link_class(in_size, out_size, **arguments)
    for W in (link.W.array, link.copy('init').W.array):
        assert W.std() == pytest.approx(
            in_size ** -.5, rel=5 / (2 * W.size) ** .5)


@pytest.mark.parametrize('link_class, arguments', [
    (sl.SharedLinear, {'n_tiles': 20}),
    (sl.MixedLinear, {'n_tiles': 20, 'n_blocks': 8})])
def test_output_has_the_variance_of_a_dense_layer(link_class, arguments):
    x = numpy.random.randn(500, 1000).astype('f')
    y = link_class(1000, 400, **arguments)(x).array
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


@kinds.EACH_WITH_W
def test_what_fills_the_array_is_taken_as_it_is(kind):
    def fill(a):
        a[...] = array

    def new_weight(initialW):
        link = kind.make(initialW=initialW)
        return getattr(link, name).array

    (name, shape), = kind.shapes.items()
    array = numpy.random.randn(*shape).astype('f')
    for initialW in (
            array, fill, initializers.Constant(array),
            initializers.Constant(array, dtype='f')):
        numpy.testing.assert_array_equal(new_weight(initialW), array)
    for initialW, value in [
            (0.25, 0.25), (numpy.float32(2), 2), (0, 0),
            (initializers.Zero(), 0), (initializers.One(), 1)]:
        assert (new_weight(initialW) == value).all()
    assert numpy.isnan(new_weight(initializers.NaN())).all()


def test_identity_is_taken_as_it_is():
    W = sl.SharedLinear(
        12, 4, initialW=initializers.Identity(2), n_tiles=3).W.array
    numpy.testing.assert_array_equal(W, 2 * numpy.eye(4))


@pytest.mark.parametrize('initialW', DRAWN + [Halves()], ids=name_of)
def test_one_tile_and_the_same_seed_give_the_weights_of_L_Linear(initialW):
    numpy.random.seed(7)
    ours = sl.SharedLinear(30, 20, initialW=initialW, n_tiles=1)
    numpy.random.seed(7)
    theirs = L.Linear(30, 20, initialW=initialW)
    numpy.testing.assert_array_equal(ours.W.array, theirs.W.array)


@kinds.EACH_LAZY_OR_NOT
def test_the_same_seed_gives_the_same_weights(kind, lazy):
    def draw():
        numpy.random.seed(5)
        link = kind.make(lazy)
        link(kinds.X)
        return kind.dense_weight(link)

    numpy.testing.assert_array_equal(draw(), draw())


@kinds.EACH_WITH_W
def test_an_initializer_may_have_its_own_random_state(kind):
    def draw(seed):
        initialW = initializers.Normal(rng=numpy.random.RandomState(seed))
        return kind.dense_weight(kind.make(initialW=initialW))

    numpy.testing.assert_array_equal(draw(1), draw(1))
    assert (draw(1) != draw(2)).any()


@kinds.EACH_LAZY_OR_NOT
def test_dtype_of_parameters_follows_the_configuration(kind, lazy):
    for config in ('e', 'f', 'd', chainer.mixed16):
        with chainer.using_config('dtype', config):
            ours, theirs = kind.make(lazy), L.Linear(12, 5)
            x = numpy.ones((2, 12), theirs.W.dtype)
            assert ours(x).dtype == theirs(x).dtype
        for name, param in ours.namedparams():
            assert param.dtype == (
                theirs.b if name == '/b' else theirs.W).dtype


@kinds.EACH_LAZY_OR_NOT
@pytest.mark.parametrize('initializer', [
    initializers.LeCunNormal, initializers.Orthogonal, Halves])
def test_dtype_of_an_initializer_wins(kind, lazy, initializer):
    for dtype, out_size in itertools.product('efd', (2, 30)):
        link = kind.make(
            lazy, out_size=out_size, initialW=initializer(dtype=dtype))
        for name in kind.shapes:
            assert getattr(link, name).dtype == numpy.dtype(dtype)


@kinds.EACH
def test_an_array_takes_the_dtype_of_the_configuration(kind):
    arrays = [numpy.ones(shape, 'd') for shape in kind.shapes.values()]
    theirs = L.Linear(*arrays[0].shape[::-1], initialW=arrays[0])
    link = kind.make(initialW=kind.initialW(*arrays))
    for name in kind.shapes:
        assert getattr(link, name).dtype == theirs.W.dtype == 'f'
