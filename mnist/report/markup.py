"""HTML and SVG as Python calls, escaped unless they are markup already."""
import html
import re
from collections.abc import Iterable
from typing import Any

_VOID = {
    'br', 'circle', 'col', 'img', 'line', 'link', 'meta', 'path', 'rect',
    'source'}
# Those of HTML only; an SVG element without content is closed by a slash.
_VOID_HTML = {'br', 'col', 'img', 'link', 'meta', 'source'}
# What no page may hold: control characters, and halves of a character.
_UNSEEN = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]')


class Markup(str):
    """Text that is markup, and is not escaped once more."""


def escape(text: object) -> str:
    """Returns text as it is shown: ``<`` escaped, the unseen spelled out."""
    if isinstance(text, Markup):
        return text
    visible = _UNSEEN.sub(
        lambda match: ascii(match[0])[1:-1], str(text))
    return html.escape(visible)


def join(children: Iterable[Any]) -> Markup:
    """Returns children one after the other; None is left out."""
    parts = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, str) or not isinstance(child, Iterable):
            parts.append(escape(child))
        else:
            parts.append(join(child))
    return Markup(''.join(parts))


def tag(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """Returns an element.

    >>> tag('p', 'a < b', class_='note')
    '<p class="note">a &lt; b</p>'
    >>> tag('line', stroke_width=2)
    '<line stroke-width="2"/>'

    Args:
        name (str): Its tag.
        children: Texts, markup, or sequences of both.
        attributes: ``stroke_width`` is ``stroke-width``, and the ``_`` at
            the end of ``class_`` is left out. An attribute of None is too.
    """
    start = ''.join(
        ' {}="{}"'.format(key.rstrip('_').replace('_', '-'), escape(value))
        for key, value in attributes.items() if value is not None)
    if name in _VOID:
        assert not children
        return Markup(f'<{name}{start}{"" if name in _VOID_HTML else "/"}>')
    return Markup(f'<{name}{start}>{join(children)}</{name}>')
