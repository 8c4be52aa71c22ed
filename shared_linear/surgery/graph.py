"""The functions and link calls that one run of a model made."""
from collections.abc import Callable, Iterator
from typing import Any

from shared_linear.surgery import picture
from shared_linear.surgery.addresses import Pattern, nearest
from shared_linear.surgery.nodes import Node, Value, shapes


class Graph:

    """What :func:`trace` returns: every function of one run, in its order.

    A function comes after those that computed its inputs, and each once, so
    the order is the same in every trace of the same model and input.

    ``graph[address]`` is one node, ``address in graph`` asks for it, and a
    graph iterates over its functions.

    Attributes:
        functions (list of Node): The functions.
        calls (list of Node): The calls of links.
        outputs (list of Value): What the model returned.
        hidden (list of str): Addresses of what ran inside another function,
            as within :func:`~chainer.functions.forget`, out of reach.
        skipped (list of Node): What an edit took out of the run.
        rewired (list): Pairs of a value that an edit led elsewhere and the
            address that reads it.
        train (bool): Whether the run was in train mode.
        edits (list): The edits that were on the model.

    """

    def __init__(self, train: bool) -> None:
        self.functions: list[Node] = []
        self.calls: list[Node] = []
        self.outputs: list[Value] = []
        self.hidden: list[str] = []
        self.skipped: list[Node] = []
        self.rewired: list[tuple[Value, str]] = []
        self.edits: list[Any] = []
        self.train = train
        self._nodes: dict[str, Node] = {}
        self._order: list[str] = []

    def add(self, node: Node) -> None:
        (self.calls if node.is_call else self.functions).append(node)
        self._nodes[node.address] = node
        self._order.append(node.address)

    def skip(self, node: Node, edit: str) -> None:
        node.skipped = edit
        self.skipped.append(node)
        self._order.append(node.address)

    @property
    def places(self) -> list[str]:
        """As :attr:`addresses`, with those that edits took out of the run."""
        return list(self._order)

    @property
    def addresses(self) -> list[str]:
        """Every address, of calls and functions, in the order of the run."""
        return list(self._nodes)

    def __len__(self) -> int:
        return len(self.functions)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.functions)

    def __contains__(self, address: object) -> bool:
        return address in self._nodes

    def __getitem__(self, address: str) -> Node:
        try:
            return self._nodes[address]
        except KeyError:
            raise KeyError(
                f'nothing ran at {address!r}; the nearest are '
                f'{nearest(str(address), self.addresses)}') from None

    def visit(self, function: Callable[[Node], Any]) -> None:
        """Calls ``function`` with each function's node, inputs first.

        Args:
            function (callable): Takes a :class:`Node`; what it returns is
                ignored.

        """
        for node in self.functions:
            function(node)

    def find(self, pattern: 'str | None' = None, *,
             link: 'type | tuple[type, ...] | None' = None) -> list[Node]:
        """Selects nodes by address, or by the link that they ran in.

        Args:
            pattern (str): ``*`` stays between two slashes, ``**`` does not;
                without a leading slash it is matched at every depth. It
                selects functions and calls of links.
            link (type): Class of the link that the functions ran in. Alone
                it selects functions, not the calls of the link.

        Returns:
            list of Node: In the order of the run; empty if none matches.

        """
        if pattern is None:
            nodes = list(self.functions)
        else:
            compiled = Pattern(pattern)
            nodes = [node for address, node in self._nodes.items()
                     if compiled.matches(address)]
        if link is not None:
            nodes = [node for node in nodes if isinstance(node.link, link)]
        return nodes

    def to_dot(self) -> str:
        """Returns the graph as Graphviz text, with the edits marked."""
        return picture.to_dot(
            self.functions, self.skipped, self.rewired, self.outputs,
            self.edits)

    def __str__(self) -> str:
        rows = [('address', 'function', 'inputs', 'outputs', 'dtype',
                 'parameters')]
        for node in self.functions:
            parameters = [v for v in node.inputs if v.is_parameter]
            data = tuple(v for v in node.inputs if not v.is_parameter)
            rows.append((
                node.address, node.function, shapes(data),
                shapes(node.outputs),
                ', '.join(sorted({str(v.dtype) for v in node.outputs})),
                ', '.join(value.origin for value in parameters)))
        widths = [max(len(row[i]) for row in rows) for i in range(6)]
        lines = ['  '.join(cell.ljust(width) for cell, width
                           in zip(row, widths, strict=True)).rstrip()
                 for row in rows]
        lines += [f'{node.address} is skipped: {node.skipped}'
                  for node in self.skipped]
        return '\n'.join(lines)
