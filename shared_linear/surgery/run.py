"""One run of an edited or traced model: what runs where, and its edits.

The user's own ``forward`` runs. Each function and each call of a link gets
its address, and the edits bound to that address act on its inputs, in its
place, or on its outputs.
"""
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import chainer

from shared_linear.surgery import interposition
from shared_linear.surgery.addresses import EditError
from shared_linear.surgery.callables import class_of
from shared_linear.surgery.holding import Binding, Holder, holder_of
from shared_linear.surgery.interposition import local
from shared_linear.surgery.kinds import Edit
from shared_linear.surgery.nodes import Value, arguments
from shared_linear.surgery.place import Place, is_array, outputs_of
from shared_linear.surgery.recorder import Recorder


class Frame:

    """One call of a link that is under way."""

    __slots__ = 'link', 'holder', 'parent', 'pending', 'sites'

    def __init__(self, link: chainer.Link, parent: 'Frame | None',
                 pending: bool) -> None:
        self.link = link
        self.holder = holder_of(link)
        self.parent = parent
        # Entered by __call__, and forward not reached yet.
        self.pending = pending
        # How often each class and child ran in this very call.
        self.sites: dict[str, int] = {}


Begun = dict[tuple[str, str], int]


class Scope:

    """Counts and remembered values since one link's call began.

    An edit counts repeated functions from the start of the call of the link
    that it was made on, so that it means the same inside a larger model.

    """

    def __init__(self) -> None:
        self.counts: dict[tuple[int, str], int] = {}
        self.values: dict[str, chainer.Variable] = {}


class Run:

    """A run of ``root``, from its call to its return.

    Args:
        root (~chainer.Link): The model.
        recorder (Recorder): Told of everything that runs, if given.
        begun (list of dict): How often what had run, by the path of its link
            and its name, when the method that is called by itself begins in
            a call of the model; several where it begins in several places.

    """

    def __init__(self, root: chainer.Link,
                 recorder: 'Recorder | None' = None,
                 begun: Sequence[Begun] = ()) -> None:
        self.root = root
        self.without = local.without
        self.recorder = recorder
        self.frame: Frame | None = None
        # Entered by another method than the call of the root.
        self.by_method = False
        # Within a function's own forward (as F.forget's), which backward
        # may run again without any of this.
        self.inside = 0
        self.scopes = [Scope()]
        self._scope_of: dict[str, Scope] = {}
        self.on_adopt: list[Callable[[chainer.Link], Any]] = []
        self.acted: set[str] = set()
        # Edits that act in one of the places of a method and not in others.
        self.partly: set[Edit] = set()
        self.shapes: dict[str, tuple[tuple[int, ...], ...]] = {}
        self.paths: dict[int, str] = {}
        self._links: list[chainer.Link] = []
        self.parents: dict[int, tuple[chainer.Link, str]] = {}
        self.names: set[tuple[int, str]] = set()
        self.holders: list[tuple[str, Holder]] = []
        self._walk(root, '')
        # Where methods of the root begin in its call.
        self.begins: dict[str, list[Begun]] = {}
        self._elsewhere: list[Scope] = []
        for i, counts in enumerate(begun):
            scope = Scope()
            links = {path: key for key, path in self.paths.items()}
            scope.counts = {
                (links[path], name): n for (path, name), n in counts.items()
                if path in links}
            if i:
                self._elsewhere.append(scope)
            else:
                self.scopes = [scope]

    def _walk(self, root: chainer.Link, prefix: str) -> None:
        by_path = {}
        for relative, link in root.namedlinks():
            path = prefix + relative if relative != '/' else prefix or '/'
            if id(link) in self.paths:
                continue
            by_path[path] = link
            self.paths[id(link)] = path
            self._links.append(link)
            if link is not root:
                parent, _, name = path.rpartition('/')
                above = by_path[parent or '/']
                self.parents[id(link)] = above, name
                self.names.add((id(above), name))
            holder = holder_of(link)
            if holder is not None:
                self.holders.append((path, holder))

    def adopt(self, owner: chainer.Link, layer: chainer.Link) -> None:
        """Takes in a layer that was made while the model runs."""
        path = self.path(owner)
        name = str(layer.name)
        self.parents[id(layer)] = owner, name
        self.names.add((id(owner), name))
        self._walk(layer, f'{"" if path == "/" else path}/{name}')
        for callback in self.on_adopt:
            callback(layer)

    def path(self, link: chainer.Link) -> str:
        return self.paths[id(link)]

    def under_way(self) -> AbstractContextManager[None]:
        """Installs this run in this thread, whatever happens in it."""
        return interposition.under_way(self, self._links)

    # Calls of links.

    def call(self, link: chainer.Link, original: Callable[..., Any],
             args: Sequence[Any], kwargs: dict[str, Any],
             pending: bool) -> Any:
        """Runs the call of a link, by ``__call__`` if ``pending``."""
        frame = self.frame
        if frame is None:
            return self._framed(link, original, args, kwargs, pending)
        if link is self.root and not self.inside:
            # It calls itself: a call of its own, in nobody's frame.
            return self._called_anew(link, original, args, kwargs, pending)
        if self.inside or id(link) not in self.parents:
            # Not of this model: what it runs belongs to its caller.
            return original(*args, **kwargs)
        owner, base = self.parents[id(link)]
        holder = holder_of(owner)
        if holder is None and self.recorder is None:
            return self._framed(link, original, args, kwargs, pending)
        place, bindings = self._place(frame, link, owner, holder, base)
        if holder is not None:
            bindings = holder.outside(base, link, bindings)
        if not bindings and self.recorder is None:
            return self._framed(link, original, args, kwargs, pending)
        return self._edited(
            place, bindings, list(args), kwargs,
            lambda inputs: self._framed(
                link, original, inputs, kwargs, pending))

    def _called_anew(self, link: chainer.Link, original: Callable[..., Any],
                     args: Sequence[Any], kwargs: dict[str, Any],
                     pending: bool) -> Any:
        if not self.by_method:
            return self._framed(link, original, args, kwargs, pending)
        # Another method calls the model: addresses are those of its call.
        before = self.scopes, self.by_method
        self.scopes, self.by_method = [Scope()], False
        try:
            return self._framed(link, original, args, kwargs, pending)
        finally:
            self.scopes, self.by_method = before

    def _framed(self, link: chainer.Link, original: Callable[..., Any],
                args: Sequence[Any], kwargs: dict[str, Any],
                pending: bool) -> Any:
        frame = Frame(link, self.frame, pending)
        made = frame.holder.made if frame.holder is not None else ()
        before = self.frame, self._scope_of
        scoped = bool(made) and link is not self.root
        if scoped:
            scope = Scope()
            self.scopes.append(scope)
            self._scope_of = {
                **self._scope_of, **{edit.uid: scope for edit in made}}
        self.frame = frame
        try:
            return original(*args, **kwargs)
        finally:
            self.frame, self._scope_of = before
            if scoped:
                self.scopes.pop()

    def method(self, link: chainer.Link, name: str,
               original: Callable[..., Any], args: Sequence[Any],
               kwargs: dict[str, Any]) -> Any:
        """Runs another method of a link, which is no call of it."""
        frame = self.frame
        if self.inside or id(link) not in self.paths:
            return original(*args, **kwargs)
        if frame is None:
            self.by_method = True
        elif frame.link is link:
            if link is self.root and frame.parent is None:
                self._note_beginning(name)
            return original(*args, **kwargs)
        return self._framed(link, original, args, kwargs, False)

    def _note_beginning(self, name: str) -> None:
        counts = {(self.paths[key], base): n for (key, base), n
                  in self.scopes[0].counts.items() if key in self.paths}
        known = self.begins.setdefault(name, [])
        if counts not in known:
            known.append(counts)

    def remember_beginnings(self) -> None:
        """For methods that are called by themselves, after this run."""
        holder = holder_of(self.root)
        if holder is not None and self.begins:
            holder.begins = {**holder.begins, **self.begins}

    def reaches_forward(self, link: chainer.Link) -> bool:
        """Whether this is the ``forward`` of a ``__call__`` under way."""
        frame = self.frame
        if frame is None or frame.link is not link or not frame.pending:
            return False
        frame.pending = False
        return True

    # Functions.

    def apply(self, node: chainer.FunctionNode,
              original: Callable[..., Any], inputs: Any) -> Any:
        """Runs a function."""
        frame = self.frame
        if frame is None:
            return original(node, inputs)
        if self.inside:
            if self.recorder is not None:
                self.recorder.hide(self, frame.link, node)
            return original(node, inputs)
        if frame.holder is None and self.recorder is None:
            return self._apply(node, original, inputs)
        place, bindings = self._place(
            frame, node, frame.link, frame.holder, node._impl_name)
        if not bindings and self.recorder is None:
            return self._apply(node, original, inputs)
        return self._edited(
            place, bindings, list(inputs), {},
            lambda inputs: self._apply(node, original, tuple(inputs)))

    def _apply(self, node: chainer.FunctionNode,
               original: Callable[..., Any], inputs: Any) -> Any:
        self.inside += 1
        try:
            return original(node, inputs)
        finally:
            self.inside -= 1

    # Both.

    def _place(self, frame: Frame, subject: Any, owner: chainer.Link,
               holder: 'Holder | None', base: str,
               ) -> tuple[Place, list[Binding]]:
        name = self._counted(self.scopes[0].counts, owner, subject, base)
        n = frame.sites.get(base, 0)
        frame.sites[base] = n + 1
        place = Place(self, subject, owner, name,
                      f'{base}_{n}' if n else base)
        if holder is None:
            bindings = []
        elif len(self.scopes) == 1:
            bindings = holder.matching(name)
            self._compare_elsewhere(owner, subject, base, holder, bindings)
        else:
            names = {id(self.scopes[0]): name}
            for scope in self.scopes[1:]:
                names[id(scope)] = self._counted(
                    scope.counts, owner, subject, base)
            bindings = [
                binding for binding in holder.bindings if binding.matches(
                    names[id(self.scope_of(binding.edit.uid))])]
        if self.without:
            bindings = [binding for binding in bindings
                        if binding.edit.uid not in self.without]
        return place, bindings

    def _compare_elsewhere(
            self, owner: chainer.Link, subject: Any, base: str,
            holder: Holder, bindings: list[Binding]) -> None:
        """Says so where an edit acts in one of the places of a method only.
        """
        for scope in self._elsewhere:
            other = holder.matching(
                self._counted(scope.counts, owner, subject, base))
            for binding in {*bindings} ^ {*other}:
                self.partly.add(binding.edit)

    def _counted(self, counts: dict[tuple[int, str], int],
                 owner: chainer.Link, subject: Any, base: str) -> str:
        key = id(owner), base
        n = counts.get(key, 0)
        name = f'{base}_{n}' if n else base
        # A link may already be called conv1_1, or ReLU.
        while (id(owner), name) in self.names and (
                n or not isinstance(subject, chainer.Link)):
            n += 1
            name = f'{base}_{n}'
        counts[key] = n + 1
        return name

    def scope_of(self, uid: str) -> Scope:
        return self._scope_of.get(uid, self.scopes[0])

    def _edited(self, place: Place, bindings: Sequence[Binding],
                inputs: list[Any], kwargs: dict[str, Any],
                compute: Callable[[list[Any]], Any]) -> Any:
        edits = [b.edit for b in bindings if not b.is_source]
        replacement = None
        for edit in edits:
            self.acted.add(edit.uid)
            edit.before(place, inputs)
            if edit.stands_in:
                replacement = edit
        if replacement is None:
            recorder = self.recorder
            if recorder is None:
                result = compute(inputs)
            else:
                # Its forward may add to its arguments.
                arguments = recorder.arguments(place)
                result = compute(inputs)
                recorder.record(
                    place, arguments, inputs, kwargs, outputs_of(result))
                recorder.rewired(place, inputs, edits)
        else:
            result = replacement.instead(place, inputs, kwargs)
            self.shapes[place.address] = tuple(
                y.shape for y in outputs_of(result))
            if self.recorder is not None:
                self.recorder.skip(
                    place, inputs, outputs_of(result), replacement)
        for edit in edits:
            result = edit.after(place, result)
        for binding in bindings:
            if binding.is_source:
                self._remember(place, binding.edit, result)
        return result

    def _remember(self, place: Place, edit: Edit, result: Any) -> None:
        outputs = outputs_of(result)
        index = edit.output or 0
        if index >= len(outputs):
            raise EditError(
                f'{edit}: the source {place.address} has '
                f'{len(outputs)} outputs, so there is no output {index}')
        self.scope_of(edit.uid).values[edit.uid] = outputs[index]

    # What edits ask.

    def edits(self) -> list[Edit]:
        """The edits that were made on the links of the model."""
        return [edit for _, holder in self.holders for edit in holder.made
                if edit.uid not in self.without]

    def inserted(self, link: chainer.Link) -> 'str | None':
        while id(link) in self.parents:
            above, name = self.parents[id(link)]
            holder = holder_of(above)
            if holder is not None and holder.layers.get(name) is link:
                return name
            link = above
        return None

    def reads_weight(self, x: Any) -> bool:
        if not is_array(x) or x.ndim < 2 or x.dtype.kind != 'f':
            return False
        return any(
            x is param or x is param.array for param in self.root.params())

    def source(self, edit: Edit, place: Place) -> Any:
        value = self.scope_of(edit.uid).values.get(edit.uid)
        if value is None and any(
                binding.is_source and binding.edit.uid == edit.uid
                for _, holder in self.holders for binding in holder.bindings):
            raise EditError(
                f'{edit}: the source has not run when {place.address} reads '
                'it')
        return value

    def layer(self, edit: Edit, place: Place, inputs: Sequence[Any],
              outputs: Sequence[Any]) -> chainer.Link:
        if not edit.each:
            return self._shared_layer(edit.uid)
        holder = holder_of(place.owner)
        assert holder is not None
        known = holder.each.get((edit.uid, place.site))
        if known is not None:
            return holder.layers[known]
        kind, args = ((class_of(place.subject), {}) if place.is_call
                      else arguments(place.subject))
        node = place.node(kind, args)
        node.inputs = tuple(
            Value(chainer.as_variable(x).array, 'input')
            for x in inputs if is_array(x))
        node.outputs = tuple(
            Value(y.array, place.address, node, i)
            for i, y in enumerate(outputs))
        layer = holder.layer_for(edit, node)
        self.adopt(place.owner, layer)
        return layer

    def _shared_layer(self, uid: str) -> chainer.Link:
        """The layer of an edit, held by a link that is being called."""
        frame = self.frame
        while frame is not None:
            if frame.holder is not None and uid in frame.holder.shared:
                return frame.holder.layers[frame.holder.shared[uid]]
            frame = frame.parent
        for _, holder in self.holders:
            if uid in holder.shared:
                return holder.layers[holder.shared[uid]]
        raise EditError(
            'the layer of an edit is held by a link that was not called: '
            'call the model that the edit was made on, or make the edit on '
            f'the {class_of(self.root).__name__} itself')
