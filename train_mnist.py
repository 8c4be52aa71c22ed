#!/usr/bin/env python
"""Trains a three-layer network on MNIST, its second layer weight-shared.

After Chainer's own ``examples/mnist/train_mnist.py``: what is built, in the
order in which it runs. What happens when things go wrong is in ``mnist/``.
"""
# Before any import of Chainer: this readies it for today's NumPy, here and
# in spawned processes, which import this file again.
import shared_linear  # noqa: F401, I001

import sys
from argparse import Namespace
from collections.abc import Sequence

import chainer
import chainer.links as L
from chainer import training
from chainer.training import extensions

from mnist import command, console, options, report, seeds, summary
from mnist.curves import DrawCurves
from mnist.evaluation import EvaluateEveryDigit
from mnist.log import LogReport
from mnist.network import make_network
from mnist.run import Run
from mnist.snapshots import TakeSnapshots
from mnist.stopping import StopWhenAsked

COLUMNS = [
    'epoch', 'main/loss', 'validation/main/loss', 'main/accuracy',
    'validation/main/accuracy', 'elapsed_time']


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    return command.run(train, argv)


def train(args: Namespace, run: Run) -> None:
    """Trains, or goes on training, prints the table, and reports.

    Args:
        args (Namespace): What ``options.parse`` returns.
        run (Run): Its folder, its processes, and what may stop it.
    """
    processes = run.processes
    device = run.begin()

    # Set up the network: 784-1000-900-10, the second layer a SharedLinear
    # (mnist/network.py). What one process cannot make, none goes on without.
    # Classifier reports softmax cross entropy and accuracy.
    seeds.seed_all(args.seed, device)
    network = processes.agree(lambda: make_network(args))
    digits = run.load_digits(device)
    run.order_pixels(network, digits)
    model = L.Classifier(network)
    model.to_device(device)

    # Set up an optimizer, which steps along the mean gradient of the
    # processes.
    adam = options.OPTIMIZERS[args.optimizer]()
    adam.setup(model)
    optimizer = processes.average_gradients(adam)

    # Set up a trainer, which only in the first process writes and prints.
    train_iter = processes.iterate(digits.train, args.batchsize)
    test_digits, weight = processes.test_part(digits.test)
    test_iter = chainer.iterators.SerialIterator(
        test_digits, args.batchsize, repeat=False, shuffle=False)
    updater = training.updaters.StandardUpdater(
        train_iter, optimizer, device=device)
    trainer = training.Trainer(
        updater, (args.epoch, 'epoch'),
        out=args.out if processes.is_first else '.')

    # Evaluate the network with the test digits before training, and after
    # each epoch.
    trainer.extend(
        processes.average_evaluator(EvaluateEveryDigit(
            test_iter, model, device=device, weight=weight)),
        call_before_training=True)
    processes.extend(trainer)
    trainer.extend(
        StopWhenAsked(run.signals, args.epoch, processes),
        trigger=lambda trainer: True)

    if processes.is_first:
        # Write a log, draw it, and print it.
        trainer.extend(LogReport(), call_before_training=True)
        if not args.no_plots:
            for key in 'loss', 'accuracy':
                curves = DrawCurves(key)
                trainer.extend(
                    curves, name=f'DrawCurves/{key}', trigger=curves.is_due)
        # mpiexec shows a terminal to what it pipes into a file.
        is_terminal = sys.stdout.isatty() and processes.size == 1
        trainer.extend(
            extensions.PrintReport(COLUMNS, out=console.TerminalOrFile(
                sys.stdout, is_terminal)),
            name='PrintReport', call_before_training=True)
        if is_terminal:
            trainer.extend(
                extensions.ProgressBar(update_interval=10),
                trigger=lambda trainer: True)
        # Take a snapshot every few epochs.
        snapshots = TakeSnapshots(run.settings, args.frequency, args.epoch)
        trainer.extend(
            snapshots, name='TakeSnapshots', trigger=snapshots.is_due)

    # Go on from a snapshot, if --resume says so, and run.
    run.resume(trainer)
    run.train(trainer)

    if processes.is_first:
        print()
        print(summary.format_table(
            network, trainer.get_extension('LogReport').log), flush=True)
    if not args.no_report:
        page = processes.share(lambda: report.write(
            args, network, digits, trainer, processes.size))
        console.note(f'report: {page}')
    # If the first fails even here, the others should hear of it.
    processes.wait_for_all()


if __name__ == '__main__':
    sys.exit(main())
