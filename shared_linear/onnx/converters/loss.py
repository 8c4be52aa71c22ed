"""The loss that models return: softmax_cross_entropy, in ONNX."""
from __future__ import annotations

from chainer.functions.loss.softmax_cross_entropy import SoftmaxCrossEntropy

from shared_linear.onnx.nodes import Convert, Nodes


def convert_softmax_cross_entropy(nodes: Nodes) -> str:
    """-log softmax(x)[t] for the labels that are not to be ignored."""
    nodes.needs(11, 'GatherElements')
    func = nodes.func
    x, t = nodes.inputs
    if nodes.dtypes[1].kind == 'f':
        raise ValueError('labels that are distributions')
    dtype = nodes.dtype
    label = nodes.cast(t, nodes.dtypes[1], 'q')
    ignored = nodes.add(
        'Equal', label, nodes.number(func.ignore_label, 'ignored', 'q'))
    label = nodes.where(ignored, nodes.number(0, 'label', 'q'), label)
    scores = nodes.softmax('LogSoftmax', x, 1, nodes.ndim)
    picked = nodes.squeeze(nodes.add(
        'GatherElements', scores, nodes.unsqueeze(label, [1]), axis=1), [1])
    loss = nodes.add('Neg', picked)
    if func.class_weight is not None:
        loss = nodes.add('Mul', loss, nodes.add('Gather', nodes.constant(
            func.class_weight.astype(dtype), 'class_weight'), label))
    loss = nodes.where(ignored, nodes.number(0, 'zero'), loss)
    if func.reduce == 'no':
        return loss
    ndim = nodes.ndim - 1
    if func.normalize:
        counted = nodes.cast(nodes.add('Not', ignored), bool, dtype)
        count = nodes.reduce('Sum', counted, None, False, ndim)
    else:
        # The rows, as a number.
        rows = nodes.add(
            'Gather', nodes.add('Shape', x), nodes.number(0, 'rows', 'q'))
        count = nodes.cast(rows, 'q', dtype)
    count = nodes.add('Max', count, nodes.number(1, 'one'))
    return nodes.add(
        'Div', nodes.reduce('Sum', loss, None, False, ndim), count)


CONVERTERS: dict[type, Convert] = {
    SoftmaxCrossEntropy: convert_softmax_cross_entropy,
}
