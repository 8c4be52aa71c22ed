"""The kernels of fold and tile, without a GPU: they compile, and they add up.

NVRTC compiles CUDA for any GPU on any machine. And what the threads of a
kernel do, one after another, a C++ compiler can do too.
"""
import contextlib
import ctypes
import functools
import itertools
import shutil
import subprocess
import types

import cases
import numpy
import pytest
import reference
from nvrtc import compile_cuda

from shared_linear.layers import kernels, mixing

GATHERS = [False, True]
TILES = [1, 2, 3, 7, 8, 10, 29]
TOLERANCES = {'e': 1e-3, 'f': 1e-6, 'd': 1e-14}


def packets(in_type):
    most = 16 // numpy.dtype(in_type).itemsize
    return [2 ** i for i in range(most.bit_length())]


VARIANTS = [
    (in_type, out_type, values, ordered, large)
    for in_type, out_type in itertools.product('efd', 'efd')
    for values in packets(in_type)
    for ordered in ([False, True] if values == 1 else [False])
    for large in [False, True]]


@pytest.mark.parametrize('arch', ['compute_80', 'compute_90'])
@pytest.mark.parametrize('in_type', 'efd')
def test_compile_for_the_gpu(in_type, arch):
    for variant in VARIANTS:
        if variant[0] == in_type:
            said, ptx = compile_cuda(kernels.SOURCE, (
                '-arch=' + arch, *kernels.options(*variant)))
            assert (variant, said) == (variant, '')
            for name in 'fold', 'tile', 'add':
                assert '.entry shared_linear_{}('.format(name) in ptx


def test_compiler_names_what_is_wrong():
    """Or the test above would show nothing."""
    source = kernels.SOURCE.replace('sums[k] +=', 'sum[k] +=')
    said, ptx = compile_cuda(
        source, kernels.options('f', 'f', 4, False, False))
    assert ptx is None
    assert 'identifier "sum" is undefined' in said


@pytest.mark.parametrize('in_type', 'efd')
def test_accesses_are_of_16_bytes(in_type):
    _, ptx = compile_cuda(kernels.SOURCE, (
        '-arch=compute_90',
        *kernels.options(in_type, in_type, packets(in_type)[-1], 0, 0)))
    accesses = [
        line.split()[0] for line in ptx.splitlines()
        if line.strip().startswith(('ld.global', 'st.global'))]
    assert len(accesses) > 10
    wide = '.v4.u32', '.v4.b32', '.v4.f32', '.v2.f64', '.v2.u64', '.v2.b64'
    assert all(access.endswith(wide) for access in accesses), set(accesses)


# What CUDA has and C++ has not, and a launch: each thread in its turn.
BEFORE = r'''
#define __device__
#define __global__
struct alignas(8) uint2 { unsigned int x, y; };
struct alignas(16) uint4 { unsigned int x, y, z, w; };
static struct { unsigned int x; } blockIdx, blockDim, threadIdx;
'''
AFTER = r'''
#define LAUNCH(KERNEL) extern "C" void launch_##KERNEL( \
        unsigned int blocks, unsigned int threads, const char* x, \
        Packet<OUT>* out, const int* order, long long size, \
        long long width, long long n_tiles, long long row_stride, \
        long long step) { \
    blockDim.x = threads; \
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) \
        for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) \
            KERNEL(x, out, order, size, width, n_tiles, row_stride, step); \
}
LAUNCH(shared_linear_fold)
LAUNCH(shared_linear_tile)
LAUNCH(shared_linear_add)
'''


@pytest.fixture(scope='session')
def compile_cpp(tmp_path_factory):
    """Builds the kernels of some options for the CPU, once."""
    compiler = shutil.which('c++') or shutil.which('g++')
    if compiler is None:
        pytest.skip('needs a C++ compiler')
    folder = tmp_path_factory.mktemp('kernels')
    source = folder / 'kernels.cpp'
    source.write_text(BEFORE + kernels.SOURCE + AFTER)
    test = folder / 'test.cpp'
    test.write_text('static_assert(sizeof(_Float16) == 2, "");')
    if subprocess.run([compiler, '-fsyntax-only', test]).returncode:
        pytest.skip('needs a C++ compiler that has _Float16')

    @functools.cache
    def compile_options(options):
        path = folder / '{}.so'.format(abs(hash(options)))
        subprocess.run(
            [compiler, '-w', '-shared', '-fPIC', '-o', path, source,
             *(option.replace('Half', '_Float16') for option in options)],
            check=True)
        return ctypes.CDLL(str(path))
    return compile_options


@pytest.fixture
def launches(compile_cpp, monkeypatch):
    """Runs the kernels on NumPy arrays; a list of the packets' sizes."""
    values_in_packets = []

    def make_kernel(name, in_type, out_type, values, ordered, large):
        library = compile_cpp(kernels.options(
            in_type, out_type, values, ordered, large))
        function = getattr(library, 'launch_' + name)

        def launch(grid, block, args):
            x, out, order, size, width, n_tiles, row_stride, step = args
            packet = values * numpy.dtype(in_type).itemsize
            assert values * numpy.dtype(out_type).itemsize <= 16 or (
                out % 16 == 0)
            assert packet <= 16
            if values > 1:  # or the GPU would stop
                assert x % packet == step % packet == 0
                assert size == width or row_stride % packet == 0
            assert 0 < (size - 1) // block[0] + 1 == grid[0]
            assert bool(order) is ordered
            values_in_packets.append(values)
            function(*map(ctypes.c_longlong, [*grid, *block, *args]))
        return launch

    monkeypatch.setattr(kernels, '_kernel', make_kernel)
    monkeypatch.setattr(kernels, '_address', lambda array: array.ctypes.data)
    # What is not written shows.
    monkeypatch.setattr(
        kernels, '_empty',
        lambda shape, dtype: numpy.full(shape, numpy.nan, dtype))
    return values_in_packets


def draw(*shape, dtype='f'):
    return numpy.random.uniform(-1, 1, shape).astype(dtype)


def tile(x, n_tiles, order):
    groups = None
    if order is not None:
        groups = order.argsort() % x.shape[-1] if x.shape[-1] else order
    return kernels.tile(x, n_tiles, groups)


def expected_fold(x, n_tiles, order=None):
    x = x.astype('d')
    if order is not None:
        x = x[..., order]
    return sum(numpy.split(x, n_tiles, axis=-1))


def expected_tile(x, n_tiles, order=None):
    tiles = numpy.concatenate([x] * n_tiles, axis=-1)
    if order is None:
        return tiles
    placed = numpy.empty_like(tiles)
    placed[..., order] = tiles
    return placed


def assert_folded(folded, x, n_tiles, order=None):
    expected = expected_fold(x, n_tiles, order)
    assert folded.shape == expected.shape
    tolerance = TOLERANCES[folded.dtype.char]
    numpy.testing.assert_allclose(
        folded.astype('d'), expected, rtol=tolerance,
        atol=tolerance * n_tiles)


@pytest.mark.parametrize('large', [False, True])
@pytest.mark.parametrize('ordered', GATHERS)
@pytest.mark.parametrize('out_type', 'efd')
@pytest.mark.parametrize('in_type', 'efd')
def test_every_width_and_number_of_tiles(
        launches, monkeypatch, in_type, out_type, ordered, large):
    if large:
        make_kernel = kernels._kernel
        monkeypatch.setattr(
            kernels, '_kernel', lambda *args: make_kernel(*args[:-1], True))
    for n_tiles, width in itertools.product(TILES, [1, 2, 3, 4, 6, 8, 24]):
        order = None
        if ordered:
            order = numpy.random.permutation(n_tiles * width).astype('i')
        x = draw(13, n_tiles * width, dtype=in_type)
        folded = kernels.fold(x, n_tiles, numpy.dtype(out_type), order)
        assert folded.dtype == out_type
        assert_folded(folded, x, n_tiles, order)
        if in_type == out_type:
            x = draw(13, width, dtype=in_type)
            numpy.testing.assert_array_equal(
                tile(x, n_tiles, order),
                expected_tile(x, n_tiles, order))
    if not ordered:
        assert set(launches) == set(packets(in_type))


@pytest.mark.parametrize('ordered', GATHERS)
@pytest.mark.parametrize('dtype', 'efd')
@pytest.mark.parametrize('layout', sorted(cases.LAYOUTS))
@pytest.mark.parametrize('batch', [(5,), (2, 3), (2, 1, 4)])
def test_every_layout(launches, batch, layout, dtype, ordered):
    n_tiles, width = 3, 8
    order = None
    if ordered:
        order = numpy.random.permutation(n_tiles * width).astype('i')
    for method in 'fold', 'tile':
        size = n_tiles * width if method == 'fold' else width
        x = cases.LAYOUTS[layout](numpy, draw(*batch, size, dtype=dtype))
        before = x.copy()
        if method == 'fold':
            assert_folded(
                kernels.fold(x, n_tiles, x.dtype, order), x, n_tiles, order)
        else:
            numpy.testing.assert_array_equal(
                tile(x, n_tiles, order),
                expected_tile(x, n_tiles, order))
        numpy.testing.assert_array_equal(x, before)


def test_layouts_that_allow_it_take_16_bytes(launches):
    for layout in 'C', 'F', 'rows reversed', 'broadcast rows', 'a part':
        kernels.fold(cases.LAYOUTS[layout](numpy, draw(4, 24)), 3, 'f', None)
        kernels.tile(cases.LAYOUTS[layout](numpy, draw(4, 8)), 3, None)
    assert launches == [4] * 10


def test_transposed_in_transposed_out(launches):
    """The matrix product that follows takes either."""
    x = numpy.asfortranarray(draw(2, 3, 12))
    assert kernels.fold(x, 3, x.dtype, None).flags.f_contiguous
    assert kernels.tile(x, 3, None).flags.f_contiguous


@pytest.mark.parametrize('ordered', GATHERS)
def test_a_vector_and_nothing(launches, ordered):
    order = numpy.random.permutation(12).astype('i') if ordered else None
    x = draw(12)
    assert_folded(kernels.fold(x, 3, x.dtype, order), x, 3, order)
    numpy.testing.assert_array_equal(
        tile(x[:4], 3, order), expected_tile(x[:4], 3, order))
    assert len(launches) == 2
    for shape in (0, 12), (2, 0, 12):
        assert kernels.fold(
            numpy.zeros(shape), 3, 'd', order).shape == shape[:-1] + (4,)
        assert tile(
            numpy.zeros(shape[:-1] + (4,)), 3, order).shape == shape
    none = numpy.zeros(0, 'i') if ordered else None
    assert kernels.fold(numpy.zeros((5, 0)), 3, 'd', none).shape == (5, 0)
    assert tile(numpy.zeros((5, 0)), 3, none).shape == (5, 0)
    assert len(launches) == 2


def test_an_order_of_other_ints(launches):
    order = numpy.random.permutation(24)[::2].argsort()
    x = draw(5, 12)
    assert_folded(kernels.fold(x, 3, x.dtype, order), x, 3, order)


@pytest.mark.parametrize('step', [1, 2])
@pytest.mark.parametrize('y_type, b_type', ['ee', 'ff', 'dd', 'fe', 'de'])
def test_a_bias_is_added_to_each_row(
        launches, monkeypatch, y_type, b_type, step):
    monkeypatch.setattr(kernels, 'LARGE', 0)
    for width in 1, 2, 6, 8, 24, 31:
        y = draw(5, width, dtype=y_type)
        b = draw(width * step, dtype=b_type)[::step]
        expected = y.astype('d') + b.astype('d')
        kernels.add_bias(y, b)
        tolerance = TOLERANCES[y_type]
        numpy.testing.assert_allclose(
            y.astype('d'), expected, rtol=tolerance, atol=tolerance)
    assert len(launches) == 6
    assert max(launches) == (16 // b.itemsize if step == 1 else 1)


@pytest.mark.parametrize('y', [
    draw(3, 8).T, draw(3, 16)[:, ::2], draw(25)[1:].reshape(3, 8),
    draw(3, 8)], ids=['transposed', 'a part', 'odd address', 'small'])
def test_a_bias_that_the_kernel_does_not_take(launches, monkeypatch, y):
    if y.flags.c_contiguous and y.ctypes.data % 16 == 0:
        monkeypatch.setattr(kernels, 'LARGE', y.size + 1)
    else:
        monkeypatch.setattr(kernels, 'LARGE', 0)
    b = draw(y.shape[1])
    expected = y + b
    kernels.add_bias(y, b)
    numpy.testing.assert_array_equal(y, expected)
    assert not launches


@pytest.mark.parametrize('dtype', 'efd')
def test_the_sum_of_rows(launches, monkeypatch, dtype):
    monkeypatch.setattr(kernels, 'LARGE', 0)
    folds = {
        (1, 5): 1, (100, 7): 1, (128, 24): 1,  # a row of a few tiles
        (192, 256): 2, (640, 259): 2,  # groups of rows
        (129, 256): 0, (192, 255): 0, (0, 5): 0, (5, 0): 0}  # NumPy's
    for (rows, width), n_launches in folds.items():
        x = draw(rows, width, dtype=dtype)
        sums = kernels.sum_rows(x)
        assert (sums.shape, sums.dtype) == ((width,), x.dtype)
        assert len(launches) == n_launches, (rows, width)
        if n_launches:
            tolerance = TOLERANCES[dtype]
            numpy.testing.assert_allclose(
                sums.astype('d'), x.astype('d').sum(0), rtol=tolerance,
                atol=tolerance * rows ** .5)
        else:
            numpy.testing.assert_array_equal(sums, x.sum(axis=0))
        launches.clear()
    x = draw(24, 192, dtype=dtype).T
    numpy.testing.assert_array_equal(kernels.sum_rows(x), x.sum(axis=0))
    assert not launches


@pytest.mark.parametrize('layout', sorted(cases.LAYOUTS))
@pytest.mark.parametrize('dtype', 'efd')
def test_gather_with_signs(launches, dtype, layout):
    """The places of what is subtracted are complements."""
    x = cases.LAYOUTS[layout](numpy, draw(5, 24, dtype=dtype))
    for n_terms, width in itertools.product(TILES, [1, 5, 32]):
        places = numpy.random.randint(24, size=(n_terms, width), dtype='i')
        signs = numpy.random.choice([-1, 1], size=places.shape)
        sums = kernels.gather(
            x, numpy.where(signs < 0, ~places, places), x.dtype)
        expected = numpy.einsum(
            'btc,tc->bc', x.astype('d')[:, places], signs)
        numpy.testing.assert_allclose(
            sums.astype('d'), expected, rtol=TOLERANCES[dtype],
            atol=n_terms * TOLERANCES[dtype])


@pytest.mark.parametrize('n_blocks', [1, 3])
@pytest.mark.parametrize('n_tiles', [1, 4])
def test_plans_of_mixed_sharing(launches, monkeypatch, n_tiles, n_blocks):
    """A GPU's gathers, and both layouts of the blocks, make the layer."""
    cupy = types.SimpleNamespace(asarray=numpy.asarray)
    monkeypatch.setattr(mixing.cuda, 'cupy', cupy, raising=False)
    monkeypatch.setattr(
        mixing.cuda, 'get_device_from_id', lambda _: contextlib.nullcontext())
    mix = mixing.Mixing(n_tiles, n_blocks, 7)
    plan = mixing._plan_on_gpu.__wrapped__(mix, 24, 0)
    x, W, gy = draw(5, 24), draw(2, 24 // n_tiles), draw(5, 2 * n_blocks)
    V = reference.mixed_weight(W, n_tiles, n_blocks, 7)
    z = kernels.gather(x, plan.fold, x.dtype).reshape(5 * n_blocks, -1)
    numpy.testing.assert_allclose(
        (z @ W.T).reshape(5, -1), x @ V.T, rtol=1e-4, atol=1e-5)
    gz = (gy.reshape(5 * n_blocks, 2) @ W).reshape(5, -1)
    numpy.testing.assert_allclose(
        kernels.gather(gz, plan.tile, x.dtype), gy @ V, rtol=1e-4, atol=1e-5)


def test_float16_is_added_in_float32(launches):
    """2048 and 1 are 2048 in float16."""
    x = numpy.array([2048] + [1] * 15, 'e')
    assert kernels.fold(x, 16, x.dtype, None) == numpy.float16(2063)
    x = numpy.array([60000, 60000, -60000, -60000], 'e')
    assert kernels.fold(x, 4, x.dtype, None) == 0


def test_not_a_number_and_infinity(launches):
    x = numpy.zeros((3, 8), 'f')
    x[0, 1], x[1, 2], x[1, 6], x[2, 7] = numpy.nan, numpy.inf, -numpy.inf, 5
    numpy.testing.assert_array_equal(
        kernels.fold(x, 2, x.dtype, None),
        [[0, numpy.nan, 0, 0], [0, 0, numpy.nan, 0], [0, 0, 0, 5]])


def test_index_is_wide_where_it_must_be(monkeypatch):
    """Beyond 2 ** 31 packets; what the kernel does then, is tested above."""
    launched = []
    monkeypatch.setattr(
        kernels, '_kernel', lambda *args: launched.append(args) or (
            lambda grid, block, args: launched.append((grid, args[3]))))
    monkeypatch.setattr(kernels, '_address', lambda array: 256)
    monkeypatch.setattr(
        kernels, '_empty',
        lambda shape, dtype: numpy.broadcast_to(
            numpy.zeros((), dtype), shape))
    for rows in 2 ** 27 - 1, 2 ** 27:
        x = numpy.broadcast_to(draw(1, 128), (rows, 128))
        kernels.fold(x, 2, x.dtype, None)
    assert [args[3:] for args in launched[::2]] == [
        (4, False, False), (4, False, True)]
    assert launched[1::2] == [
        ((2 ** 24,), 2 ** 31 - 16), ((2 ** 24,), 2 ** 31)]
