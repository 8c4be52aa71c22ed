"""What sharing and 8 bits are worth in onnxruntime: bytes and milliseconds.

The network 784-1000-900-10, written to ONNX four times and run on one thread,
in one interleaved run, in seconds of the processor:

  dense         floats
  shared        the second layer shared by ten tiles, floats
  dense int8    after surgery.quantize, x quantized as well
  shared int8   likewise
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import harness  # noqa: E402  isort: skip

import tempfile  # noqa: E402
import time  # noqa: E402

import numpy  # noqa: E402

import shared_linear as sl  # noqa: E402
from shared_linear import surgery  # noqa: E402

import chainer  # noqa: E402  isort: skip
import chainer.functions as F  # noqa: E402  isort: skip
import chainer.links as L  # noqa: E402  isort: skip

BATCHES = [1, 100, 1000]
N_TILES = 10
COLUMNS = ['bytes', 'ms', 'dense / this']


def make(n_tiles=1):
    if n_tiles == 1:
        second = L.Linear(1000, 900)
    else:
        second = sl.SharedLinear(1000, 900, n_tiles=n_tiles)
    return chainer.Sequential(
        L.Linear(784, 1000), F.relu, second, F.relu, L.Linear(900, 10))


def quantized(model, x):
    """Weights and activations by surgery, and x by a range of its own."""
    surgery.quantize(model, x)
    quantizer = surgery.FakeQuantize()
    whole = chainer.Sequential(quantizer, model)
    run_chainer(whole, x)
    quantizer.calibrating = False
    return whole


def run_chainer(model, x):
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        return model(x).array


def write(models, x, folder):
    """The files, each checked against its model by the export itself."""
    paths = {}
    for name, model in models.items():
        paths[name] = Path(folder) / (name.replace(' ', '_') + '.onnx')
        sl.onnx.export(model, x[:4], paths[name])
    return paths


def session_of(path):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        path, options, providers=['CPUExecutionProvider'])


def contestant(path, x):
    session = session_of(path)
    return lambda: session.run(None, {'x': x})[0]


def compare(contestants, seconds):
    """All of them by turns, in seconds of the processor.

    One thread computes, so that what else runs on the machine does not count.
    """
    samples = {name: {'run': []} for name in contestants}
    repeats = {}
    for name, run in contestants.items():
        run()
        start = time.thread_time()
        run()
        repeats[name] = 1 + int(.01 / max(time.thread_time() - start, 1e-6))
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < 5 or time.perf_counter() < end:
        rounds += 1
        for name, run in contestants.items():
            start = time.thread_time()
            for _ in range(repeats[name]):
                run()
            samples[name]['run'].append(
                (time.thread_time() - start) / repeats[name])
    return harness.Timings(samples)


def main(argv=None):
    def add_arguments(parser):
        parser.add_argument(
            '--batch', type=int, nargs='+', default=BATCHES, metavar='B')
        parser.add_argument(
            '--seconds', type=float, default=5,
            help='time for each batch size (default: 5)')

    args = harness.parse_args(
        __doc__.splitlines()[0], argv, add_arguments)
    random = numpy.random.RandomState(0)
    x = random.uniform(0, 1, (max(args.batch), 784)).astype('f')
    models = {
        'dense': make(), 'shared': make(N_TILES),
        'dense int8': quantized(make(), x[:1000]),
        'shared int8': quantized(make(N_TILES), x[:1000]),
    }
    results = []
    with tempfile.TemporaryDirectory() as folder:
        paths = write(models, x, folder)
        sizes = {name: path.stat().st_size for name, path in paths.items()}
        for batch in args.batch:
            rows = x[:batch]
            contestants = {
                name: contestant(path, rows) for name, path in paths.items()}
            for name in 'dense', 'shared':
                harness.check_close(
                    contestants[name](),
                    run_chainer(models[name], rows), name)
            timings = compare(contestants, args.seconds)
            table = []
            for name in models:
                seconds = timings.seconds(name, 'run')
                ratio = timings.ratio('dense', name, 'run')
                results.append({
                    'batch': batch, 'model': name, 'bytes': sizes[name],
                    'seconds': seconds._asdict(),
                    'dense / this': ratio._asdict()})
                table.append([
                    name, '{:,}'.format(sizes[name]),
                    harness.milliseconds(seconds), harness.times(ratio)])
            print('\nbatch {}: median (quartiles)'.format(batch))
            harness.print_table(['model', *COLUMNS], table)
    path = harness.save(args, __file__, results)
    print('\nwritten: {}'.format(path))


if __name__ == '__main__':
    main()
