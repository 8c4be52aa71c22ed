"""Progress of a whole model."""
from __future__ import annotations

import sys

from chainer.training.extensions import util


class Progress:

    """A bar over the layers, each of which is met two or three times.

    Args:
        draws: Whether to draw it.
        memory: Bytes that it will take, which is said first.
        n_steps: How many layers are to come.

    """

    def __init__(self, draws: bool, memory: int, n_steps: int = 1) -> None:
        self._bar = _Bar() if draws else None
        if draws:
            sys.stdout.write(
                'fitting the layers takes about {:.2f} GiB\n'.format(
                    memory / 2 ** 30))
            self.expect(n_steps)

    def expect(self, n_steps: int) -> None:
        if self._bar is not None:
            self._bar.n_steps = n_steps

    def tick(self, path: str) -> None:
        if self._bar is not None:
            self._bar.done += 1
            self._bar.path = path
            self._bar.update()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class _Bar(util.ProgressBar):

    """Chainer's progress bar, over layers."""

    def __init__(self):
        super().__init__()
        self.n_steps = 1
        self.done = 0
        self.path = ''

    def get_lines(self):
        rate = min(1., self.done / self.n_steps)
        marks = '#' * int(rate * self._bar_length)
        return ['    layers [{}{}] {} of {}: {}\n'.format(
            marks, '.' * (self._bar_length - len(marks)), self.done,
            self.n_steps, self.path)]
