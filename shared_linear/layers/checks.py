"""Checks of arguments, whose errors say what was given and what works."""
from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import chainer
import numpy
from chainer import backend, variable
from chainer.backends import cuda
from chainer.utils import type_check

if TYPE_CHECKING:
    from chainer.types import NdArray


def check_n_tiles(n_tiles: Any) -> int:
    """Returns ``n_tiles`` as a positive int, or says what is wrong with it."""
    return check_positive_int(n_tiles, 'n_tiles')


def check_positive_int(value: Any, name: str) -> int:
    """Returns ``value`` as a positive int, or says what is wrong with it."""
    try:
        if isinstance(value, (bool, numpy.bool_)):
            raise TypeError
        value = operator.index(value)
    except TypeError:
        raise TypeError(
            '{} must be a positive int, not {!r}'.format(name, value)
        ) from None
    if value < 1:
        raise ValueError(
            '{} must be a positive int, not {}'.format(name, value))
    return value


def check_int(value: Any, name: str) -> int:
    """Returns ``value`` as an int, or says what it is."""
    if isinstance(value, (bool, numpy.bool_)) or not hasattr(
            value, '__index__'):
        raise TypeError('{} must be an int, not {!r}'.format(name, value))
    return operator.index(value)


def check_size(value: Any, name: str) -> int | None:
    """Returns a size that is known, as an int that is not negative."""
    if value is None:
        return None
    value = check_int(value, name)
    if value < 0:
        raise ValueError(
            '{} must not be negative, but is {}'.format(name, value))
    return value


def plain(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Masked arrays and matrices as the arrays that they are.

    A mask is not looked at, as in :func:`chainer.functions.linear`.
    """
    for x in inputs:
        if type(x) is not numpy.ndarray and type(x) is not cuda.ndarray:
            break
    else:
        return inputs  # At batch 1 each microsecond counts.
    return tuple(
        x.view(numpy.ndarray)
        if isinstance(x, numpy.ndarray) and type(x) is not numpy.ndarray
        else x for x in inputs)


def check_seed(seed: Any) -> int:
    """Returns ``seed`` as an int that is one, or says what is wrong."""
    try:
        if isinstance(seed, (bool, numpy.bool_)):
            raise TypeError
        seed = operator.index(seed)
    except TypeError:
        raise TypeError(
            'seed must be an int, not {!r}'.format(seed)) from None
    if not 0 <= seed < 2 ** 32:
        raise ValueError(
            'seed must be at least 0 and less than 2 ** 32, not {}'.format(
                seed))
    return seed


def check_one_device(names: Sequence[str], arrays: Sequence[Any]) -> None:
    """Says which array is where, if CuPy's are on several GPUs.

    A kernel takes the address of an array for one on its own GPU. Arrays of
    NumPy among those of CuPy are refused by Chainer.
    """
    if isinstance(arrays[0], numpy.ndarray):
        return
    ids = [
        array.device.id for array in arrays if isinstance(array, cuda.ndarray)]
    if ids and ids.count(ids[0]) != len(ids):
        raise ValueError(
            'arrays are on different GPUs: {}; the device of a link or of an '
            'array sends another one there: device.send(x)'.format(', '.join(
                '{} on @cupy:{}'.format(name, array.device.id)
                for name, array in zip(names, arrays, strict=False)
                if isinstance(array, cuda.ndarray))))


def check_order(order: Any, size: int | None = None) -> NdArray:
    """Returns an int32 permutation of NumPy, or says why it is none.

    It has to be read anyway, and so may come from whatever device.
    """
    order = variable.as_array(order)
    if not isinstance(order, chainer.get_array_types()):
        order = _as_array(order)
    if order.dtype.kind not in 'iu':
        raise TypeError(
            'order must be a permutation of ints, not an array of {}'.format(
                order.dtype))
    if order.ndim != 1:
        raise ValueError(
            'order must have one axis, not the shape {}'.format(order.shape))
    if size is not None and order.size != size:
        raise ValueError(
            'order must be a permutation of the {} inputs, but has {} '
            'elements'.format(size, order.size))
    values = numpy.asarray(backend.CpuDevice().send(order))
    wrong = (values < 0) | (values >= values.size)
    if wrong.any():
        raise ValueError(
            'order must be a permutation of 0 to {}, but has {}'.format(
                values.size - 1, values[wrong][0]))
    counts = numpy.bincount(values, minlength=values.size)
    if counts.max(initial=0) > 1:
        raise ValueError(
            'order must be a permutation of 0 to {}, but has {} {} times and '
            '{} never'.format(
                values.size - 1, counts.argmax(), counts.max(),
                counts.argmin()))
    return values.astype(numpy.int32)


def _as_array(order: Any) -> NdArray:
    try:
        return numpy.asarray(order)
    except ValueError:
        raise ValueError(
            'order must be a permutation of the inputs, not a sequence of '
            'sequences of different lengths') from None


def check_orders(
        order: Any, n_blocks: int, in_size: int | None = None,
) -> NdArray | None:
    """Returns good permutations as an int32 array of NumPy, or says why not.

    Args:
        order: A permutation of the inputs, several as the rows of an array,
            or ``None``.
        n_blocks: Number of blocks, each of which can have one.
        in_size: Number of inputs; any by default.

    """
    if order is None:
        return None
    order = variable.as_array(order)
    if not isinstance(order, chainer.get_array_types()):
        order = _as_array(order)
    order = backend.CpuDevice().send(order)
    if order.ndim != 2:
        return check_order(order, in_size)
    if not 1 <= len(order) <= n_blocks:
        raise ValueError(
            'order has {} permutations, but there are {} blocks'.format(
                len(order), n_blocks))
    return numpy.stack([check_order(row, in_size) for row in order])


def expect_float(in_type: Any, name: str) -> None:
    """Type check for a float array that names the dtype it met instead."""
    dtype = type_check.eval(in_type.dtype)
    if dtype.kind != 'f':
        raise type_check.InvalidType(
            '{}.dtype.kind == f'.format(name),
            '{}.dtype = {}'.format(name, dtype))


def describe_divisors(size: int, divisor: int, name: str = 'n_tiles') -> str:
    """Says that a number does not divide ``size``, and what near it does.

    >>> describe_divisors(1000, 7)
    'n_tiles = 7 does not divide 1000; the nearest that do are 5 and 8'

    """
    below = max(
        (d for d in range(1, min(divisor, size + 1)) if size % d == 0),
        default=None)
    above = next(
        (d for d in range(divisor + 1, size + 1) if size % d == 0), None)
    near = [str(d) for d in (below, above) if d is not None]
    message = '{} = {} does not divide {}'.format(name, divisor, size)
    if len(near) == 2:
        return message + '; the nearest that do are {} and {}'.format(*near)
    if near:
        return message + '; the nearest that does is {}'.format(*near)
    return message
