"""chainer.functions.normalization in ONNX."""
from __future__ import annotations

from typing import Any

import numpy
from chainer.functions.normalization.batch_normalization import (
    BatchNormalization,
    FixedBatchNormalization,
)
from chainer.functions.normalization.group_normalization import (
    GroupNormalization,
)
from chainer.functions.normalization.l2_normalization import NormalizeL2
from chainer.functions.normalization.layer_normalization import (
    LayerNormalization,
)
from chainer.functions.normalization.local_response_normalization import (
    LocalResponseNormalization,
)

from shared_linear.onnx.nodes import Convert, Nodes


def _widened(nodes: Nodes) -> tuple[list[str], Any]:
    """All inputs in one type, in which Chainer computes."""
    dtype = numpy.result_type(*nodes.dtypes)
    return [
        nodes.cast(name, own, dtype)
        for name, own in zip(nodes.inputs, nodes.dtypes, strict=True)], dtype


def _normalized(
        nodes: Nodes, x: str, mean: str, var: str, eps: float,
        dtype: Any) -> str:
    std = nodes.add('Sqrt', nodes.add(
        'Add', var, nodes.number(eps, 'epsilon', dtype)))
    return nodes.add('Div', nodes.add('Sub', x, mean), std)


def _statistics(
        nodes: Nodes, x: str, axes: list[int], ndim: int) -> tuple[str, str]:
    mean = nodes.reduce('Mean', x, axes, True, ndim)
    d = nodes.add('Sub', x, mean)
    return mean, nodes.reduce('Mean', nodes.add('Mul', d, d), axes, True, ndim)


def convert_batch_normalization(nodes: Nodes) -> str:
    """With the statistics of the batch, if the model asks for these.

    The operator normalizes each index of the second axis, whatever Chainer's
    axes are.
    """
    func = nodes.func
    axes = sorted(nodes.axis(a) for a in func.axis)
    kept = [a for a in range(nodes.ndim) if a not in axes]
    (x, *parameters), dtype = _widened(nodes)
    fixed = len(parameters) == 4
    if fixed and kept == [1] and nodes.exact(func.eps):
        y = nodes.add(
            'BatchNormalization', x, *parameters, epsilon=func.eps)
        return nodes.cast(y, dtype, nodes.dtype)
    parameters = [nodes.unsqueeze(p, axes) for p in parameters]
    mean, var = parameters[2:] if fixed else _statistics(
        nodes, x, axes, nodes.ndim)
    y = _normalized(nodes, x, mean, var, func.eps, dtype)
    y = nodes.add('Add', nodes.add('Mul', y, parameters[0]), parameters[1])
    return nodes.cast(y, dtype, nodes.dtype)


def convert_group_normalization(nodes: Nodes) -> str:
    (x, gamma, beta), dtype = _widened(nodes)
    groups = nodes.reshape(x, [0, nodes.func.groups, -1])
    mean, var = _statistics(nodes, groups, [2], 3)
    y = _normalized(nodes, groups, mean, var, nodes.func.eps, dtype)
    y = nodes.reshape_as(y, x)
    after = range(1, nodes.ndim - 1)
    y = nodes.add('Mul', y, nodes.unsqueeze(gamma, after))
    y = nodes.add('Add', y, nodes.unsqueeze(beta, after))
    return nodes.cast(y, dtype, nodes.dtype)


def convert_layer_normalization(nodes: Nodes) -> str:
    x, gamma, beta = nodes.inputs
    eps = nodes.func.eps
    if nodes.opset >= 17 and nodes.dtype == 'f':
        return nodes.add(
            'LayerNormalization', x, gamma, beta, axis=-1, epsilon=eps)
    mean, var = _statistics(nodes, x, [1], 2)
    y = _normalized(nodes, x, mean, var, eps, nodes.dtype)
    return nodes.add('Add', nodes.add('Mul', y, gamma), beta)


def convert_local_response_normalization(nodes: Nodes) -> str:
    """x (k + alpha sum x^2)^-beta, over n // 2 channels to both sides.

    The operator LRN has a window of n channels, which is not Chainer's if n
    is even; onnxruntime has it for pictures alone, and onnx's reference
    computes something else. A mean over the channels is the same sum.
    """
    func = nodes.func
    half = int(func.n) // 2
    size = 2 * half + 1
    squares = nodes.add('Mul', nodes.x, nodes.x)
    rows = nodes.unsqueeze(nodes.reshape(squares, [0, 0, -1]), [1])
    mean = nodes.add(
        'AveragePool', rows, kernel_shape=[size, 1], strides=[1, 1],
        pads=[half, 0, half, 0], count_include_pad=1)
    mean = nodes.reshape_as(nodes.squeeze(mean, [1]), nodes.x)
    scale = nodes.add('Add', nodes.add(
        'Mul', mean, nodes.number(func.alpha * size, 'alpha')),
        nodes.number(func.k, 'k'))
    return nodes.add('Mul', nodes.x, nodes.add(
        'Pow', scale, nodes.number(-func.beta, 'beta')))


def convert_normalize_l2(nodes: Nodes) -> str:
    """x / (norm + eps); the operator LpNormalization has no eps."""
    func = nodes.func
    norm = nodes.reduce('L2', nodes.x, func.axis, True)
    return nodes.add('Div', nodes.x, nodes.add(
        'Add', norm, nodes.number(func.eps, 'epsilon')))


CONVERTERS: dict[type, Convert] = {
    BatchNormalization: convert_batch_normalization,
    FixedBatchNormalization: convert_batch_normalization,
    GroupNormalization: convert_group_normalization,
    LayerNormalization: convert_layer_normalization,
    LocalResponseNormalization: convert_local_response_normalization,
    NormalizeL2: convert_normalize_l2,
}
