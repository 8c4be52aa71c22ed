"""Chainer's own cache of MNIST, which ``get_mnist`` reads and writes.

It is ``pfnet/chainer/mnist/{train,test}.npz`` under Chainer's data set root,
with ``x`` (N, 784) and ``y`` (N,) of uint8. The same files serve here.
"""
import os
from pathlib import Path

import filelock
import numpy
from chainer.dataset import download

from mnist import idx
from mnist.errors import DataError
from mnist.idx import Split
from mnist.npz import NpzError, read_npz
from shared_linear.files import write_atomically

# Seconds; another process holds the lock while it writes one file.
LOCK_TIMEOUT = 30.


def directory() -> Path:
    """Returns the folder of the cache, which need not exist."""
    return Path(download.get_dataset_directory(
        'pfnet/chainer/mnist', create_directory=False))


def read(name: str) -> Split | None:
    """Returns the digits of one file of the cache, None if it is not there.

    Args:
        name (str): ``'train.npz'`` or ``'test.npz'``.

    Raises:
        DataError: If the file is there and broken. It is left as it is: it
            is the user's, and Chainer's.
    """
    path = directory() / name
    if not path.exists():
        return None
    try:
        arrays = read_npz(path)
    except NpzError as e:
        raise _broken(path, str(e)) from e
    if not {'x', 'y'} <= arrays.keys():
        raise _broken(path, 'lacks the arrays x and y')
    images, labels = arrays['x'], arrays['y']
    if images.dtype != numpy.uint8 or labels.dtype != numpy.uint8:
        raise _broken(
            path, f'{images.dtype} and {labels.dtype}, expected uint8')
    if (images.ndim != 2 or images.shape[1] != idx.SIDE * idx.SIDE
            or labels.shape != images.shape[:1] or not len(images)):
        raise _broken(
            path, f'images {images.shape} and labels {labels.shape}, '
            f'expected (N, {idx.SIDE * idx.SIDE}) and (N,)')
    idx.check_labels(labels, str(path))
    return Split(images, labels)


def write(name: str, split: Split) -> None:
    """Adds one file to the cache, whole or not at all.

    A file that is there already stays. Other processes may do the same at
    the same time: Chainer's own lock keeps them apart.

    Args:
        name (str): ``'train.npz'`` or ``'test.npz'``.
        split (Split): Raw digits.

    Raises:
        OSError: If the cache cannot be written (a Timeout, when another
            process holds Chainer's lock for too long, is one).
    """
    folder = directory()
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.path.join(download.get_dataset_root(), '_create_lock')
    with filelock.FileLock(lock, timeout=LOCK_TIMEOUT):
        if not (folder / name).exists():
            write_atomically(folder / name, lambda file: (
                numpy.savez_compressed(file, x=split.images, y=split.labels)))


def _broken(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path}: broken file in Chainer's cache ({reason}); move it away, "
        f'or pass --data')
