"""How much memory there is, before it is asked for."""
import os
from pathlib import Path

from mnist.errors import UserError

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

# A container's, of the two generations of control groups.
LIMITS = [
    Path('/sys/fs/cgroup/memory.max'),
    Path('/sys/fs/cgroup/memory/memory.limit_in_bytes')]


def available() -> int | None:
    """Returns the bytes that this process may still take, None if unknown.

    The least of what the machine has free, what its container may have, and
    what the process may map.
    """
    limits = [_free(), *map(_read, LIMITS)]
    if resource is not None:
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            limits.append(limit)
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else None


def check(n_bytes: int, what: str, error: type[UserError] = UserError) -> None:
    """Raises an error if there is not as much memory as something needs.

    Args:
        n_bytes (int): What it needs.
        what (str): What it is, for the message.
        error (type): Kind of the error.
    """
    free = available()
    if free is not None and n_bytes > free:
        raise error(
            f'{what}: not enough memory: about {_shown(n_bytes)} are needed, '
            f'and {_shown(free)} are free')


def _shown(n_bytes: int) -> str:
    if n_bytes < 10 ** 9:
        return f'{n_bytes / 1e6:,.0f} MB'
    return f'{n_bytes / 1e9:,.1f} GB'


def _free() -> int | None:
    try:
        for line in Path('/proc/meminfo').read_text('ascii').splitlines():
            name, _, value = line.partition(':')
            if name == 'MemAvailable':
                return 1024 * int(value.split()[0])
    except (OSError, ValueError, IndexError):
        pass  # Not Linux: what the machine has, free or not.
    try:
        return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    except (AttributeError, OSError, ValueError):
        return None


def _read(path: Path) -> int | None:
    try:
        return int(path.read_text('ascii'))
    except (OSError, ValueError):  # 'max' is no number either.
        return None
