"""Whose parameters are theirs alone."""
from collections.abc import Iterator
from typing import Any

import chainer
import numpy
from chainer import backend


def find_ties(model: Any) -> dict[str, str]:
    """The links that share the memory of a parameter with anything else.

    Args:
        model: Chain.

    Returns:
        dict: What they share it with, by the path of the link.

    """
    users: list[tuple[int, int, str, str, int]] = []
    for path, link in model.namedlinks():
        for name, value in _arrays_of(link):
            for start, end in spans(value):
                users.append((
                    start, end, path, path.rstrip('/') + '/' + name,
                    id(link)))
    users.sort()
    ties: dict[str, str] = {}
    reach: list[tuple[int, int, str, str, int]] = []
    for user in users:
        reach = [other for other in reach if other[1] > user[0]]
        for other in reach:
            if (other[3], other[4]) != (user[3], user[4]):
                # Of several, the first by name, wherever memory lies.
                ties[user[2]] = min(ties.get(user[2], other[3]), other[3])
                ties[other[2]] = min(ties.get(other[2], user[3]), user[3])
        reach.append(user)
    return ties


def _arrays_of(link: Any) -> Iterator[tuple[str, Any]]:
    """Arrays that a link holds: parameters, others, and those in containers.
    """
    for name, value in vars(link).items():
        if name in ('_params', '_persistent', '_children', '_layers'):
            continue
        yield from _arrays_in(name, value, 3)


def _arrays_in(name: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if isinstance(value, chainer.Variable):
        if value.array is not None:
            yield name, value.array
    elif isinstance(value, chainer.get_array_types()):
        yield name, value
    elif depth and isinstance(value, (list, tuple)):
        for i, one in enumerate(value):
            yield from _arrays_in('{}[{}]'.format(name, i), one, depth - 1)
    elif depth and isinstance(value, dict):
        for key, one in value.items():
            yield from _arrays_in('{}[{!r}]'.format(name, key), one, depth - 1)


def spans(array: Any) -> Iterator[tuple[int, int]]:
    """Where an array lies: from the first byte to the one after the last."""
    if array.size == 0:
        return
    xp = backend.get_array_module(array)
    if xp is numpy:
        yield numpy.lib.array_utils.byte_bounds(array) if hasattr(
            numpy.lib, 'array_utils') else numpy.byte_bounds(array)
    elif hasattr(array, 'data') and hasattr(array.data, 'ptr'):
        start = end = array.data.ptr
        for length, stride in zip(array.shape, array.strides, strict=True):
            if stride < 0:
                start += (length - 1) * stride
            else:
                end += (length - 1) * stride
        yield start, end + array.itemsize
