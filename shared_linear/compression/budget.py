"""How many tiles for each layer, for a given number of parameters."""
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

# Parameters, sum of errors, number of tiles by path.
Choice = tuple[int, float, dict[str, int]]


def allot(
        budget: float,
        n_parameters: int,
        out_sizes: dict[str, tuple[int, int]],
        errors: dict[str, dict[int, float]],
        n_blocks: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Chooses the numbers of tiles with the least sum of errors.

    All choices are compared, layer by layer: of two choices for the layers so
    far, one that has neither fewer parameters nor a smaller error is dropped.

    Args:
        budget: Part of the parameters that may be left.
        n_parameters: Parameters of the dense model.
        out_sizes: Outputs and elements of the bias of each layer.
        errors: Relative error of each layer by the number of tiles.
        n_blocks: Number of blocks that share a weight, where it is not 1, in
            layers of more than one tile.

    Returns:
        Number of tiles of each layer.

    Raises:
        ValueError: If even one weight for each output is too much.

    """
    choices: list[Choice] = [(0, 0., {})]
    dense = 0
    for path, by_n_tiles in errors.items():
        out_size, bias_size = out_sizes[path]
        in_size = max(by_n_tiles)
        height = out_size // (n_blocks or {}).get(path, 1)
        dense += out_size * in_size + bias_size
        choices = _undominated(
            (size + bias_size
             + (height if n_tiles > 1 else out_size) * (in_size // n_tiles),
             total + error, {**numbers, path: n_tiles})
            for size, total, numbers in choices
            for n_tiles, error in by_n_tiles.items())
    others = n_parameters - dense
    allowed = math.floor(budget * n_parameters) - others
    affordable = [choice for choice in choices if choice[0] <= allowed]
    if not affordable:
        smallest = (others + choices[0][0]) / n_parameters
        raise ValueError(
            'a budget of {} cannot be met: the smallest that can is {}, of '
            '{:,} parameters'.format(
                budget, math.ceil(smallest * 1e6) / 1e6,
                others + choices[0][0]))
    return affordable[-1][2]


def _undominated(choices: Iterable[Choice]) -> list[Choice]:
    """Choices by rising size and falling error."""
    kept: list[Choice] = []
    for choice in sorted(choices, key=lambda choice: choice[:2]):
        if not kept or choice[1] < kept[-1][1]:
            kept.append(choice)
    return kept
