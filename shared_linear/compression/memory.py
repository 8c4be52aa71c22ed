"""How much memory it takes to compress a model, said beforehand."""
from __future__ import annotations

import resource
from typing import Any, NamedTuple

from shared_linear.compression.course import WIDEST_COVARIANCE

# Of the runs: values that wait beside the inputs of a layer.
WAITING = 4


class Need(NamedTuple):

    """Bytes that are needed, and the layer that needs the most."""

    total: int
    path: str
    sizes: tuple[int, int]
    n_inputs: int


def estimate(
        batches: list[Any], shapes: dict[str, tuple[int, int]],
        rows: dict[str, float]) -> Need:
    """What fitting the widest layer takes at a time.

    Args:
        batches: The calibration inputs.
        shapes: (outputs, inputs) by path.
        rows: What each is fed for one input, by path.

    """
    n_inputs = sum(map(len, batches))
    needs = []
    for path, (out_size, in_size) in shapes.items():
        n_rows = int(n_inputs * rows[path])
        # Inputs and outputs of both models, targets and answers.
        held = 4 * n_rows * (WAITING * in_size + 4 * out_size)
        if in_size > min(WIDEST_COVARIANCE, max(n_rows * 9 // 10, 1000)):
            # The samples, centred, their folds; the weight, fitted twice.
            fit = (4 * n_rows * 3 * in_size + 8 * n_rows * 6 * out_size
                   + 4 * 4 * in_size * out_size
                   + 8 * 4 * n_rows ** 2)
        else:
            fit = 8 * (7 * in_size ** 2 + 6 * in_size * out_size
                       + 3 * out_size ** 2)
        needs.append((held + fit, path, (in_size, out_size)))
    total, path, sizes = max(needs)
    weights = sum(4 * o * i for o, i in shapes.values())
    # The original, the new model, and what is made of each layer.
    return Need(total + 3 * weights, path, sizes, n_inputs)


def check(need: Need) -> None:
    """Raises a MemoryError if there is not enough."""
    free = available()
    if free is not None and need.total > free:
        raise MemoryError(
            'fitting the layers takes about {:.1f} GiB, the most for {} of {} '
            'inputs and {} outputs with {:,} calibration inputs, but {:.1f} '
            'GiB are free: give fewer inputs, or exclude the layer'.format(
                need.total / 2 ** 30, need.path, *need.sizes, need.n_inputs,
                free / 2 ** 30))


def available() -> int | None:
    """Bytes that are free, where the system tells."""
    amounts = []
    try:
        with open('/proc/meminfo') as file:
            for line in file:
                if line.startswith('MemAvailable:'):
                    amounts.append(1024 * int(line.split()[1]))
        with open('/proc/self/statm') as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        amounts.append(max(0, limit - used))
    return min(amounts) if amounts else None
