"""chainer.functions.rnn in ONNX.

The n-step functions are made of these and of others, one step after another.
"""
from __future__ import annotations

from chainer.functions.rnn.lstm import LSTM
from chainer.functions.rnn.slstm import SLSTM
from chainer.functions.rnn.tree_lstm import TreeLSTM

from shared_linear.onnx.nodes import END, Convert, Nodes


def _gates(nodes: Nodes, i: int, units: int) -> list[str]:
    """a, i, f and o of one input, whose four are side by side."""
    rest = nodes.shapes[i][2:]
    name = nodes.reshape(nodes.inputs[i], [0, units, 4, *rest])
    return [nodes.squeeze(part, [2])
            for part in nodes.split(name, [1] * 4, 2)]


def _product(nodes: Nodes, gate: str, value: str) -> str:
    return nodes.add('Mul', nodes.add('Sigmoid', gate), value)


def convert_lstm(nodes: Nodes) -> tuple[str, str]:
    """c = tanh(a) s(i) + c' s(f), h = s(o) tanh(c).

    Sequences that have ended keep their cell: c may have more rows than x.
    """
    c, _ = nodes.inputs
    rows, length = nodes.shapes[1][0], nodes.shapes[0][0]
    a, i, f, o = _gates(nodes, 1, nodes.shapes[0][1])
    running = c if rows == length else nodes.slice(c, [0], [rows], [0])
    new = nodes.add(
        'Add', _product(nodes, i, nodes.add('Tanh', a)),
        _product(nodes, f, running))
    h = _product(nodes, o, nodes.add('Tanh', new))
    if rows != length:
        new = nodes.add(
            'Concat', new, nodes.slice(c, [rows], [END], [0]), axis=0)
    return new, h


def convert_slstm(nodes: Nodes) -> tuple[str, str]:
    c1, c2 = nodes.inputs[:2]
    units = nodes.shapes[0][1]
    a1, i1, f1, o1 = _gates(nodes, 2, units)
    a2, i2, f2, o2 = _gates(nodes, 3, nodes.shapes[1][1])
    c = _product(nodes, i1, nodes.add('Tanh', a1))
    for gate, value in (
            (i2, nodes.add('Tanh', a2)), (f1, c1), (f2, c2)):
        c = nodes.add('Add', c, _product(nodes, gate, value))
    o = nodes.add('Add', o1, o2)
    return c, _product(nodes, o, nodes.add('Tanh', c))


def convert_tree_lstm(nodes: Nodes) -> tuple[str, str]:
    *cells, x = nodes.inputs
    units = nodes.shapes[0][1]
    a, i, o, *gates = nodes.split(x, [units] * (3 + len(cells)), 1)
    c = _product(nodes, i, nodes.add('Tanh', a))
    for gate, cell in zip(gates, cells, strict=True):
        c = nodes.add('Add', c, _product(nodes, gate, cell))
    return c, _product(nodes, o, nodes.add('Tanh', c))


CONVERTERS: dict[type, Convert] = {
    LSTM: convert_lstm,
    SLSTM: convert_slstm,
    TreeLSTM: convert_tree_lstm,
}
