"""Files that are whole or not there."""
import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_atomically(
        path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file under another name, and renames it when it is whole.

    Whatever happens, be it the end of the process, ``path`` is the old file
    or the new one. The other name ends in ``.tmp``, and stays only if the
    process is killed.

    Args:
        path (Path): The file to be.
        write (callable): Writes its content to the binary file it is given.

    Raises:
        OSError: If it cannot be written; ``path`` is as it was.
    """
    temporary = path.with_name(
        f'.{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp')
    try:
        with open(temporary, 'xb') as file:
            write(file)
            file.flush()
            # The new name must not reach the disk before the content.
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Brings a new name to the disk, where the system lets a folder sync."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
