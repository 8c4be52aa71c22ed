"""A layer of low rank in ONNX: two small products, each weight stored once."""
import numpy
import pytest
from test_onnx import BATCH_SIZES, OPSETS, normal, operators, run

import shared_linear as sl

import chainer  # isort: skip
import onnx  # isort: skip


def make_layer(nobias=False, dtype='f', **sharing):
    with chainer.using_config('dtype', numpy.dtype(dtype)):
        link = sl.LowRankLinear(12, 6, nobias, rank=2, **sharing)
    if not nobias:
        link.b.array[...] = normal(6)
    return link


def expected(link, x):
    """The definition in float64."""
    x = x.astype(float)
    if link.order is not None:
        x = x[..., link.order]
    z = x.reshape(*x.shape[:-1], link.n_tiles, 12 // link.n_tiles).sum(-2)
    B, A = (p.array.astype(float) for p in (link.B, link.A))
    y = z @ A.T @ B.T
    return y if link.b is None else y + link.b.array


@pytest.mark.parametrize('opset', OPSETS)
@pytest.mark.parametrize('nobias', [False, True])
@pytest.mark.parametrize('sharing, first', [
    ({}, []),
    ({'n_tiles': 3}, ['Reshape', 'ReduceSum']),
    ({'n_tiles': 3, 'order': numpy.random.RandomState(0).permutation(12)},
     ['Gather', 'Reshape', 'ReduceSum'])])
def test_two_small_products(sharing, first, nobias, opset, tmp_path):
    link = make_layer(nobias, **sharing)
    path = str(tmp_path / 'model.onnx')
    sl.onnx.export(link, normal(2, 12), path, opset_version=opset)
    proto = onnx.load(path)
    assert operators(proto) == [*first, 'Gemm', 'Gemm']
    weights = [i for i in proto.graph.initializer if len(i.dims) == 2]
    assert [list(w.dims) for w in weights] == [
        list(link.A.shape), [6, 2]]
    for batch_size in BATCH_SIZES:
        x = normal(batch_size, 12)
        y, = run(path, x=x)
        numpy.testing.assert_allclose(
            y, expected(link, x), rtol=0, atol=1e-5)


@pytest.mark.parametrize('dtype, atol', [('e', 2e-2), ('d', 1e-12)])
def test_dtypes(dtype, atol, tmp_path):
    link = make_layer(n_tiles=3, dtype=dtype)
    if link.b is not None:
        link.b.array = link.b.array.astype(dtype)
    path = str(tmp_path / 'model.onnx')
    sl.onnx.export(link, normal(2, 12, dtype=dtype), path)
    x = normal(3, 12, dtype=dtype)
    y, = run(path, x=x)
    assert y.dtype == numpy.dtype(dtype)
    numpy.testing.assert_allclose(
        y.astype(float), expected(link, x), rtol=0, atol=atol)


class OfSequences(chainer.Chain):

    def __init__(self, link):
        super().__init__(link=link)

    def forward(self, x):
        return self.link(x, n_batch_axes=2)


def test_several_batch_axes(tmp_path):
    link = make_layer(n_tiles=3)
    path = str(tmp_path / 'model.onnx')
    sl.onnx.export(OfSequences(link), normal(2, 5, 12), path)
    x = normal(3, 5, 12)
    y, = run(path, x=x)
    numpy.testing.assert_allclose(y, expected(link, x), rtol=0, atol=1e-5)
