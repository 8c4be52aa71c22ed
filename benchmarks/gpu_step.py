"""Where a training step of the MNIST network goes on a GPU, and what is lost.

A step is optimizer.update of 784 -> 1000 -> 900 -> 10 with Adam, the second
layer shared by n tiles or dense. Its parts, each measured for itself:

  step      what a step takes in training, one after another
  host      what Python and the launches take, with the GPU never waited for
  launches  what as many launches of an empty kernel take of that
  kernels   what the GPU takes, with its queue kept full
  replay    what the GPU takes for the step as a CUDA graph, without Python

The larger of host and kernels is about the step; replay is what could be had.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import harness  # noqa: E402  isort: skip

import ctypes  # noqa: E402
import time  # noqa: E402

import numpy  # noqa: E402

from benchmarks.training_speed import (  # noqa: E402
    shares_of_a_step,
    training_step,
)

import chainer  # noqa: E402  isort: skip
from chainer.backends import cuda  # noqa: E402  isort: skip

KINDS = ['shared', 'dense']
PARTS = ['step', 'host', 'launches', 'kernels', 'replay']


def no_mark(part):
    pass


class Meter:
    """Measures the parts of a step on a device."""

    def __init__(self, device, steps):
        self.device = device
        self.steps = steps
        self.is_gpu = device.xp is not numpy
        self.clock = harness.Clock(device)

    def wait(self):
        if self.is_gpu:
            self.device.device.synchronize()

    def step(self, run):
        """Seconds of a step among many."""
        self.wait()
        start = time.perf_counter()
        for _ in range(self.steps):
            run(no_mark)
        self.wait()
        return (time.perf_counter() - start) / self.steps

    def host_and_kernels(self, run):
        """Seconds until all is asked for, and those in which it is done."""
        self.wait()
        self.clock.hold(harness.HOLD_SECONDS)
        before = time.perf_counter()
        start = self.clock.mark()
        run(no_mark)
        end = self.clock.mark()
        host = time.perf_counter() - before
        return host, self.clock.seconds_between(start, end)

    def launch(self, n=100):
        """Seconds that the launch of an empty kernel takes."""
        if not self.is_gpu:
            return 0.
        kernel = cuda.raw('extern "C" __global__ void empty() {}', 'empty')
        kernel((1,), (1,), ())
        self.wait()
        start = time.perf_counter()
        for _ in range(n):
            kernel((1,), (1,), ())
        return (time.perf_counter() - start) / n

    def replay(self, run):
        """Seconds of a step as a CUDA graph, and the kernels in it.

        Or None, and why: what waits for the GPU can't be captured.
        """
        if not self.is_gpu:
            return None, 'no GPU'
        stream = self.device.xp.cuda.Stream(non_blocking=True)
        try:
            with stream:
                for _ in range(2):  # fills the stream's memory pool
                    run(no_mark)
                stream.synchronize()
                stream.begin_capture()
                try:
                    run(no_mark)
                finally:
                    graph = stream.end_capture()
                start = self.clock.mark()
                for _ in range(self.steps):
                    graph.launch(stream)
                end = self.clock.mark()
                seconds = self.clock.seconds_between(start, end) / self.steps
        except Exception as e:  # the other figures stand without this one
            return None, str(e).splitlines()[0]
        return seconds, _count_nodes(graph)


def _count_nodes(graph):
    count = ctypes.c_size_t()
    failed = ctypes.CDLL('libcuda.so.1').cuGraphGetNodes(
        ctypes.c_void_p(graph.graph), None, ctypes.byref(count))
    return None if failed else count.value


def measure(device, batch, n_tiles, steps, rounds):
    """Seconds of each part for each kind of network, measured in turn."""
    random = numpy.random.RandomState(0)
    x = device.send(random.random_sample((batch, 784)).astype('f'))
    t = device.send(random.randint(0, 10, batch).astype('i'))
    meter = Meter(device, steps)
    runs = {}
    for kind in KINDS:
        _, step = training_step(kind, n_tiles, x, t, device)
        runs[kind] = step
        for _ in range(3):
            step(no_mark)
    samples = {kind: {part: [] for part in PARTS} for kind in KINDS}
    for _ in range(rounds):
        for kind, run in runs.items():
            samples[kind]['step'].append(meter.step(run))
            host, kernels = meter.host_and_kernels(run)
            samples[kind]['host'].append(host)
            samples[kind]['kernels'].append(kernels)
    results = []
    for kind, run in runs.items():
        found = {
            part: harness.Spread.of(values)._asdict()
            for part, values in samples[kind].items() if values}
        replay, n_kernels = meter.replay(run)
        if replay is None:
            print('batch {}, {}: no replay: {}'.format(
                batch, kind, n_kernels))
            n_kernels = None
        else:
            found['replay'] = harness.Spread.of([replay])._asdict()
        if n_kernels is not None:
            found['launches'] = harness.Spread.of(
                [n_kernels * meter.launch()])._asdict()
        host = shares_of_a_step(
            kind, n_tiles, x, t, device,
            clock=harness.Clock(chainer.get_device('@numpy')))
        results.append({
            'batch': batch, 'kind': kind, 'n_tiles': n_tiles,
            'kernels': n_kernels, 'seconds': found,
            'host seconds by function': host,
            'dense / this': harness.Spread.of([
                a / b for a, b in zip(
                    samples['dense']['step'], samples[kind]['step'],
                    strict=True)])._asdict()})
    return results


def main(argv=None):
    def add_arguments(parser):
        parser.add_argument(
            '--batch', type=int, nargs='+', default=[100, 8192], metavar='B')
        parser.add_argument('--n-tiles', type=int, default=10, metavar='N')
        parser.add_argument(
            '--steps', type=int, default=200,
            help='steps in a sample (default: 200)')
        parser.add_argument(
            '--rounds', type=int, default=9, help='samples (default: 9)')

    args = harness.parse_args(
        __doc__.splitlines()[0], argv, add_arguments, device='@cupy:0')
    results = []
    for batch in args.batch:
        results += measure(
            args.device, batch, args.n_tiles, args.steps, args.rounds)

    def cell(result, part):
        if part not in result['seconds']:
            return '-'
        return harness.milliseconds(harness.Spread(**result['seconds'][part]))

    titles = ['batch {}, {}'.format(r['batch'], r['kind']) for r in results]
    harness.print_table(
        ['network, in ms', *PARTS, 'kernels, number', 'dense / this'],
        [[title, *(cell(r, part) for part in PARTS),
          '-' if r['kernels'] is None else str(r['kernels']),
          harness.times(harness.Spread(**r['dense / this']))]
         for title, r in zip(titles, results, strict=True)])
    print('\nWhere the host is, in ms:')
    names = sorted(
        {name for r in results for name in r['host seconds by function']},
        key=lambda name: -max(
            r['host seconds by function'].get(name, 0) for r in results))
    harness.print_table(
        ['function (forward and backward)', *titles],
        [[name] + [
            '{:.3g}'.format(r['host seconds by function'][name] * 1e3)
            if name in r['host seconds by function'] else '-'
            for r in results] for name in names])
    print('\nwritten: {}'.format(harness.save(args, __file__, results)))


if __name__ == '__main__':
    main()
