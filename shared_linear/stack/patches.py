"""Readies Chainer 7.8.1 for today's Python, NumPy and CuPy.

Chainer's last release is older than NumPy 1.24, NumPy 2, Python 3.12,
protobuf 4 and CuPy 14. The modules beside this one mend what breaks there,
one thing a function, each of which says what breaks without it and does
nothing where it is not needed. Chainer is mended, and nobody else: NumPy and
the rest of the process stay as they are.
"""
from __future__ import annotations

import sys

from shared_linear.stack import mending
from shared_linear.stack.cupy_patches import mend_cupy


def forget_failed_import() -> None:
    """A failed ``import chainer`` leaves half of Chainer in ``sys.modules``.

    A second attempt stumbles over those modules, whatever was mended in
    between (think of a notebook, where the first cell failed).
    """
    for package in ('chainer', 'chainermn'):
        if package not in sys.modules:
            for name in [m for m in sys.modules
                         if m.startswith(package + '.')]:
                del sys.modules[name]


def ready_chainer() -> None:
    """From now on ``import chainer`` gives a Chainer that is mended."""
    from shared_linear.stack import (  # noqa: F401  (they register mends)
        cupy_14,
        h5py_3,
        numpy_2,
        onnx_today,
        protobuf_4,
        python_today,
        scipy_today,
        setuptools_82,
    )
    forget_failed_import()
    mending.install()
    mend_cupy()
