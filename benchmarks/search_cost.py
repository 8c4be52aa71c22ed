"""What it costs to find an order and fit a layer: seconds and memory.

Each case runs SharedLinear.from_linear(..., order='search') in a process of
its own, on made-up inputs. Its limits are those that the package promises: a
1000-wide layer in 60 seconds and 1 GiB, a 4096-wide one in 10 minutes and
4 GiB, on one core.
"""
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

import chainer.links as L  # noqa: E402  isort: skip

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


def run_one(width, n_tiles):
    numpy.random.seed(0)
    link = L.Linear(width, width)
    wall, cpu = time.perf_counter(), time.process_time()
    shared = sl.SharedLinear.from_linear(
        link, n_tiles, batches(width), 'search')
    result = {
        'wall_seconds': time.perf_counter() - wall,
        'cpu_seconds': time.process_time() - cpu,
        'peak_gib': resource.getrusage(
            resource.RUSAGE_SELF).ru_maxrss / 2 ** 20,
        'inputs': N_INPUTS,
    }
    plain = sl.SharedLinear.from_linear(link, n_tiles, batches(width))
    x = next(batches(width))
    y = link(x).array
    for name, layer in (('searched', shared), ('plain', plain)):
        error = ((layer(x).array - y) ** 2).sum()
        result[name + '_error'] = float(
            error / ((y - y.mean(0)) ** 2).sum())
    print(json.dumps(result))


def main(argv=None):
    args = harness.parse_args(__doc__.splitlines()[0], argv)
    results, rows, missed = [], [], []
    for width, n_tiles, seconds, gib in CASES:
        output = subprocess.run(
            [sys.executable, __file__, '--one', str(width), str(n_tiles)],
            check=True, stdout=subprocess.PIPE, text=True).stdout
        result = {'width': width, 'n_tiles': n_tiles,
                  'seconds_at_most': seconds, 'gib_at_most': gib,
                  **json.loads(output)}
        results.append(result)
        if result['cpu_seconds'] > seconds or result['peak_gib'] > gib:
            missed.append('{} by {}'.format(width, n_tiles))
        if not result['searched_error'] < result['plain_error']:
            sys.exit('the search found nothing: {}'.format(result))
        rows.append([
            '{} by {}'.format(width, n_tiles),
            '{:.0f}'.format(result['wall_seconds']),
            '{:.0f}'.format(result['cpu_seconds']), str(seconds),
            '{:.2f}'.format(result['peak_gib']), str(gib),
            '{:.1%}'.format(result['plain_error']),
            '{:.1%}'.format(result['searched_error'])])
        harness.save(args, __file__, results)
    harness.print_table(
        ['width by n', 'seconds', 'CPU seconds', 'at most', 'GiB', 'at most',
         'error, plain order', 'searched'], rows)
    if missed:
        sys.exit('over the limit: ' + ', '.join(missed))


if __name__ == '__main__':
    if sys.argv[1:2] == ['--one']:
        run_one(*map(int, sys.argv[2:]))
    else:
        main()
