"""The processes of a run: one, or several that mpiexec started.

Several train as one would: each takes its part of every mini-batch, ChainerMN
averages the gradients, and the first of them writes and prints. Neither
mpi4py nor ChainerMN is imported in a run of one process.
"""
import contextlib
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import chainer
import numpy
from chainer import as_array
from chainer.dataset import Iterator
from chainer.datasets import TupleDataset
from chainer.iterators import SerialIterator
from chainer.training import Trainer, extension
from chainer.training.extensions import Evaluator

from mnist.devices import get_device
from mnist.errors import UserError, out_of_memory
from mnist.launch import OPEN_MPI, Launch, name_of, read_launch, why_not

INSTALL_MPI = (
    'pip install ".[mpi]" brings both, and the system may have an MPI '
    '(Debian: apt-get install openmpi-bin)')
# Of ChainerMN's communicators, those that average on GPUs.
ON_GPUS = ['pure_nccl', 'flat', 'non_cuda_aware']
COMMUNICATORS = ['naive', *ON_GPUS]

# Seconds in which mpiexec ends a process after another has failed.
PATIENCE = 60.
# In which it reads what was printed. What it has not read when a process
# aborts, MPICH's drops, and Open MPI 5's prints behind a line of its own that
# ends in a zero byte.
READING = .5

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


class Unconnected(Processes):
    """One of several processes, while MPI has not been started.

    Each meets the same error, and the first of each machine prints it.
    """

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        if launch.is_hasty:
            self.warning = signal.SIGCONT

    def speaks(self) -> bool:
        return self._launch.local_rank == 0

    def leave(self, status: int) -> None:
        # Open MPI's mpiexec ends all as soon as one has ended, and that
        # should be the one that speaks. MPICH's waits for all of them.
        if not self.speaks():
            time.sleep(PATIENCE if self._launch.mpi == OPEN_MPI else READING)


class Connected(Processes):
    """One of several processes that MPI connects.

    Before training, whatever fails in one of them fails in all, by
    :meth:`agree` and :meth:`share`. Later, one that fails ends the others:
    they may be waiting for it.

    Args:
        world (mpi4py.MPI.Comm): All the processes.
    """

    def __init__(self, world: Any) -> None:
        self.rank = world.rank
        self.size = world.size
        self._world = world
        self._communicator: Any = None
        self._name = ''
        self._together = True
        self._is_broken_off = False
        self._is_heard = True

    def open(self, communicator: str | None) -> None:
        def create() -> Any:
            try:
                import chainermn
                from chainermn import nccl
                # ChainerMN asks for two of the three, and would miss it in
                # the first update with the other.
                if communicator in ON_GPUS and not nccl._available:
                    raise RuntimeError('NCCL is not available')
                return chainermn.create_communicator(communicator, self._world)
            except RuntimeError as e:
                raise UserError(
                    f'--communicator {communicator} needs CuPy with NCCL, and '
                    f'a GPU for each process ({_one_line(e).rstrip(".")}); '
                    f'naive is for CPUs') from e
        self._communicator = self.agree(create)
        self._name = str(communicator)

    def agree(self, function: Callable[[], Result]) -> Result:
        result = error = None
        try:
            result = function()
        except UserError as e:
            error = e
        except MemoryError as e:
            error = out_of_memory(e)
        # One exchange, whoever fails: none of them is left waiting.
        for first in self._world.allgather(error):
            if first is not None:
                raise first
        return result  # type: ignore[return-value]

    def share(self, function: Callable[[], Result]) -> Result:
        result = self.agree(
            lambda: function() if self.is_first else None)
        # ChainerMN's own: what MPI sends at once ends at two gigabytes.
        # It refuses None of the first, and all else of the others.
        shared = self._communicator.bcast_obj(
            (result,) if self.is_first else None)
        return shared[0]

    def get_device(self, spec: str) -> chainer.backend.Device:
        if self._name in ON_GPUS:
            return self.agree(lambda: self._get_gpu(spec))
        device = self.agree(lambda: get_device(spec))
        if isinstance(device, chainer.backend.GpuDevice):
            raise UserError(
                f'--communicator {self._name} averages on CPUs: leave '
                f'--device {spec} out, or use pure_nccl')
        return device

    def _get_gpu(self, spec: str) -> chainer.backend.Device:
        if spec != '-1':
            raise UserError(
                f'--communicator {self._name} gives each process the GPU of '
                f'its number on its machine: leave --device {spec} out')
        try:
            return get_device(str(self._communicator.intra_rank))
        except UserError as e:
            raise UserError(
                f'--communicator {self._name} wants a GPU for each process: '
                f'{e}') from e

    def check_sizes(self, batchsize: int, n_test: int) -> None:
        if batchsize % self.size:
            below = batchsize // self.size * self.size
            sizes = [str(n) for n in (below, below + self.size) if n]
            raise UserError(
                f'--batchsize {batchsize} cannot be divided among '
                f'{self.size} processes; {" and ".join(sizes)} can')
        if n_test < self.size:
            raise UserError(
                f'--data has {n_test} digits to test on, which are too few '
                f'for {self.size} processes')

    def iterate(self, dataset: TupleDataset, batchsize: int) -> Iterator:
        n = batchsize // self.size
        return PartIterator(
            dataset, batchsize, slice(self.rank * n, (self.rank + 1) * n))

    def test_part(self, dataset: TupleDataset) -> tuple[Any, float]:
        import chainermn
        part = chainermn.scatter_dataset(
            dataset, self._communicator, force_equal_length=False)
        return part, len(part) * self.size / len(dataset)

    def average_gradients(
            self, optimizer: chainer.Optimizer) -> chainer.Optimizer:
        import chainermn
        several = chainermn.create_multi_node_optimizer(
            optimizer, self._communicator)
        # ChainerMN spends the first update on sending the parameters around,
        # without a step. It is done here, so that the first update is one.
        self._communicator.bcast_data(optimizer.target)
        several.is_changed(optimizer.target)
        return several

    def average_evaluator(self, evaluator: Evaluator) -> Evaluator:
        import chainermn
        return chainermn.create_multi_node_evaluator(
            evaluator, self._communicator)

    def extend(self, trainer: Trainer) -> None:
        trainer.extend(
            AverageObservation(self), trigger=lambda trainer: True)

    def average(self, numbers: list[float]) -> list[float]:
        """Returns the means over the processes, the same in all of them."""
        from mpi4py import MPI
        sums = numpy.array(numbers, dtype=float)
        self._world.Allreduce(MPI.IN_PLACE, sums)
        return (sums / self.size).tolist()

    def maximum(self, number: int) -> int:
        from mpi4py import MPI
        largest = numpy.array(number)
        self._world.Allreduce(MPI.IN_PLACE, largest, MPI.MAX)
        return int(largest)

    def wait_for_all(self) -> None:
        self._world.Barrier()

    def go_apart(self) -> None:
        self._together = False

    def come_together(self) -> None:
        self._together = True

    def break_off(self) -> None:
        self._is_broken_off = True

    def speaks(self) -> bool:
        return self.is_first or not (self._together or self._is_broken_off)

    def say(self, line: str) -> None:
        super().say(line)
        if not self._is_heard:
            self.say_on_terminal(line)

    def say_on_terminal(self, line: str) -> None:
        # If there is one: a job of a queue has none.
        with contextlib.suppress(OSError), open('/dev/tty', 'w') as file:
            print(line, file=file)

    def lose_voice(self) -> None:
        self._is_heard = False

    def leave(self, status: int) -> None:
        sys.stdout.flush()
        if self._together and not self._is_broken_off:
            # mpiexec ends all when one has ended: not before it has spoken.
            self.wait_for_all()
        else:
            time.sleep(READING)
            self._world.Abort(status)

    def crash(self) -> None:
        # Often all meet the same: the first has the time to end the others.
        if not self.is_first:
            time.sleep(1)
        traceback.print_exc()
        sys.stdout.flush()
        time.sleep(READING)
        self._world.Abort(1)


class PartIterator(SerialIterator):
    """The mini-batches of one process, of which this one takes a part.

    Scattering the digits once would change which digits meet in a
    mini-batch. Here every process draws the same order, as the only one
    would, and makes its own part of each mini-batch.

    Args:
        dataset (TupleDataset): All the digits to train on.
        batch_size (int): Digits in a mini-batch, in all the processes.
        part (slice): Which of them are this process's.
    """

    def __init__(
            self, dataset: TupleDataset, batch_size: int,
            part: slice) -> None:
        super().__init__(range(len(dataset)), batch_size)
        self._digits = dataset
        self._part = part

    def __next__(self) -> list[Any]:
        indices = super().__next__()
        return [self._digits[index] for index in indices[self._part]]

    next = __next__


class AverageObservation(extension.Extension):
    """Puts the mean over the processes in the place of what one has seen.

    In every iteration, so that what the log has gathered is the same in all
    of them, and one snapshot is everyone's.
    """

    # After the evaluator, whose means are of all already; before the log.
    priority = extension.PRIORITY_EDITOR

    def __init__(self, processes: Connected) -> None:
        self._processes = processes

    def __call__(self, trainer: Trainer) -> None:
        seen = trainer.observation
        keys = sorted(key for key in seen if key.startswith('main/'))
        means = self._processes.average(
            [float(as_array(seen[key])) for key in keys])
        seen.update(zip(keys, means, strict=True))


def unconnected() -> Processes:
    """Returns what can be known of the processes before MPI is started."""
    launch = read_launch(os.environ)
    return Unconnected(launch) if launch.size > 1 else Processes()


def connect(communicator: str | None) -> Processes:
    """Returns the processes of this run.

    Args:
        communicator (str): ChainerMN's name of a communicator; None for a
            run of one process.

    Raises:
        UserError: If they cannot be connected.
    """
    launch = read_launch(os.environ)
    if communicator is None:
        if launch.size > 1:
            raise UserError(
                f'{launch.size} processes would all train the same network: '
                f'add --communicator naive on CPUs, pure_nccl on GPUs')
        return Processes()
    MPI = _load_mpi(communicator)
    library = MPI.Get_library_version()
    reason = why_not(launch, library)
    if reason is not None:
        raise UserError(reason)
    if not MPI.Is_initialized():
        with warnings.catch_warnings():
            # That each process is alone: said below, and in one line.
            warnings.simplefilter('ignore', RuntimeWarning)
            MPI.Init_thread(MPI.THREAD_MULTIPLE)
    if MPI.COMM_WORLD.size != launch.size:
        raise UserError(
            f'mpiexec started {launch.size} processes, of which mpi4py finds '
            f'{MPI.COMM_WORLD.size}: it uses another MPI, '
            f'{name_of(library)}')
    return Connected(MPI.COMM_WORLD)


def _load_mpi(communicator: str) -> Any:
    """Returns the module MPI, with nothing started yet.

    Raises:
        UserError: If there is no mpi4py, or no MPI for it.
    """
    try:
        import mpi4py

        # A library ends the process if it starts under an mpiexec that it
        # does not know, so first they are compared.
        mpi4py.rc(initialize=False, finalize=True)
        from mpi4py import MPI
    except (ImportError, RuntimeError) as e:
        # RuntimeError if it finds no library.
        raise UserError(
            f'--communicator {communicator} needs mpi4py and MPI '
            f'({_one_line(e)}): {INSTALL_MPI}') from e
    return MPI


def _one_line(error: Exception) -> str:
    return ' '.join(str(error).split())
