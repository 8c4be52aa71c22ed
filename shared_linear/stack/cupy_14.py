"""What CuPy 14 took, and what it says without need."""
from __future__ import annotations

import sys
import warnings
from typing import Any

from shared_linear.stack.mending import Source, mends


@mends('chainer.backends.cuda')
def miss_no_cudnn(source: Source) -> None:
    """Chainer warns that cuDNN is off; CuPy 14 has no cuDNN module at all.

    It does so at its first kernel, which is while it is imported: where
    warnings are errors, ``import chainer`` fails without this.
    """
    source.replace(
        'if (not cudnn_enabled and\n',
        'if (_cupy_major < 14 and not cudnn_enabled and\n')


@mends('chainer.training.updaters.multiprocess_parallel_updater',
       'chainermn.nccl')
def miss_no_nccl(source: Source) -> None:
    """CuPy warns that it lacks NCCL, for which ``import chainer`` asks.

    Chainer looks whether it could train on several GPUs, and CuPy, which
    pip installs without NCCL, advises to install it. Those who use several
    GPUs hear of it from their communicator.
    """
    source.replace(
        'try:\n    from cupy.cuda',
        'try:\n    from shared_linear.stack.cupy_14 import nccl; '
        'from cupy.cuda')


def __getattr__(name: str) -> Any:
    """``cupy.cuda.nccl``, or the ImportError of it, without the advice."""
    if name != 'nccl':
        raise AttributeError(name)
    # CuPy was imported before, and with it what sets filters of its own.
    cuda = sys.modules['cupy'].cuda
    with warnings.catch_warnings():
        warnings.filterwarnings(
            'ignore', r'\s*nccl library could not be loaded',
            category=UserWarning)
        try:
            return cuda.nccl
        except AttributeError as e:
            raise ImportError(str(e)) from e
