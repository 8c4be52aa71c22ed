"""What ``python -m shared_linear --check`` prints."""
from __future__ import annotations

import importlib.util
import platform
from collections.abc import Iterator
from importlib import metadata

from shared_linear.stack import mending


def print_report() -> int:
    """Prints the stack that was found, and each mend; the exit status."""
    for name, found in _stack():
        print('{:<12} {}'.format(name, found))
    print()
    for module, mend in mending.all_mends():
        print('{:<12} {}: {}'.format(_state(module, mend), module, ' '.join(
            (mend.__doc__ or '').strip().split('\n')[0].split())))
    return 0


def _state(name: str, mend: mending.Mend) -> str:
    try:
        spec = importlib.util.find_spec(name)
        text = mending.text_of(spec) if spec is not None else None
    except ImportError:
        text = None
    if text is None:
        return 'not there'
    try:
        done = mending.mended(name, text, mend) is not None
    except mending.NotAsReleased:
        return 'changed'
    except ImportError:
        # A package that only this module of Chainer needs.
        return 'not there'
    return 'mended' if done else 'not needed'


def _stack() -> Iterator[tuple[str, str]]:
    yield 'Python', '{} on {}'.format(
        platform.python_version(), platform.platform())
    for name, package in [
            ('shared_linear', 'shared_linear'), ('Chainer', 'chainer'),
            ('NumPy', 'numpy'), ('SciPy', 'scipy')]:
        yield name, _version(package)
    yield 'CuPy', _cupy()
    yield 'MPI', _mpi()
    yield 'ONNX', '{}, onnxruntime {}'.format(
        _version('onnx'), _version('onnxruntime'))
    for name, package in [
            ('protobuf', 'protobuf'), ('h5py', 'h5py'), ('Pillow', 'pillow'),
            ('matplotlib', 'matplotlib')]:
        yield name, _version(package)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return 'not installed'


def _cupy() -> str:
    from chainer.backends import cuda
    if not cuda.available:
        # Chainer keeps it to itself.
        return 'none: {}'.format(_first_line(cuda._resolution_error))
    try:
        devices = cuda.cupy.cuda.runtime.getDeviceCount()
    except cuda.cupy.cuda.runtime.CUDARuntimeError as e:
        return '{}, but no device: {}'.format(cuda.cupy.__version__, e)
    return '{}, devices: {}'.format(cuda.cupy.__version__, devices)


def _mpi() -> str:
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as e:
        # RuntimeError where there is mpi4py, but no MPI.
        return 'none: {}'.format(_first_line(e))
    return '{}, mpi4py {}'.format(
        _first_line(MPI.Get_library_version()), _version('mpi4py'))


def _first_line(message: object) -> str:
    lines = str(message).strip('\0 \n').splitlines()
    return lines[0] if lines else type(message).__name__
