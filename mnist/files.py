"""Files that are whole or not there."""
import contextlib
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

# Name, process and a random number, of a file that is being written.
_TEMPORARY = re.compile(r'\..+\.([0-9]+)-[0-9a-f]{8}\.tmp')


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


def remove_leftovers(folder: Path) -> None:
    """Removes half-written files of processes that were killed.

    They are :func:`write_atomically`'s. Those of processes that are running
    stay, and so does whatever has a name of another form.

    Args:
        folder (Path): Where they wrote.

    Raises:
        OSError: If one cannot be removed.
    """
    for path in folder.iterdir():
        match = _TEMPORARY.fullmatch(path.name)
        if match and not _is_another(int(match[1])):
            path.unlink(missing_ok=True)


def _is_another(process: int) -> bool:
    # In a container, the process before this one had the same number.
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Brings a new name to the disk, where the system lets a folder sync."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
