"""On a GPU fold and tile move bytes as a copy does, and the layer adds little.

The machine's own ceilings come first, from the same run: the bandwidth of a
large copy, and the rate of a large product in each precision. Then

  bandwidth  of fold and tile, beside that of a copy of the same bytes. They
             take turns over several inputs, so that none lies in the cache.
  layer      forward + backward of one layer, beside
               dense   L.Linear of the full size
               narrow  L.Linear(in_size / n, out_size) on an input as narrow
               floor   its three products by cuBLAS alone, and at the copy's
                       bandwidth the bytes that are read and written besides:
                       x is read, its gradient written, and for the bias y
                       read and written, and its gradient read

The GPU's own time is taken, by events, with the queue kept full: what Python
adds to it is in gpu_step.py.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import harness  # noqa: E402  isort: skip

import contextlib  # noqa: E402
import itertools  # noqa: E402

import numpy  # noqa: E402

import shared_linear as sl  # noqa: E402
from benchmarks.layer_speed import check  # noqa: E402

import chainer  # noqa: E402  isort: skip
import chainer.links as L  # noqa: E402  isort: skip

MIB = 2 ** 20
# Several times the cache of any GPU: that much lies between two uses.
ROTATED_BYTES = 512 * MIB
# dtype, and the largest error beside float64.
PRECISIONS = {
    'float32': ('f', 1e-4), 'TF32': ('f', 1e-2), 'float16': ('e', 2e-2)}


@contextlib.contextmanager
def precision(name, device):
    """Lets CuPy multiply float32 in TF32, or not, as CUPY_TF32 would."""
    if device.xp is numpy:
        yield
        return
    from cupy._core import _routines_linalg as linalg
    before = linalg.get_compute_type('f')
    linalg.set_compute_type(
        'f', linalg.COMPUTE_TYPE_TF32 if name == 'TF32'
        else linalg.COMPUTE_TYPE_DEFAULT)
    try:
        yield
    finally:
        linalg.set_compute_type('f', before)


class Drawer:
    """Draws arrays on the device, with a seed."""

    def __init__(self, device):
        self.random = device.xp.random.RandomState(0)

    def __call__(self, *shape, dtype='f'):
        # Through float32: float64 of an input is gigabytes.
        array = self.random.standard_normal(shape)
        return array.astype('f').astype(dtype, copy=False)


def timed(*functions):
    """A contestant that calls functions one after another."""
    def run(mark):
        for function in functions:
            function()
        mark('all')
    return run


def floor_seconds(products, batch, in_size, out_size, itemsize, bandwidth):
    """Seconds that no layer can beat, of its products and of its bytes.

    >>> floor_seconds(2., 10, 6, 4, 4, 360.)
    4.0

    """
    n_bytes = batch * (2 * in_size + 3 * out_size) * itemsize
    return products + n_bytes / bandwidth


def measure_ceilings(args, draw):
    """Bytes in a second of a copy, and FLOP in a second of products."""
    xp = args.device.xp
    size = args.copy_mib * MIB // 4
    source = draw(size)
    target = xp.empty_like(source)
    seconds = harness.compare(
        {'copy': timed(lambda: xp.copyto(target, source))}, args.device,
        seconds=args.seconds, hold=True).seconds('copy', 'all')
    ceilings = {'bytes per second': 2 * source.nbytes / seconds.median}
    print('copy of {} MiB: {:.0f} GB/s, read and written'.format(
        args.copy_mib, ceilings['bytes per second'] / 1e9))
    n = args.product_size
    for name, (dtype, _) in PRECISIONS.items():
        a, b = draw(n, n, dtype=dtype), draw(n, n, dtype=dtype)
        c = xp.empty_like(a)
        with precision(name, args.device):
            seconds = harness.compare(
                {name: timed(lambda a=a, b=b, c=c: xp.dot(a, b, out=c))},
                args.device, seconds=args.seconds,
                hold=True).seconds(name, 'all')
        ceilings[name + ' FLOP per second'] = 2 * n ** 3 / seconds.median
        print('product of {0} x {0}, {1}: {2:.1f} TFLOP/s'.format(
            n, name, 2 * n ** 3 / seconds.median / 1e12))
    return ceilings


def measure_bandwidth(args, draw, mib, dtype, n):
    """Times fold, tile and copies of the same bytes, in turn."""
    xp = args.device.xp
    itemsize = numpy.dtype(dtype).itemsize
    rows = max(1, mib * MIB // (args.in_size * itemsize))
    n_inputs = max(2, -(-args.rotated_mib // mib))
    wide = [draw(rows, args.in_size, dtype=dtype) for _ in range(n_inputs)]
    narrow = [draw(rows, args.in_size // n, dtype=dtype) for _ in wide]
    x, z = wide[0][:8], narrow[0][:8]
    x_, z_ = (harness.to_numpy(a).astype('d') for a in (x, z))
    harness.check_close(
        sl.fold(x, n).array, x_.reshape(len(x), n, -1).sum(1), 'fold',
        rtol=1e-5 if dtype == 'f' else 1e-3)
    harness.check_close(
        sl.tile(z, n).array, numpy.tile(z_, n), 'tile', rtol=0)
    # A copy that moves as many bytes as either: the whole and an n-th.
    moved = rows * args.in_size * (n + 1) // (2 * n)
    sources = [draw(moved, dtype=dtype) for _ in wide]
    target = xp.empty_like(sources[0])
    with chainer.no_backprop_mode():
        timings = harness.compare({
            'copy': timed(*(
                lambda s=s: xp.copyto(target, s) for s in sources)),
            'fold': timed(*(lambda x=x: sl.fold(x, n) for x in wide)),
            'tile': timed(*(lambda z=z: sl.tile(z, n) for z in narrow)),
        }, args.device, seconds=args.seconds, hold=True)
    n_bytes = n_inputs * 2 * moved * itemsize
    return {
        'MiB': mib, 'dtype': dtype, 'n_tiles': n, 'inputs': n_inputs,
        **{name + ' bytes per second':
           n_bytes / timings.seconds(name, 'all').median
           for name in ('copy', 'fold', 'tile')},
        'copy / fold': timings.ratio('copy', 'fold', 'all')._asdict(),
        'copy / tile': timings.ratio('copy', 'tile', 'all')._asdict(),
    }


def layer(link, inputs):
    """A contestant: forward + backward, over the inputs in turn."""
    inputs = itertools.cycle(inputs)

    def run(mark):
        x, gy = next(inputs)
        link.cleargrads()
        x = chainer.Variable(x)
        y = link(x)
        y.grad = gy
        y.backward()
        mark('all')
        return y.array, x.grad, link.W.grad
    return run


def products(W, inputs):
    """A contestant: the three products of the narrow layer."""
    inputs = itertools.cycle(inputs)

    def run(mark):
        x, gy = next(inputs)
        x.dot(W.T), gy.dot(W), gy.T.dot(x)
        mark('all')
    return run


def measure_layer(args, draw, name, bandwidth):
    dtype, rtol = PRECISIONS[name]
    device, batch = args.device, args.batch
    in_size, out_size = args.in_size, args.out_size
    inputs = [
        (draw(batch, in_size, dtype=dtype), draw(batch, out_size, dtype=dtype))
        for _ in range(2)]
    all_n_tiles = [n for n in args.n_tiles if in_size % n == 0]
    with chainer.using_config('dtype', numpy.dtype(dtype)):
        dense = L.Linear(in_size, out_size).to_device(device)
        contestants = {'dense': layer(dense, inputs)}
        for n in all_n_tiles:
            shared = sl.SharedLinear(
                in_size, out_size, n_tiles=n).to_device(device)
            check(layer(shared, inputs), *inputs[0], shared.W.array,
                  shared.b.array, n, 'shared n {}'.format(n), rtol)
            narrow = [
                (draw(batch, in_size // n, dtype=dtype), gy)
                for _, gy in inputs]
            link = L.Linear(in_size // n, out_size).to_device(device)
            contestants.update({
                'shared n {}'.format(n): layer(shared, inputs),
                'narrow n {}'.format(n): layer(link, narrow),
                'products n {}'.format(n): products(link.W.array, narrow)})
        timings = harness.compare(
            contestants, device, seconds=args.seconds * len(contestants),
            min_rounds=3, hold=True)
    results = []
    for n in all_n_tiles:
        shared = 'shared n {}'.format(n)
        seconds = timings.seconds(shared, 'all')
        floor = floor_seconds(
            timings.seconds('products n {}'.format(n), 'all').median,
            batch, in_size, out_size, numpy.dtype(dtype).itemsize, bandwidth)
        results.append({
            'precision': name, 'n_tiles': n,
            'shared seconds': seconds._asdict(),
            'dense seconds': timings.seconds('dense', 'all')._asdict(),
            'products seconds': timings.seconds(
                'products n {}'.format(n), 'all')._asdict(),
            'floor seconds': floor, 'shared / floor': seconds.median / floor,
            'shared / narrow': timings.ratio(
                shared, 'narrow n {}'.format(n), 'all')._asdict(),
            'dense / shared': timings.ratio(
                'dense', shared, 'all')._asdict(),
        })
    return results


def spread(value):
    return harness.times(harness.Spread(**value))


def main(argv=None):
    def add_arguments(parser):
        parser.add_argument('--batch', type=int, default=8192, metavar='B')
        parser.add_argument('--in-size', type=int, default=8192, metavar='N')
        parser.add_argument('--out-size', type=int, default=8192, metavar='M')
        parser.add_argument(
            '--n-tiles', type=int, nargs='+', default=[2, 4, 8, 16, 32],
            metavar='N')
        parser.add_argument(
            '--mib', type=int, nargs='+', default=[64, 1024],
            help='sizes of the inputs of fold (default: 64 1024)')
        parser.add_argument(
            '--copy-mib', type=int, default=2048,
            help='size of the copy for the ceiling (default: 2048)')
        parser.add_argument(
            '--product-size', type=int, default=8192, metavar='N',
            help='of the square product for the ceiling (default: 8192)')
        parser.add_argument(
            '--rotated-mib', type=int, default=ROTATED_BYTES // MIB,
            help='what the inputs that take turns hold at least')
        parser.add_argument(
            '--seconds', type=float, default=1,
            help='time for each measurement (default: 1)')

    args = harness.parse_args(
        __doc__.splitlines()[0], argv, add_arguments, device='@cupy:0')
    draw = Drawer(args.device)
    ceilings = measure_ceilings(args, draw)
    all_n_tiles = [n for n in args.n_tiles if args.in_size % n == 0]

    bandwidths = [
        measure_bandwidth(args, draw, mib, dtype, n)
        for mib in args.mib for dtype in 'fe' for n in all_n_tiles]
    print('\nfold and tile: bytes read and written, beside a copy of as many')
    harness.print_table(
        ['input', 'copy GB/s', 'fold GB/s', 'tile GB/s',
         'fold / copy', 'tile / copy'],
        [['{} MiB, {}, n {}'.format(
            r['MiB'], numpy.dtype(r['dtype']).name, r['n_tiles'])]
         + ['{:.0f}'.format(r[name + ' bytes per second'] / 1e9)
            for name in ('copy', 'fold', 'tile')]
         + [spread(r['copy / ' + name]) for name in ('fold', 'tile')]
         for r in bandwidths])

    layers = []
    for name in PRECISIONS:
        with precision(name, args.device):
            layers += measure_layer(
                args, draw, name, ceilings['bytes per second'])
    print('\nbatch {}, {} -> {}, forward + backward'.format(
        args.batch, args.in_size, args.out_size))
    harness.print_table(
        ['layer', 'shared ms', 'floor ms', 'shared / floor',
         'shared / narrow', 'dense / shared'],
        [['{}, n {}'.format(r['precision'], r['n_tiles']),
          harness.milliseconds(harness.Spread(**r['shared seconds'])),
          '{:.3g}'.format(r['floor seconds'] * 1e3),
          '{:.2f}'.format(r['shared / floor']),
          spread(r['shared / narrow']), spread(r['dense / shared'])]
         for r in layers])
    path = harness.save(args, __file__, {
        'ceilings': ceilings, 'bandwidth': bandwidths, 'layer': layers,
        'batch': args.batch, 'in_size': args.in_size,
        'out_size': args.out_size})
    print('\nwritten: {}'.format(path))


if __name__ == '__main__':
    main()
