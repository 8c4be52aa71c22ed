"""Time falls as 1 / n, and grows as the size squared.

Times forward + backward against n at a fixed size, and against the size at a
fixed n, and fits the exponent of a power law, beside that of the floor (the
narrow L.Linear) and the theoretical one: the product takes 6 B in out / n
floating-point operations.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import harness  # noqa: E402  isort: skip

import numpy  # noqa: E402

import shared_linear as sl  # noqa: E402
from benchmarks.layer_speed import check, contestant  # noqa: E402

import chainer.links as L  # noqa: E402  isort: skip

SIZE, N_TILES = 2048, [1, 2, 4, 8, 16, 32, 64]
SIZES, FIXED_N_TILES = [512, 1024, 2048, 4096], 8


def measure(cases, batch, device, seconds):
    """Times shared and floor over (size, n) in one interleaved run."""
    random = numpy.random.RandomState(0)

    def draw(*shape):
        return device.send(random.standard_normal(shape).astype('f'))

    contestants = {}
    for size, n in cases:
        x, gy = draw(batch, size), draw(batch, size)
        link = sl.SharedLinear(size, size, n_tiles=n).to_device(device)
        floor = L.Linear(size // n, size).to_device(device)
        run = contestant(link, x, gy)
        check(run, x, gy, link.W.array, link.b.array, n, 'shared')
        contestants['shared', size, n] = run
        contestants['floor', size, n] = contestant(
            floor, draw(batch, size // n), gy)
    return harness.compare(contestants, device, seconds=seconds)


def exponent(xs, ys):
    """Slope of a straight line through the logarithms."""
    return numpy.polyfit(numpy.log(xs), numpy.log(ys), 1)[0]


def main(argv=None):
    def add_arguments(parser):
        parser.add_argument('--batch', type=int, default=256)
        parser.add_argument(
            '--seconds', type=float, default=15,
            help='time for each of the two series (default: 15)')

    args = harness.parse_args(__doc__.splitlines()[0], argv, add_arguments)
    series = [
        ('n', [(SIZE, n) for n in N_TILES], N_TILES, -1,
         '{0} -> {0}'.format(SIZE)),
        ('size', [(size, FIXED_N_TILES) for size in SIZES], SIZES, 2,
         'n = {}'.format(FIXED_N_TILES)),
    ]
    results = []
    figure, (axes,) = harness.new_figure(len(series))
    for axis, (variable, cases, xs, theory, fixed) in zip(
            axes, series, strict=True):
        timings = measure(cases, args.batch, args.device, args.seconds)
        rows = []
        medians = {'shared': [], 'floor': []}
        for x, (size, n) in zip(xs, cases, strict=True):
            shared = timings.seconds(('shared', size, n), 'both')
            floor = timings.seconds(('floor', size, n), 'both')
            ratio = timings.ratio(
                ('shared', size, n), ('floor', size, n), 'both')
            medians['shared'].append(shared.median)
            medians['floor'].append(floor.median)
            rows.append([
                '{} {}'.format(variable, x), harness.milliseconds(shared),
                harness.milliseconds(floor), harness.times(ratio)])
            results.append({
                'against': variable, 'size': size, 'n_tiles': n,
                'batch': args.batch, 'shared seconds': shared._asdict(),
                'floor seconds': floor._asdict(),
                'shared / floor': ratio._asdict()})
        exponents = {
            name: exponent(xs, values) for name, values in medians.items()}
        rows.append([
            'exponent', *('{:.2f}'.format(exponents[name])
                          for name in ('shared', 'floor')),
            'theory {}'.format(theory)])
        print('Forward + backward against {}, {}, batch {}'.format(
            variable, fixed, args.batch))
        harness.print_table([variable, 'shared ms', 'floor ms', 'ratio'], rows)
        print()
        results.append({
            'against': variable, 'theory': theory,
            **{'exponent of ' + name: e for name, e in exponents.items()}})
        for name, values in medians.items():
            axis.plot(
                xs, [v * 1e3 for v in values], 'o-' if name == 'shared'
                else 'x--', label='{}, exponent {:.2f}'.format(
                    name, exponents[name]))
        start = medians['shared'][0] * 1e3
        axis.plot(
            xs, [start * (x / xs[0]) ** theory for x in xs], 'k:',
            label='exponent {}'.format(theory))
        axis.set(
            xscale='log', yscale='log', xlabel=variable, ylabel='ms',
            xticks=xs, xticklabels=xs, title=fixed)
        axis.minorticks_off()
        axis.legend(fontsize=8)
        axis.grid(alpha=.3)
    print('written: {}'.format(harness.save(args, __file__, results)))
    path = harness.plot_path(args, __file__)
    figure.savefig(path, dpi=100)
    print('written: {}'.format(path))


if __name__ == '__main__':
    main()
