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

# Each file is smaller packed than unpacked, give or take gzip's own header.
_GZIP_SLACK = 1000


class MirrorError(Exception):
    """No mirror gave MNIST; the message is one line."""


def fetch(
        mirrors: Sequence[str] = MIRRORS, timeout: float = 10.,
        limit: float = 120., report: Callable[[str], None] = lambda line: None
        ) -> tuple[Split, Split]:
    """Returns MNIST's training and test digits from the quickest mirror.

    Every mirror is asked for the smallest file. Those that answer with the
    right one are asked for the others, in the order of their answers, until
    one gives all four with the right checksums.

    Args:
        mirrors (sequence of str): Addresses that the names of the gzipped
            files are appended to.
        timeout (float): Seconds that the mirrors have to answer, and that
            one may be silent later. Look-ups of names count.
        limit (float): Seconds that everything may take.
        report (callable): Is given a line when the download begins.

    Raises:
        MirrorError: If no mirror gave them in time.
    """
    end = time.monotonic() + limit
    smallest = original.TEST.labels
    answers: queue.SimpleQueue = queue.SimpleQueue()
    for mirror in mirrors:
        _in_background(answers, mirror, [smallest], timeout)

    answer_by = time.monotonic() + min(timeout, limit)
    reasons = []
    for _ in mirrors:
        try:
            mirror, files, reason = answers.get(
                timeout=max(0., answer_by - time.monotonic()))
        except queue.Empty:
            reasons.append(f'no answer in {timeout:g} s')
            break
        if not reason:
            report(f'downloading MNIST from {mirror}')
            rest: queue.SimpleQueue = queue.SimpleQueue()
            _in_background(rest, mirror, [
                f for f in original.TRAIN + original.TEST if f != smallest],
                timeout)
            try:
                _, others, reason = rest.get(
                    timeout=max(0., end - time.monotonic()))
            except queue.Empty:
                reason = f'not done in {limit:g} s'
            else:
                if not reason:
                    return _splits({**files, **others})
        reasons.append(f'{mirror}: {reason}')
    raise MirrorError('; '.join(reasons) or 'no mirror given')


def _in_background(
        results: queue.SimpleQueue, mirror: str,
        wanted: Sequence[OriginalFile], timeout: float) -> None:
    """Puts (mirror, {name: content}, what went wrong) into ``results``."""
    def work():
        try:
            files = {
                file.name: _download(mirror, file, timeout)
                for file in wanted}
        except MirrorError as e:
            results.put((mirror, {}, str(e)))
        else:
            results.put((mirror, files, ''))

    # A daemon: a look-up that hangs must not keep the process from ending.
    threading.Thread(target=work, daemon=True).start()


def _download(mirror: str, file: OriginalFile, timeout: float) -> bytes:
    try:
        # A new opener, since the global one keeps the proxies of its birth.
        with urllib.request.build_opener().open(
                f'{mirror}{file.name}.gz', timeout=timeout) as response:
            packed = response.read(file.size + _GZIP_SLACK)
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


def _splits(files: dict[str, bytes]) -> tuple[Split, Split]:
    train, test = (
        Split(idx.parse_images(files[pair.images.name], pair.images.name),
              idx.parse_labels(files[pair.labels.name], pair.labels.name))
        for pair in (original.TRAIN, original.TEST))
    return train, test
