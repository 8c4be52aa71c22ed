"""``fold`` and ``tile``: each other's transpose, and each other's gradient."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy
from chainer import backend, function_node, utils, variable
from chainer.utils import type_check

from shared_linear.layers import caching, checks, kernels

if TYPE_CHECKING:
    from chainer import Variable
    from chainer.types import NdArray

# What is gathered at a time: it stays in the cache until it is added.
GATHER_BYTES = 2 ** 18


class _Tiling(function_node.FunctionNode):

    def __init__(self, n_tiles: int, order: NdArray | None = None) -> None:
        self.n_tiles = checks.check_n_tiles(n_tiles)
        self.order = order

    def check_type_forward(self, in_types):
        type_check._argname(in_types, ('x',))
        x_type, = in_types
        checks.expect_float(x_type, 'x')
        type_check.expect(x_type.ndim >= 1)
        self._check_shape(type_check.eval(x_type.shape))

    def _check_shape(self, shape):
        """Raises InvalidType where the last axis does not fit."""


class Fold(_Tiling):

    """Adds the tiles of the last axis: (..., n * m) -> (..., m).

    The node that :func:`fold` makes; its gradient is :class:`Tile`.
    """

    def _check_shape(self, shape):
        if self.order is not None and shape[-1] != self.order.size:
            raise type_check.InvalidType(
                'x.shape[-1] == order.size',
                'x.shape = {}, order.size = {}'.format(
                    shape, self.order.size))
        if shape[-1] % self.n_tiles != 0:
            raise type_check.InvalidType(
                'x.shape[-1] % n_tiles == 0',
                'x.shape = {}, {}'.format(
                    shape, checks.describe_divisors(shape[-1], self.n_tiles)))

    def forward(self, inputs):
        x, = checks.plain(inputs)
        folded = fold_array(x, self.n_tiles, x.dtype, self.order)
        return folded.astype(x.dtype, copy=False),  # of its byte order too

    def backward(self, indexes, grad_outputs):
        return Tile(self.n_tiles, self.order).apply(grad_outputs)


class Tile(_Tiling):

    """Repeats the last axis: (..., m) -> (..., n * m).

    The node that :func:`tile` makes; its gradient is :class:`Fold`.
    """

    def _check_shape(self, shape):
        if (self.order is not None
                and self.n_tiles * shape[-1] != self.order.size):
            raise type_check.InvalidType(
                'n_tiles * x.shape[-1] == order.size',
                'n_tiles = {}, x.shape = {}, order.size = {}'.format(
                    self.n_tiles, shape, self.order.size))

    def forward(self, inputs):
        x, = checks.plain(inputs)
        return tile_array(x, self.n_tiles, self.order),

    def backward(self, indexes, grad_outputs):
        return Fold(self.n_tiles, self.order).apply(grad_outputs)


def fold_array(
        x: NdArray, n_tiles: int, dtype: Any = None,
        order: NdArray | None = None) -> NdArray:
    """Adds the tiles of an array's last axis, in one pass over the array.

    Args:
        x: Float array of shape (..., n_tiles * m), in any memory order.
        n_tiles: Number of tiles.
        dtype: The dtype of the result, and to add in, but for float16, which
            is added in float32. float32 by default for a float16 array,
            ``x.dtype`` otherwise.
        order: Permutation of the last axis that comes first, an int array of
            shape (n_tiles * m,) on the device of ``x``, or ``None``.

    Returns:
        Array of shape (..., m).

    """
    if dtype is None:
        dtype = numpy.promote_types(x.dtype, numpy.float32)
    if not isinstance(x, numpy.ndarray):
        return kernels.fold(x, n_tiles, dtype, order)
    if x.size == 0:
        # However many tiles: NumPy would go through each.
        return numpy.zeros(x.shape[:-1] + (x.shape[-1] // n_tiles,), dtype)
    if numpy.dtype(dtype).char == 'e':
        return fold_array(x, n_tiles, numpy.float32, order).astype(dtype)
    width = x.shape[-1] // n_tiles
    if order is not None and order.size > 0:
        shape = x.shape[:-1] + (width,)
        rows = x.reshape(utils.size_of_shape(shape[:-1]), x.shape[-1])
        return _gather_fold(rows, n_tiles, dtype, order).reshape(shape)
    # Splitting an axis makes a view, whatever the strides are.
    tiles: Any = x.reshape(x.shape[:-1] + (n_tiles, width))
    if tiles.dtype != dtype:
        # Casts as it goes; a copy of x in the wider dtype takes as long.
        return tiles.sum(axis=-2, dtype=dtype)
    if tiles.strides[-1] == tiles.itemsize:
        # BLAS streams each row once, three times as fast as ndarray.sum.
        sums = numpy.matmul(_row_of_ones(n_tiles, dtype), tiles)
        return sums.reshape(x.shape[:-1] + (width,))
    return numpy.einsum('...nm->...m', tiles)


@caching.cache_up_to(2 ** 20)
def _row_of_ones(size: int, dtype: Any) -> Any:
    return numpy.ones((1, size), dtype)


def _gather_fold(x, n_tiles, dtype, order):
    """fold(x[:, order]) of a matrix, by as many rows as a cache holds."""
    width = order.size // n_tiles
    sums = numpy.empty((len(x), width), dtype)
    rows = max(1, GATHER_BYTES // (order.size * x.itemsize))
    order = order.astype(numpy.intp)
    for start in range(0, len(x), rows):
        stop = start + rows
        # The order is known to be good: 'clip' skips a check of each index.
        gathered = x[start:stop].take(order, axis=1, mode='clip')
        sums[start:stop] = fold_array(gathered, n_tiles, dtype)
    return sums


def tile_array(
        x: NdArray, n_tiles: int, order: NdArray | None = None) -> NdArray:
    """Repeats an array's last axis: (..., m) -> (..., n_tiles * m)."""
    groups = None
    if order is not None and order.size > 0:
        groups = find_groups(order, n_tiles)
    if not isinstance(x, numpy.ndarray):
        return kernels.tile(x, n_tiles, groups)
    if x.size == 0:
        return numpy.empty(x.shape[:-1] + (n_tiles * x.shape[-1],), x.dtype)
    if groups is not None:
        return x.take(groups, axis=-1)
    # One block copy a tile; numpy.tile copies its input first.
    tiles = numpy.repeat(x[..., None, :], n_tiles, axis=-2)
    return tiles.reshape(x.shape[:-1] + (n_tiles * x.shape[-1],))


def find_groups(order: NdArray, n_tiles: int) -> NdArray:
    """The column of the fold that each input is added to.

    >>> find_groups(np.array([5, 1, 2, 3, 4, 0]), 2)
    array([2, 1, 2, 0, 1, 0])

    """
    xp = backend.get_array_module(order)
    groups = xp.empty_like(order)
    groups[order] = xp.arange(order.size, dtype=order.dtype) % (
        order.size // n_tiles)
    return groups


def fold(
        x: Variable | NdArray, n_tiles: int, order: NdArray | None = None,
) -> Variable:
    """Adds the ``n_tiles`` tiles of the last axis.

    With :math:`m` the width of a tile, it computes

    .. math:: z_{\\ldots, i} = \\sum_{j=0}^{n-1} x_{\\ldots, jm + i},

    and with an order :math:`p` the same of ``x[..., order]``, gathered and
    added in one pass,

    .. math:: z_{\\ldots, i} = \\sum_{j=0}^{n-1} x_{\\ldots, p(jm + i)}.

    It is the transpose of :func:`tile`:
    :math:`\\langle fold(x), z \\rangle = \\langle x, tile(z) \\rangle`, and so
    each is the gradient of the other. A float16 array is added in float32 and
    rounded once.

    Args:
        x (:class:`~chainer.Variable` or :ref:`ndarray`): Float array of shape
            :math:`(\\ldots, n m)`.
        n_tiles (int): Number of tiles :math:`n`, a divisor of the last axis.
        order (:ref:`ndarray`): Permutation of the last axis, of ints of shape
            :math:`(n m,)`: ``order[i::m]`` are the inputs that are added to
            output ``i``. By default they stay as they are.

    Returns:
        ~chainer.Variable: Array of shape :math:`(\\ldots, m)` and of the
        dtype of ``x``.

    Raises:
        TypeError: If ``n_tiles`` is not an int, or ``order`` not of ints.
        ValueError: If ``n_tiles`` is not positive, or ``order`` is no
            permutation.
        chainer.utils.type_check.InvalidType: If ``x`` is not a float array,
            its last axis has no ``n_tiles`` equal parts, or ``order`` is not
            of its size.

    .. admonition:: Example

        >>> x = np.arange(6, dtype=np.float32)
        >>> sl.fold(x, 3).array
        array([6., 9.], dtype=float32)
        >>> sl.fold(x, 3, order=[0, 3, 1, 4, 2, 5]).array
        array([ 3., 12.], dtype=float32)

    """
    return Fold(n_tiles, order_beside(x, order)).apply((x,))[0]


def tile(
        x: Variable | NdArray, n_tiles: int, order: NdArray | None = None,
) -> Variable:
    """Repeats the last axis ``n_tiles`` times.

    With :math:`m` the width of ``x``, it computes

    .. math:: y_{\\ldots, jm + i} = x_{\\ldots, i}, \\quad j = 0, \\ldots, n-1,

    and with an order :math:`p`

    .. math:: y_{\\ldots, p(jm + i)} = x_{\\ldots, i}.

    It is the transpose of :func:`fold`, and each is the gradient of the other.

    Args:
        x (:class:`~chainer.Variable` or :ref:`ndarray`): Float array of shape
            :math:`(\\ldots, m)`.
        n_tiles (int): Number of repetitions :math:`n`.
        order (:ref:`ndarray`): Permutation of the last axis of the result, of
            ints of shape :math:`(n m,)`: element ``i`` goes to the places
            ``order[i::m]``. By default they stay as they are.

    Returns:
        ~chainer.Variable: Array of shape :math:`(\\ldots, n m)` and of the
        dtype of ``x``.

    Raises:
        TypeError: If ``n_tiles`` is not an int, or ``order`` not of ints.
        ValueError: If ``n_tiles`` is not positive, or ``order`` is no
            permutation.
        chainer.utils.type_check.InvalidType: If ``x`` is not a float array
            of at least one axis, or ``order`` is not ``n_tiles`` times as
            large as that.

    .. admonition:: Example

        >>> x = np.array([1, 2], np.float32)
        >>> sl.tile(x, 3).array
        array([1., 2., 1., 2., 1., 2.], dtype=float32)
        >>> sl.tile(x, 3, order=[0, 3, 1, 4, 2, 5]).array
        array([1., 1., 1., 2., 2., 2.], dtype=float32)

        Repeating and adding up is a multiplication by ``n_tiles``:

        >>> sl.fold(sl.tile(x, 3), 3).array
        array([3., 6.], dtype=float32)

    """
    return Tile(n_tiles, order_beside(x, order)).apply((x,))[0]


def order_beside(x, order):
    """A checked order on the device of x."""
    if order is None:
        return None
    device = backend.get_device_from_array(variable.as_array(x))
    return device.send(checks.check_order(order))
