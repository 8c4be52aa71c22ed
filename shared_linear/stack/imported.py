"""Mends modules that were imported before this package.

Where Chainer imports by itself, or by somebody's own shim, it is there
already, and others hold its classes and functions. These stay, and get the
code that they would have, had they been imported now.
"""
from __future__ import annotations

import ast
import types
from collections.abc import Iterator
from typing import Any


def mend(module: types.ModuleType, text: str, mended: str) -> None:
    """Gives a module the imports and the functions that are different."""
    path = module.__file__ or module.__name__
    before = {ast.dump(node) for node in ast.parse(text).body}
    imports: list[ast.stmt] = [
        node for node in ast.parse(mended).body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        and ast.dump(node) not in before]
    exec(compile(ast.Module(imports, []), path, 'exec'), vars(module))
    old = dict(_functions(compile(text, path, 'exec', dont_inherit=True)))
    new = dict(_functions(compile(mended, path, 'exec', dont_inherit=True)))
    for name, code in new.items():
        if old.get(name) != code:
            _put(module, name, code)


def _functions(
        code: types.CodeType, prefix: str = '',
) -> Iterator[tuple[str, types.CodeType]]:
    """Functions of a module and methods of its classes, by dotted names."""
    for constant in code.co_consts:
        if not isinstance(constant, types.CodeType):
            continue
        name = prefix + constant.co_name
        # A function has fast locals, and the body of a class has not.
        if constant.co_flags & 2:
            yield name, constant
        else:
            yield from _functions(constant, name + '.')


def _put(module: types.ModuleType, name: str, code: types.CodeType) -> None:
    owner_name, _, attribute = name.rpartition('.')
    owner: Any = module
    for part in filter(None, owner_name.split('.')):
        owner = vars(owner)[part]
    function = vars(owner).get(attribute)
    while hasattr(function, '__wrapped__'):
        function = function.__wrapped__
    if function is None:
        setattr(owner, attribute, types.FunctionType(code, vars(module)))
    elif isinstance(function, types.FunctionType) and (
            len(function.__code__.co_freevars) == len(code.co_freevars)):
        function.__code__ = code
