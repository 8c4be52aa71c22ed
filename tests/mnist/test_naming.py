"""Sets of digits under the names that each family goes by."""
import gzip
import json

import numpy
import pytest
from made_digits import images_file, labels_file, make_digits

from mnist import memory
from mnist.data import load_digits
from mnist.errors import DataError

# What each family calls its four files, where they are offered: images and
# labels to train on, and to test on.
MNIST = [
    'train-images-idx3-ubyte', 'train-labels-idx1-ubyte',
    't10k-images-idx3-ubyte', 't10k-labels-idx1-ubyte']
MNIST_TEST = [
    *MNIST[:2], 'test-images-idx3-ubyte', 'test-labels-idx1-ubyte']
EMNIST_DIGITS = [
    'emnist-digits-train-images-idx3-ubyte',
    'emnist-digits-train-labels-idx1-ubyte',
    'emnist-digits-test-images-idx3-ubyte',
    'emnist-digits-test-labels-idx1-ubyte']
EMNIST_MNIST = [
    'emnist-mnist-train-images-idx3-ubyte',
    'emnist-mnist-train-labels-idx1-ubyte',
    'emnist-mnist-test-images-idx3-ubyte',
    'emnist-mnist-test-labels-idx1-ubyte']
EMNIST_LETTERS = [
    'emnist-letters-train-images-idx3-ubyte',
    'emnist-letters-train-labels-idx1-ubyte',
    'emnist-letters-test-images-idx3-ubyte',
    'emnist-letters-test-labels-idx1-ubyte']
EMNIST_BALANCED = [
    'emnist-balanced-train-images-idx3-ubyte',
    'emnist-balanced-train-labels-idx1-ubyte',
    'emnist-balanced-test-images-idx3-ubyte',
    'emnist-balanced-test-labels-idx1-ubyte']
EMNIST_BYMERGE = [
    'emnist-bymerge-train-images-idx3-ubyte',
    'emnist-bymerge-train-labels-idx1-ubyte',
    'emnist-bymerge-test-images-idx3-ubyte',
    'emnist-bymerge-test-labels-idx1-ubyte']
EMNIST_BYCLASS = [
    'emnist-byclass-train-images-idx3-ubyte',
    'emnist-byclass-train-labels-idx1-ubyte',
    'emnist-byclass-test-images-idx3-ubyte',
    'emnist-byclass-test-labels-idx1-ubyte']
KMNIST = [
    'kmnist-train-imgs.npz', 'kmnist-train-labels.npz',
    'kmnist-test-imgs.npz', 'kmnist-test-labels.npz']
K49 = [
    'k49-train-imgs.npz', 'k49-train-labels.npz',
    'k49-test-imgs.npz', 'k49-test-labels.npz']

# With what the line about the data says of them: MNIST's own names may be
# Fashion-MNIST's and KMNIST's too, and say nothing.
OF_TEN = [
    pytest.param(MNIST, '', id='mnist'),
    pytest.param(MNIST_TEST, ", MNIST's names, with test-", id='mnist-test'),
    pytest.param(EMNIST_DIGITS, ', EMNIST digits', id='emnist-digits'),
    pytest.param(EMNIST_MNIST, ', EMNIST mnist', id='emnist-mnist'),
    pytest.param(KMNIST, ', KMNIST', id='kmnist')]
# With their labels: EMNIST's letters begin at 1.
OF_MORE = [
    pytest.param(EMNIST_LETTERS, 1, 26, id='emnist-letters'),
    pytest.param(EMNIST_BALANCED, 0, 46, id='emnist-balanced'),
    pytest.param(EMNIST_BYMERGE, 0, 46, id='emnist-bymerge'),
    pytest.param(EMNIST_BYCLASS, 0, 61, id='emnist-byclass'),
    pytest.param(K49, 0, 48, id='k49')]


def write(folder, names, train, test, gzipped=False):
    """Writes (images, labels) to train and to test under four names."""
    folder.mkdir(exist_ok=True)
    contents = train[0], train[1], test[0], test[1]
    for name, array in zip(names, contents, strict=True):
        if name.endswith('.npz'):
            # As KMNIST's own are: packed, of one array without a name.
            numpy.savez_compressed(folder / name, array)
            continue
        content = (images_file if array.ndim == 3 else labels_file)(array)
        if gzipped:
            name, content = name + '.gz', gzip.compress(content)
        (folder / name).write_bytes(content)


def assert_holds(dataset, images, labels):
    """Every pixel and every label, in the order of the files."""
    found_images, found_labels = zip(*dataset[:], strict=True)
    numpy.testing.assert_array_equal(found_labels, labels)
    # A float32 is a rounding or two away from k / 255.
    numpy.testing.assert_allclose(
        numpy.array(found_images, numpy.float64) * 255,
        images.reshape(len(images), 784), rtol=0, atol=1e-4)


@pytest.mark.parametrize('gzipped', [False, True])
@pytest.mark.parametrize(('names', 'said'), OF_TEN)
def test_ten_classes(tmp_path, names, said, gzipped):
    folder = tmp_path / 'f'
    train_set, test_set = make_digits(30, 3), make_digits(20, 4)
    write(folder, names, train_set, test_set, gzipped)
    train, test, source = load_digits(folder)
    assert_holds(train, *train_set)
    assert_holds(test, *test_set)
    assert source == (
        'digits that are not the whole MNIST, 30 to train and 20 to '
        f'test on, from {folder}{said}')


@pytest.mark.parametrize(('names', 'said'), OF_TEN)
def test_a_run(digits_dir, tmp_path, run, names, said):
    """It learns what it learns of the same digits under MNIST's names."""
    folder = tmp_path / 'f'
    write(folder, names, make_digits(60, 0), make_digits(25, 1), True)
    learned = []
    for data in digits_dir, folder:
        status, out, err = run('--data', data, '-e', 2)
        assert (status, err) == (0, '')
        log = json.loads((tmp_path / 'result' / 'log').read_text())
        learned.append([
            (epoch['main/loss'], epoch['validation/main/loss'])
            for epoch in log if epoch['epoch'] > 0])
    assert f'from {folder}{said}\n' in out
    assert learned[1] == learned[0]
    # Not twice the same nothing: it moves.
    assert learned[1][1] != learned[1][0]


@pytest.mark.parametrize(('names', 'least', 'most'), OF_MORE)
def test_more_classes(tmp_path, refused, names, least, most):
    folder = tmp_path / 'f'
    n = most - least + 1
    images, _ = make_digits(n, 5)
    labels = numpy.arange(least, most + 1, dtype=numpy.uint8)
    write(folder, names, (images, labels), (images[::-1], labels[::-1]))
    line = refused('--data', folder, '-o', tmp_path / 'r', '--no-plots')
    labels_path = folder / names[1]
    assert line.endswith(
        f'{labels_path}: label {most}, expected 0 to 9, which are all that '
        f'the network tells apart\n')
    # Who asks for another kind has it, as it is.
    train, test, _ = load_digits(folder, any_kind=True)
    assert_holds(train, images, labels)
    assert_holds(test, images[::-1], labels[::-1])


def test_the_whole_archive_of_emnist(tmp_path, run):
    """All six at once, as they come: digits, and it says what is left."""
    made = {}
    for seed, names in enumerate([
            EMNIST_BYCLASS, EMNIST_BALANCED, EMNIST_BYMERGE, EMNIST_LETTERS,
            EMNIST_MNIST, EMNIST_DIGITS]):
        made[names[0]] = make_digits(12, seed), make_digits(11, seed + 10)
        write(tmp_path / 'f', names, *made[names[0]], gzipped=True)
    train, test, source = load_digits(tmp_path / 'f')
    assert_holds(train, *made[EMNIST_DIGITS[0]][0])
    assert_holds(test, *made[EMNIST_DIGITS[0]][1])
    assert source.endswith(
        'f, EMNIST digits (not taken: EMNIST mnist; EMNIST letters; EMNIST '
        'balanced; EMNIST bymerge; EMNIST byclass)')
    status, out, _ = run('--data', tmp_path / 'f', '-e', 1)
    assert status == 0
    assert source in out


def test_two_families(tmp_path):
    mnist = make_digits(12, 0), make_digits(11, 1)
    kmnist = make_digits(14, 2), make_digits(13, 3)
    write(tmp_path, KMNIST, *kmnist)
    write(tmp_path, MNIST, *mnist)
    train, test, source = load_digits(tmp_path)
    assert_holds(train, *mnist[0])
    assert_holds(test, *mnist[1])
    assert source.endswith(", MNIST's names (not taken: KMNIST)")


def test_a_whole_family_and_half_of_another(tmp_path):
    """Half of one is never made whole with half of another."""
    kmnist = make_digits(14, 2), make_digits(13, 3)
    write(tmp_path, MNIST, make_digits(12, 0), make_digits(11, 1))
    write(tmp_path, KMNIST, *kmnist)
    (tmp_path / MNIST[3]).unlink()
    train, test, source = load_digits(tmp_path)
    assert_holds(train, *kmnist[0])
    assert_holds(test, *kmnist[1])
    assert source.endswith(', KMNIST')


@pytest.mark.parametrize('names', [
    param.values[0] for param in [*OF_TEN, *OF_MORE]],
    ids=lambda names: names[2])
@pytest.mark.parametrize('gone', [[3], [2, 3], [1, 2], [0, 1, 2]], ids=str)
def test_half_a_family(tmp_path, refused, names, gone):
    folder = tmp_path / 'f'
    write(folder, names, make_digits(12, 0), make_digits(11, 1))
    for i in gone:
        (folder / names[i]).unlink()
    if names is MNIST_TEST and 2 in gone and 3 in gone:
        names = MNIST  # What is left are MNIST's own.
    line = refused('--data', folder, '-o', tmp_path / 'r', '--no-plots')
    first, *others = [names[i] for i in gone]
    ending = '' if names in (KMNIST, K49) else ', gzipped or not'
    nor = ''.join(f', nor {name}' for name in others)
    assert line.endswith(f'{folder / first}: no such file{nor}{ending}\n')


@pytest.mark.parametrize(('number', 'array', 'reason'), [
    (0, numpy.zeros((12, 784), 'u1'),
     r'an array of \(12, 784\), expected \(N, height, width\)'),
    (1, numpy.zeros((12, 1), 'u1'),
     r'an array of \(12, 1\), expected \(N,\)'),
    (1, numpy.zeros(12, 'i8'), 'int64, expected uint8'),
    (1, numpy.zeros(9, 'u1'), '9 labels for the 12 images in kmnist-train-'),
    (0, numpy.zeros((12, 28, 29), 'u1'), 'images of 28 x 29, expected 28 x'),
    (3, numpy.full(11, 10, 'u1'), 'label 10, expected 0 to 9'),
])
def test_arrays_that_are_not_kmnist(tmp_path, number, array, reason):
    write(tmp_path, KMNIST, make_digits(12, 0), make_digits(11, 1))
    numpy.savez_compressed(tmp_path / KMNIST[number], array)
    with pytest.raises(DataError, match=f'{KMNIST[number]}: {reason}'):
        load_digits(tmp_path)


def test_two_arrays_in_a_file_of_kmnist(tmp_path):
    write(tmp_path, KMNIST, make_digits(12, 0), make_digits(11, 1))
    numpy.savez(tmp_path / KMNIST[0], numpy.zeros(1), numpy.zeros(1))
    with pytest.raises(DataError, match=f'{KMNIST[0]}: not one array$'):
        load_digits(tmp_path)


def test_kmnist_that_does_not_fit(tmp_path, monkeypatch):
    write(tmp_path, KMNIST, make_digits(2000, 0), make_digits(11, 1))
    # 2,000 images of 784 bytes, six times.
    monkeypatch.setattr(memory, 'available', lambda: 6 * 2000 * 784 - 1)
    with pytest.raises(
            DataError, match=f'{KMNIST[0]}: not enough memory: about 9 MB'):
        load_digits(tmp_path)
    monkeypatch.setattr(memory, 'available', lambda: 6 * 2000 * 784)
    assert len(load_digits(tmp_path).train) == 2000
