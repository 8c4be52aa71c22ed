"""How this process was started: alone, or by the mpiexec of which MPI."""
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

OPEN_MPI = 'Open MPI'
# And those after it: Intel MPI, MVAPICH, srun --mpi=pmi2.
MPICH = 'MPICH'


class Launch(NamedTuple):
    """What mpiexec tells a process, before MPI itself is asked.

    ``size`` counts the processes of the run, ``local_rank`` numbers those
    of one machine from 0. ``mpi`` is the family of MPI that mpiexec belongs
    to, empty where any may be used. ``is_hasty`` says that it kills a
    quarter of a second after SIGTERM, and reads nothing any more.
    """

    size: int = 1
    local_rank: int = 0
    mpi: str = ''
    is_hasty: bool = False


def read_launch(environ: Mapping[str, str]) -> Launch:
    """Returns how this process was started.

    Args:
        environ (mapping): Environment; Open MPI, MPICH and those after it
            leave their numbers there.
    """
    for mpi, size, *ranks in [
            (OPEN_MPI, 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
            (MPICH, 'PMI_SIZE', 'MPI_LOCALRANKID', 'PMI_RANK')]:
        rank = next((environ[name] for name in ranks if name in environ), '0')
        if environ.get(size, '').isdecimal() and rank.isdecimal():
            # Slurm gives its numbers to whichever MPI asks.
            if mpi == MPICH and 'SLURM_PROCID' in environ:
                mpi = ''
            return Launch(
                int(environ[size]), int(rank), mpi,
                # Open MPI's launcher since version 5.
                mpi == OPEN_MPI and 'PRTE_LAUNCHED' in environ)
    return Launch()


def why_not(launch: Launch, library: str) -> str | None:
    """Returns why a library cannot be used under an mpiexec, None if it can.

    Open MPI 4 and 5 go together. Of other pairs, one ends the process when
    it is started, and another leaves each process alone.

    Args:
        launch (Launch): How this process was started.
        library (str): What ``MPI.Get_library_version`` says of itself.
    """
    family = OPEN_MPI if library.startswith(OPEN_MPI) else MPICH
    if launch.mpi in ('', family):
        return None
    use = mpiexec_of_pip() or f'an mpiexec of {family}'
    return (f'mpiexec is of {launch.mpi}, and mpi4py uses another MPI, '
            f'{name_of(library)}: start with {use}')


def find_mpiexec() -> str | None:
    """Returns the mpiexec of the MPI that mpi4py finds: pip's comes first."""
    return mpiexec_of_pip() or shutil.which('mpiexec')


def mpiexec_of_pip() -> str | None:
    """Returns the mpiexec that was installed beside this Python."""
    path = Path(sys.executable).with_name('mpiexec')
    return str(path) if path.exists() else None


def name_of(library: str) -> str:
    """Returns the name and the version, of all that a library says."""
    return ' '.join(library.partition(',')[0].splitlines()[0].split())
