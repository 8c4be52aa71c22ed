"""The graph of one forward pass: its functions, and what each costs."""
import math
from typing import NamedTuple

import chainer
from chainer import computational_graph
from chainer.functions.connection.linear import LinearFunction

from shared_linear import MixedLinearFunction, SharedLinearFunction

Shape = tuple[int, ...]


class Source(NamedTuple):
    """An input of a function: a parameter, data, or another's output.

    ``name`` is ``l1/W`` or ``x``, and None of an output; ``step`` the number
    of the function that computed it, None if none did.
    """

    name: str | None
    step: int | None
    shape: Shape


class Step(NamedTuple):
    """A function that ran: its kind, in which layer, and on what."""

    kind: str
    layer: str | None
    sources: tuple[Source, ...]
    shape: Shape
    operations: int | None
    dense_operations: int | None

    @property
    def parameters(self) -> list[Source]:
        return [s for s in self.sources if s.step is None and s.name != 'x']

    @property
    def data(self) -> list[Source]:
        return [s for s in self.sources if s not in self.parameters]


def trace(network: chainer.Chain, x: chainer.Variable) -> list[Step]:
    """Runs a network once, and returns its functions in their order.

    Args:
        network (Chain): Any network of one input and one output.
        x (Variable): Batch of inputs.
    """
    with chainer.using_config('train', False):
        y = network(x)
    names = {id(p): path[1:] for path, p in network.namedparams()}
    graph = computational_graph.build_computational_graph([y])
    functions = sorted(
        (n for n in graph.nodes if isinstance(n, chainer.FunctionNode)),
        key=lambda function: function.rank)
    numbers = {id(f): number for number, f in enumerate(functions)}

    def source(node: chainer.variable.VariableNode) -> Source:
        if node.creator_node is not None:
            return Source(None, numbers[id(node.creator_node)], node.shape)
        if node is x.node:
            return Source('x', None, node.shape)
        variable = node.get_variable_or_none()
        return Source(names.get(id(variable), 'constant'), None, node.shape)

    steps = []
    for function in functions:
        sources = tuple(map(source, function.inputs))
        layers = {
            s.name.rpartition('/')[0] for s in sources
            if s.name and '/' in s.name}
        output, = (ref() for ref in function.outputs)
        steps.append(Step(
            _describe(function), ', '.join(sorted(layers)) or None, sources,
            output.shape, *count_operations(function)))
    return steps


def count_operations(
        function: chainer.FunctionNode) -> tuple[int | None, int | None]:
    """Returns the floating-point operations of a function for one image.

    Those of a fully connected layer, and those of a dense one of its sizes:
    a multiplication and an addition for each weight that is used (to a sum
    that starts from the bias), and an addition for each input that is folded
    onto others. None, None for a function of another kind.

    Args:
        function (FunctionNode): Function that ran.
    """
    if not isinstance(function, (
            LinearFunction, SharedLinearFunction, MixedLinearFunction)):
        return None, None
    x, W = (node.shape for node in function.inputs[:2])
    in_size, (height, width) = math.prod(x[1:]), W
    n_blocks = _parts(function, 'n_blocks')
    out_size = n_blocks * height
    dense = 2 * in_size * out_size
    if getattr(function, 'method', 'fold') == 'tile':
        return dense, dense
    return n_blocks * (in_size - width) + 2 * width * out_size, dense


def _describe(function: chainer.FunctionNode) -> str:
    parts = [
        f'{_parts(function, name)} {word}'
        for name, word in (('n_tiles', 'tiles'), ('n_blocks', 'blocks'))
        if _parts(function, name) > 1]
    return ', '.join([function.label, *parts])


def _parts(function: chainer.FunctionNode, name: str) -> int:
    return int(getattr(getattr(function, 'form', None), name, 1) or 1)
