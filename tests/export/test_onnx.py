"""A model's ONNX file computes what the model computes, W folded."""
import os
import random
import subprocess
import sys
import textwrap

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shared_linear as sl
from shared_linear import surgery
from shared_linear.onnx import exporter

import chainer  # isort: skip
import chainer.functions as F  # isort: skip
import chainer.links as L  # isort: skip

REASON = 'needs the extra "onnx"'
onnx = pytest.importorskip('onnx', reason=REASON)
onnxruntime = pytest.importorskip('onnxruntime', reason=REASON)

OPSETS = [7, 9, 11, 13, 17, 21]
BATCH_SIZES = [0, 1, 7]


class Computed(chainer.Chain):

    """A chain whose forward is given."""

    def __init__(self, forward, **links):
        super().__init__()
        self._forward = forward
        with self.init_scope():
            for name, link in links.items():
                setattr(self, name, link)

    def forward(self, *args, **kwargs):
        return self._forward(self, *args, **kwargs)


class CNN(chainer.Chain):

    """Convolution, statistics, pooling, and the flattening of a layer."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv = L.Convolution2D(2, 4, 3)
            self.norm = L.BatchNormalization(4)
            self.shared = sl.SharedLinear(4 * 3 * 3, 6, n_tiles=4)
            self.norm2 = L.BatchNormalization(6, use_gamma=False)
            self.out = L.Linear(6, 3)

    def forward(self, x):
        h = F.max_pooling_2d(F.relu(self.norm(self.conv(x))), 2)
        h = F.dropout(F.relu(self.norm2(self.shared(h))))
        return F.softmax(self.out(h))


def normal(*shape, dtype=numpy.float32):
    return numpy.random.normal(size=shape).astype(dtype)


def make_layer(in_size=12, out_size=5, *, n_tiles=3, nobias=False):
    link = sl.SharedLinear(in_size, out_size, nobias=nobias, n_tiles=n_tiles)
    if not nobias:
        link.b.array[...] = normal(out_size)
    return link


def make_cnn():
    model = CNN()
    for norm in model.norm, model.norm2:
        norm.avg_mean[...] = normal(*norm.avg_mean.shape)
        norm.avg_var[...] = normal(*norm.avg_var.shape) ** 2 + .5
    return model


def run(path, **inputs):
    session = onnxruntime.InferenceSession(
        os.fspath(path), providers=['CPUExecutionProvider'])
    return session.run(None, inputs)


def run_chainer(model, *args):
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        return model(*args).array


def check_batch_sizes(model, path, shape, dtype=numpy.float32, atol=1e-5):
    """Runs both at three batch sizes, none of them that of the export."""
    for batch_size in BATCH_SIZES:
        x = normal(batch_size, *shape, dtype=dtype)
        y, = run(path, x=x)
        if batch_size == 0:
            # Some of Chainer's functions take no empty batch.
            expected = run_chainer(model, normal(1, *shape, dtype=dtype))
            assert y.shape == (0, *expected.shape[1:])
            continue
        expected = run_chainer(model, x)
        assert y.dtype == expected.dtype
        numpy.testing.assert_allclose(
            y.astype(float), expected.astype(float), rtol=0, atol=atol)
        assert y.shape == expected.shape


def operators(proto):
    return [node.op_type for node in proto.graph.node]


def array_of(proto, name):
    array, = (a for a in proto.graph.initializer if a.name == name)
    return onnx.numpy_helper.to_array(array)


def axes(value):
    return [d.dim_param or d.dim_value
            for d in value.type.tensor_type.shape.dim]


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'model.onnx'


class TestLayer:

    @pytest.mark.parametrize('opset', OPSETS)
    @pytest.mark.parametrize('nobias', [False, True])
    @pytest.mark.parametrize('n_tiles', [1, 3, 12])
    @pytest.mark.parametrize('method', ['fold', 'tile'])
    def test_outputs(self, path, method, n_tiles, nobias, opset):
        link = make_layer(n_tiles=n_tiles, nobias=nobias)
        model = Computed(
            lambda self, x: sl.shared_linear(
                x, self.l.W, self.l.b, method=method), l=link)
        sl.onnx.export(model, normal(4, 12), path, opset_version=opset)
        check_batch_sizes(model, path, (12,))

        x = normal(7, 12)
        dense = numpy.tile(link.W.array, (1, n_tiles)).astype(numpy.float64)
        expected = x.astype(numpy.float64) @ dense.T
        if not nobias:
            expected += link.b.array
        y, = run(path, x=x)
        numpy.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)

    @pytest.mark.parametrize('opset', OPSETS)
    @pytest.mark.parametrize('nobias', [False, True])
    @pytest.mark.parametrize('method', ['fold', 'tile'])
    def test_weight_is_stored_once_as_it_is(
            self, path, method, nobias, opset):
        link = make_layer(120, 7, n_tiles=10, nobias=nobias)
        model = Computed(
            lambda self, x: sl.shared_linear(
                x, self.l.W, self.l.b, method=method), l=link)
        sl.onnx.export(model, normal(4, 120), path, opset_version=opset)
        proto = onnx.load(path)

        assert operators(proto) == ['Reshape', 'ReduceSum', 'Gemm']
        assert {node.domain for node in proto.graph.node} == {''}
        assert [(o.domain, o.version) for o in proto.opset_import] == [
            ('', opset)]
        W = array_of(proto, 'param_l_W')
        assert W.shape == (7, 12)
        assert W.tobytes() == link.W.array.tobytes()
        others = sum(
            onnx.numpy_helper.to_array(a).size
            for a in proto.graph.initializer if a.name != 'param_l_W')
        # The bias, the shape (0, n_tiles, m), and the axis of the sum.
        assert others == 3 + (opset >= 13) + (
            7 if not nobias else 1 if opset < 11 else 0)
        gemm = proto.graph.node[-1]
        assert gemm.input[1] == 'param_l_W'
        assert [(a.name, a.i) for a in gemm.attribute] == [('transB', 1)]

    def test_one_tile_is_one_product(self, path):
        proto = sl.onnx.export(make_layer(n_tiles=1), normal(2, 12), path)
        assert operators(proto) == ['Gemm']

    def test_file_is_n_times_smaller_than_dense(self, path):
        x = normal(1, 4000)
        sl.onnx.export(L.Linear(4000, 200), x, path)
        dense = path.stat().st_size
        sl.onnx.export(sl.SharedLinear(4000, 200, n_tiles=20), x, path)
        assert dense / path.stat().st_size == pytest.approx(20, rel=.05)

    @pytest.mark.parametrize('opset', OPSETS)
    @pytest.mark.parametrize('nobias', [False, True])
    @pytest.mark.parametrize(
        'dtype, atol', [('e', 4e-3), ('f', 1e-5), ('d', 1e-14)])
    def test_dtypes(self, path, dtype, atol, nobias, opset):
        with chainer.using_config('dtype', numpy.dtype(dtype)):
            model = chainer.Sequential(
                make_layer(12, 6, nobias=nobias), F.relu,
                make_layer(6, 4, n_tiles=2))
        proto = sl.onnx.export(
            model, normal(2, 12, dtype=dtype), path, opset_version=opset)
        check_batch_sizes(model, path, (12,), dtype, atol)
        assert array_of(proto, 'param_0_W').dtype == numpy.dtype(dtype)

    def test_float16_is_added_in_float32(self, path):
        """2048 + 1 is 2048 in float16, and each of the ones would be lost."""
        x = numpy.ones((1, 64), numpy.float16)
        x[0, 0] = 2048
        with chainer.using_config('dtype', numpy.float16):
            link = sl.SharedLinear(64, 1, initialW=1, n_tiles=64)
            fold = Computed(lambda self, x: sl.fold(x, 64))
            for model in link, fold:
                proto = sl.onnx.export(model, x, path)
                # Whatever a runtime does with a sum in float16.
                assert operators(proto).index('Cast') < operators(
                    proto).index('ReduceSum')
                y, = run(path, x=x)
                assert y.dtype == numpy.float16
                assert y.tolist() == [[2112]]

    @pytest.mark.parametrize('dtypes', ['fd', 'df', 'ef', 'fe'])
    def test_mixed_dtypes(self, path, dtypes):
        W = normal(5, 4, dtype=dtypes[1])
        model = Computed(lambda self, x: sl.shared_linear(x, W))
        sl.onnx.export(model, normal(2, 12, dtype=dtypes[0]), path)
        check_batch_sizes(
            model, path, (12,), dtypes[0],
            atol=4e-3 if dtypes[0] == 'e' else 1e-5)

    @pytest.mark.parametrize('opset', OPSETS)
    @pytest.mark.parametrize('n_batch_axes', [1, 2, 3])
    def test_batch_axes(self, path, n_batch_axes, opset):
        sizes = (2, 3, 2)
        in_size = 2 * int(numpy.prod(sizes[n_batch_axes - 1:]))
        link = make_layer(in_size, n_tiles=2)
        model = Computed(
            lambda self, x: self.l(x, n_batch_axes=n_batch_axes), l=link)
        sl.onnx.export(model, normal(4, *sizes, 2), path, opset_version=opset)
        check_batch_sizes(model, path, (*sizes, 2))

    def test_lazy_link_once_it_is_initialized(self, path):
        link = sl.SharedLinear(5, n_tiles=4)
        x = normal(2, 12)
        with pytest.raises(ValueError, match=r'without a value \(/W\)'):
            sl.onnx.export(link, x, path)
        assert link.W.array is None
        link(x)
        sl.onnx.export(link, x, path)
        check_batch_sizes(link, path, (12,))

    def test_link_called_twice(self, path):
        link = make_layer(12, 12)
        model = chainer.Sequential(link, F.relu, link)
        proto = sl.onnx.export(model, normal(2, 12), path)
        check_batch_sizes(model, path, (12,))
        assert sum(
            a.dims == [12, 4] for a in proto.graph.initializer) == 1

    @pytest.mark.parametrize('opset', OPSETS)
    @pytest.mark.parametrize('permute', [
        lambda x, order: x[:, order],
        lambda x, order: F.permutate(x, order, axis=1),
        lambda x, order: F.permutate(x, order, axis=1, inv=True),
    ], ids=['index', 'permutate', 'inverse'])
    def test_permuted_input(self, path, permute, opset):
        order = numpy.random.permutation(12)
        model = Computed(
            lambda self, x: self.l(permute(chainer.as_variable(x), order)),
            l=make_layer())
        proto = sl.onnx.export(model, normal(2, 12), path, opset_version=opset)
        assert operators(proto) == ['Gather', 'Reshape', 'ReduceSum', 'Gemm']
        check_batch_sizes(model, path, (12,))

    @pytest.mark.parametrize('opset', OPSETS)
    @pytest.mark.parametrize('n_tiles', [1, 3])
    @pytest.mark.parametrize('method', ['fold', 'tile'])
    def test_order(self, path, method, n_tiles, opset):
        order = numpy.random.permutation(12)
        W, b = normal(5, 12 // n_tiles), normal(5)
        model = Computed(lambda self, x: sl.shared_linear(
            x, W, b, method=method, order=order))
        proto = sl.onnx.export(model, normal(2, 12), path, opset_version=opset)
        check_batch_sizes(model, path, (12,))
        assert operators(proto) == [
            'Gather', *(['Reshape', 'ReduceSum'] if n_tiles > 1 else []),
            'Gemm']
        x = normal(3, 12)
        y, = run(path, x=x)
        dense = numpy.tile(W, (1, n_tiles)).astype(numpy.float64)
        numpy.testing.assert_allclose(
            y, x[:, order] @ dense.T + b, rtol=0, atol=1e-5)

    def test_order_of_a_link(self, path):
        link = sl.SharedLinear(
            12, 5, n_tiles=3, order=numpy.random.permutation(12))
        proto = sl.onnx.export(link, normal(2, 12), path)
        check_batch_sizes(link, path, (12,))
        assert operators(proto) == ['Gather', 'Reshape', 'ReduceSum', 'Gemm']

    def test_masked_input(self, path):
        mask = numpy.arange(24) % 2 == 0
        model = Computed(
            lambda self, x: self.l(chainer.as_variable(x)[:, mask]),
            l=make_layer())
        sl.onnx.export(model, normal(2, 24), path)
        check_batch_sizes(model, path, (24,))
        model = Computed(lambda self, x: x[numpy.ones((2, 3), bool)])
        with pytest.raises(sl.onnx.ExportError, match='mask of 2 axes'):
            sl.onnx.export(model, normal(2, 3), path)

    @settings(max_examples=25, deadline=None)
    @given(
        n_tiles=st.integers(1, 9), width=st.integers(1, 6),
        out_size=st.integers(1, 6), batch_shape=st.lists(
            st.integers(1, 3), min_size=1, max_size=3),
        nobias=st.booleans(), opset=st.sampled_from(OPSETS))
    def test_any_sizes(
            self, tmp_path_factory, n_tiles, width, out_size, batch_shape,
            nobias, opset):
        path = tmp_path_factory.mktemp('any') / 'model.onnx'
        link = make_layer(
            n_tiles * width, out_size, n_tiles=n_tiles, nobias=nobias)
        model = Computed(
            lambda self, x: self.l(x, n_batch_axes=x.ndim - 1), l=link)
        x = normal(*batch_shape, n_tiles * width)
        sl.onnx.export(model, x, path, opset_version=opset)
        check_batch_sizes(model, path, x.shape[1:])


class TestTiling:

    @pytest.mark.parametrize('opset', OPSETS)
    @pytest.mark.parametrize('dtype', ['e', 'f', 'd'])
    @pytest.mark.parametrize('shape', [(6,), (3, 6), (2, 1, 6)])
    @pytest.mark.parametrize('function', [sl.fold, sl.tile])
    def test_outputs(self, path, function, shape, dtype, opset):
        model = Computed(lambda self, x: function(x, 3))
        proto = sl.onnx.export(
            model, normal(2, *shape, dtype=dtype), path, opset_version=opset)
        check_batch_sizes(
            model, path, shape, dtype, atol=4e-3 if dtype == 'e' else 1e-6)
        if dtype == 'f':
            assert operators(proto) == (
                ['Reshape', 'ReduceSum'] if function is sl.fold else ['Tile'])

    @pytest.mark.parametrize('opset', OPSETS)
    @pytest.mark.parametrize('shape', [(6,), (3, 6)])
    def test_order(self, path, shape, opset):
        order = numpy.random.permutation(6)
        for model, kinds in (
                (Computed(lambda self, x: sl.fold(x, 3, order)),
                 ['Gather', 'Reshape', 'ReduceSum']),
                (Computed(lambda self, x: sl.fold(x, 1, order)), ['Gather']),
                (Computed(lambda self, x: sl.tile(
                    x, 3, numpy.concatenate([order, order + 6, order + 12])
                    .reshape(3, 6).T.ravel())), ['Gather'])):
            proto = sl.onnx.export(
                model, normal(2, *shape), path, opset_version=opset)
            check_batch_sizes(model, path, shape)
            assert operators(proto) == kinds

    @pytest.mark.parametrize('function', [sl.fold, sl.tile])
    def test_of_one_axis(self, path, function):
        """It is no batch: the input's first axis is summed before."""
        model = Computed(lambda self, x: function(F.sum(x, axis=0), 3))
        proto = sl.onnx.export(model, normal(2, 6), path)
        x = normal(7, 6)
        numpy.testing.assert_allclose(
            run(path, x=x)[0], run_chainer(model, x), rtol=0, atol=1e-5)
        assert axes(proto.graph.output[0]) == [
            2 if function is sl.fold else 18]

    def test_one_tile(self, path):
        model = Computed(lambda self, x: sl.fold(x, 1) + sl.tile(x, 1))
        sl.onnx.export(model, normal(2, 6), path)
        check_batch_sizes(model, path, (6,))

    def test_tile_of_chainer_is_another(self, path):
        model = Computed(lambda self, x: F.tile(x, (1, 2)) + sl.tile(x, 2))
        sl.onnx.export(model, normal(2, 6), path)
        check_batch_sizes(model, path, (6,))

    def test_no_columns(self, path):
        model = Computed(lambda self, x: sl.fold(x, 3))
        with pytest.raises(sl.onnx.ExportError, match='no columns'):
            sl.onnx.export(model, normal(2, 0), path)


class TestNetworks:

    @pytest.mark.parametrize('opset', OPSETS)
    def test_mlp(self, path, opset):
        model = chainer.Sequential(
            L.Linear(20, 12), F.relu, make_layer(), F.sigmoid,
            L.BatchNormalization(5), L.Linear(5, 3))
        proto = sl.onnx.export(model, normal(4, 20), path, opset_version=opset)
        check_batch_sizes(model, path, (20,))
        assert axes(proto.graph.input[0]) == ['batch', 20]
        assert axes(proto.graph.output[0]) == ['batch', 3]

    @pytest.mark.parametrize('opset', OPSETS)
    def test_cnn(self, path, opset):
        model = make_cnn()
        sl.onnx.export(model, normal(4, 2, 8, 8), path, opset_version=opset)
        check_batch_sizes(model, path, (2, 8, 8))

    @pytest.mark.parametrize('opset', [7, 8, 11])
    @pytest.mark.parametrize('ksize, stride, pad, cover_all', [
        (2, 2, 0, True), (3, 2, 0, True), (2, 3, 0, True), (3, 2, 1, True),
        (3, 3, 1, False), (3, 2, 0, False), (2, 1, 1, False)])
    def test_max_pooling(self, path, ksize, stride, pad, cover_all, opset):
        model = Computed(lambda self, x: F.max_pooling_2d(
            x, ksize, stride, pad, cover_all))
        sl.onnx.export(model, normal(2, 3, 8, 7), path, opset_version=opset)
        check_batch_sizes(model, path, (3, 8, 7))

    def test_max_pooling_of_nothing_but_padding(self, path):
        model = Computed(lambda self, x: F.max_pooling_2d(x, 2, 3, 1))
        with pytest.raises(sl.onnx.ExportError, match='MaxPoolingND .*wholly'):
            sl.onnx.export(model, normal(2, 3, 8, 8), path)

    @pytest.mark.parametrize('link, shape', [
        (L.Convolution2D(2, 3, 3, dilate=2), (8, 7)),
        (L.Convolution1D(2, 3, 3, stride=4, dilate=2), (9,)),
        (L.Deconvolution2D(2, 3, 4, stride=2, pad=1), (5, 4)),
        (L.Deconvolution1D(2, 3, 4, stride=2, pad=1), (5,)),
        (L.Deconvolution2D(2, 3, 4, stride=2, pad=1, outsize=(11, 9)),
         (5, 4)),
        (L.Deconvolution1D(2, 3, 4, stride=2, pad=1, outsize=(11,)), (5,)),
        (L.Deconvolution1D(2, 3, 3, dilate=2), (5,)),
    ])
    def test_convolutions(self, path, link, shape):
        sl.onnx.export(link, normal(3, 2, *shape), path)
        check_batch_sizes(link, path, (2, *shape))

    def test_file_is_the_same_for_every_batch_size_of_x(self, path):
        model = make_cnn()
        files = set()
        for batch_size in 0, 1, 2, 5:
            sl.onnx.export(model, normal(batch_size, 2, 8, 8), path)
            files.add(path.read_bytes())
        assert len(files) == 1

    def test_returns_what_it_writes(self, path):
        proto = sl.onnx.export(make_cnn(), normal(2, 2, 8, 8), path)
        assert proto == onnx.load(path)
        onnx.checker.check_model(proto, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(
            proto, check_type=True, strict_mode=True, data_prop=True)
        assert inferred.graph.output == proto.graph.output
        # The name reaches every value, past the flattening too.
        assert len(inferred.graph.value_info) == len(proto.graph.node) - 1
        assert {axes(value)[0] for value in inferred.graph.value_info} == {
            'batch'}

    def test_inputs_are_no_parameters(self, path):
        """Else onnxruntime takes them for values that change."""
        proto = sl.onnx.export(make_cnn(), normal(2, 2, 8, 8), path)
        assert [value.name for value in proto.graph.input] == ['x']
        assert [value.name for value in proto.graph.output] == ['y']

    @pytest.mark.parametrize('opset', OPSETS)
    def test_ir_version_is_no_newer_than_the_operators(self, path, opset):
        proto = sl.onnx.export(
            make_layer(), normal(2, 12), path, opset_version=opset)
        assert proto.ir_version == {
            7: 4, 9: 4, 11: 6, 13: 7, 17: 8, 21: 10}[opset]

    def test_unused_layer_is_not_written(self, path):
        model = Computed(
            lambda self, x: self.l(x), l=make_layer(), unused=L.Linear(9, 9))
        proto = sl.onnx.export(model, normal(2, 12), path)
        assert {a.name for a in proto.graph.initializer} == {
            'param_l_W', 'param_l_b', 'SharedLinearFunction_0_const_tiles',
            'SharedLinearFunction_0_const_axes'}

    @pytest.mark.parametrize('forward, shape', [
        (lambda self, x: F.reshape(x, (len(x) * 2, -1)), (6,)),
        (lambda self, x: F.reshape(x, (-1, 3, 2)), (6,)),
        (lambda self, x: x - F.broadcast_to(
            F.mean(x, axis=1, keepdims=True), x.shape), (6,)),
        (lambda self, x: self.scale(x), (6,)),
        (lambda self, x: F.matmul(x, x, transb=True).reshape(
            len(x), 1, len(x)), (6,)),
        (lambda self, x: F.matmul(x, x, transb=True).reshape(
            len(x) * len(x)), (6,)),
        (lambda self, x: F.transpose(x, (1, 0, 2)).reshape(
            3 * len(x), 2), (3, 2)),
        (lambda self, x: x[:len(x), 1:3], (6,)),
        (lambda self, x: F.broadcast_to(F.sum(x), (len(x) + 3, 1)), (6,)),
        (lambda self, x: F.broadcast_to(F.sum(x), (len(x) ** 2, 1)), (6,)),
        (lambda self, x: F.broadcast_to(F.sum(x), (3 * len(x) - 2, 1)), (6,)),
        (lambda self, x: x + numpy.full(x.shape, 2, numpy.float32), (6,)),
        (lambda self, x: F.sum(x), (6,)),
        (lambda self, x: x, (6,)),
        (lambda self, x: F.tile(self.scale.W.reshape(1, 6), (len(x), 1)) * x,
         (6,)),
    ])
    def test_shapes_made_of_the_batch_size(self, path, forward, shape):
        model = Computed(
            lambda self, x: F.identity(forward(self, chainer.as_variable(x))),
            scale=L.Scale(W_shape=(6,), axis=1, bias_term=True))
        sl.onnx.export(model, normal(4, *shape), path)
        for batch_size in 1, 2, 7:
            x = normal(batch_size, *shape)
            numpy.testing.assert_allclose(
                run(path, x=x)[0], run_chainer(model, x), rtol=0, atol=1e-4)

    @pytest.mark.parametrize('forward, reason', [
        (lambda self, x: F.reshape(x, (4, 2, 3)),
         r'frozen at 4: the model fails on 9 rows \(InvalidType: '),
        (lambda self, x: x * (1 / len(x)),
         'frozen at 4: a constant of MulConstant_0 depends on it'),
        (lambda self, x: x + numpy.arange(
            x.size, dtype=numpy.float32).reshape(x.shape),
         'frozen at 4: a constant of Add_0 depends on it'),
        (lambda self, x: F.concat([x[i:i + 1] for i in range(len(x))], 0),
         'frozen at 4: it calls other functions for other sizes'),
        (lambda self, x: F.stack([x] * len(x)),
         'frozen at 4: it calls other functions for other sizes'),
        (lambda self, x: F.concat([x] * len(x)),
         'frozen at 4: it passes more values on'),
        (lambda self, x: F.broadcast_to(F.sum(x), (len(x) ** 3, 1)),
         'frozen at 4: a size in BroadcastTo_0 is no multiple of it'),
        (lambda self, x: F.broadcast_to(F.sum(x), (len(x) // 2, 1)),
         'frozen at 4: a size in BroadcastTo_0 is no multiple of it'),
    ])
    def test_frozen_batch_size_is_told_in_one_line(
            self, path, forward, reason):
        model = Computed(lambda self, x: forward(self, chainer.as_variable(x)))
        x = normal(4, 6)
        with pytest.warns(UserWarning, match=reason) as warnings:
            proto = sl.onnx.export(model, x, path)
        assert len(warnings) == 1
        assert '\n' not in str(warnings[0].message)
        assert warnings[0].filename == __file__
        assert axes(proto.graph.input[0]) == [4, 6]
        numpy.testing.assert_allclose(
            run(path, x=x)[0], run_chainer(model, x), rtol=0, atol=1e-5)

    def test_one_row(self, path):
        """Chainer does not broadcast to one row, and so is asked for two."""
        model = L.Scale(W_shape=(6,), axis=1, bias_term=True)
        sl.onnx.export(model, normal(1, 6), path)
        check_batch_sizes(model, path, (6,))

    def test_one_row_only(self, path):
        model = Computed(lambda self, x: F.reshape(x, (1, 2, 3)))
        with pytest.warns(UserWarning, match='frozen at 1: .* on 2 rows'):
            proto = sl.onnx.export(model, normal(1, 6), path)
        assert axes(proto.graph.input[0]) == [1, 6]

    def test_inputs_of_several_batch_sizes_are_frozen(self, path):
        model = Computed(lambda self, x, y: F.matmul(x, y))
        with pytest.warns(UserWarning, match='not one number of rows'):
            proto = sl.onnx.export(model, (normal(2, 3), normal(3, 4)), path)
        assert axes(proto.graph.output[0]) == [2, 4]

    def test_batch_normalization_over_other_axes(self, path):
        model = Computed(
            lambda self, x: self.norm(x),
            norm=L.BatchNormalization(axis=(0, 1), size=3))
        model.norm.avg_mean[...] = normal(3)
        sl.onnx.export(model, normal(2, 3, 3), path)
        check_batch_sizes(model, path, (3, 3))


class TestNames:

    def test_given(self, path):
        proto = sl.onnx.export(
            make_layer(), normal(2, 12), path,
            input_names=['pixels'], output_names=['scores'])
        y, = run(path, pixels=normal(3, 12))
        assert y.shape == (3, 5)
        assert proto.graph.output[0].name == 'scores'

    @pytest.mark.parametrize('kind', [tuple, list])
    def test_several(self, path, kind):
        model = Computed(
            lambda self, a, b: kind([self.l(a) + self.l(b), a, a, self.l.W]),
            l=make_layer())
        a, b = normal(2, 12), normal(2, 12)
        sl.onnx.export(model, kind([a, chainer.Variable(b)]), path)
        a, b = chainer.Variable(normal(3, 12)), chainer.Variable(normal(3, 12))
        outputs = run(path, x_0=a.array, x_1=b.array)
        for y, expected in zip(outputs, model(a, b), strict=True):
            numpy.testing.assert_allclose(y, expected.array, atol=1e-5)

    def test_keys(self, path):
        model = Computed(
            lambda self, left, right: {
                'sum': self.l(left) + self.l(right), 'left': self.l(left)},
            l=make_layer())
        a, b = normal(2, 12), normal(2, 12)
        proto = sl.onnx.export(model, {'right': b, 'left': a}, path)
        assert [v.name for v in proto.graph.input] == ['right', 'left']
        assert [v.name for v in proto.graph.output] == ['sum', 'left_out']
        y, left = run(path, left=a, right=b)
        numpy.testing.assert_allclose(left, model.l(a).array, atol=1e-5)
        numpy.testing.assert_allclose(
            y, model.l(a).array + model.l(b).array, atol=1e-5)

    def test_arrays_that_are_no_parameters(self, path):
        """In the order of their use, in every process."""
        arrays = [normal(12) for _ in range(5)]

        def forward(self, x):
            for array in arrays:
                x = x + array
            return x

        proto = sl.onnx.export(Computed(forward), normal(2, 12), path)
        assert [a.name for a in proto.graph.initializer] == [
            'array_{}'.format(i) for i in range(5)]
        for i, array in enumerate(arrays):
            assert (array_of(proto, 'array_{}'.format(i)) == array).all()


class TestEditedNetworks:

    """Networks that surgery has changed, from the first run after it."""

    @pytest.fixture
    def model(self):
        model = Computed(
            lambda self, x: self.l3(F.relu(self.l2(F.relu(
                self.norm(self.l1(x)))))),
            l1=L.Linear(20, 12), norm=L.BatchNormalization(12),
            l2=make_layer(12, 12), l3=L.Linear(12, 5))
        model.norm.avg_mean[...] = normal(12)
        model.norm.avg_var[...] = normal(12) ** 2 + .5
        return model

    def check(self, model, path, expected_operators, opset=None):
        proto = sl.onnx.export(
            model, normal(2, 20), path, opset_version=opset)
        assert operators(proto) == expected_operators
        check_batch_sizes(model, path, (20,))
        # The edits have outlived the export.
        proto = sl.onnx.export(
            model, normal(2, 20), path, opset_version=opset)
        assert operators(proto) == expected_operators

    @pytest.mark.parametrize('opset', OPSETS)
    def test_folded_batch_normalization(self, path, model, opset):
        x = normal(7, 20)
        expected = run_chainer(model, x)
        sl.onnx.export(model, x, path, opset_version=opset)
        before = path.stat().st_size
        report = surgery.fold_batch_normalization(model, normal(2, 20))
        assert len(report.folded) == 1
        self.check(model, path, [
            'Gemm', 'Relu', 'Reshape', 'ReduceSum', 'Gemm', 'Relu', 'Gemm'],
            opset)
        numpy.testing.assert_allclose(
            run(path, x=x)[0], expected, rtol=0, atol=1e-5)
        assert path.stat().st_size < before

    def test_insert(self, path, model):
        surgery.insert_after(model, '/ReLU', sl.SharedLinear(
            12, 12, n_tiles=2))
        self.check(model, path, [
            'Gemm', 'BatchNormalization', 'Relu', 'Reshape', 'ReduceSum',
            'Gemm', 'Reshape', 'ReduceSum', 'Gemm', 'Relu', 'Gemm'])

    def test_replace(self, path, model):
        surgery.replace(model, '/l2', sl.SharedLinear(12, 12, n_tiles=6))
        self.check(model, path, [
            'Gemm', 'BatchNormalization', 'Relu', 'Reshape', 'ReduceSum',
            'Gemm', 'Relu', 'Gemm'])
        # The layer that no longer runs is not written.
        W, = (a for a in onnx.load(path).graph.initializer
              if a.dims in ([12, 4], [12, 2]))
        assert W.dims == [12, 2]

    def test_remove(self, path, model):
        surgery.remove(model, '/ReLU_1')
        self.check(model, path, [
            'Gemm', 'BatchNormalization', 'Relu', 'Reshape', 'ReduceSum',
            'Gemm', 'Gemm'])

    def test_rewire(self, path, model):
        surgery.rewire(model, '/l3', source='/ReLU')
        self.check(
            model, path, ['Gemm', 'BatchNormalization', 'Relu', 'Gemm'])

    def test_quantize(self, path, model):
        surgery.quantize(model, normal(50, 20))
        proto = sl.onnx.export(model, normal(2, 20), path)
        assert operators(proto).count('QuantizeLinear') == 2
        assert operators(proto).count('DequantizeLinear') == 5
        for batch_size in 1, 7:
            x = normal(batch_size, 20)
            y, expected = run(path, x=x)[0], run_chainer(model, x)
            # A sum that is rounded otherwise may end on the next integer.
            assert numpy.isclose(y, expected, rtol=0, atol=1e-5).mean() > .9
            numpy.testing.assert_allclose(y, expected, rtol=0, atol=.2)
        with pytest.raises(sl.onnx.ExportError, match=(
                'FakeQuantizeFunction has no form in ONNX opset 9: rounding '
                'begins with opset 11; a newer opset_version may')):
            sl.onnx.export(model, normal(2, 20), path, opset_version=9)


class TestNothingChanges:

    def test_weights_gradients_and_statistics(self, path):
        model = make_cnn()
        model.cleargrads()
        for param in model.params():
            param.grad = normal(*param.shape)
        arrays = [
            array for link in model.links()
            for array in (*link.__dict__.values(), *(
                p.grad for p in link.params()), *(
                p.array for p in link.params()))
            if isinstance(array, numpy.ndarray)]
        assert len(arrays) > 20
        before = [array.tobytes() for array in arrays]
        state = [dict(link.__dict__) for link in model.links()]
        sl.onnx.export(model, normal(2, 2, 8, 8), path)
        assert [array.tobytes() for array in arrays] == before
        assert [dict(link.__dict__) for link in model.links()] == state

    @pytest.mark.parametrize('train', [True, False])
    def test_train_mode(self, path, train):
        """The model runs in test mode, and the user's stays."""
        seen = []

        def forward(self, x):
            seen.append(chainer.config.train)
            return F.dropout(self.norm(self.l(x)))

        model = Computed(forward, l=make_layer(), norm=L.BatchNormalization(5))
        with chainer.using_config('train', train):
            sl.onnx.export(model, normal(2, 12), path)
            assert chainer.config.train is train
        assert set(seen) == {False}
        assert model.norm.N == 0
        assert not model.norm.avg_mean.any()
        check_batch_sizes(model, path, (12,))

    def test_random_state(self, path):
        def forward(self, x):
            random.random()
            return self.l(x) * numpy.random.normal()

        model = Computed(forward, l=make_layer())
        python_state, state = random.getstate(), numpy.random.get_state()[1:3]
        # Both runs draw the same numbers too, or the batch size is frozen.
        sl.onnx.export(model, normal(0, 12), path, check=False)
        assert random.getstate() == python_state
        assert numpy.array_equal(numpy.random.get_state()[1], state[0])
        assert numpy.random.get_state()[2] == state[1]

    def test_state_of_a_recurrent_model(self, path):
        """Neither after the export, nor from its first run to its second."""
        def forward(self, x):
            h = self.l(x)
            self.h = h if self.h is None else self.h + h
            self.seen += 1
            return self.h

        model = Computed(forward, l=make_layer())
        model.h = None
        with model.init_scope():
            model.add_persistent('seen', numpy.zeros(1))
        sl.onnx.export(model, normal(2, 12), path)
        assert model.h is None
        assert model.seen == 0

    def test_x(self, path):
        x = normal(2, 12)
        before = x.copy()

        def forward(self, x):
            x.array[...] *= 2
            return self.l(x)

        inputs = [x]
        sl.onnx.export(
            Computed(forward, l=make_layer()), inputs, path, check=False)
        assert (x == before).all()
        assert inputs[0] is x
        variable = chainer.Variable(x)
        sl.onnx.export(make_layer(), variable, path)
        assert variable.grad is None

    @pytest.mark.parametrize('fails', [False, True])
    def test_modules(self, path, fails):
        sl.onnx.export(make_layer(), normal(2, 12), path)
        import onnx_chainer.graph
        def state():
            return [
                chainer.FunctionNode.apply,
                onnx_chainer.graph.Graph.create_node,
                sys.modules['onnx_chainer.export'].check_onnx_model,
                chainer.disable_experimental_feature_warning,
                F.sign, 'onnx.mapping' in sys.modules,
                vars(onnx).get('mapping')]

        before = state()
        model = Computed(
            lambda self, x: F.cumprod(x, 1) if fails else F.relu(x))
        if fails:
            with pytest.raises(sl.onnx.ExportError):
                sl.onnx.export(model, normal(2, 3), path)
        else:
            sl.onnx.export(model, normal(2, 3), path)
        assert state() == before
        # An old onnx has a module of that name, from a file.
        for mapping in vars(onnx).get('mapping'), sys.modules.get(
                'onnx.mapping'):
            assert mapping is None or mapping.__file__


class Fold(chainer.FunctionNode):

    """Has the name of a function of the package, and is another."""

    def forward(self, inputs):
        return inputs


class TestErrors:

    def test_unknown_function(self, path):
        model = Computed(
            lambda self, x: self.l(F.cumprod(x, 1)), l=make_layer())
        with pytest.raises(sl.onnx.ExportError, match=(
                r'calls chainer\.functions\.math\.cumprod\.Cumprod, .* pass '
                r"converters={'Cumprod': converter}")):
            sl.onnx.export(model, normal(2, 12), path)
        assert not path.exists()

    def test_unknown_function_with_a_converter_of_the_user(self, path):
        def convert(params):
            axis = params.context.add_const(
                numpy.array(params.func.axis), 'axis')
            return onnx.helper.make_node(
                'CumSum', [*params.input_names, axis], params.output_names),

        model = Computed(
            lambda self, x: self.l(F.cumsum(x, 1)), l=make_layer())
        sl.onnx.export(
            model, normal(2, 12), path, converters={'Cumsum': convert})
        check_batch_sizes(model, path, (12,))

    def test_function_of_the_same_name(self, path):
        model = Computed(lambda self, x: Fold().apply((x,))[0])
        with pytest.raises(
                sl.onnx.ExportError, match=r'calls .*test_onnx\.Fold, '):
            sl.onnx.export(model, normal(2, 12), path)

    def test_function_that_the_opset_has_not_got(self, path):
        model = Computed(lambda self, x: F.broadcast_to(F.sum(x), (2, 2)))
        with pytest.raises(sl.onnx.ExportError, match=(
                r'BroadcastTo has no form in ONNX opset 7: Expand .* newer '
                'opset_version')):
            sl.onnx.export(model, normal(2, 12), path, opset_version=7)
        with pytest.raises(sl.onnx.ExportError, match=(
                r'Pad .* 11: the mode [^;]*; it has [^;]*$')):
            sl.onnx.export(
                Computed(lambda self, x: F.pad(x, 1, 'symmetric')),
                normal(2, 2), path, opset_version=11)

    def test_array_that_is_not_written(self, path):
        model = Computed(lambda self, x: F.where(x.array > 0, x, -x))
        with pytest.raises(sl.onnx.ExportError, match=(
                'Where_0 takes numbers that are drawn at random, or computed '
                'from x outside')):
            sl.onnx.export(model, normal(2, 12), path)

    def test_converter_that_writes_no_valid_onnx(self, path):
        def convert(params):
            return onnx.helper.make_node(
                'NoSuchOperator', params.input_names, params.output_names),

        with pytest.raises(sl.onnx.ExportError, match='NoSuchOperator'):
            sl.onnx.export(
                make_layer(), normal(2, 12), path,
                converters={'SharedLinearFunction': convert})
        assert not path.exists()

    @pytest.mark.parametrize('version', [6, 1000, 0, -1])
    def test_opset_version_out_of_range(self, path, version):
        with pytest.raises(
                ValueError, match='from 7 to .*, not {}'.format(version)):
            sl.onnx.export(
                make_layer(), normal(2, 12), path, opset_version=version)

    @pytest.mark.parametrize('version', ['11', 11., True])
    def test_opset_version_of_another_type(self, path, version):
        with pytest.raises(TypeError, match='from 7 to .*, not '):
            sl.onnx.export(
                make_layer(), normal(2, 12), path, opset_version=version)

    @pytest.mark.parametrize('x, name', [
        (None, 'NoneType'), ('image', 'str'), ([[1., 2.]], 'list'),
        ((normal(2, 12), 3), 'int')])
    def test_x_of_another_type(self, path, x, name):
        with pytest.raises(TypeError, match='x must be .* not ' + name):
            sl.onnx.export(make_layer(), x, path)

    @pytest.mark.parametrize('x', [(), [], {}])
    def test_no_x(self, path, x):
        with pytest.raises(ValueError, match='x is empty'):
            sl.onnx.export(make_layer(), x, path)

    def test_x_that_does_not_fit(self, path):
        with pytest.raises(
                chainer.utils.type_check.InvalidType, match='x.shape'):
            sl.onnx.export(make_layer(), normal(2, 11), path)

    @pytest.mark.parametrize('model', [None, F.relu, 'model'])
    def test_model_of_another_type(self, path, model):
        with pytest.raises(TypeError, match='model must be a chainer.Link'):
            sl.onnx.export(model, normal(2, 12), path)

    @pytest.mark.parametrize('result, message', [
        (None, 'returns NoneType'), (normal(2), 'returns ndarray'),
        ((), 'no output')])
    def test_model_that_returns_something_else(self, path, result, message):
        with pytest.raises(sl.onnx.ExportError, match=message):
            sl.onnx.export(
                Computed(lambda self, x: result), normal(2, 12), path)

    def test_output_that_functions_have_not_made(self, path):
        model = Computed(lambda self, x: chainer.Variable(x.array * 2))
        with pytest.raises(sl.onnx.ExportError, match='output y is made outs'):
            sl.onnx.export(model, normal(2, 12), path)

    def test_too_many_names(self, path):
        with pytest.raises(ValueError, match='2 input_names for 1 inputs'):
            sl.onnx.export(
                make_layer(), normal(2, 12), path, input_names=['a', 'b'])
        with pytest.raises(ValueError, match='2 output_names for the 1 '):
            sl.onnx.export(
                make_layer(), normal(2, 12), path, output_names=['a', 'b'])

    @pytest.mark.parametrize('names', [
        {'output_names': ['x']},
        {'input_names': ['a'], 'output_names': ['a']}])
    def test_names_that_are_the_same(self, path, names):
        with pytest.raises(ValueError, match='names .* must differ'):
            sl.onnx.export(
                make_layer(), normal(2, 12), path, **names)

    def test_model_that_one_file_cannot_hold(self, path, monkeypatch):
        monkeypatch.setattr(exporter, 'MAX_BYTES', 90)
        with pytest.raises(sl.onnx.ExportError, match=(
                'take 132 bytes, and one ONNX file holds 90')):
            sl.onnx.export(make_layer(), normal(2, 12), path)
        assert not path.exists()

    def test_without_onnx(self, path, monkeypatch):
        monkeypatch.setitem(sys.modules, 'onnx', None)
        with pytest.raises(ImportError, match=(
                r'pip install "shared_linear\[onnx\]", or pip install '
                r'"\.\[onnx\]"')) as error:
            sl.onnx.export(make_layer(), normal(2, 12), path)
        assert '\n' not in str(error.value)

    def test_onnx_that_is_broken_is_not_called_missing(
            self, path, monkeypatch, tmp_path):
        package = tmp_path / 'onnx'
        package.mkdir()
        (package / '__init__.py').write_text('import no_such_protobuf')
        for name in [m for m in sys.modules
                     if m.partition('.')[0] == 'onnx']:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(ModuleNotFoundError, match='no_such_protobuf'):
            sl.onnx.export(make_layer(), normal(2, 12), path)


class TestFile:

    @pytest.mark.parametrize('make', [os.fspath, os.fsencode, lambda p: p])
    def test_kinds_of_names(self, path, make):
        sl.onnx.export(make_layer(), normal(2, 12), make(path))
        y, = run(path, x=normal(3, 12))
        assert y.shape == (3, 5)

    def test_nothing_is_left_beside_it(self, path):
        sl.onnx.export(make_layer(), normal(2, 12), path)
        assert os.listdir(path.parent) == [path.name]

    def test_mode_is_that_of_any_new_file(self, path):
        sl.onnx.export(make_layer(), normal(2, 12), path)
        other = path.with_name('other')
        other.touch()
        assert path.stat().st_mode == other.stat().st_mode

    def test_link_to_a_file_stays_one(self, path):
        target = path.with_name('target')
        path.symlink_to(target)
        sl.onnx.export(make_layer(), normal(2, 12), path)
        assert path.is_symlink()
        assert onnx.load(target).graph.node

    @pytest.mark.parametrize('at', ['write', 'fsync', 'replace'])
    def test_full_disk_keeps_the_old_file(self, path, monkeypatch, at):
        path.write_bytes(b'old')

        def fail(*args, **kwargs):
            raise OSError(28, 'No space left on device', 'another name')

        if at == 'write':
            real_open = open

            def open_full(*args, **kwargs):
                file = real_open(*args, **kwargs)
                file.write(b'half')
                file.close()
                fail()

            monkeypatch.setattr('builtins.open', open_full)
        else:
            monkeypatch.setattr(os, at, fail)
        with pytest.raises(OSError, match='No space left') as error:
            sl.onnx.export(make_layer(), normal(2, 12), path)
        assert error.value.filename == str(path)
        monkeypatch.undo()
        assert path.read_bytes() == b'old'
        assert os.listdir(path.parent) == [path.name]

    def test_model_that_fails_keeps_the_old_file(self, path):
        path.write_bytes(b'old')
        with pytest.raises(sl.onnx.ExportError):
            sl.onnx.export(
                Computed(lambda self, x: F.cumprod(x, 1)), normal(2, 12), path)
        assert path.read_bytes() == b'old'

    def test_folder_that_is_not_there(self, path):
        path = path / 'model.onnx'
        with pytest.raises(FileNotFoundError) as error:
            sl.onnx.export(make_layer(), normal(2, 12), path)
        assert error.value.filename == str(path)

    def test_folder_of_that_name(self, path):
        path.mkdir()
        with pytest.raises(IsADirectoryError) as error:
            sl.onnx.export(make_layer(), normal(2, 12), path)
        assert error.value.filename == str(path)
        assert os.listdir(path.parent) == [path.name]


def run_python(code, *options):
    return subprocess.run(
        [sys.executable, *options, '-c', textwrap.dedent(code)],
        check=True, capture_output=True, text=True).stdout.split()


class TestImport:

    def test_package_does_not_import_onnx(self):
        assert run_python("""
            import sys
            sys.modules['onnx'] = sys.modules['onnxruntime'] = None
            import shared_linear as sl
            from shared_linear import onnx
            assert sl.onnx is onnx
            print(sl.onnx.export.__name__, 'onnx_chainer' in sys.modules)
            """, '-W', 'error') == ['export', 'False']

    def test_exporter_that_was_imported_before(self, path):
        """It has then concluded that onnx is not installed."""
        assert run_python("""
            import numpy
            import shared_linear as sl
            import onnx_chainer
            print(onnx_chainer.export.__module__)
            x = numpy.zeros((2, 4), numpy.float32)
            sl.onnx.export(sl.SharedLinear(4, 3, n_tiles=2), x, {!r})
            """.format(str(path))) == ['onnx_chainer.export']
        assert run(path, x=normal(3, 4))[0].shape == (3, 3)
