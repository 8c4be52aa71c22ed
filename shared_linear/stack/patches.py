"""Readies Chainer 7.8.1 for today's Python, NumPy and CuPy.

Chainer's last release is older than NumPy 1.24, NumPy 2, Python 3.12,
protobuf 4 and CuPy 14. The modules beside this one mend what breaks there:
one function for each thing, which says what breaks without it and does
nothing where it is not needed. Chainer is mended, and nobody else: NumPy and
the rest of the process stay as they are.
"""
from __future__ import annotations

import importlib
import sys
from importlib import metadata

from shared_linear.stack import mending

RELEASE = '7.8.1'


def forget_failed_import() -> None:
    """A failed ``import chainer`` leaves half of Chainer in ``sys.modules``.

    A second attempt stumbles over those modules, whatever was mended in
    between (think of a notebook, where the first cell failed).
    """
    for package in ('chainer', 'chainermn'):
        if package not in sys.modules:
            _forget(package + '.')
    exporter = sys.modules.get('onnx_chainer.export')
    if not getattr(exporter, '_available', True):
        # It took the missing onnx.mapping for a missing onnx.
        _forget('onnx_chainer')


def _forget(start: str) -> None:
    for name in [m for m in sys.modules if m.startswith(start)]:
        del sys.modules[name]


def import_chainer() -> None:
    """``import chainer``, whose errors say what to do.

    Raises:
        ImportError: If Chainer is not there, is another than 7.8.1, is half
            imported, or fails for a reason of its own.

    """
    module = sys.modules.get('chainer')
    if module is not None and not hasattr(module, '__version__'):
        raise ImportError(
            'Chainer is half imported: nothing can mend it in this process. '
            'Start Python afresh, and import shared_linear before chainer '
            'and whatever imports it, or run the program by "python -m '
            'shared_linear"')
    try:
        importlib.import_module('chainer')
    except ModuleNotFoundError as e:
        if e.name != 'chainer':
            raise _cannot_import(e) from e
        raise ModuleNotFoundError(
            'shared_linear needs Chainer 7.8.1, which is not installed: pip '
            'install "setuptools<81", then pip install --no-build-isolation '
            'chainer==7.8.1', name='chainer') from None
    except Exception as e:
        raise _cannot_import(e) from e


def _cannot_import(error: Exception) -> ImportError:
    try:
        version = metadata.version('chainer')
    except metadata.PackageNotFoundError:
        version = 'of a version that is not known'
    if version != RELEASE:
        return ImportError(
            'shared_linear mends Chainer {}, and Chainer {} is installed: '
            'pip install chainer=={}'.format(RELEASE, version, RELEASE))
    return ImportError(
        'Chainer {} cannot be imported, though it was mended ({}: {}). Where '
        'something imported Chainer before, start Python afresh and import '
        'shared_linear first'.format(version, type(error).__name__, error))


def ready_chainer() -> None:
    """Imports Chainer, and mends it on the way."""
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
    import_chainer()
