"""chainer.functions.activation in ONNX."""
from __future__ import annotations

from chainer.functions.activation.clipped_relu import ClippedReLU
from chainer.functions.activation.crelu import CReLU
from chainer.functions.activation.elu import ELU
from chainer.functions.activation.hard_sigmoid import HardSigmoid
from chainer.functions.activation.leaky_relu import LeakyReLU
from chainer.functions.activation.log_softmax import LogSoftmax
from chainer.functions.activation.prelu import PReLUFunction
from chainer.functions.activation.relu import ReLU
from chainer.functions.activation.rrelu import RReLU
from chainer.functions.activation.sigmoid import Sigmoid
from chainer.functions.activation.softmax import Softmax
from chainer.functions.activation.softplus import Softplus
from chainer.functions.activation.swish import Swish
from chainer.functions.activation.tanh import Tanh

from shared_linear.onnx.nodes import Convert, Nodes, operator


def convert_clipped_relu(nodes: Nodes) -> str:
    return nodes.clip(nodes.x, 0., nodes.func.cap)


def convert_crelu(nodes: Nodes) -> str:
    return nodes.add(
        'Concat', nodes.add('Relu', nodes.x),
        nodes.add('Relu', nodes.add('Neg', nodes.x)),
        axis=nodes.axis(nodes.func.axis))


def convert_elu(nodes: Nodes) -> str:
    alpha = nodes.func.alpha
    if nodes.exact(alpha):
        return nodes.add('Elu', nodes.x, alpha=alpha)
    return nodes.add(
        'Add', nodes.add('Relu', nodes.x), nodes.add(
            'Mul', nodes.number(alpha, 'alpha'), nodes.add(
                'Elu', nodes.add('Neg', nodes.add(
                    'Relu', nodes.add('Neg', nodes.x))))))


def convert_hard_sigmoid(nodes: Nodes) -> str:
    if nodes.dtype == 'd':
        y = nodes.add('Mul', nodes.x, nodes.number(.2, 'alpha'))
        return nodes.clip(
            nodes.add('Add', y, nodes.number(.5, 'beta')), 0., 1.)
    return nodes.add('HardSigmoid', nodes.x, alpha=.2, beta=.5)


def leak(nodes: Nodes, slope: float) -> str:
    if nodes.exact(slope):
        return nodes.add('LeakyRelu', nodes.x, alpha=float(slope))
    negative = nodes.add('Relu', nodes.add('Neg', nodes.x))
    return nodes.add(
        'Sub', nodes.add('Relu', nodes.x),
        nodes.add('Mul', negative, nodes.number(slope, 'slope')))


def convert_leaky_relu(nodes: Nodes) -> str:
    return leak(nodes, nodes.func.slope)


def convert_rrelu(nodes: Nodes) -> str:
    """In test mode, the mean of the slopes."""
    return leak(nodes, (nodes.func.lower + nodes.func.upper) / 2)


def beside_batch(nodes: Nodes, name: str, shape: tuple[int, ...]) -> str:
    """Lays a parameter along the axes from the second on, as Chainer does.

    ONNX would lay it along the last.
    """
    after = nodes.ndim - 1 - len(shape)
    return nodes.unsqueeze(
        name, range(len(shape), len(shape) + after))


def convert_prelu(nodes: Nodes) -> str:
    return nodes.add('PRelu', nodes.x, beside_batch(
        nodes, nodes.inputs[1], nodes.shapes[1]))


def convert_softmax(nodes: Nodes) -> str:
    return nodes.softmax('Softmax', nodes.x, nodes.func.axis, nodes.ndim)


def convert_log_softmax(nodes: Nodes) -> str:
    return nodes.softmax('LogSoftmax', nodes.x, nodes.func.axis, nodes.ndim)


def convert_softplus(nodes: Nodes) -> str:
    """y = log(1 + exp(beta x)) / beta."""
    beta = nodes.func.beta
    if beta == 1:
        return nodes.add('Softplus', nodes.x)
    y = nodes.add('Mul', nodes.x, nodes.number(beta, 'beta'))
    return nodes.add(
        'Mul', nodes.add('Softplus', y), nodes.number(1 / beta, 'inverse'))


def convert_swish(nodes: Nodes) -> str:
    beta = beside_batch(nodes, nodes.inputs[1], nodes.shapes[1])
    return nodes.add('Mul', nodes.x, nodes.add(
        'Sigmoid', nodes.add('Mul', nodes.x, beta)))


CONVERTERS: dict[type, Convert] = {
    CReLU: convert_crelu,
    ClippedReLU: convert_clipped_relu,
    ELU: convert_elu,
    HardSigmoid: convert_hard_sigmoid,
    LeakyReLU: convert_leaky_relu,
    LogSoftmax: convert_log_softmax,
    PReLUFunction: convert_prelu,
    RReLU: convert_rrelu,
    ReLU: operator('Relu'),
    Sigmoid: operator('Sigmoid'),
    Softmax: convert_softmax,
    Softplus: convert_softplus,
    Swish: convert_swish,
    Tanh: operator('Tanh'),
}
