"""Fully connected layers whose weight is shared by the tiles of the input.

    y = x . tile(W)^T + b = fold(x) . W^T + b

n times fewer weights, and n times less computation, for Chainer and CuPy.
Import it before Chainer: Chainer 7.8.1 alone fails on NumPy 2.
"""
from shared_linear import _compat

_compat.ready_chainer()

from shared_linear import onnx  # noqa: E402
from shared_linear.conversion import share_weights  # noqa: E402
from shared_linear.function import (  # noqa: E402
    SharedLinearFunction,
    shared_linear,
)
from shared_linear.grouping import (  # noqa: E402
    StoppedByTimeLimit,
    group_inputs,
)
from shared_linear.link import SharedLinear  # noqa: E402
from shared_linear.mixed_function import (  # noqa: E402
    MixedLinearFunction,
    mixed_linear,
)
from shared_linear.mixed_link import MixedLinear  # noqa: E402
from shared_linear.report import LayerReport, Report  # noqa: E402
from shared_linear.tiling import Fold, Tile, fold, tile  # noqa: E402

__version__ = '0.1.0'

__all__ = [
    'Fold',
    'LayerReport',
    'MixedLinear',
    'MixedLinearFunction',
    'Report',
    'SharedLinear',
    'SharedLinearFunction',
    'StoppedByTimeLimit',
    'Tile',
    'fold',
    'group_inputs',
    'mixed_linear',
    'onnx',
    'share_weights',
    'shared_linear',
    'tile',
]
