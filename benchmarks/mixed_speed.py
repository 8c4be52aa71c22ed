"""Mixed sharing lies near its floor, and is faster than a dense layer.

Times forward and forward + backward of one layer:

  mixed   this package's MixedLinear, of n tiles and k blocks
  dense   L.Linear of the full size
  floor   what cannot be saved: to move the k * in_size values of each example
          at copy speed, once forward and once backward, and the product that
          is left, L.Linear(in_size / n, out_size / k) on k * batch rows
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import harness  # noqa: E402  isort: skip

import numpy  # noqa: E402

import shared_linear as sl  # noqa: E402
from benchmarks.layer_speed import PARTS, contestant  # noqa: E402

import chainer  # noqa: E402  isort: skip
import chainer.links as L  # noqa: E402  isort: skip

SIZES = [(1000, 1000), (4096, 4096)]
BATCHES = [1, 100, 256, 1024]
MIXINGS = [(2, 4), (4, 2), (4, 4), (4, 8), (8, 2), (8, 8)]


def floor_contestant(link, x, gy, values):
    copy = values.copy()

    def run(mark):
        copy[...] = values
        link.cleargrads()
        x_var = chainer.Variable(x)
        y = link(x_var)
        mark('forward')
        y.grad = gy
        y.backward()
        copy[...] = values
        mark('both')
    return run


def check(run, link, x, gy):
    """Checks a few rows of each result against float64."""
    y, gx, gW = run(lambda part: None)
    dense = link.to_linear()
    x, gy, V, b = (
        harness.to_numpy(a).astype('d')
        for a in (x, gy, dense.W.array, dense.b.array))
    harness.check_close(y[:8], x[:8] @ V.T + b, 'mixed: y')
    harness.check_close(gx[:8], gy[:8] @ V, 'mixed: gx')
    # <W, gW> = <y - b, gy>
    actual = numpy.vdot(
        harness.to_numpy(link.W.array).astype('d'), harness.to_numpy(gW))
    expected = ((x @ V.T) * gy).sum()
    scale = numpy.linalg.norm(x @ V.T) * numpy.linalg.norm(gy)
    harness.check_close(
        1 + (actual - expected) / scale, numpy.ones(1), 'mixed: gW')


def measure(device, batch, in_size, out_size, mixings, seconds):
    """Times all contestants of a size in one interleaved run."""
    random = numpy.random.RandomState(0)

    def draw(*shape):
        return device.send(random.standard_normal(shape).astype('f'))

    x, gy = draw(batch, in_size), draw(batch, out_size)
    contestants = {'dense': contestant(
        L.Linear(in_size, out_size).to_device(device), x, gy)}
    for n, k in mixings:
        mixed = sl.MixedLinear(
            in_size, out_size, n_tiles=n, n_blocks=k).to_device(device)
        run = contestant(mixed, x, gy)
        check(run, mixed, x, gy)
        contestants['mixed {} {}'.format(n, k)] = run
        floor = L.Linear(in_size // n, out_size // k).to_device(device)
        contestants['floor {} {}'.format(n, k)] = floor_contestant(
            floor, draw(batch * k, in_size // n),
            draw(batch * k, out_size // k), draw(batch * k * in_size))
    return harness.compare(
        contestants, device, seconds=seconds, min_rounds=3)


def main(argv=None):
    def pair(text):
        return tuple(int(v) for v in text.split(','))

    def add_arguments(parser):
        parser.add_argument(
            '--batch', type=int, nargs='+', default=BATCHES, metavar='B')
        parser.add_argument(
            '--size', nargs='+', default=SIZES, metavar='IN,OUT', type=pair)
        parser.add_argument(
            '--mixing', nargs='+', default=MIXINGS, metavar='N,K', type=pair)
        parser.add_argument(
            '--seconds', type=float, default=4,
            help='time for each batch size (default: 4), but three rounds '
                 'at least')

    args = harness.parse_args(
        __doc__.splitlines()[0], argv, add_arguments)
    results = []
    for in_size, out_size in args.size:
        mixings = [
            (n, k) for n, k in args.mixing
            if in_size % n == 0 and out_size % k == 0]
        rows = {part: [] for part in PARTS}
        for batch in args.batch:
            timings = measure(
                args.device, batch, in_size, out_size, mixings, args.seconds)
            for n, k in mixings:
                for part in PARTS:
                    mixed = 'mixed {} {}'.format(n, k)
                    seconds = timings.seconds(mixed, part)
                    to_floor = timings.ratio(
                        mixed, 'floor {} {}'.format(n, k), part)
                    to_dense = timings.ratio('dense', mixed, part)
                    results.append({
                        'part': part, 'batch': batch, 'in_size': in_size,
                        'out_size': out_size, 'n_tiles': n, 'n_blocks': k,
                        'mixed seconds': seconds._asdict(),
                        'mixed / floor': to_floor._asdict(),
                        'dense / mixed': to_dense._asdict()})
                    rows[part].append([
                        'batch {}, n {}, k {}'.format(batch, n, k),
                        harness.milliseconds(seconds),
                        harness.times(to_floor), harness.times(to_dense)])
        for part, title in zip(
                PARTS, ('forward', 'forward + backward'), strict=True):
            print('\n{} -> {}, {}: median (quartiles)'.format(
                in_size, out_size, title))
            harness.print_table(
                ['size', 'mixed ms', 'mixed / floor', 'dense / mixed'],
                rows[part])
    path = harness.save(args, __file__, results)
    print('\nwritten: {}'.format(path))


if __name__ == '__main__':
    main()
