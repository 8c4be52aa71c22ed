"""Tries edits: when they are made, or when the model runs first."""
from collections.abc import Iterator
from typing import Any

import chainer

from shared_linear.surgery import edited
from shared_linear.surgery.addresses import EditError, Pattern
from shared_linear.surgery.attachment import attach, detach
from shared_linear.surgery.graph import Graph
from shared_linear.surgery.holding import holder_of
from shared_linear.surgery.kinds import Edit
from shared_linear.surgery.preservation import transaction
from shared_linear.surgery.trace import Example, record
from shared_linear.surgery.turns import Busy
from shared_linear.surgery.verification import (
    check_addresses,
    explain_array,
    matching,
    try_edit,
)


def tried(model: chainer.Link, edit: Edit, graphs: list[Graph],
          example: Example) -> None:
    """Makes an edit after these runs, the first of which is repeated."""
    check_addresses(model, edit, graphs, example)
    attach(model, edit, None, graphs)
    try_edit(model, edit, graphs[0], example)
    edit.confirmed = True


def verified(root: chainer.Link, link: chainer.Link, path: str, edit: Edit,
              layer: 'chainer.Link | None', examples: dict[bool, Example],
              exact: bool) -> None:
    graphs = [record(root, example, train)
              for train, example in examples.items()]
    _choose_case(edit, graphs, path)
    example = list(examples.values())[-1]
    check_addresses(root, edit, graphs, example, path)
    attach(link, edit, layer, graphs, exact, path)
    for graph, example in zip(graphs, examples.values(), strict=True):
        if matching(graph, edit, path):
            try_edit(root, edit, graph, example)
    edit.confirmed = True


def _choose_case(edit: Edit, graphs: list[Graph], path: str) -> None:
    """Lets ``/dropout`` mean ``/Dropout`` where nothing has that name."""
    if not any(matching(graph, edit, path) for graph in graphs):
        exact = edit.patterns
        edit.patterns = tuple(
            Pattern(pattern.text, ignore_case=True) for pattern in exact)
        if not any(matching(graph, edit, path) for graph in graphs):
            edit.patterns = exact


def _check_first_run(model: chainer.Link, args: tuple[Any, ...],
                     kwargs: dict[str, Any]) -> None:
    """Tries pending edits on the arguments of the first run."""
    if any(isinstance(x, Iterator) for x in (*args, *kwargs.values())):
        # A trial would leave nothing of it for the run.
        return
    try:
        with transaction(model):
            _try_pending(model, {chainer.config.train: Example(args, kwargs)})
    except Refused as refused:
        detach(model, {refused.edit.uid})
        raise refused.error from refused.error.__cause__
    except Busy:
        # The edits act untried rather than not at all.
        return


class Refused(Exception):

    """An edit that the model cannot take."""

    def __init__(self, edit: Edit, error: EditError) -> None:
        super().__init__(str(error))
        self.edit = edit
        self.error = error


def _try_pending(model: chainer.Link, examples: dict[bool, Example]) -> None:
    pending = []
    for path, link in model.namedlinks():
        for edit in edited.made_on(link):
            # Another thread may have tried it while this one waited.
            if not edit.confirmed:
                pending.append((edit, path, link, _layer_of(model, edit)))
    pending.sort(key=lambda one: one[0].number)
    detach(model, {edit.uid for edit, _, _, _ in pending})
    for edit, path, link, layer in pending:
        path = '' if path == '/' else path
        if path and not any(
                _reaches(record(model, example, train), path)
                for train, example in examples.items()):
            # This run does not come there: another one will try it.
            attach(link, edit, layer, [])
            continue
        try:
            verified(model, link, path, edit, layer, examples, False)
        except EditError as error:
            raise Refused(edit, error) from error


def _reaches(graph: Graph, path: str) -> bool:
    return any(f'{address}/'.startswith(f'{path}/')
               for address in (*graph.places, *graph.hidden))


def _layer_of(model: chainer.Link, edit: Edit) -> 'chainer.Link | None':
    for _, link in model.namedlinks():
        holder = holder_of(link)
        if holder is not None and edit.uid in holder.shared:
            return holder.layers[holder.shared[edit.uid]]
    return None


def _check_missing(model: chainer.Link, path: str, edit: Edit,
                   args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raises where an edit was passed over because of a plain array."""
    message = explain_array(
        model, edit, edit.patterns, Example(args, kwargs),
        chainer.config.train, '' if path == '/' else path)
    if message is not None:
        raise EditError(message)
    # The model took another way: no need to look again.
    edit.modes.discard(chainer.config.train)


edited.before_first_run.append(_check_first_run)
edited.after_missing.append(_check_missing)
