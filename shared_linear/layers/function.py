"""The layer's computation, as one node of the graph."""
from __future__ import annotations

from typing import TYPE_CHECKING

import chainer.functions as F
from chainer import function_node, utils
from chainer.utils import type_check

from shared_linear.layers import tiling
from shared_linear.layers.products import dot, product_dtype

if TYPE_CHECKING:
    from chainer import Variable
    from chainer.types import NdArray

METHODS = ('fold', 'tile')


class SharedLinearFunction(function_node.FunctionNode):

    """y = x tile(W)^T + b = fold(x) W^T + b.

    The node that :func:`shared_linear` makes, of x (B, n * m), W (M, m) and,
    if there is a bias, b (M,). Given gy (B, M), its gradients are

        gx = gy tile(W) = tile(gy W),
        gW = fold(gy^T x) = gy^T fold(x),
        gb = the sum of gy over the batch:

    that of a shared weight is the sum over its copies (Chen et al.,
    Compressing Neural Networks with the Hashing Trick, 2015).
    """

    def __init__(
            self, method: str = 'fold', n_tiles: int | None = None,
            order: NdArray | None = None) -> None:
        if method not in METHODS:
            raise ValueError(
                'method must be one of {}, not {!r}'.format(
                    ', '.join(map(repr, METHODS)), method))
        self.method = method
        self.n_tiles = (
            None if n_tiles is None else tiling.check_n_tiles(n_tiles))
        self.order = order

    def check_type_forward(self, in_types):
        n_in = in_types.size()
        type_check.expect(2 <= n_in, n_in <= 3)
        x_type, W_type = in_types[:2]
        type_check._argname((x_type, W_type), ('x', 'W'))
        tiling.expect_float(x_type, 'x')
        tiling.expect_float(W_type, 'W')
        type_check.expect(
            x_type.ndim == 2,
            W_type.ndim == 2,
        )
        self._check_widths(
            type_check.eval(x_type.shape), type_check.eval(W_type.shape))
        if type_check.eval(n_in) == 3:
            b_type = in_types[2]
            type_check._argname((b_type,), ('b',))
            type_check.expect(
                b_type.dtype == x_type.dtype,
                b_type.ndim == 1,
                b_type.shape[0] == W_type.shape[0],
            )

    def _check_widths(self, x_shape, W_shape):
        if self.n_tiles is None:
            n_tiles = _count_tiles(x_shape[1], W_shape[1])
            if n_tiles < 1 or x_shape[1] != n_tiles * W_shape[1]:
                raise type_check.InvalidType(
                    'x.shape[1] is a multiple of W.shape[1]',
                    'x.shape = {}, W.shape = {}'.format(x_shape, W_shape))
        elif x_shape[1] != self.n_tiles * W_shape[1]:
            raise type_check.InvalidType(
                'x.shape[1] == n_tiles * W.shape[1]',
                'x.shape = {}, W.shape = {}, n_tiles = {}'.format(
                    x_shape, W_shape, self.n_tiles))
        if self.order is not None and self.order.size != x_shape[1]:
            raise type_check.InvalidType(
                'x.shape[1] == order.size',
                'x.shape = {}, order.size = {}'.format(
                    x_shape, self.order.size))

    def forward(self, inputs):
        self.retain_inputs((0, 1))  # b is not retained
        x, W = inputs[:2]
        if self.n_tiles is None:
            self.n_tiles = _count_tiles(x.shape[1], W.shape[1])

        if self.method == 'tile':
            tiled = tiling.tile_array(W, self.n_tiles, self.order)
            y = dot(x, tiled.T)
        else:
            y = dot(_fold(x, W, self.n_tiles, self.order), W.T)

        if len(inputs) == 3:
            y += inputs[2]
        return y.astype(x.dtype, copy=False),

    def backward(self, indexes, grad_outputs):
        x, W = self.get_retained_inputs()
        gy, = grad_outputs
        ret = []
        if 0 in indexes:
            ret += SharedLinearGradData(
                self.method, self.n_tiles, self.order, x.dtype
            ).apply((W, gy))
        if 1 in indexes:
            ret += SharedLinearGradWeight(
                self.method, self.n_tiles, self.order, W.dtype
            ).apply((x, gy))
        if 2 in indexes:
            ret.append(F.sum(gy, axis=0))
        return ret


class SharedLinearGradData(function_node.FunctionNode):

    """gx = gy tile(W) = tile(gy W)."""

    def __init__(self, method, n_tiles, order, x_dtype):
        self.method = method
        self.n_tiles = n_tiles
        self.order = order
        self.x_dtype = x_dtype

    def forward(self, inputs):
        self.retain_inputs((0, 1))
        W, gy = inputs
        if self.method == 'tile':
            tiled = tiling.tile_array(W, self.n_tiles, self.order)
            gx = dot(gy, tiled)
            return gx.astype(self.x_dtype, copy=False),
        gx = dot(gy, W).astype(self.x_dtype, copy=False)
        if self.n_tiles > 1 or self.order is not None:
            gx = tiling.tile_array(gx, self.n_tiles, self.order)
        return gx,

    def backward(self, indexes, grad_outputs):
        W, gy = self.get_retained_inputs()
        ggx, = grad_outputs
        ret = []
        if 0 in indexes:
            ret += SharedLinearGradWeight(
                self.method, self.n_tiles, self.order, W.dtype
            ).apply((ggx, gy))
        if 1 in indexes:
            ggy, = SharedLinearFunction(
                self.method, self.n_tiles, self.order).apply((ggx, W))
            ret.append(F.cast(ggy, gy.dtype))
        return ret


class SharedLinearGradWeight(function_node.FunctionNode):

    """gW = fold(gy^T x) = gy^T fold(x)."""

    def __init__(self, method, n_tiles, order, W_dtype):
        self.method = method
        self.n_tiles = n_tiles
        self.order = order
        self.W_dtype = W_dtype

    def forward(self, inputs):
        self.retain_inputs((0, 1))
        x, gy = inputs
        if self.method == 'tile':
            gW = tiling.fold_array(
                dot(gy.T, x), self.n_tiles, order=self.order)
        else:
            # x is folded again. Keeping the sums from forward would save
            # 1 to 4 % of the time, and keep 1 / n of x alive beside it.
            gW = dot(gy.T, _fold(x, gy, self.n_tiles, self.order))
        return gW.astype(self.W_dtype, copy=False),

    def backward(self, indexes, grad_outputs):
        x, gy = self.get_retained_inputs()
        ggW, = grad_outputs
        ret = []
        if 0 in indexes:
            ret += SharedLinearGradData(
                self.method, self.n_tiles, self.order, x.dtype
            ).apply((ggW, gy))
        if 1 in indexes:
            ggy, = SharedLinearFunction(
                self.method, self.n_tiles, self.order).apply((x, ggW))
            ret.append(F.cast(ggy, gy.dtype))
        return ret


def _count_tiles(in_size: int, width: int) -> int:
    # Two empty widths are those of a dense layer, as in F.linear.
    return in_size // width if width else 1


def _fold(
        x: NdArray, other: NdArray, n_tiles: int, order: NdArray | None,
) -> NdArray:
    """Folds x for a product with another array."""
    if n_tiles == 1 and order is None:
        return x
    return tiling.fold_array(x, n_tiles, product_dtype(x, other), order)


def shared_linear(
        x: Variable | NdArray,
        W: Variable | NdArray,
        b: Variable | NdArray | None = None,
        n_batch_axes: int = 1,
        method: str = 'fold',
        *,
        n_tiles: int | None = None,
        order: NdArray | None = None,
) -> Variable:
    """Linear function whose weight is shared by the tiles of the input.

    With the input of :math:`n m` columns seen as :math:`n` tiles of the width
    :math:`m` of ``W``, it computes

    .. math::

        y = x \\, tile(W)^\\top + b = fold(x) \\, W^\\top + b,

    where :func:`tile` repeats ``W`` :math:`n` times along its last axis, and
    :func:`fold` adds the tiles of ``x``. Both sides are the same number: the
    left one takes :math:`2 B n m M` floating-point operations for a batch of
    :math:`B`, the right one :math:`n` times fewer. With :math:`n = 1` it is
    :func:`chainer.functions.linear`.

    ``x`` and ``W`` may differ in dtype. They are multiplied in the wider of
    both, float16 on the CPU in float32, and the result is rounded once. On a
    GPU, which multiplies float16 fastest, the sums of ``fold`` are rounded to
    float16 before the product: its error is about 1.6 times that of
    :func:`chainer.functions.linear`.

    Args:
        x (:class:`~chainer.Variable` or :ref:`ndarray`): Input variable, a
            :math:`(s_1, s_2, ..., s_k)`-shaped float array. Its first
            ``n_batch_axes`` axes are *minibatch axes*. The others are taken
            as one axis of the size
            :math:`s_{\\rm n\\_batch\\_axes + 1} \\cdots s_k = n m`.
        W (:class:`~chainer.Variable` or :ref:`ndarray`): Weight of shape
            :math:`(M, m)`. The number of tiles follows from the widths of
            ``x`` and ``W``.
        b (:class:`~chainer.Variable` or :ref:`ndarray`): Bias of shape
            :math:`(M,)` and of the dtype of ``x`` (optional).
        n_batch_axes (int): Number of minibatch axes, greater than 0.
        method (str): ``'fold'`` adds the tiles of ``x`` and multiplies by
            ``W``. ``'tile'`` repeats ``W`` and multiplies by ``x``, at the
            cost of a dense layer, and is there to compare with.
        n_tiles (int): Number of tiles that ``x`` must have. By default it is
            any number.
        order (:ref:`ndarray`): Permutation of the inputs that comes before
            all else, of ints of shape :math:`(n m,)`, as in :func:`fold`.

    Returns:
        ~chainer.Variable: Output of shape
        :math:`(s_1, ..., s_{\\rm n\\_batch\\_axes}, M)` and of the dtype of
        ``x``.

    Raises:
        TypeError: If ``n_tiles`` is not an int, or ``order`` not of ints.
        ValueError: If ``n_batch_axes`` or ``n_tiles`` is not positive,
            ``method`` is unknown, or ``order`` is no permutation.
        chainer.utils.type_check.InvalidType: If the shapes or the dtypes do
            not fit.

    .. seealso:: :class:`SharedLinear` to manage the parameters ``W`` and ``b``

    .. admonition:: Example

        >>> x = np.random.uniform(0, 1, (3, 8)).astype(np.float32)
        >>> W = np.random.uniform(0, 1, (5, 2)).astype(np.float32)
        >>> b = np.random.uniform(0, 1, (5,)).astype(np.float32)
        >>> y = sl.shared_linear(x, W, b)
        >>> y.shape
        (3, 5)
        >>> np.allclose(y.array, x @ np.tile(W, (1, 4)).T + b)
        True

    """
    return apply_shared_linear(
        x, W, b, n_batch_axes, method, n_tiles, tiling.order_beside(x, order))


def apply_shared_linear(x, W, b, n_batch_axes, method, n_tiles, order):
    """:func:`shared_linear` of a good order that lies where x lies."""
    node = SharedLinearFunction(method, n_tiles, order)
    return apply_to_rows(node, x, W, b, n_batch_axes)


def apply_to_rows(node, x, W, b, n_batch_axes):
    """Applies the node of a linear function to examples as rows."""
    if n_batch_axes <= 0:
        raise ValueError(
            'n_batch_axes should be greater than 0, not {}'.format(
                n_batch_axes))
    batch_shape = x.shape[:n_batch_axes]
    if n_batch_axes > 1 or x.ndim > 2:
        # Chainer's own reshape to (batch, -1) fails on an empty batch.
        x = x.reshape(
            utils.size_of_shape(batch_shape),
            utils.size_of_shape(x.shape[n_batch_axes:]))
    args = (x, W) if b is None else (x, W, b)
    y, = node.apply(args)
    if n_batch_axes > 1:
        y = y.reshape(batch_shape + y.shape[1:])
    return y
