"""All that a snapshot holds is checked before any of it is restored."""
import json
import os
import re
import zipfile

import numpy
import pytest
from tiny_run import TINY

import train_mnist
from mnist import checking, snapshots
from mnist.snapshots import ORDER, SETTINGS

MODEL = 'updater/model:main/predictor/'
ADAM = 'updater/optimizer:main/predictor/'
ITERATOR = 'updater/iterator:main/'
RANDOM = 'train_mnist/random_state'


@pytest.fixture
def options(digits_dir, tmp_path):
    return [
        *TINY, '--data', str(digits_dir), '--no-plots', '--no-report',
        '--seed', '3', '-o', str(tmp_path / 'result')]


def load(path):
    with numpy.load(path) as arrays:
        return {name: arrays[name] for name in arrays}


def rewrite(path, damage):
    """Damages arrays, in a file that is whole in all other respects."""
    arrays = load(path)
    damage(arrays)
    del arrays['train_mnist/names']
    arrays['train_mnist/names'] = numpy.array(sorted(arrays))
    with open(path, 'wb') as file:
        numpy.savez(file, **arrays)


def put(name, change):
    return lambda arrays: arrays.update({name: numpy.asarray(
        change(arrays[name]) if callable(change) else change)})


def with_nan(array):
    array.flat[1] = numpy.nan
    return array


def duplicate(array):
    array[3] = array[4]
    return array


DAMAGES = {
    'a weight without a shape': (
        put(MODEL + 'l2/W', numpy.float32(.5)),
        r'l2/W has shape \(\), expected \(10, 4\)'),
    'a weight that would be broadcast': (
        put(MODEL + 'l2/W', lambda W: W[:1]), r'l2/W has shape \(1, 4\)'),
    'a weight of another shape': (
        put(MODEL + 'l1/W', lambda W: W.T), r'shape \(784, 20\), expected'),
    'a weight in float64': (
        put(MODEL + 'l3/W', lambda W: W.astype('d')),
        'l3/W is of float64, expected float32'),
    'a weight of integers': (
        put(MODEL + 'l3/W', lambda W: W.astype('i')), 'is of int32'),
    'a weight of texts': (
        put(MODEL + 'l3/W', lambda W: W.astype('U')), 'is of <U'),
    'a weight of complex numbers': (
        put(MODEL + 'l3/b', lambda b: b.astype('F')), 'is of complex64'),
    'a weight that is not finite': (
        put(MODEL + 'l1/b', with_nan), 'l1/b has values that are not finite'),
    'a weight less': (
        lambda arrays: arrays.pop(MODEL + 'l1/b'), 'l1/b is missing'),
    'a weight more': (
        put(MODEL + 'l4/W', 1.), 'l4/W is not of this network'),
    'a moment of another shape': (
        put(ADAM + 'l2/W/m', lambda m: m[:, :1]), r'm has shape \(10, 1\)'),
    'a moment without a shape': (
        put(ADAM + 'l2/W/v', numpy.float32(0)), r'v has shape \(\)'),
    'a moment less': (
        lambda arrays: arrays.pop(ADAM + 'l3/b/v'), 'l3/b/v is missing'),
    'a moment that is not finite': (
        put(ADAM + 'l3/b/m', with_nan), 'l3/b/m has values that are not'),
    'a negative mean of squares': (
        put(ADAM + 'l3/b/v', lambda v: v - 1), 'has negative values'),
    'a step that is none': (
        put(ADAM + 'l3/b/t', numpy.arange(2)), r't has shape \(2,\)'),
    'a step that is not whole': (
        put(ADAM + 'l3/b/t', 1.5), 't is of float64, expected int64'),
    'an order of other digits': (
        put(ITERATOR + 'order', lambda order: order[:30]), r'shape \(30,\)'),
    'an order with duplicates': (
        put(ITERATOR + 'order', duplicate), 'is no order of 60 digits'),
    'an order out of range': (
        put(ITERATOR + 'order', lambda order: order + 1), 'is no order of'),
    'a position out of range': (
        put(ITERATOR + 'current_position', 60), 'current_position is 60'),
    'an epoch below 0': (put(ITERATOR + 'epoch', -1), 'epoch is -1'),
    'an epoch that is a text': (put(ITERATOR + 'epoch', '1'), 'is of <U1'),
    'no log': (
        lambda arrays: arrays.pop(checking.LOG), '_log is missing'),
    'a log that is no JSON': (
        put(checking.LOG, '[{'), '_log cannot be read: JSONDecodeError'),
    'a log of something else': (put(checking.LOG, '[1]'), 'is no log'),
    'a log of entries without a number': (
        put(checking.LOG, '[{"epoch": 1}]'), 'is no log'),
    'a log that is a number': (put(checking.LOG, 3.), 'is of float64'),
    'a summary of something else': (
        put(checking.SUMMARY, '{"a": 1}'), 'is no list of names'),
    'settings that are no JSON': (
        put(SETTINGS, 'unit=20'), 'settings cannot be read: JSONDecode'),
    'settings that are bytes': (put(SETTINGS, b'{}'), 'is no text'),
    'settings that are a list': (put(SETTINGS, '[]'), 'settings are none'),
    'settings without an end': (
        put(SETTINGS, '[' * 100_000), 'cannot be read: RecursionError'),
    'no random numbers': (put(RANDOM, '{}'), 'random_state cannot be read'),
    'random numbers that are none': (
        put(RANDOM, '{"python": [3, [1], null], "numpy": {}}'),
        'random_state cannot be read'),
    'an order of pixels of a network that has none': (
        put(ORDER, numpy.arange(784, dtype='i')), 'not of this network'),
    'an order of pixels that is none': (
        put(ORDER, numpy.zeros(784, 'i')), 'is no order of 784 pixels'),
}


@pytest.fixture
def newest(options, tmp_path, capsys):
    """The newest of two snapshots, of iteration 12."""
    assert train_mnist.main([*options, '-e', '2']) == 0
    capsys.readouterr()
    return tmp_path / 'result' / 'snapshot_iter_12'


@pytest.mark.parametrize('name', DAMAGES)
def test_it_is_refused_and_passed_over(
        options, refused, newest, tmp_path, capsys, name):
    damage, words = DAMAGES[name]
    rewrite(newest, damage)
    line = refused(*options, '-e', '2', '--resume', newest)
    assert line.startswith(f'train_mnist.py: error: {newest}: no')
    assert re.search(words, line), line
    assert train_mnist.main([*options, '-e', '2', '--resume']) == 0
    out, err = capsys.readouterr()
    assert err == ''
    assert out.count(f'# skipped {newest}: ') == 1
    assert 'snapshot_iter_6, after epoch 1' in out


def test_what_was_passed_over_has_left_nothing(
        options, newest, tmp_path, capsys):
    """The run that goes on from the older one is the one without a stop."""
    whole = load(newest)
    rewrite(newest, put(checking.LOG, '[{'))
    assert train_mnist.main([*options, '-e', '2', '--resume']) == 0
    again = load(newest)
    assert again.keys() == whole.keys()
    for name in whole:
        if name not in (checking.LOG, '_snapshot_elapsed_time'):
            numpy.testing.assert_array_equal(again[name], whole[name])


@pytest.mark.parametrize('damage', [
    lambda arrays: arrays.pop(ORDER),
    put(ORDER, lambda order: order.astype('d')),
    put(MODEL + 'l2/A', numpy.float32(0)),
    put(MODEL + 'l2/B', with_nan),
])
def test_order_of_pixels_and_factors(
        options, tmp_path, capsys, monkeypatch, damage):
    monkeypatch.setattr(
        'mnist.run.group_inputs',
        lambda x, n_tiles, seed: numpy.random.RandomState(seed).permutation(
            784).astype('i'))
    options += ['--order', 'data', '--first-tiles', '7', '--layer',
                'low-rank', '--rank', '2']
    assert train_mnist.main([*options, '-e', '2']) == 0
    newest = tmp_path / 'result' / 'snapshot_iter_12'
    rewrite(newest, damage)
    capsys.readouterr()
    assert train_mnist.main([*options, '-e', '2', '--resume']) == 0
    out, _ = capsys.readouterr()
    assert out.count(f'# skipped {newest}: ') == 1
    assert 'snapshot_iter_6, after epoch 1' in out


def test_none_is_left(options, refused, newest, tmp_path):
    for path in newest.parent.glob('snapshot_iter_*'):
        rewrite(path, put(MODEL + 'l2/W', numpy.float32(.5)))
    before = sorted(os.listdir(newest.parent))
    line = refused(*options, '-e', '2', '--resume')
    assert f'no snapshot in {newest.parent} is whole' in line
    assert sorted(os.listdir(newest.parent)) == before


def test_newest_is_that_of_most_iterations(
        options, newest, tmp_path, capsys):
    """Whatever the clock says, which may have been set back."""
    os.utime(newest, (1, 1))
    assert train_mnist.main([*options, '-e', '3', '-r']) == 0
    assert 'snapshot_iter_12, after epoch 2' in capsys.readouterr().out


def test_a_name_that_lies_is_passed_over(options, newest, tmp_path, capsys):
    content = newest.with_name('snapshot_iter_6').read_bytes()
    newest.with_name('snapshot_iter_999').write_bytes(content)
    newest.with_name('snapshot_iter_' + '9' * 200).write_bytes(content)
    assert train_mnist.main([*options, '-e', '3', '-r']) == 0
    out, _ = capsys.readouterr()
    assert 'snapshot_iter_999: it is of iteration 6\n' in out
    assert 'snapshot_iter_12, after epoch 2' in out
    # Under a name of the user's own it is what it is.
    mine = newest.with_name('mine')
    mine.write_bytes(content)
    assert train_mnist.main([*options, '-e', '3', '-r', str(mine)]) == 0
    assert 'mine, after epoch 1' in capsys.readouterr().out


def test_two_arrays_of_one_name(newest):
    with pytest.warns(UserWarning, match='Duplicate name'):
        with zipfile.ZipFile(newest, 'a') as archive:
            archive.writestr(
                SETTINGS + '.npy', archive.read(SETTINGS + '.npy'))
    with pytest.raises(snapshots.SnapshotError, match='two arrays'):
        snapshots.read(newest)


def test_settings_say_all_layers(options, newest):
    settings = json.loads(str(load(newest)[SETTINGS]))
    assert settings['layer'] == 'shared'
    assert settings['n_tiles'] == 5
    assert settings['n_blocks'] is settings['rank'] is None
