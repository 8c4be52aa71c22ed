"""The mirrors, as servers on this machine, good and bad."""
import contextlib
import gzip
import hashlib
import http.server
import socket
import threading
import time

import pytest
from made_digits import NAMES, write_digits

from mnist import mirrors, original
from mnist.mirrors import MirrorError

TIMEOUT = .5


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the server's files as its ``manner`` says."""

    def do_GET(self):
        name = self.path.rpartition('/')[2]
        self.server.asked.append(name)
        content = self.server.files.get(name)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        self.server.manner(self, name, content)

    def log_message(self, *args):
        """Nothing on stderr."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that gives up is what some tests are about."""


def send(handler, name, content):
    handler.wfile.write(content)


def send_half(handler, name, content):
    handler.wfile.write(content[:len(content) // 2])


def say_nothing(handler, name, content):
    handler.server.ended.wait(20)


def drip(handler, name, content):
    for byte in content:
        handler.wfile.write(bytes([byte]))
        if handler.server.ended.wait(.1):
            return


def only_the_first(then):
    """A manner for all but the file that every mirror is asked for."""
    def manner(handler, name, content):
        first = name == NAMES['test'][1] + '.gz'
        (send if first else then)(handler, name, content)
    return manner


@pytest.fixture
def serve(digits_dir, monkeypatch):
    """Starts mirrors of made digits, whose checksums are made the right ones.

    serve(manner=..., files=...) -> server, with ``url`` and ``asked``.
    """
    for name in 'http_proxy', 'https_proxy':
        monkeypatch.delenv(name)
    for half, pair in NAMES.items():
        monkeypatch.setattr(original, half.upper(), original.Pair(*[
            original.OriginalFile(
                name, len(content), hashlib.sha256(content).hexdigest())
            for name in pair
            for content in [(digits_dir / name).read_bytes()]]))
    right = packed(digits_dir)

    with contextlib.ExitStack() as stack:
        def serve(manner=send, files=right):
            server = stack.enter_context(Server(('127.0.0.1', 0), Handler))
            server.files = files
            server.manner = manner
            server.asked = []
            server.ended = threading.Event()
            server.url = f'http://127.0.0.1:{server.server_port}/mnist/'
            thread = threading.Thread(
                target=server.serve_forever, kwargs={'poll_interval': .01})
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            stack.callback(server.ended.set)
            return server
        yield serve


def packed(folder):
    return {
        path.name + '.gz': gzip.compress(path.read_bytes())
        for path in folder.iterdir()}


def fetch(*servers, **kwargs):
    kwargs.setdefault('timeout', 10.)
    return mirrors.fetch([server.url for server in servers], **kwargs)


def assert_right(splits, digits_dir):
    for split, (images, labels) in zip(splits, NAMES.values(), strict=True):
        assert (digits_dir / images).read_bytes().endswith(
            split.images.tobytes())
        assert (digits_dir / labels).read_bytes().endswith(
            split.labels.tobytes())
        assert split.images.shape == (len(split.labels), 784)


def test_good(serve, digits_dir):
    server = serve()
    lines = []
    assert_right(fetch(server, report=lines.append), digits_dir)
    assert lines == [f'downloading MNIST from {server.url}']
    assert sorted(server.asked) == sorted(
        name + '.gz' for pair in NAMES.values() for name in pair)


def other_digits(tmp_path):
    return packed(write_digits(tmp_path / 'other', 61, 25))


def test_wrong_checksum(serve, tmp_path):
    server = serve(files=other_digits(tmp_path))
    with pytest.raises(
            MirrorError, match=r'train-images-idx3-ubyte\.gz: wrong checks'):
        fetch(server)


def test_a_file_longer_than_the_right_one(serve, digits_dir):
    files = packed(digits_dir)
    name = NAMES['test'][1]
    files[name + '.gz'] = gzip.compress(
        (digits_dir / name).read_bytes() + bytes(10_000))
    with pytest.raises(MirrorError, match='wrong checksum'):
        fetch(serve(files=files))


@pytest.mark.parametrize('manner', [send_half, only_the_first(send_half)])
def test_truncated(serve, manner):
    with pytest.raises(MirrorError, match=r'ubyte\.gz: .+'):
        fetch(serve(manner))


def test_not_there(serve):
    with pytest.raises(MirrorError, match=r'ubyte\.gz: 404 Not Found'):
        fetch(serve(files={}))


def test_a_page_that_says_sign_in(serve):
    page = dict.fromkeys(
        [name + '.gz' for pair in NAMES.values() for name in pair],
        b'<html>Please sign in to this network</html>')
    with pytest.raises(MirrorError, match='Not a gzipped file'):
        fetch(serve(files=page))


def test_nothing_listens():
    with socket.create_server(('127.0.0.1', 0)) as closed:
        port = closed.getsockname()[1]
    begin = time.monotonic()
    with pytest.raises(MirrorError, match='refused'):
        mirrors.fetch([f'http://127.0.0.1:{port}/'])
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize('manner', [say_nothing, drip])
def test_silent_or_slow_at_once(serve, manner):
    begin = time.monotonic()
    with pytest.raises(MirrorError, match=r'no answer in 0\.5 s|timed out'):
        fetch(serve(manner), serve(manner), timeout=TIMEOUT)
    assert time.monotonic() - begin < 5


def test_silent_later(serve):
    begin = time.monotonic()
    with pytest.raises(MirrorError, match=r'images-idx3-ubyte\.gz: timed out'):
        fetch(serve(only_the_first(say_nothing)), timeout=1.)
    assert time.monotonic() - begin < 6


def test_slow_later(serve):
    """It is never silent for long, and is given up all the same."""
    begin = time.monotonic()
    with pytest.raises(MirrorError, match='not done in 1 s'):
        fetch(serve(only_the_first(drip)), limit=1.)
    assert time.monotonic() - begin < 6


def test_a_look_up_of_a_name_that_hangs(monkeypatch):
    released = threading.Event()

    def hang(*args, **kwargs):
        released.wait(20)
        raise socket.gaierror('gave up')

    for name in 'http_proxy', 'https_proxy':
        monkeypatch.delenv(name)
    monkeypatch.setattr(socket, 'getaddrinfo', hang)
    begin = time.monotonic()
    with pytest.raises(MirrorError, match=r'no answer in 0\.5 s'):
        mirrors.fetch(['http://a.invalid/', 'http://b.invalid/'],
                      timeout=TIMEOUT)
    assert time.monotonic() - begin < 5
    released.set()


@pytest.mark.parametrize('bad', [
    {'files': {}}, {'manner': send_half}, {'manner': say_nothing},
    {'manner': only_the_first(send_half)}])
def test_another_mirror_serves(serve, digits_dir, bad):
    assert_right(fetch(serve(**bad), serve()), digits_dir)


def test_another_mirror_serves_when_one_has_other_digits(
        serve, digits_dir, tmp_path):
    splits = fetch(serve(files=other_digits(tmp_path)), serve())
    assert_right(splits, digits_dir)


@pytest.mark.parametrize('bad_first', [True, False])
@pytest.mark.parametrize('manner', [drip, only_the_first(drip)])
def test_one_that_trickles_costs_no_more_than_its_share(
        serve, digits_dir, manner, bad_first):
    """It is never silent for as long as it may be, and never done."""
    servers = [serve(manner), serve()]
    begin = time.monotonic()
    splits = fetch(
        *servers[::1 if bad_first else -1], timeout=TIMEOUT, limit=20.)
    assert time.monotonic() - begin < 5
    assert_right(splits, digits_dir)


def test_one_that_is_slow_and_will_be_in_time_is_not_doubled(
        serve, digits_dir):
    def slow(handler, name, content):
        for start in range(0, len(content), 4000):
            handler.wfile.write(content[start:start + 4000])
            handler.server.ended.wait(.1)

    lines = []
    servers = [serve(only_the_first(slow)) for _ in range(2)]
    assert_right(
        fetch(*servers, timeout=TIMEOUT, limit=60., report=lines.append),
        digits_dir)
    assert len(lines) == 1


def test_no_mirror():
    with pytest.raises(MirrorError, match='no mirror given'):
        mirrors.fetch([])
