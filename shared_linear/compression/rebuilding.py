"""The links of a compressed model."""
from __future__ import annotations

from typing import Any

import chainer
import chainer.links as L
import numpy
from chainer import backend

from shared_linear.compression.course import Outcome
from shared_linear.compression.regression import InputMap
from shared_linear.layers.initial_weights import initialize_as
from shared_linear.layers.link import SharedLinear
from shared_linear.layers.low_rank_link import LowRankLinear, low_rank_like
from shared_linear.layers.mixed_link import MixedLinear
from shared_linear.layers.tiled_link import link_like

Array = numpy.ndarray


def make_link(link: Any, outcome: Outcome, order: Array | None) -> Any:
    """A layer of the dtypes and on the device of the dense one."""
    solution, n_tiles = outcome.solution, outcome.fold.n_tiles
    if outcome.mixing is not None:
        mixing = outcome.mixing
        return link_like(
            MixedLinear, link, solution.W, solution.b,
            n_tiles=mixing.n_tiles, n_blocks=mixing.n_blocks,
            seed=mixing.seed, order=mixing.order_array)
    if solution.W is None:
        return low_rank_like(
            link, solution.B, solution.A, solution.b, n_tiles, order)
    if n_tiles > 1:
        return link_like(
            SharedLinear, link, solution.W, solution.b, n_tiles=n_tiles,
            order=order)
    W = solution.W.astype(link.W.dtype, copy=False)
    b = solution.b
    dense = L.Linear(
        W.shape[1], len(W), b is None, initialize_as(W),
        None if b is None else initialize_as(b.astype(link.b.dtype)))
    return dense.to_device(link.device)


def choose_rows(link: Any, fold: InputMap) -> Any:
    """A layer whose outputs are some of another's, scaled."""
    units = fold.units.ravel()
    scales = 1. if fold.scales is None else fold.scales.ravel()

    def chosen(parameter):
        array = array_of(parameter)
        if array is None:
            return None
        return (array[units].T * scales).T

    b = chosen(link.b)
    if isinstance(link, LowRankLinear):
        return low_rank_like(
            link, chosen(link.B), array_of(link.A), b, link.n_tiles,
            link.order)
    if isinstance(link, SharedLinear):
        return link_like(
            SharedLinear, link, chosen(link.W), b, n_tiles=link.n_tiles,
            order=array_of(link.order))
    W = chosen(link.W)
    dense = L.Linear(
        W.shape[1], len(W), b is None,
        initialize_as(W.astype(link.W.dtype)),
        None if b is None else initialize_as(b.astype(link.b.dtype)))
    return dense.to_device(link.device)


def rearranged(
        samples: dict[str, Array],
        outcomes: dict[str, Outcome]) -> dict[str, Array]:
    """What the layers gave, with the units that they have in the new model.
    """
    result = dict(samples)
    for path, outcome in outcomes.items():
        if outcome.rows is not None:
            result[path] = result[path][:, outcome.rows]
    for outcome in outcomes.values():
        if outcome.fold.n_tiles > 1 and outcome.before is not None:
            y = result[outcome.before][:, outcome.fold.units.ravel()]
            if outcome.fold.scales is not None:
                y = y * outcome.fold.scales.ravel().astype(y.dtype)
            result[outcome.before] = y
    return result


def array_of(variable: Any) -> Any:
    """The array of a variable, on the CPU; ``None`` of none."""
    if variable is None:
        return None
    return backend.CpuDevice().send(chainer.as_array(variable))
