"""What today's SciPy took from Chainer's sparse matrices."""
from __future__ import annotations

from shared_linear.stack.mending import Source, mends


@mends('chainer.functions.math.sparse_matmul')
def multiply_halves_in_single_precision(source: Source) -> None:
    """SciPy's sparse arrays refuse float16, which they once took for float32.

    ``F.sparse_matmul`` of such matrices raises a ValueError without this.
    """
    source.replace(
        '    _n = B.shape[-1]\n    if B.ndim == 2:\n        sp_A',
        '    _n = B.shape[-1]; A_data = A_data.astype(numpy.float32) '
        'if A_data.dtype == numpy.float16 else A_data\n'
        '    if B.ndim == 2:\n        sp_A')
