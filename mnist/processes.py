"""The processes of a run: one, or several that mpiexec started.

Several train as one would: each takes its part of every mini-batch, ChainerMN
averages the gradients, and the first of them writes and prints. Neither
mpi4py nor ChainerMN is imported in a run of one process.
"""
import contextlib
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import chainer
from chainer.dataset import Iterator
from chainer.datasets import TupleDataset
from chainer.iterators import SerialIterator
from chainer.training import Trainer
from chainer.training.extensions import Evaluator

from mnist.devices import get_device

Result = TypeVar('Result')


class Processes:
    """The processes of a run; here the only one there is.

    Attributes:
        rank (int): Number of this process, from 0.
        size (int): Number of processes.
        warning (int): Signal that mpiexec sends before SIGTERM, if SIGKILL
            follows too soon; else None.
    """

    rank = 0
    size = 1
    warning: int | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def open(self, communicator: str | None) -> None:
        """Makes what the processes average with.

        Args:
            communicator (str): ChainerMN's name of it.

        Raises:
            UserError: In all of them, if one of them cannot.
        """

    def agree(self, function: Callable[[], Result]) -> Result:
        """Calls a function in every process, and returns its own result.

        Raises:
            UserError: In all of them, if one of them raises it.
        """
        return function()

    def share(self, function: Callable[[], Result]) -> Result:
        """Calls a function in the first process, for a result that all get.

        Raises:
            UserError: In all of them, if the first raises it.
        """
        return function()

    def get_device(self, spec: str) -> chainer.backend.Device:
        """Returns the device of this process.

        Args:
            spec (str): What ``--device`` says.

        Raises:
            UserError: In all of them, if one of them lacks it.
        """
        return get_device(spec)

    def check_sizes(self, batchsize: int, n_test: int) -> None:
        """Raises UserError if the processes cannot have equal parts."""

    def iterate(self, dataset: TupleDataset, batchsize: int) -> Iterator:
        """Returns an iterator over this process's part of the mini-batches.

        Args:
            dataset (TupleDataset): All the digits to train on.
            batchsize (int): Images in a mini-batch, in all the processes.
        """
        return SerialIterator(dataset, batchsize)

    def test_part(self, dataset: TupleDataset) -> tuple[Any, float]:
        """Returns the digits that this process tests on, and their weight.

        The weight is 1 where every process has as many as the others.
        """
        return dataset, 1.

    def average_gradients(
            self, optimizer: chainer.Optimizer) -> chainer.Optimizer:
        """Returns an optimizer that steps along the mean gradient.

        Args:
            optimizer (Optimizer): Optimizer that was set up.
        """
        return optimizer

    def average_evaluator(self, evaluator: Evaluator) -> Evaluator:
        """Returns an evaluator of the mean over the processes."""
        return evaluator

    def extend(self, trainer: Trainer) -> None:
        """Lets a trainer report the mean over the processes."""

    def maximum(self, number: int) -> int:
        """Returns the largest of the numbers that the processes give."""
        return number

    def wait_for_all(self) -> None:
        """Returns when every process has come here."""

    def go_apart(self) -> None:
        """Says that from here on one process may fail without the others."""

    def come_together(self) -> None:
        """Says that they are all here again, and will all end the same."""

    def break_off(self) -> None:
        """Says that a signal came, which others may have got as well."""

    def speaks(self) -> bool:
        """Whether this one says why the run ends."""
        return True

    def say(self, line: str) -> None:
        """Prints why the run ends."""
        # Standard error may be as full as standard output.
        with contextlib.suppress(OSError):
            print(line, file=sys.stderr, flush=True)

    def lose_voice(self) -> None:
        """Says that mpiexec reads nothing any more."""

    def say_on_terminal(self, line: str) -> None:
        """Prints where a key was pressed, past mpiexec."""

    def leave(self, status: int) -> None:
        """Ends the others as well, once the reason has been printed."""

    def crash(self) -> None:
        """Ends the others when this one has met an error of the script."""
