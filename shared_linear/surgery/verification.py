"""Tries an edit on example input, and says what is wrong with it."""
from typing import Any

import chainer

from shared_linear.surgery.addresses import EditError, Pattern, nearest
from shared_linear.surgery.graph import Graph
from shared_linear.surgery.kinds import Edit
from shared_linear.surgery.nodes import Node
from shared_linear.surgery.place import is_array
from shared_linear.surgery.run import Run
from shared_linear.surgery.trace import (
    Example,
    record,
    record_quietly,
    wrapped,
)


def matching(graph: Graph, edit: Edit, path: str = '') -> list[Node]:
    """The nodes at which an edit, made on the link at ``path``, acts."""
    found = []
    # What another edit takes out of the run is there to be edited, too.
    for node in (*graph.calls, *graph.functions, *graph.skipped):
        local = relative(node.address, path)
        if local is not None and edit.selects(node) and any(
                pattern.matches(local) for pattern in edit.patterns):
            found.append(node)
    return found


def relative(address: str, path: str) -> 'str | None':
    if path in ('', '/'):
        return address
    if address.startswith(path + '/'):
        return address[len(path):]
    return None


def check_addresses(model: chainer.Link, edit: Edit, graphs: list[Graph],
                    example: Example, path: str = '') -> None:
    """Raises unless the addresses exist in one of the unedited runs."""
    for graph in graphs:
        hidden = [address for address in graph.hidden
                  if (local := relative(address, path)) is not None
                  and any(p.matches(local) for p in edit.patterns)]
        if hidden:
            raise EditError(
                f'{edit}: {hidden[0]} runs inside another function, such as '
                'F.forget, which backward may run again by itself without '
                'the edits: edit around it, or call it without F.forget')
    if not any(matching(graph, edit, path) for graph in graphs):
        raise EditError(_nothing_at(
            model, edit, edit.patterns, graphs, example, path))
    for graph in graphs:
        for node in matching(graph, edit, path):
            edit.check(node)
            for source in edit.sources:
                _check_source(
                    model, edit, source, node, graph, example, path)


def _check_source(model: chainer.Link, edit: Edit, pattern: Pattern,
                  reader: Node, graph: Graph, example: Example,
                  path: str) -> None:
    addresses = graph.places
    found = [address for address in addresses
             if (local := relative(address, path)) is not None
             and pattern.matches(local)]
    if not found:
        raise EditError(_nothing_at(
            model, edit, (pattern,), [graph], example, path, 'source '))
    if len(found) > 1:
        raise EditError(
            f'{edit}: the source must be one address, and '
            f'{", ".join(found[:3])} match')
    source = found[0]
    # A call comes after all that runs in it: it starts at the first of them.
    starts = [i for i, address in enumerate(addresses)
              if address == reader.address
              or reader.is_call and address.startswith(reader.path + '/')]
    if addresses.index(source) >= min(starts):
        earlier = [a for a in addresses[:min(starts)]
                   if not reader.address.startswith(a + '/')]
        raise EditError(
            f'{edit}: the source {source} is computed later than its reader '
            f'{reader.address}: the nearest that is computed earlier are '
            f'{nearest(source, earlier)}')


def _nothing_at(model: chainer.Link, edit: Edit,
                patterns: 'tuple[Pattern, ...]', graphs: list[Graph],
                example: Example, path: str, what: str = '') -> str:
    text = ', '.join(pattern.text for pattern in patterns)
    modes = [graph.train for graph in graphs]
    for train in (True, False):
        if train not in modes:
            # Only to say more: an error of that mode is not the user's.
            other = _try_record(model, example, train)
            if other is not None and _any(other, patterns, path):
                mode, this = ('train', 'test') if train else ('test', 'train')
                return (
                    f'{edit}: {what}{text} runs in {mode} mode only, and this'
                    f' run is in {this} mode: trace the model under '
                    f'chainer.using_config(\'train\', {train}) first')
    array = explain_array(
        model, edit, patterns, example, modes[-1], path, what)
    if array is not None:
        return array
    near = [relative(address, path) for graph in graphs
            for address in graph.addresses]
    names = list(dict.fromkeys(name for name in near if name is not None))
    return (f'{edit}: {what}{text} matches nothing in this model; the '
            f'nearest are {nearest(text, names)}')


def explain_array(model: chainer.Link, edit: Edit,
                  patterns: 'tuple[Pattern, ...]', example: Example,
                  train: bool, path: str, what: str = '') -> 'str | None':
    """Says so if the edit would act were the input no plain array."""
    if not any(is_array(x) and not isinstance(x, chainer.Variable)
               for x in (*example.args, *example.kwargs.values())):
        return None
    other = _try_record(model, wrapped(example), train)
    if other is None or not _any(other, patterns, path):
        return None
    text = ', '.join(pattern.text for pattern in patterns)
    return (f'{edit}: {what}{text} runs only if the input is a '
            'chainer.Variable: NumPy computes with a plain array by itself, '
            'outside Chainer; wrap the input in a chainer.Variable')


def _any(graph: Graph, patterns: 'tuple[Pattern, ...]', path: str) -> bool:
    either = [Pattern(pattern.text, ignore_case=True) for pattern in patterns]
    return any(
        pattern.matches(local) for address in graph.addresses
        if (local := relative(address, path)) is not None
        for pattern in either)


def _try_record(model: chainer.Link, example: Example,
                train: bool) -> 'Graph | None':
    try:
        return record_quietly(model, example, train)
    except Exception:
        return None


def try_edit(model: chainer.Link, edit: Edit, before: Graph,
             example: Example) -> None:
    """Runs the edited model, and raises what is wrong with the edit."""
    runs: list[Run] = []

    def run_of(*args: Any) -> Run:
        runs.append(Run(*args))
        return runs[-1]

    error = None
    try:
        record(model, example, before.train, run_of)
    except EditError:
        raise
    except Exception as caught:
        error = caught
    if edit.stands_in:
        _check_standing_in(edit, before, runs[0], error)
    if error is not None:
        raise EditError(
            f'{edit}: the model fails with it, by {type(error).__name__}: '
            f'{first_line(error)}') from error


def _check_standing_in(edit: Edit, before: Graph, run: Run,
                       error: 'Exception | None') -> None:
    for address, now in run.shapes.items():
        if address not in before:
            continue
        was = tuple(y.shape for y in before[address].outputs)
        if now and len(was) != len(now):
            raise EditError(
                f'{edit}: in place of {address} the layer returned '
                f'{len(now)} outputs, and {len(was)} are needed') from error
        if error is not None and was != now:
            raise EditError(
                f'{edit}: changes the shape of {address} from '
                f'{listed(was)} to {listed(now)}, and the model then fails, '
                f'by {type(error).__name__}: {first_line(error)}') from error


def listed(shapes: 'tuple[tuple[int, ...], ...]') -> str:
    return ', '.join(str(shape) for shape in shapes)


def first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else 'no message'
