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


@mends('chainer.functions.loss.negative_sampling')
def add_halves_in_negative_sampling(source: Source) -> None:
    """``atomicAdd`` of a float16 takes nothing but a float16 in CuPy 14.

    The product of two is a float: the gradient of ``F.negative_sampling``
    does not compile in float16 without this.
    """
    source.replace(
        'atomicAdd(&gW[k * c + j], gi * x[(i / m) * c + j]);',
        'atomicAdd(&gW[k * c + j], T(gi * x[(i / m) * c + j]));')


@mends('chainer.links.loss.hierarchical_softmax')
def add_halves_in_hierarchical_softmax(source: Source) -> None:
    """The same of ``L.BinaryHierarchicalSoftmax``."""
    source.replace(
        'atomicAdd(&gx[x_ind], g * w[w_ind]);',
        'atomicAdd(&gx[x_ind], T(g * w[w_ind]));')
    source.replace(
        'atomicAdd(&gw[w_ind], g * x[x_ind]);',
        'atomicAdd(&gw[w_ind], T(g * x[x_ind]));')


@mends('chainer.training.updaters.multiprocess_parallel_updater')
def know_halves_by_their_addresses(source: Source) -> None:
    """CuPy 14 leaves its type float16 out where no argument has it.

    ``MultiprocessParallelUpdater`` gathers parameters by their addresses: its
    kernels do not compile without this, whatever the parameters are.
    """
    for name in '_memcpy_gather', '_memcpy_scatter':
        source.replace(
            "        '{}',\n".format(name),
            "        '{}', preamble='' if cuda._cupy_major < 14 else "
            "'#include <cupy/float16.cuh>\\n',\n".format(name))


@mends('chainer.functions.array.as_strided',
       'chainer.functions.array.get_item',
       'chainer.functions.array.scatter_add',
       'chainer.functions.array.spatial_transformer_sampler',
       'chainer.utils.sparse')
def add_at(source: Source) -> None:
    """``scatter_add`` is deprecated, for it is ``cupy.add.at`` now.

    The gradient of ``x[indices]``, for one, fails without this where warnings
    are errors.
    """
    if source.name.endswith('get_item'):
        source.replace(
            'gx.scatter_add(slices, inputs[0])',
            'chainer.backends.cuda.cupy.add.at(gx, slices, inputs[0])')
    else:
        source.replace('cuda.cupyx.scatter_add', 'cuda.cupy.add.at')


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
