"""Processes that a program starts afresh run on a mended Chainer as well.

Under the start methods ``spawn`` and ``forkserver`` a new Python imports the
main module again, before anything could import this package. It is told that
``worker_main.py`` is the main module; that imports this package, and then the
program.
"""
from __future__ import annotations

import json
import os
from typing import Any

_PROGRAM = 'SHARED_LINEAR_PROGRAM'
_MAIN = os.path.join(os.path.dirname(__file__), 'worker_main.py')


def ready_them(
        *, path: str, module: str | None, give_old_names: bool) -> None:
    """From now on such processes get this program as their main module."""
    from multiprocessing import spawn
    os.environ[_PROGRAM] = json.dumps({
        'path': path, 'module': module, 'give_old_names': give_old_names})
    get_preparation_data = spawn.get_preparation_data

    def with_worker_main(name: str) -> dict[str, Any]:
        data = get_preparation_data(name)
        if data.pop('init_main_from_name', None) is not None or (
                'init_main_from_path' in data):
            data['init_main_from_path'] = _MAIN
        return data

    spawn.get_preparation_data = with_worker_main


def program() -> dict[str, Any]:
    """What ``ready_them`` was told, in a process that it made ready for."""
    return dict(json.loads(os.environ[_PROGRAM]))
