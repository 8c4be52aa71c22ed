"""Mixed sharing's computation, as one node of the graph."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shared_linear.layers import bilinear
from shared_linear.layers import mixing as mixing_module
from shared_linear.layers.mixing import Mixing
from shared_linear.layers.products import dot, product_dtype

if TYPE_CHECKING:
    from chainer import Variable
    from chainer.types import NdArray


class MixedForm(bilinear.Form):

    """The products of the blocks, each with its own fold."""

    def __init__(self, mixing: Mixing) -> None:
        self.mixing = mixing
        self.n_tiles = mixing.n_tiles
        self.n_blocks = mixing.n_blocks
        self.order = mixing.order_array

    def product(self, x: NdArray, W: NdArray) -> tuple[NdArray, Any]:
        # Kept until backward: to fold again would take a tenth of a step.
        folded = mixing_module.fold_blocks(
            x, self.mixing, product_dtype(x, W))
        y = mixing_module.join_blocks(dot(folded, W.T), self.n_blocks)
        return y, folded

    def grad_data(self, W: NdArray, gy: NdArray, dtype: Any) -> NdArray:
        wide = product_dtype(gy, W)
        gy = mixing_module.split_blocks(
            gy.astype(wide, copy=False), self.n_blocks)
        return mixing_module.tile_product(
            gy, W.astype(wide, copy=False), self.mixing, dtype)

    def grad_weight(
            self, x: NdArray, gy: NdArray, dtype: Any,
            kept: Any = None) -> NdArray:
        wide = product_dtype(x, gy)
        if kept is None or kept.dtype != wide:
            kept = mixing_module.fold_blocks(x, self.mixing, wide)
        gy = mixing_module.split_blocks(gy, self.n_blocks)
        return dot(gy.T, kept).astype(dtype, copy=False)


class MixedLinearFunction(bilinear.BilinearFunction):

    """y = concat_j W fold(s_j * x[:, p_j])^T + b.

    The node that :func:`mixed_linear` makes, of x (B, n * m), W (M / k, m)
    and, if there is a bias, b (M,). With z_j the folded inputs of a block,
    F_j the fold with its permutation and signs, and gy_j (B, M / k) the
    part of gy that belongs to it, its gradients are

        gx = sum_j (gy_j W) F_j,
        gW = sum_j gy_j^T z_j,
        gb = the sum of gy over the batch.
    """

    def __init__(self, mixing: Mixing) -> None:
        super().__init__(MixedForm(mixing))
        self.mixing = mixing


def mixed_linear(
        x: Variable | NdArray,
        W: Variable | NdArray,
        b: Variable | NdArray | None = None,
        n_batch_axes: int = 1,
        *,
        n_tiles: int,
        n_blocks: int = 1,
        seed: int = 0,
        order: NdArray | None = None,
) -> Variable:
    """Linear function whose weight is shared by tiles and by blocks.

    The output consists of :math:`k` blocks. All have the weight ``W``, and
    each folds the inputs in a permutation :math:`p_j` and with signs
    :math:`s_j` of its own, which follow from ``seed``:

    .. math::

        y = {\\rm concat}_{j=1}^k \\;
            fold(s_j \\odot x_{p_j}) \\, W^\\top + b.

    It takes :math:`2 B n m M / n` floating-point operations for a batch of
    :math:`B`, :math:`n` times fewer than a dense layer, with :math:`n k`
    times fewer weights. As a matrix it has a rank of up to
    :math:`\\min(k m, n m, M)`, where that of :func:`shared_linear` is at most
    :math:`m`. Random signs make it unbiased: inner products are kept in the
    mean, as by the hashing of Weinberger et al. (Feature Hashing for Large
    Scale Multitask Learning, 2009), from which HashedNets are built (Chen et
    al., Compressing Neural Networks with the Hashing Trick, 2015).

    Args:
        x (:class:`~chainer.Variable` or :ref:`ndarray`): Input variable, a
            :math:`(s_1, s_2, ..., s_l)`-shaped float array. Its first
            ``n_batch_axes`` axes are *minibatch axes*. The others are taken
            as one axis of the size :math:`n m`.
        W (:class:`~chainer.Variable` or :ref:`ndarray`): Weight of shape
            :math:`(M / k, m)`.
        b (:class:`~chainer.Variable` or :ref:`ndarray`): Bias of shape
            :math:`(M,)` and of the dtype of ``x`` (optional).
        n_batch_axes (int): Number of minibatch axes, greater than 0.
        n_tiles (int): Number of tiles :math:`n` of the input.
        n_blocks (int): Number of blocks :math:`k` of the output.
        seed (int): Where the permutations and signs come from, at least 0 and
            less than 2 ** 32. The same seed gives the same ones everywhere.
        order (:ref:`ndarray`): Permutation of the inputs of the first block,
            of ints of shape :math:`(n m,)`, as in :func:`fold`, or
            permutations of the first :math:`j` blocks as the rows of an array
            of shape :math:`(j, n m)`. They take the places of random ones, and
            all signs of those blocks are positive.

    Returns:
        ~chainer.Variable: Output of shape
        :math:`(s_1, ..., s_{\\rm n\\_batch\\_axes}, M)` and of the dtype of
        ``x``.

    Raises:
        TypeError: If ``n_tiles``, ``n_blocks`` or ``seed`` is not an int, or
            ``order`` not of ints.
        ValueError: If ``n_batch_axes``, ``n_tiles`` or ``n_blocks`` is not
            positive, ``seed`` is out of range, ``order`` is no permutation,
            or it has more rows than there are blocks.
        chainer.utils.type_check.InvalidType: If the shapes or the dtypes do
            not fit.

    .. seealso:: :class:`MixedLinear` to manage the parameters ``W`` and ``b``

    .. admonition:: Example

        >>> x = np.random.uniform(0, 1, (3, 8)).astype(np.float32)
        >>> W = np.random.uniform(0, 1, (5, 2)).astype(np.float32)
        >>> sl.mixed_linear(x, W, n_tiles=4, n_blocks=3).shape
        (3, 15)

        One block in the order that the inputs have is a shared layer:

        >>> y = sl.mixed_linear(x, W, n_tiles=4, order=np.arange(8))
        >>> np.allclose(y.array, sl.shared_linear(x, W).array)
        True

    """
    mixing = Mixing.checked(n_tiles, n_blocks, seed, order)
    return bilinear.apply_to_rows(
        MixedLinearFunction(mixing), x, W, b, n_batch_axes)
