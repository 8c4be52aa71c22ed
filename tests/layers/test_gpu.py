"""On CuPy, the same as on NumPy. conftest.py skips it where there is none."""
import io

import cases
import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
import reference
from chainer import iterators, optimizers, serializers, training
from chainer.training import extensions
from gpus import keep_busy, launches_wait

import shared_linear as sl
from shared_linear.layers import function, kernels

pytestmark = pytest.mark.gpu
METHODS = pytest.mark.parametrize('method', function.METHODS)


@pytest.fixture
def gpu():
    device = chainer.get_device('@cupy:0')
    device.use()
    return device


def to_numpy(array):
    return chainer.get_device('@numpy').send(getattr(array, 'array', array))


def draw(*shape, dtype='f'):
    return numpy.random.uniform(-1, 1, shape).astype(dtype)


def assert_close(actual, expected, dtype):
    numpy.testing.assert_allclose(
        to_numpy(actual).astype('d'), expected, **cases.TOLERANCES[dtype])


@METHODS
@pytest.mark.parametrize('x_dtype, W_dtype', [
    ('e', 'e'), ('f', 'f'), ('d', 'd'), ('e', 'f'), ('f', 'd')])
@pytest.mark.parametrize('n_tiles', [1, 3])
def test_forward_and_both_backwards(gpu, method, x_dtype, W_dtype, n_tiles):
    x, W, b = (
        draw(4, 12, dtype=x_dtype), draw(5, 12 // n_tiles, dtype=W_dtype),
        draw(5, dtype=x_dtype))
    gy = draw(4, 5, dtype=x_dtype)
    inputs = [chainer.Variable(gpu.send(a)) for a in (x, W, b)]
    y = sl.shared_linear(*inputs, method=method)
    gy_ = chainer.Variable(gpu.send(gy))
    grads = chainer.grad([y], inputs, [gy_], enable_double_backprop=True)
    directions = [draw(*v.shape, dtype=v.dtype.char) for v in inputs]
    second = chainer.grad(
        grads, [*inputs[:2], gy_],
        [chainer.Variable(gpu.send(d)) for d in directions])

    low = min(x_dtype, W_dtype, key='efd'.index)
    assert y.xp is gpu.xp and y.dtype == x.dtype
    assert_close(y, reference.shared_linear(x, W, b), low)
    for g, v, e in zip(
            grads, inputs, reference.gradients(x, W, gy), strict=True):
        assert g.dtype == v.dtype
        assert_close(g, e, low)
    for g, e in zip(
            second, reference.second_gradients(x, W, gy, *directions),
            strict=True):
        assert_close(g, e, low)


@pytest.mark.parametrize('dtype', 'efd')
@pytest.mark.parametrize('batch, out_size', [
    (512, 600), (512, 601), (500, 600), (2048, 200), (100, 3000)])
def test_bias_of_a_large_output(gpu, batch, out_size, dtype):
    """It has kernels of its own, for what is large and what is even."""
    x, W, b = (
        draw(batch, 12, dtype=dtype), draw(out_size, 4, dtype=dtype),
        draw(out_size, dtype=dtype))
    gy = draw(batch, out_size, dtype=dtype)
    b_ = chainer.Variable(gpu.send(b))
    y = sl.shared_linear(gpu.send(x), gpu.send(W), b_)
    y.grad = gpu.send(gy)
    y.backward()
    assert y.size >= kernels.LARGE
    assert_close(y, reference.shared_linear(x, W, b), dtype)
    assert b_.grad.dtype == dtype
    # Half a unit in the last place of the sum: it is rounded once.
    tolerance = {'e': 1e-3, 'f': 1e-6, 'd': 1e-14}[dtype]
    numpy.testing.assert_allclose(
        to_numpy(b_.grad).astype('d'), gy.astype('d').sum(0),
        rtol=tolerance, atol=tolerance * batch ** .5)


@pytest.mark.parametrize('batch, folds', [(30, 1), (31, 2)])
def test_the_fold_is_kept_where_it_is_smaller_than_what_is_saved(
        gpu, monkeypatch, batch, folds):
    shapes = []
    fold = kernels.fold

    def counted(x, *args):
        shapes.append(x.shape)
        return fold(x, *args)

    monkeypatch.setattr(kernels, 'fold', counted)
    link = sl.SharedLinear(12, 15, nobias=True, n_tiles=3).to_device(gpu)
    x, gy = draw(batch, 12), draw(batch, 15)
    y = link(gpu.send(x))
    for n in 1, 2:  # backward again finds all that it needs
        link.cleargrads()
        y.grad = gpu.send(gy)
        y.backward()
        _, gW = reference.gradients(x, to_numpy(link.W), gy)[:2]
        assert_close(link.W.grad, gW, 'f')
        assert shapes == [x.shape] * (1 + n * (folds - 1))


@METHODS
def test_derivatives_of_an_order(gpu, method):
    """With the inputs permuted first, all is as without an order."""
    order = numpy.random.permutation(12)
    x, W, b, gy = draw(4, 12), draw(5, 4), draw(5), draw(4, 5)
    inputs = [chainer.Variable(gpu.send(a)) for a in (x, W, b)]
    y = sl.shared_linear(*inputs, method=method, order=order)
    gy_ = chainer.Variable(gpu.send(gy))
    grads = chainer.grad([y], inputs, [gy_], enable_double_backprop=True)
    directions = [draw(*v.shape) for v in inputs]
    second = chainer.grad(
        grads, [*inputs[:2], gy_],
        [chainer.Variable(gpu.send(d)) for d in directions])

    back = order.argsort()
    assert_close(y, reference.shared_linear(x[:, order], W, b), 'f')
    gx, gW, gb = reference.gradients(x[:, order], W, gy)
    for g, e in zip(grads, (gx[:, back], gW, gb), strict=True):
        assert_close(g, e, 'f')
    directions[0] = directions[0][:, order]
    by_x, by_W, by_gy = reference.second_gradients(
        x[:, order], W, gy, *directions)
    for g, e in zip(second, (by_x[:, back], by_W, by_gy), strict=True):
        assert_close(g, e, 'f')


@pytest.mark.parametrize('ordered', [False, True])
@pytest.mark.parametrize('dtype', 'efd')
@pytest.mark.parametrize('n_tiles, width', [
    (1, 8), (2, 4), (3, 6), (8, 1), (10, 100), (29, 98)])
def test_fold_and_tile(gpu, n_tiles, width, dtype, ordered):
    order = None
    if ordered:
        order = numpy.random.permutation(n_tiles * width)
    x, z = draw(2, 7, n_tiles * width, dtype=dtype), draw(
        2, 7, width, dtype=dtype)
    folded = sl.fold(gpu.send(x), n_tiles, order)
    tiled = sl.tile(gpu.send(z), n_tiles, order)
    assert folded.dtype == tiled.dtype == dtype
    permuted = x if order is None else x[..., order]
    assert_close(folded, reference.fold(permuted, n_tiles), dtype)
    tiles = reference.tile(z, n_tiles)
    if order is not None:
        tiles = tiles[..., order.argsort()]
    numpy.testing.assert_array_equal(to_numpy(tiled), tiles)


@pytest.mark.parametrize('ordered', [False, True])
@pytest.mark.parametrize('dtype', 'efd')
@pytest.mark.parametrize('layout', sorted(cases.LAYOUTS))
@pytest.mark.parametrize('batch', [(5,), (2, 3)])
def test_fold_and_tile_of_every_layout(gpu, batch, layout, dtype, ordered):
    order = numpy.random.permutation(24) if ordered else None
    x = cases.LAYOUTS[layout](gpu.xp, gpu.send(draw(*batch, 24, dtype=dtype)))
    z = cases.LAYOUTS[layout](gpu.xp, gpu.send(draw(*batch, 8, dtype=dtype)))
    x_there, z_there = to_numpy(x), to_numpy(z)
    folded, tiled = sl.fold(x, 3, order), sl.tile(z, 3, order)
    permuted = x_there if order is None else x_there[..., order]
    assert_close(folded, reference.fold(permuted, 3), dtype)
    tiles = reference.tile(z_there, 3)
    if order is not None:
        tiles = tiles[..., order.argsort()]
    numpy.testing.assert_array_equal(to_numpy(tiled), tiles)
    numpy.testing.assert_array_equal(to_numpy(x), x_there)
    numpy.testing.assert_array_equal(to_numpy(z), z_there)


def test_fold_of_float16_is_rounded_once(gpu):
    x = gpu.send(numpy.array([2048] + [1] * 15, 'e'))
    assert sl.fold(x, 16).array == 2063


def test_more_elements_than_32_bits_count(gpu):
    """2 ** 32 elements are folded, by 2 ** 28 threads and by 2 ** 31."""
    free, _ = gpu.xp.cuda.runtime.memGetInfo()
    if free < 24 * 2 ** 30:
        pytest.skip('needs 24 GiB free on the GPU')
    for width in 2 ** 13, 2 ** 13 + 1:  # 16 bytes at a time, and 2
        x = gpu.xp.ones((2 ** 18, 2 * width), 'e')
        x[-1, -1] = 5
        folded = sl.fold(x, 2).array
        assert folded[-1, -1] == 6
        assert (folded[:, 0] == 2).all()
        tiled = sl.tile(folded, 2).array
        del folded
        assert tiled[-1, width - 1] == tiled[-1, -1] == 6
        assert (tiled[:, 0] == 2).all()
        del x, tiled
        gpu.xp.get_default_memory_pool().free_all_blocks()


@METHODS
@pytest.mark.parametrize('layout', sorted(cases.LAYOUTS))
def test_memory_orders(gpu, method, layout):
    x, W = draw(4, 12), draw(5, 4)
    x_ = cases.LAYOUTS[layout](gpu.xp, gpu.send(x))
    x = to_numpy(x_)
    v, w = chainer.Variable(x_), chainer.Variable(gpu.send(W))
    y = sl.shared_linear(v, w, method=method)
    F.sum(y).backward()  # a gradient of stride zero
    assert_close(y, reference.shared_linear(x, W), 'f')
    gx, gW, _ = reference.gradients(x, W, numpy.ones((4, 5)))
    assert_close(v.grad, gx, 'f')
    assert_close(w.grad, gW, 'f')
    numpy.testing.assert_array_equal(to_numpy(x_), x)


@METHODS
def test_empty_batch(gpu, method):
    x = chainer.Variable(gpu.xp.zeros((0, 12), 'f'))
    w = chainer.Variable(gpu.xp.ones((5, 4), 'f'))
    y = sl.shared_linear(x, w, method=method)
    F.sum(y).backward()
    assert y.shape == (0, 5)
    assert x.grad.shape == (0, 12)
    assert (to_numpy(w.grad) == 0).all()


@pytest.mark.parametrize('n_tiles', [2, 10])
def test_float16_is_about_as_close_as_F_linear(gpu, n_tiles):
    """CuPy rounds the folded input to float16, and then the result."""
    ours = theirs = 0
    for seed in range(30):
        rng = numpy.random.RandomState(seed)
        x = rng.randn(16, 20 * n_tiles).astype('e')
        W = (rng.randn(30, 20) / (20 * n_tiles) ** .5).astype('e')
        expected = reference.shared_linear(x, W)
        y = sl.shared_linear(gpu.send(x), gpu.send(W))
        ours += abs(to_numpy(y).astype('d') - expected).mean()
        y = F.linear(gpu.send(x), gpu.send(numpy.tile(W, (1, n_tiles))))
        theirs += abs(to_numpy(y).astype('d') - expected).mean()
    assert ours <= 2 * theirs


@pytest.mark.parametrize('initialW', [
    None, chainer.initializers.HeNormal(), chainer.initializers.Orthogonal()])
def test_size_left_to_the_first_input(gpu, initialW):
    link = sl.SharedLinear(40, initialW=initialW, n_tiles=10).to_device(gpu)
    y = link(gpu.xp.ones((4, 1000), 'f'))
    assert y.shape == (4, 40)
    assert isinstance(link.W.array, gpu.xp.ndarray)
    dense = L.Linear(1000, 40, initialW=initialW)
    assert to_numpy(link.W).std() == pytest.approx(
        dense.W.array.std(), rel=0.1)


@pytest.mark.parametrize('ordered', [False, True])
@pytest.mark.parametrize('there', ['@numpy', '@cupy:0'])
def test_save_here_and_load_there(gpu, there, ordered):
    order = numpy.random.permutation(12) if ordered else None
    link = sl.SharedLinear(12, 5, n_tiles=3, order=order).to_device(
        '@cupy:0' if there == '@numpy' else '@numpy')
    file = io.BytesIO()
    serializers.save_npz(file, link)
    file.seek(0)
    other = sl.SharedLinear(None, 5, n_tiles=3).to_device(there)
    serializers.load_npz(file, other)
    assert other.device == chainer.get_device(there)
    numpy.testing.assert_array_equal(to_numpy(other.W), to_numpy(link.W))
    x = draw(4, 12)
    numpy.testing.assert_allclose(
        to_numpy(other(other.device.send(x))),
        to_numpy(link(link.device.send(x))), rtol=1e-4, atol=1e-6)


def test_conversions_stay_on_the_device(gpu):
    link = sl.SharedLinear(12, 5, n_tiles=3).to_device(gpu)
    dense = link.to_linear()
    back = sl.SharedLinear.from_linear(dense, 3)
    assert dense.device == back.device == gpu
    numpy.testing.assert_allclose(
        to_numpy(back.W), to_numpy(link.W), rtol=1e-6)
    W, b = gpu.send(draw(5, 4)), gpu.send(draw(5))
    other = sl.SharedLinear.from_params(W, b, n_tiles=3).to_device(gpu)
    numpy.testing.assert_array_equal(to_numpy(other.W), to_numpy(W))


def layer_step(link, x, gy):
    link.cleargrads()
    x = chainer.Variable(x)
    y = link(x)
    y.grad = gy
    y.backward()
    return y.array, x.grad, link.W.grad, link.b.grad


def check_layer_step(link, step, x, gy, order):
    expected = reference.gradients(x[:, order], to_numpy(link.W), gy)
    y = reference.shared_linear(
        x[:, order], to_numpy(link.W), to_numpy(link.b))
    for actual, e in zip(step, (
            y, expected[0][:, order.argsort()], *expected[1:]), strict=True):
        assert_close(actual, e, 'f')


@pytest.mark.parametrize('ordered', [False, True])
def test_a_stream_of_ones_own(gpu, ordered):
    """What runs there waits for what the stream was given before.

    And nothing waits for the GPU: while it was busy with that, the whole
    step was given to it.
    """
    order = numpy.random.permutation(1200) if ordered else numpy.arange(1200)
    link = sl.SharedLinear(
        1200, 50, n_tiles=3, order=order if ordered else None).to_device(gpu)
    x, gy = draw(400, 1200), draw(400, 50)
    x_, gy_ = gpu.xp.zeros(x.shape, 'f'), gpu.send(gy)
    there = gpu.send(x)
    gpu.device.synchronize()
    stream = gpu.xp.cuda.Stream(non_blocking=True)
    with stream:
        for _ in range(2):  # compiles, and fills the memory pool
            layer_step(link, x_, gy_)
        at_once = launches_wait(stream, gpu.xp)
        keep_busy(gpu.xp, .5)
        end_of_that = stream.record()
        x_[...] = there
        step = layer_step(link, x_, gy_)
        busy_to_the_end = not end_of_that.done
    stream.synchronize()
    check_layer_step(link, step, x, gy, order)
    if at_once:
        pytest.skip('all but the waiting: here a launch waits for its kernel')
    assert busy_to_the_end


@pytest.mark.parametrize('ordered', [False, True])
def test_second_device(gpu, ordered):
    """The device of x counts, and not the one in use."""
    if gpu.xp.cuda.runtime.getDeviceCount() < 2:
        pytest.skip('needs two GPUs')
    order = numpy.random.permutation(12) if ordered else numpy.arange(12)
    second = chainer.get_device('@cupy:1')
    link = sl.SharedLinear(
        12, 5, n_tiles=3, order=order if ordered else None).to_device(second)
    x, gy = draw(4, 12), draw(4, 5)
    x_, gy_ = second.send(x), second.send(gy)
    assert gpu.xp.cuda.Device().id == 0
    step = layer_step(link, x_, gy_)
    assert all(array.device.id == 1 for array in step)
    assert sl.fold(x_, 3).array.device.id == 1
    assert sl.tile(x_, 3).array.device.id == 1
    assert gpu.xp.cuda.Device().id == 0
    check_layer_step(link, step, x, gy, order)


@pytest.mark.parametrize('make_optimizer', [
    lambda: optimizers.Adam(0.01), lambda: optimizers.SGD(0.1),
    lambda: optimizers.MomentumSGD(0.1)], ids=['Adam', 'SGD', 'MomentumSGD'])
def test_training_is_that_on_numpy(gpu, make_optimizer):
    x, t = draw(32, 12), draw(32, 5)

    def train(device):
        numpy.random.seed(0)
        link = sl.SharedLinear(12, 5, n_tiles=3).to_device(device)
        optimizer = make_optimizer().setup(link)
        optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(1e-3))
        for _ in range(20):
            optimizer.update(lambda: F.mean_squared_error(
                link(device.send(x)), device.send(t)))
        return to_numpy(link.W)

    numpy.testing.assert_allclose(
        train(gpu), train(chainer.get_device('@numpy')),
        rtol=1e-3, atol=1e-4)


def test_dropout(gpu):
    x = chainer.Variable(gpu.xp.ones((200, 300), 'f'))
    y = F.dropout(x, 0.25)
    F.sum(y).backward()
    kept = to_numpy(y) != 0
    assert kept.mean() == pytest.approx(0.75, abs=0.02)
    numpy.testing.assert_allclose(to_numpy(y)[kept], 1 / 0.75, rtol=1e-6)
    numpy.testing.assert_array_equal(to_numpy(x.grad), to_numpy(y))
    with chainer.using_config('train', False):
        assert F.dropout(x, 0.25) is x


def test_batch_normalization_is_that_on_numpy(gpu):
    x, gy = draw(32, 6), draw(32, 6)

    def both_modes(device):
        link = L.BatchNormalization(6).to_device(device)
        v = chainer.Variable(device.send(x))
        y = link(v)
        y.grad = device.send(gy)
        y.backward()
        with chainer.using_config('train', False):
            fixed = link(device.send(x))
        return [to_numpy(a) for a in (
            y, v.grad, link.gamma.grad, link.beta.grad, link.avg_mean,
            link.avg_var, fixed)]

    for ours, theirs in zip(
            both_modes(gpu), both_modes(chainer.get_device('@numpy')),
            strict=True):
        numpy.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


class Network(chainer.Chain):

    """What an MNIST user builds, in small."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(12, 24)
            self.norm = L.BatchNormalization(24)
            self.l2 = sl.SharedLinear(None, 20, n_tiles=4)
            self.l3 = L.Linear(20, 3)

    def forward(self, x):
        h = F.relu(self.norm(self.l1(x)))
        h = F.dropout(F.relu(self.l2(h)), self.dropout_ratio)
        return self.l3(h)

    dropout_ratio = 0.


def make_trainer(device, out, n_epochs):
    numpy.random.seed(0)
    x = draw(60, 12)
    t = x[:, :3].argmax(axis=1).astype('i')
    model = L.Classifier(Network())
    with chainer.using_config('train', False):
        model(x, t)  # draws weights, which are others on a GPU
    model.to_device(device)
    optimizer = optimizers.Adam(0.01).setup(model)
    digits = chainer.datasets.TupleDataset(x, t)
    updater = training.updaters.StandardUpdater(
        iterators.SerialIterator(digits, 20, shuffle=False), optimizer,
        device=device)
    trainer = training.Trainer(updater, (n_epochs, 'epoch'), out=str(out))
    trainer.extend(extensions.Evaluator(
        iterators.SerialIterator(digits, 20, repeat=False, shuffle=False),
        model, device=device))
    trainer.extend(extensions.LogReport())
    trainer.extend(extensions.snapshot(filename='snapshot'))
    return trainer


def read_log(trainer):
    return [
        [entry[key] for key in (
            'main/loss', 'main/accuracy', 'validation/main/loss',
            'validation/main/accuracy')]
        for entry in trainer.get_extension('LogReport').log]


def test_trainer_learns_what_it_learns_on_numpy(gpu, tmp_path):
    logs = []
    for device in gpu, chainer.get_device('@numpy'):
        trainer = make_trainer(device, tmp_path, 8)
        trainer.run()
        logs.append(read_log(trainer))
    assert logs[0][-1][0] < logs[0][0][0] / 2
    numpy.testing.assert_allclose(*logs, rtol=5e-3, atol=1e-3)


@pytest.mark.parametrize('devices', [
    ('@cupy:0', '@cupy:0'), ('@cupy:0', '@numpy'), ('@numpy', '@cupy:0')],
    ids='-'.join)
def test_trainer_goes_on_from_a_snapshot(gpu, tmp_path, devices):
    whole = make_trainer(gpu, tmp_path / 'whole', 4)
    whole.run()
    first, second = map(chainer.get_device, devices)
    first.use()
    make_trainer(first, tmp_path / 'halves', 2).run()
    second.use()
    rest = make_trainer(second, tmp_path / 'halves', 4)
    serializers.load_npz(tmp_path / 'halves' / 'snapshot', rest)
    rest.run()
    numpy.testing.assert_allclose(
        read_log(rest), read_log(whole), rtol=5e-3, atol=1e-3)


def test_a_network_with_dropout_trains(gpu, tmp_path):
    trainer = make_trainer(gpu, tmp_path, 30)
    trainer.updater.get_optimizer('main').target.predictor.dropout_ratio = .2
    trainer.run()
    assert read_log(trainer)[-1][3] > 0.9
