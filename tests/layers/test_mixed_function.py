"""The function behind MixedLinear, against a matrix filled by the formula."""
import cases
import chainer
import chainer.functions as F
import numpy
import pytest
import reference
from chainer import testing

import shared_linear as sl
from shared_linear.layers import bilinear

MIXINGS = [
    {'n_tiles': 1, 'n_blocks': 1}, {'n_tiles': 3, 'n_blocks': 1},
    {'n_tiles': 1, 'n_blocks': 3}, {'n_tiles': 4, 'n_blocks': 2, 'seed': 7},
    {'n_tiles': 12, 'n_blocks': 6},
]


class MixedLinearCase(cases.ThreeDraws):

    batch_shape = (4,)
    data_shape = (12,)
    mixing = MIXINGS[3]
    x_dtype = W_dtype = 'f'
    nobias = False

    def setUp(self):
        tolerance = cases.TOLERANCES[min(
            self.x_dtype, self.W_dtype, key='efd'.index)]
        self.check_forward_options = tolerance
        self.check_backward_options = tolerance
        self.check_double_backward_options = tolerance

    def generate_inputs(self):
        x = numpy.random.uniform(-1, 1, self.batch_shape + self.data_shape)
        W = numpy.random.uniform(-1, 1, (
            6 // self.mixing['n_blocks'], 12 // self.mixing['n_tiles']))
        b = numpy.random.uniform(-1, 1, 6)
        inputs = x.astype(self.x_dtype), W.astype(self.W_dtype)
        return inputs if self.nobias else inputs + (b.astype(self.x_dtype),)

    def forward(self, inputs, device):
        return sl.mixed_linear(
            *inputs, n_batch_axes=len(self.batch_shape), **self.mixing),

    def forward_expected(self, inputs):
        x, W, *b = inputs
        y = reference.mixed_linear(
            x, W, b[0] if b else None, self.mixing, len(self.batch_shape))
        return y.astype(self.x_dtype),


@testing.parameterize(*testing.product_dict(
    [
        {'x_dtype': 'e', 'W_dtype': 'e'},
        {'x_dtype': 'f', 'W_dtype': 'f'},
        {'x_dtype': 'd', 'W_dtype': 'd'},
        {'x_dtype': 'e', 'W_dtype': 'f'},
        {'x_dtype': 'd', 'W_dtype': 'f'},
    ],
    [
        {'batch_shape': (4,), 'data_shape': (12,), 'contiguous': None},
        {'batch_shape': (2, 3, 1), 'data_shape': (6, 2), 'contiguous': 'C'},
    ],
    [{'mixing': m} for m in MIXINGS],
    [{'nobias': True}, {'nobias': False}],
))
@testing.inject_backend_tests(None, cases.BACKENDS[:2])
class TestMixedLinear(MixedLinearCase, testing.FunctionTestCase):
    pass


@pytest.mark.parametrize('node, test', [
    (bilinear.GradData, 'test_backward'),
    (bilinear.GradWeight, 'test_backward'),
    (bilinear.GradData, 'test_double_backward'),
    (bilinear.GradWeight, 'test_double_backward'),
])
@pytest.mark.parametrize('dtype', ['f', 'd'])
def test_a_gradient_1_percent_wrong_is_caught(monkeypatch, node, test, dtype):
    class Case(MixedLinearCase, testing.FunctionTestCase):
        x_dtype = W_dtype = dtype

        def runTest(self):
            getattr(self, 'run_' + test)(testing.BackendConfig({}))

    Case().debug()  # passes as it is
    forward = node.forward
    monkeypatch.setattr(
        node, 'forward',
        lambda self, inputs: tuple(1.01 * g for g in forward(self, inputs)))
    with pytest.raises(AssertionError, match='not implemented correctly'):
        Case().debug()


def draw(*shape):
    return chainer.Variable(numpy.random.randn(*shape))


@pytest.mark.parametrize('mixing', MIXINGS, ids=str)
def test_gradients_and_the_transpose(mixing):
    x, b, gy = draw(5, 12), draw(6), draw(5, 6)
    W = draw(6 // mixing['n_blocks'], 12 // mixing['n_tiles'])
    V = reference.mixed_weight(W.array, **mixing)
    y = sl.mixed_linear(x, W, b, **mixing)
    gx, gW, gb = chainer.grad([y], [x, W, b], [gy])
    numpy.testing.assert_allclose(gx.array, gy.array @ V, rtol=1e-12)
    numpy.testing.assert_allclose(gb.array, gy.array.sum(0), rtol=1e-12)
    # <y - b, gy> = <W, gW>
    assert float((W.array * gW.array).sum()) == pytest.approx(
        float(((y.array - b.array) * gy.array).sum()), rel=1e-10)
    for i in numpy.ndindex(*W.shape):
        unit = numpy.zeros(W.shape)
        unit[i] = 1
        expected = (x.array @ reference.mixed_weight(
            unit, **mixing).T * gy.array).sum()
        assert gW.array[i] == pytest.approx(expected, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize('wanted', [(0,), (1,), (0, 1)])
def test_double_backward_of_some_inputs(wanted):
    """Of <u, gx> + <v, gW> by gy: x (v's V)^T + u V^T."""
    mixing = MIXINGS[3]
    x, W, gy = draw(5, 12), draw(3, 3), draw(5, 6)
    y = sl.mixed_linear(x, W, **mixing)
    inputs = [(x, W)[i] for i in wanted]
    directions = [draw(*v.shape) for v in inputs]
    grads = chainer.grad([y], inputs, [gy], enable_double_backprop=True)
    second, = chainer.grad(grads, [gy], directions)
    expected = numpy.zeros(y.shape)
    for i, direction in zip(wanted, directions, strict=True):
        a, c = [x.array, W.array]
        if i == 0:
            a = direction.array
        else:
            c = direction.array
        expected += a @ reference.mixed_weight(c, **mixing).T
    numpy.testing.assert_allclose(second.array, expected, rtol=1e-10)


def test_third_derivative():
    """sum(y ** 3) by W three times along u: 6 sum (x U^T)^3."""
    mixing = MIXINGS[3]
    x, W, u = draw(4, 12), draw(3, 3), draw(3, 3)
    value = F.sum(sl.mixed_linear(x, W, **mixing) ** 3)
    for _ in range(3):
        grad, = chainer.grad([value], [W], enable_double_backprop=True)
        value = F.sum(grad * u)
    U = reference.mixed_weight(u.array, **mixing)
    assert float(value.array) == pytest.approx(
        6 * ((x.array @ U.T) ** 3).sum(), rel=1e-9)


def test_backward_twice_adds_up():
    """The folded inputs that forward keeps serve the first, and the second.
    """
    x, W = draw(5, 12), draw(3, 3)
    y = F.sum(sl.mixed_linear(x, W, **MIXINGS[3]))
    y.backward(retain_grad=True)
    once = W.grad.copy(), x.grad.copy()
    W.cleargrad()
    x.cleargrad()
    y.backward()
    numpy.testing.assert_array_equal(W.grad, once[0])
    numpy.testing.assert_array_equal(x.grad, once[1])


@pytest.mark.parametrize('shape, n_batch_axes', [
    ((0, 12), 1), ((0, 3, 4), 1), ((3, 0, 12), 2)])
def test_empty_batch(shape, n_batch_axes):
    x = chainer.Variable(numpy.zeros(shape, 'f'))
    W = chainer.Variable(numpy.ones((3, 3), 'f'))
    y = sl.mixed_linear(x, W, n_batch_axes=n_batch_axes, **MIXINGS[3])
    assert y.shape == shape[:n_batch_axes] + (6,)
    F.sum(y).backward()
    assert x.grad.shape == shape
    assert W.grad.shape == W.shape and (W.grad == 0).all()


@pytest.mark.parametrize('layout', [
    numpy.asfortranarray, lambda x: x[:, ::-1], lambda x: x[::2],
    lambda x: numpy.broadcast_to(x[:1], x.shape)],
    ids=['fortran', 'negative', 'rows', 'broadcast'])
def test_any_strides(layout):
    x = layout(numpy.random.randn(6, 12))
    W = numpy.random.randn(3, 3)
    y = sl.mixed_linear(x, W, **MIXINGS[3])
    numpy.testing.assert_allclose(
        y.array, reference.mixed_linear(x, W, None, MIXINGS[3]), rtol=1e-12)


def test_results_own_their_memory():
    x, W = draw(4, 12), draw(6, 12)
    for mixing in ({'n_tiles': 1}, {'n_tiles': 1, 'n_blocks': 2}):
        y = sl.mixed_linear(x, W, **mixing)
        y.grad = numpy.ones(y.shape)
        y.backward()
        for result in (y.array, x.grad, W.grad):
            for other in (x.array, W.array, y.grad):
                assert not numpy.shares_memory(result, other)


def test_results_are_not_the_scratch_memory():
    x, W = numpy.random.randn(4, 12), numpy.random.randn(3, 3)
    first = sl.mixed_linear(x, W, **MIXINGS[3])
    kept = first.array.copy()
    sl.mixed_linear(2 * x, W, **MIXINGS[3])
    numpy.testing.assert_array_equal(first.array, kept)


def test_threads_do_not_share_their_scratch_memory():
    from concurrent.futures import ThreadPoolExecutor

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


def test_not_finite_inputs_stay_where_they_fall():
    x = numpy.zeros((3, 12))
    x[1, 5] = numpy.nan
    y = sl.mixed_linear(x, numpy.ones((3, 3)), **MIXINGS[3]).array
    assert numpy.isnan(y[1]).all() and (y[[0, 2]] == 0).all()


def test_one_node():
    x, W, b = draw(4, 12), draw(3, 3), draw(6)
    y = sl.mixed_linear(x, W, b, **MIXINGS[3])
    node = y.creator_node
    assert isinstance(node, sl.MixedLinearFunction)
    assert [v.get_variable_or_none() for v in node.inputs] == [x, W, b]
