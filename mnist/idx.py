"""The IDX files that MNIST comes in: a magic number, sizes, bytes."""
import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy

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
            f'{name}: label {labels.max()}, expected 0 to {N_CLASSES - 1}')


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
    images = parse_images(
        read_bytes(images_path), str(images_path), any_kind)
    labels = parse_labels(
        read_bytes(labels_path), str(labels_path), any_kind)
    if len(images) != len(labels):
        raise DataError(
            f'{labels_path}: {len(labels):,} labels for the '
            f'{len(images):,} images in {images_path.name}')
    return Split(images, labels)


def read_bytes(path: Path) -> bytes:
    """Returns the content of a file, unpacked if it is gzipped.

    Whether it is gzipped is asked of the file, not of its name: browsers
    unpack a download and keep the ``.gz``.

    Raises:
        DataError: If it cannot be read, or is a broken gzip file.
    """
    try:
        content = path.read_bytes()
    except OSError as e:
        raise DataError(f'{path}: {e.strerror}') from e
    if not content.startswith(b'\x1f\x8b'):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error, struct.error) as e:
        raise DataError(f'{path}: broken gzip file: {e}') from e


def header(array: numpy.ndarray) -> bytes:
    """Returns the IDX header of an array of unsigned bytes."""
    return struct.pack(
        f'>{1 + array.ndim}I', 0x800 + array.ndim, *array.shape)


def _parse(
        content: bytes, magic: int, what: str, name: str) -> numpy.ndarray:
    if len(content) < 4:
        raise DataError(f'{name}: truncated: {len(content)} bytes')
    found, = struct.unpack_from('>I', content)
    if found != magic:
        raise DataError(
            f'{name}: wrong magic number 0x{found:08x}, an IDX file of '
            f'{what} begins with 0x{magic:08x}')
    n_axes = magic & 0xff
    offset = 4 * (1 + n_axes)
    if len(content) < offset:
        raise DataError(
            f'{name}: truncated: {len(content)} bytes, the header alone '
            f'has {offset}')
    shape = struct.unpack_from(f'>{n_axes}I', content, 4)
    # math.prod: a nonsense header must not overflow into a match.
    size = math.prod(shape)
    expected = offset + size
    if len(content) < expected:
        raise DataError(
            f'{name}: truncated: {len(content):,} bytes, its header says '
            f'{expected:,}')
    if len(content) > expected:
        raise DataError(
            f'{name}: {len(content) - expected:,} bytes more than its '
            f'header says')
    if size == 0:
        raise DataError(f'{name}: holds no {what}')
    return numpy.frombuffer(content, numpy.uint8, size, offset).reshape(shape)
