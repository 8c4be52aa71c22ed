#!/usr/bin/env python
"""Trains a three-layer network on MNIST, its second layer weight-shared.

After Chainer's own ``examples/mnist/train_mnist.py``.
"""
# Before any import of Chainer: this readies it for today's NumPy, here and
# in spawned processes, which import this file again.
import shared_linear  # noqa: F401, I001

import os
import sys
import tempfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chainer.training import Trainer

from mnist import curves, options, seeds, snapshots, summary, training
from mnist.data import load_digits
from mnist.devices import get_device
from mnist.errors import UserError
from mnist.network import MLP
from mnist.snapshots import Snapshot

# The options that a run cannot change when it goes on.
FIXED = ['layer', 'unit', 'out_unit', 'n_tiles', 'batchsize', 'seed']


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status.

    Args:
        argv (sequence of str): Arguments; those of the process if None.
    """
    try:
        train(options.parse(argv))
    except UserError as e:
        return _stop(f'error: {e}', 2)
    except MemoryError as e:
        return _stop(
            f'error: not enough memory, try a smaller --batchsize or --unit '
            f'({e})', 2)
    except BrokenPipeError:
        # What is left to be flushed at exit must not fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _stop('error: nobody reads the output any more', 2)
    except KeyboardInterrupt as e:
        return _stop(str(e) or 'stopped before training began', 130)
    return 0


def train(args: Namespace) -> None:
    """Trains, or goes on training, and prints the table.

    Args:
        args (Namespace): What ``options.parse`` returns.

    Raises:
        UserError: If something is amiss that the user can mend.
        KeyboardInterrupt: If the user stops it; it says how to go on.
    """
    device = get_device(args.device)
    if not args.no_plots:
        curves.load_matplotlib()
    device.use()
    seeds.seed_all(args.seed, device)
    network = make_network(args)
    settings = {name: getattr(args, name) for name in FIXED}
    if args.layer == 'linear':
        settings['n_tiles'] = None
    snapshot = read_snapshot(args)
    if snapshot is not None:
        check_settings(snapshot, settings)
    check_writable(Path(args.out))

    print(f'Device: {device}')
    digits = load_digits(args.data, report=_note)
    settings['data'] = training.fingerprint(digits)
    if snapshot is not None:
        check_settings(snapshot, settings)
    _note(f'data: {digits.source}')
    _note(f'network: {describe(args)}')
    _note(f'Minibatch-size: {args.batchsize}')
    _note(f'epoch: {args.epoch}')
    _note(f'seed: {args.seed}')

    trainer = training.make_trainer(
        network, digits, device, batchsize=args.batchsize,
        n_epochs=args.epoch, out=args.out, frequency=args.frequency,
        settings=settings, plots=not args.no_plots)
    if snapshot is not None:
        snapshot.restore(trainer)
        trainer.get_extension('TakeSnapshots').last = snapshot.path
        _note(f'resumed from {snapshot.path}, after epoch '
              f'{trainer.updater.epoch}')
    print(flush=True)
    run(trainer, args.epoch)
    print()
    print(summary.format_table(
        network, trainer.get_extension('LogReport').log), flush=True)


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


def describe(args: Namespace) -> str:
    """Returns the network of the options in a few words."""
    how = ('dense' if args.layer == 'linear'
           else f'shared by {args.n_tiles} tiles')
    return f'784-{args.unit}-{args.out_unit}-10, second layer {how}'


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


def check_writable(out: Path) -> None:
    """Makes the output folder, and raises UserError if it cannot be used."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            return
    except OSError as e:
        raise UserError(
            f'--out {out}: cannot write there: {e.strerror}') from e


def run(trainer: Trainer, n_epochs: int) -> None:
    """Runs a trainer up to an epoch, which may lie behind it.

    Args:
        trainer (Trainer): The run.
        n_epochs (int): Epochs of the whole run.

    Raises:
        UserError: If a file cannot be written.
        KeyboardInterrupt: If the user stops it; it says how to go on.
    """
    if trainer.updater.epoch >= n_epochs:
        _note('every epoch is done already')
        trainer.get_extension('PrintReport')(trainer)
        return
    try:
        # The error is reported once, in one line, by main().
        trainer.run(show_loop_exception_msg=False)
    except BrokenPipeError:
        raise
    except OSError as e:
        raise UserError(
            f'stopped after epoch {trainer.updater.epoch}, '
            f'{e.filename or trainer.out}: {e.strerror or e}; '
            f'{_how_to_go_on(trainer)}') from e
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f'stopped in epoch {trainer.updater.epoch + 1}; '
            f'{_how_to_go_on(trainer)}') from None


def _how_to_go_on(trainer: Trainer) -> str:
    last = trainer.get_extension('TakeSnapshots').last
    if last is None:
        return 'there is no snapshot yet, so start again'
    where = '' if last.parent == Path(trainer.out) else f' {last}'
    return f'{last} is whole: go on with the same options and --resume{where}'


def _flags(settings: Mapping[str, Any], keys: Sequence[str]) -> str:
    return ' '.join(
        f'--{key.replace("_", "-")} {settings.get(key)}' for key in keys)


def _note(line: str) -> None:
    print(f'# {line}', flush=True)


def _stop(message: str, status: int) -> int:
    print('train_mnist.py:', ' '.join(message.splitlines()), file=sys.stderr)
    return status


if __name__ == '__main__':
    sys.exit(main())
