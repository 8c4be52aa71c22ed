"""Trains the digits network, writes it to ONNX and runs it in onnxruntime.

The network is 784 -> 1000 -> 900 -> 10, the weight of its second layer shared
by ten tiles. In the file that layer is a sum over the tiles and the small
product. Beside it go the same network in 8 bits, its weights stored as
integers, and the dense network that computes the same, for size and time.
"""
import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import shared_linear as sl  # noqa: E402,I001  (before chainer)
import chainer  # noqa: E402
import chainer.links as L  # noqa: E402
import numpy  # noqa: E402
from mnist.data import load_digits  # noqa: E402
from mnist.errors import UserError  # noqa: E402
from mnist.network import MLP, N_PIXELS  # noqa: E402

from shared_linear import surgery  # noqa: E402

BATCH = 100


class Parser(argparse.ArgumentParser):

    def error(self, message):
        raise UserError(message)


def at_least_one(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            'expected a number of at least 1, not {!r}'.format(text))
    return int(text)


def parse(argv):
    parser = Parser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        '--data', metavar='DIR', default=argparse.SUPPRESS,
        help='Folder with the four IDX files of MNIST (without it: what '
        'train_mnist.py would take)')
    parser.add_argument(
        '--epoch', '-e', type=at_least_one, default=5,
        help='Number of sweeps over the training digits')
    parser.add_argument(
        '--n-tiles', type=at_least_one, default=10,
        help='Tiles of the second layer; they divide 1000')
    parser.add_argument(
        '--out', '-o', default='result', help='Folder of the files')
    return parser.parse_args(argv, argparse.Namespace(data=None))


def train(network, digits, n_epochs):
    model = L.Classifier(network)
    optimizer = chainer.optimizers.Adam()
    optimizer.setup(model)
    updater = chainer.training.StandardUpdater(
        chainer.iterators.SerialIterator(digits.train, BATCH), optimizer)
    while updater.epoch < n_epochs:
        epoch = updater.epoch
        updater.update()
        if updater.epoch > epoch:
            print('# epoch {} of {}'.format(updater.epoch, n_epochs))


def run_chainer(network, images):
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        return numpy.concatenate([
            network(images[i:i + BATCH]).array
            for i in range(0, len(images), BATCH)])


def run_onnx(path, images):
    """Returns the scores, and the seconds for a batch."""
    import onnxruntime
    session = onnxruntime.InferenceSession(
        path, providers=['CPUExecutionProvider'])
    scores, seconds = [], []
    for i in range(0, len(images), BATCH):
        start = time.perf_counter()
        scores += session.run(None, {'x': images[i:i + BATCH]})
        seconds.append(time.perf_counter() - start)
    return numpy.concatenate(scores), numpy.median(seconds)


def make_dense(network):
    """The network with the tiles of its second layer written out."""
    dense = network.copy()
    del dense.l2
    with dense.init_scope():
        dense.l2 = network.l2.to_linear()
    return dense


def quantize(network, images):
    """A copy, whose activations have the range of these images."""
    quantized = network.copy(mode='copy')
    surgery.quantize(quantized, images)
    return quantized


def export(network, path):
    x = numpy.zeros((1, N_PIXELS), numpy.float32)
    try:
        sl.onnx.export(network, x, path)
    except ImportError as e:
        raise UserError(str(e)) from e
    except OSError as e:
        raise UserError('--out: {}: {}'.format(path, e.strerror)) from e


def format_table(rows):
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join(
        '  '.join(
            [row[0].ljust(widths[0])] + [
                cell.rjust(width) for cell, width in zip(
                    row[1:], widths[1:], strict=True)])
        for row in rows)


def compare(networks, out, digits):
    """Writes each network, runs it in both, and returns the table."""
    images, labels = (numpy.asarray(a) for a in digits.test._datasets)
    rows = [('', *networks)]
    columns = []
    for name, network in networks.items():
        path = out / 'mnist_{}.onnx'.format(name.replace(' ', '_'))
        export(network, path)
        expected = run_chainer(network, images)
        scores, seconds = run_onnx(path, images)
        accuracies = [
            '{:.2f} %'.format(100 * (s.argmax(1) == labels).mean())
            for s in (expected, scores)]
        columns.append([
            path.name, '{:,}'.format(path.stat().st_size),
            '{:,}'.format(sum(p.size for p in network.l2.params())),
            *accuracies, '{:.1e}'.format(abs(scores - expected).max()),
            '{:.2f} ms'.format(1000 * seconds)])
    names = [
        'file', 'bytes', 'weights of layer 2',
        'accuracy in Chainer', 'accuracy in onnxruntime',
        'largest difference',
        'onnxruntime, {} digits'.format(BATCH)]
    rows += zip(names, *columns, strict=True)
    return format_table(rows)


def main(argv=None):
    try:
        args = parse(argv)
        try:
            import onnxruntime  # noqa: F401
        except ImportError as e:
            raise UserError(
                'this runs the file in onnxruntime: pip install '
                '".[onnx]"') from e
        try:
            network = MLP(1000, 900, n_tiles=args.n_tiles)
        except ValueError as e:
            raise UserError('--n-tiles: {}'.format(e)) from e
        out = Path(args.out)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise UserError('--out {}: {}'.format(out, e.strerror)) from e
        digits = load_digits(
            args.data, report=lambda line: print('#', line, flush=True))
        print('# data:', digits.source, flush=True)
        train(network, digits, args.epoch)
        print()
        calibration = numpy.asarray(digits.train._datasets[0][:1000])
        print(compare({
            'shared': network, 'int8': quantize(network, calibration),
            'dense': make_dense(network)}, out, digits))
    except UserError as e:
        print('export_onnx.py: error:', ' '.join(str(e).splitlines()),
              file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('export_onnx.py: stopped', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
