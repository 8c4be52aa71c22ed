"""What a trained network loses by being made smaller, whichever way.

For 784-1000-900-10 and LeNet-300-100, trained densely for five epochs: test
error after each way of compressing to a budget of parameters, without labels
or training, and after one epoch of fine-tuning.

  dense     as it is, after one more epoch, and after six
  together  sl.compress: tiles, rank and fewer hidden units, whichever loses
            least
  tiles     folds alone, as sl.share_weights has them
  low rank  data-aware low rank alone, as SVD-LLM and DRONE have it
  units     hidden units chosen by forward selection, with refit
  narrow, hashed, mixed
            from scratch, for six epochs: see scratch_peers.py
  tuned     together, fine-tuned for six epochs
  8 bits    LeNet to 1/60 of its bytes: fine-tuned for six epochs, then in 8
            bits for one more

Together, tiles, low rank and units are this package's engine with some of its
forms, so that each has the same targets, the same held-out inputs and the
same choice of how to spend the budget over the layers. All are fine-tuned
alike.

With --layer it is one layer alone, 1000 -> 900, by 2 to 100 times fewer
weights: together, tiles and low rank, without training.

Each result is kept in a folder of its own name, so that a benchmark that was
stopped goes on where it was, and several processes can share the work.
"""
import copy
import functools
import sys
import time
import zlib
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import harness  # noqa: E402  isort: skip

from benchmarks import compression_tables, scratch_peers  # noqa: E402
from examples.compress_mnist import (  # noqa: E402
    NETWORKS,
    count_parameters,
    load,
    make_network,
    test_error,
    train,
)
from mnist.errors import UserError  # noqa: E402
from shared_linear import surgery  # noqa: E402
from shared_linear.compression import capture  # noqa: E402
from shared_linear.compression.compress import hold_out  # noqa: E402
from shared_linear.compression.inputs import Batch  # noqa: E402
from shared_linear.compression.pipeline import Compression  # noqa: E402

import chainer  # noqa: E402  isort: skip
import chainer.functions as F  # noqa: E402  isort: skip

ENGINE = 'together', 'tiles', 'low rank', 'units'
WAYS = 'dense', *ENGINE, *scratch_peers.KINDS, 'tuned', '8 bits'
BUDGETS = 2, 5, 15, 31, 54
# One layer alone: the network it is of, its path, and how.
LAYER = '1000-900', '/l2'
LAYER_WAYS = 'together', 'tiles', 'low rank'
RATIOS = 2, 5, 10, 20, 50, 100
# 8 bits: this network to so many times fewer bytes, which is 15 times fewer
# parameters.
QUANTIZED = 'lenet-300-100', 15, 60
EPOCHS = 5
TUNED_EPOCHS = 6
BATCH_SIZE = 500
# Digits that the ranges of 8-bit activations are taken from.
N_RANGES = 2000
# Digits that are held out of training where none may be tested on.
N_VALIDATION = 10000


class Job(NamedTuple):
    """What is one result."""

    network: str
    seed: int
    budget: int
    way: str
    layer: bool = False

    @property
    def name(self):
        return '{}{}-seed{}-{}-{}'.format(
            self.network, '-layer' if self.layer else '', self.seed,
            self.budget, self.way.replace(' ', '_'))


def jobs(args):
    """In an order that leaves whole seeds where time runs out."""
    for seed in args.seeds:
        if args.layer:
            for ratio in RATIOS:
                for way in LAYER_WAYS:
                    yield Job(LAYER[0], seed, ratio, way, True)
            continue
        for network in args.networks:
            if 'dense' in args.ways:
                yield Job(network, seed, 1, 'dense')
            for budget in args.budgets:
                for way in args.ways:
                    if way == 'dense' or way == '8 bits' and (
                            network, budget) != QUANTIZED[:2]:
                        continue
                    yield Job(network, seed, budget, way)


def forms(curves, way):
    """The curves of a way alone."""
    def allowed(curve):
        whole = curve._replace(errors=curve.errors[-1:])
        if way == 'together':
            return curve
        if way == 'tiles':
            return whole if curve.n_units is None else None
        if way == 'units':
            return whole if curve.n_tiles == 1 else None
        plain = curve.n_tiles == 1 and curve.n_units is None
        return curve if plain else None
    return {
        path: [c for c in map(allowed, of_layer) if c is not None]
        for path, of_layer in curves.items()}


def forms_of_layer(curves, way, path):
    """Likewise, where all other layers stay dense, and all units."""
    chosen = {
        p: [c for c in of_layer if c.n_units is None]
        for p, of_layer in curves.items()}
    alone = forms(chosen, way)[path]
    return {
        p: alone if p == path else [
            c._replace(errors=c.errors[-1:]) for c in of_layer
            if c.n_tiles == 1]
        for p, of_layer in chosen.items()}


class Measured:
    """What the engine knows of a network, for all budgets and ways."""

    def __init__(self, model, images, exclude=()):
        batches = [Batch([images[i:i + BATCH_SIZE]])
                   for i in range(0, len(images), BATCH_SIZE)]
        with capture.same_random_numbers(model) as wind_back:
            self._work = Compression(
                model, batches, None, hold_out(batches), exclude, wind_back,
                0)
            self.curves = self._work.measure()

    def compress(self, curves, budget, of='parameters'):
        return self._work.compress(curves, budget, of)


class Trained:
    """A dense network of a seed, and what becomes of it."""

    def __init__(self, name, seed, data, folder, n_calibration):
        self.name = name
        self.seed = seed
        self.data = data
        self.folder = folder
        self.calibration = data.fit[0][:n_calibration]

    @functools.cached_property
    def dense(self):
        model = make_network(NETWORKS[self.name], self.seed)
        path = self.folder / 'dense-{}-seed{}-{}.npz'.format(
            self.name, self.seed, self.data.checksum)
        if path.exists():
            chainer.serializers.load_npz(path, model)
            return model
        train(model, self.data.fit, EPOCHS, self.seed)
        with harness.written_whole(path) as unfinished:
            chainer.serializers.save_npz(str(unfinished), model)
        return model

    @functools.cached_property
    def measured(self):
        return Measured(self.dense, self.calibration)

    @functools.cached_property
    def measured_layer(self):
        """Nothing behind the layer makes good for it."""
        return Measured(self.dense, self.calibration, ['/l3'])

    def error(self, model):
        return float(test_error(model, self.data.counted))

    def tune(self, model, n_epochs):
        """The error after so many epochs; the model itself stays as it is."""
        model = copy.deepcopy(model)
        train(model, self.data.fit, n_epochs, self.seed, decay=True)
        return self.error(model), model

    def result(self, job):
        if job.layer:
            return self._layer(job)
        if job.way == 'dense':
            return {
                'parameters': count_parameters(self.dense),
                'before': self.error(self.dense),
                'after': self.tune(self.dense, 1)[0],
                'tuned': self.tune(self.dense, TUNED_EPOCHS)[0]}
        if job.way in scratch_peers.KINDS:
            return self._from_scratch(job)
        if job.way == '8 bits':
            return self._quantized()
        way = 'together' if job.way == 'tuned' else job.way
        try:
            new, row = self._compress(
                forms(self.measured.curves, way), 1 / job.budget)
        except ValueError as error:
            if 'cannot be met' not in str(error):
                raise
            return {'refused': str(error)}
        n_epochs = TUNED_EPOCHS if job.way == 'tuned' else 1
        row['after'] = self.tune(new, n_epochs)[0]
        return row

    def _compress(self, curves, budget, of='parameters'):
        new, report = self.measured.compress(curves, budget, of)
        return new, {
            'parameters': report.parameters,
            'operations': report.flops / report.dense_flops,
            'bytes': report.bytes / report.dense_bytes,
            'before': self.error(new),
            'reported': report.error,
            'measured': self._relative_error(self.dense, new),
            'layers': shapes(report)}

    def _from_scratch(self, job):
        sizes = [784, *NETWORKS[self.name], 10]
        model, layers = scratch_peers.train(
            job.way, sizes, count_parameters(self.dense) // job.budget,
            self.data.fit, self.seed)
        dense = 2 * sum(i * o for i, o in zip(sizes, sizes[1:], strict=False))
        return {
            'parameters': count_parameters(model),
            'operations': scratch_peers.operations(layers) / dense,
            'after': self.error(model),
            'layers': [
                [layer.n_tiles, layer.n_blocks, layer.out_size]
                for layer in layers]}

    def _quantized(self):
        new, row = self._compress(
            self.measured.curves, 1 / QUANTIZED[2], 'bytes')
        surgery.revert(new)
        row['six_epochs'], new = self.tune(new, TUNED_EPOCHS)
        surgery.quantize(new, self.calibration[:N_RANGES], 8)
        row['after'] = self.tune(new, 1)[0]
        return row

    def _layer(self, job):
        path = LAYER[1]
        W = self.dense[path[1:]].W
        whole = count_parameters(self.dense)
        # Its bias stays, and so do all other layers.
        allowed = whole - W.size + W.size // job.budget
        new, report = self.measured_layer.compress(
            forms_of_layer(self.measured_layer.curves, job.way, path),
            (allowed + .5) / whole)
        row, = (row for row in report.layers if row.path == path)
        return {
            'parameters': row.parameters,
            'before': self.error(new), 'dense': self.error(self.dense),
            'reported': row.error,
            'measured': self._relative_error(
                *(first_two(model) for model in (self.dense, new))),
            'layers': shapes(report)}

    def _relative_error(self, run, new_run):
        x = self.data.counted[0]
        with chainer.using_config('train', False), chainer.no_backprop_mode():
            y, z = (one(x).array.astype(float) for one in (run, new_run))
        return float(((y - z) ** 2).sum() / ((y - y.mean(0)) ** 2).sum())


def shapes(report):
    return [[layer.n_tiles, layer.rank, layer.inputs]
            for layer in report.layers]


def first_two(model):
    return lambda x: model.l2(F.relu(model.l1(x)))


class Data:
    """The digits to train on, and those to count the errors on."""

    def __init__(self, directory, validate):
        self.fit, self.counted = load(directory)
        if validate:
            images, labels = self.fit
            self.fit = images[:-N_VALIDATION], labels[:-N_VALIDATION]
            self.counted = images[-N_VALIDATION:], labels[-N_VALIDATION:]
        checksum = 0
        for array in (*self.fit, *self.counted):
            checksum = zlib.crc32(array.tobytes(), checksum)
        self.checksum = '{:08x}'.format(checksum)


def main(argv=None):
    args = harness.parse_args(__doc__.splitlines()[0], argv, add_arguments)
    try:
        data = Data(args.data, args.validate)
    except UserError as error:
        sys.exit(str(error))
    args.runs.mkdir(parents=True, exist_ok=True)
    results = {}
    trained = None
    for job in jobs(args):
        path = args.runs / '{}-{}-{}.json'.format(
            job.name, data.checksum, args.calibration)
        result = harness.read_result(path)
        if result is None and not args.report:
            if trained is None or (trained.name, trained.seed) != job[:2]:
                trained = None  # before there is another
                trained = Trained(
                    *job[:2], data, args.runs, args.calibration)
            start = time.process_time()
            result = trained.result(job)
            result['cpu_seconds'] = round(time.process_time() - start, 1)
            harness.keep_result(path, job._asdict() | result)
            print(job.name, result, flush=True)
        if result is not None and 'refused' not in result:
            results[job] = result
    compression_tables.report(args, __file__, results, {
        'digits': len(data.fit[0]), 'checksum': data.checksum,
        'validation': args.validate, 'calibration': args.calibration})


def add_arguments(parser):
    parser.add_argument(
        '--data', type=Path, default=None,
        help='folder with the four MNIST files')
    parser.add_argument(
        '--runs', type=Path, default=Path('result/compression_quality'),
        help='folder that keeps each result, and where a benchmark that was '
             'stopped goes on (default: %(default)s)')
    parser.add_argument(
        '--report', action='store_true',
        help='compute nothing, and report the results that are there')
    parser.add_argument(
        '--validate', action='store_true',
        help='train on all but the last 10,000 digits and count errors on '
             'those: to develop with')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--calibration', type=int, default=20000,
                        help='unlabelled digits to fit on')
    parser.add_argument(
        '--networks', nargs='+', choices=list(NETWORKS),
        default=list(NETWORKS))
    parser.add_argument(
        '--budgets', nargs='+', type=int, choices=BUDGETS, default=BUDGETS,
        help='times fewer parameters')
    parser.add_argument('--ways', nargs='+', choices=WAYS, default=WAYS)
    parser.add_argument(
        '--layer', action='store_true',
        help='one layer alone, instead of the networks')


if __name__ == '__main__':
    main()
