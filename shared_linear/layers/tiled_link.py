"""What the links whose input is tiled have in common."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import chainer
import chainer.links as L
import numpy
from chainer import utils, variable

from shared_linear.layers import bilinear, checks
from shared_linear.layers.initial_weights import (
    DenseVariance,
    get_initializer,
    initialize_as,
)
from shared_linear.surgery.preservation import transaction

if TYPE_CHECKING:
    from chainer import Variable
    from chainer.types import NdArray

    from shared_linear.layers.initial_weights import InitializerLike

# What makes a link of a class from a dense one: its fit needs what stands
# above the layers, and is registered from there.
_fits: dict[type, Callable[..., Any]] = {}


def register_fit(link_class: type) -> Callable[[Any], Any]:
    """Registers a function as what ``link_class.from_linear`` does."""
    def register(fit: Any) -> Any:
        _fits[link_class] = fit
        return fit
    return register


def fit_of(link_class: type) -> Callable[..., Any]:
    """What was registered for a class, or for one that it derives from."""
    return next(_fits[c] for c in link_class.__mro__ if c in _fits)


class TiledLinear(chainer.Link):

    """Holds W, of shape (out_size / n_blocks, in_size / n_tiles), and b.

    Or other parameters in the place of W, of which ``_tiled`` is the one with
    the axis of the tiled input.
    """

    order: NdArray | None
    out_size: Any

    def __init__(
            self, in_size: int | None, out_size: int | None, nobias: bool,
            initialW: InitializerLike | None,
            initial_bias: InitializerLike | None, n_tiles: int,
            n_blocks: int, order: NdArray | None) -> None:
        super().__init__()
        if out_size is None:
            in_size, out_size = None, in_size
        if in_size is not None and checks.check_int(in_size, 'in_size') < 0:
            raise ValueError(
                'in_size must be a multiple of n_tiles = {} that is not '
                'negative, not {}'.format(n_tiles, in_size))
        out_size = checks.check_size(out_size, 'out_size')
        self.out_size = out_size
        self.n_tiles = checks.check_n_tiles(n_tiles)
        self.n_blocks = checks.check_positive_int(n_blocks, 'n_blocks')
        if out_size is not None and out_size % self.n_blocks != 0:
            raise ValueError(
                'out_size must be a multiple of n_blocks: '
                + checks.describe_divisors(
                    out_size, self.n_blocks, 'n_blocks'))
        if order is not None:
            order = self._check_order(order, in_size)
            in_size = order.shape[-1]
        self.order = None
        self._set_order(order)

        with self.init_scope():
            self._declare_weights(initialW)
            if in_size is not None:
                self._initialize_params(in_size)

            if nobias:
                self.b = None
            else:
                if initial_bias is None:
                    initial_bias = 0
                self.b = variable.Parameter(
                    get_initializer(initial_bias), out_size)

    # What a class of links says of itself.

    def _declare_weights(self, initialW: Any) -> None:
        self.W = variable.Parameter(DenseVariance(
            get_initializer(initialW), self.n_tiles, self.n_blocks))

    @property
    def _tiled(self) -> Any:
        return self.W

    def _node(self) -> bilinear.BilinearFunction:
        """A new node that computes what the link does with ``_tiled``."""
        raise NotImplementedError

    def _apply(self, x: Any, n_batch_axes: int) -> Variable:
        return bilinear.apply_to_rows(
            self._node(), x, self.W, self.b, n_batch_axes)

    def _dense_weight(self, W: NdArray) -> NdArray:
        """The weight (out_size, in_size) of the equal dense layer."""
        raise NotImplementedError

    def _set_order(self, order: NdArray | None) -> None:
        """Takes a good order, or none."""
        # Without an order the link's snapshot is that of a dense layer.
        if order is not None:
            self.order = self.device.send(order)
            if 'order' not in self._persistent:
                self.register_persistent('order')

    def serialize(self, serializer: chainer.AbstractSerializer) -> None:
        if not isinstance(serializer, chainer.Deserializer):
            super().serialize(serializer)
            return
        # All or nothing: a wrong snapshot changes nothing.
        with transaction(self):
            order = saved_order(serializer)
            if order is not None:
                order = self._check_order(order, self.in_size)
                if self.order is None:
                    self._set_order(order)
                elif order.shape != self.order.shape:
                    raise ValueError(
                        'the snapshot has an order of shape {}, and the link '
                        'one of {}'.format(order.shape, self.order.shape))
            self._check_saved(serializer)
            super().serialize(serializer)
            if self.order is not None and self.in_size is not None:
                self._check_order(self.order, self.in_size)

    def _check_saved(self, serializer: chainer.Deserializer) -> None:
        """Chainer would let an array of another shape be broadcast."""
        for name in sorted(self._params):
            param = vars(self)[name]
            try:
                saved: Any = serializer(name, None)
            except KeyError:
                continue  # Chainer says that it is missing, unless told not to
            if saved is None:
                continue
            if saved.dtype.kind != 'f':
                raise ValueError('{} of the snapshot is of {}, not of floats'
                                 .format(name, saved.dtype))
            if param.array is not None:
                expected = param.shape
            elif param is self._tiled and saved.ndim == 2:
                expected = self._height, saved.shape[1]
            else:
                continue
            if saved.shape != expected:
                raise ValueError(
                    '{} of the snapshot has the shape {}, and of the link '
                    '{}'.format(name, saved.shape, expected))

    def _check_order(self, order: Any, in_size: int | None) -> NdArray:
        return checks.check_order(order, in_size)

    def _sharing(self) -> Iterator[tuple[str, Any]]:
        """The arguments that say what is shared, but for the order."""
        yield 'n_tiles', self.n_tiles

    def _initialize_params(self, in_size: int) -> None:
        if in_size % self.n_tiles != 0:
            raise ValueError(
                'in_size must be a multiple of n_tiles: '
                + checks.describe_divisors(in_size, self.n_tiles))
        try:
            self._tiled.initialize((self._height, in_size // self.n_tiles))
        except ZeroDivisionError:
            raise ValueError(
                'a weight of in_size = {} and out_size = {} has no variance '
                'to be drawn with: give an initialW'.format(
                    in_size, self.out_size)) from None

    @property
    def _height(self) -> int:
        return self.out_size // self.n_blocks

    @property
    def in_size(self) -> int | None:
        if self._tiled.array is None:
            return None
        return self.n_tiles * self._tiled.shape[1]

    def forward(
            self, x: Variable | NdArray, n_batch_axes: int = 1) -> Variable:
        """Applies the layer, as :class:`chainer.links.Linear` is applied.

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
        if self._tiled.array is None and n_batch_axes > 0:
            self._initialize_params(
                utils.size_of_shape(x.shape[n_batch_axes:]))
        return self._apply(x, n_batch_axes)

    def to_linear(self) -> L.Linear:
        """Makes the dense layer that computes the same.

        Returns:
            chainer.links.Linear: A new link, with a weight of shape
            ``(out_size, in_size)``, of the same dtypes and on the same device.

        Raises:
            ValueError: If the parameters are not initialized yet.

        .. admonition:: Example

            >>> shared = sl.SharedLinear(12, 2, n_tiles=3)
            >>> dense = shared.to_linear()
            >>> dense.W.shape
            (2, 12)
            >>> x = np.ones((1, 12), np.float32)
            >>> np.allclose(dense(x).array, shared(x).array, atol=1e-6)
            True

        """
        W, b = parameter_arrays(self, self._tiled)
        with chainer.using_device(self.device):
            dense = L.Linear(
                self.in_size, self.out_size, b is None,
                initialize_as(self._dense_weight(W)), initialize_as(b))
        return dense.to_device(self.device)

    @classmethod
    def _of_params(
            cls, W: Any, b: Any, nobias: bool, *, n_tiles: int,
            n_blocks: int = 1, **sharing: Any) -> Self:
        """A link with copies of the arrays, in ``chainer.config.dtype``."""
        height, width = W.shape
        n_tiles = checks.check_n_tiles(n_tiles)
        n_blocks = checks.check_positive_int(n_blocks, 'n_blocks')
        if b is not None and n_blocks * height != b.size:
            raise ValueError(
                '`out_size` does not match the size of `b`: W.shape = {}, '
                'n_blocks = {}, b.shape = {}'.format(
                    W.shape, n_blocks, b.shape))
        if n_blocks != 1:
            sharing['n_blocks'] = n_blocks
        return cls(
            n_tiles * width, n_blocks * height, nobias,
            initialW=variable.as_array(W), initial_bias=variable.as_array(b),
            n_tiles=n_tiles, **sharing)

    @property
    def printable_specs(self) -> Iterator[tuple[str, Any]]:
        yield 'in_size', self.in_size
        yield 'out_size', self.out_size
        yield 'nobias', self.b is None
        yield from self._sharing()
        if self.order is not None:
            yield 'order', 'int32[{}]'.format(
                ', '.join(map(str, self.order.shape)))

    def __repr__(self) -> str:
        return str(self)


def link_like(
        link_class: type[Any], link: chainer.Link, W: Any, b: Any,
        **sharing: Any) -> Any:
    """A link of these arrays, in the dtypes and on the device of another."""
    (W,), b = cast_like(link, link.W, (W,), b)
    n_blocks = sharing.get('n_blocks', 1)
    new = link_class(
        sharing['n_tiles'] * W.shape[1], n_blocks * len(W), b is None,
        initialize_as(W), initialize_as(b), **sharing)
    return new.to_device(link.device)


def cast_like(
        link: Any, weight: Any, weights: Sequence[Any], b: Any,
) -> tuple[list[Any], Any]:
    """Weights and a bias on the CPU, in the dtypes of a link's own."""
    if b is not None:
        b = to_cpu(b).astype((weight if link.b is None else link.b).dtype)
    return [
        to_cpu(W).astype(weight.dtype, copy=False) for W in weights], b


def saved_order(serializer: chainer.AbstractSerializer) -> Any:
    """The order in a snapshot; None where it has none."""
    try:
        return serializer('order', None)
    except KeyError:
        return None


def to_cpu(array):
    return None if array is None else chainer.backend.CpuDevice().send(array)


def to_float64(array):
    return None if array is None else to_cpu(array).astype(numpy.float64)


def parameter_arrays(link, weight=None):
    weight = link.W if weight is None else weight
    if weight.array is None:
        raise ValueError(
            '{} has no weight yet: give it an in_size, or call it on an input '
            'first'.format(link))
    return weight.array, None if link.b is None else link.b.array
