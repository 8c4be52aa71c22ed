"""``fold`` and ``tile``: each other's transpose, and each other's gradient."""
from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Any

import numpy
from chainer import backend, function_node
from chainer.utils import type_check

if TYPE_CHECKING:
    from chainer import Variable
    from chainer.types import NdArray


class Fold(function_node.FunctionNode):

    """Adds the tiles of the last axis: (..., n * m) -> (..., m).

    The node that :func:`fold` makes; its gradient is :class:`Tile`.
    """

    def __init__(self, n_tiles: int) -> None:
        self.n_tiles = check_n_tiles(n_tiles)

    def check_type_forward(self, in_types):
        type_check._argname(in_types, ('x',))
        x_type, = in_types
        expect_float(x_type, 'x')
        type_check.expect(x_type.ndim >= 1)
        shape = type_check.eval(x_type.shape)
        if shape[-1] % self.n_tiles != 0:
            raise type_check.InvalidType(
                'x.shape[-1] % n_tiles == 0',
                'x.shape = {}, {}'.format(
                    shape, describe_divisors(shape[-1], self.n_tiles)))

    def forward(self, inputs):
        x, = inputs
        return fold_array(x, self.n_tiles).astype(x.dtype, copy=False),

    def backward(self, indexes, grad_outputs):
        return Tile(self.n_tiles).apply(grad_outputs)


class Tile(function_node.FunctionNode):

    """Repeats the last axis: (..., m) -> (..., n * m).

    The node that :func:`tile` makes; its gradient is :class:`Fold`.
    """

    def __init__(self, n_tiles: int) -> None:
        self.n_tiles = check_n_tiles(n_tiles)

    def check_type_forward(self, in_types):
        type_check._argname(in_types, ('x',))
        x_type, = in_types
        expect_float(x_type, 'x')
        type_check.expect(x_type.ndim >= 1)

    def forward(self, inputs):
        x, = inputs
        return tile_array(x, self.n_tiles),

    def backward(self, indexes, grad_outputs):
        return Fold(self.n_tiles).apply(grad_outputs)


def fold_array(x: NdArray, n_tiles: int, dtype: Any = None) -> NdArray:
    """Adds the tiles of an array's last axis, in one pass over the array.

    Args:
        x: Float array of shape (..., n_tiles * m), in any memory order.
        n_tiles: Number of tiles.
        dtype: The dtype to add in, and of the result. float32 by default for
            a float16 array, ``x.dtype`` otherwise.

    Returns:
        Array of shape (..., m).

    """
    if dtype is None:
        dtype = numpy.promote_types(x.dtype, numpy.float32)
    width = x.shape[-1] // n_tiles
    # Splitting an axis makes a view, whatever the strides are.
    tiles: Any = x.reshape(x.shape[:-1] + (n_tiles, width))
    if not isinstance(tiles, numpy.ndarray) or tiles.dtype != dtype:
        # Casts as it goes; a copy of x in the wider dtype takes as long.
        return tiles.sum(axis=-2, dtype=dtype)
    if tiles.strides[-1] == tiles.itemsize:
        # BLAS streams each row once, three times as fast as ndarray.sum.
        sums = numpy.matmul(_row_of_ones(n_tiles, dtype), tiles)
        return sums.reshape(x.shape[:-1] + (width,))
    return numpy.einsum('...nm->...m', tiles)


@functools.lru_cache
def _row_of_ones(size: int, dtype: Any) -> Any:
    return numpy.ones((1, size), dtype)


def tile_array(x: NdArray, n_tiles: int) -> NdArray:
    """Repeats an array's last axis: (..., m) -> (..., n_tiles * m)."""
    if isinstance(x, numpy.ndarray):
        # One block copy a tile; numpy.tile copies its input first.
        tiles = numpy.repeat(x[..., None, :], n_tiles, axis=-2)
        return tiles.reshape(x.shape[:-1] + (n_tiles * x.shape[-1],))
    xp = backend.get_array_module(x)
    return xp.tile(x, n_tiles)


def check_n_tiles(n_tiles: Any) -> int:
    """Returns ``n_tiles`` as a positive int, or says what is wrong with it."""
    try:
        if isinstance(n_tiles, (bool, numpy.bool_)):
            raise TypeError
        n_tiles = operator.index(n_tiles)
    except TypeError:
        raise TypeError(
            'n_tiles must be a positive int, not {!r}'.format(n_tiles)
        ) from None
    if n_tiles < 1:
        raise ValueError(
            'n_tiles must be a positive int, not {}'.format(n_tiles))
    return n_tiles


def expect_float(in_type: Any, name: str) -> None:
    """Type check for a float array that names the dtype it met instead."""
    dtype = type_check.eval(in_type.dtype)
    if dtype.kind != 'f':
        raise type_check.InvalidType(
            '{}.dtype.kind == f'.format(name),
            '{}.dtype = {}'.format(name, dtype))


def describe_divisors(size: int, n_tiles: int) -> str:
    """Says that ``n_tiles`` does not divide ``size``, and what near it does.

    >>> describe_divisors(1000, 7)
    'n_tiles = 7 does not divide 1000; the nearest that do are 5 and 8'

    """
    below = max(
        (d for d in range(1, min(n_tiles, size + 1)) if size % d == 0),
        default=None)
    above = next(
        (d for d in range(n_tiles + 1, size + 1) if size % d == 0), None)
    near = [str(d) for d in (below, above) if d is not None]
    message = 'n_tiles = {} does not divide {}'.format(n_tiles, size)
    if len(near) == 2:
        return message + '; the nearest that do are {} and {}'.format(*near)
    if near:
        return message + '; the nearest that does is {}'.format(*near)
    return message


def fold(x: Variable | NdArray, n_tiles: int) -> Variable:
    """Adds the ``n_tiles`` tiles of the last axis.

    With :math:`m` the width of a tile, it computes

    .. math:: z_{\\ldots, i} = \\sum_{j=0}^{n-1} x_{\\ldots, jm + i}.

    It is the transpose of :func:`tile`:
    :math:`\\langle fold(x), z \\rangle = \\langle x, tile(z) \\rangle`, and so
    each is the gradient of the other. A float16 array is added in float32 and
    rounded once.

    Args:
        x (:class:`~chainer.Variable` or :ref:`ndarray`): Float array of shape
            :math:`(\\ldots, n m)`.
        n_tiles (int): Number of tiles :math:`n`, a divisor of the last axis.

    Returns:
        ~chainer.Variable: Array of shape :math:`(\\ldots, m)` and of the
        dtype of ``x``.

    Raises:
        TypeError: If ``n_tiles`` is not an int.
        ValueError: If ``n_tiles`` is not positive.
        chainer.utils.type_check.InvalidType: If ``x`` is not a float array,
            or its last axis has no ``n_tiles`` equal parts.

    .. admonition:: Example

        >>> x = np.arange(6, dtype=np.float32)
        >>> sl.fold(x, 3).array
        array([6., 9.], dtype=float32)

    """
    return Fold(n_tiles).apply((x,))[0]


def tile(x: Variable | NdArray, n_tiles: int) -> Variable:
    """Repeats the last axis ``n_tiles`` times.

    With :math:`m` the width of ``x``, it computes

    .. math:: y_{\\ldots, jm + i} = x_{\\ldots, i}, \\quad j = 0, \\ldots, n-1.

    It is the transpose of :func:`fold`, and each is the gradient of the other.

    Args:
        x (:class:`~chainer.Variable` or :ref:`ndarray`): Float array of shape
            :math:`(\\ldots, m)`.
        n_tiles (int): Number of repetitions :math:`n`.

    Returns:
        ~chainer.Variable: Array of shape :math:`(\\ldots, n m)` and of the
        dtype of ``x``.

    Raises:
        TypeError: If ``n_tiles`` is not an int.
        ValueError: If ``n_tiles`` is not positive.
        chainer.utils.type_check.InvalidType: If ``x`` is not a float array
            of at least one axis.

    .. admonition:: Example

        >>> x = np.array([1, 2], np.float32)
        >>> sl.tile(x, 3).array
        array([1., 2., 1., 2., 1., 2.], dtype=float32)

        Repeating and adding up is a multiplication by ``n_tiles``:

        >>> sl.fold(sl.tile(x, 3), 3).array
        array([3., 6.], dtype=float32)

    """
    return Tile(n_tiles).apply((x,))[0]
