"""How batch normalization folds into layers of mixed sharing and low rank."""
from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from chainer import backend

from shared_linear.layers.low_rank_link import LowRankLinear
from shared_linear.layers.mixed_link import MixedLinear
from shared_linear.surgery.foldable import (
    CannotFold,
    Weights,
    bias,
    linear_inputs,
    register_foldable,
)


def mixed_outputs(link: MixedLinear, scale: Any, shift: Any) -> Weights:
    """Of a weight that blocks of the outputs share.

    Its rows take in a scale that is the same for every block. The bias, in
    which each output has an element of its own, takes in any shift.
    """
    W: Any = link.W.array
    xp = backend.get_array_module(W)
    if len(scale) != link.out_size:
        raise CannotFold(
            'it normalizes {} channels, and the layer has {} outputs'.format(
                len(scale), link.out_size))
    scales = scale.reshape(link.n_blocks, -1)
    if not _alike(xp, scales, scales[:1]):
        raise CannotFold(
            'the scale differs between blocks of outputs, which share a '
            'weight')
    return W * scales[0][:, None], bias(link) * scale + shift


def mixed_inputs(link: MixedLinear, scale: Any, shift: Any) -> Weights:
    """Of a weight that inputs share, in each of the blocks other ones.

    Its columns take in a scale that is the same for all inputs of a column.
    """
    W: Any = link.W.array
    xp = backend.get_array_module(W)
    mixing = link._mixing
    width = mixing.n_tiles * W.shape[1]
    if width % len(scale):
        raise CannotFold(
            'it normalizes {} channels, and the layer reads {} values'.format(
                len(scale), width))
    # An image is flattened channel by channel.
    scale = xp.repeat(scale, width // len(scale))
    shift = xp.repeat(shift, width // len(shift))
    columns = xp.asarray(mixing.groups(width)[0])
    factor = xp.empty(W.shape[1], scale.dtype)
    factor[columns[0]] = scale
    if not _alike(xp, factor[columns], scale):
        raise CannotFold(
            'the scale differs between inputs that share a weight')
    return W * factor, bias(link) + mixing.dense_weight(W) @ shift


def _alike(xp, a, b):
    return bool(xp.allclose(a, b, rtol=1e-6, atol=0))


register_foldable(MixedLinear, mixed_outputs, mixed_inputs)


def low_rank_outputs(link: LowRankLinear, scale: Any, shift: Any) -> Weights:
    """Of y = B A fold(x) + b: the rows of B take in the scale."""
    B: Any = link.B.array
    if len(scale) != len(B):
        raise CannotFold(
            'it normalizes {} channels, and the layer has {} outputs'.format(
                len(scale), len(B)))
    return B * scale[:, None], bias(link) * scale + shift


def low_rank_inputs(link: LowRankLinear, scale: Any, shift: Any) -> Weights:
    """The columns of A take in the scale, and b what B makes of the shift."""
    first = SimpleNamespace(
        W=link.A, b=None, n_tiles=link.n_tiles, order=link.order)
    A, added = linear_inputs(first, scale, shift)
    return A, bias(link) + link.B.array @ added


register_foldable(
    LowRankLinear, low_rank_outputs, low_rank_inputs, 'B', 'A')
