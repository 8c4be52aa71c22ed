"""Several processes train what one trains."""
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import chainer
import mpi_job
import numpy
import pytest
from made_digits import write_digits
from tiny_run import SCRIPT

import train_mnist
from mnist import (
    command,
    connected,
    connecting,
    launch,
    processes,
    snapshots,
    stopping,
)
from mnist.errors import UserError

# 12 digits are 6 or 3 for each process; 60 are five mini-batches.
SIZES = ['--unit', '20', '--out-unit', '10', '--n-tiles', '5', '-b', '12']
N_EPOCHS = 4
LAST = 'snapshot_iter_20'
ENVIRONMENT = {
    'PYTHONPATH': str(SCRIPT.parent),
    # CI runs as root, on fewer cores than there are processes here: Open
    # MPI 4 and 5 are told that both are meant.
    'OMPI_ALLOW_RUN_AS_ROOT': '1',
    'OMPI_ALLOW_RUN_AS_ROOT_CONFIRM': '1',
    'PRTE_ALLOW_RUN_AS_ROOT': '1',
    'PRTE_ALLOW_RUN_AS_ROOT_CONFIRM': '1',
    'OMPI_MCA_rmaps_base_oversubscribe': '1',
    'PRTE_MCA_rmaps_default_mapping_policy': ':oversubscribe',
    'OPENBLAS_NUM_THREADS': '1',
}


def why_no_mpi():
    if launch.find_mpiexec() is None:
        return 'needs mpiexec: pip install ".[mpi]"'
    if importlib.util.find_spec('mpi4py') is None:
        return 'needs mpi4py: pip install ".[mpi]"'
    found = subprocess.run(
        [sys.executable, '-c', 'from mpi4py import MPI'], check=False,
        capture_output=True, text=True)
    if found.returncode:
        return f'mpi4py finds no MPI: {found.stderr.splitlines()[-1]}'
    return ''


needs_mpi = pytest.mark.skipif(bool(why_no_mpi()), reason=why_no_mpi())


def mpiexec(n, *command, program=None, **kwargs):
    """Starts n processes; Open MPI 4 is to add no lines of its own."""
    return subprocess.Popen(
        [program or launch.find_mpiexec(), '-n', str(n), sys.executable, '-W',
         'error', *map(str, command)], text=True, env={
            **os.environ, **ENVIRONMENT, 'OMPI_MCA_orte_execute_quiet': '1'},
        **{'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, **kwargs})


def finish(process):
    try:
        out, err = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        # So that mpiexec ends what it has started.
        process.terminate()
        process.communicate()
        raise
    return process.returncode, out, err


def run_job(n, *runs):
    """Runs the script several times in one start of n processes."""
    return finish(mpiexec(n, mpi_job.__file__, json.dumps([
        {**run, 'options': list(map(str, run['options']))}
        for run in runs])))


def our_lines(err):
    assert 'Traceback' not in err
    return [line for line in err.splitlines() if 'train_mnist.py' in line]


def load(path):
    with numpy.load(path) as arrays:
        return {name: arrays[name] for name in arrays}


def read_log(folder):
    return json.loads((folder / 'log').read_text())


def without_times(log):
    return [
        {key: value for key, value in entry.items() if key != 'elapsed_time'}
        for entry in log]


@pytest.fixture(scope='module')
def options(tmp_path_factory):
    # 25 to test on: no number of processes here divides them.
    folder = write_digits(tmp_path_factory.mktemp('data') / 'digits', 60, 25)
    return [*SIZES, '--data', folder, '--no-plots', '--seed', 3]


# Of the layer, of the mini-batch that ends in the middle of an epoch too.
VARIANTS = {
    'shared': ['--layer', 'shared', '-e', 1],
    'dense': ['--layer', 'linear', '-e', 1],
    'across epochs': ['-b', 32, '-e', 3],
    'unbroken': ['-e', N_EPOCHS],
}


@pytest.fixture(scope='module')
def several(options, tmp_path_factory):
    """Runs every variant in n processes, once: several(n) -> folder."""
    folders = {}

    def several(n):
        if n not in folders:
            folder = tmp_path_factory.mktemp(f'processes_{n}')
            for name in VARIANTS:
                (folder / name).mkdir()
            status, out, err = run_job(n, *(
                {'options': [*options, *more, '-o', folder / name / 'result'],
                 'dump': str(folder / name)}
                for name, more in VARIANTS.items()))
            assert (status, err) == (0, '')
            assert 'statuses' + len(VARIANTS) * ' 0' + '\n' in out
            (folder / 'out').write_text(out)
            folders[n] = folder
        return folders[n]
    return several


@pytest.fixture
def single(options, tmp_path, monkeypatch):
    """Runs a variant in this process: its parameters before and after."""
    networks, before = [], {}
    make_network = train_mnist.make_network

    def make_and_keep(args):
        networks.append(make_network(args))
        before.update({
            name: param.array.copy()
            for name, param in networks[-1].namedparams()})
        return networks[-1]

    monkeypatch.setattr(train_mnist, 'make_network', make_and_keep)

    def single(name):
        assert train_mnist.main([*map(str, [
            *options, *VARIANTS[name], '-o', tmp_path / 'single'])]) == 0
        return before, {
            name: param.array for name, param in networks[-1].namedparams()}
    return single


@needs_mpi
@pytest.mark.parametrize('n', [2, 4])
@pytest.mark.parametrize('variant', VARIANTS)
def test_as_one_process(several, single, tmp_path, capsys, n, variant):
    folder = several(n) / variant
    before, expected = single(variant)
    capsys.readouterr()
    assert len(expected) == 5
    ours = [load(folder / str(rank)) for rank in range(n)]
    for path, array in expected.items():
        for theirs in ours:
            numpy.testing.assert_array_equal(theirs[path[1:]], ours[0][
                path[1:]], err_msg='differs between the processes')
        # One step of Adam is up to 1e-3, so a gradient that is not the mean
        # over the mini-batch shows; rounding moves them by 3e-8.
        assert abs(array - before[path]).max() > 3e-3
        numpy.testing.assert_allclose(
            ours[0][path[1:]], array, rtol=0, atol=1e-6)

    logs = [read_log(folder / 'result'), read_log(tmp_path / 'single')]
    assert len(logs[0]) == int(VARIANTS[variant][-1]) + 1
    for one, other in zip(*logs, strict=True):
        assert one.keys() == other.keys()
        for key in one.keys() - {'elapsed_time'}:
            assert one[key] == pytest.approx(other[key], rel=1e-6), key


@needs_mpi
@pytest.mark.parametrize('n', [2, 4])
def test_one_process_reports(several, n):
    out = (several(n) / 'out').read_text()
    assert out.count(f'Device: @numpy, {n} processes\n') == len(VARIANTS)
    assert out.count('seconds per epoch') == len(VARIANTS)
    assert '\033' not in out
    assert out.count('\n0  ') == len(VARIANTS)
    names = set(os.listdir(several(n) / 'shared' / 'result'))
    assert names == {'log', 'report.html', 'snapshot_iter_5'}
    assert out.count('# report: ') == len(VARIANTS)
    page = (several(n) / 'shared' / 'result' / 'report.html').read_text()
    assert f'<dt>processes</dt><dd>{n}</dd>' in page
    assert page.count('<section ') == 9


@needs_mpi
def test_a_page_that_cannot_be_written_ends_all_of_them(options, tmp_path):
    """With the result kept, and ready for the next run."""
    (tmp_path / 'r' / 'report.html').mkdir(parents=True)
    status, out, err = run_job(2, *(
        {'options': [*options, '-e', 1, '-o', tmp_path / 'r', *more]}
        for more in ([], ['-r', '--no-report'])))
    assert status == 2
    assert 'statuses 2 0' in out
    line, = our_lines(err)
    assert 'report.html: Is a directory; the network is trained, and ' in line


@needs_mpi
def test_one_process_goes_on_from_a_snapshot_of_several(
        several, options, tmp_path, capsys):
    """And trains as if they had never been several."""
    path = several(2) / 'shared' / 'result' / 'snapshot_iter_5'
    for out, resume in ('mixed', ['-r', path]), ('single', []):
        assert train_mnist.main([*map(str, [
            *options, '-e', 2, '-o', tmp_path / out, *resume])]) == 0
    ours, theirs = (
        load(tmp_path / out / 'snapshot_iter_10')
        for out in ('mixed', 'single'))
    assert ours.keys() == theirs.keys()
    for name in theirs:
        if name.startswith('updater/'):
            numpy.testing.assert_allclose(ours[name], theirs[name], atol=1e-6)


@needs_mpi
def test_errors_before_training(options, tmp_path):
    """One line each, and the processes are still together for the next."""
    (tmp_path / 'file').write_bytes(b'mine')
    few = write_digits(tmp_path / 'few', 60, 1)
    cases = {
        '--batchsize 13 cannot be divided among 2 processes; 12 and 14 can':
            ['-b', 13],
        '--batchsize 1 cannot be divided among 2 processes; 2 can': ['-b', 1],
        '/nowhere: no such folder': ['--data', '/nowhere'],
        f'--out {tmp_path}/file: cannot write': ['-o', tmp_path / 'file'],
        '--n-tiles 7 with --unit 20': ['--n-tiles', 7],
        '--unit 20000000000000 --out-unit 10 --n-tiles 5: not enough memory':
            ['--unit', 20_000_000_000_000],
        'nothing to resume from: ': ['-o', tmp_path / 'nothing', '-r'],
        '--data has 1 digits to test on, which are too few for 2 processes':
            ['--data', few],
        '--device 0 needs CuPy': ['-d', 0],
    }
    if chainer.backends.cuda.available:
        del cases['--device 0 needs CuPy']
    status, out, err = run_job(2, *(
        {'options': [*options, '-e', 1, '-o', tmp_path / 'r', *more]}
        for more in cases.values()))
    assert status == 2
    assert 'statuses' + len(cases) * ' 2' in out
    lines = our_lines(err)
    assert len(lines) == len(cases)
    for line, words in zip(lines, cases, strict=True):
        assert line.startswith('train_mnist.py: error: ')
        assert words in line
    assert (tmp_path / 'file').read_bytes() == b'mine'


@needs_mpi
@pytest.mark.parametrize(('more', 'words'), [
    ([], '2 processes would all train the same network: add '
         '--communicator naive on CPUs, pure_nccl on GPUs'),
    (['--communicator', 'fast'],
     "--communicator: invalid choice: 'fast' (choose from "),
    (['--communicator', 'naive', '--data', '/nowhere'],
     '/nowhere: no such folder'),
])
def test_error_as_a_user_sees_it(options, tmp_path, more, words):
    status, out, err = finish(mpiexec(
        2, SCRIPT, *options, '-o', tmp_path / 'result', *more))
    assert status == 2
    lines = our_lines(err)
    assert len(lines) == 1
    assert lines[0].startswith('train_mnist.py: error: ')
    assert words in lines[0]
    assert not (tmp_path / 'result' / 'log').exists()


@needs_mpi
@pytest.mark.parametrize('communicator', connected.ON_GPUS)
def test_nccl_is_missing(communicator, tmp_path):
    """Found out before training, whatever CuPy there is."""
    code = '''if True:
        import sys
        import shared_linear
        from chainermn import nccl
        from mnist import connecting
        from mnist.errors import UserError
        nccl._available = False
        try:
            connecting.connect(sys.argv[1]).open(sys.argv[1])
        except UserError as e:
            print(e)
    '''
    done = subprocess.run(
        [sys.executable, '-W', 'error', '-c', code, communicator],
        capture_output=True, text=True, check=False,
        env={**os.environ, **ENVIRONMENT})
    assert done.stdout.count('\n') == 1, done.stdout + done.stderr
    assert done.stdout == (
        f'--communicator {communicator} needs CuPy with NCCL, and a GPU for '
        f'each process (NCCL is not available); naive is for CPUs\n')


@needs_mpi
@pytest.mark.skipif(
    chainer.backends.cuda.available, reason='for machines without CuPy')
@pytest.mark.parametrize('communicator', ['pure_nccl', 'flat'])
def test_gpus_are_missing(options, tmp_path, communicator):
    status, _, err = finish(mpiexec(
        2, SCRIPT, *options, '-o', tmp_path / 'result', '--communicator',
        communicator))
    assert status == 2
    lines = our_lines(err)
    assert len(lines) == 1
    assert (f'{communicator} needs CuPy with NCCL, and a GPU for each process'
            in lines[0])
    assert 'naive is for CPUs' in lines[0]


@needs_mpi
def test_a_disk_that_fills_up_ends_all(options, tmp_path):
    """Only the first process meets it, while the other waits for it."""
    out = tmp_path / 'result'
    status, _, err = run_job(2, {
        'options': [*options, '-e', N_EPOCHS, '-o', out],
        'accidents': [(0, 'update', 7, 0, 'fill disk', 1000)]})
    assert status == 2
    assert our_lines(err) == [
        f'train_mnist.py: error: stopped after epoch 2, '
        f'{out}/snapshot_iter_10: File too large; {out}/snapshot_iter_5 is '
        f'whole: go on with the same options and --resume']
    assert sorted(os.listdir(out)) == ['log', 'snapshot_iter_5']


@needs_mpi
def test_killed_and_stopped_and_gone_on(several, options, tmp_path):
    """By either process; the end is that of the run that was left alone."""
    def run(*more, accidents=()):
        return run_job(2, {
            'options': [*options, '-e', N_EPOCHS, '-o', result, *more],
            'accidents': accidents})

    unbroken = several(2) / 'unbroken' / 'result'
    result = tmp_path / 'result'
    status, _, err = run(accidents=[
        (1, 'update', 6, 3, 'signal', signal.SIGTERM)])
    assert status == 143
    assert our_lines(err) == [
        f'train_mnist.py: stopped in epoch 2; {result}/snapshot_iter_7 is '
        f'whole: go on with the same options and --resume']
    # Nine more iterations: after the snapshot of epoch 3, in epoch 4.
    status, out, err = run('-r', accidents=[(1, 'update', 9, 3, 'kill')])
    assert f'resumed from {result}/snapshot_iter_7, after epoch 1, iter' in out
    assert status != 0
    assert our_lines(err) == []
    status, out, err = run('-r')
    assert (status, err) == (0, '')
    assert f'resumed from {result}/snapshot_iter_15, after epoch 3' in out

    ours, theirs = (load(out / LAST) for out in (result, unbroken))
    assert ours.keys() == theirs.keys()
    for name in theirs:
        if name == 'extensions/LogReport/_log':
            assert without_times(json.loads(str(ours[name]))) == (
                without_times(json.loads(str(theirs[name]))))
        elif name != '_snapshot_elapsed_time':
            numpy.testing.assert_array_equal(
                ours[name], theirs[name], err_msg=name)
    assert without_times(read_log(result)) == (
        without_times(read_log(unbroken)))


def start_endless(options, folder, **kwargs):
    return mpiexec(
        2, '-u', SCRIPT, *options, '-e', 100_000, '--communicator', 'naive',
        cwd=folder, **kwargs)


def newest_snapshot(folder):
    """Its name, and the iteration that it says it was taken after."""
    path = snapshots.read_newest(folder / 'result', print).path
    return path.name, int(load(path)['updater/iteration'])


@needs_mpi
def test_ctrl_c(options, tmp_path):
    """Open MPI's mpiexec hands it on as SIGTERM, MPICH's as it is."""
    process = start_endless(
        options, tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    while process.stdout.readline().split()[:1] != ['2']:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    status, _, err = finish(process)
    assert status != 0
    name, iteration = newest_snapshot(tmp_path)
    assert name == f'snapshot_iter_{iteration}'
    lines = our_lines(err)
    if not lines:
        # Open MPI 5's reads nothing any more; test_ctrl_c_on_a_terminal.
        assert which_mpi().startswith('Open MPI v5')
    else:
        line, = lines
        assert line.startswith('train_mnist.py: stopped in epoch ')
        assert f'; result/{name} is whole: go on with ' in line


@needs_mpi
def test_ctrl_c_on_a_terminal(options, tmp_path):
    """One line and a snapshot, with every MPI."""
    fcntl, pty, termios = map(
        pytest.importorskip, ('fcntl', 'pty', 'termios'))
    parent, child = pty.openpty()
    process = start_endless(
        options, tmp_path, stdin=child, stdout=child, stderr=child,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
    os.close(child)
    shown, pressed = b'', False
    while True:
        try:
            shown += os.read(parent, 10_000)
        except OSError:  # How Linux says that the other end is closed.
            break
        if not pressed and b'\n2 ' in shown:
            pressed = True
            os.write(parent, b'\x03')
    os.close(parent)
    assert process.wait() != 0
    name, iteration = newest_snapshot(tmp_path)
    assert name == f'snapshot_iter_{iteration}'
    lines = our_lines(shown.decode())
    if command.NO_TIME in lines[0]:
        # A busy machine; it may be killed before the snapshot is whole.
        assert which_mpi().startswith('Open MPI v5')
        del lines[0]
        if not lines:
            return
    line, = lines
    assert f'train_mnist.py: stopped in epoch {iteration // 5 + 1}; ' in line
    assert line.endswith(
        f'result/{name} is whole: go on with the same options and --resume')


def which_mpi():
    return subprocess.run(
        [sys.executable, '-c', 'import mpi4py; '
         'mpi4py.rc(initialize=False); from mpi4py import MPI; '
         'print(MPI.Get_library_version())'],
        check=True, capture_output=True, text=True).stdout


def test_a_signal_before_the_snapshot_is_not_silent():
    said = []
    with stopping.StopSignals(signal.SIGCONT) as signals:
        signals.hurry = lambda: said.append('hurry')
        signals.is_training = True
        signal.raise_signal(signal.SIGCONT)
        signal.raise_signal(signal.SIGTERM)
    assert said == ['hurry']


class Trainer(SimpleNamespace):
    """As much of a trainer as StopWhenAsked asks for."""

    def __init__(self):
        super().__init__(updater=SimpleNamespace(epoch=0), taken=0)

    def get_extension(self, name):
        return self

    def take(self, trainer):
        self.taken += 1


@pytest.mark.parametrize('follows', [True, False])
def test_a_warning_is_worth_a_snapshot(monkeypatch, follows):
    """And ends the run only if SIGTERM follows it."""
    def sleep(seconds):
        if follows:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(stopping, 'PATIENCE', .05)
    monkeypatch.setattr(stopping.time, 'sleep', sleep)
    trainer, said = Trainer(), []
    with stopping.StopSignals(signal.SIGCONT) as signals:
        signals.hurry = lambda: said.append('hurry')
        stop = stopping.StopWhenAsked(signals, 10, processes.Processes())
        signals.is_training = True
        stop(trainer)
        assert trainer.taken == 0
        signal.raise_signal(signal.SIGCONT)
        if follows:
            with pytest.raises(KeyboardInterrupt):
                stop(trainer)
            assert signals.status == 143
        else:
            stop(trainer)
            stop(trainer)
            assert not signals.is_warned
        assert trainer.taken == 1
        assert said == []
    assert signal.getsignal(signal.SIGCONT) == signal.SIG_DFL


def test_mpi4py_is_missing(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, 'mpi4py', None)
    line = refused('--communicator', 'naive', '--no-plots')
    assert '--communicator naive needs mpi4py and MPI (' in line
    assert 'pip install ".[mpi]"' in line
    assert 'apt-get install openmpi-bin' in line


def test_mpi4py_finds_no_mpi(refused, monkeypatch):
    """It raises RuntimeError then, of more than one line."""
    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == 'mpi4py.MPI':
                raise RuntimeError('cannot load MPI library\nlibmpi.so: gone')

    pytest.importorskip('mpi4py')
    for name in [n for n in sys.modules if n.startswith('mpi4py.MPI')]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr('mpi4py.MPI', raising=False)
    monkeypatch.setattr(sys, 'meta_path', [Finder(), *sys.meta_path])
    line = refused('--communicator', 'naive', '--no-plots')
    assert 'needs mpi4py and MPI (cannot load MPI library libmpi.so: ' in line
    assert 'pip install ".[mpi]" brings both' in line


def test_mpi_is_not_asked_for_without_a_communicator(options, tmp_path):
    code = '''if True:
        import sys
        sys.modules['mpi4py'] = sys.modules['chainermn'] = None
        import train_mnist
        sys.exit(train_mnist.main(sys.argv[1:]))
    '''
    process = subprocess.run(
        [sys.executable, '-W', 'error', '-c', code, *map(str, options),
         '-e', '1', '-o', tmp_path / 'result'],
        capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (0, '')


OPEN_MPIS = {'OMPI_COMM_WORLD_SIZE': '4', 'OMPI_COMM_WORLD_RANK': '0'}
MPICHS = {'PMI_SIZE': '4', 'PMI_RANK': '0'}


@needs_mpi
@pytest.mark.parametrize('is_own', [True, False])
def test_each_process_is_alone(options, tmp_path, is_own):
    """As under the mpiexec of another MPI, and as where it is broken."""
    is_open = which_mpi().startswith('Open MPI')
    process = subprocess.run(
        [sys.executable, '-W', 'error', SCRIPT, *map(str, options),
         '--communicator', 'naive', '-o', tmp_path / 'result'],
        capture_output=True, text=True, check=False,
        env={**os.environ, **ENVIRONMENT,
             **(OPEN_MPIS if is_open is is_own else MPICHS)})
    assert process.returncode == 2
    line, = process.stderr.splitlines()
    if is_own:
        assert 'mpiexec started 4 processes, of which mpi4py finds 1' in line
    else:
        ours, other = ('Open MPI', 'MPICH') if is_open else (
            'MPICH', 'Open MPI')
        assert f'mpiexec is of {other}, and mpi4py uses another' in line
        assert f'another MPI, {ours} ' in line


@pytest.mark.more
@needs_mpi
def test_under_the_mpiexec_of_the_system(options, tmp_path):
    """It works if it is of the same family, and else is one line."""
    theirs = shutil.which('mpiexec', path='/usr/local/bin:/usr/bin')
    if theirs is None or theirs == launch.find_mpiexec():
        pytest.skip('needs two MPIs, from pip and from the system')
    version = subprocess.run(
        [theirs, '--version'], capture_output=True, text=True).stdout
    status, out, err = finish(mpiexec(
        2, SCRIPT, *options, '-e', 1, '--communicator', 'naive', '-o',
        tmp_path / 'result', program=theirs))
    if ('Open MPI' in version or 'open-mpi' in version) == (
            which_mpi().startswith('Open MPI')):
        assert (status, our_lines(err)) == (0, [])
        assert ', 2 processes' in out
    else:
        assert status == 2
        line, = our_lines(err)
        assert 'and mpi4py uses another MPI, ' in line
        assert line.endswith(f': start with {launch.find_mpiexec()}')


@pytest.mark.parametrize(('environ', 'expected'), [
    ({}, (1, 0, '', False)),
    ({'OMPI_COMM_WORLD_SIZE': '8', 'OMPI_COMM_WORLD_LOCAL_RANK': '3',
      'OMPI_COMM_WORLD_RANK': '7'}, (8, 3, 'Open MPI', False)),
    ({'OMPI_COMM_WORLD_SIZE': '8', 'PRTE_LAUNCHED': '1'},
     (8, 0, 'Open MPI', True)),
    ({'PMI_SIZE': '4', 'PMI_RANK': '2'}, (4, 2, 'MPICH', False)),
    ({'PMI_SIZE': '4', 'PMI_RANK': '2', 'MPI_LOCALRANKID': '0'},
     (4, 0, 'MPICH', False)),
    ({'PMI_SIZE': '4', 'PMI_RANK': '2', 'SLURM_PROCID': '2'},
     (4, 2, '', False)),
    ({'PMI_SIZE': 'many'}, (1, 0, '', False)),
])
def test_how_this_process_was_started(environ, expected):
    assert launch.read_launch(environ) == expected


@pytest.mark.parametrize(('library', 'family'), [
    ('Open MPI v5.0.11, package: Open MPI user@localhost', 'Open MPI'),
    ('MPICH Version:      5.0.2\nMPICH Release date: today', 'MPICH'),
    ('Intel(R) MPI Library 2021.13 for Linux* OS\n', 'MPICH')])
def test_libraries_and_their_mpiexec(library, family):
    for mpi in '', 'Open MPI', 'MPICH':
        reason = launch.why_not(launch.Launch(2, 0, mpi), library)
        assert (reason is None) is (mpi in ('', family))
        if reason is not None:
            assert '\n' not in reason
            assert f'mpiexec is of {mpi}, ' in reason


@pytest.mark.parametrize(('mpi', 'seconds'), [
    ('Open MPI', connecting.PATIENCE), ('MPICH', connected.READING)])
def test_the_first_of_a_machine_speaks_and_the_others_wait(
        monkeypatch, mpi, seconds):
    waited = []
    monkeypatch.setattr(connecting.time, 'sleep', waited.append)
    first, second = (
        connecting.Unconnected(launch.Launch(4, i, mpi)) for i in range(2))
    assert first.speaks()
    assert not second.speaks()
    first.leave(2)
    assert waited == []
    second.leave(2)
    assert waited == [seconds]


@pytest.fixture
def third_of_four():
    """Number 2 of four processes, whose others do as it does."""
    class World:
        rank, size = 2, 4

        def allgather(self, item):
            return [item] * 4

    several = connected.Connected(World())
    several._communicator = SimpleNamespace(intra_rank=1)
    return several


def test_each_process_takes_the_gpu_of_its_number(third_of_four, monkeypatch):
    """Of its number on its machine: it is the second of two there."""
    monkeypatch.setattr(connected, 'get_device', '@cupy:{}'.format)
    third_of_four._name = 'pure_nccl'
    assert third_of_four.get_device('-1') == '@cupy:1'
    with pytest.raises(UserError, match='its machine: leave --device 0 out'):
        third_of_four.get_device('0')


def test_a_machine_with_too_few_gpus(third_of_four, monkeypatch):
    def get_device(spec):
        raise UserError(f'--device {spec}: there is no GPU {spec}')
    monkeypatch.setattr(connected, 'get_device', get_device)
    third_of_four._name = 'pure_nccl'
    with pytest.raises(
            UserError, match='wants a GPU for each process: .* no GPU 1'):
        third_of_four.get_device('-1')


def test_naive_is_for_cpus(third_of_four, monkeypatch):
    gpu = object.__new__(chainer.backend.GpuDevice)
    monkeypatch.setattr(connected, 'get_device', lambda spec: gpu)
    third_of_four._name = 'naive'
    with pytest.raises(UserError, match='--device 0 out, or use pure_nccl'):
        third_of_four.get_device('0')


@pytest.mark.parametrize('batchsize', [4, 12, 32, 100])
def test_the_parts_are_the_mini_batch(batchsize):
    """In the order of the one process, whatever the number of processes."""
    digits = list(range(60))

    def draw(iterate):
        numpy.random.seed(1)
        iterator = iterate()
        return [iterator.next() for _ in range(40)], iterator.epoch_detail

    whole, detail = draw(
        lambda: processes.Processes().iterate(digits, batchsize))
    parts = [
        draw(lambda i=i: connected.PartIterator(
            digits, batchsize, slice(
                i * batchsize // 4, (i + 1) * batchsize // 4)))
        for i in range(4)]
    assert [sum(batch, []) for batch in zip(
        *(part for part, _ in parts), strict=True)] == whole
    assert {end for _, end in parts} == {detail}
