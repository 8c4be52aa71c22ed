"""Files that are whole or not there."""
from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

# Name, process and a random number, of a file that is being written.
TEMPORARY = re.compile(r'\..*\.([0-9]+)-[0-9a-f]{8}\.tmp', re.DOTALL)

# Bytes that a name may have nearly everywhere.
MAX_NAME = 255


def write_atomically(
        path: str | os.PathLike[str],
        write: Callable[[BinaryIO], object]) -> None:
    """Writes a file under another name, and renames it when it is whole.

    Whatever happens, be it the end of the process or of the power supply,
    ``path`` is the old file or the new one. The other name ends in ``.tmp``,
    and stays only if the process is killed.

    A new file has the permissions that the umask leaves; one that is replaced
    keeps its own. A symbolic link stays, and what it leads to is replaced. A
    device or a pipe is no file to be replaced: it is written into.

    Args:
        path (path): The file to be.
        write (callable): Writes its content to the binary file it is given.

    Raises:
        OSError: If it cannot be written, with ``path`` as its file name;
            what was there is as it was.
    """
    target = Path(os.path.realpath(path))
    try:
        before = _status(Path(os.fsdecode(path)))
        if before is not None and not stat.S_ISREG(before.st_mode):
            # By its own name: a pipe behind /dev/stdout has no other.
            with open(path, 'wb') as file:
                write(file)
            return
        if before is not None and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        _write_beside(target, write, before)
    except OSError as e:
        if e.errno is None:
            raise
        # In the words of the user, who knows nothing of another name.
        raise OSError(e.errno, os.strerror(e.errno), str(path)) from e


def _write_beside(
        target: Path, write: Callable[[BinaryIO], object],
        before: os.stat_result | None) -> None:
    temporary = target.with_name(temporary_name(target.name))
    try:
        with open(temporary, 'xb') as file:
            if before is not None:
                # First: what is secret is so from its first byte.
                _take_over(temporary, before)
            write(file)
            file.flush()
            # The new name must not reach the disk before the content.
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def temporary_name(name: str) -> str:
    """Returns another name beside a file's, no longer than a name may be."""
    end = '.{}-{}.tmp'.format(os.getpid(), secrets.token_hex(4))
    room = MAX_NAME - len(end) - 1
    # Cut between characters: some systems take no halves of one.
    beginning = os.fsencode(name)[:room].decode(
        sys.getfilesystemencoding(), 'ignore')
    return '.{}{}'.format(beginning, end)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _take_over(path: Path, before: os.stat_result) -> None:
    """Gives a file the owner, where that is allowed, and the permissions."""
    if hasattr(os, 'chown'):
        with contextlib.suppress(OSError):
            os.chown(path, before.st_uid, before.st_gid)
    os.chmod(path, stat.S_IMODE(before.st_mode))


def _sync_folder(folder: Path) -> None:
    """Brings a new name to the disk, where the system lets a folder sync."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
