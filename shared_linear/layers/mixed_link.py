"""Mixed sharing as a link that takes the place of ``L.Linear``."""
from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import chainer
import chainer.links as L

from shared_linear.layers import checks
from shared_linear.layers.mixed_function import MixedLinearFunction
from shared_linear.layers.mixing import Mixing
from shared_linear.layers.tiled_link import (
    TiledLinear,
    fit_of,
    saved_order,
    to_cpu,
)
from shared_linear.surgery.preservation import transaction

if TYPE_CHECKING:
    from chainer import Variable
    from chainer.types import NdArray

    from shared_linear.layers.initial_weights import InitializerLike


class MixedLinear(TiledLinear):

    """Linear layer whose weight is shared by tiles and by blocks.

    It takes the place of :class:`chainer.links.Linear`, with
    ``n_tiles * n_blocks`` times fewer weights and ``n_tiles`` times less
    computation. It wraps :func:`mixed_linear`,

    .. math::

        y = {\\rm concat}_{j=1}^k \\;
            fold(s_j \\odot x_{p_j}) \\, W^\\top + b,

    and holds the weight matrix ``W`` of shape
    ``(out_size / n_blocks, in_size / n_tiles)``, which all :math:`k` blocks
    of the output share, and optionally the bias vector ``b`` as parameters.
    The permutations :math:`p_j` and signs :math:`s_j` of the inputs follow
    from the seed. They are neither parameters nor saved.

    Against :class:`SharedLinear`, blocks save weights but no computation, and
    inputs that share a weight in one block are apart in another: to share a
    layer by :math:`n k` in this way costs less accuracy than by as many tiles
    alone.

    Layers of the same seed and input size mix alike. In a network, give each
    a seed of its own.

    Args:
        in_size (int or None): Dimension of input vectors, a multiple of
            ``n_tiles``. If it is ``None`` or left out, the parameters are
            initialized at the first forward pass, from the width of the input.
        out_size (int): Dimension of output vectors, a multiple of
            ``n_blocks``. If only one value is passed for ``in_size`` and
            ``out_size``, it is the ``out_size``.
        nobias (bool): If ``True``, the link has no bias vector.
        initialW (:ref:`initializer <initializer>`): Initializer of the weight,
            as that of :class:`SharedLinear`. By default its standard deviation
            is :math:`\\sqrt{1/\\text{in_size}}`, that of a dense layer.
        initial_bias (:ref:`initializer <initializer>`): Initializer of the
            bias: zero by default. An array has shape ``(out_size,)``.
        n_tiles (int): Number of tiles of the input that share the weight.
        n_blocks (int): Number of blocks of the output that share it.
        seed (int): Where the permutations and signs come from, at least 0 and
            less than 2 ** 32. It is saved with the link, and loading checks
            that it is the same.
        order (:ref:`ndarray`): Permutation of the inputs of the first block,
            of ints of shape ``(in_size,)``, or of the first ``j`` blocks, of
            shape ``(j, in_size)``, in the place of random ones with random
            signs. :func:`group_inputs` finds such from data, another one for
            each seed. It is saved with the link. It stays on the CPU.

    The parameters have the dtype of ``chainer.config.dtype``, unless an
    initializer brings its own. From forward to backward a node keeps
    ``n_blocks / n_tiles`` times as many numbers as the input has.

    Raises:
        TypeError: If ``n_tiles``, ``n_blocks`` or ``seed`` is not an int, or
            ``order`` not of ints.
        ValueError: If ``n_tiles`` is not positive or does not divide
            ``in_size``, ``n_blocks`` is not or does not divide ``out_size``,
            ``seed`` is out of range, ``order`` is no permutation of the
            inputs, or it has more rows than there are blocks.

    Attributes:
        W (~chainer.Parameter): Weight of shape
            ``(out_size / n_blocks, in_size / n_tiles)``.
        b (~chainer.Parameter): Bias of shape ``(out_size,)``, or ``None``.
        in_size (int): Dimension of input vectors; ``None`` before the
            parameters are initialized.
        out_size (int): Dimension of output vectors.
        n_tiles (int): Number of tiles.
        n_blocks (int): Number of blocks.
        seed (int): The seed.
        order (numpy.ndarray): Permutations of the inputs of the first blocks,
            int32 of shape ``(in_size,)`` or ``(j, in_size)``, or ``None``.

    .. seealso:: :func:`mixed_linear`

    .. admonition:: Example

        >>> layer = sl.MixedLinear(784, 1000, n_tiles=8, n_blocks=8)
        >>> layer.W.shape
        (125, 98)
        >>> x = np.zeros((4, 784), np.float32)
        >>> layer(x).shape
        (4, 1000)
        >>> print(sl.MixedLinear(784, 1000, n_tiles=8, n_blocks=8, seed=1))
        ... # doctest: +NORMALIZE_WHITESPACE
        MixedLinear(in_size=784, out_size=1000, nobias=False,
                    n_tiles=8, n_blocks=8, seed=1)

    """

    def __init__(
            self,
            in_size: int | None,
            out_size: int | None = None,
            nobias: bool = False,
            initialW: InitializerLike | None = None,
            initial_bias: InitializerLike | None = None,
            *,
            n_tiles: int,
            n_blocks: int = 1,
            seed: int = 0,
            order: NdArray | None = None,
    ) -> None:
        self.seed = checks.check_seed(seed)
        super().__init__(
            in_size, out_size, nobias, initialW, initial_bias, n_tiles,
            n_blocks, order)

    def _node(self) -> MixedLinearFunction:
        return MixedLinearFunction(self._mixing)

    def _dense_weight(self, W: NdArray) -> NdArray:
        return self._mixing.dense_weight(W)

    def _sharing(self) -> Iterator[tuple[str, Any]]:
        yield from super()._sharing()
        yield 'n_blocks', self.n_blocks
        yield 'seed', self.seed

    def _check_order(self, order: Any, in_size: int | None) -> Any:
        return checks.check_orders(order, self.n_blocks, in_size)

    def _set_order(self, order: NdArray | None) -> None:
        # The gathers are planned on the CPU, whatever the link's device is.
        self.order = to_cpu(order)

    def serialize(self, serializer: chainer.AbstractSerializer) -> None:
        if isinstance(serializer, chainer.Deserializer):
            with transaction(self):
                self._serialize(serializer, True)
        else:
            self._serialize(serializer, False)

    def _serialize(
            self, serializer: chainer.AbstractSerializer, reads: bool) -> None:
        for name in ('n_tiles', 'n_blocks', 'seed'):
            value = getattr(self, name)
            saved = serializer(name, value)
            if reads and saved != value:
                raise ValueError(
                    'the snapshot is of a MixedLinear with {0} = {1}, but '
                    'this one has {0} = {2}'.format(name, saved, value))
        if reads:
            order = saved_order(serializer)
            if order is not None:
                self.order = self._check_order(order, self.in_size)
            elif self.order is not None:
                raise ValueError(
                    'the snapshot is of a MixedLinear without an order, but '
                    'this one has one')
        elif self.order is not None:
            serializer('order', self.order)
        super().serialize(serializer)

    @property
    def _mixing(self) -> Mixing:
        return Mixing.of_order(
            self.n_tiles, self.n_blocks, self.seed, self.order)

    @classmethod
    def from_params(
            cls,
            W: Variable | NdArray,
            b: Variable | NdArray | None = None,
            nobias: bool = False,
            *,
            n_tiles: int,
            n_blocks: int = 1,
            seed: int = 0,
            order: NdArray | None = None,
    ) -> MixedLinear:
        """Makes a link with given parameters.

        Args:
            W (:class:`~chainer.Variable` or :ref:`ndarray`): Weight of shape
                ``(out_size / n_blocks, in_size / n_tiles)``.
            b (:class:`~chainer.Variable`, :ref:`ndarray`, or ``None``): Bias
                of shape ``(out_size,)``.
            nobias (bool): If ``True``, ``b`` is ignored.
            n_tiles (int): Number of tiles of the input.
            n_blocks (int): Number of blocks of the output.
            seed (int): Where the permutations and signs come from.
            order (:ref:`ndarray`): Permutation of the inputs of the first
                block, or permutations of the first blocks.

        Returns:
            MixedLinear: The link, with copies of the arrays, in the dtype of
            ``chainer.config.dtype``.

        Raises:
            ValueError: If the sizes of ``W`` and ``b`` do not match.

        .. admonition:: Example

            >>> W = np.ones((2, 3), np.float32)
            >>> layer = sl.MixedLinear.from_params(W, n_tiles=4, n_blocks=5)
            >>> layer.in_size, layer.out_size
            (12, 10)

        """
        return cls._of_params(
            W, b, nobias, n_tiles=n_tiles, n_blocks=n_blocks, seed=seed,
            order=order)

    @classmethod
    def from_linear(
            cls,
            link: L.Linear,
            n_tiles: int,
            x: Any = None,
            order: NdArray | None = None,
            *,
            n_blocks: int = 1,
            seed: int = 0,
            add_bias: bool = False,
    ) -> MixedLinear:
        """Makes the mixed layer that is nearest to a dense one.

        With :math:`V_j` the rows of the dense weight that belong to a block,
        :math:`F_j` the fold with its permutation and signs, and :math:`S` the
        covariance of the inputs with a small ridge, it is the least-squares
        fit of the outputs, stacked over the blocks:

        .. math::

            W = \\Bigl(\\sum_j V_j S F_j^\\top\\Bigr)
                \\Bigl(\\sum_j F_j S F_j^\\top\\Bigr)^{-1}.

        Without inputs, :math:`S` is the identity and it is the mean of what
        the blocks would have alone. :meth:`SharedLinear.from_linear`
        says more of the fit.

        A layer that was trained densely has little that random blocks could
        share: the fit is where training begins, not where it ends.

        Args:
            link (chainer.links.Linear): Dense layer. It is not changed.
            n_tiles (int): Number of tiles, a divisor of its input size.
            x: Inputs that the layer meets, of any kind that
                :func:`group_inputs` takes.
            order (:ref:`ndarray`): Permutation of the inputs of the first
                block, or permutations of the first blocks.
            n_blocks (int): Number of blocks, a divisor of its output size.
            seed (int): Where the permutations and signs come from.
            add_bias (bool): Whether to make a bias where ``link`` has none,
                which needs ``x``.

        Returns:
            MixedLinear: A new link, with parameters of the dtypes and on the
            device of ``link``.

        Raises:
            TypeError: If ``link`` is not a :class:`chainer.links.Linear`, or
                ``x`` is of no such kind.
            ValueError: If ``link`` has no input size yet, ``n_tiles`` or
                ``n_blocks`` does not divide its sizes, ``x`` is empty, of
                another width, or has a value that is not finite, or ``order``
                is no permutation.

        .. admonition:: Example

            >>> dense = L.Linear(12, 4)
            >>> mixed = sl.MixedLinear.from_linear(dense, 3, n_blocks=2)
            >>> mixed.W.shape
            (2, 4)

            Nothing is lost on a weight that is mixed already:

            >>> again = sl.MixedLinear.from_linear(
            ...     mixed.to_linear(), 3, n_blocks=2)
            >>> np.allclose(again.W.array, mixed.W.array)
            True

        """
        return fit_of(cls)(
            cls, link, n_tiles, x, order, n_blocks=n_blocks, seed=seed,
            add_bias=add_bias)
