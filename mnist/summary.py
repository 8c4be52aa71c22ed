"""The table at the end: parameters, test error, time."""
from collections.abc import Mapping, Sequence
from typing import Any

import chainer
import chainer.links as L

ERROR_EPOCHS = 3


def count_parameters(link: chainer.Link) -> tuple[int, int]:
    """Returns the parameters of a fully connected layer, and of a dense one.

    Args:
        link (Link): ``L.Linear`` or one that takes its place.
    """
    in_size, out_size = sizes(link)
    n_params = sum(param.size for param in link.params())
    n_biases = 0 if link.b is None else link.b.size
    return n_params, in_size * out_size + n_biases


def sizes(link: chainer.Link) -> tuple[int, int]:
    """Returns the sizes of the inputs and outputs of a layer."""
    if isinstance(link, L.Linear):
        out_size, in_size = link.W.shape
        return in_size, out_size
    return link.in_size, link.out_size


def describe(link: chainer.Link) -> str:
    """Returns by what a layer is shared, in a few words: '' if it is dense."""
    parts = [
        (getattr(link, name, 1), word)
        for name, word in (('n_tiles', 'tiles'), ('n_blocks', 'blocks'))]
    words = [f'{n} {word}' for n, word in parts if n > 1]
    if hasattr(link, 'rank'):
        words.append(f'rank {link.rank}')
    return ', '.join(words)


def test_errors(log: Sequence[Mapping[str, Any]]) -> list[float]:
    """Returns the test error after each epoch, in per cent.

    Args:
        log (sequence of mapping): Log of a ``LogReport``.
    """
    return [
        100 * (1 - entry['validation/main/accuracy'])
        for entry in log if entry['epoch'] > 0]


def seconds_per_epoch(log: Sequence[Mapping[str, Any]]) -> float:
    """Returns the mean time of an epoch, with its test and its snapshot.

    Args:
        log (sequence of mapping): Log of a ``LogReport``, whose first entry
            was taken before training.
    """
    first, last = log[0], log[-1]
    return ((last['elapsed_time'] - first['elapsed_time'])
            / (last['epoch'] - first['epoch']))


def format_table(
        network: chainer.Chain, log: Sequence[Mapping[str, Any]]) -> str:
    """Returns the table of a run, as lines of text.

    Args:
        network (Chain): Chain of fully connected layers.
        log (sequence of mapping): Log of a ``LogReport``, whose first entry
            was taken before training.
    """
    counts = {
        _describe(link): count_parameters(link)
        for link in network.children()}
    counts['in all'] = tuple(
        sum(numbers) for numbers in zip(*counts.values(), strict=True))
    rows = [('parameters', 'this run', 'dense', '')]
    for name, (here, dense) in counts.items():
        rows.append((
            name, f'{here:,}', f'{dense:,}', f'{100 * here / dense:.0f} %'))

    errors = test_errors(log)
    rows.append(('', '', '', ''))
    rows.append(('test error, last epoch', f'{errors[-1]:.2f} %', '', ''))
    if len(errors) >= ERROR_EPOCHS:
        mean = sum(errors[-ERROR_EPOCHS:]) / ERROR_EPOCHS
        rows.append((
            f'test error, last {ERROR_EPOCHS} epochs', f'{mean:.2f} %',
            '', ''))
    rows.append((
        'seconds per epoch', f'{seconds_per_epoch(log):.2f}', '', ''))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join(
        '  '.join([row[0].ljust(widths[0])] + [
            cell.rjust(width)
            for cell, width in zip(row[1:], widths[1:], strict=True)]
        ).rstrip() for row in rows)


def _describe(link: chainer.Link) -> str:
    in_size, out_size = sizes(link)
    shared = describe(link)
    return f'{link.name}: {in_size} -> {out_size}' + (
        f', {shared}' if shared else '')
