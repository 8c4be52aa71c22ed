"""Lines that can be printed anywhere, and what stands there is printed to."""
import os
import sys
from typing import TextIO


def ready() -> None:
    """Lets whatever is printed be printable.

    A console of another encoding gets the characters that it lacks spelled
    out. A stream that is closed, as a service's may be, becomes one into
    nowhere, so that no file that is opened later takes its place.
    """
    for number, name in enumerate(['stdin', 'stdout', 'stderr']):
        stream = getattr(sys, name)
        if stream is None:
            mode = 'w' if number else 'r'
            stream = _open_nowhere(number, mode)
            setattr(sys, name, stream)
            if name == 'stdout':
                print('train_mnist.py: standard output is closed: nothing is '
                      'printed but errors', file=sys.stderr, flush=True)
        if number and hasattr(stream, 'reconfigure'):
            stream.reconfigure(errors='backslashreplace')


def note(line: str) -> None:
    """Prints a line about the run."""
    print(f'# {line}', flush=True)


class TerminalOrFile:
    """Drops the codes that clear a terminal's line where there is none.

    Args:
        stream (file): Where to write.
        is_terminal (bool): Whether somebody looks at it.
    """

    def __init__(self, stream: TextIO, is_terminal: bool) -> None:
        self._stream = stream
        self._is_terminal = is_terminal

    def write(self, text: str) -> None:
        if text != '\033[J' or self._is_terminal:
            self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()


def _open_nowhere(number: int, mode: str) -> TextIO:
    descriptor = os.open(os.devnull, os.O_RDWR)
    # The lowest number that is free: mostly the one that was closed.
    if descriptor != number and not _is_open(number):
        os.dup2(descriptor, number)
        os.close(descriptor)
        descriptor = number
    return open(descriptor, mode, closefd=False)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
