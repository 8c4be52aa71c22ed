"""What may befall a run, at a moment that is chosen in its code.

A moment is a phase of the run, which call of it, and which event of that
call: every function that it calls or returns from, Python's or C's, is one.
So nothing depends on the speed of the machine.
"""
import functools
import itertools
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from chainer.training.updaters import StandardUpdater

from mnist.curves import DrawCurves
from mnist.evaluation import EvaluateEveryDigit
from mnist.log import LogReport
from mnist.snapshots import TakeSnapshots

PHASES = {
    'update': (StandardUpdater, 'update'),
    'test': (EvaluateEveryDigit, '__call__'),
    'log': (LogReport, '__call__'),
    'plot': (DrawCurves, '__call__'),
    'snapshot': (TakeSnapshots, 'take'),
}


def _profile(phase: str, begin: Callable[[int], Callable | None]) -> None:
    """Runs each call of a phase under the profiler that begin(call) gives."""
    owner, name = PHASES[phase]
    original = getattr(owner, name)
    calls = itertools.count()

    @functools.wraps(original)
    def profiled(*args, **kwargs):
        profiler = begin(next(calls))
        if profiler is None:
            return original(*args, **kwargs)
        sys.setprofile(profiler)
        try:
            return original(*args, **kwargs)
        finally:
            sys.setprofile(None)

    setattr(owner, name, profiled)


def count_events() -> dict[str, list[int]]:
    """Returns what will hold the number of events, by phase and by call."""
    counts: dict[str, list[int]] = {phase: [] for phase in PHASES}

    def begin(phase: str, call: int) -> Callable:
        counts[phase].append(0)

        def count(frame, event, argument):
            counts[phase][-1] += 1
        return count

    for phase in PHASES:
        _profile(phase, functools.partial(begin, phase))
    return counts


def arrange(
        phase: str, call: int, event: int, accident: str, *details) -> None:
    """Has an accident happen at a moment of the run that follows."""
    events = itertools.count()

    def happen(frame, kind, argument):
        if next(events) == event:
            sys.setprofile(None)
            ACCIDENTS[accident](*details)

    _profile(phase, lambda number: happen if number == call else None)


def _fill_disk(size: int) -> None:
    """No file can grow beyond this size any more."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))


def _replace_by_file(folder: str) -> None:
    shutil.rmtree(folder)
    Path(folder).write_bytes(b'mine')


ACCIDENTS = {
    'kill': lambda: os.kill(os.getpid(), signal.SIGKILL),
    'signal': lambda number: os.kill(os.getpid(), number),
    'fill disk': _fill_disk,
    'replace by file': _replace_by_file,
}
