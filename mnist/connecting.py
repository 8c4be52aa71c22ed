"""From what mpiexec has started to processes that MPI connects."""
import os
import signal
import time
import warnings
from typing import Any

from mnist.connected import READING, Connected
from mnist.errors import UserError, one_line
from mnist.launch import OPEN_MPI, Launch, name_of, read_launch, why_not
from mnist.processes import Processes

INSTALL_MPI = (
    'pip install ".[mpi]" brings both, and the system may have an MPI '
    '(Debian: apt-get install openmpi-bin)')

# Seconds in which mpiexec ends a process after another has failed.
PATIENCE = 60.


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
            f'({one_line(e)}): {INSTALL_MPI}') from e
    return MPI
