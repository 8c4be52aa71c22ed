"""Readies Chainer 7.8.1 for today's Python, NumPy and CuPy.

Chainer's last release is older than NumPy 1.24, NumPy 2, Python 3.12 and
CuPy 14. Each function below mends one thing that breaks there, says what
breaks without it, and does nothing where it is not needed.
"""
import sys
import types
import warnings

import numpy

from shared_linear.stack.cupy_patches import mend_cupy


def restore_numpy_sctypes() -> None:
    """``import chainer`` reads ``numpy.sctypes``, which NumPy 2 removed.

    ``chainer.functions.array.as_strided`` reads it again at run time, so it
    stays set.
    """
    if hasattr(numpy, 'sctypes'):
        return
    numpy.sctypes = {  # type: ignore[attr-defined]
        'int': [numpy.int8, numpy.int16, numpy.int32, numpy.int64],
        'uint': [numpy.uint8, numpy.uint16, numpy.uint32, numpy.uint64],
        'float': [
            numpy.float16, numpy.float32, numpy.float64, numpy.longdouble],
        'complex': [numpy.complex64, numpy.complex128, numpy.clongdouble],
        'others': [bool, object, bytes, str, numpy.void],
    }


def restore_numpy_float() -> None:
    """``F.resize_images`` asks for ``numpy.float``, which is ``float``."""
    if 'float' not in vars(numpy):
        numpy.float = float  # type: ignore[attr-defined]


def forget_failed_import() -> None:
    """A failed ``import chainer`` leaves half of Chainer in ``sys.modules``.

    A second attempt stumbles over those modules, whatever was mended in
    between (think of a notebook, where the first cell failed).
    """
    if 'chainer' not in sys.modules:
        for name in [m for m in sys.modules if m.startswith('chainer.')]:
            del sys.modules[name]


def skip_environment_check() -> None:
    """``import chainer`` inspects the environment with removed modules.

    ``chainer._environment_check`` imports ``numpy.distutils`` (gone from
    Python 3.12) and ``pkg_resources`` (gone from setuptools 82), to warn of
    Python 3.5.0 and of an old CuPy. An empty check takes its place.
    """
    if 'chainer' not in sys.modules:
        stub = types.ModuleType('chainer._environment_check')
        stub.check = lambda: None  # type: ignore[attr-defined]
        sys.modules[stub.__name__] = stub


def ignore_missing_cudnn() -> None:
    """Chainer warns that cuDNN is off; CuPy 14 has no cuDNN module at all.

    It does so at its first kernel, which is while it is imported: with
    warnings as errors, that import fails. The filter stays, for to take it
    back would take those of SciPy, imported meanwhile, with it.
    """
    warnings.filterwarnings(
        'ignore', 'cuDNN is not enabled', category=UserWarning)


def ignore_missing_nccl() -> None:
    """CuPy warns that it lacks NCCL, for which ``import chainer`` asks.

    Chainer looks whether it could train on several GPUs, and CuPy, which
    pip installs without NCCL, advises to install it. Those who use several
    GPUs hear of it from their communicator.
    """
    warnings.filterwarnings(
        'ignore', r'\s*nccl library could not be loaded',
        category=UserWarning)


def ready_chainer() -> None:
    """Applies every patch; but for the last, before ``import chainer``."""
    restore_numpy_sctypes()
    restore_numpy_float()
    forget_failed_import()
    skip_environment_check()
    ignore_missing_cudnn()
    ignore_missing_nccl()
    mend_cupy()
