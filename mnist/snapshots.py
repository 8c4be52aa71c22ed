"""Snapshots that are whole or not there, and the way back from one.

A snapshot is what Chainer's own is, ``snapshot_iter_N`` with the state of
the trainer as NPZ, and besides the settings of the run and the state of the
random numbers, so that a run goes on as if it had never stopped.
"""
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy
from chainer import serializers
from chainer.serializers import npz
from chainer.training import Trainer, extension

from mnist import checking, seeds
from mnist.checking import Mismatch
from mnist.errors import UserError
from mnist.network import N_PIXELS
from mnist.npz import NpzError, read_npz
from shared_linear.files import write_atomically

SETTINGS = 'train_mnist/settings'
RANDOM_STATE = 'train_mnist/random_state'
NAMES = 'train_mnist/names'
ORDER = 'updater/model:main/predictor/l1/order'

# Bytes of a snapshot besides the network: the log, the order of the digits.
MAX_BYTES = 2 ** 28

_NAME = re.compile(r'snapshot_iter_([0-9]{1,18})')


class SnapshotError(UserError):
    """A file that is no whole snapshot of this script."""


class Snapshot(NamedTuple):
    """A snapshot that was read whole, with the settings of its run."""

    path: Path
    arrays: dict[str, numpy.ndarray]
    settings: dict[str, Any]

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raises UserError if it is of a run with other settings.

        Args:
            settings (mapping): Those of the run that is to go on from it.
        """
        theirs = self.settings
        others = [key for key in settings if theirs.get(key) != settings[key]]
        if others:
            raise UserError(
                f'{self.path} was trained with {_flags(theirs, others)}, not '
                f'{_flags(settings, others)}')

    def check(self, trainer: Trainer) -> None:
        """Raises SnapshotError if it is not for a trainer, or damaged.

        Args:
            trainer (Trainer): Built with the settings of the snapshot.
        """
        arrays = {
            name: array for name, array in self.arrays.items()
            if name not in (SETTINGS, RANDOM_STATE, NAMES)}
        try:
            checking.check(arrays, trainer)
        except Mismatch as e:
            raise SnapshotError(
                f'{self.path}: not a snapshot of this network: {e}') from e

    def restore(self, trainer: Trainer) -> None:
        """Brings a new trainer, and the random numbers, to this point.

        Args:
            trainer (Trainer): Built with the settings of the snapshot.

        Raises:
            SnapshotError: If something was not checked, or changed since.
        """
        try:
            serializers.NpzDeserializer(self.arrays).load(trainer)
            seeds.set_state(str(self.arrays[RANDOM_STATE]))
        except (KeyError, ValueError, TypeError, IndexError) as e:
            raise SnapshotError(
                f'{self.path}: not a snapshot of this network: '
                f'{" ".join(str(e).split())}') from e


class TakeSnapshots(extension.Extension):
    """Writes a snapshot every few epochs and after the last one.

    It keeps the last two that it wrote: should the newest be damaged, there
    is one more to go on from. Files that it did not write it never deletes.

    Args:
        settings (mapping): What a run that goes on has to agree on.
        frequency (int): Epochs between two snapshots; with -1 there is only
            the one after the last epoch.
        n_epochs (int): Epochs of the whole run.

    Attributes:
        last (Path): Newest snapshot, None before the first.
    """

    priority = -100  # Chainer's own: after all that changes what it keeps.
    N_RETAINS = 2

    def __init__(
            self, settings: Mapping[str, Any], frequency: int,
            n_epochs: int) -> None:
        self.settings = settings
        self.frequency = n_epochs if frequency == -1 else frequency
        self.n_epochs = n_epochs
        self.last: Path | None = None
        self._written: list[tuple[Path, tuple[int, int]]] = []

    def is_due(self, trainer: Trainer) -> bool:
        """Is its trigger, with no state to be resumed."""
        updater = trainer.updater
        before = int(updater.previous_epoch_detail or 0)
        if updater.epoch == before:
            return False
        return (updater.epoch >= self.n_epochs
                or updater.epoch // self.frequency != before // self.frequency)

    def __call__(self, trainer: Trainer) -> None:
        self.take(trainer)

    def take(self, trainer: Trainer) -> None:
        """Writes a snapshot, unless this iteration has one already."""
        path = Path(trainer.out) / (
            f'snapshot_iter_{trainer.updater.iteration}')
        if self._written and self._written[-1][0] == path:
            return
        save(path, trainer, self.settings)
        self.last = path
        self._written.append((path, _identity(path)))
        while len(self._written) > self.N_RETAINS:
            stale, identity = self._written.pop(0)
            # Another run may have put its own file in the place.
            if stale.exists() and _identity(stale) == identity:
                stale.unlink()


def save(path: Path, trainer: Trainer, settings: Mapping[str, Any]) -> None:
    """Writes a snapshot, whole or not at all.

    Args:
        path (Path): The snapshot to be.
        trainer (Trainer): The run.
        settings (mapping): What a run that goes on has to agree on.

    Raises:
        OSError: If it cannot be written.
    """
    arrays = npz.serialize(trainer)
    arrays[SETTINGS] = numpy.array(json.dumps(settings))
    arrays[RANDOM_STATE] = numpy.array(seeds.get_state())
    arrays[NAMES] = numpy.array(sorted(arrays))
    # Not compressed: weights hardly shrink, and it takes longer than an
    # epoch of the small data. Into memory first: interrupted over a file,
    # the ZIP file of an older NumPy complains that it was closed.
    content = io.BytesIO()
    numpy.savez(content, **arrays)
    write_atomically(path, lambda file: file.write(content.getbuffer()))


def read(path: Path, limit: int = MAX_BYTES) -> Snapshot:
    """Returns a snapshot, read whole.

    Args:
        path (Path): File that :func:`save` wrote.
        limit (int): Bytes that it may have.

    Raises:
        SnapshotError: If it is missing, damaged or something else.
    """
    try:
        arrays = read_npz(path, limit)
    except NpzError as e:
        raise SnapshotError(f'{path}: no snapshot: {e}') from e
    if not {NAMES, SETTINGS, RANDOM_STATE} <= arrays.keys():
        raise SnapshotError(f'{path}: no snapshot of this script')
    if sorted(arrays.keys() - {NAMES}) != arrays[NAMES].tolist():
        raise SnapshotError(f'{path}: no snapshot: damaged: arrays are lost')
    try:
        settings = checking.parse(SETTINGS, arrays)
        if not isinstance(settings, dict):
            raise Mismatch(f'{SETTINGS} are none')
        checking.parse(RANDOM_STATE, arrays, seeds.check_state)
        if ORDER in arrays:
            _check_order(arrays[ORDER])
        elif settings.get('order') == 'data':
            raise Mismatch(f'{ORDER} is missing')
    except Mismatch as e:
        raise SnapshotError(f'{path}: no snapshot: damaged: {e}') from e
    return Snapshot(path, arrays, settings)


def read_newest(
        folder: Path, report: Callable[[str], None],
        limit: int = MAX_BYTES) -> Snapshot:
    """Returns the newest whole snapshot in a folder.

    Args:
        folder (Path): Where snapshots were written.
        report (callable): Is given a line for each that is skipped.
        limit (int): Bytes that one may have.

    Raises:
        UserError: If there is none.
    """
    return next(read_whole(folder, report, limit))


def read_whole(
        folder: Path, report: Callable[[str], None],
        limit: int = MAX_BYTES) -> Iterator[Snapshot]:
    """Yields the whole snapshots in a folder, the newest first.

    The newest is that of most iterations, whatever the clock says. Arguments
    and errors are those of :func:`read_newest`: after the last whole one, that
    there is no other.
    """
    for path in find(folder):
        try:
            snapshot = read(path, limit)
            iteration = int(snapshot.arrays.get(checking.ITERATION, -1))
            if path.name != f'snapshot_iter_{iteration}':
                raise SnapshotError(
                    f'{path}: it is of iteration {iteration}')
        except SnapshotError as e:
            report(f'skipped {e}')
        else:
            yield snapshot
    raise UserError(
        f'nothing to resume from: no snapshot in {folder} is whole')


def find(folder: Path) -> list[Path]:
    """Returns the snapshots in a folder, whole or not, the newest first.

    Raises:
        UserError: If there is none.
    """
    try:
        iterations = _iterations(folder)
    except OSError as e:
        raise UserError(
            f'nothing to resume from: {folder}: {e.strerror}') from e
    if not iterations:
        raise UserError(f'nothing to resume from: no snapshot in {folder}')
    return sorted(iterations, key=iterations.__getitem__, reverse=True)


def _flags(settings: Mapping[str, Any], keys: Sequence[str]) -> str:
    return ' '.join(
        f'--{key.replace("_", "-")} {settings.get(key)}' for key in keys)


def _iterations(folder: Path) -> dict[Path, int]:
    with os.scandir(folder) as entries:
        return {
            folder / entry.name: int(match[1]) for entry in entries
            if (match := _NAME.fullmatch(entry.name)) and entry.is_file()}


def _check_order(order: numpy.ndarray) -> None:
    if order.dtype.kind not in 'iu' or not numpy.array_equal(
            numpy.sort(order, axis=None), numpy.arange(N_PIXELS)):
        raise Mismatch(f'{ORDER} is no order of {N_PIXELS} pixels')


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns
