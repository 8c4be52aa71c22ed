"""The device of a link counts, and not the one that is in use."""
import copy
import io

import cases
import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer import optimizers, serializers
from gpus import keep_busy, launches_wait
from links import FROM_LINEAR, FROM_PARAMS, LINKS, ORDER, WITH_ORDER

import shared_linear as sl
from shared_linear import surgery

pytestmark = pytest.mark.gpu
ALL = {**LINKS, **WITH_ORDER}
every_link = pytest.mark.parametrize('kind', ALL)
every_class = pytest.mark.parametrize('kind', LINKS)
CPU = chainer.get_device('@numpy')


def draw(*shape):
    return numpy.random.uniform(-1, 1, shape).astype('f')


def to_numpy(array):
    return CPU.send(chainer.as_array(array))


def assert_close(actual, expected):
    numpy.testing.assert_allclose(
        to_numpy(actual), to_numpy(expected), **cases.TOLERANCES['f'])


def assert_all_on(link, device):
    assert link.device == device
    for parameter in link.params():
        assert parameter.device == device
        assert chainer.backend.get_device_from_array(
            parameter.array) == device


def step(link, x, gy):
    """Outputs, gradients, and a second derivative by all of them."""
    x, gy = chainer.Variable(x), chainer.Variable(gy)
    parameters = list(link.params())
    y = link(x)
    grads = chainer.grad(
        [y], [x, *parameters], [gy], enable_double_backprop=True)
    total = sum(F.sum(g * g) for g in grads[:2])
    return [y, *grads, *chainer.grad([total], [x, gy])]


@every_link
def test_derivatives(some_gpu, kind):
    link = ALL[kind]()
    x, gy = draw(5, 24), draw(5, 6)
    expected = step(link, x, gy)
    moved = copy.deepcopy(link).to_device(some_gpu)
    for v, e in zip(
            step(moved, some_gpu.send(x), some_gpu.send(gy)), expected,
            strict=True):
        assert v.device == some_gpu
        assert_close(v, e)


@every_class
def test_a_size_left_to_the_first_input(some_gpu, kind):
    for initialW in (
            None, chainer.initializers.HeNormal(),
            chainer.initializers.Orthogonal(),
            lambda array: array.fill(2)):
        link = LINKS[kind](None, initialW=initialW).to_device(some_gpu)
        y = link(some_gpu.send(draw(5, 24)))
        assert_all_on(link, some_gpu)
        assert y.device == some_gpu
        assert numpy.isfinite(to_numpy(y)).all()


@every_link
def test_training(some_gpu, kind):
    link = ALL[kind]().to_device(some_gpu)
    x, t = some_gpu.send(draw(16, 24)), some_gpu.send(draw(16, 6))
    optimizer = optimizers.Adam(.05).setup(link)
    losses = []
    for _ in range(20):
        optimizer.update(lambda: F.mean_squared_error(link(x), t))
        losses.append(float(F.mean_squared_error(link(x), t).array))
    assert losses[-1] < losses[0] / 1.5
    assert_all_on(link, some_gpu)


@every_link
def test_it_is_saved_and_loaded(some_gpu, kind):
    link = ALL[kind]().to_device(some_gpu)
    x = draw(3, 24)
    file = io.BytesIO()
    serializers.save_npz(file, link)
    other = ALL[kind]().to_device(some_gpu)
    file.seek(0)
    serializers.load_npz(file, other)
    assert_all_on(other, some_gpu)
    on_cpu = ALL[kind]()
    file.seek(0)
    serializers.load_npz(file, on_cpu)
    for loaded in other, on_cpu:
        assert_close(
            loaded(loaded.device.send(x)), link(some_gpu.send(x)))


@every_link
def test_it_moves(some_gpu, kind):
    link = ALL[kind]()
    x = draw(3, 24)
    expected = to_numpy(link(x))
    for device in some_gpu, chainer.get_device('@cupy:0'), some_gpu, CPU:
        link.to_device(device)
        assert_all_on(link, device)
        assert_close(link(device.send(x)), expected)


@every_link
def test_to_linear(some_gpu, kind):
    link = ALL[kind]()
    x = draw(3, 24)
    expected = to_numpy(link(x))
    dense = link.to_device(some_gpu).to_linear()
    assert_all_on(dense, some_gpu)
    assert_close(dense(some_gpu.send(x)), expected)


@every_class
@pytest.mark.parametrize('of_order', [None, '@numpy', '@cupy:0', '@cupy:1'])
@pytest.mark.parametrize('of_x', [None, '@numpy', '@cupy:0', '@cupy:1'])
def test_from_linear(some_gpu, kind, of_x, of_order):
    """Wherever the inputs and the order are."""
    if '@cupy:1' in (of_x, of_order) and some_gpu.device.id == 0:
        pytest.skip('as with the GPUs exchanged')
    dense = L.Linear(24, 6)
    x = None if of_x is None else draw(50, 24)
    order = None if of_order is None else ORDER.astype('i')
    expected = FROM_LINEAR[kind](dense, x, order)
    dense.to_device(some_gpu)
    if x is not None:
        x = chainer.get_device(of_x).send(x)
    if order is not None:
        order = chainer.get_device(of_order).send(order)
    link = FROM_LINEAR[kind](dense, x, order)
    assert_all_on(link, some_gpu)
    x = draw(3, 24)
    assert_close(link(some_gpu.send(x)), expected(x))


def test_an_order_that_is_searched(some_gpu):
    dense = L.Linear(24, 6)
    x = draw(50, 24)
    expected = sl.SharedLinear.from_linear(dense, 4, x, 'search')
    link = sl.SharedLinear.from_linear(
        dense.to_device(some_gpu), 4, some_gpu.send(x), 'search')
    assert_all_on(link, some_gpu)
    assert_close(link(some_gpu.send(x)), expected(x))


@every_class
def test_from_params(some_gpu, kind):
    link = LINKS[kind]()
    x = draw(3, 24)
    expected = to_numpy(link(x))
    other = FROM_PARAMS[kind](link.to_device(some_gpu))
    assert_close(other.to_device(some_gpu)(some_gpu.send(x)), expected)


@every_link
def test_batch_normalization_folds_into_it(some_gpu, kind):
    model = chainer.Sequential(ALL[kind](), L.BatchNormalization(6))
    x = draw(8, 24)
    for _ in range(3):
        model(x)
    with chainer.using_config('train', False):
        expected = to_numpy(model(x))
        said = surgery.fold_batch_normalization(copy.deepcopy(model), x)
        model.to_device(some_gpu)
        report = surgery.fold_batch_normalization(model, some_gpu.send(x))
        assert str(report) == str(said)
        assert_all_on(model, some_gpu)
        with chainer.using_device(some_gpu):
            assert_close(model(some_gpu.send(x)), expected)


def test_fold_and_tile(some_gpu):
    x, z = draw(3, 24), draw(3, 6)
    for where in CPU, chainer.get_device('@cupy:0'), some_gpu:
        order = where.send(ORDER)
        for function, array in (sl.fold, x), (sl.tile, z):
            for o in None, order:
                y = function(some_gpu.send(array), 4, o)
                assert y.device == some_gpu
                assert_close(y, function(
                    array, 4, None if o is None else ORDER))


def test_group_inputs(some_gpu):
    x, W = draw(40, 24), draw(6, 24)
    numpy.testing.assert_array_equal(
        sl.group_inputs(some_gpu.send(x), 4, some_gpu.send(W)),
        sl.group_inputs(x, 4, W))


def test_inputs_that_come_one_by_one(some_gpu):
    """A dataset of arrays there, and an iterator of batches of them."""
    x = draw(40, 24)
    there = some_gpu.send(x)
    expected = sl.group_inputs(x, 4)
    for inputs in (
            [there[i] for i in range(len(x))],
            [(there[i], 0) for i in range(len(x))],
            iter([there[:25], there[25:]]),
            iter([[there[i] for i in range(25)], there[25:]])):
        numpy.testing.assert_array_equal(sl.group_inputs(inputs, 4), expected)


@every_link
def test_an_input_on_another_device(some_gpu, kind):
    """As L.Linear does, it refuses; and says which are where."""
    link = ALL[kind]().to_device(some_gpu)
    for device in map(chainer.get_device, ['@numpy', '@cupy:0', '@cupy:1']):
        if device == some_gpu or (
                '1' in device.name and some_gpu.device.id == 0):
            continue
        with pytest.raises((TypeError, ValueError)) as e:
            link(device.send(draw(3, 24)))
        if device != CPU:
            for where in device, some_gpu:
                assert where.name in str(e.value)


@every_link
def test_nothing_waits_for_the_gpu(some_gpu, kind):
    """A whole step is given to a GPU that is busy all the while."""
    link = ALL[kind]().to_device(some_gpu)
    x, gy = draw(5, 24), draw(5, 6)
    expected = step(copy.deepcopy(link).to_device(CPU), x, gy)
    x, gy = some_gpu.send(x), some_gpu.send(gy)
    with chainer.using_device(some_gpu):
        some_gpu.device.synchronize()
        stream = some_gpu.xp.cuda.Stream(non_blocking=True)
        with stream:
            for _ in range(2):  # compiles, and fills the memory pool
                step(link, x, gy)
            if launches_wait(stream, some_gpu.xp):
                pytest.skip('a launch waits for its kernel here')
            keep_busy(some_gpu.xp, .5)
            end_of_that = stream.record()
            results = step(link, x, gy)
            assert not end_of_that.done
        stream.synchronize()
    for v, e in zip(results, expected, strict=True):
        assert_close(v, e)
