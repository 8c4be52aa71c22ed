import os
import signal
import subprocess
import sys
import threading

import pytest

from shared_linear.files import write_atomically


def test_writes_and_replaces(tmp_path):
    path = tmp_path / 'f'
    write_atomically(path, lambda file: file.write(b'old'))
    write_atomically(path, lambda file: file.write(b'new'))
    assert path.read_bytes() == b'new'
    assert os.listdir(tmp_path) == ['f']


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
def test_the_old_file_stays_if_writing_fails(tmp_path, error):
    path = tmp_path / 'f'
    path.write_bytes(b'old')

    def write(file):
        file.write(b'half')
        raise error

    with pytest.raises(error):
        write_atomically(path, write)
    assert path.read_bytes() == b'old'
    assert os.listdir(tmp_path) == ['f']


def test_the_old_file_stays_if_the_process_is_killed(tmp_path):
    path = tmp_path / 'f'
    path.write_bytes(b'old')
    code = '''if True:
        import os, pathlib, signal, sys
        from shared_linear.files import write_atomically

        def write(file):
            file.write(b'half')
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        write_atomically(pathlib.Path(sys.argv[1]), write)
    '''
    process = subprocess.run([sys.executable, '-c', code, path], check=False)
    assert process.returncode == -signal.SIGKILL
    assert path.read_bytes() == b'old'
    others = [name for name in os.listdir(tmp_path) if name != 'f']
    assert len(others) == 1
    assert others[0].startswith('.f.')
    assert others[0].endswith('.tmp')


def test_files_written_at_the_same_time_are_whole(tmp_path):
    path = tmp_path / 'f'
    contents = [bytes([i]) * 100_000 for i in range(4)]
    threads = [
        threading.Thread(
            target=write_atomically,
            args=(path, lambda file, content=content: file.write(content)))
        for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert os.listdir(tmp_path) == ['f']


@pytest.mark.parametrize('name', ['n' * 255, 'データ' * 28])
def test_a_name_as_long_as_may_be(tmp_path, name):
    """The other name beside it is no longer."""
    write_atomically(tmp_path / name, lambda file: file.write(b'new'))
    assert (tmp_path / name).read_bytes() == b'new'
    assert os.listdir(tmp_path) == [name]


def test_what_is_secret_is_so_from_its_first_byte(tmp_path):
    path = tmp_path / 'f'
    path.write_bytes(b'old')
    path.chmod(0o600)
    modes = []

    def write(file):
        file.write(b'new')
        modes.extend(other.stat().st_mode & 0o777
                     for other in tmp_path.iterdir())

    write_atomically(path, write)
    assert modes == [0o600, 0o600]
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes() == b'new'


def test_a_pipe_is_written_into_and_stays(tmp_path):
    path = tmp_path / 'pipe'
    os.mkfifo(path)
    read = []
    thread = threading.Thread(
        target=lambda: read.append(path.read_bytes()))
    thread.start()
    write_atomically(path, lambda file: file.write(b'new'))
    thread.join()
    assert read == [b'new']
    assert path.is_fifo()
