"""Runs a program as ``python`` would, on a Chainer that is mended.

    python -m shared_linear train.py ARGS
    python -m shared_linear -m package ARGS
"""
from __future__ import annotations

import importlib.machinery
import importlib.util
import io
import os
import sys
import types
from typing import Any

from shared_linear.stack import old_names, workers

# The module that runs this one must not be torn down before the program.
_BEFORE: list[types.ModuleType] = []


class CannotRun(Exception):

    """There is no such program; the message is what ``python`` says."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def run(name: str, arguments: list[str], *, is_module: bool = False,
        give_old_names: bool = True) -> None:
    """Runs a script, a folder, an archive or a module as ``__main__``.

    Args:
        name: Path of the script, or name of the module.
        arguments: What follows it on the command line.
        is_module: Whether it was given by ``-m``.
        give_old_names: Whether the process gets back the names that old
            programs take from NumPy and the standard library.

    Raises:
        CannotRun: If it is not there.

    """
    if give_old_names:
        old_names.give_back()
    if is_module:
        sys.argv[:] = ['-m', *arguments]
        code, main = _of_module(name)
    else:
        sys.argv[:] = [name, *arguments]
        code, main = _of_path(name)
    spec = vars(main)['__spec__']
    workers.ready_them(
        path=vars(main)['__file__'], module=spec and spec.name,
        give_old_names=give_old_names)
    _BEFORE.append(sys.modules['__main__'])
    sys.modules['__main__'] = main
    try:
        exec(code, vars(main))
    except BaseException:
        _leave_out_our_frames()
        raise


def _main_module(**attributes: Any) -> types.ModuleType:
    main = types.ModuleType('__main__')
    vars(main).update(attributes, __builtins__=sys.modules['builtins'])
    if sys.version_info < (3, 14):
        vars(main)['__annotations__'] = {}
    if sys.version_info < (3, 15):
        spec = attributes.get('__spec__')
        vars(main)['__cached__'] = spec and spec.cached
    return main


def _of_path(path: str) -> tuple[types.CodeType, types.ModuleType]:
    """``python train.py``, or a folder or an archive with ``__main__.py``."""
    full_path = os.path.join(os.getcwd(), path)
    if os.path.isdir(path) or _is_archive(path):
        if not sys.flags.safe_path:
            del sys.path[0]
        sys.path.insert(0, full_path)
        spec = importlib.machinery.PathFinder.find_spec(
            '__main__', [full_path])
        if spec is None or not isinstance(spec.origin, str):
            raise CannotRun("can't find '__main__' module in {!r}".format(
                full_path))
        return _of_spec(spec)
    try:
        with io.open_code(full_path) as file:
            source = file.read()
    except OSError as e:
        raise CannotRun("can't open file {!r}: [Errno {}] {}".format(
            full_path, e.errno, e.strerror), status=2) from None
    if not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    loader = importlib.machinery.SourceFileLoader('__main__', full_path)
    main = _main_module(__file__=full_path, __loader__=loader)
    try:
        # Without this file's own features of the future.
        return compile(source, full_path, 'exec', dont_inherit=True), main
    except BaseException:
        _leave_out_our_frames()
        raise


def _is_archive(path: str) -> bool:
    import zipfile
    return os.path.isfile(path) and zipfile.is_zipfile(path)


def _of_module(name: str) -> tuple[types.CodeType, types.ModuleType]:
    """``python -m package``, which is ``package.__main__``, or a module."""
    if not name or name.startswith('.'):
        raise CannotRun('Relative module names not supported')
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            package, name = name, name + '.__main__'
            spec = importlib.util.find_spec(name)
            if spec is None:
                raise CannotRun(
                    'No module named {}; {!r} is a package and cannot be '
                    'directly executed'.format(name, package))
    except ModuleNotFoundError as e:
        if e.name is None or not (name + '.').startswith(e.name + '.'):
            _leave_out_our_frames()
            raise
        raise CannotRun(
            'Error while finding module specification for {!r} '
            '(ModuleNotFoundError: {})'.format(name, e)) from None
    except CannotRun:
        raise
    except BaseException:
        _leave_out_our_frames()
        raise
    if spec is None:
        raise CannotRun('No module named {}'.format(name))
    code, main = _of_spec(spec)
    sys.argv[0] = str(spec.origin)
    return code, main


def _of_spec(
        spec: importlib.machinery.ModuleSpec,
) -> tuple[types.CodeType, types.ModuleType]:
    get_code = getattr(spec.loader, 'get_code', None)
    code = get_code(spec.name) if get_code is not None else None
    if code is None:
        raise CannotRun('No code object available for {}'.format(spec.name))
    main = _main_module(
        __file__=spec.origin, __loader__=spec.loader, __spec__=spec,
        __package__=spec.parent)
    return code, main


def _leave_out_our_frames() -> None:
    """The traceback of what ends the program begins with the program."""
    hook = sys.excepthook

    def show(kind: Any, error: Any, trace: Any) -> None:
        while trace is not None and _is_ours(trace.tb_frame):
            trace = trace.tb_next
        error.__traceback__ = trace
        hook(kind, error, trace)

    sys.excepthook = show


def _is_ours(frame: types.FrameType) -> bool:
    """This file, what calls it, and what finds modules."""
    path = frame.f_code.co_filename
    return path in (
        __file__, '<frozen runpy>', '<frozen importlib._bootstrap>',
        '<frozen importlib.util>', _CALLER)


_CALLER = os.path.join(
    os.path.dirname(os.path.dirname(__file__)), '__main__.py')
