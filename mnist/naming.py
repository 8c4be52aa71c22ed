"""The names that the four files of digits go by in the wild.

MNIST and Fashion-MNIST come under MNIST's own names, EMNIST under several of
the kind of ``emnist-digits-train-images-idx3-ubyte.gz``, KMNIST under MNIST's
and as ``kmnist-train-imgs.npz``. They are read as they are: EMNIST's images
have their rows where MNIST's have their columns.

Of several whole sets in a folder, as in EMNIST's archive, the first of
:data:`SETS` is taken, and those of ten classes come before the others.
"""
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy

from mnist import idx, memory, npz
from mnist.errors import DataError
from mnist.idx import Split


class Names(NamedTuple):
    """The names of a set: images and labels to train, and to test.

    ``read`` reads a pair of them; ``title`` is what to call the set.
    """

    title: str
    files: tuple[str, ...]
    endings: tuple[str, ...]
    read: Callable[[Path, Path, bool], Split]


def _read_npz(images: Path, labels: Path, any_kind: bool) -> Split:
    """Reads a pair of NPZ files of KMNIST, of one array each."""
    arrays = []
    for path, axes in (images, '(N, height, width)'), (labels, '(N,)'):
        try:
            array, = npz.read_npz(path).values()
        except (npz.NpzError, ValueError) as e:
            reason = e if isinstance(e, npz.NpzError) else 'not one array'
            raise DataError(f'{path}: {reason}') from e
        if array.dtype != numpy.uint8:
            raise DataError(f'{path}: {array.dtype}, expected uint8')
        if array.ndim != len(axes.split()):
            raise DataError(
                f'{path}: an array of {array.shape}, expected {axes}')
        # Once more as an IDX file, in two steps, and then in float32.
        memory.check(6 * array.nbytes, str(path), DataError)
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


def _emnist(part: str) -> Names:
    return _idx_names(
        f'EMNIST {part}', f'emnist-{part}-train', f'emnist-{part}-test')


def _kmnist(title: str) -> Names:
    return Names(title, tuple(
        f'{title.lower()}-{part}-{what}' for part in ('train', 'test')
        for what in ('imgs', 'labels')), ('.npz',), _read_npz)


# The first that is whole is taken.
SETS = [
    _idx_names("MNIST's names", 'train', 't10k'),
    _idx_names("MNIST's names, with test-", 'train', 'test'),
    _emnist('digits'), _emnist('mnist'), _kmnist('KMNIST'),
    # Of more than ten classes.
    *map(_emnist, ['letters', 'balanced', 'bymerge', 'byclass']),
    _kmnist('K49'),
]


class Found(NamedTuple):
    """A whole set in a folder.

    ``files`` are its four, ``others`` the titles of the whole sets there
    that come after it.
    """

    names: Names
    files: list[Path]
    others: list[str]


def find(folder: Path) -> Found:
    """Returns the set in a folder, the first of :data:`SETS` that is whole.

    Raises:
        DataError: If there is no whole set; it names the files that are
            missing of the one that most is there of.
        OSError: If the folder cannot be read.
    """
    sets = [
        (names, [_find(folder, name, names.endings) for name in names.files])
        for names in SETS]
    names, files = max(sets, key=_count)
    missing = [
        # The ending that there has to be, if there is one.
        name + min(names.endings)
        for name, path in zip(names.files, files, strict=True)
        if path is None]
    if missing:
        more = ''.join(f', nor {name}' for name in missing[1:])
        gzipped = ', gzipped or not' if '.gz' in names.endings else ''
        raise DataError(
            f'{folder / missing[0]}: no such file{more}{gzipped}')
    return Found(
        names, [path for path in files if path is not None],
        [other.title for other, its_files in sets
         if other is not names and _count((other, its_files)) == 4])


def _count(named: tuple[Names, list[Path | None]]) -> int:
    return sum(path is not None for path in named[1])


def _find(folder: Path, name: str, endings: tuple[str, ...]) -> Path | None:
    return next((
        path for path in _candidates(folder, name, endings)
        # Some archives unpack into a folder of the file's own name.
        if _is_file(path)), None)


def _is_file(path: Path) -> bool:
    """From Python 3.14 on Path.is_file says no to what one may not see."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _candidates(
        folder: Path, name: str, endings: tuple[str, ...]) -> Iterator[Path]:
    for stem in name, name.replace('-idx', '.idx'):
        for ending in endings:
            yield folder / (stem + ending)
