"""Ctrl-C and SIGTERM: a run that ends where it can go on exactly."""
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from chainer.training import Trainer, extension

from mnist.processes import Processes
from mnist.snapshots import TakeSnapshots

SIGNALS = [signal.SIGINT, signal.SIGTERM]
# What the processes tell each other of a warning; no signal of these.
WARNED = 1
# Seconds in which SIGTERM follows a warning; Open MPI 5 takes a quarter.
PATIENCE = .5


class StopSignals:
    """Receives SIGINT and SIGTERM, and lets an iteration come to its end.

    Within the context, a signal raises KeyboardInterrupt. While
    ``is_training`` is set, the first one is only noted, for
    :class:`StopWhenAsked`, and the second raises it.

    Args:
        warning (int): Signal that may be followed by one of them, and soon
            by SIGKILL; None if there is none such.

    Attributes:
        received (int): Number of the last signal, 0 before the first.
        is_warned (bool): Whether a warning came.
        is_training (bool): Whether the first signal can wait.
        hurry (callable): Called if the signal comes before what was done
            for its warning is done.
    """

    hurry: Callable[[], None] | None = None

    def __init__(self, warning: int | None = None) -> None:
        self.received = 0
        self._is_ready = False
        self.is_warned = False
        self.is_training = False
        self._warning = warning
        self._handlers: dict[int, Any] = {}

    @property
    def status(self) -> int:
        """Exit status of a process that a signal has ended."""
        return 128 + (self.received or signal.SIGINT)

    @property
    def asked(self) -> int:
        """The last signal, ``WARNED``, or 0 if nothing came."""
        return self.received or (WARNED if self.is_warned else 0)

    def heed_warning(self) -> int:
        """Returns the signal that a warning was of, 0 if there is none."""
        self._is_ready = True
        end = time.monotonic() + PATIENCE
        while not self.received and time.monotonic() < end:
            time.sleep(.01)
        self._is_ready = False
        return self.received

    def __enter__(self) -> 'StopSignals':
        # Python takes signals in the main thread only.
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                # A shell's background job is deaf to Ctrl-C, and stays so.
                # None is a handler of C's, which Python could not put back.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._handlers[number] = signal.signal(
                        number, self._receive)
            if self._warning is not None:
                self._handlers[self._warning] = signal.signal(
                    self._warning, self._be_warned)
        return self

    def __exit__(
            self, kind: type[BaseException] | None,
            error: BaseException | None,
            traceback: TracebackType | None) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        can_wait = self.is_training and not self.received
        self.received = number
        if not can_wait:
            raise KeyboardInterrupt
        if self.is_warned and not self._is_ready and self.hurry is not None:
            self.hurry()

    def _be_warned(self, number: int, frame: FrameType | None) -> None:
        self.is_warned = True


class StopWhenAsked(extension.Extension):
    """Ends a run after the iteration in which a signal came.

    It has the snapshot taken that the run goes on from, unless the iteration
    had one anyway. If a process of several got the signal, all of them end
    after the same iteration. After a warning they do the same, and then wait
    whether it is followed by a signal: it leaves no time for a snapshot.

    Args:
        signals (StopSignals): What has come.
        n_epochs (int): Epochs of the whole run; after them it ends anyway.
        processes (Processes): The processes of the run.
    """

    # After all that changes what a snapshot keeps.
    priority = TakeSnapshots.priority - 100

    def __init__(
            self, signals: StopSignals, n_epochs: int,
            processes: Processes) -> None:
        self._signals = signals
        self._n_epochs = n_epochs
        self._processes = processes

    def __call__(self, trainer: Trainer) -> None:
        received = self._processes.maximum(self._signals.asked)
        if not received or trainer.updater.epoch >= self._n_epochs:
            return
        if self._processes.is_first:
            trainer.get_extension('TakeSnapshots').take(trainer)
        self._processes.wait_for_all()
        if received == WARNED:
            received = self._processes.maximum(self._signals.heed_warning())
            if not received:
                self._signals.is_warned = False
                return
        self._signals.received = received
        self._processes.come_together()
        raise KeyboardInterrupt
