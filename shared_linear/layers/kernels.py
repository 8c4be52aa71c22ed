"""fold and tile of CuPy arrays: one kernel each, which moves each byte once.

And what a bias takes, by the same kernels or one like them: CuPy's own takes
up to four times as long on large arrays.

A thread makes one packet of a fold, or reads one packet to tile. A packet is
the 16 bytes of an access at most, and where the layout has less in a row, or
an order picks single values, it is less. A place in an order that is negative
is the complement of that of a value to be subtracted.
"""
from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy
from chainer import backend, utils
from chainer.backends import cuda

from shared_linear.layers import checks

if TYPE_CHECKING:
    from chainer.types import NdArray

THREADS = 128  # in a block: small layers reach more multiprocessors
# Elements from which CuPy's kernels for a bias take longer than their launch.
LARGE = 2 ** 18
# What a sum over many rows is made of, and from which width that makes
# threads enough; and how many rows one thread adds in no time.
GROUPS, WIDE, FEW = 64, 256, 128
TYPES = {'e': 'Half', 'f': 'float', 'd': 'double'}

# It includes no header, so that it compiles wherever there is an NVRTC. The
# options of the compiler define IN and OUT, the types of the values, SUM, in
# which they are added, VALUES in a packet, INDEX of a packet, and ORDERED.
SOURCE = r'''
struct Half {
    unsigned short bits;

    Half() = default;

    __device__ explicit Half(float value) {
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    }

    __device__ operator float() const {
        float value;
        asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
        return value;
    }
};

template <int BYTES> struct Piece { typedef uint4 type; };
template <> struct Piece<2> { typedef unsigned short type; };
template <> struct Piece<4> { typedef unsigned int type; };
template <> struct Piece<8> { typedef uint2 type; };

// VALUES of a type, and the words in which they are loaded and stored.
template <typename T> union Packet {
    T values[VALUES];
    typename Piece<VALUES * sizeof(T)>::type pieces[
        (VALUES * sizeof(T) + 15) / 16];
};

template <typename T> __device__ Packet<T> load(const char* from) {
    const Packet<T>* packet = reinterpret_cast<const Packet<T>*>(from);
    Packet<T> loaded;
#pragma unroll
    for (int i = 0; i < sizeof(loaded.pieces) / sizeof(*loaded.pieces); ++i) {
        loaded.pieces[i] = packet->pieces[i];
    }
    return loaded;
}

template <typename T> __device__ void store(
        const Packet<T>& stored, Packet<T>* to) {
#pragma unroll
    for (int i = 0; i < sizeof(stored.pieces) / sizeof(*stored.pieces); ++i) {
        to->pieces[i] = stored.pieces[i];
    }
}

// For what nobody reads soon: it leaves the cache to others, and is quicker.
template <typename T> __device__ void stream(
        const Packet<T>& stored, Packet<T>* to) {
#pragma unroll
    for (int i = 0; i < sizeof(stored.pieces) / sizeof(*stored.pieces); ++i) {
#ifdef __CUDACC_RTC__
        __stcs(&to->pieces[i], stored.pieces[i]);
#else
        to->pieces[i] = stored.pieces[i];
#endif
    }
}

// Loads before it adds: so many accesses are in flight together.
template <int TILES> __device__ void add(
        const char* row, const int* order, long long place, long long width,
        long long step, SUM* sums) {
    Packet<IN> packets[TILES];
    bool negative[TILES];
#pragma unroll
    for (int i = 0; i < TILES; ++i) {
        long long from = place + i * width;
        if (ORDERED) from = order[from];
        negative[i] = ORDERED && from < 0;
        packets[i] = load<IN>(row + (negative[i] ? ~from : from) * step);
    }
#pragma unroll
    for (int i = 0; i < TILES; ++i) {
#pragma unroll
        for (int k = 0; k < VALUES; ++k) {
            const SUM value = static_cast<SUM>(packets[i].values[k]);
            sums[k] += negative[i] ? -value : value;
        }
    }
}

extern "C" __global__ void shared_linear_fold(
        const char* __restrict__ x, Packet<OUT>* __restrict__ folded,
        const int* __restrict__ order, long long size, long long width,
        long long n_tiles, long long row_stride, long long step) {
    const INDEX i = static_cast<INDEX>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= size) return;
    const INDEX row = i / static_cast<INDEX>(width);
    const char* from = x + row * row_stride;
    long long place = i - row * static_cast<INDEX>(width);

    SUM sums[VALUES] = {};
    for (long long n = n_tiles / 8; n > 0; --n, place += 8 * width) {
        add<8>(from, order, place, width, step, sums);
    }
    if (n_tiles & 4) {
        add<4>(from, order, place, width, step, sums);
        place += 4 * width;
    }
    if (n_tiles & 2) {
        add<2>(from, order, place, width, step, sums);
        place += 2 * width;
    }
    if (n_tiles & 1) {
        add<1>(from, order, place, width, step, sums);
    }

    Packet<OUT> packet;
#pragma unroll
    for (int k = 0; k < VALUES; ++k) {
        packet.values[k] = static_cast<OUT>(sums[k]);
    }
    store(packet, folded + i);
}

extern "C" __global__ void shared_linear_tile(
        const char* __restrict__ x, Packet<OUT>* __restrict__ tiled,
        const int* __restrict__, long long size, long long width,
        long long n_tiles, long long row_stride, long long step) {
    const INDEX i = static_cast<INDEX>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= size) return;
    const INDEX row = i / static_cast<INDEX>(width);
    const INDEX column = i - row * static_cast<INDEX>(width);
    const Packet<OUT> packet = load<OUT>(
        x + row * row_stride + column * step);
    Packet<OUT>* to = tiled + row * (n_tiles * width) + column;
#pragma unroll 8
    for (long long n = 0; n < n_tiles; ++n) stream(packet, to + n * width);
}

extern "C" __global__ void shared_linear_add(
        const char* __restrict__ x, Packet<OUT>* __restrict__ y,
        const int* __restrict__, long long size, long long width,
        long long, long long row_stride, long long step) {
    const INDEX i = static_cast<INDEX>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= size) return;
    const INDEX row = i / static_cast<INDEX>(width);
    const INDEX column = i - row * static_cast<INDEX>(width);
    const Packet<IN> added = load<IN>(x + row * row_stride + column * step);
    Packet<OUT> packet = load<OUT>(reinterpret_cast<const char*>(y + i));
#pragma unroll
    for (int k = 0; k < VALUES; ++k) {
        packet.values[k] = static_cast<OUT>(
            static_cast<SUM>(packet.values[k])
            + static_cast<SUM>(added.values[k]));
    }
    store(packet, y + i);
}
'''


def fold(
        x: NdArray, n_tiles: int, dtype: Any, order: NdArray | None,
) -> NdArray:
    """Adds the tiles of the last axis, in ``dtype`` or float32 if it is less.

    An array in Fortran order is folded into one.
    """
    if order is None and _is_transposed(x):
        # All of it lies as one row: the first tiles of its rows, the second...
        tiles = x.T
        folded = fold(tiles.reshape(1, x.size), n_tiles, dtype, None)
        return folded.reshape(
            (len(tiles) // n_tiles,) + tiles.shape[1:]).T
    shape = x.shape[:-1] + (x.shape[-1] // n_tiles,)
    with cuda.get_device_from_array(x):
        folded = _empty(shape, dtype)
        _launch('shared_linear_fold', x, folded, shape, n_tiles, order)
    return folded


def tile(x: NdArray, n_tiles: int, groups: NdArray | None) -> NdArray:
    """Repeats the last axis; an array in Fortran order gives one.

    With ``groups``, the column of x that goes to each place, it is a gather
    of x, so that what is written lies in a row: a fold of a single tile.
    """
    if groups is None and _is_transposed(x):
        tiles = x.T
        tiled = tile(tiles.reshape(1, x.size), n_tiles, None)
        return tiled.reshape((n_tiles * len(tiles),) + tiles.shape[1:]).T
    with cuda.get_device_from_array(x):
        shape = x.shape[:-1] + (n_tiles * x.shape[-1],)
        tiled = _empty(shape, x.dtype)
        if groups is None:
            _launch('shared_linear_tile', x, tiled, x.shape, n_tiles, None)
        else:
            _launch('shared_linear_fold', x, tiled, shape, 1, groups)
    return tiled


def gather(x: NdArray, order: NdArray, dtype: Any) -> NdArray:
    """Adds values of a row: y[:, c] = sum_t +-x[:, order[t, c]].

    A negative place in the order is the complement of one to subtract.
    """
    n_terms, width = order.shape
    shape = len(x), width
    with cuda.get_device_from_array(x):
        sums = _empty(shape, dtype)
        _launch('shared_linear_fold', x, sums, shape, n_terms, order)
    return sums


def add_bias(y: NdArray, b: NdArray) -> None:
    """y += b, of a matrix y and a vector b."""
    if (y.size < LARGE or not y.flags.c_contiguous or _address(y) % 16):
        y += b
        return
    with cuda.get_device_from_array(y):
        # Each row is added b, which lies where its first one does.
        _launch_rows(
            'shared_linear_add', b, y, len(y), len(b), 1, None,
            0, b.strides[0])


def sum_rows(x: NdArray) -> NdArray:
    """x.sum(axis=0) of a matrix, which as one row is a fold of its rows."""
    rows, width = x.shape
    if rows == 0 or not x.flags.c_contiguous:
        return x.sum(axis=0)
    if rows <= FEW:
        return fold(x.reshape(-1), rows, x.dtype, None)
    if x.size < LARGE or width < WIDE or rows % GROUPS:
        return x.sum(axis=0)
    sums = fold(
        x.reshape(GROUPS, -1), rows // GROUPS,
        numpy.promote_types(x.dtype, numpy.float32), None)
    return fold(sums.reshape(-1), GROUPS, x.dtype, None)


def _is_transposed(x):
    flags = x.flags
    return not flags.c_contiguous and flags.f_contiguous


def _empty(shape, dtype):
    return cuda.cupy.empty(shape, dtype)


def _launch(name, x, out, shape, n_tiles, order):
    """Runs a kernel with a thread for each packet of ``shape``."""
    if out.size == 0:
        return
    if order is not None:
        checks.check_one_device(('x', 'order'), (x, order))
        xp = backend.get_array_module(order)
        order = xp.ascontiguousarray(order, numpy.int32)
    rows, width = utils.size_of_shape(shape[:-1]), shape[-1]
    if x.ndim != 2:
        # Copies x if its rows are not equally far from each other.
        x = x.reshape(rows, x.shape[-1])
    _launch_rows(name, x, out, rows, width, n_tiles, order, *x.strides)


def _launch_rows(
        name, x, out, rows, width, n_tiles, order, row_stride, step):
    values = 1
    address, itemsize = _address(x), x.itemsize
    if order is None and step == itemsize:
        # Whatever power of two divides each place where a packet may begin.
        places = address | width * step | 16
        if rows > 1:
            places |= row_stride
        values = max(1, (places & -places) // step)
    width //= values
    size = rows * width
    kernel = _kernel(
        name, x.dtype.char, out.dtype.char, values, order is not None,
        size >= 2 ** 31)
    # Python's int is 64 bits wide for a kernel, as is a pointer.
    kernel((-(-size // THREADS),), (THREADS,), (
        address, _address(out), 0 if order is None else _address(order),
        size, width, n_tiles, row_stride, step * values))


def _address(array: Any) -> int:
    return array.data.ptr


@functools.lru_cache(None)
def _kernel(name, in_type, out_type, values, ordered, large):
    return cuda.raw(
        SOURCE, name, options(in_type, out_type, values, ordered, large))


def options(
        in_type: str, out_type: str, values: int, ordered: bool, large: bool,
) -> tuple[str, ...]:
    """What the compiler is told: the definitions that the source lacks."""
    sum_type = numpy.promote_types(out_type, numpy.float32).char
    definitions = {
        'IN': TYPES[in_type], 'OUT': TYPES[out_type], 'SUM': TYPES[sum_type],
        'VALUES': values, 'ORDERED': int(ordered),
        'INDEX': 'unsigned long long' if large else 'unsigned int',
    }
    return tuple(
        '-D{}={}'.format(name, text) for name, text in definitions.items())
