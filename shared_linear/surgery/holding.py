"""How a link holds its edits, and their layers."""
from typing import Any

import chainer

from shared_linear.surgery.addresses import name_regex
from shared_linear.surgery.kinds import Edit
from shared_linear.surgery.nodes import Node


def holder_of(link: chainer.Link) -> 'Holder | None':
    """The edits that a link holds, or ``None``."""
    return link.__dict__.get('_surgery')


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
        begins (dict): Where methods of the link begin in its call: what had
            run by then, and how often, by the name of the method.

    """

    # Of pickles of 0.1, which have none.
    begins: dict[str, list[dict[tuple[str, str], int]]] = {}

    def __init__(self) -> None:
        self.begins = {}
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
        new.begins = dict(self.begins)
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

    def layer_for(self, edit: Edit, node: Node) -> chainer.Link:
        """The layer of an edit at one place, which is made if need be."""
        known = self.each.get((edit.uid, node.site))
        if known is not None:
            return self.layers[known]
        layer = edit.make(node)
        layer.to_device(node.owner.device)
        name = free_name(node.owner, f'{edit.name}_{node.site}')
        self.add_layer(name, layer, edit, node.site)
        return layer

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
    taken = {path for path, _ in owner.namedlinks(skipself=True)}
    candidate, n = name, 0
    while f'/{candidate}' in taken or hasattr(owner, candidate):
        n += 1
        candidate = f'{name}_{n}'
    return candidate
