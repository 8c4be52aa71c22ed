"""sl.LowRankLinear: y = B A fold(x[order]) + b."""
import copy
import io
import pickle

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer import gradient_check, initializers, serializers
from chainer.utils import type_check

import shared_linear as sl

ORDER = numpy.random.RandomState(3).permutation(12)
SHARING = pytest.mark.parametrize('n_tiles, order', [
    (1, None), (1, ORDER), (3, None), (3, ORDER)])
LAZY = pytest.mark.parametrize('lazy', [False, True])


def new_link(lazy=False, dtype=numpy.float32, **kwargs):
    kwargs = {'n_tiles': 3, **kwargs}
    with chainer.using_config('dtype', dtype):
        return sl.LowRankLinear(
            None if lazy else 12, 5, rank=2,
            initial_bias=initializers.Normal(1), **kwargs)


def inputs(count=4, dtype=numpy.float32, seed=1):
    rng = numpy.random.RandomState(seed)
    return rng.normal(size=(count, 12)).astype(dtype)


def dense_weight(link):
    """By hand, in float64: V[:, order[j m + i]] = (B A)[:, i]."""
    B, A = (p.array.astype(float) for p in (link.B, link.A))
    order = numpy.arange(12) if link.order is None else link.order
    V = numpy.empty((len(B), 12))
    V[:, order] = numpy.tile(B @ A, (1, link.n_tiles))
    return V


def expected(link, x):
    y = x.reshape(len(x), -1).astype(float) @ dense_weight(link).T
    return y if link.b is None else y + link.b.array


@SHARING
@pytest.mark.parametrize('nobias', [False, True])
def test_forward(n_tiles, order, nobias):
    link = new_link(n_tiles=n_tiles, order=order, nobias=nobias)
    x = inputs()
    y = link(x)
    assert y.dtype == numpy.float32
    numpy.testing.assert_allclose(y.array, expected(link, x), rtol=1e-5,
                                  atol=1e-5)


@pytest.mark.parametrize('dtype, tolerance', [
    (numpy.float16, 1e-2), (numpy.float32, 1e-5), (numpy.float64, 1e-12)])
def test_dtypes(dtype, tolerance):
    link, x = new_link(dtype=dtype), inputs(dtype=dtype)
    y = link(x)
    assert y.dtype == dtype and {p.dtype for p in link.params()} == {
        numpy.dtype(dtype)}
    numpy.testing.assert_allclose(
        y.array, expected(link, x), rtol=tolerance, atol=tolerance)


@SHARING
def test_gradients_of_both_orders(n_tiles, order):
    link = new_link(n_tiles=n_tiles, order=order, dtype=numpy.float64)
    x, gy, ggx = inputs(dtype=float), inputs(dtype=float, seed=2)[:, :5], \
        inputs(dtype=float, seed=3)

    def apply(x, A, B, b):
        h = sl.shared_linear(x, A, n_tiles=n_tiles, order=order)
        return F.linear(h, B, b)

    arrays = link.A.array, link.B.array, link.b.array
    # Chainer's own nodes, put together here, give the same gradients ...
    variables = [chainer.Variable(a) for a in (x, *arrays)]
    wanted = chainer.grad([apply(*variables)], variables, [
        chainer.Variable(gy)])
    v = chainer.Variable(x)
    got = chainer.grad([link(v)], [v, link.A, link.B, link.b], [
        chainer.Variable(gy)])
    for a, b in zip(got, wanted, strict=True):
        numpy.testing.assert_allclose(a.array, b.array, rtol=1e-12)
    # ... and so do differences.
    gradient_check.check_backward(
        lambda x: link(x), x, gy, params=(link.A, link.B, link.b),
        dtype=numpy.float64, rtol=1e-7, atol=1e-7)
    gradient_check.check_double_backward(
        lambda x: link(x) ** 2, x, gy, ggx, params=(link.A, link.B, link.b),
        params_grad_grad=tuple(numpy.ones_like(a) for a in arrays),
        dtype=numpy.float64, rtol=1e-6, atol=1e-6)


@LAZY
def test_axes_of_the_batch(lazy):
    link = new_link(lazy)
    x = inputs(24).reshape(4, 6, 12)
    y = link(x, n_batch_axes=2)
    assert y.shape == (4, 6, 5)
    numpy.testing.assert_allclose(
        y.array.reshape(24, 5), expected(link, x.reshape(24, 12)), rtol=1e-4,
        atol=1e-5)
    image = inputs().reshape(4, 3, 2, 2)
    numpy.testing.assert_allclose(
        link(image).array, expected(link, image), rtol=1e-4, atol=1e-5)
    assert link(inputs(0)).shape == (0, 5)


def test_sizes_that_are_left_out():
    link = sl.LowRankLinear(5, rank=2, n_tiles=3)
    assert link.in_size is None and link.A.array is None
    assert link.B.shape == (5, 2) and link.out_size == 5
    link(inputs())
    assert link.in_size == 12 and link.A.shape == (2, 4)
    with pytest.raises(ValueError, match='n_tiles = 3 does not divide 13'):
        sl.LowRankLinear(5, rank=2, n_tiles=3)(numpy.zeros((1, 13), 'f'))
    with pytest.raises(type_check.InvalidType, match='n_tiles'):
        link(numpy.zeros((1, 13), 'f'))


@pytest.mark.parametrize('initialW, variance', [
    (None, 1 / 600), (initializers.HeNormal(), 2 / 600),
    (initializers.Normal(.3), .09),
    (initializers.GlorotUniform(), 2 / 1000)])
def test_outputs_deviate_as_those_of_a_dense_layer(initialW, variance):
    links = [sl.LowRankLinear(
        600, 400, initialW=initialW, rank=100, n_tiles=n) for n in (1, 4)]
    for link in links:
        assert link.to_linear().W.array.var() == pytest.approx(
            variance, rel=.1)
        assert link.b.array.any() == 0


def test_initial_weights_as_they_are():
    B, A = numpy.ones((5, 2), 'f'), numpy.arange(8, dtype='f').reshape(2, 4)
    link = new_link(initialW=(B, A))
    numpy.testing.assert_array_equal(link.B.array, B)
    numpy.testing.assert_array_equal(link.A.array, A)
    assert link.A.array is not A
    with pytest.raises(ValueError, match='pair .B, A.'):
        new_link(initialW=numpy.ones((5, 4), 'f'))
    with pytest.raises(ValueError, match='pair .B, A., not 3'):
        new_link(initialW=(1, 2, 3))


@pytest.mark.parametrize('arguments, error, words', [
    ({'rank': 0}, ValueError, 'rank must be a positive int'),
    ({'rank': 2.}, TypeError, 'rank must be a positive int'),
    ({'rank': 2, 'n_tiles': 5}, ValueError, 'n_tiles = 5 does not divide 12'),
    ({'rank': 2, 'order': [0] * 12}, ValueError, 'permutation'),
])
def test_bad_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        sl.LowRankLinear(12, 5, **arguments)


def assert_same(a, b):
    assert repr(a) == repr(b)
    for p, q in zip(a.params(), b.params(), strict=True):
        assert p.dtype == q.dtype
        numpy.testing.assert_array_equal(p.array, q.array)
    numpy.testing.assert_array_equal(a(inputs()).array, b(inputs()).array)


def test_repr():
    assert repr(new_link(order=ORDER)) == (
        'LowRankLinear(in_size=12, out_size=5, nobias=False, rank=2, '
        'n_tiles=3, order=int32[12])')


@pytest.mark.parametrize('make', [
    copy.deepcopy, lambda link: link.copy('copy'),
    lambda link: link.copy('share'),
    *(lambda link, p=p: pickle.loads(pickle.dumps(link, p))
      for p in range(2, pickle.HIGHEST_PROTOCOL + 1))])
@pytest.mark.parametrize('order', [None, ORDER])
def test_copies(make, order):
    link = new_link(order=order)
    assert_same(link, make(link))


def test_drawn_again():
    link = new_link()
    other = link.copy('init')
    assert (other.A.array != link.A.array).all()
    assert (other.B.array != link.B.array).all()
    model = link.repeat(2)
    assert (model[0].A.array != model[1].A.array).all()


@LAZY
@pytest.mark.parametrize('order', [None, ORDER])
@pytest.mark.parametrize('kind', ['npz', 'hdf5'])
def test_files(kind, order, lazy):
    source, target = new_link(order=order), new_link(lazy)
    file = io.BytesIO()
    if kind == 'npz':
        serializers.save_npz(file, source)
        file.seek(0)
        serializers.load_npz(file, target)
    else:
        h5py = pytest.importorskip('h5py')
        with h5py.File(file, 'w') as f:
            serializers.HDF5Serializer(f).save(source)
            serializers.HDF5Deserializer(f).load(target)
    assert_same(source, target)
    with chainer.using_config('dtype', numpy.float32):
        other = sl.LowRankLinear(None, 5, rank=3, n_tiles=3)
    if kind == 'npz':
        file.seek(0)
        with pytest.raises(Exception, match='(?i)shape|broadcast|mismatch'):
            serializers.load_npz(file, other)


def test_it_trains():
    link = new_link()
    optimizer = chainer.optimizers.Adam(.1).setup(link)
    x = inputs(100)
    t = x @ dense_weight(new_link()).T.astype('f')

    def loss():
        return F.mean_squared_error(link(x), t)

    before = loss().array
    for _ in range(50):
        optimizer.update(loss)
    assert loss().array < .3 * before


@SHARING
def test_to_linear(n_tiles, order):
    link = new_link(n_tiles=n_tiles, order=order)
    dense = link.to_linear()
    assert type(dense) is L.Linear
    numpy.testing.assert_allclose(
        dense.W.array, dense_weight(link), rtol=1e-5, atol=1e-6)
    numpy.testing.assert_array_equal(dense.b.array, link.b.array)
    with pytest.raises(ValueError, match='no weight yet'):
        new_link(lazy=True).to_linear()


def test_from_params():
    link = new_link(order=ORDER)
    other = sl.LowRankLinear.from_params(
        link.B, link.A, link.b, n_tiles=3, order=ORDER)
    assert_same(link, other)
    assert other.A.array is not link.A.array
    assert sl.LowRankLinear.from_params(
        link.B, link.A, link.b, nobias=True).b is None
    with pytest.raises(ValueError, match=r'B.shape = \(5, 2\), A.shape'):
        sl.LowRankLinear.from_params(link.B, link.A.array[:1])


def correlated(count=400, seed=0):
    rng = numpy.random.RandomState(seed)
    return rng.normal(size=(count, 12)) @ rng.normal(size=(12, 12)) + 3


def dense(nobias=False):
    link = L.Linear(12, 7, nobias)
    if not nobias:
        link.b.array[...] = numpy.arange(7)
    return link


def squares(link, new, x):
    """The error in units of the variance, in float64."""
    y, z = (one.to_linear() if hasattr(one, 'n_tiles') else one
            for one in (link, new))
    y, z = (x @ one.W.array.T.astype(float)
            + (0 if one.b is None else one.b.array) for one in (y, z))
    return ((y - z) ** 2).sum() / ((y - y.mean(0)) ** 2).sum()


@SHARING
@pytest.mark.parametrize('rank', [1, 3])
def test_from_linear_is_the_best_there_is(n_tiles, order, rank):
    link, x = dense(), correlated()
    new = sl.LowRankLinear.from_linear(link, rank, n_tiles, x, order)
    assert (new.rank, new.n_tiles) == (rank, n_tiles)
    # Reduced-rank regression by another formula: least squares, projected
    # on the principal axes of what it gives; on the inputs it is fitted to.
    fitted = x[numpy.arange(len(x)) % 10 != 9]
    z = fitted if order is None else fitted[:, order]
    z = z.reshape(len(z), n_tiles, -1).sum(1)
    z = z - z.mean(0)
    y = fitted @ link.W.array.T.astype(float)
    y = y - y.mean(0)
    given = z @ numpy.linalg.lstsq(z, y, rcond=None)[0]
    axes = numpy.linalg.svd(given, full_matrices=False)[2][:rank]
    least = ((y - given @ axes.T @ axes) ** 2).sum() / (y ** 2).sum()
    assert squares(link, new, fitted) == pytest.approx(
        least, rel=.02, abs=1e-4)


def test_factors_are_balanced():
    new = sl.LowRankLinear.from_linear(dense(), 3, 2, correlated())
    A, B = new.A.array, new.B.array
    numpy.testing.assert_allclose(A @ A.T, B.T @ B, atol=1e-4)


@SHARING
def test_from_linear_without_inputs(n_tiles, order):
    link = dense()
    new = sl.LowRankLinear.from_linear(link, 2, n_tiles, order=order)
    mean = sl.fold(
        link.W.array.astype(float), n_tiles, order).array / n_tiles
    U, s, V = numpy.linalg.svd(mean)
    numpy.testing.assert_allclose(
        new.B.array @ new.A.array, U[:, :2] * s[:2] @ V[:2], rtol=1e-4,
        atol=1e-5)
    numpy.testing.assert_array_equal(new.b.array, link.b.array)


def test_nothing_is_lost_where_nothing_need_be():
    old = new_link(order=ORDER)
    for x in (None, correlated()):
        new = sl.LowRankLinear.from_linear(
            old.to_linear(), 2, 3, x, order=ORDER)
        assert squares(old, new, correlated(seed=1)) < 1e-6


def test_a_search_finds_the_order():
    rng = numpy.random.RandomState(0)
    order = rng.permutation(12)
    old = sl.LowRankLinear(12, 7, rank=2, n_tiles=3, order=order)
    x = correlated(1000)
    plain, found, again = (
        sl.LowRankLinear.from_linear(old.to_linear(), 2, 3, x, order)
        for order in (None, 'search', 'search'))
    error = squares(old, found, correlated(seed=1))
    assert error < 1e-4 < squares(old, plain, correlated(seed=1))
    numpy.testing.assert_array_equal(found.order, again.order)


def test_the_ridge_is_chosen_by_what_is_held_out():
    # 60 inputs of noise: what is fitted to them alone is worse elsewhere.
    rng = numpy.random.RandomState(0)
    link = L.Linear(120, 40)
    x = rng.normal(size=(60, 120))
    new = sl.LowRankLinear.from_linear(link, 20, 2, x)
    other = rng.normal(size=(2000, 120))
    plain = sl.LowRankLinear.from_linear(link, 20, 2)
    assert squares(link, new, other) < 1.1 * squares(link, plain, other)


@pytest.mark.parametrize('dtype', [numpy.float16, numpy.float64])
def test_from_linear_keeps_dtype_and_bias(dtype):
    with chainer.using_config('dtype', dtype):
        link = dense(nobias=True)
    new = sl.LowRankLinear.from_linear(link, 3, 2, correlated())
    assert new.b is None and new.A.dtype == new.B.dtype == dtype
    added = sl.LowRankLinear.from_linear(
        link, 3, 2, correlated(), add_bias=True)
    assert added.b.shape == (7,)
    assert squares(link, added, correlated()) < squares(
        link, new, correlated())


@pytest.mark.parametrize('args, kwargs, error, words', [
    ((8,), {}, ValueError, 'rank = 8 .* the most is 7'),
    ((5, 3), {}, ValueError, 'the most is 4'),
    ((0,), {}, ValueError, 'rank must be'),
    ((2, 5), {}, ValueError, 'n_tiles = 5 does not divide 12'),
    ((2, 3, None, 'search'), {}, ValueError, 'need inputs x'),
    ((2, 3, None, 'serach'), {}, ValueError, "'serach'"),
    ((2, 3, numpy.ones((0, 12))), {}, ValueError, 'no calibration inputs'),
    ((2, 3, numpy.ones((4, 11))), {}, ValueError, 'the layer takes 12'),
    ((2, 3, numpy.full((4, 12), numpy.nan)), {}, ValueError, 'finite'),
])
def test_from_linear_refuses(args, kwargs, error, words):
    with pytest.raises(error, match=words):
        sl.LowRankLinear.from_linear(dense(), *args, **kwargs)
    with pytest.raises(TypeError, match='takes a chainer.links.Linear'):
        sl.LowRankLinear.from_linear(new_link(), 2)


@pytest.mark.gpu
def test_on_a_gpu():
    link = new_link(order=ORDER)
    moved = link.copy('copy')
    moved.to_device('@cupy:0')
    x = inputs()
    y = moved(moved.device.send(x))
    numpy.testing.assert_allclose(
        chainer.backend.CpuDevice().send(y.array), link(x).array, rtol=1e-4,
        atol=1e-5)
    linear = dense()
    linear.to_device('@cupy:0')
    new = sl.LowRankLinear.from_linear(
        linear, 2, 3, linear.device.send(correlated().astype('f')),
        order='search')
    assert new.device == linear.device
    assert new(linear.device.send(x)).shape == (4, 7)
