"""``python -m shared_linear PROGRAM`` is ``python PROGRAM``, mended.

What it does is compared with what Python itself does.
"""
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import fresh
import pytest

import shared_linear

# Prints what a program can see of how it is run.
LOOKS = """
import sys
import __main__
print(__name__, __file__, sys.argv, sys.path[0], sorted(globals()))
print(__main__.__dict__ is globals(), __package__, type(__loader__).__name__)
print(__spec__ and __spec__.name, __spec__ and __spec__.origin)
"""

FAILS = """
def inner():
    raise KeyError('here')


def outer():
    try:
        inner()
    except KeyError as e:
        raise ValueError('there') from e


outer()
"""


@pytest.fixture
def folder(tmp_path):
    for path, text in {
            'looks.py': LOOKS + 'sys.exit(len(sys.argv))', 'fails.py': FAILS,
            'wrong.py': 'x = 1\nprint(x\ny = 2\n',
            'interrupted.py': 'raise KeyboardInterrupt',
            'package/__init__.py': '', 'package/part.py': LOOKS,
            'package/__main__.py': LOOKS, 'folder/__main__.py': LOOKS}.items():
        path = tmp_path / path
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    with zipfile.ZipFile(tmp_path / 'archive.zip', 'w') as archive:
        archive.writestr('__main__.py', LOOKS)
    return tmp_path


def run(folder, *arguments, environment=fresh.ENVIRONMENT):
    return fresh.run(*arguments, environment=environment, cwd=folder)


@pytest.fixture(scope='module')
def without_chainer(tmp_path_factory):
    """This package, but for what it imports: a run takes no time."""
    path = tmp_path_factory.mktemp('without_chainer')
    package, ours = path / 'shared_linear', Path(shared_linear.__file__).parent
    shutil.copytree(ours / 'stack', package / 'stack')
    shutil.copy(ours / '__main__.py', package)
    (package / '__init__.py').write_text('')
    return dict(fresh.ENVIRONMENT, PYTHONPATH=str(path))


@pytest.mark.parametrize('program', [
    ['looks.py', '-m', '--check'], ['fails.py'], ['wrong.py'],
    ['interrupted.py'], ['no.py'], ['-m', 'package', 'a'],
    ['-m', 'package.part'], ['-m', 'no.such'], ['./folder'],
    ['archive.zip']], ids=' '.join)
def test_a_program_runs_as_by_python(program, folder, without_chainer):
    expected = run(folder, *program)
    done = run(folder, '-m', 'shared_linear', *program,
               environment=without_chainer)
    assert (done.returncode, done.stdout, done.stderr) == (
        expected.returncode, expected.stdout, expected.stderr)


def test_it_fails_as_by_python_with_chainer_too(folder):
    expected = run(folder, 'fails.py')
    done = run(folder, '-m', 'shared_linear', 'fails.py')
    assert (done.returncode, done.stdout, done.stderr) == (
        expected.returncode, expected.stdout, expected.stderr)


def test_what_is_expected_above(folder):
    """Or both might fail alike."""
    assert run(folder, 'looks.py', '-m', '--check').returncode == 3
    assert 'ValueError: there' in run(folder, 'fails.py').stderr
    assert run(folder, 'interrupted.py').returncode == -signal.SIGINT
    for program in ['package'], ['package.part']:
        assert run(folder, '-m', *program).returncode == 0


# As such programs were written: nothing of ours in it.
PROGRAM = """
import multiprocessing
import sys

import chainer
import numpy
from chainer.iterators import MultiprocessIterator


class Squares(chainer.dataset.DatasetMixin):

    def __len__(self):
        return 8

    def get_example(self, i):
        names = hasattr(numpy, 'asscalar') == NAMES
        return numpy.array([i * i, names], 'f')


def main():
    multiprocessing.set_start_method(sys.argv[1])
    iterator = MultiprocessIterator(
        Squares(), 4, repeat=False, shuffle=False, n_processes=1,
        shared_mem=1000)
    rows = numpy.concatenate([numpy.stack(batch) for batch in iterator])
    iterator.finalize()
    assert (rows[:, 0] == numpy.arange(8) ** 2).all(), rows
    assert rows[:, 1].all()
    assert hasattr(numpy, 'asscalar') == NAMES
    print('done')


if __name__ == '__main__':
    main()
"""


@pytest.mark.parametrize('method, form', [
    ('spawn', 'script'), ('forkserver', 'script'), ('spawn', 'module')])
def test_workers_that_are_started_afresh(method, form, tmp_path):
    if sys.platform == 'win32' and method == 'forkserver':
        pytest.skip('Windows has no forkserver')
    (tmp_path / 'train.py').write_text(PROGRAM.replace('NAMES', 'True'))
    done = run(tmp_path, '-m', 'shared_linear', *(
        ['train.py'] if form == 'script' else ['-m', 'train']), method)
    assert (done.returncode, done.stdout, done.stderr) == (0, 'done\n', '')


def test_old_names_are_left_out_if_asked_for(tmp_path):
    (tmp_path / 'train.py').write_text(PROGRAM.replace('NAMES', 'False'))
    done = run(tmp_path, '-m', 'shared_linear', '--no-old-names', 'train.py',
               'spawn')
    assert (done.returncode, done.stdout, done.stderr) == (0, 'done\n', '')


OF_MPI = """
import chainermn
import numpy
comm = chainermn.create_communicator('naive')
total = comm.allreduce(numpy.array([comm.rank + 1.]))
print('rank', comm.rank, 'of', comm.size, 'sum', float(total[0]))
"""


def test_under_mpiexec(tmp_path):
    try:
        from mpi4py import MPI  # noqa: F401
    except (ImportError, RuntimeError) as e:
        pytest.skip('needs MPI: {}'.format(e))
    mpiexec = shutil.which('mpiexec', path=os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ['PATH']]))
    if mpiexec is None:
        pytest.skip('needs mpiexec')
    (tmp_path / 'train.py').write_text(OF_MPI)
    done = subprocess.run(
        [mpiexec, '-n', '2', sys.executable, '-m', 'shared_linear',
         'train.py'], cwd=tmp_path, capture_output=True, text=True,
        timeout=120, env=dict(
            fresh.ENVIRONMENT, OMPI_ALLOW_RUN_AS_ROOT='1',
            OMPI_ALLOW_RUN_AS_ROOT_CONFIRM='1',
            OMPI_MCA_rmaps_base_oversubscribe='1',
            PRTE_MCA_rmaps_default_mapping_policy=':oversubscribe'))
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [
        'rank 0 of 2 sum 3.0', 'rank 1 of 2 sum 3.0']


@pytest.mark.parametrize('arguments, message', [
    ([], 'there is no program to run'), (['-m'], 'needs the name'),
    (['--chek'], 'no option --chek'), (['-W', 'error'], 'no option -W')])
def test_a_command_line_that_makes_no_sense(
        arguments, message, monkeypatch, capsys):
    from shared_linear import __main__
    monkeypatch.setattr(sys, 'argv', ['shared_linear', *arguments])
    assert __main__.main() == 2
    assert message in capsys.readouterr().err


def test_help(monkeypatch, capsys):
    from shared_linear import __main__
    monkeypatch.setattr(sys, 'argv', ['shared_linear', '--help'])
    assert __main__.main() == 0
    assert 'python -m shared_linear --check' in capsys.readouterr().out


def test_check(monkeypatch, capsys):
    """What is mended, and the stack: every mend is listed once a module."""
    from shared_linear import __main__
    from shared_linear.stack import mending
    monkeypatch.setattr(sys, 'argv', ['shared_linear', '--check'])
    assert __main__.main() == 0
    stack, mends = capsys.readouterr().out.split('\n\n')
    found = dict(line.split(None, 1) for line in stack.splitlines())
    assert found['Python'].startswith('{}.{}.'.format(*sys.version_info))
    assert found['Chainer'] == '7.8.1'
    assert {'NumPy', 'CuPy', 'MPI', 'ONNX'} <= found.keys()
    lines = mends.splitlines()
    assert len(lines) == len(mending.all_mends())
    states = [line[:12].strip() for line in lines]
    assert set(states) <= {'mended', 'not needed', 'not there'}, mends
    assert states.count('mended') > 5
