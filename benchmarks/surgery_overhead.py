"""What edits cost: a training step of an edited MLP against a plain one.

The network is the article's, 784-1000-900-10 with a batch of 100. The edited
one has the identity inserted after both ReLUs, which costs what the edits
cost and nothing more. Steps of the two alternate (A B, B A), so that
whatever else the machine does falls on both, and neither always comes
second. Before any timing, the two are checked to compute the same loss and
the same gradients, bit for bit.

The same step of a network of one unit per layer tells the cost by itself, in
microseconds, where there is next to nothing to compute.
"""
import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import shared_linear  # noqa: E402,I001  (before chainer)
import chainer  # noqa: E402
import chainer.functions as F  # noqa: E402
import chainer.links as L  # noqa: E402
import numpy as np  # noqa: E402
from shared_linear import surgery  # noqa: E402

THREADS = ('OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS', 'MKL_NUM_THREADS')


class MLP(chainer.Chain):

    def __init__(self, n_in, n_hidden1, n_hidden2, n_out):
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(n_in, n_hidden1)
            self.l2 = L.Linear(n_hidden1, n_hidden2)
            self.l3 = L.Linear(n_hidden2, n_out)

    def forward(self, x):
        h = F.relu(self.l1(x))
        h = F.relu(self.l2(h))
        return self.l3(h)


def same(h):
    return h


def make_step(model, x, t):
    optimizer = chainer.optimizers.Adam().setup(model)

    def step():
        optimizer.update(lambda: F.softmax_cross_entropy(model(x), t))

    return step


def check(plain, edited, x, t):
    """Stops unless both compute the same loss and gradients."""
    graph = surgery.trace(edited, x)
    if [node.inserted for node in graph.calls if node.inserted] != [
            'same', 'same']:
        sys.exit('the identity does not run at both ReLUs')
    for model in plain, edited:
        model.cleargrads()
    losses = [F.softmax_cross_entropy(model(x), t)
              for model in (plain, edited)]
    for loss in losses:
        loss.backward()
    grads = dict(edited.namedparams())
    if not (losses[0].array == losses[1].array and all(
            np.array_equal(param.grad, grads[path].grad)
            for path, param in plain.namedparams())):
        sys.exit('the edited model does not compute what the plain one does')


def interleave(widths, batch, n_warm_up, n_steps):
    """Seconds of each step of both networks, by the wall and by the CPU."""
    rng = np.random.RandomState(0)
    np.random.seed(0)
    x = rng.rand(batch, widths[0]).astype(np.float32)
    t = rng.randint(0, widths[-1], batch).astype(np.int32)
    plain = MLP(*widths)
    edited = plain.copy('copy')
    surgery.insert_after(edited, '/ReLU*', same, x=x)
    check(plain, edited, x, t)
    steps = {'plain': make_step(plain, x, t),
             'edited': make_step(edited, x, t)}
    for _ in range(n_warm_up):
        for step in steps.values():
            step()
    seconds = {name: [] for name in steps}
    cpu_seconds = {name: [] for name in steps}
    for i in range(n_steps):
        for name, step in sorted(steps.items(), reverse=bool(i % 2)):
            start, cpu_start = time.perf_counter(), time.process_time()
            step()
            seconds[name].append(time.perf_counter() - start)
            cpu_seconds[name].append(time.process_time() - cpu_start)
    return seconds, cpu_seconds


def summary(seconds, cpu_seconds):
    plain, edited = seconds['plain'], seconds['edited']
    return {
        'milliseconds': {
            name: dict(zip(
                ('quartile_1', 'median', 'quartile_3'),
                (1000 * q for q in statistics.quantiles(values, n=4)),
                strict=True))
            for name, values in seconds.items()},
        'overhead_percent': {
            'of_medians': 100 * (
                statistics.median(edited) / statistics.median(plain) - 1),
            'median_of_pairs': 100 * statistics.median(
                b / a - 1 for a, b in zip(plain, edited, strict=True)),
            # What the process itself computed, however busy the machine.
            'of_cpu_medians': 100 * (
                statistics.median(cpu_seconds['edited'])
                / statistics.median(cpu_seconds['plain']) - 1)},
        'overhead_microseconds': 1e6 * (
            statistics.median(edited) - statistics.median(plain))}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0])
    parser.add_argument('--steps', type=int, default=200,
                        help='timed steps of each model (default: 200)')
    parser.add_argument('--warm-up', type=int, default=20,
                        help='steps before the timing (default: 20)')
    parser.add_argument('--batch', type=int, default=100,
                        help='size of the batch (default: 100)')
    parser.add_argument('--json', metavar='FILE', help='write the result')
    args = parser.parse_args()
    if args.steps < 2 or args.batch < 1 or args.warm_up < 1:
        parser.error('at least 2 steps, 1 step of warm-up and a batch of 1')

    networks = {'-'.join(map(str, widths)): (widths, batch)
                for widths, batch in [((784, 1000, 900, 10), args.batch),
                                      ((1, 1, 1, 1), 1)]}
    result = {
        'benchmark': 'surgery_overhead',
        'command': ' '.join(['python', *sys.argv]),
        'batch': args.batch,
        'steps': args.steps,
        'networks': {
            name: summary(*interleave(*network, args.warm_up, args.steps))
            for name, network in networks.items()},
        'machine': {
            'processor': processor(), 'cores': os.cpu_count(),
            'system': platform.platform(),
            'threads': {name: os.environ.get(name) for name in THREADS}},
        'versions': {
            'python': platform.python_version(),
            'numpy': np.__version__, 'chainer': chainer.__version__,
            'shared_linear': shared_linear.__version__},
    }
    print(f'{"ms per step":18} {"":8} {"median":>8} {"quartiles":>17}')
    for name, figures in result['networks'].items():
        for which, ms in figures['milliseconds'].items():
            print(f'{name:18} {which:8} {ms["median"]:8.3f} '
                  f'{ms["quartile_1"]:8.3f} {ms["quartile_3"]:8.3f}')
        overhead = figures['overhead_percent']
        print(f'{"":18} overhead {overhead["of_medians"]:.1f} % of medians, '
              f'{overhead["median_of_pairs"]:.1f} % median of pairs, '
              f'{overhead["of_cpu_medians"]:.1f} % of CPU time, '
              f'{figures["overhead_microseconds"]:.0f} us')
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=2) + '\n')


def processor():
    try:
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    except OSError:
        # Not Linux: platform knows less, but something.
        return platform.processor()
    return platform.processor()


if __name__ == '__main__':
    main()
