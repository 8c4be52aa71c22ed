"""Where an edit acts: at one function, or one call of a link."""
from collections.abc import Sequence
from typing import Any, Protocol

import chainer

from shared_linear.surgery.nodes import Node


class Surroundings(Protocol):

    """What an edit, or who writes a run down, asks of the run."""

    def path(self, link: chainer.Link) -> str:
        """The path of a link, ``/`` for the root."""

    def inserted(self, link: chainer.Link) -> 'str | None':
        """The name of the inserted layer that a link belongs to."""

    def layer(self, edit: Any, place: 'Place', inputs: Sequence[Any],
              outputs: Sequence[Any]) -> chainer.Link:
        """The layer of an edit at a place."""

    def reads_weight(self, x: Any) -> bool:
        """Whether this is a parameter of the model, of two or more axes."""

    def source(self, edit: Any, place: 'Place') -> Any:
        """What the source of a rewiring computed, or ``None``."""


class Place:

    """Where an edit acts: one function, or one call of a link.

    Attributes:
        run (Surroundings): The run.
        subject (FunctionNode or Link): What runs there.
        owner (Link): The link that it runs in.
        name (str): Its name there, counted: ``ReLU_1``.
        site (str): The same, counted within this one call of the owner.

    """

    __slots__ = 'run', 'subject', 'owner', 'name', 'site'

    def __init__(self, run: Surroundings, subject: Any, owner: chainer.Link,
                 name: str, site: str) -> None:
        self.run = run
        self.subject = subject
        self.owner = owner
        self.name = name
        self.site = site

    @property
    def is_call(self) -> bool:
        """Whether it is the call of a link."""
        return isinstance(self.subject, chainer.Link)

    def node(self, kind: type, args: dict[str, Any]) -> Node:
        """A node of this place, without inputs and outputs."""
        link = self.subject if self.is_call else self.owner
        return Node(self.address, kind, args, link, self.run.path(link),
                    self.owner, self.site, self.run.inserted(link))

    @property
    def address(self) -> str:
        path = self.run.path(self.owner)
        return f'/{self.name}' if path == '/' else f'{path}/{self.name}'


def outputs_of(result: Any) -> tuple[chainer.Variable, ...]:
    """The variables among what a function or a link returned."""
    if isinstance(result, chainer.Variable):
        return result,
    if isinstance(result, (tuple, list)):
        return tuple(y for y in result if isinstance(y, chainer.Variable))
    if isinstance(result, dict):
        return tuple(
            y for y in result.values() if isinstance(y, chainer.Variable))
    return ()


def is_array(x: Any) -> bool:
    return isinstance(x, (chainer.Variable, *chainer.get_array_types()))


def give_inputs(function: Any, inputs: list[Any]) -> None:
    # Function hooks, such as ONNX export's, read them of any function.
    function.inputs = tuple(chainer.as_variable(x).node for x in inputs)
