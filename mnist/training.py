"""The trainer: Chainer's own example's, of parts that can go on exactly."""
import sys
import zlib
from collections.abc import Mapping
from typing import Any, TextIO

import chainer
import chainer.links as L
from chainer import training
from chainer.datasets import TupleDataset
from chainer.training import extensions

from mnist.curves import DrawCurves
from mnist.data import Digits
from mnist.evaluation import EvaluateEveryDigit
from mnist.network import MLP
from mnist.snapshots import TakeSnapshots

COLUMNS = [
    'epoch', 'main/loss', 'validation/main/loss', 'main/accuracy',
    'validation/main/accuracy', 'elapsed_time']


def make_trainer(
        network: MLP, digits: Digits, device: chainer.backend.Device, *,
        batchsize: int, n_epochs: int, out: str, frequency: int,
        settings: Mapping[str, Any], plots: bool) -> training.Trainer:
    """Returns a trainer of a network, which has not run yet.

    Args:
        network (MLP): Network, moved to ``device``.
        digits (Digits): What to train and to test on.
        device (chainer.backend.Device): Where to compute.
        batchsize (int): Images in a mini-batch.
        n_epochs (int): Epochs of the whole run.
        out (str): Folder of what the run writes.
        frequency (int): Epochs between two snapshots; -1 is one at the end.
        settings (mapping): Settings that the snapshots carry.
        plots (bool): Whether to draw the curves.
    """
    # Classifier reports softmax cross entropy and accuracy.
    model = L.Classifier(network)
    model.to_device(device)
    optimizer = chainer.optimizers.Adam()
    optimizer.setup(model)

    train_iter = chainer.iterators.SerialIterator(digits.train, batchsize)
    test_iter = chainer.iterators.SerialIterator(
        digits.test, batchsize, repeat=False, shuffle=False)
    updater = training.updaters.StandardUpdater(
        train_iter, optimizer, device=device)
    trainer = training.Trainer(updater, (n_epochs, 'epoch'), out=out)

    trainer.extend(
        EvaluateEveryDigit(test_iter, model, device=device),
        call_before_training=True)
    trainer.extend(extensions.LogReport(), call_before_training=True)
    if plots:
        for key in 'loss', 'accuracy':
            curves = DrawCurves(key)
            trainer.extend(
                curves, name=f'DrawCurves/{key}', trigger=curves.is_due)
    trainer.extend(
        extensions.PrintReport(COLUMNS, out=_Console(sys.stdout)),
        name='PrintReport', call_before_training=True)
    if sys.stdout.isatty():
        # A trigger without a state: a run may go on without a terminal.
        trainer.extend(
            extensions.ProgressBar(update_interval=10),
            trigger=lambda trainer: True)
    snapshots = TakeSnapshots(settings, frequency, n_epochs)
    trainer.extend(
        snapshots, name='TakeSnapshots', trigger=snapshots.is_due)
    return trainer


def fingerprint(digits: Digits) -> str:
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


class _Console:
    """Drops the codes that clear a terminal's line where there is none."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        if text != '\033[J' or self._stream.isatty():
            self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()
