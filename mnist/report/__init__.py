"""The report of a run: one page, whole in itself, for any browser."""
from argparse import Namespace
from pathlib import Path

import chainer
from chainer.training import Trainer

from mnist.data import Digits
from mnist.errors import UserError
from mnist.report import graph, page, reading
from shared_linear.files import write_atomically

NAME = 'report.html'


def write(
        args: Namespace, network: chainer.Chain, digits: Digits,
        trainer: Trainer, n_processes: int = 1) -> Path:
    """Writes ``report.html`` into the folder of a run that has ended.

    Args:
        args (Namespace): Options of the run.
        network (Chain): The trained network.
        digits (Digits): What it was trained and tested on.
        trainer (Trainer): The run.
        n_processes (int): Processes that trained together.

    Returns:
        Path: The page.

    Raises:
        UserError: If it cannot be written. The run is whole without it.
    """
    path = Path(args.out) / NAME
    last = trainer.get_extension('TakeSnapshots').last
    whole = (f'the network is trained, and {last} is whole: the same options '
             f'and --resume write the report')
    try:
        html = render(args, network, digits, trainer, n_processes)
        write_atomically(
            path, lambda file: file.write(html.encode('utf-8')))
    except OSError as e:
        raise UserError(
            f'no report, {path}: {e.strerror or e}; {whole}') from e
    except Exception as e:
        # Whatever it is, the run did not fail: say that, and how to go on.
        raise UserError(
            f'no report: {type(e).__name__}: {e}; {whole}') from e
    return path


def render(
        args: Namespace, network: chainer.Chain, digits: Digits,
        trainer: Trainer, n_processes: int) -> str:
    """Returns the page that :func:`write` writes."""
    read = reading.read(network, digits.test, args.batchsize)
    x = chainer.Variable(
        network.device.send(read.images[:args.batchsize]))
    return page.render(page.Run(
        args, network, trainer.get_extension('LogReport').log,
        trainer.get_extension('TakeSnapshots').last, digits.source,
        len(digits.train), n_processes, read, graph.trace(network, x)))
