"""What mixed sharing does to its inputs: permute, flip signs, and fold.

    z_j = fold(s_j * x[:, p_j]),    j = 0 ... k - 1,

and the transpose of it. The permutations p_j and the signs s_j follow from a
seed. They are made when they are needed, and stored nowhere.
"""
from __future__ import annotations

import dataclasses
import functools
import operator
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy
from chainer import backend, variable
from chainer.backends import cuda

from shared_linear import tiling

if TYPE_CHECKING:
    from chainer.types import NdArray

# What is gathered at a time: it stays in the cache until it is added.
GATHER_BYTES = 2 ** 19
# Fewer examples than this make the copies of a gather too short.
MIN_ROWS = 64
# What a thread keeps for each of its buffers.
SCRATCH_BYTES = 2 ** 22
# Permutations of as many layers are kept between calls.
MAX_PLANS = 64


@dataclasses.dataclass(frozen=True)
class Mixing:
    """Which inputs share, in each of the blocks.

    Args:
        n_tiles: Number of tiles n of the input.
        n_blocks: Number of blocks k of the output.
        seed: Where the permutations and signs come from.
        order: int32 permutation of the inputs of the first block as bytes, in
            the place of a random one with random signs.

    """

    n_tiles: int
    n_blocks: int
    seed: int = 0
    order: bytes | None = None

    @classmethod
    def checked(
            cls, n_tiles: Any, n_blocks: Any, seed: Any,
            order: NdArray | None = None) -> Mixing:
        """Checks the numbers; ``order`` is a good one or ``None``."""
        return cls(
            tiling.check_n_tiles(n_tiles), check_n_blocks(n_blocks),
            check_seed(seed), None if order is None else order.tobytes())

    @property
    def order_array(self) -> NdArray | None:
        if self.order is None:
            return None
        return numpy.frombuffer(self.order, numpy.int32)

    def permutations(self, in_size: int) -> tuple[NdArray, NdArray]:
        """The permutations p and signs s of all blocks, (k, in_size) each.

        Both are sorted out of the doubles of the Mersenne Twister, whose
        stream is the same in every release of NumPy and on every machine.
        Those of a block do not depend on how many blocks there are.
        """
        random = numpy.random.RandomState(self.seed)
        shape = self.n_blocks, in_size
        permutations = numpy.empty(shape, numpy.int32)
        signs = numpy.empty(shape, numpy.int8)
        for j in range(self.n_blocks):
            permutations[j] = random.random_sample(in_size).argsort(
                kind='stable')
            signs[j] = numpy.where(random.random_sample(in_size) < .5, -1, 1)
        order = self.order_array
        if order is not None:
            permutations[0] = order
            signs[0] = 1
        return permutations, signs

    def groups(self, in_size: int) -> tuple[NdArray, NdArray]:
        """Of each input in each block the column it is added to, its sign."""
        permutations, signs = self.permutations(in_size)
        columns = numpy.stack([
            tiling.find_groups(p, self.n_tiles) for p in permutations])
        signs_of_inputs = numpy.empty_like(signs)
        numpy.put_along_axis(signs_of_inputs, permutations, signs, axis=1)
        return columns, signs_of_inputs

    def dense_weight(self, W: NdArray) -> NdArray:
        """The weight (out, in) of the dense layer that computes the same."""
        xp = backend.get_array_module(W)
        columns, signs = (
            xp.asarray(a) for a in self.groups(self.n_tiles * W.shape[1]))
        return xp.concatenate([
            W.take(columns[j], axis=1) * signs[j].astype(W.dtype)
            for j in range(self.n_blocks)])


class _Plan(NamedTuple):
    """Where the gathers of a fold and of its transpose read."""

    fold: Any
    tile: Any


@functools.lru_cache(MAX_PLANS)
def _plan_on_cpu(mixing, in_size):
    """Rows of a table: first all as they are, then all negated."""
    permutations, signs = mixing.permutations(in_size)
    columns, signs_of_inputs = mixing.groups(in_size)
    k = mixing.n_blocks
    rows = columns.astype(numpy.intp) * k + numpy.arange(k)[:, None]
    n_rows = in_size // mixing.n_tiles * k
    return _Plan(
        permutations + in_size * (signs < 0).astype(numpy.intp),
        rows + n_rows * (signs_of_inputs < 0))


@functools.lru_cache(MAX_PLANS)
def _plan_on_gpu(mixing, in_size, device_id):
    """Places, int32, those to be negated as their bitwise complement."""
    permutations, signs = mixing.permutations(in_size)
    columns, signs_of_inputs = mixing.groups(in_size)
    width = in_size // mixing.n_tiles
    places = columns + width * numpy.arange(
        mixing.n_blocks, dtype=numpy.int32)[:, None]
    with cuda.get_device_from_id(device_id):
        return _Plan(
            cuda.cupy.asarray(_complement(permutations, signs < 0)),
            cuda.cupy.asarray(_complement(places, signs_of_inputs < 0)))


def _complement(places, negated):
    return numpy.where(negated, ~places, places).astype(numpy.int32)


def fold_blocks(x: NdArray, mixing: Mixing, dtype: Any) -> NdArray:
    """Folds the inputs of every block, in one pass over them.

    Args:
        x: Inputs of shape (B, n * m).
        mixing: Which of them share.
        dtype: The dtype to add in, and of the result.

    Returns:
        Matrix of shape (k * B, m). On the CPU the rows of a block follow each
        other, and on a GPU those of an example do, as in
        :func:`split_blocks`.

    """
    if isinstance(x, numpy.ndarray):
        return _fold_on_cpu(x, mixing, dtype)
    return _fold_on_gpu(x, mixing, dtype)


def tile_product(
        gy: NdArray, W: NdArray, mixing: Mixing, dtype: Any) -> NdArray:
    """The transpose of :func:`fold_blocks`, of the product ``gy . W``.

    Args:
        gy: Matrix of shape (k * B, M / k), as of :func:`split_blocks`.
        W: Weight of shape (M / k, m), of the same dtype.
        mixing: Which inputs share.
        dtype: The dtype of the result.

    Returns:
        Array of shape (B, n * m).

    """
    if isinstance(gy, numpy.ndarray):
        return _tile_on_cpu(W.T.dot(gy.T), mixing, dtype)
    return _tile_on_gpu(gy.dot(W), mixing, dtype)


def split_blocks(y: NdArray, n_blocks: int) -> NdArray:
    """The blocks of the columns below each other: (B, M) -> (k * B, M / k)."""
    height = y.shape[1] // n_blocks
    shape = n_blocks * len(y), height
    if isinstance(y, numpy.ndarray):
        y = y.reshape(len(y), n_blocks, height).transpose(1, 0, 2)
    return y.reshape(shape)


def join_blocks(y: NdArray, n_blocks: int) -> NdArray:
    """The inverse of :func:`split_blocks`."""
    batch_size = len(y) // n_blocks
    shape = batch_size, n_blocks * y.shape[1]
    if isinstance(y, numpy.ndarray):
        y = y.reshape(n_blocks, batch_size, y.shape[1]).transpose(1, 0, 2)
    return y.reshape(shape)


def _fold_on_cpu(x, mixing, dtype):
    """A gather of rows of x^T copies whole runs of the batch.

    The rows lie in a table beside their negatives, so that the signs cost
    nothing more.
    """
    batch_size, in_size = x.shape
    n, k = mixing.n_tiles, mixing.n_blocks
    width = in_size // n
    plan = _plan_on_cpu(mixing, in_size)
    z = numpy.empty((width, k, batch_size), dtype)
    for start, stop in _slices(batch_size, in_size * z.itemsize):
        size = stop - start
        table = _with_negatives(x[start:stop].T, dtype)
        rows = _scratch.take('rows', (in_size, size), dtype)
        for j in range(k):
            # The plan is known to be good: 'clip' skips a check.
            table.take(plan.fold[j], axis=0, mode='clip', out=rows)
            z[:, j, start:stop] = _add(rows, n)
    return z.reshape(width, k * batch_size).T


def _tile_on_cpu(gz, mixing, dtype):
    width = len(gz)
    n, k = mixing.n_tiles, mixing.n_blocks
    in_size, batch_size = n * width, gz.shape[1] // k
    plan = _plan_on_cpu(mixing, in_size)
    gz = gz.reshape(width, k, batch_size)
    gx = numpy.empty((batch_size, in_size), dtype)
    for start, stop in _slices(batch_size, in_size * gz.itemsize):
        size = stop - start
        table = _with_negatives(gz[:, :, start:stop], gz.dtype)
        sums = _scratch.take('sums', (in_size, size), gz.dtype)
        step = max(1, GATHER_BYTES // (k * size * gz.itemsize))
        buffer = _scratch.take('rows', (k * step, size), gz.dtype)
        for first in range(0, in_size, step):
            places = plan.tile[:, first:first + step].ravel()
            rows = buffer[:places.size]
            table.take(places, axis=0, mode='clip', out=rows)
            sums[first:first + step] = _add(rows, k)
        gx[start:stop] = sums.T
    return gx


class _Scratch(threading.local):

    """Memory that a thread uses again and again, for what it gathers.

    New memory comes from the system page by page, which takes longer than
    the gathers.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, NdArray] = {}

    def take(self, name: str, shape: tuple[int, int], dtype: Any) -> NdArray:
        """An array whose content is whatever was left in it."""
        size = shape[0] * shape[1]
        if size * numpy.dtype(dtype).itemsize > SCRATCH_BYTES:
            return numpy.empty(shape, dtype)
        if name not in self._buffers:
            self._buffers[name] = numpy.empty(SCRATCH_BYTES, numpy.uint8)
        return self._buffers[name].view(dtype)[:size].reshape(shape)


_scratch = _Scratch()


def _slices(batch_size, row_bytes):
    rows = max(MIN_ROWS, GATHER_BYTES // max(1, row_bytes))
    for start in range(0, batch_size, rows):
        yield start, min(start + rows, batch_size)


def _with_negatives(array, dtype):
    """The rows of an array, and behind them the same rows negated."""
    size = array.shape[-1]
    n_rows = array.size // size
    table = _scratch.take('table', (2 * n_rows, size), dtype)
    table[:n_rows].reshape(array.shape)[...] = array
    numpy.negative(table[:n_rows], out=table[n_rows:])
    return table


def _add(rows, n):
    """The sum of n matrices that lie below each other; BLAS reads each once.
    """
    height, size = len(rows) // n, rows.shape[1]
    if n == 1:
        return rows
    sums = numpy.matmul(
        numpy.ones((1, n), rows.dtype), rows.reshape(n, height * size))
    return sums.reshape(height, size)


def _fold_on_gpu(x, mixing, dtype):
    batch_size, in_size = x.shape
    n, k = mixing.n_tiles, mixing.n_blocks
    width = in_size // n
    z = cuda.cupy.empty((k * batch_size, width), dtype)
    accumulator = _accumulator(z.dtype)
    return cuda.elementwise(
        'raw T x, raw int32 places, int32 n_tiles, int32 width, int32 k',
        'U z',
        '''
        const ptrdiff_t column = i % width;
        const ptrdiff_t block = i / width % k;
        const ptrdiff_t in_size = (ptrdiff_t)n_tiles * width;
        const ptrdiff_t start = i / width / k * in_size;
        {0} sum = 0;
        for (int t = 0; t < n_tiles; ++t) {{
            const int place = places[block * in_size + t * width + column];
            const {0} value = static_cast<{0}>(
                x[start + (place < 0 ? ~place : place)]);
            sum += place < 0 ? -value : value;
        }}
        z = static_cast<U>(sum);
        '''.format(accumulator),
        'shared_linear_fold_blocks_' + accumulator,
    )(x, _plan_on_gpu(mixing, in_size, x.device.id).fold, n, width, k, z)


def _tile_on_gpu(gz, mixing, dtype):
    width = gz.shape[1]
    n, k = mixing.n_tiles, mixing.n_blocks
    in_size = n * width
    gx = cuda.cupy.empty((len(gz) // k, in_size), dtype)
    accumulator = _accumulator(gz.dtype)
    return cuda.elementwise(
        'raw T gz, raw int32 places, int32 in_size, int32 width, int32 k',
        'U gx',
        '''
        const ptrdiff_t input = i % in_size;
        const ptrdiff_t start = i / in_size * k * width;
        {0} sum = 0;
        for (int j = 0; j < k; ++j) {{
            const int place = places[(ptrdiff_t)j * in_size + input];
            const {0} value = static_cast<{0}>(
                gz[start + (place < 0 ? ~place : place)]);
            sum += place < 0 ? -value : value;
        }}
        gx = static_cast<U>(sum);
        '''.format(accumulator),
        'shared_linear_tile_blocks_' + accumulator,
    )(gz, _plan_on_gpu(mixing, in_size, gz.device.id).tile,
      in_size, width, k, gx)


def _accumulator(dtype):
    return 'double' if dtype == numpy.float64 else 'float'


def check_n_blocks(n_blocks: Any) -> int:
    """Returns ``n_blocks`` as a positive int, or says what is wrong."""
    return tiling.check_positive_int(n_blocks, 'n_blocks')


def check_seed(seed: Any) -> int:
    """Returns ``seed`` as an int that is one, or says what is wrong."""
    try:
        if isinstance(seed, (bool, numpy.bool_)):
            raise TypeError
        seed = operator.index(seed)
    except TypeError:
        raise TypeError(
            'seed must be an int, not {!r}'.format(seed)) from None
    if not 0 <= seed < 2 ** 32:
        raise ValueError(
            'seed must be at least 0 and less than 2 ** 32, not {}'.format(
                seed))
    return seed


def order_on_cpu(order: Any, in_size: int | None = None) -> NdArray | None:
    """A checked order as an int32 array of NumPy, or ``None``."""
    if order is None:
        return None
    return backend.CpuDevice().send(
        tiling.check_order(variable.as_array(order), in_size))
