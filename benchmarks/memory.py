"""A training step keeps no more memory than a dense one, at every n.

Counts the bytes of arrays in a training step of one layer (NumPy's
allocations by tracemalloc, CuPy's by its memory pool):

  parameters   weights, their gradients, and Adam's two moments
  activations  what is alive between forward and backward beyond that: the
               input, the output, and what the layer keeps for backward
  retained     the two together
  peak         the most that is alive at any moment of the step
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import harness  # noqa: E402  isort: skip

import gc  # noqa: E402
import tracemalloc  # noqa: E402

import numpy  # noqa: E402

import shared_linear as sl  # noqa: E402
from benchmarks.layer_speed import TiledLinear  # noqa: E402

import chainer  # noqa: E402  isort: skip
import chainer.links as L  # noqa: E402  isort: skip
from chainer import optimizers  # noqa: E402  isort: skip

BATCHES = [1, 100, 1000, 4000]
N_TILES = [2, 4, 8, 10, 20, 50, 100]
KINDS = ['shared', 'tile']
QUANTITIES = ['parameters', 'activations', 'retained', 'peak']


class CpuMeter:
    """Bytes of NumPy's arrays."""

    def __init__(self):
        tracemalloc.start()

    def now(self):
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    def reset_peak(self):
        tracemalloc.reset_peak()

    def peak(self):
        return tracemalloc.get_traced_memory()[1]

    def close(self):
        tracemalloc.stop()


class GpuMeter:
    """Bytes of CuPy's arrays, from a pool of its own."""

    def __init__(self, cupy):
        self.cupy = cupy
        self._pool = cupy.cuda.MemoryPool(self._malloc)
        self._before = cupy.cuda.get_allocator()
        self._peak = 0
        cupy.cuda.set_allocator(self._allocate)

    def _malloc(self, size):
        return self.cupy.cuda.memory._malloc(size)

    def _allocate(self, size):
        pointer = self._pool.malloc(size)
        self._peak = max(self._peak, self._pool.used_bytes())
        return pointer

    def now(self):
        gc.collect()
        return self._pool.used_bytes()

    def reset_peak(self):
        self._peak = self._pool.used_bytes()

    def peak(self):
        return self._peak

    def close(self):
        self.cupy.cuda.set_allocator(self._before)


def measure(make_link, batch, in_size, out_size, device):
    """Bytes of parameters, retained and at the peak of a training step."""
    random = numpy.random.RandomState(0)
    x, gy = (
        device.send(random.standard_normal((batch, width)).astype('f'))
        for width in (in_size, out_size))
    meter = CpuMeter() if device.xp is numpy else GpuMeter(device.xp)
    try:
        start = meter.now()
        link = make_link().to_device(device)
        optimizer = optimizers.Adam()
        optimizer.setup(link)
        for _ in range(2):  # the second step finds Adam's moments in place
            meter.reset_peak()
            before = meter.now()
            # An input of a layer within a network, alive for its backward.
            x_var = chainer.Variable(x.copy())
            y = link(x_var)
            activations = meter.now() - before
            y.grad = gy
            y.backward()
            optimizer.update()
            peak = meter.peak() - start
            del x_var, y
            parameters = meter.now() - start
            link.cleargrads()
        return {
            'parameters': parameters, 'activations': activations,
            'retained': parameters + activations, 'peak': peak}
    finally:
        meter.close()


def plot(results, batches, path):
    figure, (axes,) = harness.new_figure(2)
    for axis, quantity in zip(axes, ('retained', 'peak'), strict=True):
        for batch in batches:
            rows = [
                r for r in results
                if r['batch'] == batch and r['kind'] == 'shared']
            dense = next(
                r for r in results
                if r['batch'] == batch and r['kind'] == 'dense')
            axis.plot(
                [r['n_tiles'] for r in rows],
                [r[quantity] / dense[quantity] for r in rows], 'o-',
                label='batch {}'.format(batch))
        axis.axhline(1, color='k', lw=.5)
        axis.set(
            xscale='log', xlabel='n (tiles)', xticks=N_TILES,
            xticklabels=N_TILES, ylim=(0, None))
        axis.minorticks_off()
        axis.grid(alpha=.3)
    axes[0].set(
        title='retained',
        ylabel='bytes of a training step, dense = 1')
    axes[1].set(title='peak')
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=100)


def main(argv=None):
    def add_arguments(parser):
        parser.add_argument(
            '--batch', type=int, nargs='+', default=BATCHES, metavar='B')
        parser.add_argument('--in-size', type=int, default=1000)
        parser.add_argument('--out-size', type=int, default=900)

    args = harness.parse_args(__doc__.splitlines()[0], argv, add_arguments)
    sizes = args.in_size, args.out_size
    all_n_tiles = [n for n in N_TILES if args.in_size % n == 0]
    results = []
    rows = []
    for batch in args.batch:
        dense = None
        makers = {('dense', 1): lambda: L.Linear(*sizes)}
        for kind, cls in zip(KINDS, (sl.SharedLinear, TiledLinear),
                             strict=True):
            for n in all_n_tiles:
                makers[kind, n] = (
                    lambda cls=cls, n=n: cls(*sizes, n_tiles=n))
        for (kind, n), make_link in makers.items():
            result = measure(make_link, batch, *sizes, args.device)
            result.update(
                batch=batch, kind=kind, n_tiles=n)
            results.append(result)
            if kind == 'dense':  # the first of each batch
                dense = result
            rows.append([
                'batch {}, {}{}'.format(
                    batch, kind, '' if kind == 'dense' else
                    ' n {}'.format(n)),
                *('{:,.0f}'.format(result[q] / 1e3) for q in QUANTITIES),
                *('{:.3f}'.format(result[q] / dense[q])
                  for q in ('retained', 'peak'))])
    print('{} -> {}, Adam, kB (1,000 bytes)'.format(*sizes))
    harness.print_table(
        ['layer', *QUANTITIES, 'retained / dense', 'peak / dense'], rows)
    worse = [
        r for r in results if r['kind'] == 'shared' and r['retained'] > next(
            d['retained'] for d in results
            if d['kind'] == 'dense' and d['batch'] == r['batch'])]
    print('\nshared keeps more than dense in {} of {} cases'.format(
        len(worse), len(args.batch) * len(all_n_tiles)))
    print('written: {}'.format(harness.save(args, __file__, results)))
    path = harness.plot_path(args, __file__)
    plot(results, args.batch, path)
    print('written: {}'.format(path))


if __name__ == '__main__':
    main()
