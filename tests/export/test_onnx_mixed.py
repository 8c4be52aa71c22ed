"""Mixed sharing in ONNX: the file computes the definition, W stored once."""
import numpy
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from test_onnx import (
    BATCH_SIZES,
    OPSETS,
    Computed,
    array_of,
    axes,
    normal,
    operators,
    run,
)

import shared_linear as sl
from shared_linear import surgery

import chainer  # isort: skip
import chainer.functions as F  # isort: skip
import chainer.links as L  # isort: skip
import onnx  # isort: skip

FOLD = ['Transpose', 'Neg', 'Concat', 'Gather']
BLOCKS = ['MatMul', 'Transpose', 'Reshape']


def make_layer(
        in_size=12, out_size=6, *, n_tiles=3, n_blocks=2, seed=5,
        nobias=False, order=None, dtype='f'):
    with chainer.using_config('dtype', numpy.dtype(dtype)):
        link = sl.MixedLinear(
            in_size, out_size, nobias, n_tiles=n_tiles, n_blocks=n_blocks,
            seed=seed, order=order)
    if not nobias:
        link.b.array[...] = normal(out_size)
    return link


def expected(link, x, n_batch_axes=1):
    """The definition in float64."""
    mixing = {'n_tiles': link.n_tiles, 'n_blocks': link.n_blocks,
              'seed': link.seed, 'order': link.order}
    return reference.mixed_linear(
        x, link.W.array, None if link.b is None else link.b.array, mixing,
        n_batch_axes)


def check(link, path, shape=(12,), dtype='f', atol=1e-5, n_batch_axes=1):
    """Runs the file at three batch sizes, none of them that of the export."""
    for batch_size in BATCH_SIZES:
        x = normal(batch_size, *shape, dtype=dtype)
        y, = run(path, x=x)
        z = expected(link, x, n_batch_axes)
        assert (y.shape, y.dtype) == (z.shape, numpy.dtype(dtype))
        numpy.testing.assert_allclose(
            y.astype(float), z, rtol=0, atol=atol)


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'model.onnx'


@pytest.mark.parametrize('opset', OPSETS)
@pytest.mark.parametrize('nobias', [False, True])
@pytest.mark.parametrize('n_blocks', [1, 2, 6])
@pytest.mark.parametrize('n_tiles', [1, 3, 12])
def test_outputs(path, n_tiles, n_blocks, nobias, opset):
    link = make_layer(n_tiles=n_tiles, n_blocks=n_blocks, nobias=nobias)
    proto = sl.onnx.export(link, normal(4, 12), path, opset_version=opset)
    onnx.checker.check_model(proto, full_check=True)
    check(link, path)
    assert operators(proto) == [
        *FOLD, *(['ReduceSum'] if n_tiles > 1 else []),
        *(['Gemm'] if n_blocks == 1 else
          BLOCKS if nobias else [*BLOCKS, 'Add'])]
    assert {node.domain for node in proto.graph.node} == {''}


@pytest.mark.parametrize('opset', OPSETS)
@pytest.mark.parametrize('n_blocks', [1, 3])
@pytest.mark.parametrize('n_tiles', [1, 3])
def test_order_of_the_first_block(path, n_tiles, n_blocks, opset):
    link = make_layer(
        n_tiles=n_tiles, n_blocks=n_blocks,
        order=numpy.random.permutation(12))
    proto = sl.onnx.export(link, normal(4, 12), path, opset_version=opset)
    check(link, path)
    if n_blocks == 1:  # All signs are positive.
        assert operators(proto) == [
            'Transpose', 'Gather', *(['ReduceSum'] if n_tiles > 1 else []),
            'Gemm']


@pytest.mark.parametrize('opset', OPSETS)
@pytest.mark.parametrize('nobias', [False, True])
def test_weight_is_stored_once_as_it_is(path, nobias, opset):
    link = make_layer(120, 80, n_tiles=10, n_blocks=8, nobias=nobias)
    sl.onnx.export(link, normal(4, 120), path, opset_version=opset)
    proto = onnx.load(path)
    W = array_of(proto, 'param_W')
    assert W.shape == (10, 12)
    assert W.tobytes() == link.W.array.tobytes()
    rows = array_of(proto, 'MixedLinearFunction_0_const_rows')
    assert (rows.dtype, rows.shape) == (numpy.int32, (8, 10, 12))
    others = {
        a.name: list(a.dims) for a in proto.graph.initializer
        if a.name not in ('param_W', 'MixedLinearFunction_0_const_rows')}
    assert others == {
        'MixedLinearFunction_0_const_blocks': [2],
        **({'MixedLinearFunction_0_const_axes': [1]} if opset >= 13 else {}),
        **({} if nobias else {'param_b': [80]})}


@pytest.mark.parametrize('n_blocks', [1, 2])
@pytest.mark.parametrize('opset', OPSETS)
@pytest.mark.parametrize('nobias', [False, True])
@pytest.mark.parametrize(
    'dtype, atol', [('e', 4e-3), ('f', 1e-5), ('d', 1e-14)])
def test_dtypes(path, dtype, atol, nobias, opset, n_blocks):
    link = make_layer(nobias=nobias, dtype=dtype, n_blocks=n_blocks)
    proto = sl.onnx.export(
        link, normal(2, 12, dtype=dtype), path, opset_version=opset)
    check(link, path, dtype=dtype, atol=atol)
    assert array_of(proto, 'param_W').dtype == numpy.dtype(dtype)


@pytest.mark.parametrize('n_blocks', [1, 2])
def test_float16_is_added_in_float32(path, n_blocks):
    """2048 + 1 is 2048 in float16, and each of the ones would be lost."""
    link = make_layer(
        64, 2, n_tiles=64, n_blocks=n_blocks, nobias=True, dtype='e')
    link.W.array[...] = 1
    x = numpy.ones((1, 64), 'e')
    x[0, 0] = 2048
    sl.onnx.export(link, x, path)
    numpy.testing.assert_array_equal(
        run(path, x=x)[0], expected(link, x).astype('e'))


@pytest.mark.parametrize('n_blocks', [1, 2])
@pytest.mark.parametrize('dtypes', ['fd', 'df', 'ef', 'fe'])
def test_mixed_dtypes(path, dtypes, n_blocks):
    link = make_layer(nobias=True, n_blocks=n_blocks, dtype=dtypes[1])
    sl.onnx.export(link, normal(2, 12, dtype=dtypes[0]), path)
    check(link, path, dtype=dtypes[0],
          atol=4e-3 if dtypes[0] == 'e' else 1e-5)


@pytest.mark.parametrize('opset', OPSETS)
@pytest.mark.parametrize('n_batch_axes', [1, 2, 3])
def test_batch_axes(path, n_batch_axes, opset):
    sizes = (2, 3, 2)
    in_size = 2 * int(numpy.prod(sizes[n_batch_axes - 1:]))
    link = make_layer(in_size, n_tiles=2)
    model = Computed(
        lambda self, x: self.l(x, n_batch_axes=n_batch_axes), l=link)
    sl.onnx.export(model, normal(4, *sizes, 2), path, opset_version=opset)
    check(link, path, (*sizes, 2), n_batch_axes=n_batch_axes)


def test_file_is_the_same_for_every_batch_size_of_x(path):
    link, files = make_layer(), set()
    for batch_size in 0, 1, 2, 5:
        sl.onnx.export(link, normal(batch_size, 12), path)
        files.add(path.read_bytes())
    assert len(files) == 1


def test_the_name_of_the_batch_axis_reaches_every_value(path):
    model = chainer.Sequential(make_layer(), F.relu, make_layer(6, 4))
    proto = sl.onnx.export(model, normal(3, 12), path)
    assert axes(proto.graph.input[0]) == ['batch', 12]
    assert axes(proto.graph.output[0]) == ['batch', 4]
    inferred = onnx.shape_inference.infer_shapes(
        proto, check_type=True, strict_mode=True, data_prop=True)
    assert len(inferred.graph.value_info) == len(proto.graph.node) - 1
    for value in inferred.graph.value_info:
        assert axes(value).count('batch') == 1, value


def test_a_convolution_before(path):
    class CNN(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.conv = L.Convolution2D(2, 4, 3)
                self.mixed = make_layer(4 * 3 * 3, 6, n_tiles=4, n_blocks=3)
                self.out = L.Linear(6, 3)

        def forward(self, x):
            h = F.max_pooling_2d(F.relu(self.conv(x)), 2)
            return F.softmax(self.out(F.relu(self.mixed(h))))

    model = CNN()
    sl.onnx.export(model, normal(4, 2, 8, 8), path)
    for batch_size in 1, 7:
        x = normal(batch_size, 2, 8, 8)
        h = F.max_pooling_2d(F.relu(model.conv(x)), 2).array
        h = numpy.maximum(expected(model.mixed, h), 0).astype('f')
        numpy.testing.assert_allclose(
            run(path, x=x)[0], F.softmax(model.out(h)).array, atol=1e-5)


def test_layers_of_two_seeds_beside_each_other(path):
    a, b = make_layer(seed=1), make_layer(seed=2)
    model = Computed(lambda self, x: (self.a(x), self.b(x)), a=a, b=b)
    proto = sl.onnx.export(model, normal(2, 12), path)
    x = normal(3, 12)
    for y, link in zip(run(path, x=x), (a, b), strict=True):
        numpy.testing.assert_allclose(y, expected(link, x), atol=1e-5)
    rows = [array_of(
        proto, 'MixedLinearFunction_{}_const_rows'.format(i)) for i in (0, 1)]
    assert (rows[0] != rows[1]).any()


def test_layer_called_twice(path):
    link = make_layer(12, 12)
    proto = sl.onnx.export(
        chainer.Sequential(link, F.relu, link), normal(2, 12), path)
    assert sum(a.dims == [6, 4] for a in proto.graph.initializer) == 1
    x = normal(3, 12)
    h = numpy.maximum(expected(link, x), 0)
    numpy.testing.assert_allclose(
        run(path, x=x)[0], expected(link, h), atol=1e-5)


def test_edited_networks(path):
    model = chainer.Sequential(make_layer(12, 12), F.relu, L.Linear(12, 3))
    surgery.insert_after(model, '/ReLU', make_layer(12, 12, seed=8))
    surgery.replace(model, '/0', make_layer(12, 12, n_tiles=2))
    sl.onnx.export(model, normal(2, 12), path)
    x = normal(3, 12)
    with chainer.no_backprop_mode():
        y = model(x).array
    numpy.testing.assert_allclose(run(path, x=x)[0], y, atol=1e-5)


def test_quantized(path):
    model = chainer.Sequential(make_layer(12, 12), F.relu, make_layer(12, 4))
    surgery.quantize(model, normal(50, 12))
    proto = sl.onnx.export(model, normal(2, 12), path)
    assert operators(proto).count('DequantizeLinear') == 3
    x = normal(7, 12)
    with chainer.using_config('train', False):
        y = model(x).array
    # A sum that is rounded otherwise may end on the next integer.
    z, = run(path, x=x)
    assert numpy.isclose(y, z, rtol=0, atol=1e-5).mean() > .9
    numpy.testing.assert_allclose(z, y, rtol=0, atol=.2)


def test_an_export_changes_nothing(path):
    link = make_layer()
    before = [p.array.tobytes() for p in link.params()], dict(vars(link))
    sl.onnx.export(link, normal(2, 12), path)
    assert ([p.array.tobytes() for p in link.params()],
            dict(vars(link))) == before


def test_weight_of_no_elements(path):
    W = numpy.empty((3, 0), 'f')
    model = Computed(
        lambda self, x: sl.mixed_linear(x, W, n_tiles=2, n_blocks=2))
    with pytest.raises(sl.onnx.ExportError, match=(
            'MixedLinearFunction has no form .* weight of no elements')):
        sl.onnx.export(model, normal(2, 0), path)


@settings(max_examples=25, deadline=None)
@given(
    n_tiles=st.integers(1, 5), width=st.integers(1, 4),
    n_blocks=st.integers(1, 5), height=st.integers(1, 4),
    batch_shape=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    nobias=st.booleans(), opset=st.sampled_from(OPSETS),
    seed=st.integers(0, 2 ** 32 - 1))
def test_any_sizes(
        tmp_path_factory, n_tiles, width, n_blocks, height, batch_shape,
        nobias, opset, seed):
    path = tmp_path_factory.mktemp('any') / 'model.onnx'
    link = make_layer(
        n_tiles * width, n_blocks * height, n_tiles=n_tiles,
        n_blocks=n_blocks, nobias=nobias, seed=seed)
    model = Computed(
        lambda self, x: self.l(x, n_batch_axes=x.ndim - 1), l=link)
    x = normal(*batch_shape, n_tiles * width)
    sl.onnx.export(model, x, path, opset_version=opset)
    check(link, path, x.shape[1:], n_batch_axes=x.ndim - 1)
