"""The folder of a run: one run at a time, and what a killed one left."""
import json
import os
import socket
import tempfile
import time
from pathlib import Path
from types import TracebackType

from mnist.console import note
from mnist.errors import UserError
from mnist.files import remove_leftovers

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = '.train_mnist.lock'

# Seconds in which a run that has just taken a folder says who it is.
PATIENCE = 1.

# Folders that runs of this process have: the system does not lock a file
# against the process that has it. A fork has another process number.
_ours: set[tuple[int, int, int]] = set()


class Folder:
    """The output folder, which a run has to itself within the context.

    The lock is the system's, of POSIX, on a small file in the folder. It ends
    with the process, however that ends, and holds between machines that share
    a file system too. The file says whose it is.

    Args:
        path (path): The folder.

    Attributes:
        path (Path): The folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._is_occupied = False
        self._made: list[Path] = []
        self._descriptor: int | None = None
        self._key: tuple[int, int, int] | None = None

    def occupy(self) -> None:
        """Makes the folder, locks it, and tidies up what was left in it.

        What it has done it does not do again.

        Raises:
            UserError: If it cannot be used, or another run has it.
        """
        if self._is_occupied:
            return
        try:
            self._make()
            self._lock()
            with tempfile.TemporaryFile(dir=self.path):
                remove_leftovers(self.path)
        except OSError as e:
            raise UserError(
                f'--out {self.path}: cannot write there: '
                f'{e.strerror or e}') from e
        self._is_occupied = True

    def __enter__(self) -> 'Folder':
        return self

    def __exit__(
            self, kind: type[BaseException] | None,
            error: BaseException | None,
            traceback: TracebackType | None) -> None:
        try:
            if self._descriptor is not None:
                # Its name first: who opens it later has to see that it is
                # not the file of the folder any more.
                self._unlink_lock()
                os.close(self._descriptor)
            # What was made for a run that did not begin.
            for path in reversed(self._made):
                path.rmdir()
        except OSError:
            # Not empty, or gone: the folder is the user's.
            return
        finally:
            _ours.discard(self._key)  # type: ignore[arg-type]
            self._descriptor = self._key = None

    def _make(self) -> None:
        try:
            self.path.stat()
            return
        except FileNotFoundError:
            missing = self.path
        while not missing.exists() and missing != missing.parent:
            self._made.insert(0, missing)
            missing = missing.parent
        self.path.mkdir(parents=True)

    def _lock(self) -> None:
        status = self.path.stat()
        key = os.getpid(), status.st_dev, status.st_ino
        if key in _ours:
            raise self._in_use('another run of this process')
        if fcntl is None:
            note('no lock: nothing keeps another run out of the folder')
            return
        while True:
            descriptor = os.open(
                self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
                | os.O_NOFOLLOW, 0o644)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                os.close(descriptor)
                raise self._in_use(_describe(self.path / LOCK)) from None
            except OSError as e:
                os.close(descriptor)
                note(f'no lock: {e.strerror}: nothing keeps another run out '
                     f'of {self.path}')
                (self.path / LOCK).unlink(missing_ok=True)
                return
            if _is_file(descriptor, self.path / LOCK):
                break
            # The run before removed it after it was opened here.
            os.close(descriptor)
        self._descriptor, self._key = descriptor, key
        _ours.add(key)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps({
            'host': socket.gethostname(), 'process': os.getpid(),
            'since': time.strftime('%Y-%m-%d %H:%M:%S %z')}).encode())

    def _unlink_lock(self) -> None:
        path = self.path / LOCK
        if self._descriptor is not None and _is_file(self._descriptor, path):
            path.unlink()

    def _in_use(self, by: str) -> UserError:
        return UserError(
            f'--out {self.path} is in use by {by}: wait for it, or choose '
            f'another --out')


def _is_file(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _describe(path: Path) -> str:
    """Says who has a lock, from what stands in its file."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            # A run that has just begun has not written yet.
            owner = json.loads(path.read_bytes()[:1000])
            return 'process {} on {}, since {}'.format(
                int(owner['process']), str(owner['host'])[:100],
                str(owner['since'])[:30])
        except (OSError, ValueError, KeyError, TypeError):
            if time.monotonic() > end:
                return 'another run, which does not say which it is'
        time.sleep(.05)
