"""The IDX files that MNIST comes in: a magic number, sizes, bytes."""
import gzip
import math
import stat
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy

from mnist import memory
from mnist.errors import DataError

SIDE = 28
N_CLASSES = 10

IMAGES_MAGIC = 0x803  # unsigned bytes (8), three axes
LABELS_MAGIC = 0x801  # unsigned bytes (8), one axis


class Split(NamedTuple):
    """Raw digits: ``images`` (N, 784) and ``labels`` (N,), both uint8."""

    images: numpy.ndarray
    labels: numpy.ndarray


def parse_images(
        content: bytes, name: str, any_kind: bool = False) -> numpy.ndarray:
    """Returns the images of an IDX file as an (N, 784) array of uint8.

    Args:
        content (bytes): The file, uncompressed.
        name (str): What to call the file in an error.
        any_kind (bool): Whether to take images of another size.

    Raises:
        DataError: If it is no IDX file of 28 x 28 images of bytes, or if it
            holds fewer or more bytes than its header says.
    """
    images = _parse(content, IMAGES_MAGIC, 'images', name)
    if any_kind:
        return images.reshape(len(images), -1)
    if images.shape[1:] != (SIDE, SIDE):
        raise DataError(
            f'{name}: images of {images.shape[1]} x {images.shape[2]}, '
            f'expected {SIDE} x {SIDE}')
    return images.reshape(-1, SIDE * SIDE)


def parse_labels(
        content: bytes, name: str, any_kind: bool = False) -> numpy.ndarray:
    """Returns the labels of an IDX file as an (N,) array of uint8.

    Args:
        content (bytes): The file, uncompressed.
        name (str): What to call the file in an error.
        any_kind (bool): Whether to take labels above 9.

    Raises:
        DataError: If it is no IDX file of labels 0 to 9, or if it holds
            fewer or more bytes than its header says.
    """
    labels = _parse(content, LABELS_MAGIC, 'labels', name)
    if not any_kind:
        check_labels(labels, name)
    return labels


def check_labels(labels: numpy.ndarray, name: str) -> None:
    """Raises DataError if a label is not one of the ten digits."""
    if labels.max() >= N_CLASSES:
        raise DataError(
            f'{name}: label {labels.max()}, expected 0 to {N_CLASSES - 1}, '
            f'which are all that the network tells apart')


def read_split(
        images_path: Path, labels_path: Path,
        any_kind: bool = False) -> Split:
    """Reads a pair of IDX files, gzipped or not.

    Args:
        images_path (Path): File of images.
        labels_path (Path): File of their labels.
        any_kind (bool): Whether to take images and labels that MNIST has not.

    Raises:
        DataError: If a file cannot be read, or if they do not make a pair.
    """
    # The small file first: it may tell that the set is of another kind.
    labels = parse_labels(
        read_bytes(labels_path, LABELS_MAGIC), str(labels_path), any_kind)
    images = parse_images(
        read_bytes(images_path, IMAGES_MAGIC), str(images_path), any_kind)
    return pair(images, labels, images_path, labels_path)


def pair(
        images: numpy.ndarray, labels: numpy.ndarray, images_path: Path,
        labels_path: Path) -> Split:
    """Returns images with their labels.

    Raises:
        DataError: If there are not as many of both.
    """
    if len(images) != len(labels):
        raise DataError(
            f'{labels_path}: {len(labels):,} labels for the '
            f'{len(images):,} images in {images_path.name}')
    return Split(images, labels)


def read_bytes(path: Path, magic: int) -> bytes:
    """Returns the content of an IDX file, unpacked if it is gzipped.

    Whether it is gzipped is asked of the file, not of its name: browsers
    unpack a download and keep the ``.gz``. Its header says how much there is
    to be read, and no more is, but for a byte that tells a longer file.

    Args:
        path (Path): File to read.
        magic (int): What it begins with, as :data:`IMAGES_MAGIC`.

    Raises:
        DataError: If it cannot be read, is a broken gzip file, has another
            beginning, or has more in it than there is memory.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f'{path}: not a regular file')
        with open(path, 'rb') as file:
            is_packed = file.read(2) == b'\x1f\x8b'
            file.seek(0)
            stream: BinaryIO = (
                gzip.open(file) if is_packed else file)  # type: ignore
            start = stream.read(_header_size(magic))
            expected = _expected_size(start, magic)
            if expected is None:
                # What is wrong with it says the parser.
                return start
            # The bytes, and the images in float32.
            memory.check(5 * expected, str(path), DataError)
            content = start + stream.read(expected + 1 - len(start))
            if not is_packed and status.st_size > expected:
                raise _too_long(
                    str(path), f'{status.st_size - expected:,} bytes')
            if len(content) > expected:
                raise _too_long(str(path), 'bytes')
            return content
    except (EOFError, zlib.error, struct.error, gzip.BadGzipFile) as e:
        raise DataError(f'{path}: broken gzip file: {e}') from e
    except OSError as e:
        raise DataError(f'{path}: {e.strerror or e}') from e


def header(array: numpy.ndarray) -> bytes:
    """Returns the IDX header of an array of unsigned bytes."""
    return struct.pack(
        f'>{1 + array.ndim}I', 0x800 + array.ndim, *array.shape)


def _header_size(magic: int) -> int:
    return 4 * (1 + (magic & 0xff))


def _expected_size(start: bytes, magic: int) -> int | None:
    """Bytes of a file that begins so, None if it does not begin rightly."""
    size = _header_size(magic)
    if len(start) < size or struct.unpack_from('>I', start)[0] != magic:
        return None
    # math.prod: a nonsense header must not overflow into a match.
    return size + math.prod(struct.unpack_from(f'>{magic & 0xff}I', start, 4))


def _too_long(name: str, more: str) -> DataError:
    return DataError(f'{name}: {more} more than its header says')


def _parse(
        content: bytes, magic: int, what: str, name: str) -> numpy.ndarray:
    if len(content) < 4:
        raise DataError(f'{name}: truncated: {len(content)} bytes')
    found, = struct.unpack_from('>I', content)
    if found != magic:
        raise DataError(
            f'{name}: wrong magic number 0x{found:08x}, an IDX file of '
            f'{what} begins with 0x{magic:08x}')
    offset = _header_size(magic)
    expected = _expected_size(content[:offset], magic)
    if expected is None:
        raise DataError(
            f'{name}: truncated: {len(content)} bytes, the header alone '
            f'has {offset}')
    if len(content) < expected:
        raise DataError(
            f'{name}: truncated: {len(content):,} bytes, its header says '
            f'{expected:,}')
    if len(content) > expected:
        raise _too_long(name, f'{len(content) - expected:,} bytes')
    if expected == offset:
        raise DataError(f'{name}: holds no {what}')
    shape = struct.unpack_from(f'>{magic & 0xff}I', content, 4)
    return numpy.frombuffer(
        content, numpy.uint8, expected - offset, offset).reshape(shape)
