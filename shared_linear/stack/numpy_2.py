"""What NumPy 2 took from Chainer, one thing a function."""
from __future__ import annotations

from typing import Any

import numpy

from shared_linear.stack.mending import Source, mends

_IS_2 = numpy.lib.NumpyVersion(numpy.__version__) >= '2.0.0.dev0'


@mends('chainer.functions.array.as_strided')
def look_up_types_without_sctypes(source: Source) -> None:
    """``numpy.sctypes`` is gone: ``import chainer`` fails without this."""
    if hasattr(numpy, 'sctypes'):
        return
    source.replace(
        "np.sctypes['int']", '(np.int8, np.int16, np.int32, np.int64)')
    source.replace(
        "gy.dtype not in np.sctypes['float']", "gy.dtype.kind != 'f'")


@mends('chainer.functions.array.resize_images')
def compute_positions_in_float(source: Source) -> None:
    """``numpy.float`` is gone: ``F.resize_images`` fails without this."""
    if 'float' not in vars(numpy):
        source.replace('numpy.float)', 'float)', count=6)


@mends('chainer.distributions.categorical')
def list_what_meshgrid_gives(source: Source) -> None:
    """``numpy.meshgrid`` gives a tuple: ``Categorical.log_prob`` adds a list.

    It raises a TypeError without this, and so does what is built on it.
    """
    if _IS_2:
        source.replace('self.log_p[mg + [', 'self.log_p[list(mg) + [', 2)


def wrapped(value: Any, dtype: Any) -> Any:
    """An integer as NumPy 1 put it into an array: -1 is 255 in uint8."""
    if isinstance(value, int):
        return numpy.asarray(value).astype(dtype)[()]
    return value


def _import_wrapped(source: Source) -> None:
    # On a line that is there already: all the lines keep their numbers.
    source.replace(
        'import numpy\nimport six\n', 'import numpy, six\n'
        'from shared_linear.stack.numpy_2 import wrapped\n')


@mends('chainer.functions.array.pad_sequence')
def pad_sequences_with_negative_numbers(source: Source) -> None:
    """NumPy 2 puts no -1 into unsigned integers, and 1.24 and later warn.

    ``F.pad_sequence(..., padding=-1)`` raises an OverflowError without this.
    """
    source.replace(
        'y[i, l:] = self.padding',
        'y[i, l:] = wrapped(self.padding, y.dtype)')
    source.replace(
        '(ptrs, lengths, self.padding, base, length, y)',
        '(ptrs, lengths, wrapped(self.padding, y.dtype), base, length, '
        'y)')
    _import_wrapped(source)


@mends('chainer.dataset.convert')
def pad_examples_with_negative_numbers(source: Source) -> None:
    """``concat_examples(..., padding=-1)`` of unsigned integers, likewise."""
    source.replace(
        'full(shape, padding, dtype=arrays[0].dtype)',
        'full(shape, wrapped(padding, arrays[0].dtype), '
        'dtype=arrays[0].dtype)')
    _import_wrapped(source)


@mends('chainer.dataset.convert')
def take_the_maximum_into_out(source: Source) -> None:
    """A third positional argument of ``numpy.maximum`` is deprecated in 2.5.

    ``concat_examples(..., padding=0)`` fails without this where warnings are
    errors, and soon everywhere.
    """
    source.replace('numpy.maximum(shape, array.shape, shape)',
                   'numpy.maximum(shape, array.shape, out=shape)')


@mends('chainer.links.activation.maxout')
def view_an_array_in_another_shape(source: Source) -> None:
    """Setting the shape of an array is deprecated in NumPy 2.5.

    ``L.Maxout`` with a function for its weight or bias fails without this
    where warnings are errors. The function fills a view, as initializers do.
    """
    source.replace(
        '                array.shape = (out_size, pool_size, in_size)\n'
        '                initialW_orig(array)\n'
        '                array.shape = (linear_out_size, in_size)\n',
        '                initialW_orig('
        'array.reshape(out_size, pool_size, in_size))\n')
    source.replace(
        '                array.shape = (out_size, pool_size)\n'
        '                initial_bias_orig(array)\n'
        '                array.shape = linear_out_size,\n',
        '                initial_bias_orig('
        'array.reshape(out_size, pool_size))\n')


@mends('chainer.variable')
def print_the_device_of_chainer(source: Source) -> None:
    """Arrays of NumPy 2 have a ``device`` of their own, which is ``'cpu'``.

    ``Variable.debug_print`` and the hook ``PrintHook`` print that without
    this, where they printed ``CPU``.
    """
    if _IS_2:
        source.replace(
            "getattr(array, 'device', 'CPU')",
            "('CPU' if isinstance(array, numpy.ndarray) "
            "else getattr(array, 'device', 'CPU'))")


@mends('chainermn.communicators._memory_utility')
def copy_where_the_dtype_differs(source: Source) -> None:
    """``array(copy=False)`` means "never" in NumPy 2, not "if needed".

    Gradients that are sent in another dtype (``allreduce_grad_dtype``) raise
    a ValueError without this.
    """
    if _IS_2:
        source.replace(
            'xp.array(v, copy=False, dtype=transfer_dtype)',
            'xp.asarray(v, dtype=transfer_dtype)')


@mends('chainer.functions.math.fix')
def round_towards_zero_by_trunc(source: Source) -> None:
    """``numpy.fix`` is deprecated in NumPy 2.5, for it is ``numpy.trunc``.

    ``F.fix`` and ``F.fmod`` fail without this where warnings are errors.
    """
    source.replace(
        'xp.fix(x)',
        "(xp.trunc if hasattr(xp, 'trunc') else xp.fix)(x)")
