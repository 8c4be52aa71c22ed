"""What mixed sharing does to its inputs: permute, flip signs, and fold.

    z_j = fold(s_j * x[:, p_j]),    j = 0 ... k - 1,

and the transpose of it. The permutations p_j and the signs s_j follow from a
seed. They are made when they are needed, and stored nowhere.
"""
from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy
from chainer import backend
from chainer.backends import cuda

from shared_linear.layers import caching, checks, kernels, tiling

if TYPE_CHECKING:
    from chainer.types import NdArray

# What is gathered at a time: it stays in the cache until it is added.
GATHER_BYTES = 2 ** 19
# Fewer examples than this make the copies of a gather too short.
MIN_ROWS = 64
# What a thread keeps for each of its buffers.
SCRATCH_BYTES = 2 ** 22
# Permutations of layers that are kept between calls.
MAX_BYTES_OF_PLANS = 2 ** 28


@dataclasses.dataclass(frozen=True)
class Mixing:
    """Which inputs share, in each of the blocks.

    Args:
        n_tiles: Number of tiles n of the input.
        n_blocks: Number of blocks k of the output.
        seed: Where the permutations and signs come from.
        order: int32 permutations of the inputs of the first blocks as bytes,
            in the place of random ones with random signs.
        n_ordered: Number of blocks that have such a permutation.

    """

    n_tiles: int
    n_blocks: int
    seed: int = 0
    order: bytes = b''
    n_ordered: int = 0

    @classmethod
    def checked(
            cls, n_tiles: Any, n_blocks: Any, seed: Any,
            order: NdArray | None = None,
            in_size: int | None = None) -> Mixing:
        """Checks what a user gives; ``order`` as in :func:`check_orders`."""
        n_blocks = checks.check_positive_int(n_blocks, 'n_blocks')
        return cls.of_order(
            checks.check_n_tiles(n_tiles), n_blocks, checks.check_seed(seed),
            checks.check_orders(order, n_blocks, in_size))

    @classmethod
    def of_order(
            cls, n_tiles: int, n_blocks: int, seed: int,
            order: NdArray | None) -> Mixing:
        """A mixing of good numbers, and of a good order or none."""
        if order is None:
            return cls(n_tiles, n_blocks, seed)
        return cls(
            n_tiles, n_blocks, seed, order.tobytes(),
            1 if order.ndim == 1 else len(order))

    @property
    def order_array(self) -> NdArray | None:
        """The order, of shape (in_size,) or (n_ordered, in_size)."""
        if self.n_ordered == 0:
            return None
        order = numpy.frombuffer(self.order, numpy.int32)
        if self.n_ordered == 1:
            return order
        return order.reshape(self.n_ordered, -1)

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
            permutations[:self.n_ordered] = order
            signs[:self.n_ordered] = 1
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
    """The gathers of a fold and of its transpose.

    Each is the order of a fold: an array (a, b) of the places where the
    values lie that are added over the first axis.
    """

    fold: Any
    tile: Any


@caching.cache_up_to(MAX_BYTES_OF_PLANS)
def _plan_on_cpu(mixing, in_size):
    """Sums lie as (m, k). Behind the values of a table they lie negated."""
    n, k = mixing.n_tiles, mixing.n_blocks
    width = in_size // n
    permutations, signs = mixing.permutations(in_size)
    columns, signs_of_inputs = mixing.groups(in_size)
    fold = permutations + in_size * (signs < 0).astype(numpy.intp)
    tile = columns * k + numpy.arange(k)[:, None]
    return _Plan(
        fold.reshape(k, n, width).transpose(1, 2, 0).reshape(n, width * k),
        tile + width * k * (signs_of_inputs < 0).astype(numpy.intp))


@caching.cache_up_to(MAX_BYTES_OF_PLANS)
def _plan_on_gpu(mixing, in_size, device_id):
    """Sums lie as (k, m). Places of negated values are complements."""
    n, k = mixing.n_tiles, mixing.n_blocks
    width = in_size // n
    permutations, signs = mixing.permutations(in_size)
    columns, signs_of_inputs = mixing.groups(in_size)
    fold = numpy.where(signs < 0, ~permutations, permutations)
    tile = columns + width * numpy.arange(k, dtype=numpy.int32)[:, None]
    tile = numpy.where(signs_of_inputs < 0, ~tile, tile)
    with cuda.get_device_from_id(device_id):
        return _Plan(*(
            cuda.cupy.asarray(order, numpy.int32) for order in (
                fold.reshape(k, n, width).transpose(1, 0, 2).reshape(
                    n, k * width), tile)))


def fold_blocks(x: NdArray, mixing: Mixing, dtype: Any) -> NdArray:
    """Folds the inputs of every block, in one pass over them.

    Args:
        x: Inputs of shape (B, n * m).
        mixing: Which of them share.
        dtype: The dtype of the result, and to add in, but for float16, which
            is added in float32.

    Returns:
        Matrix of shape (k * B, m). On the CPU the rows of a block follow each
        other, and on a GPU those of an example do, as in
        :func:`split_blocks`.

    """
    batch_size, in_size = x.shape
    k, width = mixing.n_blocks, in_size // mixing.n_tiles
    if isinstance(x, numpy.ndarray):
        z = numpy.empty((width * k, batch_size), dtype)
        _gather(x.T, _plan_on_cpu(mixing, in_size).fold, z)
        return z.reshape(width, k * batch_size).T
    z = kernels.gather(
        x, _plan_on_gpu(mixing, in_size, x.device.id).fold, dtype)
    return z.reshape(batch_size * k, width)


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
    k, width = mixing.n_blocks, W.shape[1]
    in_size, batch_size = mixing.n_tiles * width, len(gy) // k
    if isinstance(gy, numpy.ndarray):
        gz = W.T.dot(gy.T).reshape(width * k, batch_size)
        gx = numpy.empty((batch_size, in_size), dtype)
        _gather(gz, _plan_on_cpu(mixing, in_size).tile, gx.T)
        return gx
    gz = gy.dot(W).reshape(batch_size, k * width)
    return kernels.gather(
        gz, _plan_on_gpu(mixing, in_size, gz.device.id).tile, dtype)


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


def _gather(source, order, sums):
    """Adds rows of a matrix: sums[c] = sum_t +-source[order[t, c]].

    The columns are the examples, so that a gather copies whole runs of them.
    The rows lie in a table beside their negatives: signs cost nothing more.
    """
    n_sources, batch_size = source.shape
    n_terms, n_sums = order.shape
    dtype = numpy.promote_types(source.dtype, sums.dtype)
    rows = max(
        MIN_ROWS,
        GATHER_BYTES // max(1, max(n_sources, n_sums) * dtype.itemsize))
    for start in range(0, batch_size, rows):
        batch = source[:, start:start + rows]
        size = batch.shape[1]
        table = _scratch.take('table', (2 * n_sources, size), dtype)
        table[:n_sources] = batch
        numpy.negative(table[:n_sources], out=table[n_sources:])
        step = max(1, GATHER_BYTES // (n_terms * size * dtype.itemsize))
        terms = _scratch.take('terms', (n_terms * step, size), dtype)
        for first in range(0, n_sums, step):
            places = order[:, first:first + step].ravel()
            gathered = terms[:places.size]
            # The order is known to be good: 'clip' skips a check.
            table.take(places, axis=0, mode='clip', out=gathered)
            sums[first:first + step, start:start + rows] = _add(
                gathered, n_terms)


def _add(rows, n):
    """The sum of n matrices that lie below each other."""
    if n == 1:
        return rows
    # In a row, they are the tiles of a fold.
    sums = tiling.fold_array(rows.reshape(1, rows.size), n, rows.dtype)
    return sums.reshape(len(rows) // n, rows.shape[1])


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
        if size * dtype.itemsize > SCRATCH_BYTES:
            return numpy.empty(shape, dtype)
        if name not in self._buffers:
            self._buffers[name] = numpy.empty(SCRATCH_BYTES, numpy.uint8)
        return self._buffers[name].view(dtype)[:size].reshape(shape)


_scratch = _Scratch()
