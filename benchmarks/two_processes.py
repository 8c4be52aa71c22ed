"""Two processes train the MNIST network in less time than one.

Runs train_mnist.py as a user does, in one process and in two that mpiexec
starts, one thread each, on made digits: the same mini-batches, and the same
network in the end. The time is that of the epochs, from the log, with the
tests on the way; the whole command, with its start, is given as well.
"""
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import harness  # noqa: E402  isort: skip

import numpy  # noqa: E402

from mnist.launch import find_mpiexec  # noqa: E402

SCRIPT = Path(__file__).resolve().parents[1] / 'train_mnist.py'
ENVIRONMENT = {
    # Open MPI 4 and 5 want both before they start anything for root.
    'OMPI_ALLOW_RUN_AS_ROOT': '1',
    'OMPI_ALLOW_RUN_AS_ROOT_CONFIRM': '1',
    'PRTE_ALLOW_RUN_AS_ROOT': '1',
    'PRTE_ALLOW_RUN_AS_ROOT_CONFIRM': '1',
}
TWO = [find_mpiexec() or 'mpiexec', '-n', '2']


def why_not(args):
    """Returns in one line why there is nothing to measure here, or None."""
    if args.device.xp is not numpy:
        return 'measures processes on the CPU, not on {}'.format(args.device)
    if len(os.sched_getaffinity(0)) < 2:
        return 'needs two cores'
    if find_mpiexec() is None:
        return 'needs mpiexec: pip install ".[mpi]"'
    found = subprocess.run(
        [*TWO, sys.executable, '-c', 'from mpi4py import MPI'],
        env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True)
    if found.returncode:
        return 'needs mpi4py, and the MPI of mpiexec: pip install ".[mpi]"'
    return None


def write_digits(folder, n_train, n_test):
    """Noise with a bright row where the label says, in MNIST's own format."""
    random = numpy.random.RandomState(0)
    for name, n in ('train', n_train), ('t10k', n_test):
        labels = random.randint(0, 10, n).astype('B')
        images = random.randint(0, 50, (n, 28, 28)).astype('B')
        images[numpy.arange(n), 2 * labels + 3] = 255
        for kind, header, array in [
                ('images-idx3', struct.pack('>iiii', 2051, n, 28, 28), images),
                ('labels-idx1', struct.pack('>ii', 2049, n), labels)]:
            (folder / '{}-{}-ubyte'.format(name, kind)).write_bytes(
                header + array.tobytes())


def train(launcher, options, out):
    """Runs the command; returns its seconds, and those of an epoch."""
    start = time.perf_counter()
    done = subprocess.run(
        [*launcher, sys.executable, SCRIPT, *options, '-o', out],
        env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit('a run failed: {}'.format(done.stderr.strip()))
    log = json.loads((out / 'log').read_text('utf-8'))
    return {
        'epoch': (log[-1]['elapsed_time'] - log[0]['elapsed_time'])
        / (len(log) - 1),
        'command': seconds}


def check(one, two):
    """The networks that one and two processes have trained agree."""
    (one,), (two,) = (list(out.glob('snapshot_iter_*')) for out in (one, two))
    with numpy.load(one) as ours, numpy.load(two) as theirs:
        names = [name for name in theirs if name.endswith('/W')]
        if len(names) != 3:
            sys.exit('expected three weights, found {}'.format(names))
        for name in names:
            # Adam makes whole steps of gradients that are rounding alone.
            harness.check_close(ours[name], theirs[name], name, rtol=1e-2)


def main(argv=None):
    def add_arguments(parser):
        parser.add_argument(
            '--batch', type=int, nargs='+', default=[100, 1000], metavar='B',
            help='images in a mini-batch, of all processes together')
        parser.add_argument('--digits', type=int, default=8000, metavar='N')
        parser.add_argument('--epochs', type=int, default=5, metavar='N')
        parser.add_argument('--rounds', type=int, default=3, metavar='N')

    args = harness.parse_args(__doc__.splitlines()[0], argv, add_arguments)
    reason = why_not(args)
    if reason is not None:
        print('not measured: ' + reason)
        return
    contestants = {
        'one': ([], []), 'two': (TWO, ['--communicator', 'naive'])}
    results = []
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_digits(folder, args.digits, args.digits // 8)
        for batch in args.batch:
            seconds = {name: {} for name in contestants}
            for _ in range(args.rounds):
                outs = []
                for name, (launcher, flags) in contestants.items():
                    outs.append(Path(tempfile.mkdtemp(dir=folder)))
                    for part, value in train(launcher, [
                            '--data', folder, '--no-plots', '-f', '-1',
                            '-b', str(batch), '-e', str(args.epochs), *flags,
                    ], outs[-1]).items():
                        seconds[name].setdefault(part, []).append(value)
                check(*outs)
            timings = harness.Timings(seconds)
            for part in 'epoch', 'command':
                ratio = timings.ratio('one', 'two', part)
                results.append({
                    'batch': batch, 'part': part, 'digits': args.digits,
                    'one seconds': timings.seconds('one', part)._asdict(),
                    'two seconds': timings.seconds('two', part)._asdict(),
                    'one / two': ratio._asdict()})
                rows.append([
                    'batch {}, {}'.format(batch, {
                        'epoch': 'an epoch of {:,}'.format(args.digits),
                        'command': 'the whole command'}[part]),
                    *(harness.milliseconds(timings.seconds(name, part))
                      for name in contestants),
                    harness.times(ratio)])
    harness.print_table(
        ['network 784-1000-900-10', 'one, ms', 'two, ms', 'one / two'], rows)
    print('\nwritten: {}'.format(harness.save(args, __file__, results)))


if __name__ == '__main__':
    main()
