"""Layers of a model by patterns of their paths."""
from __future__ import annotations

import fnmatch
from collections.abc import Iterable


def matching(layers: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """Paths of layers that match one of some patterns."""
    layers = list(layers)
    if isinstance(patterns, str):
        patterns = (patterns,)
    if not isinstance(patterns, Iterable):
        raise TypeError(
            'layers are chosen by patterns of their paths, strs, not by '
            '{!r}'.format(patterns))
    matching = []
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(
                'a pattern of the paths of layers must be a str, not '
                '{!r}'.format(pattern))
        found = fnmatch.filter(layers, pattern)
        if not found:
            raise ValueError(
                'no layer matches {!r}: there are {}'.format(
                    pattern, ', '.join(layers)))
        matching += found
    return list(dict.fromkeys(matching))
