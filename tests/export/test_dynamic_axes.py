"""Axes that dynamic_axes names may have any size in the file."""
import numpy
import pytest
from test_onnx import Computed, axes, normal, run, run_chainer

import shared_linear as sl

import chainer  # isort: skip
import chainer.functions as F  # isort: skip
import chainer.links as L  # isort: skip

REASON = 'needs the extra "onnx"'
onnx = pytest.importorskip('onnx', reason=REASON)
onnxruntime = pytest.importorskip('onnxruntime', reason=REASON)

PICTURE = {'x': {2: 'height', 3: 'width'}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'model.onnx'


class UNet(chainer.Chain):

    """Halves a picture twice and enlarges it again, to the old sizes."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.a = L.Convolution2D(2, 4, 3, pad=1)
            self.b = L.Convolution2D(4, 4, 3, pad=1)
            self.c = L.Convolution2D(8, 3, 3, pad=1)

    def forward(self, x):
        h = F.relu(self.a(x))
        k = F.relu(self.b(F.max_pooling_2d(h, 2)))
        k = F.resize_images(k, h.shape[2:])
        return self.c(F.concat((h, k)))


def check(model, path, *shapes):
    for shape in shapes:
        x = normal(*shape)
        y, expected = run(path, x=x)[0], run_chainer(model, x)
        assert y.shape == expected.shape
        numpy.testing.assert_allclose(y, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize('opset', [11, 13, 17, 21])
def test_u_net(path, opset):
    model = UNet()
    proto = sl.onnx.export(
        model, normal(1, 2, 8, 12), path, dynamic_axes=PICTURE,
        opset_version=opset)
    assert axes(proto.graph.input[0]) == ['batch', 2, 'height', 'width']
    assert axes(proto.graph.output[0]) == ['batch', 3, 'height', 'width']
    check(model, path, (1, 2, 8, 12), (3, 2, 7, 5), (2, 2, 20, 11))


@pytest.mark.parametrize('forward', [
    lambda x: F.average_pooling_2d(x, x.shape[2:]),
    lambda x: F.max_pooling_2d(x, x.shape[2:]),
    lambda x: F.max_pooling_2d(x, 2),
    lambda x: F.max_pooling_2d(x, 3, stride=2, pad=1),
    lambda x: F.unpooling_2d(x, 2),
    lambda x: F.unpooling_2d(
        x, 2, outsize=(2 * x.shape[2], 2 * x.shape[3])),
    lambda x: F.resize_images(x, (2 * x.shape[2], 3 * x.shape[3] - 1)),
    lambda x: x[:, :, 1:x.shape[2] - 1, :-2],
    lambda x: F.reshape(x, (len(x), 2, -1)),
    lambda x: F.reshape(x, (len(x), x.shape[2] * 2, x.shape[3])),
    lambda x: F.reshape(x, (len(x), 1, 2, x.shape[2] * x.shape[3])),
    lambda x: x * F.broadcast_to(F.mean(x, (2, 3), keepdims=True), x.shape),
    lambda x: F.pad(x, ((0, 0), (0, 0), (1, 2), (0, 1)), 'reflect'),
    lambda x: F.group_normalization(
        x, 2, numpy.ones(2, 'f'), numpy.zeros(2, 'f')),
    lambda x: F.transpose(F.depth2space(F.concat((x, x)), 2), (0, 1, 3, 2)),
    lambda x: F.repeat(x, 2, axis=3),
    lambda x: F.tile(x, (1, 1, 2, 1)),
    lambda x: F.split_axis(x, [1, x.shape[3] - 1], axis=3)[1],
    lambda x: F.spatial_pyramid_pooling_2d(x, 1, 'max'),
])
def test_sizes_follow(path, forward):
    model = Computed(lambda self, x: forward(chainer.as_variable(x)))
    sl.onnx.export(model, normal(2, 2, 6, 4), path, dynamic_axes=PICTURE)
    check(model, path, (2, 2, 6, 4), (1, 2, 9, 5), (3, 2, 4, 13))


def test_window_as_large_as_the_picture(path):
    """Of this x, by chance: it is not global pooling."""
    model = Computed(lambda self, x: F.average_pooling_2d(x, (6, 4)))
    sl.onnx.export(model, normal(2, 2, 6, 4), path, dynamic_axes=PICTURE)
    check(model, path, (2, 2, 6, 4), (1, 2, 12, 9))


@pytest.mark.parametrize('forward, reason', [
    (lambda x: x * (1 / x.shape[2]), 'a constant of MulConstant_0 depends'),
    (lambda x: F.reshape(x, (len(x), 48)),
     r'the model fails on .*InvalidType'),
    (lambda x: F.broadcast_to(F.sum(x), (x.shape[3] // 2,)),
     'a size in BroadcastTo_0'),
    (lambda x: F.stack([x[:, :, i] for i in range(x.shape[2])]),
     'other functions for other sizes'),
    (lambda x: F.average_pooling_2d(x, (x.shape[2], 2)),
     'a constant of AveragePooling2D_0 depends'),
])
def test_what_freezes_it_is_named(path, forward, reason):
    model = Computed(lambda self, x: forward(chainer.as_variable(x)))
    with pytest.raises(sl.onnx.ExportError, match=(
            "asks for .*'height', 'width', which the file cannot leave free: "
            '.*' + reason)):
        sl.onnx.export(model, normal(2, 2, 6, 4), path, dynamic_axes=PICTURE)
    assert not path.exists()
    # Without it there is a file, of this size.
    sl.onnx.export(model, normal(2, 2, 6, 4), path) if reason[0] == 'a' else 0


def test_batch_that_is_frozen_leaves_the_others_free(path):
    model = Computed(lambda self, x: x * (1 / len(x)) + F.resize_images(
        x, x.shape[2:]))
    with pytest.warns(UserWarning, match='frozen at 2: a constant of Mul'):
        proto = sl.onnx.export(
            model, normal(2, 2, 6, 4), path, dynamic_axes=PICTURE)
    assert axes(proto.graph.input[0]) == [2, 2, 'height', 'width']
    check(model, path, (2, 2, 6, 4), (2, 2, 9, 5))


def test_names(path):
    model = Computed(lambda self, x: (F.mean(x, axis=2), F.sum(x, axis=0)))
    proto = sl.onnx.export(
        model, normal(2, 3, 4), path, output_names=['mean', 'sum'],
        dynamic_axes={'x': {0: 'n', -2: 'k'}, 'mean': {0: 'rows'}})
    assert axes(proto.graph.input[0]) == ['n', 'k', 4]
    assert axes(proto.graph.output[0]) == ['rows', 'k']
    assert axes(proto.graph.output[1]) == ['k', 4]
    proto = sl.onnx.export(
        model, normal(2, 3, 4), path, dynamic_axes={'x': [1]})
    assert axes(proto.graph.input[0]) == ['batch', 'x_dynamic_axes_1', 4]


def test_two_inputs(path):
    """Sequences of two lengths: the rows of one are not those of another."""
    model = Computed(lambda self, a, b: F.matmul(a, b, transb=True))
    proto = sl.onnx.export(
        model, {'a': normal(3, 4), 'b': normal(5, 4)}, path,
        dynamic_axes={'a': {0: 'm'}, 'b': {0: 'n'}})
    assert axes(proto.graph.output[0]) == ['m', 'n']
    a, b = normal(7, 4), normal(2, 4)
    numpy.testing.assert_allclose(
        run(path, a=a, b=b)[0], a @ b.T, rtol=0, atol=1e-5)


def test_one_name_is_one_size(path):
    model = Computed(lambda self, a, b: a + b)
    both = {'a': {1: 'k'}, 'b': {1: 'k'}}
    proto = sl.onnx.export(
        model, {'a': normal(2, 4), 'b': normal(2, 4)}, path,
        dynamic_axes=both)
    assert axes(proto.graph.output[0]) == ['batch', 'k']
    with pytest.raises(ValueError, match=(
            r"'k' must be of one size, and are of 4 \(a, axis 1\), 1 \(b")):
        sl.onnx.export(
            model, {'a': normal(2, 4), 'b': normal(2, 1)}, path,
            dynamic_axes=both)


@pytest.mark.parametrize('given, error, message', [
    ({'z': {0: 'n'}}, ValueError, r"'z', which is neither an input \(x\) nor"
     r' an output \(y\)'),
    ({'x': {2: 'n'}}, ValueError, "axis 2 of 'x', which has 2 axes"),
    ({'y': {-3: 'n'}}, ValueError, "axis -3 of 'y', which has 2 axes"),
    ({'x': 'height'}, TypeError, 'must be a dict or a list, not str'),
    (['x'], TypeError, 'must be a dict such as .*, not list'),
    ({'x': {'0': 'n'}}, TypeError, "an int; for 'x' it has '0': 'n'"),
    ({'x': {0: 1}}, TypeError, "an int; for 'x' it has 0: 1"),
])
def test_what_is_no_axis(path, given, error, message):
    with pytest.raises(error, match=message):
        sl.onnx.export(
            L.Linear(4, 3), normal(2, 4), path, dynamic_axes=given)


@pytest.mark.parametrize('opset', [9, 11, 17, 21])
def test_state_that_begins_with_zeros(path, opset):
    """As many rows of zeros as x has."""
    class Language(chainer.Chain):

        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.embed, self.lstm = L.EmbedID(20, 6), L.LSTM(6, 5)
                self.out = L.Linear(5, 20)

        def forward(self, x):
            self.lstm.reset_state()
            for i in range(x.shape[1]):
                h = self.lstm(self.embed(x[:, i]))
            return self.out(h)

    model = Language()
    x = numpy.arange(6, dtype=numpy.int32).reshape(2, 3)
    proto = sl.onnx.export(model, x, path, opset_version=opset)
    assert axes(proto.graph.output[0]) == ['batch', 20]
    x = numpy.arange(12, dtype=numpy.int32).reshape(4, 3)
    numpy.testing.assert_allclose(
        run(path, x=x)[0], run_chainer(model, x), rtol=0, atol=1e-5)


def test_state_that_an_earlier_run_left(path):
    """It is a constant, and fits one batch size."""
    model = chainer.Sequential(L.LSTM(4, 3))
    model(normal(2, 4))
    before = model[0].c, model[0].h
    x = normal(2, 4)
    with pytest.warns(UserWarning, match='frozen at 2'):
        sl.onnx.export(model, x, path)
    assert (model[0].c, model[0].h) == before
    numpy.testing.assert_allclose(
        run(path, x=x)[0], run_chainer(model, x), rtol=0, atol=1e-5)


def test_attention(path):
    """Sequences of any length, heads split and joined again."""
    class Attention(chainer.Chain):

        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.q, self.k, self.v = (L.Linear(8, 8) for _ in range(3))
                self.norm = L.LayerNormalization(8)

        def forward(self, x):
            B, T, D = x.shape
            q, k, v = (
                F.transpose(F.reshape(
                    link(x, n_batch_axes=2), (B, T, 2, 4)), (0, 2, 1, 3))
                for link in (self.q, self.k, self.v))
            a = F.softmax(F.matmul(q, k, transb=True) / 2, axis=-1)
            h = F.transpose(F.matmul(a, v), (0, 2, 1, 3))
            return F.reshape(
                self.norm(F.reshape(h, (B * T, D))), (B, T, D))

    model = Attention()
    sl.onnx.export(
        model, normal(2, 5, 8), path, dynamic_axes={'x': {1: 'time'}})
    check(model, path, (2, 5, 8), (3, 9, 8), (1, 2, 8))
