"""A run that was killed goes on as if it had never been."""
import json
import os
import random
import signal
import subprocess
import sys

import chainer
import numpy
import pytest
from tiny_run import TINY

import train_mnist
from mnist import snapshots
from mnist.folder import LOCK
from mnist.snapshots import SnapshotError

N_EPOCHS = 5
LAST = 'snapshot_iter_30'

# Runs the script in a process that kills itself, with no chance to tidy up.
KILL_AT_ITERATION = '''if True:
    import os, signal, sys
    import train_mnist
    from chainer.training.updaters import StandardUpdater
    at = int(sys.argv[1])
    update = StandardUpdater.update

    def update_or_die(self):
        update(self)
        if self.iteration == at:
            os.kill(os.getpid(), signal.SIGKILL)

    StandardUpdater.update = update_or_die
    train_mnist.main(sys.argv[2:])
'''
KILL_WHILE_WRITING = '''if True:
    import os, signal, sys
    import train_mnist
    at = sys.argv[1]
    replace = os.replace

    def replace_or_die(source, target):
        if os.path.basename(target) == at:
            os.truncate(source, os.path.getsize(source) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = replace_or_die
    train_mnist.main(sys.argv[2:])
'''


@pytest.fixture
def options(digits_dir, tmp_path):
    return [
        *TINY, '--data', str(digits_dir), '--no-plots', '--seed', '3',
        '-e', str(N_EPOCHS), '-o', str(tmp_path / 'result')]


@pytest.fixture
def unbroken(options, tmp_path, capsys):
    """Folder of the same run, never stopped."""
    out = tmp_path / 'unbroken'
    assert train_mnist.main([*options, '-o', str(out)]) == 0
    capsys.readouterr()
    return out


def kill(code, at, options):
    process = subprocess.run(
        [sys.executable, '-c', code, str(at), *options],
        capture_output=True, check=False)
    assert process.returncode == -signal.SIGKILL


def without_times(log):
    return [
        {key: value for key, value in entry.items() if key != 'elapsed_time'}
        for entry in log]


def assert_same_end(folder, unbroken):
    with numpy.load(folder / LAST) as ours, (
            numpy.load(unbroken / LAST)) as theirs:
        assert set(ours) == set(theirs)
        assert any('/l2/W/m' in name for name in ours)
        for name in theirs:
            if name == 'extensions/LogReport/_log':
                assert without_times(json.loads(str(ours[name]))) == (
                    without_times(json.loads(str(theirs[name]))))
            elif name != '_snapshot_elapsed_time':
                assert ours[name].dtype == theirs[name].dtype
                numpy.testing.assert_array_equal(ours[name], theirs[name])
    logs = [
        without_times(json.loads((out / 'log').read_text()))
        for out in (folder, unbroken)]
    assert len(logs[0]) == N_EPOCHS + 1
    assert logs[0] == logs[1]


@pytest.mark.parametrize('iteration', [
    13,  # just after the second snapshot
    16,  # in the middle of an epoch
    18,  # at the end of an epoch, before its snapshot
])
def test_killed_during_an_epoch(
        options, unbroken, tmp_path, capsys, iteration):
    kill(KILL_AT_ITERATION, iteration, options)
    assert sorted(os.listdir(tmp_path / 'result')) == [
        LOCK, 'log', 'snapshot_iter_12', 'snapshot_iter_6']
    assert train_mnist.main([*options, '--resume']) == 0
    out, err = capsys.readouterr()
    assert err == ''
    assert f'# resumed from {tmp_path}/result/snapshot_iter_12, after ' in out
    assert_same_end(tmp_path / 'result', unbroken)


def test_killed_while_it_wrote_a_snapshot(
        options, unbroken, tmp_path, capsys):
    kill(KILL_WHILE_WRITING, 'snapshot_iter_18', options)
    leftovers = {
        name for name in os.listdir(tmp_path / 'result')
        if name.endswith('.tmp')}
    assert len(leftovers) == 1
    assert train_mnist.main([*options, '--resume']) == 0
    out, _ = capsys.readouterr()
    assert f'resumed from {tmp_path}/result/snapshot_iter_12' in out
    assert 'skipped' not in out
    assert_same_end(tmp_path / 'result', unbroken)
    assert not leftovers & set(os.listdir(tmp_path / 'result'))


@pytest.mark.parametrize('damage', ['truncate', 'empty', 'flip'])
def test_damaged_newest_snapshot_is_skipped(
        options, unbroken, tmp_path, capsys, damage):
    assert train_mnist.main([*options, '-e', '3']) == 0
    capsys.readouterr()
    newest = tmp_path / 'result' / 'snapshot_iter_18'
    content = bytearray(newest.read_bytes())
    if damage == 'flip':
        content[len(content) // 2] ^= 1
    else:
        del content[len(content) // 2 if damage == 'truncate' else 0:]
    newest.write_bytes(content)
    assert train_mnist.main([*options, '--resume']) == 0
    out, err = capsys.readouterr()
    assert err == ''
    assert out.count(f'# skipped {newest}: no snapshot: ') == 1
    assert f'resumed from {tmp_path}/result/snapshot_iter_12' in out
    assert_same_end(tmp_path / 'result', unbroken)


def test_stopped_twice_and_lengthened(options, unbroken, tmp_path, capsys):
    """Two runs that end early by themselves, the second from a name."""
    first, second = tmp_path / 'first', tmp_path / 'second'
    assert train_mnist.main([*options, '-e', '1', '-o', str(first)]) == 0
    assert train_mnist.main([
        *options, '-e', '3', '-o', str(second),
        '--resume', str(first / 'snapshot_iter_6')]) == 0
    assert train_mnist.main([*options, '-o', str(second), '-r']) == 0
    assert_same_end(second, unbroken)


def test_other_random_numbers_in_between_do_not_matter(
        options, unbroken, tmp_path):
    assert train_mnist.main([*options, '-e', '2']) == 0
    numpy.random.seed(99)
    random.seed(99)
    assert train_mnist.main([*options, '-r']) == 0
    assert_same_end(tmp_path / 'result', unbroken)


def test_plots_may_come_and_go(options, unbroken, tmp_path):
    pytest.importorskip('matplotlib')
    plotted = [option for option in options if option != '--no-plots']
    assert train_mnist.main([*options, '-e', '1']) == 0
    assert train_mnist.main([*plotted, '-e', '2', '-r']) == 0
    assert (tmp_path / 'result' / 'loss.png').exists()
    assert train_mnist.main([*options, '-r']) == 0
    assert_same_end(tmp_path / 'result', unbroken)


@pytest.mark.parametrize('n_epochs', [2, 1])
def test_run_that_is_done_prints_its_table_again(
        options, tmp_path, capsys, n_epochs):
    assert train_mnist.main([*options, '-e', '2']) == 0
    first, _ = capsys.readouterr()
    before = {
        path: path.read_bytes() for path in (tmp_path / 'result').iterdir()
        if path.name != 'report.html'}
    assert train_mnist.main([*options, '-r', '-e', str(n_epochs)]) == 0
    again, err = capsys.readouterr()
    assert err == ''
    assert '# every epoch is done already\n' in again
    rows = first[first.index('epoch  '):]
    assert rows.count('\n') > 10
    assert again.endswith(rows)
    assert before == {
        path: path.read_bytes() for path in (tmp_path / 'result').iterdir()
        if path.name != 'report.html'}


@pytest.mark.parametrize(('others', 'words'), [
    (['--unit', '40'], '--unit 20, not --unit 40'),
    (['--seed', '4', '-b', '12'],
     '--batchsize 10 --seed 3, not --batchsize 12 --seed 4'),
    (['--n-tiles', '4'], '--n-tiles 5, not --n-tiles 4'),
    (['--out-unit', '11'], '--out-unit 10, not --out-unit 11'),
    (['--layer', 'linear'], '--layer shared'),
])
def test_other_settings_are_refused(
        options, refused, tmp_path, capsys, others, words):
    assert train_mnist.main([*options, '-e', '1']) == 0
    capsys.readouterr()
    before = sorted(os.listdir(tmp_path / 'result'))
    line = refused(*options, *others, '--resume')
    assert f'result/snapshot_iter_6 was trained with {words}' in line
    assert sorted(os.listdir(tmp_path / 'result')) == before


def test_other_digits_are_refused(options, refused, digits_dir, capsys):
    assert train_mnist.main([*options, '-e', '1']) == 0
    capsys.readouterr()
    path = digits_dir / 'train-labels-idx1-ubyte'
    labels = bytearray(path.read_bytes())
    labels[-1] = (labels[-1] + 1) % 10
    path.write_bytes(labels)
    line = refused(*options, '--resume')
    assert 'snapshot_iter_6 was trained with --data 60 digits ' in line


def test_nothing_to_resume_from(options, refused, tmp_path):
    line = refused(*options, '-r')
    assert f'nothing to resume from: {tmp_path}/result: No such file' in line
    assert not (tmp_path / 'result').exists()
    (tmp_path / 'result').mkdir()
    # Neither a folder nor what a killed run leaves is a snapshot.
    (tmp_path / 'result' / 'snapshot_iter_6').mkdir()
    (tmp_path / 'result' / '.snapshot_iter_6.1-ab.tmp').write_bytes(b'')
    assert 'nothing to resume from: no snapshot in' in refused(*options, '-r')


def test_no_snapshot_is_whole(options, refused, tmp_path):
    (tmp_path / 'result').mkdir()
    (tmp_path / 'result' / 'snapshot_iter_6').write_bytes(b'PK')
    assert 'no snapshot in' in (line := refused(*options, '-r'))
    assert 'is whole' in line


@pytest.mark.parametrize(('content', 'words'), [
    (None, 'No such file or directory'),
    (b'', 'truncated, or not an NPZ file'),
    (b'some notes', 'truncated, or not an NPZ file'),
])
def test_file_that_is_no_snapshot(
        options, refused, tmp_path, content, words):
    path = tmp_path / 'mine'
    if content is not None:
        path.write_bytes(content)
    assert f'{path}: no snapshot: {words}' in refused(
        *options, '--resume', path)
    assert path.exists() is (content is not None)
    assert content is None or path.read_bytes() == content


def test_snapshot_of_another_script(options, refused, tmp_path):
    chainer.serializers.save_npz(
        str(tmp_path / 'other'), chainer.links.Linear(3, 2))
    assert 'other: no snapshot of this script' in refused(
        *options, '--resume', tmp_path / 'other')


def test_a_changed_byte_is_noticed_or_does_no_harm(
        options, tmp_path, monkeypatch):
    assert train_mnist.main([*options, '-e', '1']) == 0
    path = tmp_path / 'result' / 'snapshot_iter_6'
    whole = snapshots.read(path)
    content = path.read_bytes()
    # The end has the table of contents, where every byte matters most.
    places = random.Random(0).sample(range(len(content) - 6000, len(content)),
                                     300)
    damaged = tmp_path / 'damaged'
    noticed = 0
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        damaged.write_bytes(changed)
        try:
            arrays = snapshots.read(damaged).arrays
        except SnapshotError as e:
            noticed += 1
            assert '\n' not in str(e)
        else:
            assert arrays.keys() == whole.arrays.keys()
            for name, array in whole.arrays.items():
                numpy.testing.assert_array_equal(arrays[name], array)
    assert noticed > 100


def test_a_snapshot_that_lost_an_array(options, tmp_path):
    """As when damage hits the lengths in the table of contents."""
    assert train_mnist.main([*options, '-e', '1']) == 0
    with numpy.load(tmp_path / 'result' / 'snapshot_iter_6') as whole:
        arrays = dict(whole)
    del arrays['updater/optimizer:main/predictor/l2/W/m']
    with open(tmp_path / 'less', 'wb') as file:
        numpy.savez(file, **arrays)
    with pytest.raises(SnapshotError, match='less: .*: arrays are lost'):
        snapshots.read(tmp_path / 'less')


def test_chainer_itself_loads_the_network(options, tmp_path):
    """A snapshot is Chainer's own format, and more."""
    from mnist.network import MLP
    assert train_mnist.main([*options, '-e', '1']) == 0
    path = tmp_path / 'result' / 'snapshot_iter_6'
    network = MLP(20, 10, n_tiles=5)
    chainer.serializers.load_npz(
        str(path), network, path='updater/model:main/predictor/')
    with numpy.load(path) as arrays:
        numpy.testing.assert_array_equal(
            network.l2.W.array, arrays['updater/model:main/predictor/l2/W'])
