"""What a killed run left half-written in its folder."""
import os
from pathlib import Path

from shared_linear.files import TEMPORARY


def remove_leftovers(folder: Path) -> None:
    """Removes half-written files of processes that were killed.

    They are those of :func:`shared_linear.files.write_atomically`. Those of
    processes that are running stay, and so does whatever has a name of
    another form.

    Args:
        folder (Path): Where they wrote.

    Raises:
        OSError: If one cannot be removed.
    """
    for path in folder.iterdir():
        match = TEMPORARY.fullmatch(path.name)
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
