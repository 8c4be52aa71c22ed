"""One thread at a time examines a model, while no other runs it.

To examine a model is to run it and put back what that changed, or to edit
it. What another thread's run changes meanwhile would be put back, too.
Threads that are in a run are waited for, and new runs wait at a gate.
"""
import contextlib
import os
import sys
import threading
import time
from collections.abc import Collection, Iterator
from types import FrameType

# In seconds. A thread may wait for what it is waited for, as where a forward
# has its parts run by threads of its own.
PATIENCE = 10.


class Busy(RuntimeError):

    """A model is in use by another thread."""


class _Turns:

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.owner: int | None = None
        self.depth = 0
        # Links that are examined, by id, and how often.
        self.links: dict[int, int] = {}
        # Threads that wait for their turn.
        self.waiting: set[int] = set()

    def after_fork(self) -> None:
        """Only the thread that forked goes on in the child."""
        self.lock = threading.RLock()
        self.waiting = set()
        if self.owner == threading.get_ident():
            for _ in range(self.depth):
                self.lock.acquire()
        else:
            self.owner, self.depth, self.links = None, 0, {}


_turns = _Turns()
os.register_at_fork(after_in_child=_turns.after_fork)


@contextlib.contextmanager
def turn(links: Collection[object], name: str) -> Iterator[None]:
    """Waits until no other thread runs or examines these links.

    Args:
        links: The links.
        name: Of the model, for the error.

    Raises:
        Busy: If they are still run after a while.

    """
    me = threading.get_ident()
    _turns.waiting.add(me)
    try:
        if not _turns.lock.acquire(timeout=PATIENCE):
            raise Busy(
                f'{name} cannot be examined: another thread has been tracing '
                f'or editing a model for {PATIENCE:g} seconds')
    finally:
        _turns.waiting.discard(me)
    try:
        _turns.owner = me
        _turns.depth += 1
        ids = {id(link) for link in links}
        new = ids.difference(_turns.links)
        for key in ids:
            _turns.links[key] = _turns.links.get(key, 0) + 1
        try:
            _wait_for_others(new, me, name)
            yield
        finally:
            for key in ids:
                _turns.links[key] -= 1
                if not _turns.links[key]:
                    del _turns.links[key]
    finally:
        _turns.depth -= 1
        if not _turns.depth:
            _turns.owner = None
        _turns.lock.release()


def _wait_for_others(ids: set[int], me: int, name: str) -> None:
    end = time.monotonic() + PATIENCE
    while ids and any(
            _runs(frame, ids) for thread, frame in
            sys._current_frames().items()
            if thread != me and thread not in _turns.waiting):
        if time.monotonic() > end:
            raise Busy(
                f'{name} runs in another thread, which has not come to an '
                f'end in {PATIENCE:g} seconds: trace and edit a model when '
                'no other thread runs it')
        time.sleep(.001)


def _runs(frame: 'FrameType | None', ids: set[int]) -> bool:
    while frame is not None:
        if id(_first_argument(frame)) in ids:
            return True
        frame = frame.f_back
    return False


def _first_argument(frame: FrameType) -> object:
    code = frame.f_code
    if not code.co_argcount:
        return None
    return frame.f_locals.get(code.co_varnames[0])


def gate(link: object) -> None:
    """Waits where another thread examines the link that is to run."""
    if id(link) not in _turns.links:
        return
    me = threading.get_ident()
    if _turns.owner == me or _is_inside(sys._getframe(1)):
        return
    _turns.waiting.add(me)
    try:
        # Later the edits act all the same, which is what counts.
        if _turns.lock.acquire(timeout=PATIENCE):
            _turns.lock.release()
    finally:
        _turns.waiting.discard(me)


def _is_inside(frame: 'FrameType | None') -> bool:
    """Whether this thread is in a run that is waited for."""
    while frame is not None:
        if (not str(frame.f_globals.get('__name__')).startswith(
                'shared_linear.surgery.')
                and id(_first_argument(frame)) in _turns.links):
            return True
        frame = frame.f_back
    return False
