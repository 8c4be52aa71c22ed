"""Builds the :class:`Graph` of a run while it is under way."""
from collections.abc import Iterable, Sequence
from typing import Any

import chainer

from shared_linear.surgery.callables import class_of
from shared_linear.surgery.graph import Graph
from shared_linear.surgery.kinds import Edit
from shared_linear.surgery.nodes import Value, arguments
from shared_linear.surgery.place import (
    Place,
    Surroundings,
    is_array,
    outputs_of,
)


class Recorder:

    """Told by a :class:`Run` of everything that runs.

    Attributes:
        graph (Graph): What ran so far.

    """

    def __init__(self, model: chainer.Link) -> None:
        self.graph = Graph(train=chainer.config.train)
        self._model = model
        self._values: dict[int, Value] = {}
        # An id is good only as long as its object lives.
        self._alive: list[Any] = []
        self._parameters: dict[int, str] = {}
        self._hidden: dict[str, int] = {}
        self._find_parameters()

    def _find_parameters(self) -> None:
        for path, parameter in self._model.namedparams():
            self._parameters.setdefault(id(parameter), path)

    def arguments(self, place: Place) -> tuple[type, dict[str, Any]]:
        """What a function was given, before its forward adds to it."""
        if place.is_call:
            return class_of(place.subject), {}
        return arguments(place.subject)

    def record(self, place: Place, described: tuple[type, dict[str, Any]],
               inputs: Sequence[Any], kwargs: dict[str, Any],
               outputs: Sequence[chainer.Variable]) -> None:
        node = place.node(*described)
        node.inputs = self._read(inputs)
        if node.is_call:
            node.given = (
                tuple(self._given(x) for x in inputs),
                {key: self._given(x) for key, x in kwargs.items()})
        if not node.is_call:
            for i, value in enumerate(node.inputs):
                value.readers.append((node, i))
            for i, y in enumerate(outputs):
                self._keep(y, Value(y.array, node.address, node, i))
        node.outputs = tuple(self._value(y) for y in outputs)
        self.graph.add(node)

    def rewired(self, place: Place, inputs: Sequence[Any],
                edits: Sequence[Edit]) -> None:
        self.graph.rewired += [
            (self._value(inputs[edit.input or 0]), place.address)
            for edit in edits if edit.rewires]

    def skip(self, place: Place, inputs: Sequence[Any],
             outputs: Sequence[chainer.Variable], edit: Edit) -> None:
        node = place.node(*self.arguments(place))
        node.inputs = self._read(inputs)
        node.outputs = tuple(self._value(y) for y in outputs)
        self.graph.skip(node, str(edit))

    def hide(self, run: Surroundings, link: chainer.Link,
             function: chainer.FunctionNode) -> None:
        path = run.path(link)
        base = f'{"" if path == "/" else path}/{function._impl_name}'
        n = self._hidden.get(base, 0)
        self._hidden[base] = n + 1
        self.graph.hidden.append(f'{base}_{n}' if n else base)

    def finish(self, edits: Iterable[Edit], result: Any) -> None:
        for y in outputs_of(result):
            value = self._value(y)
            value.is_output = True
            self.graph.outputs.append(value)
        self.graph.edits = sorted(edits, key=lambda edit: edit.number)

    def _given(self, x: Any) -> Any:
        return self._value(x) if is_array(x) else x

    def _read(self, inputs: Sequence[Any]) -> tuple[Value, ...]:
        return tuple(self._value(x) for x in inputs if is_array(x))

    def _value(self, x: Any) -> Value:
        key = x.node if isinstance(x, chainer.Variable) else x
        value = self._values.get(id(key))
        array = x.array if isinstance(x, chainer.Variable) else x
        if value is None:
            # F.relu(h.array): the array is known, its variable is not.
            value = self._values.get(id(array))
        if value is None:
            value = self._keep(x, Value(array, self._label(x)))
        return value

    def _label(self, x: Any) -> str:
        if isinstance(x, chainer.Parameter):
            if id(x) not in self._parameters:
                self._find_parameters()
            return self._parameters.get(id(x), 'parameter')
        return 'constant'

    def _keep(self, x: Any, value: Value) -> Value:
        if isinstance(x, chainer.Variable):
            self._alive.append(x)
            self._values[id(x.node)] = value
            self._values.setdefault(id(x.array), value)
        else:
            self._values[id(x)] = value
        self._alive.append(x)
        return value

    def name_inputs(self, args: Sequence[Any],
                    kwargs: dict[str, Any]) -> None:
        """Labels the model's own inputs."""
        given = [(str(i), x) for i, x in enumerate(args)]
        given += list(kwargs.items())
        for name, x in given:
            if is_array(x):
                array = x.array if isinstance(x, chainer.Variable) else x
                label = 'input' if len(given) == 1 else f'input {name}'
                self._keep(x, Value(array, label))
