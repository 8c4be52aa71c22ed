"""The kinds of edits: what each does at its address."""
import uuid
from collections.abc import Sequence
from typing import Any

import chainer

from shared_linear.surgery.addresses import EditError, Pattern
from shared_linear.surgery.callables import Called, Portable
from shared_linear.surgery.nodes import Node
from shared_linear.surgery.place import (
    Place,
    give_inputs,
    is_array,
    outputs_of,
)


class Edit:

    """A change of what runs at the addresses that match its patterns.

    Attributes:
        patterns (tuple of Pattern): Where it acts, seen from the link that
            it was made on.
        name (str): Name of its layer, or of its kind.
        number (int): Edits act in the order of their numbers.
        input (int): Index of the input that it changes.
        output (int): Index of the output that it changes.
        factory (Portable): Makes one layer for each place, or ``None``.
        confirmed (bool): Whether it was tried, or has acted.
        modes (set of bool): Whether it acted in train mode, in test mode.

    """

    kind = ''
    # Whether the function or link itself does not run any more.
    stands_in = False
    # Names of methods for which it was said that it acts in a part of them.
    warned: frozenset[str] = frozenset()
    # Whether an input comes from elsewhere.
    rewires = False

    def __init__(self, patterns: Sequence[Pattern], name: str, *,
                 input: 'int | None' = None, output: 'int | None' = None,
                 content: str = '', factory: 'Portable | None' = None,
                 ) -> None:
        self.patterns = tuple(patterns)
        self.name = name
        self.input = input
        self.output = output
        self.content = content
        self.factory = factory
        self.each = factory is not None
        self.number = 0
        self.confirmed = False
        self.modes: set[bool] = set()
        self.uid = uuid.uuid4().hex

    def __str__(self) -> str:
        where = ' '.join(pattern.text for pattern in self.patterns[:3])
        if len(self.patterns) > 3:
            where += f' and {len(self.patterns) - 3} more'
        text = f'{self.kind} {where}'
        if self.input is not None:
            text += f' input={self.input}'
        if self.output is not None:
            text += f' output={self.output}'
        if self.content:
            text += f': {self.content} as /{self.name}'
        return text

    def __repr__(self) -> str:
        return f'<{self}>'

    # What it does, at one place.

    def before(self, place: Place, inputs: list[Any]) -> None:
        """Changes the list of inputs."""

    def instead(self, place: Place, inputs: list[Any],
                kwargs: dict[str, Any]) -> Any:
        """Returns what the function or link would have returned."""
        raise TypeError(f'{self.kind} stands in for nothing')

    def after(self, place: Place, result: Any) -> Any:
        """Changes what the function or link returned."""
        return result

    def undo(self, model: chainer.Link, path: str) -> None:
        """Puts back what else it changed; called before it is taken off."""

    # What is asked of it when it is made.

    def selects(self, node: Node) -> bool:
        """Whether it acts at a node whose address matches."""
        return True

    def check(self, node: Node) -> None:
        """Raises if it cannot act at a node of a traced run."""
        if self.input is not None and self.input >= len(node.inputs):
            raise EditError(
                f'{self}: {node.address} has {len(node.inputs)} inputs, so '
                f'there is no input {self.input}')

    @property
    def sources(self) -> tuple[Pattern, ...]:
        """Where it takes values from."""
        return ()

    def make(self, node: Node) -> chainer.Link:
        """Makes the layer for one place."""
        factory = None if self.factory is None else self.factory.value
        if factory is None:
            raise EditError(
                f'{self}: has no layer for {node.address}, which did not '
                'run before the model was pickled, and its factory could not '
                'be pickled: define it by def at the top of a module')
        layer = factory(node)
        if not callable(layer):
            raise EditError(
                f'{self}: with each=True the function is called with a node '
                'and returns a layer, a link or a callable, but returned '
                f'{type(layer).__name__}')
        return layer if isinstance(layer, chainer.Link) else Called(layer)

    # Common to several kinds.

    def layer(self, place: Place, inputs: Sequence[Any],
              outputs: Sequence[Any]) -> chainer.Link:
        return place.run.layer(self, place, inputs, outputs)

    def one(self, place: Place, old: Any, new: Any) -> chainer.Variable:
        """Checks what an inserted layer returned for ``old``."""
        where = f'{self}: at {place.address} the layer'
        if isinstance(new, (tuple, list)):
            raise EditError(f'{where} returned {len(new)} outputs for one '
                            'input: it must return one Variable')
        if not isinstance(new, chainer.Variable):
            raise EditError(f'{where} returned {type(new).__name__}: it must '
                            'return a Variable')
        if new.shape != old.shape:
            raise EditError(
                f'{where} changes the shape from {old.shape} to {new.shape}: '
                'an inserted layer must keep it')
        return new

    def read(self, place: Place, inputs: Sequence[Any]) -> Any:
        """The input that the edit is about."""
        index = self.input or 0
        if index >= len(inputs) or not is_array(inputs[index]):
            found = [i for i, x in enumerate(inputs) if is_array(x)]
            raise EditError(
                f'{self}: {place.address} has no input {index}: its inputs '
                f'are {found}')
        return inputs[index]


class InsertBefore(Edit):

    kind = 'insert before'

    def before(self, place: Place, inputs: list[Any]) -> None:
        x = chainer.as_variable(self.read(place, inputs))
        layer = self.layer(place, inputs, ())
        inputs[self.input or 0] = self.one(place, x, layer(x))


class InsertBeforeWeight(InsertBefore):

    """Acts where the input is a parameter of two or more axes."""

    def selects(self, node: Node) -> bool:
        index = self.input or 0
        return index < len(node.inputs) and node.inputs[index].is_weight

    def before(self, place: Place, inputs: list[Any]) -> None:
        index = self.input or 0
        if index < len(inputs) and place.run.reads_weight(inputs[index]):
            super().before(place, inputs)


class InsertAfter(Edit):

    kind = 'insert after'

    def after(self, place: Place, result: Any) -> Any:
        outputs = outputs_of(result)
        many = isinstance(result, (tuple, list))
        if isinstance(result, dict) or not outputs:
            raise EditError(
                f'{self}: {place.address} returns '
                f'{type(result).__name__}, not a Variable: edit a function '
                'that runs in it')
        index = self.output
        if index is None:
            if len(outputs) > 1:
                raise EditError(
                    f'{self}: {place.address} has {len(outputs)} outputs: '
                    'say which with output=0 to '
                    f'output={len(outputs) - 1}')
            index = 0
        if index >= len(outputs):
            raise EditError(
                f'{self}: {place.address} has {len(outputs)} outputs, so '
                f'there is no output {index}')
        y = outputs[index]
        layer = self.layer(place, (), outputs)
        new = self.one(place, y, layer(y))
        if not many:
            return new
        return type(result)(new if x is y else x for x in result)


class Replace(Edit):

    kind = 'replace'
    stands_in = True

    def instead(self, place: Place, inputs: list[Any],
                kwargs: dict[str, Any]) -> Any:
        layer = self.layer(place, inputs, ())
        if place.is_call:
            result = layer(*inputs, **kwargs)
            if not outputs_of(result):
                raise EditError(
                    f'{self}: in place of {place.address} the layer returned '
                    f'{type(result).__name__}, not a Variable')
            return result
        give_inputs(place.subject, inputs)
        result = layer(*(chainer.as_variable(x) for x in inputs))
        outputs = result if isinstance(result, tuple) else (result,)
        for y in outputs:
            if not isinstance(y, chainer.Variable):
                raise EditError(
                    f'{self}: in place of {place.address} the layer returned '
                    f'{type(y).__name__}: it must return a Variable')
        return outputs


class Remove(Edit):

    kind = 'remove'
    stands_in = True

    def check(self, node: Node) -> None:
        super().check(node)
        if len(node.outputs) != 1:
            raise EditError(
                f'{self}: {node.address} has {len(node.outputs)} outputs, '
                'and one input cannot stand in for them: replace it')

    def instead(self, place: Place, inputs: list[Any],
                kwargs: dict[str, Any]) -> Any:
        x = self.read(place, inputs)
        if place.is_call:
            return x
        give_inputs(place.subject, inputs)
        return chainer.as_variable(x),


class Rewire(Edit):

    """Takes an input from somewhere else.

    Attributes:
        source (Pattern): Address of what computes the input.

    """

    kind = 'rewire'
    rewires = True

    def __init__(self, patterns: Sequence[Pattern], name: str,
                 source: Pattern, **options: Any) -> None:
        super().__init__(patterns, name, **options)
        self.source = source

    @property
    def sources(self) -> tuple[Pattern, ...]:
        return self.source,

    def __str__(self) -> str:
        return f'{super().__str__()} from {self.source.text}'

    def before(self, place: Place, inputs: list[Any]) -> None:
        self.read(place, inputs)
        value = place.run.source(self, place)
        if value is None:
            # A part of the model runs by itself, without the source.
            return
        inputs[self.input or 0] = value
