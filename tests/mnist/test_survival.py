"""A run that is killed or stopped at any moment goes on exactly."""
import json
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import run_server
from made_digits import write_digits
from tiny_run import SCRIPT, TINY

from mnist import snapshots
from mnist.files import remove_leftovers
from mnist.folder import LOCK
from mnist.stopping import StopSignals
from shared_linear.files import write_atomically

N_EPOCHS = 4
EPOCH = 6  # Iterations: 60 digits, 10 in a mini-batch.
LAST = f'snapshot_iter_{N_EPOCHS * EPOCH}'
PHASES = ['update', 'test', 'log', 'plot', 'snapshot']


class Server:
    """Runs the script in forks of a process that has imported it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, '-W', 'error', run_server.__file__],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            # A fork of several threads is warned of, and warnings are errors.
            env=dict(
                os.environ, PYTHONPATH=str(SCRIPT.parent),
                OPENBLAS_NUM_THREADS='1', OMP_NUM_THREADS='1',
                MKL_NUM_THREADS='1'))

    def run(self, *options, accidents=(), **job):
        """Returns exit status, output and errors of a run."""
        out, err = self._folder / 'out', self._folder / 'err'
        self._process.stdin.write(json.dumps(dict(
            job, options=list(map(str, options)), out=str(out), err=str(err),
            accidents=accidents)) + '\n')
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        return status, out.read_text(), err.read_text()

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp('server'))
    yield server
    server.close()


@pytest.fixture(scope='module')
def options(tmp_path_factory):
    folder = write_digits(tmp_path_factory.mktemp('data') / 'digits')
    return [*TINY, '--data', folder, '--seed', 3, '-e', N_EPOCHS]


class Unbroken:
    """Folder of the run that was never stopped, and its events."""

    def __init__(self, server, options, folder):
        self.folder = folder / 'result'
        status, _, err = server.run(
            *options, '-o', self.folder, counts=str(folder / 'counts'))
        assert (status, err) == (0, '')
        self.counts = json.loads((folder / 'counts').read_text())


@pytest.fixture(scope='module')
def unbroken(server, options, tmp_path_factory):
    unbroken = Unbroken(server, options, tmp_path_factory.mktemp('unbroken'))
    assert {name: len(calls) for name, calls in unbroken.counts.items()} == {
        'update': 24, 'test': 5, 'log': 25, 'plot': 8, 'snapshot': 4}
    return unbroken


def draw_moments():
    """Twenty phases and places; four of each phase, so that none is missed.

    The place is a number from 0 to 1 for the call, and one for the event.
    """
    draw = random.Random(20)
    return [(phase, draw.random(), draw.random()) for phase in PHASES * 4]


def without_times(log):
    return [
        {key: value for key, value in entry.items() if key != 'elapsed_time'}
        for entry in log]


def assert_whole(folder):
    """Whatever bears its name is whole."""
    for path in folder.iterdir():
        if path.name.startswith('snapshot_iter_'):
            assert snapshots.read(path).arrays
        elif path.name == 'log':
            assert json.loads(path.read_text())
        elif path.suffix == '.png':
            assert path.read_bytes().endswith(b'IEND\xaeB`\x82')
        elif path.suffix == '.html':
            assert path.read_bytes().rstrip().endswith(b'</html>')
        else:
            assert path.name.startswith('.')
            assert path.name.endswith(('.tmp', LOCK))


def assert_same_end(folder, unbroken):
    assert_whole(folder)
    names = set(os.listdir(folder))
    assert not [name for name in names if name.startswith('.')]
    assert names >= {'log', LAST}
    with numpy.load(folder / LAST) as ours, (
            numpy.load(unbroken / LAST)) as theirs:
        assert set(ours) == set(theirs)
        for part in (
                'model:main/predictor/l3/W', 'optimizer:main/predictor/l3/W/m',
                'optimizer:main/t', 'iterator:main/order'):
            assert 'updater/' + part in ours
        assert 'train_mnist/random_state' in ours
        for name in theirs:
            if name == 'extensions/LogReport/_log':
                assert without_times(json.loads(str(ours[name]))) == (
                    without_times(json.loads(str(theirs[name]))))
            elif name != '_snapshot_elapsed_time':
                assert ours[name].dtype == theirs[name].dtype
                numpy.testing.assert_array_equal(
                    ours[name], theirs[name], err_msg=name)
    logs = [
        without_times(json.loads((out / 'log').read_text()))
        for out in (folder, unbroken)]
    assert len(logs[0]) == N_EPOCHS + 1
    assert logs[0] == logs[1]


def go_on(server, options, out):
    """Goes on as a user would: again, if there is no snapshot yet."""
    resume = ['--resume'] if list(out.glob('snapshot_iter_*')) else []
    status, shown, err = server.run(*options, '-o', out, *resume)
    assert (status, err) == (0, '')
    assert ('# resumed from' in shown) is bool(resume)


@pytest.mark.parametrize(
    ('phase', 'call', 'event'), draw_moments(),
    ids=[f'{i}-{moment[0]}' for i, moment in enumerate(draw_moments())])
def test_killed_at_a_random_moment(
        server, options, unbroken, tmp_path, phase, call, event):
    out = tmp_path / 'result'
    calls = unbroken.counts[phase]
    call = int(call * len(calls))
    event = int(event * calls[call])
    plots = [] if phase == 'plot' else ['--no-plots']
    status, _, err = server.run(
        *options, *plots, '-o', out,
        accidents=[(phase, call, event, 'kill')])
    assert (status, err) == (-signal.SIGKILL, '')
    assert not (out / LAST).exists() or phase == 'snapshot'
    assert_whole(out)
    go_on(server, [*options, *plots], out)
    assert_same_end(out, unbroken.folder)


LAYERS = {
    'linear': ['--layer', 'linear'],
    'mixed': ['--layer', 'mixed', '--n-blocks', 2],
    'low-rank': ['--layer', 'low-rank', '--rank', 2],
    'first': ['--order', 'plain', '--first-tiles', 28],
}


@pytest.mark.parametrize('layer', LAYERS)
def test_killed_with_other_layers(server, options, tmp_path, layer):
    """Twice each, at moments of a seed of its own."""
    options = [*options, *LAYERS[layer], '--no-plots', '--no-report']
    unbroken, out = tmp_path / 'unbroken', tmp_path / 'result'
    assert server.run(*options, '-o', unbroken)[0] == 0
    draw = random.Random(layer)
    for life in range(2):
        resume = ['-r'] if list(out.glob('snapshot_iter_*')) else []
        status, _, err = server.run(
            *options, '-o', out, *resume, accidents=[
                ('update', draw.randrange(5, 12), draw.randrange(50),
                 'kill')])
        assert (status, err) == (-signal.SIGKILL, ''), life
        assert_whole(out)
    go_on(server, options, out)
    assert_same_end(out, unbroken)


def test_killed_in_every_life(server, options, unbroken, tmp_path):
    """Killed as it goes on, too; no life is longer than ten iterations."""
    out = tmp_path / 'result'
    draw = random.Random(4)
    for _ in range(4):
        resume = ['-r'] if out.exists() and any(out.glob('snap*')) else []
        status, _, _ = server.run(
            *options, '--no-plots', '-o', out, *resume,
            accidents=[('update', draw.randrange(10), 0, 'kill')])
        if status == 0:
            break
        assert status == -signal.SIGKILL
    go_on(server, [*options, '--no-plots'], out)
    assert_same_end(out, unbroken.folder)


@pytest.mark.parametrize('seed', range(3))
def test_stopped_in_the_middle_of_epochs(
        server, options, unbroken, tmp_path, seed):
    """By either signal, again and again; its own snapshot each time."""
    out = tmp_path / 'result'
    draw = random.Random(seed)
    done = 0
    while True:
        at = draw.randrange(1, 8)
        number = draw.choice([signal.SIGINT, signal.SIGTERM])
        resume = ['-r'] if done else []
        status, shown, err = server.run(
            *options, '--no-plots', '-o', out, *resume, accidents=[
                ('update', at, draw.randrange(50), 'signal', number)])
        if done:
            assert f'snapshot_iter_{done}, after ' in shown
            assert f' epoch {done // EPOCH}, iteration {done}\n' in shown
        done += at + 1
        if done >= N_EPOCHS * EPOCH:
            assert (status, err) == (0, '')
            break
        assert status == 128 + number
        assert err == (
            f'train_mnist.py: stopped in epoch {done // EPOCH + 1}; '
            f'{out}/snapshot_iter_{done} is whole: go on with the same '
            f'options and --resume\n')
        assert_whole(out)
    assert done > 8
    assert_same_end(out, unbroken.folder)


@pytest.mark.parametrize('event', [0, .2, .5, .8, .95])
def test_second_ctrl_c_while_the_snapshot_is_written(
        server, options, unbroken, tmp_path, event):
    """It ends at once; the snapshot before is whole, and so is this one."""
    out = tmp_path / 'result'
    event = int(event * min(unbroken.counts['snapshot']))
    status, _, err = server.run(
        *options, '--no-plots', '-o', out, accidents=[
            ('update', 8, 5, 'signal', signal.SIGINT),
            ('snapshot', 1, event, 'signal', signal.SIGINT)])
    assert status == 130
    assert err.count('\n') == 1
    assert 'stopped in epoch 2; ' in err
    assert f'{out}/snapshot_iter_' in err
    assert (out / 'snapshot_iter_6').exists()
    assert_whole(out)
    assert not list(out.glob('.*'))
    go_on(server, [*options, '--no-plots'], out)
    assert_same_end(out, unbroken.folder)


def test_a_signal_in_the_last_iteration_changes_nothing(
        server, options, unbroken, tmp_path):
    out = tmp_path / 'result'
    status, shown, err = server.run(
        *options, '--no-plots', '-o', out, accidents=[
            ('update', N_EPOCHS * EPOCH - 1, 0, 'signal', signal.SIGTERM)])
    assert (status, err) == (0, '')
    assert 'seconds per epoch' in shown
    assert_same_end(out, unbroken.folder)


@pytest.mark.parametrize(('size', 'last'), [
    (100_000, 'snapshot_iter_6'),  # The log fits, the next snapshot does not.
    (700, 'snapshot_iter_6'),  # Not even the log.
])
def test_no_room(server, options, unbroken, tmp_path, size, last):
    out = tmp_path / 'result'
    status, _, err = server.run(
        *options, '--no-plots', '-o', out,
        accidents=[('update', 8, 0, 'fill disk', size)])
    assert status == 2
    assert err.startswith('train_mnist.py: error: stopped after epoch 2, ')
    assert 'File too large' in err
    assert err.endswith(
        f'{out}/{last} is whole: go on with the same options and --resume\n')
    assert err.count('\n') == 1
    assert sorted(os.listdir(out)) == ['log', last]
    assert len(json.loads((out / 'log').read_text())) == (
        3 if size > 1000 else 2)
    go_on(server, [*options, '--no-plots'], out)
    assert_same_end(out, unbroken.folder)


@pytest.fixture
def small_disk(tmp_path):
    """A file system with room for one snapshot and a half."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    mount = subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', 'size=320k', 'tmpfs', str(folder)],
        capture_output=True, text=True, check=False)
    if mount.returncode:
        pytest.skip(f'needs the right to mount: {mount.stderr.strip()}')
    yield folder
    subprocess.run(['umount', str(folder)], check=True)


def test_full_disk(server, options, unbroken, tmp_path, small_disk):
    out = small_disk / 'result'
    status, _, err = server.run(*options, '--no-plots', '-o', out)
    assert status == 2
    assert err == (
        f'train_mnist.py: error: stopped after epoch 2, '
        f'{out}/snapshot_iter_12: No space left on device; '
        f'{out}/snapshot_iter_6 is whole: go on with the same options and '
        f'--resume\n')
    assert sorted(os.listdir(out)) == ['log', 'snapshot_iter_6']
    elsewhere = tmp_path / 'elsewhere'
    status, _, err = server.run(
        *options, '--no-plots', '-o', elsewhere, '-r', out / 'snapshot_iter_6')
    assert (status, err) == (0, '')
    assert_same_end(elsewhere, unbroken.folder)


def test_full_disk_at_ctrl_c(server, options, unbroken, tmp_path):
    out = tmp_path / 'result'
    status, _, err = server.run(
        *options, '--no-plots', '-o', out, accidents=[
            ('update', 8, 0, 'fill disk', 1000),
            ('update', 8, 5, 'signal', signal.SIGINT)])
    assert status == 2
    assert 'File too large' in err
    assert err.endswith(
        f'{out}/snapshot_iter_6 is whole: go on with the same options and '
        f'--resume\n')
    assert sorted(os.listdir(out)) == ['log', 'snapshot_iter_6']


def test_the_folder_is_lost(server, options, tmp_path):
    out = tmp_path / 'result'
    status, _, err = server.run(
        *options, '--no-plots', '-o', out,
        accidents=[('update', 8, 0, 'replace by file', str(out))])
    assert status == 2
    where = re.escape(str(out))
    assert re.fullmatch(
        rf'train_mnist\.py: error: stopped after epoch 2, {where}/log: '
        rf'Not a directory; {where}/snapshot_iter_6 is gone, so start again\n',
        err), err
    assert out.read_bytes() == b'mine'


def test_output_into_a_full_disk(options, tmp_path):
    """As with "> log.txt"; once at the first line, once at the table."""
    if not os.path.exists('/dev/full'):
        pytest.skip('needs /dev/full')
    with open('/dev/full', 'w') as full:
        process = subprocess.run(
            [sys.executable, '-W', 'error', SCRIPT, *map(str, options),
             '--no-plots', '-o', tmp_path / 'result'],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert process.returncode == 2
    assert process.stderr == (
        'train_mnist.py: error: cannot print: No space left on device\n')


def test_sigterm_as_a_user_sends_it(options, tmp_path):
    """To a process of its own, from outside, at no chosen moment."""
    def start(*more):
        return subprocess.Popen(
            [sys.executable, '-W', 'error', SCRIPT, *map(str, options),
             '--no-plots', *map(str, more)], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, cwd=tmp_path)

    process = start('-e', 100_000)
    while process.stdout.readline().split()[:1] != ['3']:
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert err.count('\n') == 1
    assert 'train_mnist.py: stopped in epoch ' in err
    newest = snapshots.read_newest(tmp_path / 'result', print)
    assert f'; {newest.path.relative_to(tmp_path)} is whole: go on ' in err


def test_a_job_that_ignores_signals_goes_on_ignoring_them():
    """As under nohup, and in a shell's background."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) == signals._receive
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, previous)


def test_leftovers_of_the_dead_are_removed_and_nothing_else(tmp_path):
    dead = subprocess.Popen([sys.executable, '-c', ''])
    dead.wait()
    leftovers = [
        f'.snapshot_iter_6.{dead.pid}-0123abcd.tmp',
        f'.log.{dead.pid}-00000000.tmp',
        # In a container, this process may have the number of the last one.
        f'.loss.png.{os.getpid()}-0123abcd.tmp']
    others = [
        f'.log.{os.getppid()}-0123abcd.tmp',  # Is running.
        f'log.{dead.pid}-0123abcd.tmp', f'.log.{dead.pid}-0123abc.tmp',
        f'.log.{dead.pid}-0123abcd.tmp.txt', '.log.x-0123abcd.tmp',
        '.notes.tmp', 'snapshot_iter_6', 'log']
    for name in leftovers + others:
        (tmp_path / name).write_bytes(b'')
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(others)


def test_what_is_being_written_has_such_a_name(tmp_path):
    seen = []

    def write(file):
        seen.extend(os.listdir(tmp_path))
        remove_leftovers(tmp_path)

    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / 'f', write)
    assert len(seen) == 1
    assert os.listdir(tmp_path) == []
