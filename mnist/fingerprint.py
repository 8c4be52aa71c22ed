"""What tells the digits of a run from others."""
import zlib

from chainer.datasets import TupleDataset

from mnist.data import Digits


def of(digits: Digits) -> str:
    """Returns what tells the digits of a run from others, for its settings.

    Args:
        digits (Digits): What to train and to test on.
    """
    return ' and '.join(
        f'{len(split):,} digits {_checksum(split):08x}'
        for split in (digits.train, digits.test))


def _checksum(split: TupleDataset) -> int:
    images, labels = split._datasets
    return zlib.crc32(labels.tobytes(), zlib.crc32(images.data))
