"""The tests on every supported Python that is found, and both ends of NumPy.

    nox                      all of them, and a table at the end
    nox -- -k fold           with arguments for pytest
    nox -s "matrix-3.13(numpy='newest')"

Each run has an environment of its own under .nox, which the next one reuses.
"""
import atexit
import time
from pathlib import Path

import nox

CONSTRAINTS = Path(__file__).resolve().parent / 'build-constraints.txt'
# The oldest NumPy that setup.py allows and that has a wheel for the Python.
OLDEST = {'3.11': '1.26.*', '3.12': '1.26.*', '3.13': '2.1.*'}
ENDS = ['oldest', 'newest']

nox.options.sessions = ['matrix']
nox.options.default_venv_backend = 'venv'
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True
nox.options.download_python = 'never'

results = {}


@nox.session(python=list(OLDEST))
@nox.parametrize('numpy', ENDS)
def matrix(session, numpy):
    """Installs the package as a user does, and runs its tests."""
    key = session.python, numpy
    results[key] = '', 'does not install', ''
    # Chainer's setup.py needs an old setuptools: old pips read the first
    # variable when they build a dependency, new ones the second.
    session.env.update(
        PIP_CONSTRAINT=str(CONSTRAINTS), PIP_BUILD_CONSTRAINT=str(CONSTRAINTS))
    version = '' if numpy == 'newest' else '==' + OLDEST[session.python]
    session.install('--upgrade', '.[test]', 'numpy' + version)

    # From elsewhere, so that it is the installed package that is imported.
    with session.chdir(session.create_tmp()):
        found = session.run(
            'python', '-c', 'import numpy, shared_linear; '
            'print(numpy.__version__)', silent=True).strip()
    results[key] = found, 'fails', ''
    start = time.monotonic()
    session.run('python', '-m', 'pytest', '-q', *session.posargs)
    results[key] = found, 'passes', '{:.0f} s'.format(
        time.monotonic() - start)


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
