"""Addresses of what runs in a model, and the patterns that select them.

A function's address is the path of the link that it ran in and its class
name, counted when the link runs that class again: ``/l1/LinearFunction``,
``/ReLU``, ``/ReLU_1``. The call of a link has the link's path as address,
counted likewise: ``/l1``, ``/l1_1``.
"""
import difflib
import fnmatch
import functools
import re
from collections.abc import Iterable, Sequence


class EditError(ValueError):

    """An edit that the model cannot take.

    The message names the edit, what was found and the nearest thing that
    works. The model is left as it was before the edit.

    """


def split(address: str) -> tuple[str, ...]:
    return tuple(part for part in address.split('/') if part)


class Pattern:

    """Selects addresses, as a shell selects files.

    ``*`` and ``?`` stay between two slashes, and ``**`` spans any number of
    them. A pattern that starts with ``/`` is matched from the model's root,
    any other at every depth: ``ReLU*`` is ``/**/ReLU*``.

    Args:
        text (str): The pattern.
        ignore_case (bool): Whether ``/dropout`` matches ``/Dropout``.

    """

    def __init__(self, text: str, ignore_case: bool = False) -> None:
        if not isinstance(text, str):
            raise TypeError(
                'an address must be a str such as \'/l1/ReLU\', not '
                f'{type(text).__name__}')
        self.parts = split(text)
        if not self.parts:
            raise ValueError(
                f'the address {text!r} names nothing in a model: give a '
                'link, such as \'/l1\', or a function, such as \'/ReLU\'')
        if not text.startswith('/'):
            self.parts = ('**', *self.parts)
        self.text = '/' + '/'.join(self.parts)
        self.ignore_case = ignore_case

    def _closure(self, states: Iterable[int]) -> set[int]:
        reached = set()
        for state in states:
            reached.add(state)
            while state < len(self.parts) and self.parts[state] == '**':
                state += 1
                reached.add(state)
        return reached

    def _step(self, states: set[int], name: str) -> set[int]:
        following = set()
        for state in states:
            if state == len(self.parts):
                continue
            if self.parts[state] == '**':
                following.add(state)
            elif name_regex(self.parts[state], self.ignore_case).match(name):
                following.add(state + 1)
        return self._closure(following)

    def matches(self, address: str) -> bool:
        """Whether the whole ``address`` is selected."""
        states = self._closure([0])
        for name in split(address):
            states = self._step(states, name)
        return len(self.parts) in states

    def within(self, path: str) -> tuple[str, ...]:
        """The patterns of the names that are selected directly in a link.

        Args:
            path (str): Path of the link, ``''`` or ``/`` for the root.

        Returns:
            tuple of str: Patterns of one name each; empty where nothing
            that runs directly in the link can match.

        """
        states = self._closure([0])
        for name in split(path):
            states = self._step(states, name)
        last = set()
        for state in states:
            if state < len(self.parts):
                rest = self.parts[state + 1:]
                if all(part == '**' for part in rest):
                    part = self.parts[state]
                    last.add('*' if part == '**' else part)
        return tuple(sorted(last))


@functools.lru_cache(maxsize=4096)
def name_regex(pattern: str, ignore_case: bool = False) -> re.Pattern[str]:
    flags = re.IGNORECASE if ignore_case else 0
    return re.compile(fnmatch.translate(pattern), flags)


def nearest(pattern: str, addresses: Sequence[str], n: int = 3) -> str:
    """Names the addresses that look most like ``pattern``, for an error."""
    folded: dict[str, list[str]] = {}
    for address in addresses:
        folded.setdefault(address.lower(), []).append(address)
    keys = difflib.get_close_matches(
        pattern.lower(), folded, n=n, cutoff=0.3)
    found = [folded[key][0] for key in keys] or list(addresses[:n])
    return ', '.join(found) if found else 'there are none'
