"""Edits networks that are already built, without touching their source.

First the three lines of a network with a square put between two of its
functions. Then a small convolutional network that is trained on digits: its
batch normalizations are folded into the convolutions, its activations and
weights are quantized, and it is trained on as quantized. The pictures before
and after are Graphviz text: dot -Tsvg result/article_after.dot > after.svg
"""
import argparse
import copy
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import shared_linear  # noqa: E402,F401,I001  (before chainer)
import chainer  # noqa: E402
import chainer.functions as F  # noqa: E402
import chainer.links as L  # noqa: E402
import numpy as np  # noqa: E402
from shared_linear import surgery  # noqa: E402


class Article(chainer.Chain):

    def forward(self, x):
        h = x + 0.5
        y = h * -2
        return y


class CNN(chainer.Chain):

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv1 = L.Convolution2D(1, 16, 3, pad=1, nobias=True)
            self.bn1 = L.BatchNormalization(16)
            self.conv2 = L.Convolution2D(16, 32, 3, pad=1, nobias=True)
            self.bn2 = L.BatchNormalization(32)
            self.fc1 = L.Linear(32 * 7 * 7, 100)
            self.fc2 = L.Linear(100, 10)

    def forward(self, x):
        h = F.reshape(x, (-1, 1, 28, 28))
        h = F.max_pooling_2d(F.relu(self.bn1(self.conv1(h))), 2)
        h = F.max_pooling_2d(F.relu(self.bn2(self.conv2(h))), 2)
        h = F.dropout(F.relu(self.fc1(h)), .3)
        return self.fc2(h)


def values(model, x):
    found = []
    surgery.trace(model, x).visit(
        lambda node: found.append(float(node.outputs[0].array[0])))
    return found


def edit_the_article(out):
    model = Article()
    x = chainer.Variable(np.zeros(1, np.float32))
    (out / 'article_before.dot').write_text(surgery.trace(model, x).to_dot())
    print('The article: y = (x + 0.5) * -2 at x = 0')
    print('  its functions compute ', values(model, x))
    surgery.insert_after(model, '/AddConstant', F.square)
    print('  with a square between ', values(model, x))
    (out / 'article_after.dot').write_text(surgery.trace(model, x).to_dot())


def batches(dataset, size, rng=None):
    order = np.arange(len(dataset))
    if rng is not None:
        rng.shuffle(order)
    for i in range(0, len(order), size):
        yield chainer.dataset.concat_examples(
            [dataset[j] for j in order[i:i + size]])


def train(model, dataset, n_epochs, optimizer, seed):
    rng = np.random.RandomState(seed)
    optimizer.setup(model)
    for _ in range(n_epochs):
        for x, t in batches(dataset, 100, rng):
            optimizer.update(
                lambda x, t: F.softmax_cross_entropy(model(x), t), x, t)


def outputs(model, dataset):
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        return np.concatenate([
            model(x).array for x, _ in batches(dataset, 500)])


def error(y, dataset):
    """Wrong answers in percent."""
    labels = np.array([t for _, t in dataset])
    return 100 * float((y.argmax(axis=1) != labels).mean())


def save_picture(model, x, path):
    with chainer.using_config('train', False):
        path.write_text(surgery.trace(model, x).to_dot())


def edit_the_cnn(digits, args, out):
    np.random.seed(args.seed)
    training, test = digits.train[:args.images], digits.test
    calibration = [x for x, _ in batches(training[:500], 100)]
    example = calibration[0][:2]
    start = time.perf_counter()

    model = CNN()
    train(model, training, args.epochs, chainer.optimizers.Adam(), args.seed)
    trained = outputs(model, test)
    rows = [('trained', error(trained, test))]
    save_picture(model, example, out / 'cnn_before.dot')
    print(f'\nA CNN, trained {args.epochs} epochs on {len(training)} digits, '
          f'tested on {len(test)}')

    print(surgery.fold_batch_normalization(model, example))
    folded = outputs(model, test)
    moved = abs(folded - trained).max() / abs(trained).max()
    print(f'outputs move by {moved:.1e} of the greatest')
    rows.append(('batch normalization folded', error(folded, test)))

    for n_bits in dict.fromkeys([args.bits, 3]):
        quantized = copy.deepcopy(model)
        report = surgery.quantize(quantized, calibration, n_bits=n_bits)
        rows.append((f'quantized to {n_bits} bits',
                     error(outputs(quantized, test), test)))
        if n_bits == args.bits:
            print(report)
            save_picture(quantized, example, out / 'cnn_after.dot')
        # The gradient passes the rounding straight through.
        train(quantized, training, args.fine_tune,
              chainer.optimizers.Adam(alpha=3e-4), args.seed + 1)
        rows.append((f'  and trained on, {args.fine_tune} epochs',
                     error(outputs(quantized, test), test)))
        chainer.serializers.save_npz(
            out / f'cnn_{n_bits}_bits.npz', quantized)

    print(f'\n{"":30} {"test error":>10} {"change":>10}')
    for name, percent in rows:
        print(f'{name:30} {percent:8.2f} % {percent - rows[0][1]:+10.2f}')
    print(f'{time.perf_counter() - start:.0f} s; the pictures and the models '
          f'are in {out}')


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'{value} is not at least 1')
    return value


def bits(text):
    value = int(text)
    if not 2 <= value <= 16:
        raise argparse.ArgumentTypeError(f'{value} is not from 2 to 16')
    return value


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', metavar='DIR', type=Path,
                        help='folder with the four IDX files of MNIST')
    parser.add_argument('-o', '--out', metavar='DIR', type=Path,
                        default=Path('result/edit_a_trained_network'),
                        help='where results go (default: %(default)s)')
    parser.add_argument('--images', type=positive, default=5000,
                        help='digits to train on, at most '
                        '(default: %(default)s)')
    parser.add_argument('--epochs', type=positive, default=5,
                        help='of training (default: %(default)s)')
    parser.add_argument('--fine-tune', type=positive, default=2,
                        help='epochs of training as quantized '
                        '(default: %(default)s)')
    parser.add_argument('--bits', type=bits, default=8,
                        help='to quantize to (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0,
                        help='of the random generators (default: 0)')
    args = parser.parse_args()

    # After the options, so that --help needs no data.
    from mnist.data import DataError, load_digits
    try:
        digits = load_digits(args.data)
        args.out.mkdir(parents=True, exist_ok=True)
    except (DataError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    edit_the_article(args.out)
    print(f'\nDigits: {digits.source}')
    edit_the_cnn(digits, args, args.out)
    return 0


if __name__ == '__main__':
    sys.exit(main())
