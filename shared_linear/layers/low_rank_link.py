"""A layer of low rank, which may be folded first, as a link."""
from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import chainer
import chainer.links as L
from chainer import initializers, variable

from shared_linear.layers import bilinear, checks, tiling
from shared_linear.layers.function import SharedLinearFunction
from shared_linear.layers.initial_weights import (
    DenseVariance,
    get_initializer,
    initialize_as,
)
from shared_linear.layers.products import dot
from shared_linear.layers.tiled_link import (
    TiledLinear,
    cast_like,
    fit_of,
    to_cpu,
)

if TYPE_CHECKING:
    from chainer import Variable
    from chainer.types import NdArray

    from shared_linear.layers.initial_weights import InitializerLike


class LowRankLinear(TiledLinear):

    """Linear layer whose weight is a product of two small ones.

    It takes the place of :class:`chainer.links.Linear` and computes

    .. math:: y = B A \\, fold(x) + b

    with ``B`` of shape ``(out_size, rank)`` and ``A`` of shape
    ``(rank, in_size / n_tiles)``: ``rank * (in_size / n_tiles + out_size)``
    weights, and as many multiplications for an input. Without tiles it is
    the usual layer of low rank. With them the same number of weights has a
    rank that is up to ``(in_size + out_size) / (in_size / n_tiles +
    out_size)`` times higher: that pays where there are as many inputs as
    outputs or more.

    The weights are drawn so that the outputs deviate as those of a dense
    layer: ``A`` as its weight would be, with ``in_size`` as the fan-in, and
    ``B`` with standard deviation :math:`\\sqrt{1/\\text{rank}}`.

    Args:
        in_size (int or None): Dimension of input vectors, a multiple of
            ``n_tiles``. If it is ``None`` or left out, ``A`` is initialized
            at the first forward pass, from the width of the input.
        out_size (int): Dimension of output vectors. If only one value is
            passed for ``in_size`` and ``out_size``, it is the ``out_size``.
        nobias (bool): If ``True``, the link has no bias vector.
        initialW (:ref:`initializer <initializer>` or tuple of two): What the
            weight of the dense layer would be drawn by: ``A`` is drawn so, and
            ``B`` as above. Or a pair ``(B, A)`` of initializers or arrays,
            which are taken as they are.
        initial_bias (:ref:`initializer <initializer>`): Initializer of the
            bias: zero by default. An array has shape ``(out_size,)``.
        rank (int): Rank of the weight, or less if a size is less. Multiples of
            16 are multiplied fastest: 48 faster than 47.
        n_tiles (int): Number of tiles of the input that share the weight.
        order (:ref:`ndarray`): Permutation of the inputs that comes first, as
            in :class:`SharedLinear`.

    The parameters have the dtype of ``chainer.config.dtype``, unless an
    initializer brings its own. What goes from ``A`` to ``B`` has the dtype of
    the input.

    Raises:
        TypeError: If ``rank`` or ``n_tiles`` is not an int, or ``order`` not
            of ints.
        ValueError: If ``rank`` or ``n_tiles`` is not positive, ``n_tiles``
            does not divide ``in_size``, or ``order`` is no permutation of the
            inputs.

    Attributes:
        A (~chainer.Parameter): Weight of shape ``(rank, in_size / n_tiles)``.
        B (~chainer.Parameter): Weight of shape ``(out_size, rank)``.
        b (~chainer.Parameter): Bias of shape ``(out_size,)``, or ``None``.
        in_size (int): Dimension of input vectors; ``None`` before the
            parameters are initialized.
        out_size (int): Dimension of output vectors.
        rank (int): The rank.
        n_tiles (int): Number of tiles.
        order (:ref:`ndarray`): Permutation of the inputs, int32 of shape
            ``(in_size,)``, or ``None``.

    .. admonition:: Example

        >>> layer = sl.LowRankLinear(1000, 900, rank=20, n_tiles=4)
        >>> layer.B.shape, layer.A.shape
        ((900, 20), (20, 250))
        >>> x = np.zeros((4, 1000), np.float32)
        >>> layer(x).shape
        (4, 900)
        >>> print(layer)
        ... # doctest: +NORMALIZE_WHITESPACE
        LowRankLinear(in_size=1000, out_size=900, nobias=False, rank=20,
                      n_tiles=4)

    """

    def __init__(
            self,
            in_size: int | None,
            out_size: int | None = None,
            nobias: bool = False,
            initialW: InitializerLike | tuple[Any, Any] | None = None,
            initial_bias: InitializerLike | None = None,
            *,
            rank: int,
            n_tiles: int = 1,
            order: NdArray | None = None,
    ) -> None:
        self.rank = checks.check_positive_int(rank, 'rank')
        super().__init__(
            in_size, out_size, nobias, initialW,  # type: ignore[arg-type]
            initial_bias, n_tiles, 1, order)

    def _declare_weights(self, initialW: Any) -> None:
        if isinstance(initialW, (tuple, list)):
            if len(initialW) != 2:
                raise ValueError(
                    'initialW must be one initializer, or a pair (B, A), not '
                    '{} of them'.format(len(initialW)))
            B, A = map(get_initializer, initialW)
        elif isinstance(initialW, chainer.get_array_types()):
            raise ValueError(
                'initialW of a layer of two weights must be a pair (B, A) of '
                'arrays, not one array of shape {}; for a weight that is '
                'there, see from_linear'.format(initialW.shape))
        else:
            A = get_initializer(initialW)
            B = initializers.LeCunNormal(dtype=getattr(A, 'dtype', None))
            A = DenseVariance(A, self.n_tiles, 1, self.out_size)
        self.A = variable.Parameter(A)
        self.B = variable.Parameter(B, (self.out_size, self.rank))

    @property
    def _tiled(self) -> Any:
        return self.A

    @property
    def _height(self) -> int:
        return self.rank

    def _node(self) -> SharedLinearFunction:
        return SharedLinearFunction('fold', self.n_tiles, self.order)

    def _apply(self, x: Any, n_batch_axes: int) -> Variable:
        h = bilinear.apply_to_rows(
            self._node(), x, self.A, None, n_batch_axes)
        return bilinear.apply_to_rows(
            SharedLinearFunction('fold', 1), h, self.B, self.b, n_batch_axes)

    def _dense_weight(self, A: NdArray) -> NdArray:
        product = dot(self.B.array, A).astype(A.dtype, copy=False)
        return tiling.tile_array(product, self.n_tiles, self.order)

    def _sharing(self) -> Iterator[tuple[str, Any]]:
        yield 'rank', self.rank
        yield from super()._sharing()

    @classmethod
    def from_params(
            cls,
            B: Variable | NdArray,
            A: Variable | NdArray,
            b: Variable | NdArray | None = None,
            nobias: bool = False,
            *,
            n_tiles: int = 1,
            order: NdArray | None = None,
    ) -> LowRankLinear:
        """Makes a link with given parameters.

        Args:
            B (:class:`~chainer.Variable` or :ref:`ndarray`): Weight of shape
                ``(out_size, rank)``.
            A (:class:`~chainer.Variable` or :ref:`ndarray`): Weight of shape
                ``(rank, in_size / n_tiles)``.
            b (:class:`~chainer.Variable`, :ref:`ndarray`, or ``None``): Bias
                of shape ``(out_size,)``.
            nobias (bool): If ``True``, ``b`` is ignored.
            n_tiles (int): Number of tiles of the input that share the weight.
            order (:ref:`ndarray`): Permutation of the inputs, of ints of
                shape ``(in_size,)``.

        Returns:
            LowRankLinear: The link, with copies of the arrays, in the dtype
            of ``chainer.config.dtype``.

        Raises:
            ValueError: If the sizes of ``B``, ``A`` and ``b`` do not match.

        .. admonition:: Example

            >>> B, A = np.ones((5, 2), 'f'), np.ones((2, 3), 'f')
            >>> layer = sl.LowRankLinear.from_params(B, A, n_tiles=4)
            >>> layer.in_size, layer.out_size, layer.rank
            (12, 5, 2)

        """
        if B.ndim != 2 or A.ndim != 2 or B.shape[1] != A.shape[0] or (
                b is not None and b.shape != (B.shape[0],)):
            raise ValueError(
                'the sizes of the parameters do not match: B.shape = {}, '
                'A.shape = {}, b.shape = {}'.format(
                    B.shape, A.shape, None if b is None else b.shape))
        n_tiles = checks.check_n_tiles(n_tiles)
        return cls(
            n_tiles * A.shape[1], len(B), nobias,
            (variable.as_array(B), variable.as_array(A)),
            variable.as_array(b), rank=len(A), n_tiles=n_tiles, order=order)

    @classmethod
    def from_linear(
            cls,
            link: L.Linear,
            rank: int,
            n_tiles: int = 1,
            x: Any = None,
            order: NdArray | str | None = None,
            *,
            add_bias: bool = False,
            seed: int = 0,
            n_sweeps: int | None = None,
            time_limit: float | None = None,
            progress: bool = False,
    ) -> LowRankLinear:
        """Makes the layer of a rank that is nearest to a dense one.

        With :math:`V` the dense weight, :math:`F` the fold and :math:`S` the
        covariance of the inputs :math:`x` with a small ridge, nearest is the
        least-squares fit of the outputs,

        .. math::

            V S F^\\top (F S F^\\top)^{-\\top/2} = U s Q^\\top
            \\quad\\Rightarrow\\quad
            B = U_r, \\; A = U_r^\\top V S F^\\top (F S F^\\top)^{-1}

        (reduced-rank regression; Izenman, 1975), scaled so that
        :math:`A A^\\top = B^\\top B`. Every tenth input is held out, if there
        are 20 or more, and chooses the ridge and ends the search for an
        order; the fit is then to all. Without inputs it is the singular value
        decomposition of the mean of the tiles of :math:`V`.

        Args:
            link (chainer.links.Linear): Dense layer. It is not changed.
            rank (int): The rank, at most the smaller of ``out_size`` and
                ``in_size / n_tiles``.
            n_tiles (int): Number of tiles, a divisor of its input size.
            x: Inputs that the layer meets, of any kind that
                :func:`group_inputs` takes.
            order (:ref:`ndarray` or str): Permutation of the inputs. By
                default they stay as they are; ``'search'`` finds the one by
                which a layer of this rank loses least.
            add_bias (bool): Whether to make a bias where ``link`` has none,
                which needs ``x``.
            seed (int): See :func:`group_inputs`, as for all that follow.
            n_sweeps (int): Step limit of the search.
            time_limit (float): Time limit of the search in seconds.
            progress (bool): Whether the search draws a progress bar.

        Returns:
            LowRankLinear: A new link, with parameters of the dtypes and on
            the device of ``link``.

        Raises:
            TypeError: If ``link`` is not a :class:`chainer.links.Linear`, or
                ``x`` is of no such kind.
            ValueError: If ``link`` has no input size yet, ``n_tiles`` does
                not divide it, or ``rank`` is more than it can be; if ``x`` is
                empty, of another width, or has a value that is not finite; if
                ``order`` is no permutation; if an order or a bias is asked
                for that needs ``x``.

        .. admonition:: Example

            >>> dense = L.Linear(12, 6)
            >>> x = np.random.normal(size=(100, 12)).astype(np.float32)
            >>> layer = sl.LowRankLinear.from_linear(dense, 3, x=x)
            >>> layer.B.shape, layer.A.shape
            ((6, 3), (3, 12))

            Nothing is lost at full rank:

            >>> layer = sl.LowRankLinear.from_linear(dense, 6)
            >>> np.allclose(layer(x).array, dense(x).array, atol=1e-5)
            True

        """
        return fit_of(cls)(
            cls, link, rank, n_tiles, x, order, add_bias=add_bias, seed=seed,
            n_sweeps=n_sweeps, time_limit=time_limit, progress=progress)


def low_rank_like(
        link: Any, B: Any, A: Any, b: Any, n_tiles: int,
        order: Any, cls: type[LowRankLinear] = LowRankLinear) -> LowRankLinear:
    """A link of these arrays, in the dtypes and on the device of another."""
    weight = link.A if isinstance(link, LowRankLinear) else link.W
    (B, A), b = cast_like(link, weight, (B, A), b)
    new = cls(
        n_tiles * A.shape[1], len(B), b is None,
        (initialize_as(B), initialize_as(A)), initialize_as(b),
        rank=len(A), n_tiles=n_tiles, order=to_cpu(order))
    return new.to_device(link.device)
