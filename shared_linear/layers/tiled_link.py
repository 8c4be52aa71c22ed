"""What the links whose input is tiled have in common."""
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import chainer
import numpy
from chainer import initializers, utils, variable

from shared_linear.layers import tiling

if TYPE_CHECKING:
    from chainer import Variable
    from chainer.types import InitializerSpec, NdArray

    # Chainer takes plain numbers and functions too, but does not say so.
    InitializerLike = InitializerSpec | float | Callable[[Any], None]


class TiledLinear(chainer.Link):

    """Holds W, of shape (out_size / n_blocks, in_size / n_tiles), and b."""

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
        self.out_size = out_size
        self.n_tiles = tiling.check_n_tiles(n_tiles)
        self.n_blocks = tiling.check_positive_int(n_blocks, 'n_blocks')
        if out_size is not None and out_size % self.n_blocks != 0:
            raise ValueError(
                'out_size must be a multiple of n_blocks: '
                + tiling.describe_divisors(
                    out_size, self.n_blocks, 'n_blocks'))
        if order is not None:
            order = self._check_order(order, in_size)
            in_size = order.shape[-1]
        self.order = None
        self._set_order(order)

        with self.init_scope():
            self.W = variable.Parameter(_DenseVariance(
                _get_initializer(initialW), self.n_tiles, self.n_blocks))
            if in_size is not None:
                self._initialize_params(in_size)

            if nobias:
                self.b = None
            else:
                if initial_bias is None:
                    initial_bias = 0
                self.b = variable.Parameter(
                    _get_initializer(initial_bias), out_size)

    def _check_order(self, order: NdArray, in_size: int | None) -> NdArray:
        return tiling.check_order(order, in_size)

    def _set_order(self, order: NdArray | None) -> None:
        raise NotImplementedError

    def _initialize_params(self, in_size: int) -> None:
        if in_size % self.n_tiles != 0:
            raise ValueError(
                'in_size must be a multiple of n_tiles: '
                + tiling.describe_divisors(in_size, self.n_tiles))
        self.W.initialize(
            (self.out_size // self.n_blocks, in_size // self.n_tiles))

    def _initialize_by(
            self, x: Variable | NdArray, n_batch_axes: int) -> None:
        if self.W.array is None and n_batch_axes > 0:
            self._initialize_params(
                utils.size_of_shape(x.shape[n_batch_axes:]))

    @property
    def in_size(self) -> int | None:
        if self.W.array is None:
            return None
        return self.n_tiles * self.W.shape[1]

    def __repr__(self) -> str:
        return str(self)


def _get_initializer(initializer: InitializerLike | None) -> Any:
    return initializers._get_initializer(initializer)  # type: ignore[arg-type]


class _DenseVariance(chainer.Initializer):

    """Draws a weight (M / k, m) with the variance of a dense (M, n * m) one.

    An initializer scales what it draws by the shape of the array. Chainer's
    own are drawn for (M / k, m) and rescaled. Of any other the corner of a
    dense draw is taken, which needs the memory of the dense weight meanwhile.
    """

    def __init__(
            self, initializer: Any, n_tiles: int, n_blocks: int) -> None:
        super().__init__(getattr(initializer, 'dtype', None))
        self.initializer = initializer
        self.n_tiles = n_tiles
        self.n_blocks = n_blocks

    def __call__(self, array: Any) -> None:
        height, width = array.shape
        dense_shape = self.n_blocks * height, self.n_tiles * width
        scale = _dense_scale(self.initializer, array.shape, dense_shape)
        if scale is None:
            xp = chainer.backend.get_array_module(array)
            dense = xp.empty(dense_shape, array.dtype)
            self.initializer(dense)
            array[...] = dense[:height, :width]
        else:
            self.initializer(array)
            if scale != 1:
                array *= scale


def _dense_scale(
        initializer: Any, shape: tuple[int, int], dense_shape: tuple[int, int],
) -> float | None:
    """Ratio of the deviations drawn for the two shapes; None if not known."""
    height, width = shape
    out_size, in_size = dense_shape
    by_fan_in = (width / in_size) ** .5 if in_size else 1
    by_fan_out = (height / out_size) ** .5 if out_size else 1
    kind = type(initializer)
    if (shape == dense_shape
            or not isinstance(initializer, chainer.Initializer)):
        return 1
    if kind in (
            initializers.Constant, initializers.Identity, initializers.NaN,
            initializers.Normal, initializers.One, initializers.Uniform,
            initializers.Zero):
        return 1
    if kind in (initializers.LeCunNormal, initializers.LeCunUniform):
        return by_fan_in
    if (kind is initializers.Orthogonal
            and height <= width and out_size <= in_size):
        # Unit vectors, only shorter; else their deviation is that of
        # columns, and says nothing of rows.
        return by_fan_in
    if kind in (initializers.HeNormal, initializers.HeUniform):
        fan_option = getattr(initializer, 'fan_option', 'fan_in')
        return by_fan_in if fan_option == 'fan_in' else by_fan_out
    if kind in (initializers.GlorotNormal, initializers.GlorotUniform):
        return ((width + height) / (in_size + out_size)) ** .5
    return None


def initialize_as(array: NdArray | None) -> InitializerSpec | None:
    """An initializer that keeps the array's dtype, as an array alone does not.
    """
    if array is None:
        return None
    return initializers.Constant(array, dtype=array.dtype)


def to_cpu(array):
    return None if array is None else chainer.backend.CpuDevice().send(array)


def to_float64(array):
    return None if array is None else to_cpu(array).astype(numpy.float64)


def parameter_arrays(link):
    if link.W.array is None:
        raise ValueError(
            '{} has no weight yet: give it an in_size, or call it on an input '
            'first'.format(link))
    return link.W.array, None if link.b is None else link.b.array
