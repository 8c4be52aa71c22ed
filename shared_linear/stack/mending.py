"""Mends modules of Chainer while they are imported.

A mend is a function that edits the source of one module, as it is read and
before it is compiled: the file on the disk, NumPy and everybody else in the
process stay as they are. Nothing of ours is on the stack when the module
runs, lines keep their numbers, and classes keep their names.
"""
from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable, Sequence

from shared_linear.stack import imported

Mend = Callable[['Source'], object]

# The mends of each module, in the order of their definition.
_mends: dict[str, list[Mend]] = {}


class NotAsReleased(Exception):

    """The text that a mend edits is not there: somebody else changed it."""


class Source:

    """The text of a module, to be edited by its mends."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text

    def replace(self, old: str, new: str, count: int = 1) -> None:
        """Puts ``new`` in the place of ``old``, which is there count times.

        Lines that ``new`` has less are left empty, so that all the others
        keep their numbers.
        """
        if self.text.count(old) != count:
            raise NotAsReleased('{}: {!r}'.format(self.name, old))
        missing = old.count('\n') - new.count('\n')
        if missing < 0:
            raise ValueError('more lines than before: {!r}'.format(new))
        self.text = self.text.replace(old, new + missing * '\n')


def mends(*names: str) -> Callable[[Mend], Mend]:
    """Registers a function as a mend of the modules of these names."""
    def register(mend: Mend) -> Mend:
        for name in names:
            _mends.setdefault(name, []).append(mend)
        return mend
    return register


def all_mends() -> list[tuple[str, Mend]]:
    """Every module that has mends, with each of them."""
    return [(name, mend) for name, list_ in _mends.items() for mend in list_]


def mended(name: str, text: str, mend: Mend) -> str | None:
    """The text after one mend, or None where it is not needed.

    Raises:
        NotAsReleased: If the text is not that of Chainer 7.8.1.

    """
    source = Source(name, text)
    mend(source)
    return source.text if source.text != text else None


def _with_all_mends(name: str, text: str) -> str:
    for mend in _mends[name]:
        try:
            text = mended(name, text, mend) or text
        except NotAsReleased:
            # Another's own mend, or another Chainer: "python -m
            # shared_linear --check" says so.
            continue
    return text


def text_of(spec: importlib.machinery.ModuleSpec) -> str | None:
    """The source of a module as it is on the disk, if it has one."""
    if not isinstance(spec.loader, importlib.machinery.SourceFileLoader):
        return None
    return importlib.util.decode_source(
        spec.loader.get_data(spec.loader.path))


class _Loader(importlib.machinery.SourceFileLoader):

    """Compiles the mended source, past the cache of compiled files."""

    def get_code(self, fullname: str) -> types.CodeType:
        text = importlib.util.decode_source(self.get_data(self.path))
        return self.source_to_code(
            _with_all_mends(fullname, text).encode(), self.path)


class _Finder:

    """Finds what the others find, and gives it a loader that mends."""

    @classmethod
    def find_spec(
            cls, name: str, path: Sequence[str] | None = None,
            target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in _mends:
            return None
        for finder in sys.meta_path:
            if finder is cls or not hasattr(finder, 'find_spec'):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if type(spec.loader) is importlib.machinery.SourceFileLoader:
                    spec.loader = _Loader(name, spec.loader.path)
                return spec
        return None


def install() -> None:
    """From now on modules that have mends are mended as they are imported.

    Those that are imported already are mended in place.
    """
    if any(getattr(finder, '__module__', None) == __name__
           for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _Finder)
    for name in _mends:
        module = sys.modules.get(name)
        spec = getattr(module, '__spec__', None)
        text = text_of(spec) if spec is not None else None
        if module is not None and text is not None:
            new = _with_all_mends(name, text)
            if new != text:
                imported.mend(module, text, new)
