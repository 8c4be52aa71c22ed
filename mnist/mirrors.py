"""MNIST from the public mirrors, within a time that cannot be exceeded.

Nothing here may hang: a look-up of a name that never returns, a server that
accepts and says nothing, one that sends a byte now and then. So the work is
done in daemon threads, and waited for no longer than allowed.
"""
import gzip
import hashlib
import http.client
import io
import queue
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Sequence

from mnist import idx, original
from mnist.idx import Split
from mnist.original import OriginalFile

MIRRORS = (
    'https://ossci-datasets.s3.amazonaws.com/mnist/',
    'https://storage.googleapis.com/cvdf-datasets/mnist/',
    'https://raw.githubusercontent.com/fgnt/mnist/master/',
)

# Each file is smaller packed than unpacked, give or take gzip's own header;
# all of MNIST is nearly five times smaller.
_GZIP_SLACK = 1000
_PACKING = 5

# Bytes that are read at once.
_PART = 1 << 16


class MirrorError(Exception):
    """No mirror gave MNIST; the message is one line."""


class _Asked:
    """What a mirror was asked for, and how far it has come."""

    def __init__(self, files: dict[str, bytes], n_bytes: float) -> None:
        self.files = files
        self.received = 0
        self.is_dropped = False
        self._n_bytes = n_bytes
        self._began = time.monotonic()

    def will_be_late(self, end: float) -> bool:
        """Whether it would not be done in time, if it goes on like this."""
        now = time.monotonic()
        rate = self.received / max(now - self._began, 1e-3)
        return self.received + rate * (end - now) < self._n_bytes


def fetch(
        mirrors: Sequence[str] = MIRRORS, timeout: float = 10.,
        limit: float = 120., report: Callable[[str], None] = lambda line: None
        ) -> tuple[Split, Split]:
    """Returns MNIST's training and test digits from the quickest mirror.

    Every mirror is asked for the smallest file, side by side. Of those that
    answer with the right one, the quickest is asked for the others. While it
    is on the way to be too late, the next is asked beside it. The first that
    gives all four with the right checksums is taken.

    Args:
        mirrors (sequence of str): Addresses that the names of the gzipped
            files are appended to.
        timeout (float): Seconds that the mirrors have to answer, and that
            one may be silent later. Look-ups of names count.
        limit (float): Seconds that everything may take.
        report (callable): Is given a line when a download begins.

    Raises:
        MirrorError: If no mirror gave them in time.
    """
    end = time.monotonic() + limit
    smallest = original.TEST.labels
    rest = [f for f in original.TRAIN + original.TEST if f != smallest]
    n_bytes = sum(f.size for f in rest) / _PACKING
    results: queue.SimpleQueue = queue.SimpleQueue()

    def ask(mirror: str, files: Sequence[OriginalFile], asked: _Asked) -> None:
        _in_background(results, mirror, files, timeout, asked)

    silent = {mirror: _Asked({}, 0) for mirror in mirrors}
    for mirror, asked in silent.items():
        ask(mirror, [smallest], asked)
    answered: list[tuple[str, dict[str, bytes]]] = []
    loading: dict[str, _Asked] = {}
    reasons = []
    answer_by = look_again = min(end, time.monotonic() + timeout)
    try:
        while (silent or answered or loading) and time.monotonic() < end:
            if silent and time.monotonic() >= answer_by:
                reasons += [f'{mirror}: no answer in {timeout:g} s'
                            for mirror in silent]
                _drop(silent)
                continue
            if answered and all(
                    asked.will_be_late(end) for asked in loading.values()
                    ) and (not loading or time.monotonic() >= look_again):
                mirror, files = answered.pop(0)
                report(f'downloading MNIST from {mirror}')
                loading[mirror] = _Asked(files, n_bytes)
                ask(mirror, rest, loading[mirror])
                look_again = time.monotonic() + timeout
            wait_until = min(
                end, answer_by if silent else end,
                max(look_again, time.monotonic() + .1) if answered else end)
            try:
                mirror, files, reason = results.get(
                    timeout=max(0., wait_until - time.monotonic()))
            except queue.Empty:
                continue
            if mirror in loading:
                asked = loading.pop(mirror)
                if not reason:
                    return _splits({**asked.files, **files})
            elif mirror in silent:
                del silent[mirror]
                if not reason:
                    answered.append((mirror, files))
            else:
                continue  # Too late.
            if reason:
                reasons.append(f'{mirror}: {reason}')
        reasons += [
            f'{mirror}: not done in {limit:g} s'
            for mirror in [*silent, *loading]]
        raise MirrorError('; '.join(reasons) or 'no mirror given')
    finally:
        _drop(silent)
        _drop(loading)


def _drop(asked: dict[str, _Asked]) -> None:
    """Lets the threads end that nobody waits for."""
    for one in asked.values():
        one.is_dropped = True
    asked.clear()


def _in_background(
        results: queue.SimpleQueue, mirror: str,
        wanted: Sequence[OriginalFile], timeout: float,
        asked: _Asked) -> None:
    """Puts (mirror, {name: content}, what went wrong) into ``results``."""
    def work():
        try:
            files = {
                file.name: _download(mirror, file, timeout, asked)
                for file in wanted}
        except MirrorError as e:
            results.put((mirror, {}, str(e)))
        else:
            results.put((mirror, files, ''))

    # A daemon: a look-up that hangs must not keep the process from ending.
    threading.Thread(target=work, daemon=True).start()


def _download(
        mirror: str, file: OriginalFile, timeout: float,
        asked: _Asked) -> bytes:
    try:
        # A new opener, since the global one keeps the proxies of its birth.
        with urllib.request.build_opener().open(
                f'{mirror}{file.name}.gz', timeout=timeout) as response:
            packed = _read(response, file.size + _GZIP_SLACK, asked)
        with gzip.open(io.BytesIO(packed)) as unpacked:
            # One byte more than wanted tells a longer file from the right
            # one, and a bomb is not unpacked.
            content = unpacked.read(file.size + 1)
    except urllib.error.HTTPError as e:
        e.close()
        raise MirrorError(f'{file.name}.gz: {e.code} {e.reason}') from e
    except urllib.error.URLError as e:
        raise MirrorError(f'{file.name}.gz: {e.reason}') from e
    except (OSError, EOFError, ValueError, zlib.error,
            http.client.HTTPException) as e:
        raise MirrorError(f'{file.name}.gz: {e or type(e).__name__}') from e
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise MirrorError(f'{file.name}.gz: wrong checksum')
    return content


def _read(
        response: http.client.HTTPResponse, limit: int,
        asked: _Asked) -> bytes:
    """Reads a response as it comes, so that it is known how far it is."""
    content = b''
    while len(content) < limit:
        part = response.read1(min(_PART, limit - len(content)))
        if not part:
            break
        content += part
        asked.received += len(part)
        if asked.is_dropped:
            raise MirrorError('another mirror was quicker')
    return content


def _splits(files: dict[str, bytes]) -> tuple[Split, Split]:
    train, test = (
        Split(idx.parse_images(files[pair.images.name], pair.images.name),
              idx.parse_labels(files[pair.labels.name], pair.labels.name))
        for pair in (original.TRAIN, original.TEST))
    return train, test
