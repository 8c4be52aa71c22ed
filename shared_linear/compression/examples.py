"""The calibration inputs of a model: which are held out, which are padding."""
from __future__ import annotations

from typing import Any

import chainer
import numpy
from chainer import backend

from shared_linear.compression import inputs
from shared_linear.layers.tiled_link import to_cpu

Array = numpy.ndarray

BATCH_SIZE = 500
MOST_BATCHES = 200
# One example of so many is held out.
HELD_OUT = 10
# With fewer than this a layer alone and share_weights hold none out.
LEAST_HELD_OUT = 20


def read(x: Any, rule: inputs.OfModel) -> list[inputs.Batch]:
    """All calibration inputs. Each batch has a run of its own (lockstep.py).

    Batches of an iterator that are small and alike are joined.
    """
    size = max(BATCH_SIZE, -(-inputs.count(x) // MOST_BATCHES))
    batches = [batch for batch in inputs.iterate(x, rule, size) if len(batch)]
    size = max(size, -(-sum(map(len, batches)) // MOST_BATCHES))
    joined: list[list[inputs.Batch]] = []
    for batch in batches:
        if not joined or not _are_alike(joined[-1][0], batch) or (
                sum(map(len, joined[-1])) + len(batch) > size):
            joined.append([])
        joined[-1].append(batch)
    return [_join(some) for some in joined]


def _are_alike(one, other):
    """Whether batches can be one: but for their lengths they are the same."""
    def kind(value):
        if inputs.is_array(value):
            return (value.shape[1:], value.dtype,
                    backend.get_device_from_array(value))
        return type(value), repr(value)

    return (
        list(map(kind, one.args)) == list(map(kind, other.args))
        and {name: kind(v) for name, v in one.kwargs.items()}
        == {name: kind(v) for name, v in other.kwargs.items()})


def _join(batches):
    if len(batches) == 1:
        return batches[0]

    def joined(*values):
        if not inputs.is_array(values[0]):
            return values[0]
        with chainer.using_device(backend.get_device_from_array(values[0])):
            return backend.get_array_module(values[0]).concatenate(values)

    first = batches[0]
    return inputs.Batch(
        map(joined, *(batch.args for batch in batches)),
        {name: joined(*(batch.kwargs[name] for batch in batches))
         for name in first.kwargs}, first.n_left)


def are_held_out(numbers: Array) -> Array:
    """Which examples are, by their numbers."""
    return numbers % HELD_OUT == HELD_OUT - 1


def hold_out(batches: list[inputs.Batch], least: int = 2) -> list[Array]:
    """Every tenth example of all, and at least one.

    Of fewer than ``least`` none is held out, if there need not be two.
    """
    count = sum(map(len, batches))
    if count < least and least > 2:
        return [numpy.zeros(len(batch), bool) for batch in batches]
    if count < 2:
        raise ValueError(
            'there are too few calibration inputs: {}; give two at the very '
            'least, one to fit to and one to hold out'.format(count))
    held_out = are_held_out(numpy.arange(count))
    held_out[-1] |= not held_out.any()
    return numpy.split(held_out, numpy.cumsum([len(b) for b in batches])[:-1])


def masks(
        mask: Any, x: Any,
        batches: list[inputs.Batch]) -> list[Array] | None:
    """Of each batch, which rows are inputs and which are padding."""
    if mask is None:
        return None
    if callable(mask):
        of_batches = []
        for batch in batches:
            device = backend.get_device_from_array(*batch.arrays)
            with chainer.using_device(device):
                of_batches.append(to_cpu(batch.call(mask)))
    else:
        mask = to_cpu(chainer.as_array(mask))
        if len(mask) != sum(map(len, batches)) or not inputs.are_arrays(x):
            raise ValueError(
                'a mask that is an array goes with inputs x that are, too, of '
                'as many: x has {}, the mask {}'.format(
                    sum(map(len, batches)), len(mask)))
        of_batches = numpy.split(
            mask, numpy.cumsum([len(batch) for batch in batches])[:-1])
    for one in of_batches:
        if one.dtype != bool:
            raise TypeError(
                'mask must be of booleans, not of {}'.format(one.dtype))
    return of_batches
