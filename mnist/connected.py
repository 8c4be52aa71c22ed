"""Several processes that MPI connects, and what each of them does."""
import contextlib
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import chainer
import numpy
from chainer import as_array
from chainer.dataset import Iterator
from chainer.datasets import TupleDataset
from chainer.iterators import SerialIterator
from chainer.training import Trainer, extension
from chainer.training.extensions import Evaluator

from mnist.devices import get_device
from mnist.errors import UserError, one_line, out_of_memory
from mnist.processes import Processes, Result

# Of ChainerMN's communicators, those that average on GPUs.
ON_GPUS = ['pure_nccl', 'flat', 'non_cuda_aware']
COMMUNICATORS = ['naive', *ON_GPUS]

# Seconds in which mpiexec reads what was printed. What it has not read when a
# process aborts, MPICH's drops, and Open MPI 5's prints behind a line of its
# own that ends in a zero byte.
READING = .5


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
                    f'a GPU for each process ({one_line(e).rstrip(".")}); '
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
