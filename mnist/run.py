"""A run: what it goes on from, how it is trained, how it is stopped."""
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chainer
import numpy
from chainer.training import Trainer

from mnist import curves, fingerprint, options, snapshots
from mnist.console import note
from mnist.data import Digits, load_digits
from mnist.errors import UserError
from mnist.folder import Folder
from mnist.network import BYTES_OF_A_WEIGHT, MLP, count_weights
from mnist.processes import Processes
from mnist.snapshots import ORDER, Snapshot, SnapshotError
from mnist.stopping import StopSignals
from shared_linear import group_inputs


class Run:
    """A run of the options, alone in its folder.

    Args:
        args (Namespace): What ``options.parse`` returns.
        processes (Processes): The processes of the run.
        signals (StopSignals): What is to end it early.
        folder (Folder): Where it writes.

    Attributes:
        processes (Processes): The processes of the run.
        signals (StopSignals): What is to end it early.
        settings (dict): What a run that goes on has to agree on.
    """

    def __init__(
            self, args: Namespace, processes: Processes,
            signals: StopSignals, folder: Folder) -> None:
        self.processes = processes
        self.signals = signals
        self.settings: dict[str, Any] = options.settings(args)
        self._args = args
        self._folder = folder
        self._snapshot: Snapshot | None = None
        self._whole: Iterator[Snapshot] | None = None
        self._n_weights = count_weights(args)

    def begin(self) -> chainer.backend.Device:
        """Readies all that a run needs, and returns where it computes.

        Raises:
            UserError: If the device is not there, matplotlib is not, the
                folder cannot be used, or there is nothing to go on from.
        """
        processes, args = self.processes, self._args
        device = processes.get_device(args.device)
        if not args.no_plots:
            processes.share(curves.load_matplotlib)
        device.use()
        return device

    def load_digits(self, device: chainer.backend.Device) -> Digits:
        """Opens the folder, and returns the digits to train and to test on.

        Raises:
            UserError: If they cannot be had, or are not those of the run
                that this one is to go on with.
        """
        processes, args = self.processes, self._args
        self._snapshot = processes.share(self._open_folder)
        n = processes.size
        times = f', {n} processes' if n > 1 else ''
        print(f'Device: {device}{times}')
        digits: Digits = processes.share(
            lambda: load_digits(args.data, report=note))
        if args.batchsize > len(digits.train):
            raise UserError(
                f'--batchsize {args.batchsize} is more than the '
                f'{len(digits.train):,} digits to train on')
        processes.check_sizes(args.batchsize, len(digits.test))
        self.settings['data'] = fingerprint.of(digits)
        if self._snapshot is not None:
            self._snapshot.check_settings(self.settings)
        note(f'data: {digits.source}')
        note(f'network: {options.describe(args)}')
        for flag in options.unused(args):
            note(f'{flag} is not used: --layer {args.layer} has none')
        note(f'Minibatch-size: {args.batchsize}')
        note(f'epoch: {args.epoch}')
        note(f'seed: {args.seed}')
        return digits

    def order_pixels(self, network: MLP, digits: Digits) -> None:
        """Chooses which pixels share the first layer's weight, if they do.

        By the training digits, which takes a while, or as the snapshot says.
        """
        args = self._args
        if args.order != 'data':
            return
        if self._snapshot is not None:
            order = self._snapshot.arrays[ORDER]
        else:
            note(f'looking for {args.first_tiles} tiles of pixels that are '
                 f'alike')
            images, _ = digits.train._datasets
            order = self.processes.share(lambda: group_inputs(
                images, args.first_tiles, seed=args.seed))
        network.order_pixels(order)

    def _open_folder(self) -> Snapshot | None:
        args, path = self._args, self._folder.path
        snapshot = None
        if args.resume is options.NEWEST:
            # A folder with none is not to be made, or touched.
            snapshots.find(path)
            self._folder.occupy()
            self._whole = snapshots.read_whole(path, note, self._limit())
            snapshot = next(self._whole)
        elif args.resume is not None:
            snapshot = snapshots.read(Path(args.resume), self._limit())
        if snapshot is not None:
            snapshot.check_settings(self.settings)
        self._folder.occupy()
        return snapshot

    def resume(self, trainer: Trainer) -> None:
        """Brings a trainer to where ``--resume`` asks for, if it does.

        Raises:
            UserError: If the snapshot is not of this network; with no name
                given, if none is.
        """
        if self._snapshot is None:
            return
        snapshot = self.processes.share(lambda: self._check(trainer))
        self.processes.agree(lambda: snapshot.restore(trainer))
        note(f'resumed from {snapshot.path}, after epoch '
             f'{trainer.updater.epoch}, iteration '
             f'{trainer.updater.iteration}')
        if self.processes.is_first:
            trainer.get_extension('TakeSnapshots').last = snapshot.path

    def _check(self, trainer: Trainer) -> Snapshot:
        """Returns the snapshot, or the next whole one if it does not fit."""
        snapshot = self._snapshot
        assert snapshot is not None
        order = snapshot.arrays.get(ORDER)
        while True:
            try:
                snapshot.check(trainer)
                if self._args.order == 'data' and not numpy.array_equal(
                        snapshot.arrays[ORDER], order):
                    raise SnapshotError(
                        f'{snapshot.path}: it has another order of pixels')
                return snapshot
            except SnapshotError as e:
                if self._whole is None:
                    raise
                note(f'skipped {e}')
            snapshot = next(self._whole)
            snapshot.check_settings(self.settings)

    def _limit(self) -> int:
        """Bytes that a snapshot of the network may have."""
        return snapshots.MAX_BYTES + BYTES_OF_A_WEIGHT * self._n_weights

    def train(self, trainer: Trainer) -> None:
        """Runs a trainer up to the last epoch, which may lie behind it.

        Raises:
            UserError: If a file cannot be written.
            KeyboardInterrupt: If the user stops it; it says how to go on.
        """
        print(flush=True)
        if trainer.updater.epoch >= self._args.epoch:
            note('every epoch is done already')
            if self.processes.is_first:
                trainer.get_extension('PrintReport')(trainer)
            return
        # From here on, the first signal is to wait.
        self.signals.is_training = True
        self.processes.go_apart()
        try:
            # The error is reported once, in one line, by the command.
            trainer.run(show_loop_exception_msg=False)
        except BrokenPipeError:
            raise
        except OSError as e:
            raise UserError(
                f'stopped after epoch {trainer.updater.epoch}, '
                f'{e.filename or trainer.out}: {e.strerror or e}; '
                f'{self._how_to_go_on(trainer)}') from e
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f'stopped in epoch {trainer.updater.epoch + 1}; '
                f'{self._how_to_go_on(trainer)}') from None
        self.processes.come_together()

    def _how_to_go_on(self, trainer: Trainer) -> str:
        if not self.processes.is_first:
            return 'go on with the same options and --resume'
        last = trainer.get_extension('TakeSnapshots').last
        if last is None:
            return 'there is no snapshot yet, so start again'
        if not last.exists():
            return f'{last} is gone, so start again'
        where = '' if last.parent == Path(trainer.out) else f' {last}'
        return (f'{last} is whole: go on with the same options and '
                f'--resume{where}')
