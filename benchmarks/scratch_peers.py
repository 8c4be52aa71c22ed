"""Small networks trained from scratch: what a compressed one is up against.

  narrow  dense, its hidden layers narrower
  hashed  HashedNets (Chen et al., ICML 2015): each weight one of fewer numbers
  mixed   sl.MixedLinear, the first layer's inputs grouped by how they act

Each has as many parameters as it is given. Shapes and learning rates are those
that sharing_quality.py found best on held-out digits: 0.003 where a network
stays wide, 0.009 where it does not.
"""
from __future__ import annotations

import itertools
import math

from benchmarks import sharing_quality
from benchmarks.sharing_quality import Layer, Method, parameters

import shared_linear as sl  # isort: skip

KINDS = 'narrow', 'hashed', 'mixed'
EPOCHS = 6
LEARNING_RATES = .003, .009
# Times fewer parameters from which a network is not wide.
NOT_WIDE = 8


def plan(kind, sizes, n_parameters):
    """The layers of a network of these sizes with so many parameters."""
    if kind == 'narrow':
        return sharing_quality.narrower(sizes, n_parameters)
    pairs = list(itertools.pairwise(sizes))
    hashed = hash_weights(pairs, n_parameters)
    if kind == 'hashed':
        return hashed
    # sharing_quality.py's best are (8, 1) at 1/8 and (16, 4) at 1/64; between
    # them both numbers grow as evenly.
    compression = sum(i * o for i, o in pairs) / sum(
        layer.n_weights for layer in hashed)
    harder = max(1., compression / 8)
    shape = min(8., compression) * harder ** (1 / 3), harder ** (2 / 3)
    shapes = sharing_quality.nearest_shapes(
        pairs, [layer.n_weights for layer in hashed], parameters(hashed),
        Method('mixed', shape))
    return [
        Layer('mixed', i, o, *nk)
        for (i, o), nk in zip(pairs, shapes, strict=True)]


def hash_weights(pairs, n_parameters):
    """Layers of HashedNets, all hashed alike, with so many parameters."""
    n_weights = n_parameters - sum(o for _, o in pairs)
    n_dense = sum(i * o for i, o in pairs)
    # Of the weights up to here, so that what is rounded does not add up.
    ends = [
        math.floor(n_weights * i / n_dense)
        for i in itertools.accumulate(i * o for i, o in pairs)]
    return [
        Layer('hashed', i, o, n_weights=end - start)
        for (i, o), start, end in zip(
            pairs, [0, *ends], ends, strict=False)]


def operations(layers):
    """Of a forward pass of one example, products and sums."""
    return sum(
        2 * layer.multiply_adds
        + layer.n_blocks * (layer.in_size - layer.in_size // layer.n_tiles)
        for layer in layers)


def learning_rate(sizes, n_parameters):
    dense = sum((i + 1) * o for i, o in itertools.pairwise(sizes))
    return LEARNING_RATES[dense / n_parameters >= NOT_WIDE]


def train(kind, sizes, n_parameters, digits, seed):
    """The trained network, and its layers."""
    layers = plan(kind, sizes, n_parameters)
    order = None
    if kind == 'mixed':
        order = sl.group_inputs(
            digits[0], layers[0].n_tiles, seed=seed,
            n_sweeps=sharing_quality.SWEEPS)
    model = sharing_quality.Network(layers, seed, order)
    sharing_quality.train(
        model, digits, learning_rate(sizes, n_parameters), EPOCHS, seed)
    return model, layers
