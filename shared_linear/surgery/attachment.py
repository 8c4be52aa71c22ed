"""Binds edits to the links of a model, and takes them off."""
from collections.abc import Sequence

import chainer

from shared_linear.surgery import edited, notice
from shared_linear.surgery.addresses import EditError, Pattern, nearest, split
from shared_linear.surgery.callables import label_of
from shared_linear.surgery.graph import Graph
from shared_linear.surgery.holding import Binding, free_name, holder_of
from shared_linear.surgery.kinds import Edit
from shared_linear.surgery.verification import matching


def next_number(model: chainer.Link) -> int:
    """A number after those of all edits that act in a model."""
    holders = [holder for _, link in model.namedlinks()
               if (holder := holder_of(link)) is not None]
    return 1 + max((
        edit.number for holder in holders
        for edit in (*holder.made, *(b.edit for b in holder.bindings))),
        default=0)


def attach(model: chainer.Link, edit: Edit, layer: 'chainer.Link | None',
           graphs: list[Graph], exact: bool = False, path: str = '') -> None:
    """Binds an edit to the links in which its addresses may run."""
    readers = _owners(model, edit.patterns)
    if not readers:
        raise EditError(
            f'{edit}: no link has the path; the nearest are '
            + nearest(edit.patterns[0].text,
                      [p for p, _ in model.namedlinks(skipself=True)]))
    if layer is not None:
        paths = [p for p, _, _ in readers]
        if graphs:
            nodes = [n for g in graphs for n in matching(g, edit, path)]
            known = {id(node.owner) for node in nodes}
            paths = [p for p, link, _ in readers
                     if id(link) in known] or paths
        _hold_layer(model, edit, layer, _common(paths), exact)
    holder = edited.hold(model)
    holder.made = (*holder.made, edit)
    for _, link, bindings in readers:
        for binding in bindings:
            edited.hold(link).bind(Binding(edit, *binding))
    for _, link, bindings in _owners(model, edit.sources):
        for binding in bindings:
            edited.hold(link).bind(Binding(edit, *binding, True))
    if edit.each:
        for graph in graphs:
            for node in matching(graph, edit, path):
                warn_of_optimizer(
                    model, edited.hold(node.owner).layer_for(edit, node))


def _owners(model: chainer.Link, patterns: Sequence[Pattern],
            ) -> list[tuple[str, chainer.Link,
                            list[tuple[tuple[str, ...], bool]]]]:
    owners = []
    seen = set()
    for path, link in model.namedlinks():
        bindings = [(names, pattern.ignore_case) for pattern in patterns
                    if (names := pattern.within(path))]
        if bindings and id(link) not in seen:
            seen.add(id(link))
            owners.append((path, link, bindings))
    return owners


def _common(paths: Sequence[str]) -> tuple[str, ...]:
    parts = [split(path) for path in paths]
    common = []
    for names in zip(*parts, strict=False):
        if len(set(names)) > 1:
            break
        common.append(names[0])
    return tuple(common)


def _hold_layer(model: chainer.Link, edit: Edit, layer: chainer.Link,
                path: tuple[str, ...], exact: bool) -> None:
    text = '/' + '/'.join(path)
    link = dict(model.namedlinks())[text]
    name = free_name(link, edit.name)
    if exact and name != edit.name:
        raise EditError(
            f'{edit}: {text} has something named {edit.name!r} already; '
            f'{name!r} is free')
    edit.name = name
    layer.to_device(link.device)
    edited.hold(link).add_layer(name, layer, edit)


def warn_of_optimizer(model: chainer.Link, layer: chainer.Link) -> None:
    if any(True for _ in layer.params()) and any(
            param.update_rule is not None for param in model.params()):
        notice.warn(
            f'an optimizer was set up before the layer {label_of(layer)} '
            'was inserted, and does not train it: call optimizer.setup(model) '
            'again, which begins with a new state')


def detach(model: chainer.Link, uids: set[str]) -> None:
    """Takes edits off everything below a model."""
    links = [link for _, link in model.namedlinks()
             if holder_of(link) is not None]
    for link in links:
        edited.hold(link).drop(uids)
    for link in links:
        edited.release(link)
