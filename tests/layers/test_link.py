"""The link where L.Linear stood: signature, sizes, conversions."""
import inspect

import cases
import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
import reference
from chainer import testing

import shared_linear as sl


@testing.parameterize(*testing.product_dict(
    [
        {'x_dtype': 'e', 'W_dtype': 'e'},
        {'x_dtype': 'f', 'W_dtype': 'f'},
        {'x_dtype': 'd', 'W_dtype': 'd'},
        {'x_dtype': 'f', 'W_dtype': 'e'},
    ],
    [
        {'batch_shape': (4,), 'data_shape': (12,), 'contiguous': None},
        {'batch_shape': (2, 3), 'data_shape': (3, 2, 2), 'contiguous': 'C'},
    ],
    [{'n_tiles': 1}, {'n_tiles': 4}],
    [{'nobias': True}, {'nobias': False}],
    [{'lazy': True}, {'lazy': False}],
))
@testing.inject_backend_tests(None, cases.BACKENDS)
class TestSharedLinear(testing.LinkTestCase):

    out_size = 3

    def setUp(self):
        tolerance = cases.TOLERANCES[min(
            self.x_dtype, self.W_dtype, key='efd'.index)]
        self.check_forward_options = tolerance
        self.check_backward_options = tolerance
        self.param_names = ('W',) if self.nobias else ('W', 'b')

    def generate_params(self):
        in_size = int(numpy.prod(self.data_shape))
        W = numpy.random.uniform(
            -1, 1, (self.out_size, in_size // self.n_tiles))
        b = numpy.random.uniform(-1, 1, self.out_size)
        params = chainer.initializers.Constant(W.astype(
            self.W_dtype), dtype=self.W_dtype),
        if self.nobias:
            return params
        return params + (chainer.initializers.Constant(
            b.astype(self.x_dtype), dtype=self.x_dtype),)

    def create_link(self, initializers):
        in_size = int(numpy.prod(self.data_shape))
        return sl.SharedLinear(
            None if self.lazy else in_size, self.out_size, self.nobias,
            *initializers, n_tiles=self.n_tiles)

    def generate_inputs(self):
        return numpy.random.uniform(
            -1, 1, self.batch_shape + self.data_shape).astype(self.x_dtype),

    def forward(self, link, inputs, device):
        return link(*inputs, n_batch_axes=len(self.batch_shape)),

    def forward_expected(self, link, inputs):
        y = reference.shared_linear(
            *inputs, link.W.array, None if self.nobias else link.b.array,
            n_batch_axes=len(self.batch_shape))
        return y.astype(self.x_dtype),


@testing.inject_backend_tests(None, cases.BACKENDS)
class TestInitializers(testing.LinkInitializersTestCase):

    param_names = ('W', 'b')

    def generate_params(self):
        return (
            numpy.random.uniform(-1, 1, (3, 4)).astype('f'),
            numpy.random.uniform(-1, 1, 3).astype('f'))

    def get_initializers(self):
        return (
            [numpy.random.uniform(-1, 1, (3, 4)).astype('f'), 0.5, 2,
             numpy.float32(3), chainer.initializers.Constant(4)],
            [numpy.random.uniform(-1, 1, 3).astype('f'), 0.5, 2,
             chainer.initializers.Constant(4),
             testing.InitializerArgument(
                 None, chainer.initializers.Constant(0))])

    def create_link(self, initializers):
        return sl.SharedLinear(
            12, 3, initialW=initializers[0], initial_bias=initializers[1],
            n_tiles=3)

    def generate_inputs(self):
        return numpy.ones((2, 12), 'f'),

    def forward(self, link, inputs, device):
        return link(*inputs),


def test_positional_arguments_are_those_of_L_Linear():
    theirs = inspect.signature(L.Linear).parameters
    ours = dict(inspect.signature(sl.SharedLinear).parameters)
    n_tiles = ours.pop('n_tiles')
    assert n_tiles.kind is inspect.Parameter.KEYWORD_ONLY
    assert n_tiles.default is inspect.Parameter.empty
    ours = [
        (p.name, p.default) for p in ours.values()
        if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert ours == [(p.name, p.default) for p in theirs.values()]


@pytest.mark.parametrize('name', ['from_params', 'forward'])
def test_methods_take_the_arguments_of_L_Linear(name):
    theirs = inspect.signature(getattr(L.Linear, name)).parameters
    ours = inspect.signature(getattr(sl.SharedLinear, name)).parameters
    ours = [
        (p.name, p.default) for p in ours.values()
        if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert ours == [(p.name, p.default) for p in theirs.values()]


def test_the_function_takes_the_arguments_of_F_linear():
    theirs = list(inspect.signature(F.linear).parameters.values())
    ours = list(inspect.signature(sl.shared_linear).parameters.values())
    assert [(p.name, p.default) for p in ours[:len(theirs)]] == [
        (p.name, p.default) for p in theirs]


@pytest.mark.parametrize('args', [(5,), (None, 5), (None, 5, False, None, 0)])
@pytest.mark.parametrize('as_variable', [True, False])
def test_size_left_to_the_first_input(args, as_variable):
    link = sl.SharedLinear(*args, n_tiles=3)
    assert (link.in_size, link.out_size) == (None, 5)
    assert link.W.array is None
    assert link.b.shape == (5,)
    x = numpy.random.randn(4, 12).astype('f')
    y = link(chainer.Variable(x) if as_variable else x)
    assert link.in_size == 12
    assert link.W.shape == (5, 4)
    numpy.testing.assert_allclose(
        y.array, reference.shared_linear(x, link.W.array), rtol=1e-4,
        atol=1e-5)


@pytest.mark.parametrize('shape, n_batch_axes, in_size', [
    ((0, 12), 1, 12), ((2, 3, 4), 1, 12), ((2, 3, 4, 1), 2, 4),
    ((2, 3, 4, 5, 6), 4, 6)])
def test_size_from_an_input_of_any_shape(shape, n_batch_axes, in_size):
    link = sl.SharedLinear(7, n_tiles=2)
    y = link(numpy.ones(shape, 'f'), n_batch_axes=n_batch_axes)
    assert link.in_size == in_size
    assert y.shape == shape[:n_batch_axes] + (7,)


def test_a_size_that_numpy_computed():
    link = sl.SharedLinear(
        numpy.prod((3, 4)), numpy.int64(5), n_tiles=numpy.int32(2))
    assert link.W.shape == (5, 6)
    assert repr(link).startswith('SharedLinear(in_size=12, out_size=5')


@pytest.mark.parametrize('lazy, nobias, expected', [
    (False, False,
     'SharedLinear(in_size=12, out_size=5, nobias=False, n_tiles=3)'),
    (True, True,
     'SharedLinear(in_size=None, out_size=5, nobias=True, n_tiles=3)')])
def test_repr(lazy, nobias, expected):
    link = sl.SharedLinear(None if lazy else 12, 5, nobias, n_tiles=3)
    assert repr(link) == str(link) == expected
    assert [name for name, _ in link.printable_specs] == [
        'in_size', 'out_size', 'nobias', 'n_tiles']


def test_parameters_have_the_names_of_L_Linear():
    link = sl.SharedLinear(12, 5, n_tiles=3)
    ours = [name for name, _ in link.namedparams()]
    assert ours == [name for name, _ in L.Linear(12, 5).namedparams()]
    without = sl.SharedLinear(12, 5, nobias=True, n_tiles=3)
    assert without.b is None
    assert [name for name, _ in without.namedparams()] == ['/W']


@pytest.mark.parametrize('nobias', [True, False])
@pytest.mark.parametrize('as_variable', [True, False])
def test_from_params(nobias, as_variable):
    W = numpy.random.randn(5, 4).astype('f')
    b = numpy.random.randn(5).astype('f')
    wrap = chainer.Variable if as_variable else numpy.asarray
    link = sl.SharedLinear.from_params(wrap(W), wrap(b), nobias, n_tiles=3)
    assert (link.in_size, link.out_size) == (12, 5)
    numpy.testing.assert_array_equal(link.W.array, W)
    if nobias:
        assert link.b is None
    else:
        numpy.testing.assert_array_equal(link.b.array, b)
        assert not numpy.shares_memory(link.b.array, b)
    assert not numpy.shares_memory(link.W.array, W)


def test_from_params_without_bias():
    W = numpy.ones((5, 4), 'f')
    assert (sl.SharedLinear.from_params(W, n_tiles=2).b.array == 0).all()
    assert L.Linear.from_params(W).b is not None  # as in Chainer
    assert sl.SharedLinear.from_params(W, nobias=True, n_tiles=2).b is None


@pytest.mark.parametrize('dtype', ['e', 'f', 'd'])
@pytest.mark.parametrize('nobias', [True, False])
def test_to_linear_is_the_equal_dense_layer(dtype, nobias):
    with chainer.using_config('dtype', numpy.dtype(dtype)):
        link = sl.SharedLinear(12, 5, nobias, n_tiles=3)
    if not nobias:
        link.b.array[...] = numpy.random.randn(5)
    dense = link.to_linear()
    assert type(dense) is L.Linear
    assert (dense.in_size, dense.out_size) == (12, 5)
    assert dense.W.dtype == numpy.dtype(dtype)
    numpy.testing.assert_array_equal(
        dense.W.array, reference.tile(link.W.array, 3))
    if nobias:
        assert dense.b is None
    else:
        assert dense.b.dtype == numpy.dtype(dtype)
        numpy.testing.assert_array_equal(dense.b.array, link.b.array)
    dense.W.array[...] = 0  # they share no memory
    assert (link.W.array != 0).any()


@pytest.mark.parametrize('dtype', ['e', 'f', 'd'])
@pytest.mark.parametrize('nobias', [True, False])
def test_from_linear_takes_the_mean_of_the_tiles(dtype, nobias):
    with chainer.using_config('dtype', numpy.dtype(dtype)):
        dense = L.Linear(12, 5, nobias, initial_bias=1)
    before = dense.W.array.copy()
    link = sl.SharedLinear.from_linear(dense, 3)
    assert link.W.dtype == numpy.dtype(dtype)
    numpy.testing.assert_allclose(
        link.W.array, reference.fold(before, 3) / 3,
        **cases.TOLERANCES[dtype])
    numpy.testing.assert_array_equal(dense.W.array, before)
    assert (link.b is None) if nobias else (link.b.array == 1).all()
    assert (link.b is None) or link.b.dtype == numpy.dtype(dtype)


def test_from_linear_is_the_nearest_in_the_least_squares_sense():
    dense = L.Linear(12, 5)
    V = dense.W.array.astype('d')
    link = sl.SharedLinear.from_linear(dense, 4)
    # tile(W) = W [I I I I], so W = V [I I I I]^+.
    solution = V @ numpy.linalg.pinv(numpy.hstack([numpy.eye(3)] * 4))
    numpy.testing.assert_allclose(link.W.array, solution, atol=1e-6)


@pytest.mark.parametrize('n_tiles', [1, 2, 12])
def test_there_and_back_again(n_tiles):
    link = sl.SharedLinear(12, 5, initial_bias=2, n_tiles=n_tiles)
    back = sl.SharedLinear.from_linear(link.to_linear(), n_tiles)
    numpy.testing.assert_allclose(back.W.array, link.W.array, rtol=1e-6)
    numpy.testing.assert_array_equal(back.b.array, link.b.array)


def test_a_subclass_stays_one():
    class Mine(sl.SharedLinear):
        pass

    W = numpy.ones((5, 4), 'f')
    assert type(Mine.from_params(W, n_tiles=2)) is Mine
    assert type(Mine.from_linear(L.Linear(8, 5), 2)) is Mine
    assert repr(Mine(8, 5, n_tiles=2)).startswith('Mine(')


def test_with_one_tile_it_is_L_Linear_bit_for_bit():
    numpy.random.seed(3)
    ours = sl.SharedLinear(12, 5, n_tiles=1)
    numpy.random.seed(3)
    theirs = L.Linear(12, 5)
    x = numpy.random.randn(4, 12).astype('f')
    for link in (ours, theirs):
        link.cleargrads()
        F.sum(link(x) ** 2).backward()
    for name in ('W', 'b'):
        a, b = getattr(ours, name), getattr(theirs, name)
        numpy.testing.assert_array_equal(a.array, b.array)
        numpy.testing.assert_array_equal(a.grad, b.grad)
