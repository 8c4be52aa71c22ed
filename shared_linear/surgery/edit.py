"""What an edit does at its address, and how a link holds its edits."""
import pickle
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import chainer

from shared_linear.surgery import graph
from shared_linear.surgery.addresses import EditError, Pattern, name_regex
from shared_linear.surgery.recorder import class_of
from shared_linear.surgery.run import Place, holder_of, outputs_of


class Called(chainer.Link):

    """Holds a callable that an edit put into a model.

    Args:
        function (callable): What to call.

    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = Portable(function)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function.value(*args, **kwargs)

    @property
    def printable_specs(self) -> Any:
        yield 'function', label_of(self.function.value)


class Portable:

    """A callable that copies like a function, and says why pickle fails."""

    def __init__(self, value: Callable[..., Any],
                 optional: bool = False) -> None:
        self.value = value
        self.optional = optional

    def __deepcopy__(self, memo: dict[int, Any]) -> 'Portable':
        return self

    def __getstate__(self) -> dict[str, Any]:
        if '<' in getattr(self.value, '__qualname__', ''):
            if self.optional:
                return {'value': None, 'optional': True}
            raise pickle.PicklingError(
                f'the inserted {label_of(self.value)} cannot be pickled: '
                'define it by def at the top of a module, or insert a link')
        return dict(self.__dict__)


def label_of(function: Any) -> str:
    if isinstance(function, chainer.Link):
        return class_of(function).__name__
    name = getattr(function, '__name__', type(function).__name__)
    return 'lambda' if name == '<lambda>' else name


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

    # Common to several kinds.

    def layer(self, place: Place, inputs: Sequence[Any],
              outputs: Sequence[Any]) -> chainer.Link:
        if not self.each:
            return place.run.layer(self.uid)
        holder = holder_of(place.owner)
        known = holder.each.get((self.uid, place.site))
        if known is not None:
            return holder.layers[known]
        return self._make(place, inputs, outputs)

    def _make(self, place: Place, inputs: Sequence[Any],
              outputs: Sequence[Any]) -> chainer.Link:
        is_call = isinstance(place.subject, chainer.Link)
        kind, args = ((class_of(place.subject), {}) if is_call
                      else graph.arguments(place.subject))
        link = place.subject if is_call else place.owner
        node = graph.Node(place.address, kind, args, link,
                          place.run.path(link), place.owner, place.site)
        node.inputs = tuple(
            graph.Value(chainer.as_variable(x).array, 'input')
            for x in inputs if is_array(x))
        node.outputs = tuple(
            graph.Value(y.array, place.address, node, i)
            for i, y in enumerate(outputs))
        layer = self.make_layer(node)
        place.run.adopt(place.owner, layer)
        return layer

    def make_layer(self, node: graph.Node) -> chainer.Link:
        """Makes the layer for a place, which its owner then holds."""
        holder = holder_of(node.owner)
        known = holder.each.get((self.uid, node.site))
        if known is not None:
            return holder.layers[known]
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
        if not isinstance(layer, chainer.Link):
            layer = Called(layer)
        layer.to_device(node.owner.device)
        name = free_name(node.owner, f'{self.name}_{node.site}')
        holder.add_layer(name, layer, self, node.site)
        return layer

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


def is_array(x: Any) -> bool:
    return isinstance(x, (chainer.Variable, *chainer.get_array_types()))


class InsertBefore(Edit):

    kind = 'insert before'

    def before(self, place: Place, inputs: list[Any]) -> None:
        x = chainer.as_variable(self.read(place, inputs))
        layer = self.layer(place, inputs, ())
        inputs[self.input or 0] = self.one(place, x, layer(x))


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
        if isinstance(place.subject, chainer.Link):
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

    def instead(self, place: Place, inputs: list[Any],
                kwargs: dict[str, Any]) -> Any:
        x = self.read(place, inputs)
        if isinstance(place.subject, chainer.Link):
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

    def __str__(self) -> str:
        return f'{super().__str__()} from {self.source.text}'

    def before(self, place: Place, inputs: list[Any]) -> None:
        self.read(place, inputs)
        run = place.run
        value = run.scope_of(self.uid).values.get(self.uid)
        if value is None:
            if not any(binding.is_source and binding.edit.uid == self.uid
                       for _, holder in run.holders
                       for binding in holder.bindings):
                # A part of the model runs by itself, without the source.
                return
            raise EditError(
                f'{self}: the source {self.source.text} has not run when '
                f'{place.address} reads it')
        inputs[self.input or 0] = value


def give_inputs(function: Any, inputs: list[Any]) -> None:
    # Function hooks, such as ONNX export's, read them of any function.
    function.inputs = tuple(chainer.as_variable(x).node for x in inputs)


class Binding:

    """Ties an edit to names that run directly in one link."""

    def __init__(self, edit: Edit, names: tuple[str, ...],
                 ignore_case: bool, is_source: bool = False) -> None:
        self.edit = edit
        self.names = names
        self.ignore_case = ignore_case
        self.is_source = is_source

    def matches(self, name: str) -> bool:
        return any(name_regex(pattern, self.ignore_case).match(name)
                   for pattern in self.names)


class Holder:

    """What a link holds: edits that act in it, and their layers.

    Attributes:
        made (tuple of Edit): Edits that were made on this link.
        bindings (tuple of Binding): Edits that act directly in it.
        layers (dict): The layers that it holds, by name.
        shared (dict): Name of the layer of an edit, by the edit's uid.
        each (dict): Name of the layer of an edit at one site.

    """

    def __init__(self) -> None:
        self.made: tuple[Edit, ...] = ()
        self.bindings: tuple[Binding, ...] = ()
        self.layers: dict[str, chainer.Link] = {}
        self.shared: dict[str, str] = {}
        self.each: dict[tuple[str, str], str] = {}
        self._edit_of: dict[str, Edit] = {}
        self._matching: dict[str, list[Binding]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_matching': {}}

    def copy(self, mode: str) -> 'Holder':
        """A holder for a copy of the link, as :meth:`chainer.Link.copy`."""
        new = Holder()
        new.made, new.bindings = self.made, self.bindings
        new.shared, new.each = dict(self.shared), dict(self.each)
        new._edit_of = dict(self._edit_of)
        for name, layer in self.layers.items():
            new.layers[name] = layer.copy(mode)
            new.layers[name].name = name
        return new

    def bind(self, binding: Binding) -> None:
        self.bindings = tuple(sorted(
            (*self.bindings, binding), key=lambda b: b.edit.number))
        self._matching = {}

    def matching(self, name: str) -> list[Binding]:
        found = self._matching.get(name)
        if found is None:
            found = [b for b in self.bindings if b.matches(name)]
            self._matching[name] = found
        return found

    def outside(self, name: str, link: chainer.Link,
                bindings: list[Binding]) -> list[Binding]:
        """Those that may act on a layer: the edits made after it."""
        if self.layers.get(name) is not link:
            return bindings
        number = self._edit_of[name].number
        return [b for b in bindings if b.edit.number > number]

    def add_layer(self, name: str, layer: chainer.Link, edit: Edit,
                  site: 'str | None' = None) -> None:
        layer.name = name
        # Another thread may be iterating over the dictionary.
        self.layers = {**self.layers, name: layer}
        self._edit_of[name] = edit
        if site is None:
            self.shared[edit.uid] = name
        else:
            self.each[edit.uid, site] = name

    def drop(self, uids: set[str]) -> None:
        """Forgets edits, and their layers."""
        self.made = tuple(e for e in self.made if e.uid not in uids)
        self.bindings = tuple(
            b for b in self.bindings if b.edit.uid not in uids)
        gone = {name for name, edit in self._edit_of.items()
                if edit.uid in uids}
        self.layers = {
            k: v for k, v in self.layers.items() if k not in gone}
        self._edit_of = {
            k: v for k, v in self._edit_of.items() if k not in gone}
        self.shared = {
            k: v for k, v in self.shared.items() if v not in gone}
        self.each = {k: v for k, v in self.each.items() if v not in gone}
        self._matching = {}

    @property
    def is_empty(self) -> bool:
        return not (self.made or self.bindings)


def free_name(owner: chainer.Link, name: str) -> str:
    """``name``, or ``name_1`` and so on where the link has such a name."""
    taken = {child.name for child in owner.children()}
    candidate, n = name, 0
    while candidate in taken or hasattr(owner, candidate):
        n += 1
        candidate = f'{name}_{n}'
    return candidate
