import copy
import pickle

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer import gradient_check
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn
from networks import (
    CNN,
    MLP,
    Recurrent,
    UNet,
    images,
    parameters,
    randomize,
    snapshot,
    vectors,
)

from shared_linear import surgery
from shared_linear.surgery.fake_quantize import FakeQuantizeFunction


def by_hand(x, low, high, n_bits, symmetric):
    """Jacob et al. (2018), equation 1 and section 3, value by value."""
    low, high = min(low, 0.), max(high, 0.)
    if symmetric:
        q_min, q_max = -2 ** (n_bits - 1) + 1, 2 ** (n_bits - 1) - 1
        scale, zero = max(-low, high) / q_max or 1., 0
    else:
        q_min, q_max = 0, 2 ** n_bits - 1
        scale = (high - low) / q_max or 1.
        zero = round(-low / scale)
    y = np.empty(x.shape)
    for i, value in np.ndenumerate(x):
        q = min(max(round(value / scale) + zero, q_min), q_max)
        y[i] = scale * (q - zero)
    return y


@pytest.mark.parametrize('n_bits', [2, 4, 8, 16])
@pytest.mark.parametrize('symmetric', [False, True])
def test_values(n_bits, symmetric):
    rng = np.random.RandomState(0)
    x = rng.randn(5, 7)
    quantizer = surgery.FakeQuantize(n_bits, symmetric=symmetric)
    expected = by_hand(x, x.min(), x.max(), n_bits, symmetric)
    np.testing.assert_allclose(quantizer(x).array, expected, atol=1e-12)
    assert len(np.unique(quantizer(x).array)) <= 2 ** n_bits
    # Fixed, it clips what lies outside the range.
    quantizer.calibrating = False
    wide = 3 * rng.randn(4, 7)
    np.testing.assert_allclose(
        quantizer(wide).array,
        by_hand(wide, x.min(), x.max(), n_bits, symmetric), atol=1e-12)
    assert quantizer.low == x.min()
    assert quantizer.high == x.max()


@pytest.mark.parametrize('axis', [0, 1, -1])
def test_per_channel(axis):
    x = np.random.RandomState(0).randn(3, 4, 5) * np.arange(
        1, 5).reshape(1, 4, 1)
    quantizer = surgery.FakeQuantize(4, axis=axis)
    y = quantizer(x).array
    assert quantizer.low.shape == (x.shape[axis],)
    for i in range(x.shape[axis]):
        channel = np.take(x, i, axis)
        np.testing.assert_allclose(
            np.take(y, i, axis),
            by_hand(channel, channel.min(), channel.max(), 4, False),
            atol=1e-12)


def test_observed_ranges():
    batches = [vectors(seed=seed) * (seed + 1) for seed in range(4)]
    low, high = batches[0].min(), batches[0].max()
    extremes = surgery.FakeQuantize(ranges='min_max')
    averages = surgery.FakeQuantize(ranges='moving_average', decay=.75)
    current = surgery.FakeQuantize(ranges='current')
    for i, x in enumerate(batches):
        for quantizer in extremes, averages, current:
            quantizer(x)
        if i:
            low = .75 * low + .25 * x.min()
            high = .75 * high + .25 * x.max()
    assert extremes.low == min(x.min() for x in batches)
    assert extremes.high == max(x.max() for x in batches)
    np.testing.assert_allclose(averages.low, low, rtol=1e-6)
    np.testing.assert_allclose(averages.high, high, rtol=1e-6)
    for quantizer in extremes, averages:
        assert isinstance(quantizer.low, np.ndarray)  # So devices move it.
    assert extremes.n_observed == averages.n_observed == 4
    assert current.low is None
    assert current.calibrating is False


@given(hn.arrays(
    np.float64, hn.array_shapes(max_dims=3, max_side=5),
    elements=st.floats(-1e6, 1e6)), st.integers(2, 16), st.booleans())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_properties(x, n_bits, symmetric):
    quantizer = surgery.FakeQuantize(n_bits, symmetric=symmetric)
    y = quantizer(x).array
    low, high = min(x.min(), 0), max(x.max(), 0)
    levels = 2 ** (n_bits - 1) - 1 if symmetric else 2 ** n_bits - 1
    step = (max(-low, high) if symmetric else high - low) / levels or 1.
    # At most half a step, and another half where zero is put on the grid.
    assert (abs(y - x) <= step * (1 + 1e-9)).all()
    assert (y[x == 0] == 0).all()
    quantizer.calibrating = False
    np.testing.assert_allclose(
        quantizer(y).array, y, atol=1e-9 * max(step, abs(y).max()))


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
def test_dtypes(dtype):
    x = vectors().astype(dtype)
    y = surgery.FakeQuantize(8)(x)
    assert y.dtype == dtype
    step = (x.max() - x.min()) / 255
    assert abs(y.array.astype(float) - x).max() <= step * 1.1


def test_the_gradient_passes_straight_through_in_the_range():
    quantizer = surgery.FakeQuantize(4)
    quantizer(np.array([-1., 2.]))
    quantizer.calibrating = False
    x = chainer.Variable(np.array([-5., -.9, 0., .33, 1.9, 5.]))
    y = quantizer(x)
    gy = np.array([1., 2., 3., 4., 5., 6.])
    y.grad = gy
    y.backward()
    np.testing.assert_array_equal(x.grad, [0, 2, 3, 4, 5, 0])


def test_the_gradient_can_be_differentiated_again():
    # Linear in gy with the mask as its slope.
    x = np.array([-5., -.9, 0., .33, 1.9, 5.])
    scale, zero = np.float64(.2), np.float64(5)

    def gradient(gy):
        variable = chainer.Variable(x)
        y, = FakeQuantizeFunction(scale, zero, 0, 15).apply((variable,))
        gx, = chainer.grad([y], [variable], [gy], enable_double_backprop=True)
        return gx

    gradient_check.check_backward(
        gradient, np.ones(6), np.arange(6.), dtype=np.float64,
        atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize('arguments, error, match', [
    ({'n_bits': 1}, ValueError, 'from 2 to 16, not 1'),
    ({'n_bits': 17}, ValueError, 'from 2 to 16, not 17'),
    ({'n_bits': 8.}, TypeError, 'must be an int, not float'),
    ({'n_bits': True}, TypeError, 'must be an int, not bool'),
    ({'ranges': 'max'}, ValueError, 'min_max, moving_average, current, not'),
    ({'decay': 1.}, ValueError, r'in \[0, 1\), not 1'),
])
def test_bad_arguments(arguments, error, match):
    with pytest.raises(error, match=match):
        surgery.FakeQuantize(**arguments)


def test_bad_data():
    quantizer = surgery.FakeQuantize()
    for bad in np.nan, np.inf, -np.inf:
        x = vectors()
        x[1, 2] = bad
        with pytest.raises(ValueError, match='NaN or infinity'):
            quantizer(x)
    assert quantizer.low is None
    with pytest.raises(ValueError, match=r'from shape \(0, 3\)'):
        quantizer(np.zeros((0, 3), np.float32))
    with pytest.raises(chainer.utils.type_check.InvalidType):
        surgery.FakeQuantize()(np.zeros(3, np.int32))
    quantizer.calibrating = False
    with pytest.raises(ValueError, match='fixed before it observed any'):
        quantizer(vectors())
    channels = surgery.FakeQuantize(axis=1)
    with pytest.raises(ValueError, match=r'axis=1, and.*\(3,\) has 1 axes'):
        channels(np.zeros(3, np.float32))
    channels(vectors())
    with pytest.raises(ValueError, match='6 ranges along axis 1.* has 7'):
        channels(vectors(width=7))


@pytest.mark.parametrize('axis', [None, 1])
@pytest.mark.parametrize('extension', ['npz', 'h5'])
def test_it_is_saved(tmp_path, axis, extension):
    save, load = {
        'npz': (chainer.serializers.save_npz, chainer.serializers.load_npz),
        'h5': (chainer.serializers.save_hdf5, chainer.serializers.load_hdf5),
    }[extension]
    quantizer = surgery.FakeQuantize(4, axis=axis)
    quantizer(vectors())
    quantizer.calibrating = False
    path = tmp_path / f'quantizer.{extension}'
    save(path, quantizer)
    new = surgery.FakeQuantize(4, axis=axis)
    load(path, new)
    x = vectors(seed=3)
    np.testing.assert_array_equal(new(x).array, quantizer(x).array)
    assert new.calibrating is False
    assert new.n_observed == 1
    assert isinstance(new.low, np.ndarray)
    new.to_device('@numpy')
    copied = pickle.loads(pickle.dumps(copy.deepcopy(new)))
    np.testing.assert_array_equal(copied(x).array, quantizer(x).array)


def test_quantize_a_network():
    model = randomize(CNN())
    before = parameters(model)
    batches = [images(4, seed=seed) for seed in range(3)]
    report = surgery.quantize(model, batches, n_bits=8)
    assert list(report) == [
        ('/conv1/Convolution2DFunction',
         '/conv1/weight_Convolution2DFunction', '/conv1/W'),
        ('/ReLU', '/activation_ReLU', 'output'),
        ('/conv2/Convolution2DFunction',
         '/conv2/weight_Convolution2DFunction', '/conv2/W'),
        ('/ReLU_1', '/activation_ReLU_1', 'output'),
        ('/fc/LinearFunction', '/fc/weight_LinearFunction', '/fc/W')]
    assert str(report).splitlines()[1] == '/ReLU: output by /activation_ReLU'
    for name, array in before.items():
        np.testing.assert_array_equal(parameters(model)[name], array)
    with chainer.using_config('train', False):
        graph = surgery.trace(model, images(2))
        # What the layers read has as many values as eight bits hold.
        weight = graph['/conv1/Convolution2DFunction'].inputs[1].array
        for channel, original in zip(
                weight, model.conv1.W.array, strict=True):
            np.testing.assert_allclose(
                channel, by_hand(original, original.min(), original.max(),
                                 8, True), atol=1e-6)
        assert len(np.unique(graph['/fc'].inputs[0].array)) <= 256
        assert not model.activation_ReLU.calibrating
        low = model.activation_ReLU.low.copy()
        model(100 * images(2))
        assert model.activation_ReLU.low == low


def test_quantized_by_hand():
    model = randomize(MLP())
    x = vectors(16)
    plain = copy.deepcopy(model)
    surgery.quantize(model, x, n_bits=6, per_channel=False)

    def weight(link):
        W = link.W.array
        return by_hand(W, W.min(), W.max(), 6, True)

    def linear(link, h):
        return h @ weight(link).T + link.b.array

    h = np.maximum(linear(plain.l1, x), 0)
    h = by_hand(h, h.min(), h.max(), 6, False)
    h = np.maximum(linear(plain.l2, h), 0)
    h = by_hand(h, h.min(), h.max(), 6, False)
    with chainer.using_config('train', False):
        np.testing.assert_allclose(
            model(x).array, linear(plain.l3, h), rtol=1e-4, atol=1e-4)


def test_more_bits_come_closer():
    x = images(8)
    plain = randomize(CNN())
    with chainer.using_config('train', False):
        expected = plain(x).array
        errors = []
        for n_bits in 2, 4, 8, 16:
            model = copy.deepcopy(plain)
            surgery.quantize(model, x, n_bits)
            errors.append(abs(model(x).array - expected).max())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3 * abs(expected).max()
    assert errors[0] > 1e-2 * abs(expected).max()


def test_deconvolutions_have_a_range_for_each_output():
    model = randomize(UNet())
    surgery.quantize(model, images(2, size=16))
    quantizer = model.up3.weight_Deconvolution2DFunction
    assert quantizer.axis == 1
    assert model.down1.weight_Convolution2DFunction.axis == 0


def test_recurrent_weights_are_quantized_once_for_all_steps():
    model = randomize(Recurrent())
    report = surgery.quantize(model, np.stack([vectors()] * 3))
    assert [one.what for one in report] == [
        '/lstm/upward/W', '/lstm/lateral/W', '/out/W', 'output']
    assert model(np.stack([vectors()] * 6)).shape == (4, 3)


def test_quantization_aware_training_lowers_the_loss():
    model = L.Classifier(randomize(CNN()))
    x, t = images(16), np.arange(16, dtype=np.int32) % 3
    surgery.quantize(model.predictor, x, n_bits=3)
    optimizer = chainer.optimizers.SGD(.002).setup(model)
    losses = []
    for _ in range(15):
        optimizer.update(model, x, t)
        losses.append(float(model.loss.array))
    assert losses[-1] < losses[0] - .1
    # The weights move off the grid, and what is read stays on it.
    W = surgery.trace(model.predictor, x)[
        '/conv1/Convolution2DFunction'].inputs[1].array
    assert all(len(np.unique(channel)) <= 7 for channel in W)
    assert len(np.unique(model.predictor.conv1.W.array[0])) == 9


def test_forms_of_calibration_data():
    x = images(4)
    ranges = []
    for calibration in (
            x, chainer.Variable(x), (x,), [x], iter([(x,)]), {'x': x},
            [{'x': x}]):
        model = randomize(CNN())
        surgery.quantize(model, calibration)
        ranges.append(float(model.activation_ReLU.high))
    assert len(set(ranges)) == 1


def test_calibrating_anew():
    model = randomize(CNN())
    surgery.quantize(model, images(2))
    before = model.activation_ReLU.high
    assert surgery.calibrate(model, [10 * images(2), images(2)]) is model
    assert model.activation_ReLU.high > before
    assert not model.activation_ReLU.calibrating
    assert model.activation_ReLU.n_observed == 2
    with pytest.raises(ValueError, match='no FakeQuantize to calibrate'):
        surgery.calibrate(CNN(), images())


def test_reverting():
    model = randomize(CNN())
    before = snapshot(model)
    surgery.quantize(model, images(2))
    assert snapshot(model) != before
    surgery.revert(model)
    assert snapshot(model) == before


@pytest.mark.parametrize('calibration, arguments, error, match', [
    ([], {}, ValueError, 'at least one batch'),
    (3, {}, TypeError, 'batch or an iterable of batches, not int'),
    (images(), {'n_bits': 1}, ValueError, 'from 2 to 16'),
    (images(), {'ranges': 'current'}, ValueError, 'min_max or moving'),
    (np.full_like(images(), np.nan), {}, surgery.EditError, 'NaN'),
    ([images(), np.full_like(images(), np.nan)], {}, ValueError, 'NaN'),
    (images(), {'wrong_model': True}, chainer.utils.type_check.InvalidType,
     'LinearFunction'),
])
def test_refused_and_the_model_left_as_it_was(
        calibration, arguments, error, match):
    model, arguments = randomize(CNN()), dict(arguments)
    if arguments.pop('wrong_model', False):
        model.fc.W.array = np.zeros((3, 5), np.float32)
    before = snapshot(model)
    with pytest.raises(error, match=match):
        surgery.quantize(model, calibration, **arguments)
    assert str(snapshot(model)) == str(before)


def test_not_twice_and_not_without_anything_to_quantize():
    model = randomize(CNN())
    surgery.quantize(model, images())
    with pytest.raises(surgery.EditError, match='quantized already'):
        surgery.quantize(model, images())
    with pytest.raises(surgery.EditError, match='nothing to quantize'):
        surgery.quantize(
            chainer.Sequential(F.softmax), vectors())
