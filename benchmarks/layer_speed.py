"""The layer lies on its floor, and is n times faster than a dense one.

Times forward and forward + backward of one layer:

  shared  this package's layer, SharedLinear
  tile    the same numbers by repeating the weight (method='tile')
  dense   L.Linear of the full size
  floor   L.Linear(in_size / n, out_size) on an input as narrow: the product
          that is left
  rank    LowRankLinear without tiles and with four, of the rank that gives it
          as many parameters as the shared layer has, or the nearest multiple
          of 8: BLAS takes up to a fifth longer for a rank of 47 than of 48

and, where PyTorch is installed, torch.nn.Linear of the full size and one whose
weight is tiled by a parametrization.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import harness  # noqa: E402  isort: skip

import importlib.util  # noqa: E402

import numpy  # noqa: E402

import shared_linear as sl  # noqa: E402

import chainer  # noqa: E402  isort: skip
import chainer.links as L  # noqa: E402  isort: skip

SIZES = [(1000, 900), (1024, 1024), (4096, 4096)]
BATCHES = [1, 10, 100, 256, 1024, 4096]
N_TILES = [2, 4, 8, 10, 16, 32]
PARTS = ['forward', 'both']
LOW_RANK_TILES = 1, 4
RANK_STEP = 8


class TiledLinear(sl.SharedLinear):

    """The article's computation: repeat the weight, then multiply."""

    def forward(self, x):
        return sl.shared_linear(x, self.W, self.b, method='tile')


def contestant(link, x, gy):
    def run(mark):
        link.cleargrads()
        x_var = chainer.Variable(x)
        y = link(x_var)
        mark('forward')
        y.grad = gy
        y.backward()
        mark('both')
        weight = link.A if isinstance(link, sl.LowRankLinear) else link.W
        return y.array, x_var.grad, weight.grad
    return run


def low_rank(in_size, out_size, n_tiles, folded):
    """A layer of low rank with as many parameters as n tiles have."""
    if in_size % folded:
        return None
    rank = in_size * out_size // n_tiles // (in_size // folded + out_size)
    if rank > RANK_STEP:
        rank = RANK_STEP * round(rank / RANK_STEP)
    if rank < 1:
        return None
    return sl.LowRankLinear(in_size, out_size, rank=rank, n_tiles=folded)


def check_low_rank(run, x, gy, link, name, rtol=1e-4):
    """Checks a few rows of each result against float64."""
    y, gx, gA = run(lambda part: None)
    x, gy, A, B, b = (
        harness.to_numpy(a).astype('d') for a in (
            x, gy, link.A.array, link.B.array, link.b.array))
    dense = numpy.tile(B @ A, link.n_tiles)
    harness.check_close(y[:8], x[:8] @ dense.T + b, name + ': y', rtol)
    harness.check_close(gx[:8], gy[:8] @ dense, name + ': gx', rtol)
    tiles = (gy @ B)[:, :8].T @ x
    expected = tiles.reshape(len(tiles), link.n_tiles, -1).sum(1)
    harness.check_close(gA[:8], expected, name + ': gA', rtol)


def check(run, x, gy, W, b, n_tiles, name, rtol=1e-4):
    """Checks a few rows of each result against float64."""
    y, gx, gW = run(lambda part: None)
    x, gy, W, b = (
        harness.to_numpy(a).astype('d') for a in (x, gy, W, b))
    dense = numpy.tile(W, n_tiles)
    harness.check_close(y[:8], x[:8] @ dense.T + b, name + ': y', rtol)
    harness.check_close(gx[:8], gy[:8] @ dense, name + ': gx', rtol)
    tiles = gy[:, :8].T @ x
    expected = tiles.reshape(len(tiles), n_tiles, -1).sum(1)
    harness.check_close(gW[:8], expected, name + ': gW', rtol)


def torch_contestants(x, gy, in_size, out_size, n_tiles):
    import torch
    torch.set_num_threads(int(harness.os.environ['OMP_NUM_THREADS']))
    device = 'cpu' if isinstance(x, numpy.ndarray) else 'cuda'

    class Tiling(torch.nn.Module):
        def forward(self, W):
            return W.tile(1, n_tiles)

    tiled = torch.nn.Linear(in_size // n_tiles, out_size, device=device)
    torch.nn.utils.parametrize.register_parametrization(
        tiled, 'weight', Tiling(), unsafe=True)
    dense = torch.nn.Linear(in_size, out_size, device=device)
    x = torch.as_tensor(x).requires_grad_()
    gy = torch.as_tensor(gy)

    def torch_contestant(module):
        def run(mark):
            module.zero_grad()
            x.grad = None
            y = module(x)
            mark('forward')
            y.backward(gy)
            mark('both')
        return run

    return {
        'torch dense': torch_contestant(dense),
        'torch tile n {}'.format(n_tiles): torch_contestant(tiled),
    }


def measure(device, batch, in_size, out_size, all_n_tiles, seconds, torch):
    """Times all contestants of a size in one interleaved run."""
    random = numpy.random.RandomState(0)

    def draw(*shape):
        return device.send(random.standard_normal(shape).astype('f'))

    x, gy = draw(batch, in_size), draw(batch, out_size)
    dense = L.Linear(in_size, out_size).to_device(device)
    contestants = {'dense': contestant(dense, x, gy)}
    check(contestants['dense'], x, gy, dense.W.array, dense.b.array, 1,
          'dense')
    for n in all_n_tiles:
        shared = sl.SharedLinear(in_size, out_size, n_tiles=n)
        tiled = TiledLinear(
            in_size, out_size, initialW=shared.W.array, n_tiles=n)
        floor = L.Linear(in_size // n, out_size, initialW=shared.W.array)
        for name, link in ('shared', shared), ('tile', tiled):
            run = contestant(link.to_device(device), x, gy)
            check(run, x, gy, link.W.array, link.b.array, n, name)
            contestants['{} n {}'.format(name, n)] = run
        for folded in LOW_RANK_TILES:
            link = low_rank(in_size, out_size, n, folded)
            if link is not None:
                name = 'rank {} n {}'.format(folded, n)
                run = contestant(link.to_device(device), x, gy)
                check_low_rank(run, x, gy, link, name)
                contestants[name] = run
        contestants['floor n {}'.format(n)] = contestant(
            floor.to_device(device), draw(batch, in_size // n), gy)
        if torch:
            contestants.update(
                torch_contestants(x, gy, in_size, out_size, n))
    return harness.compare(
        contestants, device, seconds=seconds, min_rounds=3)


def plot(results, path):
    figure, (axes,) = harness.new_figure(len(SIZES))
    for axis, size in zip(axes, SIZES, strict=True):
        for batch in BATCHES:
            rows = [
                r for r in results if r['part'] == 'both'
                and (r['in_size'], r['out_size']) == size
                and r['batch'] == batch]
            if rows:
                axis.plot(
                    [r['n_tiles'] for r in rows],
                    [r['dense / shared']['median'] for r in rows],
                    'o-', label='batch {}'.format(batch))
        axis.plot(N_TILES, N_TILES, 'k:', label='n')
        axis.set(
            title='{} -> {}'.format(*size), xscale='log', yscale='log',
            xlabel='n (tiles)', xticks=N_TILES, xticklabels=N_TILES,
            ylabel='times faster than dense')
        axis.minorticks_off()
        ticks = [1, 2, 4, 8, 16, 32]
        axis.set(yticks=ticks, yticklabels=ticks)
        axis.grid(alpha=.3)
    axes[0].legend(fontsize=8)
    figure.suptitle('Forward + backward of a layer')
    figure.savefig(path, dpi=100)


def main(argv=None):
    def add_arguments(parser):
        parser.add_argument(
            '--batch', type=int, nargs='+', default=BATCHES, metavar='B')
        parser.add_argument(
            '--size', nargs='+', default=SIZES, metavar='IN,OUT',
            type=lambda s: tuple(int(v) for v in s.split(',')))
        parser.add_argument(
            '--n-tiles', type=int, nargs='+', default=N_TILES, metavar='N')
        parser.add_argument(
            '--seconds', type=float, default=2,
            help='time for each batch size (default: 2), but three rounds '
                 'at least')
        parser.add_argument(
            '--no-torch', action='store_true',
            help='leave PyTorch out where it is installed')

    args = harness.parse_args(
        __doc__.splitlines()[0], argv, add_arguments)
    torch = not args.no_torch and importlib.util.find_spec('torch') is not None
    results = []
    for in_size, out_size in args.size:
        all_n_tiles = [n for n in args.n_tiles if in_size % n == 0]
        rows = {part: [] for part in PARTS}
        for batch in args.batch:
            timings = measure(
                args.device, batch, in_size, out_size, all_n_tiles,
                args.seconds, torch)
            for n in all_n_tiles:
                for part in PARTS:
                    rows[part].append([
                        'batch {}, n {}'.format(batch, n),
                        *report(results, timings, part, batch, in_size,
                                out_size, n, torch)])
        for part, title in zip(
                PARTS, ('forward', 'forward + backward'), strict=True):
            print('\n{} -> {}, {}: median (quartiles)'.format(
                in_size, out_size, title))
            harness.print_table(['size', *columns(torch)], rows[part])
    path = harness.save(args, __file__, results)
    print('\nwritten: {}'.format(path))
    if (args.size, args.batch) == (SIZES, BATCHES):
        path = harness.plot_path(args, __file__)
        plot(results, path)
        print('written: {}'.format(path))


def columns(torch):
    names = ['shared ms', 'shared / floor', 'dense / shared', 'tile / shared',
             'rank / shared', 'rank of 4 tiles / shared']
    if torch:
        names += ['torch dense / shared', 'torch tile / shared']
    return names


def report(results, timings, part, batch, in_size, out_size, n, torch):
    shared = 'shared n {}'.format(n)
    ratios = {
        'shared / floor': timings.ratio(shared, 'floor n {}'.format(n), part),
        'dense / shared': timings.ratio('dense', shared, part),
        'tile / shared': timings.ratio('tile n {}'.format(n), shared, part),
    }
    for folded, name in zip(
            LOW_RANK_TILES, ('rank', 'rank of 4 tiles'), strict=True):
        if low_rank(in_size, out_size, n, folded) is not None:
            ratios[name + ' / shared'] = timings.ratio(
                'rank {} n {}'.format(folded, n), shared, part)
    if torch:
        ratios['torch dense / shared'] = timings.ratio(
            'torch dense', shared, part)
        ratios['torch tile / shared'] = timings.ratio(
            'torch tile n {}'.format(n), shared, part)
    seconds = timings.seconds(shared, part)
    results.append({
        'part': part, 'batch': batch, 'in_size': in_size,
        'out_size': out_size, 'n_tiles': n,
        'shared seconds': seconds._asdict(),
        **{name: ratio._asdict() for name, ratio in ratios.items()},
    })
    return [harness.milliseconds(seconds)] + [
        harness.times(ratios[name]) if name in ratios else ''
        for name in columns(torch)[1:]]


if __name__ == '__main__':
    main()
