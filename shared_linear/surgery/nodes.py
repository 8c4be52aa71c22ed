"""The nodes of a traced run, and what flowed between them."""
from typing import Any

import chainer
from chainer import function as function_module


class Value(chainer.Variable):

    """What flowed between two functions of a traced run.

    A variable without a graph, so that keeping it keeps one array only.

    Attributes:
        origin (str): The address that computed it, the path of a parameter
            (``/l1/W``), ``input`` or ``constant``.
        producer (Node): The function that computed it, or ``None``.
        index (int): Which of the producer's outputs it is.
        readers (list): Pairs of a function and the index of its input.
        is_output (bool): Whether the model returned it.

    """

    def __init__(self, array: Any, origin: str,
                 producer: 'Node | None' = None, index: int = 0) -> None:
        super().__init__(array, requires_grad=False)
        self.origin = origin
        self.producer = producer
        self.index = index
        self.readers: list[tuple[Node, int]] = []
        self.is_output = False

    @property
    def is_parameter(self) -> bool:
        return self.producer is None and self.origin.startswith('/')

    @property
    def is_weight(self) -> bool:
        """Whether it is a parameter of two or more axes, of floats."""
        return (self.is_parameter and self.ndim >= 2
                and self.dtype.kind == 'f')


class Node:

    """A function, or the call of a link, in a traced run.

    Attributes:
        address (str): Where it ran, such as ``/l1/LinearFunction``.
        function (str): Name of the function's class, or of the link's.
        args (dict): The function's own arguments (``dropout_ratio``, ``sx``,
            ``value``, ...), as they were before it ran.
        link (~chainer.Link): The link that it ran in, or the called link.
        path (str): Path of that link, ``/`` for the model itself.
        inputs (tuple of Value): What it read.
        outputs (tuple of Value): What it computed, before any edit after it.
        is_call (bool): Whether it is the call of a link.
        inserted (str): Name of the inserted layer that it belongs to, or
            ``None``.
        skipped (str): The edit that took it out, or ``None``. Only skipped
            nodes in :attr:`Graph.skipped` have one.
        given (tuple): Positional arguments and keywords of the call of a
            link, with what flowed there as :class:`Value`.
        kind (type): Class of the function or of the link.
        owner (~chainer.Link): The link that it ran in.
        site (str): Its name, counted within that one call of the owner.

    """

    def __init__(self, address: str, kind: type, args: dict[str, Any],
                 link: chainer.Link, path: str, owner: chainer.Link,
                 site: str, inserted: 'str | None' = None) -> None:
        self.address = address
        self.kind = kind
        self.function = kind.__name__
        self.args = args
        self.link = link
        self.path = path
        self.inputs: tuple[Value, ...] = ()
        self.given: tuple[tuple[Any, ...], dict[str, Any]] = (), {}
        self.outputs: tuple[Value, ...] = ()
        self.owner = owner
        self.site = site
        self.is_call = link is not owner
        self.inserted = inserted
        self.skipped: str | None = None

    def __repr__(self) -> str:
        return f'<{self.address}: {shapes(self.inputs)} -> ' \
               f'{shapes(self.outputs)}>'


def shapes(values: tuple[Value, ...]) -> str:
    return ', '.join(str(value.shape) for value in values)


def arguments(function: chainer.FunctionNode) -> tuple[type, dict[str, Any]]:
    """The class of a function that has not run yet, and its arguments."""
    if isinstance(function, function_module.FunctionAdapter):
        function = function.function
    own = {key: value for key, value in vars(function).items()
           if not key.startswith('_')}
    return type(function), own
