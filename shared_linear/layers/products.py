"""Products of matrices, in the dtype that the devices multiply fastest."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy

if TYPE_CHECKING:
    from chainer.types import NdArray


def dot(a: Any, b: Any) -> NdArray:
    """Multiplies two matrices, in float32 at least where that is faster."""
    dtype = product_dtype(a, b)
    return cast(a, dtype).dot(cast(b, dtype))


def cast(a: NdArray, dtype: Any) -> NdArray:
    """``a`` itself if it is of the dtype, without astype's microsecond."""
    return a if a.dtype == dtype else a.astype(dtype)


def product_dtype(a: NdArray, b: NdArray) -> Any:
    """The wider dtype of both, but float32 for float16 on the CPU."""
    dtype = a.dtype
    if dtype != b.dtype:
        dtype = numpy.promote_types(dtype, b.dtype)
    if dtype.char == 'e' and isinstance(a, numpy.ndarray):
        # No BLAS on the CPU multiplies float16.
        return numpy.dtype(numpy.float32)
    return dtype
