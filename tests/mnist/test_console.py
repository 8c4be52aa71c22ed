"""Lines that can be printed anywhere, and errors of the system in one."""
import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from made_digits import write_digits
from tiny_run import SCRIPT, TINY

import train_mnist

NOBODY = 65534


def run(*options, shell='exec "$@"', **environment):
    """Runs the script as a user does, with redirections of a shell."""
    process = subprocess.run(
        ['sh', '-c', shell, 'sh', sys.executable, '-W', 'error', SCRIPT,
         *TINY, '--no-plots', '--no-report', '-e', '1', *map(str, options)],
        capture_output=True, check=False, env={**os.environ, **environment})
    return process.returncode, process.stdout, process.stderr


@pytest.mark.parametrize('encoding', ['ascii', 'latin-1', 'cp1252:strict'])
def test_a_console_of_another_encoding(tmp_path, encoding):
    digits = write_digits(tmp_path / 'mnist データ')
    status, out, err = run(
        '--data', digits, '-o', tmp_path / 'r', PYTHONIOENCODING=encoding)
    assert (status, err) == (0, b'')
    assert rb'mnist \u30c7\u30fc\u30bf' in out
    status, _, err = run(
        '--data', tmp_path / 'データ', '-o', tmp_path / 'r',
        PYTHONIOENCODING=encoding)
    assert status == 2
    assert err.count(b'\n') == 1
    assert rb'\u30c7\u30fc\u30bf: no such folder' in err


def test_a_name_that_is_no_text(tmp_path):
    digits = write_digits(tmp_path / 'd')
    name = os.fsencode(tmp_path) + b'/\xff\xfe'
    os.rename(digits, name)
    status, out, err = run('--data', os.fsdecode(name), '-o', tmp_path / 'r')
    assert (status, err) == (0, b'')
    assert rb'\udcff\udcfe' in out


@pytest.mark.parametrize('closed', ['>&-', '<&- >&-', '<&- >&- 2>&-', '2>&-'])
def test_closed_streams(digits_dir, tmp_path, closed):
    """As of services. Nothing that is printed ends in a file of the run."""
    out = tmp_path / 'result'
    status, shown, err = run(
        '--data', digits_dir, '-o', out, shell=f'exec "$@" {closed}')
    assert status == 0
    assert sorted(os.listdir(out)) == ['log', 'snapshot_iter_6']
    assert (out / 'log').read_bytes().startswith(b'[')
    if '2>&-' in closed:
        assert err == b''
    else:
        assert err == (
            b'train_mnist.py: standard output is closed: nothing is printed '
            b'but errors\n')
    assert (b'epoch' in shown) is ('>&-' not in closed.replace('2>&-', ''))
    status, _, err = run(
        '--data', tmp_path / 'no', '-o', out, shell=f'exec "$@" {closed}')
    assert status == 2
    assert err.endswith(b': no such folder\n') or '2>&-' in closed


@pytest.mark.parametrize('shell', [
    'exec "$@" >/dev/full', 'exec "$@" 1</dev/null'])
def test_a_stream_that_takes_nothing(digits_dir, tmp_path, shell):
    status, _, err = run(
        '--data', digits_dir, '-o', tmp_path / 'result', shell=shell)
    assert status == 2
    assert err.count(b'\n') == 1
    assert err.startswith(b'train_mnist.py: error: cannot print: ')


LONG = 'n' * 300
DEEP = '/'.join(['n' * 200] * 30)


@pytest.mark.parametrize('name', [LONG, DEEP, 'loop', 'loop/in'])
@pytest.mark.parametrize('flag', ['--data', '-o', '--resume'])
def test_names_that_the_system_refuses(
        refused, digits_dir, tmp_path, flag, name):
    (tmp_path / 'loop').symlink_to('loop')
    options = {
        '--data': digits_dir, '-o': tmp_path / 'r', flag: tmp_path / name}
    line = refused(
        *TINY, '--no-plots',
        *(word for pair in options.items() for word in pair))
    assert ('File name too long' if 'loop' not in name
            else 'Too many levels of symbolic links') in line
    assert str(tmp_path / name) in line
    assert not (tmp_path / 'r').exists()


@contextlib.contextmanager
def nobody():
    """A user who may not do everything, if root runs this."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(('mode', 'closed', 'flag'), [
    (0o000, 'd', '--data'), (0o000, 'd/train-images-idx3-ubyte', '--data'),
    (0o000, 'd', '-o'), (0o555, 'd', '-o'), (0o000, 'd', '--resume'),
    (0o000, '.', '--data'), (0o000, '.', '-o'), (0o000, '.', '--resume')])
def test_permissions(refused, mode, closed, flag):
    with tempfile.TemporaryDirectory() as folder, (
            tempfile.TemporaryDirectory()) as open_folder:
        folder, out = Path(folder), Path(open_folder) / 'r'
        folder.chmod(0o777)
        out.parent.chmod(0o777)
        digits = write_digits(folder / 'd')
        (folder / closed).chmod(mode)
        options = ['--data', digits, '-o', out]
        target = digits if flag != '--resume' else digits / 'snapshot_iter_6'
        with nobody():
            line = refused(*TINY, '--no-plots', *options, flag, target)
        assert 'Permission denied' in line
        assert str(target) in line


def test_a_folder_that_cannot_be_listed_has_nothing_to_resume_from(refused):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o000)
        with nobody():
            line = refused(*TINY, '--no-plots', '-o', folder, '-r')
        assert f'{folder}: Permission denied' in line


def test_what_reports_where_cannot_be_named(
        digits_dir, tmp_path, monkeypatch, capsys):
    """An error of the system, of a file that nobody thought of."""
    def fail(*args, **kwargs):
        raise OSError(24, 'Too many open files', '/somewhere')

    monkeypatch.setattr('mnist.run.fingerprint.of', fail)
    assert train_mnist.main([
        *TINY, '--no-plots', '--data', str(digits_dir), '-o',
        str(tmp_path / 'r')]) == 2
    assert capsys.readouterr().err == (
        'train_mnist.py: error: /somewhere: Too many open files\n')
