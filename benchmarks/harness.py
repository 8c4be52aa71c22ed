"""What every benchmark shares: its command line, its clock, its report.

A benchmark checks its results, warms up, and times its contestants in turn
(A B A B), so that whatever else the machine does meets all of them alike. The
ratio of two contestants is the median of the ratios within the rounds.
"""
from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# One thread unless the caller says otherwise; read when NumPy is loaded.
THREADS = ('OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS', 'MKL_NUM_THREADS')
for _name in THREADS:
    os.environ.setdefault(_name, '1')

import numpy  # noqa: E402

import shared_linear  # noqa: E402
from mnist.devices import get_device  # noqa: E402
from mnist.errors import UserError  # noqa: E402

import chainer  # isort: skip  # noqa: E402
from chainer.backends import cuda  # isort: skip  # noqa: E402

# A contestant that takes longer is warm after the run that checks it.
WARM_UP_SECONDS = .1
# What a GPU is held up for, until the work that is timed is in its queue,
# which has room for about a thousand launches.
HOLD_SECONDS = .02
HELD_REPEATS = 32
HOLD = r'''
extern "C" __global__ void hold(long long nanoseconds) {
    long long start, now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start));
    do {
        asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    } while (now - start < nanoseconds);
}
'''
RESULTS = Path(__file__).resolve().parent / 'results'


class Spread(NamedTuple):
    """Median and quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(
            values, n=4, method='inclusive')
        return cls(median, low, high)


class Timings:
    """Seconds of each contestant in each round, by the parts it has timed."""

    def __init__(self, seconds: dict[str, dict[str, list[float]]]) -> None:
        self._seconds = seconds

    def seconds(self, contestant: str, part: str) -> Spread:
        return Spread.of(self._seconds[contestant][part])

    def ratio(self, contestant: str, to: str, part: str) -> Spread:
        """How many times as long one takes as the other."""
        return Spread.of([
            a / b for a, b in zip(
                self._seconds[contestant][part], self._seconds[to][part],
                strict=True)])

    def as_json(self) -> dict[str, Any]:
        return {
            contestant: {
                part: Spread.of(values)._asdict()
                for part, values in parts.items()}
            for contestant, parts in self._seconds.items()}


class Clock:
    """Reads the time of the device: the CPU's, or events on CuPy's stream."""

    def __init__(self, device: Any) -> None:
        self.cupy = device.xp if device.xp is not numpy else None

    def hold(self, seconds: float) -> None:
        """Keeps a GPU from what comes next, until that is in its queue.

        It then runs without a pause, however long Python took to ask for it.
        """
        if self.cupy is not None and seconds:
            cuda.raw(HOLD, 'hold')((1,), (1,), (int(seconds * 1e9),))

    def mark(self) -> Any:
        if self.cupy is None:
            return time.perf_counter()
        event = self.cupy.cuda.Event()
        event.record()
        return event

    def seconds_between(self, start: Any, end: Any) -> float:
        if self.cupy is None:
            return end - start
        end.synchronize()
        return self.cupy.cuda.get_elapsed_time(start, end) / 1e3


# A contestant calls mark(part) when it has finished a part of its work.
Contestant = Callable[[Callable[[str], None]], Any]


def compare(
        contestants: dict[str, Contestant], device: Any, *,
        seconds: float = 2, min_rounds: int = 5, max_rounds: int = 60,
        sample_seconds: float = 5e-3, hold: bool = False,
) -> Timings:
    """Times the contestants in turn.

    Args:
        contestants: By name, functions that take ``mark``, and call
            ``mark(part)`` behind each part of the work. A part is timed from
            the start, so that the last one is the whole.
        device: Chainer device.
        seconds: Time to spend.
        min_rounds: Rounds to run, if they take longer than that.
        max_rounds: Rounds at most.
        sample_seconds: A contestant that is faster than this is run several
            times in a round.
        hold: Whether to time a GPU's work alone, without its waiting for
            Python.

    """
    clock = Clock(device)

    def sample(contestant: Contestant, repeats: int) -> dict[str, float]:
        return _sample(
            clock, contestant, repeats, HOLD_SECONDS if hold else 0)

    repeats = {}
    for name, contestant in contestants.items():
        duration = max(sample(contestant, 1).values())
        if duration < WARM_UP_SECONDS:  # the first run counts for nothing
            duration = max(sample(contestant, 1).values())
        repeats[name] = max(1, round(sample_seconds / duration))
        if hold:
            repeats[name] = min(repeats[name], HELD_REPEATS)

    timings: dict[str, dict[str, list[float]]] = {c: {} for c in contestants}
    start = time.perf_counter()
    for i in range(max_rounds):
        if i >= min_rounds and time.perf_counter() - start > seconds:
            break
        for name, contestant in contestants.items():
            parts = sample(contestant, repeats[name])
            for part, value in parts.items():
                timings[name].setdefault(part, []).append(value)
    return Timings(timings)


def _sample(
        clock: Clock, contestant: Contestant, repeats: int, hold: float,
) -> dict[str, float]:
    marks: list[tuple[Any, list[tuple[str, Any]]]] = []
    clock.hold(hold)
    before = time.perf_counter()
    for _ in range(repeats):
        parts: list[tuple[str, Any]] = []
        start = clock.mark()
        contestant(lambda part, p=parts: p.append((part, clock.mark())))
        marks.append((start, parts))
    took = time.perf_counter() - before
    if clock.cupy is not None and 0 < hold < took:
        # Or the queue was full, and had to wait for the GPU.
        return _sample(clock, contestant, max(1, repeats // 2), 2 * took)
    sums: dict[str, float] = {}
    for start, parts in marks:
        for part, end in parts:
            sums[part] = sums.get(part, 0) + clock.seconds_between(start, end)
    return {part: total / repeats for part, total in sums.items()}


def check_close(actual: Any, expected: Any, what: str, rtol=1e-4) -> None:
    """Stops the benchmark if its result is wrong; relative to the largest."""
    actual = to_numpy(actual)
    error = abs(actual - expected).max() / abs(expected).max()
    if not error <= rtol:
        sys.exit('{} is wrong: relative error {:.1e}, at most {:.0e}'.format(
            what, error, rtol))


def to_numpy(array: Any) -> numpy.ndarray:
    return chainer.get_device('@numpy').send(array)


def parse_args(
        description: str, argv: Sequence[str] | None = None,
        add_arguments: Callable[[argparse.ArgumentParser], None] | None = None,
        device: str = '@numpy',
) -> argparse.Namespace:
    """Parses the flags that every benchmark has.

    ``args.device`` is a Chainer device.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        '--device', '-d', default=device,
        help='@numpy, or @cupy:0 for the first GPU (default: {})'.format(
            device))
    parser.add_argument(
        '--out', '-o', type=Path, default=None,
        help='folder for the JSON file and the plot '
             '(default: benchmarks/results/ and the name of the machine)')
    if add_arguments is not None:
        add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        args.device = get_device(args.device)
        args.device.use()
    except UserError as e:
        parser.error(str(e))
    if args.out is None:
        args.out = RESULTS / _slug(machine(args.device)['name'])
    return args


def machine(device: Any) -> dict[str, Any]:
    """Names the machine and the versions that a figure depends on."""
    info: dict[str, Any] = {
        'name': _cpu_name(),
        'cpu': _cpu_name(),
        'cores': os.cpu_count(),
        'system': platform.platform(terse=True),
        'python': platform.python_version(),
        'numpy': numpy.__version__,
        'blas': _blas_name(),
        'chainer': chainer.__version__,
        'shared_linear': shared_linear.__version__,
        'threads': {name: os.environ[name] for name in THREADS},
        'device': str(device),
    }
    if device.xp is not numpy:
        runtime = device.xp.cuda.runtime
        properties = runtime.getDeviceProperties(device.device.id)
        info.update(
            name=properties['name'].decode(),
            gpu_driver=_gpu_driver(),
            cupy=device.xp.__version__,
            cuda_runtime=runtime.runtimeGetVersion(),
            cuda_driver=runtime.driverGetVersion())
    return info


def _cpu_name() -> str:
    try:
        text = Path('/proc/cpuinfo').read_text('utf-8')
        return re.search(r'model name\s*: (.+)', text)[1]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()


def _gpu_driver() -> str | None:
    try:
        return subprocess.run(
            ['nvidia-smi', '--query-gpu=driver_version',
             '--format=csv,noheader'], capture_output=True, text=True,
            check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None


def _blas_name() -> str:
    blas = numpy.show_config('dicts')['Build Dependencies']['blas']
    return '{} {}'.format(blas['name'], blas['version'])


def _slug(text: str) -> str:
    return re.sub(r'[^a-z0-9]+', '-', text.lower()).strip('-')


def save(args: argparse.Namespace, script: str, results: Any) -> Path:
    """Writes the results, with the machine and the command, as JSON."""
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / (Path(script).stem + '.json')
    name = Path(script).name
    path.write_text(json.dumps({
        'command': shlex.join(
            ['python', 'benchmarks/' + name] + sys.argv[1:]),
        'date': time.strftime('%Y-%m-%d'),
        'machine': machine(args.device),
        'results': results,
    }, indent=1) + '\n', 'utf-8')
    return path


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes ``path`` in one step at the end.

    So a file is there as a whole or not at all, whoever else writes it.
    """
    unfinished = path.with_name('{}.{}.tmp'.format(path.name, os.getpid()))
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def keep_result(path: Path, result: Any) -> None:
    """Keeps a result for a benchmark that goes on where it was."""
    with written_whole(path) as unfinished:
        unfinished.write_text(json.dumps(result) + '\n', 'utf-8')


def read_result(path: Path) -> Any:
    """A result that was kept, or ``None``."""
    return json.loads(path.read_text('utf-8')) if path.exists() else None


def plot_path(args: argparse.Namespace, script: str) -> Path:
    args.out.mkdir(parents=True, exist_ok=True)
    return args.out / (Path(script).stem + '.png')


def new_figure(columns: int = 1) -> tuple[Any, Any]:
    """A Matplotlib figure with a row of axes; no screen is needed."""
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    return plt.subplots(
        1, columns, figsize=(5 * columns, 4), layout='constrained',
        squeeze=False)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints columns, the first to the left, the others to the right."""
    widths = [
        max(len(row[i]) for row in [header, *rows])
        for i in range(len(header))]
    for row in [header, ['-' * w for w in widths], *rows]:
        cells = [row[0].ljust(widths[0])]
        cells += [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
        print('  '.join(cells).rstrip(), flush=True)


def print_markdown(header: Sequence[str], rows: Sequence[Sequence[str]],
) -> None:
    """Prints a table as it stands in the pages here."""
    for row in [header, ['---'] * len(header), *rows]:
        print('| {} |'.format(' | '.join(row)), flush=True)


def milliseconds(spread: Spread) -> str:
    return '{:.3g}'.format(spread.median * 1e3)


def times(spread: Spread) -> str:
    """A ratio with its quartiles."""
    return '{:.2f} ({:.2f}-{:.2f})'.format(*spread)
