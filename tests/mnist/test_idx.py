import gzip
import struct

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_digits import images_file, labels_file

from mnist import idx
from mnist.errors import DataError

IMAGES = numpy.arange(2 * 28 * 28, dtype=numpy.uint32).astype(
    numpy.uint8).reshape(2, 28, 28)
LABELS = numpy.array([7, 0, 9], numpy.uint8)


def test_images_are_the_bytes_behind_the_header():
    images = idx.parse_images(images_file(IMAGES), 'f')
    assert images.dtype == numpy.uint8
    assert images.shape == (2, 784)
    # Row-major: pixel 30 is the third of the second row.
    assert images[1, 30] == IMAGES[1, 1, 2]
    assert images.tobytes() == IMAGES.tobytes()


def test_labels_are_the_bytes_behind_the_header():
    content = b'\x00\x00\x08\x01\x00\x00\x00\x03\x07\x00\x09'
    assert content == labels_file(LABELS)
    assert idx.parse_labels(content, 'f').tolist() == [7, 0, 9]


@given(st.integers(0, 8 + 3 - 1))
def test_every_truncation_is_noticed(length):
    with pytest.raises(DataError, match='^f: truncated'):
        idx.parse_labels(labels_file(LABELS)[:length], 'f')


@given(st.binary(min_size=1, max_size=20))
def test_bytes_too_many_are_noticed(trailing):
    with pytest.raises(
            DataError, match=f'^f: {len(trailing)} bytes more than its head'):
        idx.parse_labels(labels_file(LABELS) + trailing, 'f')


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_any_bytes_are_read_or_refused_in_one_line(content):
    for parse in idx.parse_images, idx.parse_labels:
        try:
            parse(content, 'f')
        except DataError as e:
            assert str(e).startswith('f: ')
            assert '\n' not in str(e)


def test_a_header_that_overflows_is_truncated():
    # 2**32 - 1 in each axis: the product wraps around in 64 bits.
    content = struct.pack('>IIII', 2051, *[2 ** 32 - 1] * 3) + bytes(100)
    with pytest.raises(DataError, match='truncated: 116 bytes'):
        idx.parse_images(content, 'f')


@pytest.mark.parametrize(('magic', 'shown'), [
    (2049, '0x00000801'),       # labels in the place of images
    (0x0D03, '0x00000d03'),     # floats
    (0x03080000, '0x03080000'),  # the other byte order
])
def test_wrong_magic(magic, shown):
    content = struct.pack('>I', magic) + images_file(IMAGES)[4:]
    with pytest.raises(
            DataError,
            match=f'^f: wrong magic number {shown}, .* with 0x00000803$'):
        idx.parse_images(content, 'f')


def test_images_of_another_size():
    content = struct.pack('>IIII', 2051, 1, 32, 30) + bytes(32 * 30)
    with pytest.raises(
            DataError, match='^f: images of 32 x 30, expected 28 x 28'):
        idx.parse_images(content, 'f')


def test_label_that_is_no_digit():
    content = labels_file(numpy.array([1, 10, 2], numpy.uint8))
    with pytest.raises(DataError, match='^f: label 10, expected 0 to 9'):
        idx.parse_labels(content, 'f')


def test_no_images_and_no_labels():
    with pytest.raises(DataError, match='^f: holds no images'):
        idx.parse_images(images_file(IMAGES[:0]), 'f')
    with pytest.raises(DataError, match='^f: holds no labels'):
        idx.parse_labels(labels_file(LABELS[:0]), 'f')


def write_pair(folder, n_labels=2):
    images, labels = folder / 'images', folder / 'labels'
    images.write_bytes(images_file(IMAGES))
    labels.write_bytes(labels_file(LABELS[:n_labels]))
    return images, labels


def test_pair(tmp_path):
    split = idx.read_split(*write_pair(tmp_path))
    assert split.images.tobytes() == IMAGES.tobytes()
    assert split.labels.tolist() == [7, 0]


def test_counts_that_differ(tmp_path):
    images, labels = write_pair(tmp_path, n_labels=3)
    with pytest.raises(
            DataError, match='labels: 3 labels for the 2 images in images$'):
        idx.read_split(images, labels)


@pytest.mark.parametrize('name', ['f.gz', 'f'])
def test_gzip_is_known_by_its_bytes(tmp_path, name):
    path = tmp_path / name
    content = images_file(IMAGES)
    for packed in gzip.compress(content), content:
        path.write_bytes(packed)
        assert idx.read_bytes(path, idx.IMAGES_MAGIC) == content


@pytest.mark.parametrize('cut', [3, 12, -9, -1])
def test_truncated_gzip(tmp_path, cut):
    path = tmp_path / 'f.gz'
    path.write_bytes(gzip.compress(images_file(IMAGES))[:cut])
    with pytest.raises(DataError, match=r'f\.gz: broken gzip file: .+'):
        idx.read_bytes(path, idx.IMAGES_MAGIC)


def test_damaged_gzip(tmp_path):
    content = bytearray(gzip.compress(images_file(IMAGES)))
    content[-6] ^= 1  # in the checksum
    path = tmp_path / 'f.gz'
    path.write_bytes(content)
    with pytest.raises(DataError, match='CRC check failed'):
        idx.read_bytes(path, idx.IMAGES_MAGIC)


def test_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match='f: No such file or directory$'):
        idx.read_bytes(tmp_path / 'f', idx.IMAGES_MAGIC)
