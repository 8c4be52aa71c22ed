"""Each link, and each function behind one, beside its float64 reference.

A case that holds for every link is written once, and runs for each KIND. A
new link is one more entry here.
"""
import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import cases
import numpy
import pytest
import reference
from chainer import initializers

import shared_linear as sl

SIZE, OUT = 12, 6
X = numpy.random.RandomState(1).randn(4, SIZE).astype('f')
ORDER = numpy.random.RandomState(2).permutation(SIZE)
ORDERS = numpy.stack([ORDER, ORDER[::-1]])
MIXING = {'n_tiles': 3, 'n_blocks': 2, 'seed': 3}


@dataclasses.dataclass(frozen=True, eq=False)
class Kind:

    """How a link is made, and the dense weight that its weights stand for."""

    link_class: type
    arguments: dict[str, Any]
    weight: Callable[..., Any]  # V, linear in each weight
    shapes: dict[str, tuple[int, int]]  # of the weights, by their names
    specs: str  # what is printed behind the sizes and nobias
    node: str

    def make(
            self, lazy=False, nobias=False, in_size=SIZE, out_size=OUT,
            initial_bias=initializers.Normal(1),  # noqa: B008
            **changes):
        return self.link_class(
            None if lazy else in_size, out_size, nobias,
            initial_bias=initial_bias, **{**self.arguments, **changes})

    def from_params(self, *params, link_class=None, nobias=False):
        from_params = (link_class or self.link_class).from_params
        known = inspect.signature(from_params).parameters  # rank is not
        return from_params(*params, nobias=nobias, **{
            n: value for n, value in self.arguments.items() if n in known})

    @property
    def order(self):
        return self.arguments.get('order')

    def initialW(self, *arrays):
        return arrays[0] if len(arrays) == 1 else arrays

    def weights(self, link):
        return {name: getattr(link, name).array for name in self.shapes}

    def dense_weight(self, link):
        return self.weight(**self.weights(link))

    def expected(self, link, x=X, n_batch_axes=1):
        return reference.affine(
            x, self.dense_weight(link),
            None if link.b is None else link.b.array, n_batch_axes)

    def gradients(self, link, x, gy):
        """Of <gy, y>, by each parameter."""
        weights = self.weights(link)
        gV = numpy.einsum('bo,bi->oi', gy, x)
        grads = {
            name: reference.adjoint(
                lambda u, name=name: self.weight(**{**weights, name: u}),
                array.shape, gV)
            for name, array in weights.items()}
        return {**grads, 'b': gy.sum(0)}


def arrays(link):
    return [param.array for param in link.params()]


def assert_same(a, b):
    assert repr(a) == repr(b)
    for p, q in zip(a.params(), b.params(), strict=True):
        assert p.dtype == q.dtype and p.array is not q.array
        numpy.testing.assert_array_equal(p.array, q.array)
    if a.in_size is not None:
        numpy.testing.assert_array_equal(a(X).array, b(X).array)


def assert_right(kind, link):
    numpy.testing.assert_allclose(
        link(X).array, kind.expected(link), rtol=1e-4, atol=1e-5)


def mixing(n_tiles, n_blocks=1, seed=0, order=None):
    """W's shape, and V by the reference, which is asked once.

    Each entry of V is one of W, or its negative.
    """
    shape = OUT // n_blocks, SIZE // n_tiles
    numbers = 1 + numpy.arange(numpy.prod(shape)).reshape(shape)
    V = reference.mixed_weight(numbers, n_tiles, n_blocks, seed, order)
    assert V.shape == (OUT, SIZE) and V.all()
    places, signs = abs(V).astype(int) - 1, numpy.sign(V)
    return shape, lambda W: signs * numpy.asarray(W, 'd').ravel()[places]


def tiling(n_tiles, order=None):
    return mixing(
        n_tiles, order=numpy.arange(SIZE) if order is None else order)


def shared(specs, **arguments):
    shape, weight = tiling(**arguments)
    return Kind(
        sl.SharedLinear, arguments, weight, {'W': shape}, specs,
        'SharedLinearFunction')


def mixed(specs, **arguments):
    shape, weight = mixing(**arguments)
    return Kind(
        sl.MixedLinear, arguments, weight, {'W': shape}, specs,
        'MixedLinearFunction')


def low_rank(specs, **arguments):
    _, weight = tiling(**arguments)
    return Kind(
        sl.LowRankLinear, {'rank': 2, **arguments},
        lambda B, A: weight(numpy.asarray(B, 'd') @ A),
        {'B': (OUT, 2), 'A': (2, SIZE // arguments['n_tiles'])}, specs,
        'SharedLinearFunction')


# Each class first without an order.
KINDS = {
    'shared': shared('n_tiles=3', n_tiles=3),
    'one tile': shared('n_tiles=1', n_tiles=1),
    'shared, order': shared(
        'n_tiles=3, order=int32[12]', n_tiles=3, order=ORDER),
    'mixed': mixed('n_tiles=3, n_blocks=2, seed=3', **MIXING),
    'one block': mixed(
        'n_tiles=4, n_blocks=1, seed=5', n_tiles=4, n_blocks=1, seed=5),
    'mixed, order': mixed(
        'n_tiles=3, n_blocks=2, seed=3, order=int32[12]', **MIXING,
        order=ORDER),
    'mixed, orders': mixed(
        'n_tiles=3, n_blocks=2, seed=3, order=int32[2, 12]', **MIXING,
        order=ORDERS),
    'low rank': low_rank('rank=2, n_tiles=3', n_tiles=3),
    'low rank, order': low_rank(
        'rank=2, n_tiles=3, order=int32[12]', n_tiles=3, order=ORDER),
}
# An order tells the size, so that nothing is left to the first input.
LAZY_KINDS = {n: k for n, k in KINDS.items() if k.order is None}
ORDERED_KINDS = {n: k for n, k in KINDS.items() if k.order is not None}
WITH_W = {n: k for n, k in KINDS.items() if list(k.shapes) == ['W']}
CLASSES = {
    k.link_class.__name__: k for k in reversed(LAZY_KINDS.values())}
CLASSES_WITH_W = {
    name: k for name, k in CLASSES.items() if k in WITH_W.values()}
LAZY_OR_NOT = {
    **{n: (k, False) for n, k in KINDS.items()},
    **{n + ', lazy': (k, True) for n, k in LAZY_KINDS.items()}}


def each(names, table):
    return pytest.mark.parametrize(names, table.values(), ids=list(table))


EACH = each('kind', KINDS)
EACH_LAZY = each('kind', LAZY_KINDS)
EACH_LAZY_OR_NOT = each('kind, lazy', LAZY_OR_NOT)
EACH_ORDERED = each('kind', ORDERED_KINDS)
EACH_WITH_W = each('kind', WITH_W)
EACH_CLASS = each('kind', CLASSES)
EACH_CLASS_WITH_W = each('kind', CLASSES_WITH_W)


@dataclasses.dataclass(frozen=True, eq=False)
class Form:

    """A function of x, W and b, and the dense weight that W stands for."""

    function: Callable[..., Any]
    weight: Callable[[Any], Any]
    W_shape: tuple[int, int]

    def __call__(self, *inputs, **kwargs):
        return self.function(*inputs, **kwargs)

    def draw(self, *batch_shape, dtype='d'):
        """x, W, b and gy."""
        return [
            numpy.random.uniform(-1, 1, shape).astype(dtype) for shape in (
                (*(batch_shape or (4,)), SIZE), self.W_shape, (OUT,),
                (*(batch_shape or (4,)), OUT))]

    def expected(self, x, W, b=None, n_batch_axes=1):
        return reference.affine(x, self.weight(W), b, n_batch_axes)

    def gradients(self, x, W, gy):
        return reference.gradients(x, W, gy, weight=self.weight)

    def second_gradients(self, *args):
        return reference.second_gradients(*args, weight=self.weight)


def shared_form(method, n_tiles, order=None):
    shape, weight = tiling(n_tiles, order)
    return Form(
        functools.partial(sl.shared_linear, method=method, order=order),
        weight, shape)


def mixed_form(**arguments):
    shape, weight = mixing(**arguments)
    return Form(
        functools.partial(sl.mixed_linear, **arguments), weight, shape)


FORMS = {
    'fold': shared_form('fold', 3),
    'tile': shared_form('tile', 3),
    'fold, one tile': shared_form('fold', 1),
    'tile, one tile': shared_form('tile', 1),
    'fold, order': shared_form('fold', 3, ORDER),
    'tile, order': shared_form('tile', 3, ORDER),
    'mixed': mixed_form(n_tiles=4, n_blocks=2, seed=7),
    'mixed, one tile and block': mixed_form(n_tiles=1, n_blocks=1),
    'mixed, one block': mixed_form(n_tiles=3, n_blocks=1),
    'mixed, one tile': mixed_form(n_tiles=1, n_blocks=3),
    'mixed, single weights': mixed_form(n_tiles=12, n_blocks=6),
    'mixed, orders': mixed_form(
        n_tiles=3, n_blocks=3, seed=3, order=ORDERS),
}
EACH_FORM = each('form', FORMS)


class FormCase(cases.FourDraws):

    """One of the FORMS, as Chainer tests a function."""

    form_name = 'fold'
    batch_shape = (4,)
    data_shape = (12,)
    x_dtype = W_dtype = 'f'
    nobias = False

    @property
    def form(self):
        return FORMS[self.form_name]

    def setUp(self):
        tolerance = cases.TOLERANCES[min(
            self.x_dtype, self.W_dtype, key='efd'.index)]
        self.check_forward_options = tolerance
        self.check_backward_options = tolerance
        self.check_double_backward_options = tolerance

    def generate_inputs(self):
        x, W, b, _ = self.form.draw(*self.batch_shape)
        x = x.reshape(self.batch_shape + self.data_shape)
        inputs = x.astype(self.x_dtype), W.astype(self.W_dtype)
        return inputs if self.nobias else inputs + (b.astype(self.x_dtype),)

    def forward(self, inputs, device):
        return self.form(*inputs, n_batch_axes=len(self.batch_shape)),

    def forward_expected(self, inputs):
        y = self.form.expected(*inputs, n_batch_axes=len(self.batch_shape))
        return y.astype(self.x_dtype),
