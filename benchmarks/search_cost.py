"""What it costs to find an order and fit a layer: seconds and memory.

Each case runs in a process of its own, on made-up inputs: either
SharedLinear.from_linear(..., order='search') on a layer alone, or
sl.share_weights on a network, which looks at the inputs several times, and
behind ReLU chooses and scales the units as well. The limits are those that
the package promises: a 1000-wide layer in 60 seconds and 1 GiB, a 4096-wide
one in 10 minutes and 4 GiB, on one core.
"""
import itertools
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import harness  # noqa: E402  isort: skip

import numpy  # noqa: E402

import shared_linear as sl  # noqa: E402

import chainer  # noqa: E402  isort: skip
import chainer.functions as F  # noqa: E402  isort: skip
import chainer.links as L  # noqa: E402  isort: skip

CALLS = 'from_linear', 'share_weights'
# Width, number of tiles, and the limits in seconds and GiB.
CASES = [(1000, 2, 60, 1), (1000, 10, 60, 1), (1000, 50, 60, 1),
         (4096, 2, 600, 4), (4096, 8, 600, 4)]
N_INPUTS = 20000
BATCH_SIZE = 1000


def batches(width):
    """Inputs as a layer behind a ReLU meets them, and some of them dead."""
    mixture = numpy.random.RandomState(0).normal(
        size=(width // 8, width)).astype(numpy.float32)
    mixture[:, :width // 50] = 0
    for seed in range(N_INPUTS // BATCH_SIZE):
        random = numpy.random.RandomState(seed)
        x = random.standard_normal(
            (BATCH_SIZE, width // 8)).astype(numpy.float32) @ mixture
        yield numpy.maximum(x, 0)


def share_layer(width, n_tiles):
    """Shares a layer alone; returns its error, and that in plain order."""
    link = L.Linear(width, width)
    yield
    shared = sl.SharedLinear.from_linear(
        link, n_tiles, batches(width), 'search')
    yield
    plain = sl.SharedLinear.from_linear(link, n_tiles, batches(width))
    x = next(batches(width))
    yield relative_error(shared(x), link(x)), relative_error(
        plain(x), link(x))


def share_network(width, n_tiles):
    """Shares the second of three layers, by what the network loses."""
    model = chainer.Sequential(
        L.Linear(width, width), F.relu, L.Linear(width, width), F.relu,
        L.Linear(width, 10))
    x = numpy.concatenate(list(batches(width)))
    yield
    new, report = sl.share_weights(model, x, {'/2': n_tiles})
    yield
    hidden = F.relu(model[0](x)).array
    plain = sl.SharedLinear.from_linear(model[2], n_tiles, hidden)
    yield report.layers[1].error, relative_error(
        plain(hidden[:BATCH_SIZE]), model[2](hidden[:BATCH_SIZE]))


def relative_error(actual, expected):
    actual, expected = actual.array, expected.array
    return float(
        ((actual - expected) ** 2).sum()
        / ((expected - expected.mean(0)) ** 2).sum())


def run_one(call, width, n_tiles):
    numpy.random.seed(0)
    steps = {'from_linear': share_layer, 'share_weights': share_network}[
        call](width, n_tiles)
    next(steps)
    wall, cpu = time.perf_counter(), time.process_time()
    next(steps)
    result = {
        'wall_seconds': time.perf_counter() - wall,
        'cpu_seconds': time.process_time() - cpu,
        'peak_gib': resource.getrusage(
            resource.RUSAGE_SELF).ru_maxrss / 2 ** 20,
        'inputs': N_INPUTS,
    }
    result['searched_error'], result['plain_error'] = next(steps)
    print(json.dumps(result))


def main(argv=None):
    args = harness.parse_args(__doc__.splitlines()[0], argv)
    results, rows, missed = [], [], []
    for call, (width, n_tiles, seconds, gib) in itertools.product(
            CALLS, CASES):
        output = subprocess.run(
            [sys.executable, __file__, '--one', call, str(width),
             str(n_tiles)],
            check=True, stdout=subprocess.PIPE, text=True).stdout
        result = {'call': call, 'width': width, 'n_tiles': n_tiles,
                  'seconds_at_most': seconds, 'gib_at_most': gib,
                  **json.loads(output)}
        print(result, flush=True)
        results.append(result)
        if result['cpu_seconds'] > seconds or result['peak_gib'] > gib:
            missed.append('{}, {} by {}'.format(call, width, n_tiles))
        if not result['searched_error'] < result['plain_error']:
            sys.exit('the search found nothing: {}'.format(result))
        rows.append([
            '{}, {} by {}'.format(call, width, n_tiles),
            '{:.0f}'.format(result['wall_seconds']),
            '{:.0f}'.format(result['cpu_seconds']), str(seconds),
            '{:.2f}'.format(result['peak_gib']), str(gib),
            '{:.1%}'.format(result['plain_error']),
            '{:.1%}'.format(result['searched_error'])])
        harness.save(args, __file__, results)
    harness.print_table(
        ['call, width by n', 'seconds', 'CPU seconds', 'at most', 'GiB',
         'at most', 'error, plain order', 'searched'], rows)
    if missed:
        sys.exit('over the limit: ' + ', '.join(missed))


if __name__ == '__main__':
    if sys.argv[1:2] == ['--one']:
        run_one(sys.argv[2], *map(int, sys.argv[3:]))
    else:
        main()
