"""What sharing a trained network costs in test error, over several seeds.

For 784-1000-900-10 and LeNet-300-100, trained densely for five epochs: the
error after sl.share_weights, without labels or training, and after one epoch
of fine-tuning, less that of the dense network. Beside them is the dense
network after the same epoch, which is what the epoch alone is worth. Last,
the fully connected head of a small convolutional network.
"""
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import harness  # noqa: E402  isort: skip

import numpy  # noqa: E402

import shared_linear as sl  # noqa: E402
from examples.compress_mnist import (  # noqa: E402
    NETWORKS,
    load,
    make_network,
    test_error,
    train,
)

import chainer  # noqa: E402  isort: skip
import chainer.functions as F  # noqa: E402  isort: skip
import chainer.links as L  # noqa: E402  isort: skip

# What is shared, and the most points of error that it may cost without
# training and after one epoch.
CASES = {
    '1000-900': [
        ('second by 4', {'n_tiles': {'/l2': 4}}, .1, 0.),
        ('second by 10', {'n_tiles': {'/l2': 10}}, .15, .05),
        ('second by 20', {'n_tiles': {'/l2': 20}}, .4, .1),
        ('second by 50', {'n_tiles': {'/l2': 50}}, 1.5, .3),
        ('first by 7', {'n_tiles': {'/l1': 7}}, .1, .05),
        ('first by 14', {'n_tiles': {'/l1': 14}}, .25, .1),
        ('all, budget 1/15', {'budget': 1 / 15}, 1., .2),
    ],
    'lenet-300-100': [
        ('all, budget 1/5', {'budget': 1 / 5}, None, None),
        ('all, budget 1/10', {'budget': 1 / 10}, None, None),
    ],
    'small CNN': [
        ('head by 8', {'n_tiles': {'/head1': 8}}, None, None),
        ('head by 16', {'n_tiles': {'/head1': 16}}, None, None),
    ],
}


class SmallCNN(chainer.Chain):

    """Two convolutions, and a head that has 99 % of the parameters."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv1 = L.Convolution2D(1, 4, 5, stride=2)
            self.conv2 = L.Convolution2D(4, 8, 3)
            self.head1 = L.Linear(800, 200)
            self.head2 = L.Linear(200, 10)

    def forward(self, x):
        h = F.relu(self.conv1(x.reshape(len(x), 1, 28, 28)))
        h = F.relu(self.conv2(h))
        return self.head2(F.relu(self.head1(h)))


def make(name, seed):
    if name == 'small CNN':
        numpy.random.seed(seed)
        return SmallCNN()
    return make_network(NETWORKS[name], seed)


def train_dense(name, seed, digits, folder):
    model = make(name, seed)
    path = folder and folder / '{}-{}.npz'.format(name.replace(' ', '-'), seed)
    if path and path.exists():
        chainer.serializers.load_npz(path, model)
    else:
        train(model, digits, 5, seed)
        if path:
            folder.mkdir(parents=True, exist_ok=True)
            chainer.serializers.save_npz(path, model)
    return model


def measure(name, case, dense, seed, args, train_digits, test_digits):
    start = time.perf_counter()
    calibration = train_digits[0][:args.calibration]
    new, report = sl.share_weights(
        dense, calibration, seed=seed, n_sweeps=args.sweeps, **case)
    seconds = time.perf_counter() - start
    shared = test_error(new, test_digits)
    train(new, train_digits, 1, seed, decay=True)
    return {
        'seed': seed,
        'shared': float(shared),
        'one_epoch': float(test_error(new, test_digits)),
        'compression': report.compression,
        'n_tiles': [layer.n_tiles for layer in report.layers],
        'layer_errors': [
            None if layer.error != layer.error else layer.error
            for layer in report.layers],
        'seconds': round(seconds, 1),
    }


def main(argv=None):
    args = harness.parse_args(__doc__.splitlines()[0], argv, add_arguments)
    train_digits, test_digits = load(args.data)
    results = []
    for name in args.networks:
        # In turn: what is there when time runs out are whole seeds.
        by_case = {what: [] for what, *_ in CASES[name]}
        denses = []
        for seed in range(args.seeds):
            dense = train_dense(name, seed, train_digits, args.dense)
            denses.append({'seed': seed, 'dense': float(
                test_error(dense, test_digits))})
            for what, case, *_ in CASES[name]:
                by_case[what].append(measure(
                    name, case, dense, seed, args, train_digits, test_digits))
                print(name, what, by_case[what][-1], flush=True)
            train(dense, train_digits, 1, seed, decay=True)
            denses[-1]['one_epoch'] = float(test_error(dense, test_digits))
            harness.save(args, __file__, {
                'digits': len(train_digits[0]),
                'networks': results + [summarize(name, denses, by_case)]})
        results.append(summarize(name, denses, by_case))
    print_results(results)


def add_arguments(parser):
    parser.add_argument(
        '--data', type=Path, default=None,
        help='folder with the four MNIST files')
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--calibration', type=int, default=60000,
                        help='unlabelled digits to fit on')
    parser.add_argument('--sweeps', type=int, default=None,
                        help='step limit of each search')
    parser.add_argument(
        '--networks', nargs='+', choices=list(CASES), default=list(CASES))
    parser.add_argument(
        '--dense', type=Path, default=None,
        help='folder that keeps the dense networks for another time')


def summarize(name, denses, by_case):
    dense = statistics.mean(d['dense'] for d in denses)
    rows = []
    for what, _, at_most, at_most_one_epoch in CASES[name]:
        runs = by_case[what]
        row = {'what': what, 'runs': runs}
        for key, bound in (
                ('shared', at_most), ('one_epoch', at_most_one_epoch)):
            row[key] = statistics.mean(run[key] for run in runs)
            row[key + '_more'] = row[key] - dense
            row[key + '_at_most'] = bound
        rows.append(row)
    return {
        'network': name, 'dense': dense,
        'dense_one_epoch': statistics.mean(d['one_epoch'] for d in denses),
        'dense_runs': denses, 'rows': rows}


def print_results(results):
    for network in results:
        print('\n{}: dense {:.2f} %, after one more epoch {:.2f} %'.format(
            network['network'], network['dense'],
            network['dense_one_epoch']))
        rows = []
        for row in network['rows']:
            cells = [row['what']]
            for key in ('shared', 'one_epoch'):
                cells += [
                    '{:+.2f}'.format(row[key + '_more']),
                    '' if row[key + '_at_most'] is None
                    else '{:+.2f}'.format(row[key + '_at_most'])]
            compressions = [run['compression'] for run in row['runs']]
            seconds = [run['seconds'] for run in row['runs']]
            cells += ['{:.1f}'.format(statistics.mean(compressions)),
                      '{:.0f}'.format(statistics.mean(seconds))]
            rows.append(cells)
        harness.print_table(
            ['shared', 'points more', 'at most', 'after an epoch', 'at most',
             'times smaller', 'seconds'], rows)


if __name__ == '__main__':
    main()
