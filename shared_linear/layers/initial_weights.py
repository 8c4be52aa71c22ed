"""Initial weights of the deviation that a dense layer's would have."""
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import chainer
from chainer import initializers

if TYPE_CHECKING:
    from chainer.types import InitializerSpec, NdArray

    # Chainer takes plain numbers and functions too, but does not say so.
    InitializerLike = InitializerSpec | float | Callable[[Any], None]


def get_initializer(initializer: InitializerLike | None) -> Any:
    return initializers._get_initializer(initializer)  # type: ignore[arg-type]


class DenseVariance(chainer.Initializer):

    """Draws a weight (M / k, m) with the variance of a dense (M, n * m) one.

    Or, given M as ``out_size``, one of any height.

    An initializer scales what it draws by the shape of the array. Chainer's
    own are drawn for (M / k, m) and rescaled. Of any other the corner of a
    dense draw is taken, which needs the memory of the dense weight meanwhile.
    """

    out_size: int | None = None

    def __init__(
            self, initializer: Any, n_tiles: int, n_blocks: int,
            out_size: int | None = None) -> None:
        super().__init__(getattr(initializer, 'dtype', None))
        self.initializer = initializer
        self.n_tiles = n_tiles
        self.n_blocks = n_blocks
        self.out_size = out_size

    def __call__(self, array: Any) -> None:
        height, width = array.shape
        out_size = self.out_size or self.n_blocks * height
        dense_shape = out_size, self.n_tiles * width
        scale = _dense_scale(self.initializer, array.shape, dense_shape)
        if scale is None:
            xp = chainer.backend.get_array_module(array)
            # A corner of it, or of one that is tall enough.
            dense = xp.empty(
                (max(out_size, height), dense_shape[1]), array.dtype)
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
