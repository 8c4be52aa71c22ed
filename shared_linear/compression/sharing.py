"""The numbers of tiles and blocks of the layers that are to be shared."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from shared_linear.compression.paths import matching
from shared_linear.compression.pipeline import Compression
from shared_linear.compression.planning import Form
from shared_linear.layers import checks


class Numbers:

    """What a user says of the layers of a model, by layer.

    Args:
        work: What is known of the model.

    """

    def __init__(self, work: Compression) -> None:
        self._work = work
        self._links: dict[str, Any] = work.dense
        self._open = [
            path for path in work.dense
            if work.notes.get(path) != 'is excluded']

    def forms(
            self, n_tiles: Any, n_blocks: Any) -> dict[str, Form]:
        """Forms of the layers that may change, for numbers of the user's."""
        numbers = self._match(
            'n_tiles', n_tiles, self._open, self._in_size, 'input')
        if not numbers:
            raise ValueError('there is no layer to share')
        blocks = self.match_blocks(n_blocks, numbers)
        self._check(numbers)
        return dict.fromkeys(self._work.layers, Form()) | {
            path: Form(n, n_blocks=blocks.get(path, 1))
            for path, n in numbers.items()}

    def match_blocks(
            self, n_blocks: Any, paths: Iterable[str]) -> dict[str, int]:
        """The number of blocks for some of the paths that may be shared."""
        numbers = self._match(
            'n_blocks', n_blocks, list(paths),
            lambda path: self._links[path].out_size, 'output')
        if not numbers:
            raise ValueError('n_blocks is of no layer that is shared')
        return numbers

    def may_change(self) -> list[str]:
        """Layers that are not excluded, each of which can be shared."""
        self._check(self._open)
        return self._open

    def _in_size(self, path):
        W = self._links[path].W
        if not W.is_initialized:
            raise ValueError(
                '{} has no weight yet: only a trained model can be '
                'shared'.format(path))
        return W.shape[1]

    def _match(
            self, name: str, number: Any, paths: list[str],
            size_of: Callable[[str], int], what: str) -> dict[str, int]:
        if not isinstance(number, Mapping):
            number = checks.check_positive_int(number, name)
            sizes = {path: size_of(path) for path in paths}
            numbers = {
                path: number for path in paths if sizes[path] % number == 0}
            if not numbers:
                reasons = [
                    checks.describe_divisors(size, number, name) + ' of '
                    + path for path, size in sizes.items()]
                raise ValueError('{} = {} divides no {} size: '.format(
                    name, number, what) + '; '.join(reasons))
            return numbers
        numbers = {}
        for pattern, one in number.items():
            one = checks.check_positive_int(one, name)
            for path in matching(self._links, pattern):
                if path not in paths:
                    continue
                size = size_of(path)
                if size % one != 0:
                    raise ValueError('{}: {}'.format(
                        path, checks.describe_divisors(size, one, name)))
                numbers.setdefault(path, one)
        return numbers

    def _check(self, paths):
        """Raises if one of the layers cannot be shared."""
        for path in paths:
            if path in self._work.notes:
                raise ValueError('{} {}: exclude it'.format(
                    path, self._work.notes[path]))
            self._in_size(path)
