"""A traced run as Graphviz text."""
from collections.abc import Sequence
from typing import Any

from shared_linear.surgery.nodes import Node, Value

INSERTED = 'style=filled fillcolor="#cfe8cf" color="#2e7d32"'
SKIPPED = 'style=dashed color="#b71c1c" fontcolor="#b71c1c"'

REWIRED = ' style=bold color="#2e7d32"'


def quote(text: str) -> str:
    escaped = text.replace('\\', '\\\\').replace('"', '\\"')
    return '"' + escaped.replace('\n', '\\n') + '"'


def to_dot(functions: Sequence[Node], skipped: Sequence[Node],
           rewired: Sequence[tuple[Value, str]], outputs: Sequence[Value],
           edits: Sequence[Any]) -> str:
    """Draws functions as boxes and what they read as ellipses.

    Inserted layers are filled, functions and links that an edit took out
    are dashed, arrows that it led elsewhere bold, and each arrow carries the
    shape of what flows along it.

    """
    names: dict[int, str] = {}

    def name_of(thing: object) -> str:
        return names.setdefault(id(thing), f'n{len(names)}')

    lines = ['digraph model {', '  rankdir=TB;',
             '  node [fontname="Helvetica" fontsize=11];',
             '  edge [fontname="Helvetica" fontsize=9];']

    def arrow(value: Value, reader: str, style: str = '') -> None:
        source = value if value.producer is None else value.producer
        lines.append(
            f'  {name_of(source)} -> {reader} '
            f'[label={quote(str(value.shape))}{style}];')

    def declare_leaves(node: Node) -> None:
        for value in node.inputs:
            if value.producer is None and id(value) not in names:
                lines.append(f'  {name_of(value)} [shape=ellipse '
                             f'label={quote(value.origin)}];')

    for node in functions:
        declare_leaves(node)
        mark = f' {INSERTED}' if node.inserted else ''
        lines.append(f'  {name_of(node)} [shape=box '
                     f'label={quote(node.address)}{mark}];')
        for value in node.inputs:
            led = any(
                value is source and f'{node.address}/'.startswith(f'{place}/')
                for source, place in rewired)
            arrow(value, name_of(node), REWIRED if led else '')
    for node in skipped:
        declare_leaves(node)
        label = quote(f'{node.address}\n{node.skipped}')
        lines.append(
            f'  {name_of(node)} [shape=box label={label} {SKIPPED}];')
        for value in node.inputs[:1]:
            arrow(value, name_of(node), ' style=dashed color="#b71c1c"')
    for i, value in enumerate(outputs):
        lines.append(f'  y{i} [shape=ellipse label="output"];')
        arrow(value, f'y{i}')
    if edits:
        text = '\n'.join(str(edit) for edit in edits)
        lines.append(f'  label={quote(text)};')
    lines.append('}')
    return '\n'.join(lines) + '\n'
