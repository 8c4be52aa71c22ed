"""What sl.compress costs: seconds, and memory beside what it announces.

Each case runs in a process of its own:

  wide    25088-4096-4096-1000, the classifier of VGG16, of random weights,
          to 1/8, by 2,000 made-up inputs as a layer behind ReLUs meets them
  mnist   784-1000-900-10, trained for two epochs, to several budgets, by
          20,000 digits
  deep    chains of 128-wide layers behind ReLUs to 1/4, by 2,000 inputs: the
          time grows with the depth, not its square

CPU seconds are those of the user and the system together. The memory is that
of the whole process, model and inputs included; what is announced is what
compressing adds to them. The limits are those that issue "7." asks for; as
the machine may be busy, that of the seconds is held against those of the CPU.
Results of cases that are not run stay in the file.
"""
import json
import os
import resource
import subprocess
import sys
import tempfile
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
    train,
)

import chainer  # noqa: E402  isort: skip
import chainer.functions as F  # noqa: E402  isort: skip
import chainer.links as L  # noqa: E402  isort: skip

# Times smaller; for the deep ones the number of layers.
NUMBERS = {'wide': [8], 'mnist': [2, 15, 54], 'deep': [8, 16, 32, 64]}
# Seconds and GiB.
LIMITS = {'wide': (600, 8), 'mnist': (60, 1), 'deep': (None, None)}
CLASSIFIER = 25088, 4096, 4096, 1000
DEEP_WIDTH, DEEP_BUDGET = 128, 1 / 4
N_INPUTS = 2000
N_DIGITS = 20000


def chain(sizes):
    """Dense layers, ReLU between; random weights as by He et al., 2015."""
    layers = []
    for in_size, out_size in zip(sizes, sizes[1:], strict=False):
        layers += [
            L.Linear(in_size, out_size, initialW=chainer.initializers.HeNormal(
                rng=numpy.random.RandomState(len(layers)))), F.relu]
    return chainer.Sequential(*layers[:-1])


def made_up(width, n_causes=250, count=N_INPUTS):
    """Many units behind a ReLU that have few causes, and some noise."""
    rng = numpy.random.RandomState(0)
    x = numpy.empty((count, width), numpy.float32)
    causes = rng.standard_normal((count, n_causes)).astype(numpy.float32)
    mixture = rng.standard_normal((n_causes, width)).astype(numpy.float32)
    mixture *= numpy.float32(n_causes ** -.5)
    for start in range(0, count, 100):
        rows = slice(start, start + 100)
        x[rows] = causes[rows] @ mixture
        x[rows] += .3 * rng.standard_normal(x[rows].shape)
    x -= numpy.float32(.5)
    return numpy.maximum(x, 0, out=x)


def prepare(case, number, data, path):
    """Model, inputs and budget."""
    if case == 'wide':
        return chain(CLASSIFIER), made_up(CLASSIFIER[0]), 1 / number
    if case == 'deep':
        sizes = (DEEP_WIDTH,) * number + (10,)
        return chain(sizes), made_up(DEEP_WIDTH, 30), DEEP_BUDGET
    digits = load(data)[0]
    model = make_network(NETWORKS['1000-900'], 0)
    chainer.serializers.load_npz(path, model)
    return model, digits[0][:N_DIGITS], 1 / number


def train_one(data, path):
    model = make_network(NETWORKS['1000-900'], 0)
    train(model, load(data)[0], 2, 0)
    chainer.serializers.save_npz(path, model)


def resident(what):
    """GiB of this process: ``VmRSS`` now, ``VmHWM`` at the most."""
    for line in Path('/proc/self/status').read_text('utf-8').splitlines():
        if line.startswith(what + ':'):
            return int(line.split()[1]) / 2 ** 20
    raise ValueError(what)


def run_one(case, number, data, path):
    model, x, budget = prepare(case, number, data, path)
    before = resident('VmRSS')
    wall, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    _, report = sl.compress(model, x, budget)
    wall = time.perf_counter() - wall
    now = resource.getrusage(resource.RUSAGE_SELF)
    print(report, file=sys.stderr)
    return {
        'wall_seconds': wall,
        'cpu_seconds': (now.ru_utime - used.ru_utime
                        + now.ru_stime - used.ru_stime),
        'gib_before': before,
        'gib_peak': resident('VmHWM'),
        'gib_announced': report.memory / 2 ** 30,
        'parameters': report.parameters / report.dense_parameters,
        'error': report.error,
        'load_average': os.getloadavg()[0],
    }


def main(argv=None):
    def add_arguments(parser):
        parser.add_argument(
            '--data', type=Path, default=None,
            help='folder with the four files of MNIST')
        parser.add_argument(
            '--cases', nargs='+', choices=list(NUMBERS),
            default=list(NUMBERS))

    args = harness.parse_args(__doc__.splitlines()[0], argv, add_arguments)
    results, rows, missed = earlier(args), [], []
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / 'dense.npz')
        if 'mnist' in args.cases:
            run(['train', '0', str(args.data or ''), path])
        for case in args.cases:
            for number in NUMBERS[case]:
                result = {'case': case, 'number': number, **json.loads(
                    run([case, str(number), str(args.data or ''), path]))}
                print(result, flush=True)
                results = [
                    r for r in results
                    if (r['case'], r['number']) != (case, number)] + [result]
                rows.append(row_of(result))
                if over(result):
                    missed.append('{} {}'.format(case, number))
                harness.save(args, __file__, results)
    harness.print_table(
        ['case', 'seconds', 'CPU seconds', 'at most', 'GiB before',
         'GiB at the peak', 'at most', 'announced', 'error'], rows)
    if missed:
        sys.exit('over the limit, or over what was announced: '
                 + ', '.join(missed))


def earlier(args):
    path = args.out / (Path(__file__).stem + '.json')
    return json.loads(path.read_text('utf-8'))['results'] \
        if path.exists() else []


def run(args):
    return subprocess.run(
        [sys.executable, __file__, '--one', *args], check=True,
        stdout=subprocess.PIPE, text=True).stdout.strip().split('\n')[-1]


def row_of(result):
    seconds, gib = LIMITS[result['case']]
    return [
        '{case} {number}'.format(**result),
        '{wall_seconds:.0f}'.format(**result),
        '{cpu_seconds:.0f}'.format(**result), str(seconds or ''),
        *('{:.2f}'.format(result['gib_' + which])
          for which in ('before', 'peak')),
        str(gib or ''), '{gib_announced:.2f}'.format(**result),
        '{error:.4f}'.format(**result)]


def over(result):
    seconds, gib = LIMITS[result['case']]
    added = result['gib_peak'] - result['gib_before']
    return added > result['gib_announced'] or seconds is not None and (
        result['cpu_seconds'] > seconds or result['gib_peak'] > gib)


if __name__ == '__main__':
    if sys.argv[1:2] == ['--one']:
        name, count, folder, file = sys.argv[2:]
        folder = Path(folder) if folder else None
        if name == 'train':
            train_one(folder, file)
        else:
            print(json.dumps(run_one(name, int(count), folder, file)))
    else:
        main()
