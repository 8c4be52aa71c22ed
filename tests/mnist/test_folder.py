"""One run in a folder at a time, and who has it."""
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys

import pytest
from tiny_run import SCRIPT, TINY

import train_mnist
from mnist import folder
from mnist.errors import UserError
from mnist.folder import LOCK, Folder

HOLD = '''if True:
    import sys
    import train_mnist
    from mnist.folder import Folder
    with Folder(sys.argv[1]) as folder:
        folder.occupy()
        print('occupied', flush=True)
        sys.stdin.read()
'''


@pytest.fixture
def hold():
    """Another process that has a folder: hold(folder) -> process."""
    processes = []

    def hold(path):
        process = subprocess.Popen(
            [sys.executable, '-c', HOLD, str(path)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
            env={**os.environ, 'PYTHONPATH': str(SCRIPT.parent)})
        processes.append(process)
        assert process.stdout.readline() == 'occupied\n'
        return process
    yield hold
    for process in processes:
        process.communicate()


def test_the_second_is_told_who_has_it(
        hold, refused, digits_dir, tmp_path):
    out = tmp_path / 'result'
    other = hold(out)
    (out / 'snapshot_iter_6').write_bytes(b'of the first')
    line = refused(
        *TINY, '--no-plots', '--data', digits_dir, '-o', out, '--seed', '9')
    assert re.search(
        rf'--out {re.escape(str(out))} is in use by process {other.pid} on '
        rf'{re.escape(socket.gethostname())}, since 20\d\d-\d\d-\d\d '
        rf'\d\d:\d\d:\d\d ', line), line
    assert 'choose another --out' in line
    assert (out / 'snapshot_iter_6').read_bytes() == b'of the first'
    assert set(os.listdir(out)) == {LOCK, 'snapshot_iter_6'}


def test_another_way_to_the_folder(hold, refused, digits_dir, tmp_path):
    hold(tmp_path / 'result')
    (tmp_path / 'link').symlink_to('result')
    assert 'is in use by process' in refused(
        *TINY, '--no-plots', '--data', digits_dir, '-o', tmp_path / 'link')


def test_it_is_not_resumed_from_either(hold, refused, tmp_path):
    out = tmp_path / 'result'
    hold(out)
    (out / 'snapshot_iter_6').write_bytes(b'of the first')
    assert 'is in use by process' in refused(
        *TINY, '--no-plots', '-o', out, '--resume')


def test_a_lock_dies_with_its_process(hold, digits_dir, tmp_path):
    out = tmp_path / 'result'
    other = hold(out)
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (out / LOCK).exists()
    assert train_mnist.main([
        *TINY, '--no-plots', '--no-report', '--data', str(digits_dir), '-o',
        str(out), '-e', '1']) == 0
    assert sorted(os.listdir(out)) == ['log', 'snapshot_iter_6']


def test_two_runs_of_one_process(tmp_path):
    """The system does not lock a file against the process that has it."""
    with Folder(tmp_path) as first, Folder(tmp_path) as second:
        first.occupy()
        with pytest.raises(UserError, match='another run of this process'):
            second.occupy()
        second.__exit__(None, None, None)
        # What failed has not freed the folder.
        with Folder(tmp_path) as third:
            with pytest.raises(UserError, match='in use'):
                third.occupy()
    with Folder(tmp_path) as fourth:
        fourth.occupy()
        assert json.loads((tmp_path / LOCK).read_text())['process'] == (
            os.getpid())
    assert os.listdir(tmp_path) == []


def test_opened_just_before_the_other_run_ended(tmp_path, monkeypatch):
    """Its lock is on a file that has no name any more, and so on none."""
    lockf = folder.fcntl.lockf
    calls = []

    def lock_late(descriptor, how):
        if not calls:
            (tmp_path / LOCK).unlink()
        calls.append(descriptor)
        lockf(descriptor, how)

    monkeypatch.setattr(folder.fcntl, 'lockf', lock_late)
    with Folder(tmp_path) as ours:
        ours.occupy()
        assert len(calls) == 2
        assert (tmp_path / LOCK).exists()


def test_a_file_system_without_locks(tmp_path, monkeypatch, capsys):
    def fail(*args):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(folder.fcntl, 'lockf', fail)
    with Folder(tmp_path / 'result') as ours:
        ours.occupy()
    assert capsys.readouterr().out.startswith('# no lock: No locks available')
    assert not (tmp_path / 'result').exists()


@pytest.mark.parametrize('content', [b'', b'{}', b'[]', b'\xff' * 2000])
def test_a_lock_that_does_not_say_whose_it_is(
        hold, tmp_path, monkeypatch, content):
    monkeypatch.setattr(folder, 'PATIENCE', .1)
    hold(tmp_path)
    (tmp_path / LOCK).write_bytes(content)
    with Folder(tmp_path) as ours:
        with pytest.raises(UserError, match='another run, which does not say'):
            ours.occupy()


def test_a_folder_that_was_made_for_nothing_goes(refused, tmp_path):
    line = refused(
        *TINY, '--no-plots', '--data', tmp_path / 'nowhere', '-o',
        tmp_path / 'a' / 'b')
    assert 'no such folder' in line
    assert not (tmp_path / 'a').exists()


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path):
    (tmp_path / 'mine').write_bytes(b'mine')
    (tmp_path / LOCK).symlink_to('mine')
    with Folder(tmp_path) as ours:
        with pytest.raises(UserError, match='cannot write there'):
            ours.occupy()
    assert (tmp_path / 'mine').read_bytes() == b'mine'
