"""Ctrl-C and SIGTERM: a run that ends where it can go on exactly."""
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from chainer.training import Trainer, extension

from mnist.processes import Processes
from mnist.snapshots import TakeSnapshots

SIGNALS = [signal.SIGINT, signal.SIGTERM]


class StopSignals:
    """Receives SIGINT and SIGTERM, and lets an iteration come to its end.

    Within the context, a signal raises KeyboardInterrupt. While
    ``is_training`` is set, the first one is only noted, for
    :class:`StopWhenAsked`, and the second raises it.

    Attributes:
        received (int): Number of the last signal, 0 before the first.
        is_training (bool): Whether the first signal can wait.
    """

    def __init__(self) -> None:
        self.received = 0
        self.is_training = False
        self._handlers: dict[int, Any] = {}

    @property
    def status(self) -> int:
        """Exit status of a process that a signal has ended."""
        return 128 + (self.received or signal.SIGINT)

    def __enter__(self) -> 'StopSignals':
        # Python takes signals in the main thread only.
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                # A shell's background job is deaf to Ctrl-C, and stays so.
                # None is a handler of C's, which Python could not put back.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._handlers[number] = signal.signal(
                        number, self._receive)
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


class StopWhenAsked(extension.Extension):
    """Ends a run after the iteration in which a signal came.

    It has the snapshot taken that the run goes on from, unless the iteration
    had one anyway. If a process of several got the signal, all of them end
    after the same iteration.

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
        received = self._processes.maximum(self._signals.received)
        if not received or trainer.updater.epoch >= self._n_epochs:
            return
        self._signals.received = received
        if self._processes.is_first:
            trainer.get_extension('TakeSnapshots').take(trainer)
        self._processes.wait_for_all()
        self._processes.come_together()
        raise KeyboardInterrupt
