"""How much memory it takes to compress a model, said beforehand."""
from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy
from chainer.utils import size_of_shape

from shared_linear.compression.folds import WIDEST_SEARCH
from shared_linear.compression.samples import is_by_samples

try:
    import resource
except ImportError:  # There is none on Windows.
    resource = None  # type: ignore[assignment]

# Of the interpreter and the threads: what a small model takes, and each run.
LEAST = 32 * 2 ** 20
OF_RUN = 2 ** 18
# The original and the new model run side by side.
N_MODELS = 2
# Of a thread, where it has no limit.
STACK = 2 ** 21
# Rows that are differentiated at once.
MOST_DIFFERENTIATED = 1000
HELP = 'give fewer inputs, or exclude the layer'
CGROUPS = '/sys/fs/cgroup'


class Need(NamedTuple):

    """Bytes that are needed, and the layer that needs the most."""

    total: int
    path: str
    sizes: tuple[int, int]
    n_inputs: int
    n_threads: int


def estimate(
        batches: list[Any], links: dict[str, Any], rows: dict[str, float],
        recorded: Any, model: Any) -> Need:
    """What fitting the layer that takes most takes at a time.

    Args:
        batches: The calibration inputs.
        links: Layers to compress, by path.
        rows: What each is fed for one input, by path.
        recorded: A run on some of the inputs, with its graph.
        model: The model.

    """
    n_inputs = sum(map(len, batches))
    waiting, of_run = _of_runs(recorded, rows)
    # What waits in all runs of both models; and a graph, with gradients.
    n_differentiated = min(
        max(map(len, batches)),
        max(1, int(MOST_DIFFERENTIATED / max(
            1., *(rows[path] for path in links)))))
    runs = int(N_MODELS * n_inputs * waiting + 2 * n_differentiated * of_run)
    needs = []
    for path, link in links.items():
        n_rows = int(n_inputs * rows[path])
        out_size, in_size = link.W.shape
        # Outputs to aim at, and those that are held out.
        outputs = 2 * link.W.dtype.itemsize * n_rows * out_size
        fit = _of_samples if is_by_samples(in_size, n_rows * 9 // 10) \
            else _of_covariances
        needs.append((
            outputs + fit(n_rows, in_size, out_size), path,
            (in_size, out_size)))
    total, path, sizes = max(needs)
    # The original, the new model, and what is made of the layers.
    weights = 2 * sum(
        p.array.nbytes for p in model.params(include_uninit=False)) + sum(
        8 * link.W.size for link in links.values())
    # What each gave for the first batch is compared in the end.
    runs += sum(
        int(len(batches[0]) * rows[path]) * len(link.W)
        * link.W.dtype.itemsize for path, link in links.items())
    n_threads = N_MODELS * len(batches)
    return Need(
        LEAST + OF_RUN * n_threads + weights + runs + total, path, sizes,
        n_inputs, n_threads)


def _of_covariances(n_rows: int, in_size: int, out_size: int) -> int:
    """Moments, what the search keeps of them, and a fit."""
    return 8 * (
        11 * in_size ** 2 + 8 * in_size * out_size + 6 * out_size ** 2)


def _of_samples(n_rows: int, in_size: int, out_size: int) -> int:
    """Inputs, those behind a fold, and half of the weight or all of it."""
    least = min(n_rows, out_size)
    fit = (
        4 * n_rows * 3 * in_size + 60 * n_rows * out_size
        + 4 * 3 * in_size * out_size
        + 8 * (6 * n_rows ** 2 + 4 * least ** 2))
    search = 8 * 11 * in_size ** 2 if in_size <= WIDEST_SEARCH else 0
    units = 8 * n_rows * in_size
    return fit + max(search, units)


def _of_runs(recorded: Any, rows: dict[str, float]) -> tuple[float, float]:
    """Bytes for an input: that wait at the most, and of all values."""
    made: dict[int, int] = {}
    last: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for i, function in enumerate(recorded.functions):
        for node in function.inputs or ():
            last[id(node)] = i
        for reference in function.outputs or ():
            node = reference()
            if node is not None:
                made[id(node)] = i
                sizes[id(node)] = (
                    size_of_shape(node.shape) * node.dtype.itemsize)
    change = numpy.zeros(len(recorded.functions) + 1)
    for key, i in made.items():
        change[i] += sizes[key]
        change[last.get(key, len(change) - 2) + 1] -= sizes[key]
    # These are of a few inputs, which may be shorter than others.
    n_rows: dict[str, int] = {}
    for call in recorded.calls:
        n_rows[call.path] = n_rows.get(call.path, 0) + len(call.x)
    for_one = max(
        (rows[path] / n for path, n in n_rows.items() if n), default=1.)
    return change.cumsum().max() * for_one, sum(sizes.values()) * for_one


def check(need: Need) -> None:
    """Raises a MemoryError if there is not enough."""
    free = available(need.n_threads)
    if free is not None and need.total > free:
        raise MemoryError(
            'fitting the layers takes about {:.1f} GiB, the most for {} of {} '
            'inputs and {} outputs with {:,} calibration inputs, but {:.1f} '
            'GiB are free: {}'.format(
                need.total / 2 ** 30, need.path, *need.sizes, need.n_inputs,
                free / 2 ** 30, HELP))


def available(n_threads: int = 0) -> int | None:
    """Bytes that are free, where the system tells.

    Of a limit of the address space, as by ``ulimit -v``, the stacks of
    threads take more than they use.
    """
    amounts = [_of_machine(), _of_group()]
    used = _number('/proc/self/statm')
    if resource is not None and used is not None:
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        stack, _ = resource.getrlimit(resource.RLIMIT_STACK)
        if limit != resource.RLIM_INFINITY:
            if stack == resource.RLIM_INFINITY:
                stack = STACK
            amounts.append(max(0, limit - used * resource.getpagesize()
                               - stack * n_threads))
    return min((a for a in amounts if a is not None), default=None)


def _of_machine():
    for line in _lines('/proc/meminfo'):
        if line.startswith('MemAvailable:'):
            return 1024 * int(line.split()[1])
    return None


def _of_group():
    """What is left of the limit of a container."""
    group = next((
        line.split(':', 2)[2] for line in _lines('/proc/self/cgroup')
        if line.startswith('0:')), '/')
    for folder in (CGROUPS + group.rstrip('/'), CGROUPS):
        most = _number(folder + '/memory.max')
        used = _number(folder + '/memory.current')
        if most is not None and used is not None:
            # Pages of files that are not in use make room.
            files = sum(
                int(line.split()[1]) for line in _lines(
                    folder + '/memory.stat')
                if line.startswith('inactive_file '))
            return max(0, most - used + files)
    return None


def _lines(path):
    try:
        return Path(path).read_text('ascii').splitlines()
    except (OSError, ValueError):
        return []


def _number(path):
    """The first word of a file, if it is one; "max" is none."""
    words = [word for line in _lines(path)[:1] for word in line.split()[:1]]
    return int(words[0]) if words and words[0].isdigit() else None
