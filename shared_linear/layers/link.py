"""The layer as a link that takes the place of ``L.Linear``."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import chainer.links as L

from shared_linear.layers import tiling
from shared_linear.layers.function import SharedLinearFunction
from shared_linear.layers.tiled_link import TiledLinear, fit_of

if TYPE_CHECKING:
    from chainer import Variable
    from chainer.types import NdArray

    from shared_linear.layers.initial_weights import InitializerLike


class SharedLinear(TiledLinear):

    """Linear layer whose weight is shared by the tiles of its input.

    It takes the place of :class:`chainer.links.Linear`, with ``n_tiles`` times
    fewer weights and as many times less computation. It wraps
    :func:`shared_linear`,

    .. math::

        y = x \\, tile(W)^\\top + b = fold(x) \\, W^\\top + b,

    and holds the weight matrix ``W`` of shape
    ``(out_size, in_size / n_tiles)`` and optionally the bias vector ``b`` as
    parameters. With ``n_tiles=1`` it computes what
    :class:`chainer.links.Linear` does.

    Each output is a sum over all ``in_size`` inputs. The weights are therefore
    drawn as those of a dense layer of that size: with standard deviation
    :math:`\\sqrt{1/\\text{in_size}}` by default, and by an initializer object
    with ``in_size`` as its fan-in (LeCun et al., Efficient BackProp, 1998).

    Args:
        in_size (int or None): Dimension of input vectors, a multiple of
            ``n_tiles``. If it is ``None`` or left out, the parameters are
            initialized at the first forward pass, from the width of the input.
        out_size (int): Dimension of output vectors. If only one value is
            passed for ``in_size`` and ``out_size``, it is the ``out_size``.
        nobias (bool): If ``True``, the link has no bias vector.
        initialW (:ref:`initializer <initializer>`): Initializer of the weight.
            An array, of shape ``(out_size, in_size / n_tiles)``, a scalar,
            and a function that fills an array are used as given. What a
            :class:`chainer.Initializer` draws is scaled to the variance that
            the dense weight would have.
        initial_bias (:ref:`initializer <initializer>`): Initializer of the
            bias: zero by default. An array has shape ``(out_size,)``.
        n_tiles (int): Number of tiles of the input that share the weight.
        order (:ref:`ndarray`): Permutation of the inputs that comes first, of
            ints of shape ``(in_size,)``, as in :func:`fold`: the inputs
            ``order[i::in_size // n_tiles]`` share the weights ``W[:, i]``. By
            default these are the inputs at a distance of
            ``in_size / n_tiles``. It is kept as an int32 array, saved with the
            link and moved with it, but not trained. :func:`group_inputs`
            finds one from data.

    The parameters have the dtype of ``chainer.config.dtype``, unless an
    initializer brings its own.

    Raises:
        TypeError: If ``n_tiles`` is not an int, or ``order`` not of ints.
        ValueError: If ``n_tiles`` is not positive or does not divide
            ``in_size``, or ``order`` is no permutation of the inputs.

    Attributes:
        W (~chainer.Parameter): Weight of shape
            ``(out_size, in_size / n_tiles)``.
        b (~chainer.Parameter): Bias of shape ``(out_size,)``, or ``None``.
        in_size (int): Dimension of input vectors; ``None`` before the
            parameters are initialized.
        out_size (int): Dimension of output vectors.
        n_tiles (int): Number of tiles.
        order (:ref:`ndarray`): Permutation of the inputs, int32 of shape
            ``(in_size,)``, or ``None``.

    .. seealso:: :func:`shared_linear`

    .. admonition:: Example

        >>> layer = sl.SharedLinear(1000, 900, n_tiles=10)
        >>> layer.W.shape
        (900, 100)
        >>> x = np.zeros((4, 1000), np.float32)
        >>> layer(x).shape
        (4, 900)

        The input size may be left to the first input:

        >>> layer = sl.SharedLinear(900, n_tiles=10)
        >>> layer(x).shape
        (4, 900)
        >>> print(layer)
        SharedLinear(in_size=1000, out_size=900, nobias=False, n_tiles=10)

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
            order: NdArray | None = None,
    ) -> None:
        super().__init__(
            in_size, out_size, nobias, initialW, initial_bias, n_tiles, 1,
            order)

    def _node(self) -> SharedLinearFunction:
        return SharedLinearFunction('fold', self.n_tiles, self.order)

    def _dense_weight(self, W: NdArray) -> NdArray:
        return tiling.tile_array(W, self.n_tiles, self.order)

    @classmethod
    def from_params(
            cls,
            W: Variable | NdArray,
            b: Variable | NdArray | None = None,
            nobias: bool = False,
            *,
            n_tiles: int,
            order: NdArray | None = None,
    ) -> SharedLinear:
        """Makes a link with given parameters.

        Args:
            W (:class:`~chainer.Variable` or :ref:`ndarray`): Weight of shape
                ``(out_size, in_size / n_tiles)``.
            b (:class:`~chainer.Variable`, :ref:`ndarray`, or ``None``): Bias
                of shape ``(out_size,)``.
            nobias (bool): If ``True``, ``b`` is ignored.
            n_tiles (int): Number of tiles of the input that share the weight.
            order (:ref:`ndarray`): Permutation of the inputs, of ints of
                shape ``(in_size,)``.

        Returns:
            SharedLinear: The link, with copies of the arrays, in the dtype of
            ``chainer.config.dtype``.

        Raises:
            ValueError: If the sizes of ``W`` and ``b`` do not match.

        .. admonition:: Example

            >>> W = np.ones((2, 3), np.float32)
            >>> layer = sl.SharedLinear.from_params(W, n_tiles=4)
            >>> layer.in_size, layer.out_size
            (12, 2)

        """
        return cls._of_params(W, b, nobias, n_tiles=n_tiles, order=order)

    @classmethod
    def from_linear(
            cls,
            link: L.Linear,
            n_tiles: int,
            x: Any = None,
            order: NdArray | str | None = None,
            *,
            add_bias: bool = False,
            seed: int = 0,
            n_sweeps: int | None = None,
            time_limit: float | None = None,
            progress: bool = False,
    ) -> SharedLinear:
        """Makes the shared layer that is nearest to a dense one.

        With :math:`V` and :math:`a` the weight and the bias of the dense
        layer and :math:`F` the matrix of the fold, nearest means, given
        inputs :math:`x`, the least-squares fit of its outputs,

        .. math::

            W, b = \\mathop{\\rm argmin}_{W, b} \\;
                E|V x + a - W F x - b|^2 + r |V - W F|^2
            \\quad\\Rightarrow\\quad
            W = V S F^\\top (F S F^\\top)^{-1},

        with :math:`S` the covariance of :math:`x` plus :math:`r` on its
        diagonal. It is computed from means and covariances, which are added
        up in float64 over batches. The ridge :math:`r` decides where the
        inputs do not: where they never vary, or move together, or are too
        few. It is a thousandth of the mean variance of an input, or a power
        of ten times as much: what is best for every tenth input when it is
        held out, if there are 20 inputs or more.

        Without inputs it is the mean of the tiles of the dense weight,

        .. math:: W = \\frac{1}{n} fold(V)
                    = \\mathop{\\rm argmin}_W \\|V - tile(W)\\|_F^2,

        which is what the fit comes to for uncorrelated inputs of equal
        variance. In both cases nothing is lost on a weight that is tiled
        already, as that of :meth:`to_linear`.

        Args:
            link (chainer.links.Linear): Dense layer. It is not changed.
            n_tiles (int): Number of tiles, a divisor of its input size.
            x: Inputs that the layer meets: an array or a Variable, a dataset,
                a Chainer iterator or an iterator of batches, as in
                :func:`group_inputs`.
            order (:ref:`ndarray` or str): Permutation of the inputs. By
                default they stay as they are; ``'search'`` finds one as
                :func:`group_inputs` does, and of fewer inputs than they have
                elements ends when it gets worse for what is held out.
            add_bias (bool): Whether to make a bias where ``link`` has none.
                It takes the mean of the outputs off the weight.
            seed (int): See :func:`group_inputs`, as for all that follow.
            n_sweeps (int): Step limit of the search.
            time_limit (float): Time limit of the search in seconds.
            progress (bool): Whether the search draws a progress bar.

        Returns:
            SharedLinear: A new link, with parameters of the dtypes and on the
            device of ``link``.

        Raises:
            TypeError: If ``link`` is not a :class:`chainer.links.Linear`, or
                ``x`` is of no such kind.
            ValueError: If ``link`` has no input size yet, or ``n_tiles`` does
                not divide it; if ``x`` is empty, of another width, or has a
                value that is not finite; if ``order`` is no permutation; if
                an order or a bias is asked for that needs ``x``.

        .. admonition:: Example

            >>> dense = L.Linear(12, 2)
            >>> shared = sl.SharedLinear.from_linear(dense, n_tiles=3)
            >>> shared.W.shape
            (2, 4)
            >>> x = np.random.normal(size=(100, 12)).astype(np.float32)
            >>> shared = sl.SharedLinear.from_linear(
            ...     dense, 3, x, order='search')
            >>> shared.order.shape
            (12,)

        """
        return fit_of(cls)(
            cls, link, n_tiles, x, order, add_bias=add_bias, seed=seed,
            n_sweeps=n_sweeps, time_limit=time_limit, progress=progress)
