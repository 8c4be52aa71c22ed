"""chainer.functions.math in ONNX."""
from __future__ import annotations

import math
from collections.abc import Sequence

import numpy
from chainer.functions.loss import (
    absolute_error,
    mean_squared_error,
    squared_error,
)
from chainer.functions.math import (
    arctanh,
    average,
    basic_math,
    batch_l2_norm_squared,
    clip,
    cumsum,
    det,
    einsum,
    erf,
    erfc,
    exponential,
    exponential_m1,
    fmod,
    hyperbolic,
    identity,
    linear_interpolate,
    logarithm_1p,
    logsumexp,
    matmul,
    maximum,
    minimum,
    minmax,
    ndtr,
    prod,
    sqrt,
    square,
    sum,
    tensordot,
    trigonometric,
)

from shared_linear.onnx.nodes import Convert, Nodes, operator


def with_constant(kind: str, first: bool = False) -> Convert:
    """A function of x and a number, which comes first or last."""
    def convert(nodes: Nodes) -> str:
        value = nodes.constant(
            numpy.asarray(nodes.func.value, nodes.dtype), 'value')
        return nodes.add(kind, *(
            [value, nodes.x] if first else [nodes.x, value]))

    return convert


def reduction(kind: str) -> Convert:
    def convert(nodes: Nodes) -> str:
        return nodes.reduce(
            kind, nodes.x, nodes.func.axis,
            getattr(nodes.func, 'keepdims', False))

    return convert


def broadcasting(kind: str) -> Convert:
    """Max and Min, which did not broadcast in opset 7."""
    def convert(nodes: Nodes) -> str:
        if nodes.shapes[0] != nodes.shapes[1]:
            nodes.needs(8, '{} of two shapes'.format(kind))
        if nodes.dtype.kind in 'iu':
            nodes.needs(12, '{} of integers'.format(kind))
        return nodes.add(kind, *nodes.inputs)

    return convert


def index_of(kind: str) -> Convert:
    """ArgMax or ArgMin, whose index is an int32 in Chainer."""
    def convert(nodes: Nodes) -> str:
        name, axis = nodes.x, nodes.func.axis
        if axis is None:
            name, axis = nodes.reshape(name, [-1]), 0
        else:
            axis = nodes.axis(axis)
        return nodes.cast(
            nodes.add(kind, name, axis=axis, keepdims=0), 'q', 'i')

    return convert


def convert_clip(nodes: Nodes) -> str:
    return nodes.clip(nodes.x, nodes.func.x_min, nodes.func.x_max)


def convert_cumsum(nodes: Nodes) -> str:
    nodes.needs(11, 'CumSum')
    name, axis = nodes.x, nodes.func.axis
    if axis is None:
        name, axis = nodes.reshape(name, [-1]), 0
    else:
        axis = nodes.axis(axis)
    return nodes.add('CumSum', name, nodes.number(axis, 'axis', 'q'))


def convert_einsum(nodes: Nodes) -> str:
    nodes.needs(12, 'Einsum')
    func = nodes.func
    return nodes.add('Einsum', *nodes.inputs, equation='{}->{}'.format(
        func.in_subs, func.out_sub).replace('@', '...'))


def convert_tensordot(nodes: Nodes) -> str:
    """As the functions of einsum: a letter for each axis."""
    nodes.needs(12, 'Einsum')
    func = nodes.func
    letters = [chr(ord('a') + i) for i in range(26)]
    a = letters[:len(nodes.shapes[0])]
    b = letters[len(a):len(a) + len(nodes.shapes[1])]
    (a_rows, a_columns), (b_rows, b_columns) = func.a_axes, func.b_axes
    for i, j in zip(a_columns, b_rows, strict=True):
        b[j] = a[i]
    result = [a[i] for i in a_rows] + [b[j] for j in b_columns]
    order = [*func.c_axes[0], *func.c_axes[1]]
    out = [''] * len(result)
    for letter, place in zip(result, order, strict=True):
        out[place] = letter
    y = nodes.add('Einsum', *nodes.inputs, equation='{},{}->{}'.format(
        ''.join(a), ''.join(b), ''.join(out)))
    source = numpy.result_type(*nodes.dtypes)
    return nodes.cast(y, source, func.dtype or source)


def convert_expm1(nodes: Nodes) -> str:
    """tanh(x / 2) (exp(x) + 1): as exact near 0 as elsewhere."""
    half = nodes.add('Mul', nodes.x, nodes.number(.5, 'half'))
    return nodes.add('Mul', nodes.add('Tanh', half), nodes.add(
        'Add', nodes.add('Exp', nodes.x), nodes.number(1, 'one')))


def convert_log1p(nodes: Nodes) -> str:
    """log(u) - ((u - 1) - x) / u, u = 1 + x: what u lost is put back."""
    nodes.needs(8, 'Max of a number and an array')
    one = nodes.number(1, 'one')
    u = nodes.add('Add', nodes.x, one)
    lost = nodes.add('Sub', nodes.add('Sub', u, one), nodes.x)
    tiny = nodes.number(numpy.finfo(nodes.dtype).tiny, 'tiny')
    return nodes.add('Sub', nodes.add('Log', u), nodes.add(
        'Div', lost, nodes.add('Max', u, tiny)))


def logarithm(base: float) -> Convert:
    def convert(nodes: Nodes) -> str:
        return nodes.add('Mul', nodes.add('Log', nodes.x), nodes.number(
            1 / math.log(base), 'scale'))

    return convert


def convert_erfc(nodes: Nodes) -> str:
    nodes.needs(9, 'Erf')
    return nodes.add(
        'Sub', nodes.number(1, 'one'), nodes.add('Erf', nodes.x))


def convert_fmod(nodes: Nodes) -> str:
    nodes.needs(10, 'Mod')
    return nodes.add('Mod', *nodes.inputs, fmod=1)


def convert_linear_interpolate(nodes: Nodes) -> str:
    """p x + (1 - p) y."""
    p, x, y = nodes.inputs
    return nodes.add('Add', nodes.add('Mul', p, x), nodes.add(
        'Mul', nodes.add('Sub', nodes.number(1, 'one'), p), y))


def swapped(nodes: Nodes, name: str, ndim: int) -> str:
    perm = list(range(ndim))
    perm[-2:] = perm[:-3:-1]
    return nodes.transpose(name, perm)


def convert_matmul(nodes: Nodes) -> str:
    func = nodes.func
    names = [
        swapped(nodes, name, len(shape))
        if transposed and len(shape) > 1 else name
        for name, shape, transposed in zip(
            nodes.inputs, nodes.shapes, (func.transa, func.transb),
            strict=True)]
    source = numpy.result_type(*nodes.dtypes)
    names = [
        nodes.cast(name, dtype, source)
        for name, dtype in zip(names, nodes.dtypes, strict=True)]
    y = nodes.add('MatMul', *names)
    ndims = [len(shape) for shape in nodes.shapes]
    if func.transc and min(ndims) > 1:
        y = swapped(nodes, y, max(ndims))
    return nodes.cast(y, source, func.dtype or source)


def convert_multi_add(nodes: Nodes) -> str:
    y, *others = nodes.inputs
    for other in others:
        y = nodes.add('Add', y, other)
    return y


def convert_square(nodes: Nodes) -> str:
    return squared(nodes, nodes.x)


def convert_rsqrt(nodes: Nodes) -> str:
    return nodes.add('Reciprocal', nodes.add('Sqrt', nodes.x))


def convert_fix(nodes: Nodes) -> str:
    nodes.needs(9, 'Sign')
    return nodes.add('Mul', nodes.add('Sign', nodes.x), nodes.add(
        'Floor', nodes.add('Abs', nodes.x)))


def convert_sum_to(nodes: Nodes) -> str:
    """Adds over the axes along which a gradient was broadcast."""
    shape: Sequence[int] = nodes.func._shape
    more = nodes.ndim - len(shape)
    y = nodes.reduce('Sum', nodes.x, range(more), False)
    return nodes.reduce('Sum', y, [
        i for i, size in enumerate(shape)
        if size == 1 and nodes.shape[more + i] != 1], True, len(shape))


def convert_squared_difference(nodes: Nodes) -> str:
    return squared(nodes, nodes.add('Sub', *nodes.inputs))


def squared(nodes: Nodes, name: str) -> str:
    return nodes.add('Mul', name, name)


def convert_absolute_difference(nodes: Nodes) -> str:
    return nodes.add('Abs', nodes.add('Sub', *nodes.inputs))


def convert_mean_squared_error(nodes: Nodes) -> str:
    return nodes.reduce('Mean', convert_squared_difference(nodes), None, False)


def convert_batch_l2_norm_squared(nodes: Nodes) -> str:
    return nodes.reduce('SumSquare', nodes.x, range(1, nodes.ndim), False)


def convert_ndtr(nodes: Nodes) -> str:
    """(1 + erf(x / sqrt(2))) / 2."""
    nodes.needs(9, 'Erf')
    half = nodes.number(.5, 'half')
    y = nodes.add('Erf', nodes.add(
        'Mul', nodes.x, nodes.number(math.sqrt(.5), 'scale')))
    return nodes.add('Add', nodes.add('Mul', y, half), half)


CONVERTERS: dict[type, Convert] = {
    absolute_error.AbsoluteError: convert_absolute_difference,
    arctanh.Arctanh: operator('Atanh', 9),
    batch_l2_norm_squared.BatchL2NormSquared: convert_batch_l2_norm_squared,
    det.BatchDet: operator('Det', 11),
    mean_squared_error.MeanSquaredError: convert_mean_squared_error,
    ndtr.Ndtr: convert_ndtr,
    squared_error.SquaredError: convert_squared_difference,
    average.Mean: reduction('Mean'),
    basic_math.Absolute: operator('Abs'),
    basic_math.Add: operator('Add'),
    basic_math.AddConstant: with_constant('Add'),
    basic_math.Div: operator('Div'),
    basic_math.DivFromConstant: with_constant('Div', first=True),
    basic_math.Mul: operator('Mul'),
    basic_math.MulConstant: with_constant('Mul'),
    basic_math.MultiAdd: convert_multi_add,
    basic_math.Neg: operator('Neg'),
    basic_math.PowConstVar: with_constant('Pow', first=True),
    basic_math.PowVarConst: with_constant('Pow'),
    basic_math.PowVarVar: operator('Pow'),
    basic_math.Sub: operator('Sub'),
    basic_math.SubFromConstant: with_constant('Sub', first=True),
    clip.Clip: convert_clip,
    cumsum.Cumsum: convert_cumsum,
    einsum.EinSum: convert_einsum,
    erf.Erf: operator('Erf', 9),
    erfc.Erfc: convert_erfc,
    exponential.Exp: operator('Exp'),
    exponential.Log: operator('Log'),
    exponential.Log10: logarithm(10),
    exponential.Log2: logarithm(2),
    exponential_m1.Expm1: convert_expm1,
    fmod.Fmod: convert_fmod,
    hyperbolic.Cosh: operator('Cosh', 9),
    hyperbolic.Sinh: operator('Sinh', 9),
    identity.Identity: operator('Identity'),
    linear_interpolate.LinearInterpolate: convert_linear_interpolate,
    logarithm_1p.Log1p: convert_log1p,
    logsumexp.LogSumExp: reduction('LogSumExp'),
    matmul.MatMul: convert_matmul,
    maximum.Maximum: broadcasting('Max'),
    minimum.Minimum: broadcasting('Min'),
    minmax.ArgMax: index_of('ArgMax'),
    minmax.ArgMin: index_of('ArgMin'),
    minmax.Max: reduction('Max'),
    minmax.Min: reduction('Min'),
    prod.Prod: reduction('Prod'),
    sqrt.RsqrtGPU: convert_rsqrt,
    sqrt.Sqrt: operator('Sqrt'),
    square.Square: convert_square,
    sum.Sum: reduction('Sum'),
    sum.SumTo: convert_sum_to,
    tensordot.TensorDot: convert_tensordot,
    trigonometric.Arccos: operator('Acos'),
    trigonometric.Arcsin: operator('Asin'),
    trigonometric.Arctan: operator('Atan'),
    trigonometric.Cos: operator('Cos'),
    trigonometric.Sin: operator('Sin'),
    trigonometric.Tan: operator('Tan'),
}

# Functions that compute outside of the graph. While a model is traced they
# are wrapped so that they are found in it.
WRAPPED: dict[str, Convert] = {
    'ceil': operator('Ceil'),
    'fix': convert_fix,
    'floor': operator('Floor'),
    'sign': operator('Sign', 9),
}
