"""What tells MNIST itself from other digits: names, sizes, checksums."""
import hashlib
from typing import NamedTuple

import numpy

from mnist import idx


class OriginalFile(NamedTuple):
    """One of the four files; size and checksum are of the unpacked bytes."""

    name: str
    size: int
    sha256: str


class Pair(NamedTuple):
    """The images and the labels of one half of MNIST."""

    images: OriginalFile
    labels: OriginalFile


TRAIN = Pair(
    OriginalFile(
        'train-images-idx3-ubyte', 47040016,
        'ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db'),
    OriginalFile(
        'train-labels-idx1-ubyte', 60008,
        '65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5'))
TEST = Pair(
    OriginalFile(
        't10k-images-idx3-ubyte', 7840016,
        '0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7'),
    OriginalFile(
        't10k-labels-idx1-ubyte', 10008,
        'ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2'))


def is_original(split: idx.Split, pair: Pair) -> bool:
    """Says whether these digits are that half of MNIST, byte for byte.

    Args:
        split (Split): Raw digits.
        pair (Pair): :data:`TRAIN` or :data:`TEST`.
    """
    if split.images.shape[1] != idx.SIDE ** 2:
        return False
    images = split.images.reshape(-1, idx.SIDE, idx.SIDE)
    return (_is_file(images, pair.images)
            and _is_file(split.labels, pair.labels))


def _is_file(array: numpy.ndarray, file: OriginalFile) -> bool:
    header = idx.header(array)
    if len(header) + array.size != file.size:
        return False
    digest = hashlib.sha256(header)
    digest.update(array.tobytes())
    return digest.hexdigest() == file.sha256
