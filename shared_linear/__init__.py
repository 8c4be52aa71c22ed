"""Fully connected layers whose weight is shared by the tiles of the input.

    y = x . tile(W)^T + b = fold(x) . W^T + b

n times fewer weights, and n times less computation, for Chainer and CuPy.
Import it before Chainer: Chainer 7.8.1 alone fails on NumPy 2.
"""
# ruff: noqa: E402  (Chainer is readied before anything imports it)
from shared_linear.stack.patches import ready_chainer

ready_chainer()

from shared_linear import _moved, onnx, surgery
from shared_linear.compression import from_dense  # noqa: F401  (tells links)
from shared_linear.compression.compress import compress
from shared_linear.compression.grouping import StoppedByTimeLimit, group_inputs
from shared_linear.compression.report import LayerReport, Report
from shared_linear.compression.share_weights import share_weights
from shared_linear.layers import batch_norm  # noqa: F401  (tells surgery how)
from shared_linear.layers.function import SharedLinearFunction, shared_linear
from shared_linear.layers.link import SharedLinear
from shared_linear.layers.low_rank_link import LowRankLinear
from shared_linear.layers.mixed_function import (
    MixedLinearFunction,
    mixed_linear,
)
from shared_linear.layers.mixed_link import MixedLinear
from shared_linear.layers.tiling import Fold, Tile, fold, tile

_moved.keep_old_names()

__version__ = '0.1.0'

__all__ = [
    'Fold',
    'LayerReport',
    'LowRankLinear',
    'MixedLinear',
    'MixedLinearFunction',
    'Report',
    'SharedLinear',
    'SharedLinearFunction',
    'StoppedByTimeLimit',
    'Tile',
    'compress',
    'fold',
    'group_inputs',
    'mixed_linear',
    'onnx',
    'share_weights',
    'shared_linear',
    'surgery',
    'tile',
]
