"""Writes a file so that there is always the old one or the new."""
from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """Writes under another name, and renames the file when it is whole.

    Whatever happens, ``path`` is the old file or the new one, which has the
    old one's mode. What is no regular file, as a pipe or a device, is written
    to and stays what it is.
    """
    try:
        target = Path(os.path.realpath(path))
        try:
            before = os.stat(target)
        except FileNotFoundError:
            before = None
        if before is None or stat.S_ISREG(before.st_mode):
            _replace(target, content, before)
        else:
            with open(target, 'wb', buffering=0) as file:
                _write_all(file.fileno(), content)
    except OSError as e:
        if e.errno is None:
            raise
        # In the words of the user, who knows nothing of another name.
        raise type(e)(e.errno, os.strerror(e.errno), str(path)) from e


def _replace(
        target: Path, content: bytes, before: os.stat_result | None) -> None:
    if before is not None and not os.access(target, os.W_OK):
        # A new file in its place would not ask.
        raise PermissionError(13, os.strerror(13), str(target))
    # Short, as a name that is as long as can be has no room for more.
    temporary = target.with_name('.{}.tmp'.format(secrets.token_hex(8)))
    try:
        with open(temporary, 'xb') as file:
            if before is not None:
                _take_over(file.fileno(), before)
            file.write(content)
            file.flush()
            # The new name must not reach the disk before the content.
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _take_over(descriptor: int, before: os.stat_result) -> None:
    """Owner and mode of the old file, where the user may set them."""
    with contextlib.suppress(OSError, AttributeError):
        os.fchown(descriptor, before.st_uid, before.st_gid)
    with contextlib.suppress(AttributeError):
        os.fchmod(descriptor, stat.S_IMODE(before.st_mode))


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest):]
