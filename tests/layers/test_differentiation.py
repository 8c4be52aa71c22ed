"""What Chainer users do with gradients, against the float64 reference."""
import itertools

import chainer
import chainer.functions as F
import numpy
import pytest
import reference

import shared_linear as sl
from shared_linear.layers import function

METHODS = pytest.mark.parametrize('method', function.METHODS)
N_TILES = 3


def draw(*shapes):
    return [numpy.random.randn(*shape) for shape in shapes]


def variables(*arrays):
    return [chainer.Variable(a) for a in arrays]


def assert_close(actual, expected):
    actual = getattr(actual, 'array', actual)
    numpy.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-11)


@pytest.fixture
def arrays():
    return draw((4, 12), (5, 12 // N_TILES), (5,))


@METHODS
@pytest.mark.parametrize('wanted', [
    w for r in (1, 2, 3) for w in itertools.combinations(range(3), r)])
def test_grad_of_any_inputs(arrays, method, wanted):
    inputs = variables(*arrays)
    gy, = draw((4, 5))
    y = sl.shared_linear(*inputs, method=method)
    grads = chainer.grad(
        [y], [inputs[i] for i in wanted], variables(gy))
    expected = reference.gradients(*arrays[:2], gy)
    for i, grad in zip(wanted, grads, strict=True):
        assert_close(grad, expected[i])
    assert all(v.grad is None for v in inputs)


@METHODS
def test_second_derivatives_in_every_pair(arrays, method):
    """d<ggu, gu>/dv of each u among x, W, b and each v among x, W, gy."""
    x, W, b = inputs = variables(*arrays)
    gy, = variables(*draw((4, 5)))
    gginputs = draw(x.shape, W.shape, b.shape)
    zeros = [numpy.zeros_like(g) for g in gginputs]
    for i, j in itertools.product(range(3), range(3)):
        y = sl.shared_linear(x, W, b, method=method)
        first = chainer.grad(
            [y], [inputs[i]], [gy], enable_double_backprop=True)
        second, = chainer.grad(
            first, [[x, W, gy][j]], variables(gginputs[i]))
        only_u = zeros[:i] + [gginputs[i]] + zeros[i + 1:]
        expected = reference.second_gradients(
            x.array, W.array, gy.array, *only_u)[j]
        if second is None:
            assert (expected == 0).all()
        else:
            assert_close(second, expected)
            assert (expected != 0).any()


@METHODS
def test_third_derivative(arrays, method):
    """sum(y ** 3) by W three times along a direction: by hand 6 (x u)^3."""
    x, W, _ = arrays
    u, = draw(W.shape)
    w = chainer.Variable(W)
    value = F.sum(sl.shared_linear(x, w, method=method) ** 3)
    for _ in range(3):
        g, = chainer.grad([value], [w], enable_double_backprop=True)
        value = F.sum(g * u)
    assert_close(
        value, (6 * reference.shared_linear(x, u) ** 3).sum())


@METHODS
def test_gradient_penalty(arrays, method):
    """(||d sum(tanh(y)) / dx|| - 1)^2, trained on: against the dense layer."""
    x, W, b = arrays

    def penalty_gradients(f, W):
        x_, W_, b_ = inputs = variables(x, W, b)
        y = F.sum(F.tanh(f(x_, W_, b_)))
        gx, = chainer.grad([y], [x_], enable_double_backprop=True)
        norm = F.sqrt(F.batch_l2_norm_squared(gx))
        loss = F.mean_squared_error(norm, numpy.ones_like(norm.array))
        loss.backward()
        return [loss.array] + [v.grad for v in inputs]

    ours = penalty_gradients(
        lambda *a: sl.shared_linear(*a, method=method), W)
    theirs = penalty_gradients(F.linear, numpy.tile(W, (1, N_TILES)))
    theirs[2] = reference.fold(theirs[2], N_TILES)
    for a, e in zip(ours, theirs, strict=True):
        assert_close(a, e)


@METHODS
def test_backward_with_double_backprop_and_retain_grad(arrays, method):
    x, W, b = variables(*arrays)
    y = sl.shared_linear(x, W, b, method=method)
    z = y * y
    F.sum(z).backward(retain_grad=True, enable_double_backprop=True)
    gx, gW = x.grad_var, W.grad_var
    assert_close(y.grad, 2 * y.array)
    assert_close(gx, reference.gradients(*arrays[:2], 2 * y.array)[0])
    x.cleargrad()
    W.cleargrad()
    F.sum(gx * gx).backward()  # through gx, and gy = 2 y, to W
    ours = W.grad

    x, V, b = variables(
        arrays[0], numpy.tile(arrays[1], (1, N_TILES)), arrays[2])
    y = F.linear(x, V, b)
    gx, = chainer.grad([F.sum(y * y)], [x], enable_double_backprop=True)
    F.sum(gx * gx).backward()
    assert_close(ours, reference.fold(V.grad, N_TILES))
    assert gW is not None


@METHODS
def test_backward_twice_adds_up(arrays, method):
    x, W, b = variables(*arrays)
    y = F.sum(sl.shared_linear(x, W, b, method=method))
    y.backward()
    once = [v.grad.copy() for v in (x, W, b)]
    y.backward()
    for v, grad in zip((x, W, b), once, strict=True):
        assert_close(v.grad, 2 * grad)


@METHODS
def test_backward_after_W_was_updated_in_place(arrays, method):
    """As with F.linear, gx is that of the weight as it is then."""
    x, W, b = variables(*arrays)
    y = sl.shared_linear(x, W, b, method=method)
    gy, = draw(y.shape)
    y.grad = gy
    W.array[...] *= 2
    y.backward()
    gx, gW, gb = reference.gradients(arrays[0], W.array, gy)
    assert_close(x.grad, gx)
    assert_close(W.grad, gW)
    assert_close(b.grad, gb)


@METHODS
def test_forget_computes_the_same(arrays, method):
    x, W, b = variables(*arrays)
    y = F.forget(
        lambda *a: sl.shared_linear(*a, method=method), x, W, b)
    gy, = draw(y.shape)
    y.grad = gy
    y.backward()
    for v, g in zip(
            (x, W, b), reference.gradients(*arrays[:2], gy), strict=True):
        assert_close(v.grad, g)


@METHODS
def test_no_backprop_mode(arrays, method):
    x, W, b = variables(*arrays)
    with chainer.no_backprop_mode():
        y = sl.shared_linear(x, W, b, method=method)
        assert y.creator is None
        with chainer.force_backprop_mode():
            z = sl.shared_linear(x, W, b, method=method)
    assert_close(y, reference.shared_linear(*arrays))
    gz, = draw(z.shape)
    z.grad = gz
    z.backward()
    assert_close(W.grad, reference.gradients(*arrays[:2], gz)[1])


@METHODS
def test_unchain_backward_stops_the_gradient(arrays, method):
    x, W, b = variables(*arrays)
    hidden = sl.shared_linear(x, W, b, method=method)
    hidden.unchain_backward()
    y = F.sum(hidden * hidden)
    y.backward()
    assert hidden.grad is not None
    assert x.grad is None and W.grad is None and b.grad is None


@METHODS
@pytest.mark.parametrize('frozen', [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2)])
def test_inputs_that_ask_for_no_gradient_get_none(arrays, method, frozen):
    inputs = [
        chainer.Variable(a, requires_grad=i not in frozen)
        for i, a in enumerate(arrays)]
    y = sl.shared_linear(*inputs, method=method)
    gy, = draw(y.shape)
    y.grad = gy
    y.backward()
    expected = reference.gradients(*arrays[:2], gy)
    for i, v in enumerate(inputs):
        if i in frozen:
            assert v.grad is None
        else:
            assert_close(v.grad, expected[i])


@METHODS
def test_gradients_of_plain_arrays_make_no_graph(arrays, method):
    y = sl.shared_linear(*arrays, method=method)
    assert not y.requires_grad
    assert_close(y, reference.shared_linear(*arrays))


@METHODS
def test_one_input_used_twice(method):
    """y = w w^T: both gradients arrive at one variable."""
    w = chainer.Variable(numpy.random.randn(4, 3))
    y = sl.shared_linear(w, w, method=method)
    gy, = draw((4, 4))
    y.grad = gy
    y.backward()
    assert_close(w.grad, gy @ w.array + gy.T @ w.array)


@pytest.mark.parametrize('f, reverse', [
    (sl.fold, reference.tile), (sl.tile, reference.fold)])
def test_fold_and_tile_differentiate_any_number_of_times(f, reverse):
    x, = variables(*draw((2, 12)))
    y = F.sum(f(x, 3) ** 4)
    gx, = chainer.grad([y], [x], enable_double_backprop=True)
    inner = f(x, 3).array
    assert_close(gx, reverse(4 * inner ** 3, 3))
    ggx, = chainer.grad([F.sum(gx)], [x])
    direction = f(numpy.ones_like(x.array), 3).array
    assert_close(ggx, reverse(12 * inner ** 2 * direction, 3))


def test_debug_mode_finds_nan_in_a_gradient():
    x, W = variables(*draw((2, 4), (3, 2)))
    with chainer.using_config('debug', True):
        y = sl.shared_linear(x, W)
        y.grad = numpy.full_like(y.array, numpy.nan)
        with pytest.raises(RuntimeError, match='NaN is detected'):
            y.backward()
