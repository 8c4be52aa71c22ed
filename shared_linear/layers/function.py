"""The layer's computation, as one node of the graph."""
from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy
from chainer.utils import type_check

from shared_linear.layers import bilinear, checks, tiling
from shared_linear.layers.products import cast, dot, product_dtype

if TYPE_CHECKING:
    from chainer import Variable
    from chainer.types import NdArray


@dataclasses.dataclass(eq=False)
class FoldForm(bilinear.Form):
    """fold(x) W^T: n times fewer operations than the definition."""

    n_tiles: int
    order: NdArray | None = None

    def product(self, x: NdArray, W: NdArray) -> tuple[NdArray, Any]:
        if self.n_tiles == 1 and self.order is None:
            return dot(x, W.T), None
        folded = self._fold(x, W)
        # A GPU keeps it for the gradient of W, and reads x once, where that
        # takes no more memory than the weights that a dense layer would have
        # besides. On the CPU it would save 1 to 4 % of the time.
        keeps = not isinstance(x, numpy.ndarray) and (
            folded.size <= (self.n_tiles - 1) * W.size)
        return dot(folded, W.T), folded if keeps else None

    def grad_data(self, W: NdArray, gy: NdArray, dtype: Any) -> NdArray:
        gx = cast(dot(gy, W), dtype)
        if self.n_tiles == 1 and self.order is None:
            return gx
        return tiling.tile_array(gx, self.n_tiles, self.order)

    def grad_weight(
            self, x: NdArray, gy: NdArray, dtype: Any,
            kept: Any = None) -> NdArray:
        if kept is None or kept.dtype != product_dtype(x, gy):
            kept = self._fold(x, gy)
        return cast(dot(gy.T, kept), dtype)

    def _fold(self, x: NdArray, other: NdArray) -> NdArray:
        """Folds x for a product with another array."""
        if self.n_tiles == 1 and self.order is None:
            return x
        return tiling.fold_array(
            x, self.n_tiles, product_dtype(x, other), self.order)


@dataclasses.dataclass(eq=False)
class TileForm(bilinear.Form):
    """x tile(W)^T: the definition, and what the article computes."""

    n_tiles: int
    order: NdArray | None = None

    def product(self, x: NdArray, W: NdArray) -> tuple[NdArray, Any]:
        return dot(x, self._tile(W).T), None

    def grad_data(self, W: NdArray, gy: NdArray, dtype: Any) -> NdArray:
        return cast(dot(gy, self._tile(W)), dtype)

    def grad_weight(
            self, x: NdArray, gy: NdArray, dtype: Any,
            kept: Any = None) -> NdArray:
        gW = tiling.fold_array(dot(gy.T, x), self.n_tiles, order=self.order)
        return cast(gW, dtype)

    def _tile(self, W: NdArray) -> NdArray:
        return tiling.tile_array(W, self.n_tiles, self.order)


_FORMS: dict[str, Any] = {'fold': FoldForm, 'tile': TileForm}
METHODS = tuple(_FORMS)


class SharedLinearFunction(bilinear.BilinearFunction):

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
        self.order = order
        self.n_tiles = (
            None if n_tiles is None else checks.check_n_tiles(n_tiles))
        if self.n_tiles is not None:
            self.form = _FORMS[method](self.n_tiles, order)

    def _find_form(self, x_shape, W_shape):
        """The number of tiles follows from the widths of x and W."""
        if self.n_tiles is not None:
            return
        # Two empty widths are those of a dense layer, as in F.linear.
        n_tiles = x_shape[1] // W_shape[1] if W_shape[1] else 1
        if n_tiles < 1 or x_shape[1] != n_tiles * W_shape[1]:
            raise type_check.InvalidType(
                'x.shape[1] is a multiple of W.shape[1]',
                'x.shape = {}, W.shape = {}'.format(x_shape, W_shape))
        self.n_tiles = n_tiles
        self.form = _FORMS[self.method](n_tiles, self.order)


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
    :func:`fold` adds the tiles of ``x``. Both sides are the same number, as
    long as no sum of tiles overflows the dtype: of ``[3e38, 3e38]`` in float32
    it does, where the left side with weights of 0.1 would not. The left
    one takes :math:`2 B n m M` floating-point operations for a batch of
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
    node = SharedLinearFunction(
        method, n_tiles, tiling.order_beside(x, order))
    return bilinear.apply_to_rows(node, x, W, b, n_batch_axes)
