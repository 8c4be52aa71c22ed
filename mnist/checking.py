"""What a snapshot holds, checked against the trainer that it is for.

Every array's name, shape, dtype and values, before one of them is restored:
Chainer's own loading broadcasts what is of another shape, and stops in the
middle at what is missing.
"""
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy
from chainer.serializers import npz
from chainer.training import Trainer

Arrays = Mapping[str, numpy.ndarray]

UPDATER = 'updater/'
ITERATOR = UPDATER + 'iterator:main/'
LOG = 'extensions/LogReport/_log'
SUMMARY = 'extensions/LogReport/_summary/_names'
ITERATION = UPDATER + 'iteration'


class Mismatch(Exception):
    """What does not fit, in one line."""


def check(arrays: Arrays, trainer: Trainer) -> None:
    """Checks that a trainer can be restored from arrays, and means the same.

    Args:
        arrays (mapping): All that a snapshot holds of the trainer, by name.
        trainer (Trainer): Trainer that has not run.

    Raises:
        Mismatch: If an array is missing or not known, of another shape or
            dtype, or has values that no run has.
    """
    expected = _expected(trainer)
    theirs = {name for name in arrays if name.startswith(UPDATER)}
    for name in sorted(theirs ^ {
            name for name in expected if name.startswith(UPDATER)}):
        raise Mismatch(
            f'{name} is not of this network' if name in theirs
            else f'{name} is missing')
    for name, array in expected.items():
        _check_kind(name, arrays, array)
    for name in sorted(arrays):
        _check_values(name, arrays[name])
    _check_iterator(arrays, len(expected[ITERATOR + 'order']))
    _check_log(arrays)


def _expected(trainer: Trainer) -> dict[str, numpy.ndarray]:
    """What the trainer itself would save, but for what has no size yet."""
    optimizer = trainer.updater.get_optimizer('main')
    for param in optimizer.target.params():
        # Moments that are there are compared, and filled; Chainer takes them
        # from the snapshot as they come otherwise.
        if param.update_rule.state is None:
            param.update_rule._init_states(param)
    serializer = npz.DictionarySerializer()
    trainer.updater.serialize(serializer['updater'])
    return {
        **serializer.target, LOG: numpy.array(''), SUMMARY: numpy.array('')}


def _check_kind(name: str, arrays: Arrays, expected: numpy.ndarray) -> None:
    if name not in arrays:
        raise Mismatch(f'{name} is missing')
    array = arrays[name]
    if array.shape != expected.shape:
        raise Mismatch(
            f'{name} has shape {array.shape}, expected {expected.shape}')
    # The width of a lone number, or of a text, is the system's, or its own.
    same = (array.dtype == expected.dtype if expected.ndim
            else array.dtype.kind == expected.dtype.kind)
    if not same:
        raise Mismatch(
            f'{name} is of {array.dtype}, expected {expected.dtype}')


def _check_values(name: str, array: numpy.ndarray) -> None:
    if array.dtype.kind == 'f' and not numpy.isfinite(array).all():
        raise Mismatch(
            f'{name} has values that are not finite: the run had diverged')
    if array.dtype.kind not in 'fiubU':
        raise Mismatch(f'{name} is of {array.dtype}')
    if name.endswith('/v') and array.size and array.min() < 0:
        raise Mismatch(f'{name}, a mean of squares, has negative values')


def _check_iterator(arrays: Arrays, n_digits: int) -> None:
    order = arrays[ITERATOR + 'order']
    if not numpy.array_equal(numpy.sort(order), numpy.arange(n_digits)):
        raise Mismatch(
            f'{ITERATOR}order is no order of {n_digits:,} digits')
    for name, limit in [
            (ITERATOR + 'current_position', n_digits),
            (ITERATOR + 'epoch', None), (ITERATION, None)]:
        number = int(arrays[name])
        if number < 0 or limit is not None and number >= limit:
            raise Mismatch(f'{name} is {number}')


def _check_log(arrays: Arrays) -> None:
    entries = parse(LOG, arrays)
    if not isinstance(entries, list) or not all(
            isinstance(entry, dict) and all(
                isinstance(entry.get(key), (int, float))
                for key in ('epoch', 'iteration', 'elapsed_time'))
            for entry in entries):
        raise Mismatch(f'{LOG} is no log')
    names = parse(SUMMARY, arrays)
    if not isinstance(names, list) or not all(
            isinstance(name, str) for name in names):
        raise Mismatch(f'{SUMMARY} is no list of names')


def parse(
        name: str, arrays: Arrays,
        read: Callable[[str], Any] = json.loads) -> Any:
    """Returns what a text among the arrays says.

    Raises:
        Mismatch: If it is none, or cannot be read.
    """
    array = arrays[name]
    if array.shape or array.dtype.kind != 'U':
        raise Mismatch(f'{name} is no text')
    try:
        return read(str(array))
    except (ValueError, TypeError, KeyError, AttributeError,
            IndexError, RecursionError, OverflowError) as e:
        raise Mismatch(
            f'{name} cannot be read: {type(e).__name__}') from e
