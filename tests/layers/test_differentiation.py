"""What Chainer users do with gradients, against the float64 reference."""
import itertools

import chainer
import chainer.functions as F
import kinds
import numpy
import pytest
import reference

import shared_linear as sl

RTOL = 1e-12
SUBSETS = [w for r in (1, 2, 3) for w in itertools.combinations(range(3), r)]


def draw(*shapes):
    return [numpy.random.randn(*shape) for shape in shapes]


def variables(*arrays):
    return [chainer.Variable(a) for a in arrays]


def assert_close(actual, expected):
    actual = getattr(actual, 'array', actual)
    numpy.testing.assert_allclose(actual, expected, rtol=RTOL, atol=1e-13)


@pytest.fixture
def arrays(form):
    return form.draw()[:3]


@kinds.EACH_FORM
def test_grad_of_any_inputs(form, arrays):
    inputs = variables(*arrays)
    gy, = draw((4, 6))
    y = form(*inputs)
    expected = form.gradients(*arrays[:2], gy)
    for wanted in SUBSETS:
        grads = chainer.grad(
            [y], [inputs[i] for i in wanted], variables(gy))
        for i, grad in zip(wanted, grads, strict=True):
            assert_close(grad, expected[i])
    assert all(v.grad is None for v in inputs)


@pytest.mark.parametrize('device', [
    '@numpy', pytest.param('@cupy:0', marks=pytest.mark.gpu)])
@pytest.mark.parametrize('make', [
    lambda: sl.SharedLinear(12, 6, n_tiles=3),
    lambda: sl.MixedLinear(12, 6, n_tiles=3, n_blocks=2),
    lambda: sl.LowRankLinear(12, 6, rank=2, n_tiles=3)])
def test_gradients_are_the_same_with_a_graph_and_without(make, device):
    device = chainer.get_device(device)
    device.use()
    link = make().to_device(device)
    x, gy = (device.send(a.astype('f')) for a in draw((4, 12), (4, 6)))
    grads = []
    for with_graph in True, False:
        link.cleargrads()
        x_ = chainer.Variable(x)
        y = link(x_)
        y.grad = gy
        y.backward(enable_double_backprop=with_graph)
        found = [x_, *link.params()]
        assert all(
            (v.grad_var.creator is not None) is with_graph for v in found)
        grads.append([device.xp.asarray(v.grad) for v in found])
    for with_, without in zip(*grads, strict=True):
        numpy.testing.assert_array_equal(
            chainer.get_device('@numpy').send(with_),
            chainer.get_device('@numpy').send(without))


@kinds.EACH_FORM
def test_second_derivatives_in_every_pair(form, arrays):
    """d<ggu, gu>/dv of any u among x, W, b and each v among x, W, gy."""
    x, W, b = inputs = variables(*arrays)
    gy, = variables(*draw((4, 6)))
    gginputs = draw(x.shape, W.shape, b.shape)
    for wanted, j in itertools.product(SUBSETS, range(3)):
        y = form(x, W, b)
        first = chainer.grad(
            [y], [inputs[i] for i in wanted], [gy],
            enable_double_backprop=True)
        second, = chainer.grad(
            first, [[x, W, gy][j]],
            variables(*(gginputs[i] for i in wanted)))
        expected = form.second_gradients(x.array, W.array, gy.array, *(
            g if i in wanted else 0 * g for i, g in enumerate(gginputs)))[j]
        if second is None:
            assert (expected == 0).all()
        else:
            assert_close(second, expected)
            assert (expected != 0).any()


@kinds.EACH_FORM
def test_third_derivative(form, arrays):
    """sum(y ** 3) by W three times along a direction: by hand 6 (x u)^3."""
    x, W, _ = arrays
    u, = draw(W.shape)
    w = chainer.Variable(W)
    value = F.sum(form(x, w) ** 3)
    for _ in range(3):
        g, = chainer.grad([value], [w], enable_double_backprop=True)
        value = F.sum(g * u)
    assert_close(value, (6 * form.expected(x, u) ** 3).sum())


@kinds.EACH_FORM
def test_gradient_penalty(form, arrays):
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

    ours = penalty_gradients(form, W)
    theirs = penalty_gradients(F.linear, form.weight(W))
    theirs[2] = reference.adjoint(form.weight, W.shape, theirs[2])
    for a, e in zip(ours, theirs, strict=True):
        assert_close(a, e)


@kinds.EACH_FORM
def test_backward_with_double_backprop_and_retain_grad(form, arrays):
    x, W, b = variables(*arrays)
    y = form(x, W, b)
    z = y * y
    F.sum(z).backward(retain_grad=True, enable_double_backprop=True)
    gx, gW = x.grad_var, W.grad_var
    assert_close(y.grad, 2 * y.array)
    assert_close(gx, form.gradients(*arrays[:2], 2 * y.array)[0])
    x.cleargrad()
    W.cleargrad()
    F.sum(gx * gx).backward()  # through gx, and gy = 2 y, to W
    ours = W.grad

    x, V, b = variables(
        arrays[0], form.weight(arrays[1]), arrays[2])
    y = F.linear(x, V, b)
    gx, = chainer.grad([F.sum(y * y)], [x], enable_double_backprop=True)
    F.sum(gx * gx).backward()
    assert_close(ours, reference.adjoint(form.weight, W.shape, V.grad))
    assert gW is not None


@kinds.EACH_FORM
def test_backward_twice_adds_up(form, arrays):
    """What a form keeps from forward serves the first, and the second."""
    inputs = variables(*arrays)
    y = F.sum(form(*inputs))
    y.backward(retain_grad=True)
    once = [v.grad.copy() for v in inputs]
    y.backward()
    for v, grad in zip(inputs, once, strict=True):
        assert_close(v.grad, 2 * grad)
        v.cleargrad()
    y.backward()
    for v, grad in zip(inputs, once, strict=True):
        numpy.testing.assert_array_equal(v.grad, grad)


@kinds.EACH_FORM
def test_backward_after_W_was_updated_in_place(form, arrays):
    """As with F.linear, gx is that of the weight as it is then."""
    x, W, b = variables(*arrays)
    y = form(x, W, b)
    gy, = draw(y.shape)
    y.grad = gy
    W.array[...] *= 2
    y.backward()
    gx, gW, gb = form.gradients(arrays[0], W.array, gy)
    assert_close(x.grad, gx)
    assert_close(W.grad, gW)
    assert_close(b.grad, gb)


@kinds.EACH_FORM
def test_forget_computes_the_same(form, arrays):
    x, W, b = variables(*arrays)
    y = F.forget(form, x, W, b)
    gy, = draw(y.shape)
    y.grad = gy
    y.backward()
    for v, g in zip(
            (x, W, b), form.gradients(*arrays[:2], gy), strict=True):
        assert_close(v.grad, g)


@kinds.EACH_FORM
def test_no_backprop_mode(form, arrays):
    x, W, b = variables(*arrays)
    with chainer.no_backprop_mode():
        y = form(x, W, b)
        assert y.creator is None
        with chainer.force_backprop_mode():
            z = form(x, W, b)
    assert_close(y, form.expected(*arrays))
    gz, = draw(z.shape)
    z.grad = gz
    z.backward()
    assert_close(W.grad, form.gradients(*arrays[:2], gz)[1])


@kinds.EACH_FORM
def test_unchain_backward_stops_the_gradient(form, arrays):
    x, W, b = variables(*arrays)
    hidden = form(x, W, b)
    hidden.unchain_backward()
    y = F.sum(hidden * hidden)
    y.backward()
    assert hidden.grad is not None
    assert x.grad is None and W.grad is None and b.grad is None


@kinds.EACH_FORM
def test_inputs_that_ask_for_no_gradient_get_none(form, arrays):
    gy, = draw((4, 6))
    expected = form.gradients(*arrays[:2], gy)
    for wanted in SUBSETS:
        inputs = [
            chainer.Variable(a, requires_grad=i in wanted)
            for i, a in enumerate(arrays)]
        y = form(*inputs)
        y.grad = gy
        y.backward()
        for i, v in enumerate(inputs):
            if i in wanted:
                assert_close(v.grad, expected[i])
            else:
                assert v.grad is None


@kinds.EACH_FORM
def test_gradients_of_plain_arrays_make_no_graph(form, arrays):
    y = form(*arrays)
    assert not y.requires_grad
    assert_close(y, form.expected(*arrays))


@pytest.mark.parametrize('method', ['fold', 'tile'])
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
