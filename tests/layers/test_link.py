"""The links where L.Linear stood: signature, sizes, conversions."""
import inspect
import re

import cases
import chainer
import chainer.functions as F
import chainer.links as L
import kinds
import numpy
import pytest
from chainer import initializers, testing

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
    [{'name': name, 'nobias': nobias} for nobias in (True, False)
     for name in kinds.LAZY_OR_NOT if not (nobias and 'order' in name)],
))
@testing.inject_backend_tests(None, cases.BACKENDS)
class TestLink(testing.LinkTestCase):

    def setUp(self):
        self.kind, self.lazy = kinds.LAZY_OR_NOT[self.name]
        tolerance = cases.TOLERANCES[min(
            self.x_dtype, self.W_dtype, key='efd'.index)]
        self.check_forward_options = tolerance
        # As small, for what is linear in each of three inputs at a time.
        self.check_backward_options = (
            {'eps': 1e-4, **tolerance} if self.W_dtype == 'd' else tolerance)
        self.param_names = (*self.kind.shapes, *['b'] * (not self.nobias))

    def generate_params(self):
        def draw(shape, dtype):
            values = numpy.random.uniform(-1, 1, shape).astype(dtype)
            return initializers.Constant(values, dtype=dtype)

        params = [draw(s, self.W_dtype) for s in self.kind.shapes.values()]
        return params if self.nobias else [
            *params, draw(kinds.OUT, self.x_dtype)]

    def create_link(self, initializers):
        weights = initializers[:len(self.kind.shapes)]
        return self.kind.make(
            self.lazy, self.nobias, initialW=self.kind.initialW(*weights),
            initial_bias=None if self.nobias else initializers[-1])

    def generate_inputs(self):
        return numpy.random.uniform(
            -1, 1, self.batch_shape + self.data_shape).astype(self.x_dtype),

    def forward(self, link, inputs, device):
        return link(*inputs, n_batch_axes=len(self.batch_shape)),

    def forward_expected(self, link, inputs):
        y = self.kind.expected(link, *inputs, len(self.batch_shape))
        return y.astype(self.x_dtype),


@testing.parameterize(*[{'name': name} for name in kinds.CLASSES])
@testing.inject_backend_tests(None, cases.BACKENDS)
class TestInitializers(testing.LinkInitializersTestCase):

    def setUp(self):
        self.kind = kinds.CLASSES[self.name]
        self.param_names = (*self.kind.shapes, 'b')
        self.shapes = (*self.kind.shapes.values(), (kinds.OUT,))

    def generate_params(self):
        return [
            numpy.random.uniform(-1, 1, s).astype('f') for s in self.shapes]

    def get_initializers(self):
        *weights, b = [
            [array, 0.5, 2, initializers.Constant(4)]
            for array in self.generate_params()]
        return [
            *([*w, numpy.float32(3)] for w in weights),
            [*b, testing.InitializerArgument(None, initializers.Zero())]]

    def create_link(self, initializers):
        return self.kind.make(
            initialW=self.kind.initialW(*initializers[:-1]),
            initial_bias=initializers[-1])

    def generate_inputs(self):
        return numpy.ones((2, 12), 'f'),

    def forward(self, link, inputs, device):
        return link(*inputs),


def arguments_of_L_Linear(theirs, ours):
    """Whether ours are the same, but for those that go by name."""
    theirs, ours = (
        inspect.signature(f).parameters.values() for f in (theirs, ours))
    return [(p.name, p.default) for p in theirs] == [
        (p.name, p.default) for p in ours
        if p.kind is not inspect.Parameter.KEYWORD_ONLY]


@kinds.EACH_CLASS
def test_positional_arguments_are_those_of_L_Linear(kind):
    assert arguments_of_L_Linear(L.Linear, kind.link_class)
    assert arguments_of_L_Linear(L.Linear.forward, kind.link_class.forward)


@pytest.mark.parametrize('link_class', [sl.SharedLinear, sl.MixedLinear])
def test_n_tiles_goes_by_name_and_from_params_as_in_L_Linear(link_class):
    n_tiles = inspect.signature(link_class).parameters['n_tiles']
    assert n_tiles.kind is inspect.Parameter.KEYWORD_ONLY
    assert n_tiles.default is inspect.Parameter.empty
    assert arguments_of_L_Linear(L.Linear.from_params, link_class.from_params)


def test_the_function_takes_the_arguments_of_F_linear():
    theirs = list(inspect.signature(F.linear).parameters.values())
    ours = list(inspect.signature(sl.shared_linear).parameters.values())
    assert [(p.name, p.default) for p in ours[:len(theirs)]] == [
        (p.name, p.default) for p in theirs]


@kinds.EACH_LAZY
@pytest.mark.parametrize('args', [(6,), (None, 6), (None, 6, False, None, 0)])
@pytest.mark.parametrize('as_variable', [True, False])
def test_size_left_to_the_first_input(kind, args, as_variable):
    link = kind.link_class(*args, **kind.arguments)
    assert (link.in_size, link.out_size) == (None, 6)
    assert any(p.array is None for p in link.params())
    assert link.b.shape == (6,)
    y = link(chainer.Variable(kinds.X) if as_variable else kinds.X)
    assert link.in_size == 12
    assert {n: a.shape for n, a in kind.weights(link).items()} == kind.shapes
    numpy.testing.assert_allclose(
        y.array, kind.expected(link), rtol=1e-4, atol=1e-5)


@kinds.EACH_LAZY
@pytest.mark.parametrize('shape, n_batch_axes, in_size', [
    ((0, 12), 1, 12), ((2, 3, 8), 1, 24), ((2, 3, 4, 3), 2, 12),
    ((2, 3, 4, 5, 12), 4, 12)])
def test_size_from_an_input_of_any_shape(kind, shape, n_batch_axes, in_size):
    link = kind.make(lazy=True)
    y = link(numpy.ones(shape, 'f'), n_batch_axes=n_batch_axes)
    assert link.in_size == in_size
    assert y.shape == shape[:n_batch_axes] + (6,)


@kinds.EACH
def test_a_size_that_numpy_computed(kind):
    link = kind.make(
        in_size=numpy.prod((3, 4)), out_size=numpy.int64(6),
        n_tiles=numpy.int32(kind.arguments['n_tiles']))
    assert {n: a.shape for n, a in kind.weights(link).items()} == kind.shapes
    assert repr(link) == repr(kind.make())


@kinds.EACH_LAZY_OR_NOT
@pytest.mark.parametrize('nobias', [True, False])
def test_repr(kind, lazy, nobias):
    link = kind.make(lazy, nobias)
    assert repr(link) == str(link) == (
        '{}(in_size={}, out_size=6, nobias={}, {})'.format(
            kind.link_class.__name__, None if lazy else 12, nobias,
            kind.specs))
    assert [name for name, _ in link.printable_specs] == [
        'in_size', 'out_size', 'nobias', *re.findall(r'(\w+)=', kind.specs)]


@kinds.EACH
def test_parameters_have_the_names_of_L_Linear(kind):
    names = [name for name, _ in kind.make().namedparams()]
    assert names == ['/' + name for name in sorted([*kind.shapes, 'b'])]
    without = kind.make(nobias=True)
    assert without.b is None
    assert [n for n, _ in without.namedparams()] == names[:-1]


@kinds.EACH
@pytest.mark.parametrize('nobias', [True, False])
@pytest.mark.parametrize('as_variable', [True, False])
def test_from_params(kind, nobias, as_variable):
    arrays = [
        numpy.random.randn(*shape).astype('f')
        for shape in (*kind.shapes.values(), (6,))]
    wrap = chainer.Variable if as_variable else numpy.asarray
    link = kind.from_params(*map(wrap, arrays), nobias=nobias)
    assert repr(link) == repr(kind.make(nobias=nobias))
    numpy.testing.assert_array_equal(link.order, kind.order)
    for name, array in zip([*kind.shapes, 'b'], arrays, strict=True):
        if name == 'b' and nobias:
            assert link.b is None
        else:
            param = getattr(link, name)
            numpy.testing.assert_array_equal(param.array, array)
            assert not numpy.shares_memory(param.array, array)


@kinds.EACH
def test_from_params_without_bias(kind):
    weights = [numpy.ones(shape, 'f') for shape in kind.shapes.values()]
    assert (kind.from_params(*weights).b.array == 0).all()
    assert L.Linear.from_params(weights[0]).b is not None  # as in Chainer
    assert kind.from_params(*weights, nobias=True).b is None


@kinds.EACH
@pytest.mark.parametrize('dtype', ['e', 'f', 'd'])
@pytest.mark.parametrize('nobias', [True, False])
def test_to_linear_is_the_equal_dense_layer(kind, dtype, nobias):
    with chainer.using_config('dtype', numpy.dtype(dtype)):
        link = kind.make(nobias=nobias)
    dense = link.to_linear()
    assert type(dense) is L.Linear
    assert (dense.in_size, dense.out_size) == (12, 6)
    assert dense.W.dtype == numpy.dtype(dtype)
    # A product of weights is rounded.
    rounding = 4 * numpy.finfo(dtype).eps * (len(kind.shapes) - 1)
    numpy.testing.assert_allclose(
        dense.W.array, kind.dense_weight(link).astype(dtype), rtol=rounding,
        atol=rounding)
    if nobias:
        assert dense.b is None
    else:
        assert dense.b.dtype == numpy.dtype(dtype)
        numpy.testing.assert_array_equal(dense.b.array, link.b.array)
    for param in dense.params():
        param.array[...] = 0  # they share no memory
    assert all((param.array != 0).any() for param in link.params())


@kinds.EACH
def test_a_subclass_stays_one(kind):
    class Mine(kind.link_class):
        pass

    weights = [numpy.ones(shape, 'f') for shape in kind.shapes.values()]
    assert type(kind.from_params(*weights, link_class=Mine)) is Mine
    assert type(Mine.from_linear(L.Linear(12, 6), **kind.arguments)) is Mine
    assert repr(Mine(12, 6, **kind.arguments)).startswith('Mine(')


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
