"""Layers of a model by patterns of their paths."""
from __future__ import annotations

import fnmatch
from collections.abc import Iterable


def matching(layers: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """Paths of layers that match one of some patterns."""
    layers = list(layers)
    patterns = (patterns,) if isinstance(patterns, str) else patterns
    matching = []
    for pattern in patterns:
        found = fnmatch.filter(layers, pattern)
        if not found:
            raise ValueError(
                'no layer matches {!r}: there are {}'.format(
                    pattern, ', '.join(layers)))
        matching += found
    return list(dict.fromkeys(matching))
