#!/usr/bin/env python
"""Trains a three-layer network on MNIST, its second layer weight-shared.

After Chainer's own ``examples/mnist/train_mnist.py``.
"""
# Before any import of Chainer: this readies it for today's NumPy, here and
# in spawned processes, which import this file again.
import shared_linear  # noqa: F401, I001

import contextlib
import errno
import os
import sys
import tempfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chainer.training import Trainer

from mnist import (
    curves,
    options,
    report,
    processes,
    seeds,
    snapshots,
    summary,
    training,
)
from mnist.data import Digits, load_digits
from mnist.errors import UserError, out_of_memory
from mnist.files import remove_leftovers
from mnist.network import MLP
from mnist.processes import Processes
from mnist.snapshots import Snapshot
from mnist.stopping import StopSignals

# The options that a run cannot change when it goes on.
FIXED = ['layer', 'unit', 'out_unit', 'n_tiles', 'batchsize', 'seed']

CANNOT_PRINT = [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status.

    Args:
        argv (sequence of str): Arguments; those of the process if None.
    """
    ours = processes.unconnected()
    signals = StopSignals()
    try:
        with signals:
            args = options.parse(argv)
            ours = processes.connect(args.communicator)
            with _silent_unless(ours.is_first):
                train(args, ours, signals)
    except UserError as e:
        return _stop(ours, f'error: {e}', 2)
    except MemoryError as e:
        ours.go_apart()
        return _stop(ours, f'error: {out_of_memory(e)}', 2)
    except BrokenPipeError:
        ours.go_apart()
        return _stop(ours, 'error: nobody reads the output any more', 2)
    except KeyboardInterrupt as e:
        if not e.args:
            ours.break_off()
        when = 'after the last epoch' if signals.is_training else (
            'before training began')
        return _stop(ours, str(e) or f'stopped {when}', signals.status)
    except Exception as e:
        # What is printed goes to no file with a name.
        if isinstance(e, OSError) and e.filename is None and (
                e.errno in CANNOT_PRINT):
            ours.go_apart()
            return _stop(ours, f'error: cannot print: {e.strerror}', 2)
        ours.crash()
        raise
    return 0


def train(
        args: Namespace, processes: Processes, signals: StopSignals) -> None:
    """Trains, or goes on training, prints the table, and reports.

    Args:
        args (Namespace): What ``options.parse`` returns.
        processes (Processes): The processes of the run.
        signals (StopSignals): What is to end it early.

    Raises:
        UserError: If something is amiss that the user can mend.
        KeyboardInterrupt: If the user stops it; it says how to go on.
    """
    processes.open(args.communicator)
    device = processes.get_device(args.device)
    if not args.no_plots:
        processes.share(curves.load_matplotlib)
    device.use()
    seeds.seed_all(args.seed, device)
    network = processes.agree(lambda: make_network(args))
    settings = {name: getattr(args, name) for name in FIXED}
    if args.layer == 'linear':
        settings['n_tiles'] = None
    snapshot = processes.share(lambda: read_snapshot(args))
    if snapshot is not None:
        check_settings(snapshot, settings)
    processes.share(lambda: prepare_folder(Path(args.out)))

    print(f'Device: {device}{_times(processes.size)}')
    digits: Digits = processes.share(
        lambda: load_digits(args.data, report=_note))
    processes.check_sizes(args.batchsize, len(digits.test))
    settings['data'] = training.fingerprint(digits)
    if snapshot is not None:
        check_settings(snapshot, settings)
    _note(f'data: {digits.source}')
    _note(f'network: {options.describe(args)}')
    _note(f'Minibatch-size: {args.batchsize}')
    _note(f'epoch: {args.epoch}')
    _note(f'seed: {args.seed}')

    trainer = training.make_trainer(
        network, digits, device, batchsize=args.batchsize,
        n_epochs=args.epoch, out=args.out, frequency=args.frequency,
        settings=settings, plots=not args.no_plots, processes=processes,
        signals=signals)
    if snapshot is not None:
        processes.agree(lambda: snapshot.restore(trainer))
        _note(f'resumed from {snapshot.path}, after epoch '
              f'{trainer.updater.epoch}, iteration '
              f'{trainer.updater.iteration}')
        if processes.is_first:
            trainer.get_extension('TakeSnapshots').last = snapshot.path
    print(flush=True)
    run(trainer, args.epoch, processes, signals)
    if processes.is_first:
        print()
        print(summary.format_table(
            network, trainer.get_extension('LogReport').log), flush=True)
    if not args.no_report:
        page = processes.share(lambda: report.write(
            args, network, digits, trainer, processes.size))
        _note(f'report: {page}')
    # If the first fails even here, the others should hear of it.
    processes.wait_for_all()


def make_network(args: Namespace) -> MLP:
    """Returns the network of the options, with new weights.

    Raises:
        UserError: If --n-tiles does not divide --unit.
    """
    try:
        return MLP(
            args.unit, args.out_unit, n_tiles=args.n_tiles, layer=args.layer)
    except ValueError as e:
        raise UserError(
            f'--n-tiles {args.n_tiles} with --unit {args.unit}: {e}') from e


def read_snapshot(args: Namespace) -> Snapshot | None:
    """Returns the snapshot that --resume asks for, None without it."""
    if args.resume is None:
        return None
    if args.resume is options.NEWEST:
        return snapshots.read_newest(Path(args.out), _note)
    return snapshots.read(Path(args.resume))


def check_settings(snapshot: Snapshot, settings: Mapping[str, Any]) -> None:
    """Raises UserError if a snapshot is of a run with other settings."""
    theirs = snapshot.settings
    others = [key for key in settings if theirs.get(key) != settings[key]]
    if others:
        raise UserError(
            f'{snapshot.path} was trained with '
            f'{_flags(theirs, others)}, not {_flags(settings, others)}')


def prepare_folder(out: Path) -> None:
    """Makes the output folder, or tidies up what a killed run left in it.

    Raises:
        UserError: If it cannot be used.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            remove_leftovers(out)
    except OSError as e:
        raise UserError(
            f'--out {out}: cannot write there: {e.strerror}') from e


def run(
        trainer: Trainer, n_epochs: int, processes: Processes,
        signals: StopSignals) -> None:
    """Runs a trainer up to an epoch, which may lie behind it.

    Args:
        trainer (Trainer): The run.
        n_epochs (int): Epochs of the whole run.
        processes (Processes): The processes of the run.
        signals (StopSignals): From here on, the first is to wait.

    Raises:
        UserError: If a file cannot be written.
        KeyboardInterrupt: If the user stops it; it says how to go on.
    """
    if trainer.updater.epoch >= n_epochs:
        _note('every epoch is done already')
        if processes.is_first:
            trainer.get_extension('PrintReport')(trainer)
        return
    signals.is_training = True
    processes.go_apart()
    try:
        # The error is reported once, in one line, by main().
        trainer.run(show_loop_exception_msg=False)
    except BrokenPipeError:
        raise
    except OSError as e:
        raise UserError(
            f'stopped after epoch {trainer.updater.epoch}, '
            f'{e.filename or trainer.out}: {e.strerror or e}; '
            f'{_how_to_go_on(trainer, processes)}') from e
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f'stopped in epoch {trainer.updater.epoch + 1}; '
            f'{_how_to_go_on(trainer, processes)}') from None
    processes.come_together()


def _how_to_go_on(trainer: Trainer, processes: Processes) -> str:
    if not processes.is_first:
        return 'go on with the same options and --resume'
    last = trainer.get_extension('TakeSnapshots').last
    if last is None:
        return 'there is no snapshot yet, so start again'
    if not last.exists():
        return f'{last} is gone, so start again'
    where = '' if last.parent == Path(trainer.out) else f' {last}'
    return f'{last} is whole: go on with the same options and --resume{where}'


def _flags(settings: Mapping[str, Any], keys: Sequence[str]) -> str:
    return ' '.join(
        f'--{key.replace("_", "-")} {settings.get(key)}' for key in keys)


def _note(line: str) -> None:
    print(f'# {line}', flush=True)


def _times(n: int) -> str:
    return f', {n} processes' if n > 1 else ''


def _silent_unless(speaks: bool) -> contextlib.ExitStack:
    stack = contextlib.ExitStack()
    if not speaks:
        nowhere = stack.enter_context(open(os.devnull, 'w'))
        stack.enter_context(contextlib.redirect_stdout(nowhere))
    return stack


def _stop(ours: Processes, message: str, status: int) -> int:
    try:
        print(end='', flush=True)
    except OSError:
        # What is left to be flushed at exit must not fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if ours.speaks():
        print('train_mnist.py:', ' '.join(message.splitlines()),
              file=sys.stderr, flush=True)
    ours.leave(status)
    return status


if __name__ == '__main__':
    sys.exit(main())
