"""The functions of this package in ONNX."""
from __future__ import annotations

import numpy
from chainer.backends import cuda

from shared_linear.layers.function import SharedLinearFunction
from shared_linear.layers.mixed_function import MixedLinearFunction
from shared_linear.layers.tiling import Fold, Tile
from shared_linear.onnx.nodes import Convert, Nodes


def fold(nodes: Nodes, name: str) -> str:
    """Sees the last axis as (n_tiles, m), and adds over the first."""
    func = nodes.func
    *axes, width = nodes.shape
    if func.order is not None:
        name = nodes.add(
            'Gather', name, nodes.constant(func.order, 'order'),
            axis=len(axes))
    if func.n_tiles == 1:
        return name
    if width == 0:
        raise ValueError('an input of no columns has no tiles there')
    # 0 stands for the size that the axis has in the input.
    shape = [0] * len(axes) + [func.n_tiles, width // func.n_tiles]
    tiles = nodes.add('Reshape', name, nodes.ints(shape, 'tiles'))
    return nodes.reduce('Sum', tiles, [len(axes)], False, len(axes) + 2)


def convert_shared_linear(nodes: Nodes) -> str:
    """y = fold(x) W^T + b, whichever of the two methods Chainer runs.

    Sums and product are in float32 at least and rounded once, as there.
    """
    dtype = numpy.result_type(*nodes.dtypes[:2], numpy.float32)
    x, W, *b = (
        nodes.cast(name, source, dtype)
        for name, source in zip(nodes.inputs, nodes.dtypes, strict=True))
    y = nodes.gemm(fold(nodes, x), W, b, dtype, transB=1)
    return nodes.cast(y, dtype, nodes.dtype)


def convert_mixed_linear(nodes: Nodes) -> str:
    """y = concat_j W fold(s_j * x[:, p_j])^T + b.

    One gather of rows of x^T makes the tiles of all blocks: a runtime copies
    a row in one go, and the columns of x number by number. Those whose sign
    is negative are gathered from -x^T, so that no signs are stored.
    """
    dtype = numpy.result_type(*nodes.dtypes[:2], numpy.float32)
    x, W, *b = (
        nodes.cast(name, source, dtype)
        for name, source in zip(nodes.inputs, nodes.dtypes, strict=True))
    mixing = nodes.func.mixing
    n, k = mixing.n_tiles, mixing.n_blocks
    in_size, height = nodes.shape[1], nodes.shapes[1][0]
    if 0 in (in_size, height):
        raise ValueError('a weight of no elements has no blocks there')
    rows, signs = mixing.permutations(in_size)
    table = nodes.add('Transpose', x, perm=[1, 0])
    if (signs < 0).any():
        table = nodes.add('Concat', table, nodes.add('Neg', table), axis=0)
        rows = numpy.where(signs < 0, rows + in_size, rows)
    shape = [*([k] if k > 1 else []), *([n] if n > 1 else []), in_size // n]
    z = nodes.add('Gather', table, nodes.constant(
        rows.astype(numpy.int32).reshape(shape), 'rows'), axis=0)
    if n > 1:
        z = nodes.reduce('Sum', z, [len(shape) - 2], False, len(shape) + 1)
    if k == 1:
        y = nodes.gemm(z, W, b, dtype, transA=1, transB=1)
    else:
        y = nodes.add(
            'Transpose', nodes.add('MatMul', W, z), perm=[2, 0, 1])
        # 0 stands for the batch size.
        y = nodes.add('Reshape', y, nodes.ints([0, k * height], 'blocks'))
        if b:
            y = nodes.add('Add', y, *b)
    return nodes.cast(y, dtype, nodes.dtype)


def convert_fold(nodes: Nodes) -> str:
    """z = fold(x), in float32 at least and rounded once."""
    x, dtype = nodes.wide(nodes.x)
    return nodes.cast(fold(nodes, x), dtype, nodes.dtype)


def convert_tile(nodes: Nodes) -> str:
    """y = tile(x)."""
    func = nodes.func
    *axes, width = nodes.shape
    if func.order is None:
        return nodes.add('Tile', nodes.x, nodes.ints(
            [1] * len(axes) + [func.n_tiles], 'repeats'))
    groups = numpy.argsort(cuda.to_cpu(func.order)) % width
    return nodes.add(
        'Gather', nodes.x, nodes.constant(groups, 'groups'), axis=len(axes))


CONVERTERS: dict[type, Convert] = {
    Fold: convert_fold,
    MixedLinearFunction: convert_mixed_linear,
    SharedLinearFunction: convert_shared_linear,
    Tile: convert_tile,
}
