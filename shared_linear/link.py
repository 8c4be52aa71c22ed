"""The layer as a link that takes the place of ``L.Linear``."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import chainer
import chainer.links as L
from chainer import initializers, utils, variable

from shared_linear import tiling
from shared_linear.function import shared_linear

if TYPE_CHECKING:
    from chainer import Variable
    from chainer.types import InitializerSpec, NdArray

    # Chainer takes plain numbers and functions too, but does not say so.
    InitializerLike = InitializerSpec | float | Callable[[Any], None]


class SharedLinear(chainer.Link):

    """Linear layer whose weight is shared by the tiles of its input.

    It takes the place of :class:`chainer.links.Linear`, with ``n_tiles`` times
    fewer weights and as many times less computation. It wraps
    :func:`shared_linear`,

    .. math::

        y = x \\, tile(W)^\\top + b = fold(x) \\, W^\\top + b,

    and holds the weight matrix ``W`` of shape
    ``(out_size, in_size / n_tiles)`` and optionally the bias vector ``b`` as
    parameters. With ``n_tiles=1`` it is :class:`chainer.links.Linear`.

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
            An array is taken as it is, of shape
            ``(out_size, in_size / n_tiles)``; so is what a scalar or a
            function that fills an array makes. What an
            :class:`chainer.Initializer` draws has the variance that the
            dense weight would have.
        initial_bias (:ref:`initializer <initializer>`): Initializer of the
            bias: zero by default. An array has shape ``(out_size,)``.
        n_tiles (int): Number of tiles of the input that share the weight.

    The parameters have the dtype of ``chainer.config.dtype``, unless an
    initializer brings its own.

    Raises:
        TypeError: If ``n_tiles`` is not an int.
        ValueError: If ``n_tiles`` is not positive or does not divide
            ``in_size``.

    Attributes:
        W (~chainer.Parameter): Weight of shape
            ``(out_size, in_size / n_tiles)``.
        b (~chainer.Parameter): Bias of shape ``(out_size,)``, or ``None``.
        in_size (int): Dimension of input vectors; ``None`` before the
            parameters are initialized.
        out_size (int): Dimension of output vectors.
        n_tiles (int): Number of tiles.

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
    ) -> None:
        super().__init__()
        if out_size is None:
            in_size, out_size = None, in_size
        self.out_size = out_size
        self.n_tiles = tiling.check_n_tiles(n_tiles)

        with self.init_scope():
            self.W = variable.Parameter(
                _DenseVariance(_get_initializer(initialW), self.n_tiles))
            if in_size is not None:
                self._initialize_params(in_size)

            if nobias:
                self.b = None
            else:
                if initial_bias is None:
                    initial_bias = 0
                self.b = variable.Parameter(
                    _get_initializer(initial_bias), out_size)

    def _initialize_params(self, in_size: int) -> None:
        if in_size % self.n_tiles != 0:
            raise ValueError(
                'in_size must be a multiple of n_tiles: '
                + tiling.describe_divisors(in_size, self.n_tiles))
        self.W.initialize((self.out_size, in_size // self.n_tiles))

    @classmethod
    def from_params(
            cls,
            W: Variable | NdArray,
            b: Variable | NdArray | None = None,
            nobias: bool = False,
            *,
            n_tiles: int,
    ) -> SharedLinear:
        """Makes a link with given parameters.

        Args:
            W (:class:`~chainer.Variable` or :ref:`ndarray`): Weight of shape
                ``(out_size, in_size / n_tiles)``.
            b (:class:`~chainer.Variable`, :ref:`ndarray`, or ``None``): Bias
                of shape ``(out_size,)``.
            nobias (bool): If ``True``, ``b`` is ignored.
            n_tiles (int): Number of tiles of the input that share the weight.

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
        out_size, width = W.shape
        if b is not None and out_size != b.size:
            raise ValueError(
                '`out_size` does not match the size of `b`: '
                'W.shape = {}, b.shape = {}'.format(W.shape, b.shape))
        n_tiles = tiling.check_n_tiles(n_tiles)
        return cls(
            n_tiles * width, out_size, nobias,
            initialW=variable.as_array(W), initial_bias=variable.as_array(b),
            n_tiles=n_tiles)

    @classmethod
    def from_linear(cls, link: L.Linear, n_tiles: int) -> SharedLinear:
        """Makes the shared layer that is nearest to a dense one.

        Nearest in the least-squares sense: the mean of the tiles of the dense
        weight :math:`V`,

        .. math:: W = \\frac{1}{n} fold(V)
                    = \\mathop{\\rm argmin}_W \\|V - tile(W)\\|_F^2 .

        It loses what differs between the tiles. Nothing is lost on a weight
        that is tiled already, as that of :meth:`to_linear`.

        Args:
            link (chainer.links.Linear): Dense layer. It is not changed.
            n_tiles (int): Number of tiles, a divisor of its input size.

        Returns:
            SharedLinear: A new link, with parameters of the dtypes and on the
            device of ``link``.

        Raises:
            TypeError: If ``link`` is not a :class:`chainer.links.Linear`.
            ValueError: If ``link`` has no input size yet, or ``n_tiles`` does
                not divide it.

        .. admonition:: Example

            >>> dense = L.Linear(12, 2)
            >>> shared = sl.SharedLinear.from_linear(dense, n_tiles=3)
            >>> shared.W.shape
            (2, 4)

        """
        if not isinstance(link, L.Linear):
            raise TypeError(
                'from_linear takes a chainer.links.Linear, not a {}'.format(
                    type(link).__name__))
        W, b = _parameter_arrays(link)
        in_size = W.shape[1]
        n_tiles = tiling.check_n_tiles(n_tiles)
        if in_size % n_tiles != 0:
            raise ValueError(tiling.describe_divisors(in_size, n_tiles))
        mean = tiling.fold_array(W, n_tiles) / n_tiles
        shared = cls(
            in_size, len(W), b is None,
            _initialize_as(mean.astype(W.dtype, copy=False)),
            _initialize_as(b), n_tiles=n_tiles)
        return shared.to_device(link.device)

    def to_linear(self) -> L.Linear:
        """Makes the dense layer that computes the same: its weight is tiled.

        .. math:: V = tile(W)

        Returns:
            chainer.links.Linear: A new link of ``n_tiles`` times as many
            weights, with parameters of the same dtypes and on the same
            device.

        Raises:
            ValueError: If the parameters are not initialized yet.

        .. admonition:: Example

            >>> shared = sl.SharedLinear(12, 2, n_tiles=3)
            >>> dense = shared.to_linear()
            >>> x = np.ones((1, 12), np.float32)
            >>> np.allclose(dense(x).array, shared(x).array)
            True

        """
        W, b = _parameter_arrays(self)
        dense = L.Linear(
            self.in_size, self.out_size, b is None,
            _initialize_as(tiling.tile_array(W, self.n_tiles)),
            _initialize_as(b))
        return dense.to_device(self.device)

    @property
    def in_size(self) -> int | None:
        if self.W.array is None:
            return None
        return self.n_tiles * self.W.shape[1]

    @property
    def printable_specs(self) -> Iterator[tuple[str, Any]]:
        yield 'in_size', self.in_size
        yield 'out_size', self.out_size
        yield 'nobias', self.b is None
        yield 'n_tiles', self.n_tiles

    def __repr__(self) -> str:
        return str(self)

    def forward(
            self, x: Variable | NdArray, n_batch_axes: int = 1) -> Variable:
        """Applies the layer.

        .. math:: y = x \\, tile(W)^\\top + b

        Args:
            x (:class:`~chainer.Variable` or :ref:`ndarray`): Batch of input
                vectors, a float array whose axes behind the first
                ``n_batch_axes`` have ``in_size`` elements together.
            n_batch_axes (int): Number of minibatch axes, greater than 0.

        Returns:
            ~chainer.Variable: Output of the dtype of ``x``, with one axis of
            ``out_size`` behind the minibatch axes.

        Raises:
            ValueError: If the first input gives a size that ``n_tiles`` does
                not divide.
            chainer.utils.type_check.InvalidType: If ``x`` does not fit.

        .. admonition:: Example

            >>> layer = sl.SharedLinear(12, 2, n_tiles=3)
            >>> layer(np.ones((4, 3, 2, 2), np.float32)).shape
            (4, 2)
            >>> layer(np.ones((4, 5, 12), np.float32), n_batch_axes=2).shape
            (4, 5, 2)

        """
        if self.W.array is None and n_batch_axes > 0:
            self._initialize_params(
                utils.size_of_shape(x.shape[n_batch_axes:]))
        return shared_linear(
            x, self.W, self.b, n_batch_axes, n_tiles=self.n_tiles)


def _get_initializer(initializer: InitializerLike | None) -> Any:
    return initializers._get_initializer(initializer)  # type: ignore[arg-type]


class _DenseVariance(chainer.Initializer):

    """Draws a weight (out, m) with the variance of a dense (out, n * m) one.

    An initializer scales what it draws by the shape of the array. Chainer's
    own are drawn for (out, m) and rescaled. Of any other the first tile of a
    dense draw is taken, which needs the memory of the dense weight meanwhile.
    """

    def __init__(self, initializer: Any, n_tiles: int) -> None:
        super().__init__(getattr(initializer, 'dtype', None))
        self.initializer = initializer
        self.n_tiles = n_tiles

    def __call__(self, array: Any) -> None:
        out_size, width = array.shape
        scale = _dense_scale(self.initializer, out_size, width, self.n_tiles)
        if scale is None:
            xp = chainer.backend.get_array_module(array)
            dense = xp.empty((out_size, self.n_tiles * width), array.dtype)
            self.initializer(dense)
            array[...] = dense[:, :width]
        else:
            self.initializer(array)
            if scale != 1:
                array *= scale


def _dense_scale(
        initializer: Any, out_size: int, width: int, n_tiles: int,
) -> float | None:
    """Ratio of the deviations drawn for (out, n * m) and for (out, m).

    None if it is not known.
    """
    by_fan_in = (1 / n_tiles) ** .5
    kind = type(initializer)
    if n_tiles == 1 or not isinstance(initializer, chainer.Initializer):
        return 1
    if kind in (
            initializers.Constant, initializers.Identity, initializers.NaN,
            initializers.Normal, initializers.One, initializers.Uniform,
            initializers.Zero):
        return 1
    if kind in (initializers.LeCunNormal, initializers.LeCunUniform):
        return by_fan_in
    if kind is initializers.Orthogonal and out_size <= width:
        # As many unit vectors, n times shorter; else their deviation is
        # that of columns, and says nothing of rows.
        return by_fan_in
    if kind in (initializers.HeNormal, initializers.HeUniform):
        fan_option = getattr(initializer, 'fan_option', 'fan_in')
        return by_fan_in if fan_option == 'fan_in' else 1
    if kind in (initializers.GlorotNormal, initializers.GlorotUniform):
        return ((width + out_size) / (n_tiles * width + out_size)) ** .5
    return None


def _initialize_as(array: NdArray | None) -> InitializerSpec | None:
    """An initializer that keeps the array's dtype, as an array alone does not.
    """
    if array is None:
        return None
    return initializers.Constant(array, dtype=array.dtype)


def _parameter_arrays(link):
    if link.W.array is None:
        raise ValueError(
            '{} has no weight yet: give it an in_size, or call it on an input '
            'first'.format(link))
    return link.W.array, None if link.b is None else link.b.array
