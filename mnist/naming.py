"""The names that the four files of digits go by in the wild.

MNIST and Fashion-MNIST come under MNIST's own names, EMNIST under several of
the kind of ``emnist-digits-train-images-idx3-ubyte.gz``, KMNIST under MNIST's
and as ``kmnist-train-imgs.npz``.
"""
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy

from mnist import idx, npz
from mnist.errors import DataError
from mnist.idx import Split


class Names(NamedTuple):
    """The names of a set: images and labels to train, and to test.

    ``read`` reads a pair of them; ``title`` is of the set, if its name is not
    that of the folder.
    """

    title: str
    files: tuple[str, ...]
    endings: tuple[str, ...]
    read: Callable[[Path, Path, bool], Split]


def _read_npz(images: Path, labels: Path, any_kind: bool) -> Split:
    """Reads a pair of NPZ files of KMNIST, of one array each."""
    arrays = []
    for path in images, labels:
        try:
            array, = npz.read_npz(path).values()
        except (npz.NpzError, ValueError) as e:
            reason = e if isinstance(e, npz.NpzError) else 'not one array'
            raise DataError(f'{path}: {reason}') from e
        if array.dtype != numpy.uint8:
            raise DataError(f'{path}: {array.dtype}, expected uint8')
        arrays.append(array)
    # They say of themselves what the header of an IDX file says.
    return idx.pair(
        idx.parse_images(_idx(arrays[0]), str(images), any_kind),
        idx.parse_labels(_idx(arrays[1]), str(labels), any_kind),
        images, labels)


def _idx(array: numpy.ndarray) -> bytes:
    return idx.header(array) + array.tobytes()


def _idx_names(title: str, train: str, test: str) -> Names:
    return Names(title, tuple(
        f'{part}-{what}-ubyte' for part in (train, test)
        for what in ('images-idx3', 'labels-idx1')), ('', '.gz'),
        idx.read_split)


# The first that is there is taken.
SETS = [
    _idx_names('', 'train', 't10k'),
    _idx_names('', 'train', 'test'),
    _idx_names('EMNIST digits', 'emnist-digits-train', 'emnist-digits-test'),
    _idx_names('EMNIST mnist', 'emnist-mnist-train', 'emnist-mnist-test'),
    Names('KMNIST', tuple(
        f'kmnist-{part}-{what}' for part in ('train', 'test')
        for what in ('imgs', 'labels')), ('.npz',), _read_npz),
]


def find(folder: Path) -> tuple[Names, list[Path]]:
    """Returns the names of the set in a folder, and the four files.

    Raises:
        DataError: If there is no whole set; it names a file that is missing
            of the one that most is there of.
        OSError: If the folder cannot be read.
    """
    sets = [
        (names, [_find(folder, name, names.endings) for name in names.files])
        for names in SETS]
    names, found = max(
        sets, key=lambda pair: sum(path is not None for path in pair[1]))
    missing = [
        name for name, path in zip(names.files, found, strict=True)
        if path is None]
    if missing:
        raise DataError(
            f'{folder / missing[0]}: no such file, gzipped or not')
    return names, [path for path in found if path is not None]


def _find(folder: Path, name: str, endings: tuple[str, ...]) -> Path | None:
    return next((
        path for path in _candidates(folder, name, endings)
        # Some archives unpack into a folder of the file's own name.
        if path.is_file()), None)


def _candidates(
        folder: Path, name: str, endings: tuple[str, ...]) -> Iterator[Path]:
    for stem in name, name.replace('-idx', '.idx'):
        for ending in endings:
            yield folder / (stem + ending)
