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
from mnist.log import LogReport
from mnist.network import MLP
from mnist.processes import Processes
from mnist.snapshots import TakeSnapshots
from mnist.stopping import StopSignals, StopWhenAsked

COLUMNS = [
    'epoch', 'main/loss', 'validation/main/loss', 'main/accuracy',
    'validation/main/accuracy', 'elapsed_time']


def make_trainer(
        network: MLP, digits: Digits, device: chainer.backend.Device, *,
        batchsize: int, n_epochs: int, out: str, frequency: int,
        settings: Mapping[str, Any], plots: bool, processes: Processes,
        signals: StopSignals) -> training.Trainer:
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
        processes (Processes): The processes of the run, each with a trainer;
            only the first one's writes and prints.
        signals (StopSignals): What is to end the run early.
    """
    # Classifier reports softmax cross entropy and accuracy.
    model = L.Classifier(network)
    model.to_device(device)
    adam = chainer.optimizers.Adam()
    adam.setup(model)
    optimizer = processes.average_gradients(adam)

    train_iter = processes.iterate(digits.train, batchsize)
    test_digits, weight = processes.test_part(digits.test)
    test_iter = chainer.iterators.SerialIterator(
        test_digits, batchsize, repeat=False, shuffle=False)
    updater = training.updaters.StandardUpdater(
        train_iter, optimizer, device=device)
    trainer = training.Trainer(
        # Chainer makes the folder, which the other processes may lack.
        updater, (n_epochs, 'epoch'), out=out if processes.is_first else '.')

    trainer.extend(
        processes.average_evaluator(EvaluateEveryDigit(
            test_iter, model, device=device, weight=weight)),
        call_before_training=True)
    processes.extend(trainer)
    # A trigger without a state: snapshots have none for it.
    trainer.extend(
        StopWhenAsked(signals, n_epochs, processes),
        trigger=lambda trainer: True)
    if processes.is_first:
        _extend_first(
            trainer, n_epochs=n_epochs, frequency=frequency,
            settings=settings, plots=plots,
            # mpiexec shows a terminal to what it pipes into a file.
            is_terminal=sys.stdout.isatty() and processes.size == 1)
    return trainer


def _extend_first(
        trainer: training.Trainer, *, n_epochs: int, frequency: int,
        settings: Mapping[str, Any], plots: bool,
        is_terminal: bool) -> None:
    """Adds all that writes and prints."""
    trainer.extend(LogReport(), call_before_training=True)
    if plots:
        for key in 'loss', 'accuracy':
            curves = DrawCurves(key)
            trainer.extend(
                curves, name=f'DrawCurves/{key}', trigger=curves.is_due)
    trainer.extend(
        extensions.PrintReport(COLUMNS, out=_Console(sys.stdout, is_terminal)),
        name='PrintReport', call_before_training=True)
    if is_terminal:
        # A trigger without a state: a run may go on without a terminal.
        trainer.extend(
            extensions.ProgressBar(update_interval=10),
            trigger=lambda trainer: True)
    snapshots = TakeSnapshots(settings, frequency, n_epochs)
    trainer.extend(
        snapshots, name='TakeSnapshots', trigger=snapshots.is_due)


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

    def __init__(self, stream: TextIO, is_terminal: bool) -> None:
        self._stream = stream
        self._is_terminal = is_terminal

    def write(self, text: str) -> None:
        if text != '\033[J' or self._is_terminal:
            self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()
