"""Chromium without a window, told what to do through a pipe.

Only the standard library is needed: with ``--remote-debugging-pipe`` it reads
commands of the DevTools protocol from descriptor 3 and answers on 4, each a
line of JSON that ends in a zero byte.
"""
import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = 'chromium', 'chromium-browser', 'google-chrome', 'chrome'
# Seconds; far more than a busy machine takes.
TIMEOUT = 60.

FLAGS = [
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic',
    '--disable-dev-shm-usage', '--no-first-run', '--disable-sync',
    '--disable-background-networking', '--disable-component-update',
    '--hide-scrollbars', '--remote-debugging-pipe']

# Puts the ends of the pipes where Chromium looks for them, and becomes it.
_START = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3]]
for end, number in zip(ends, (3, 4)):
    os.dup2(end, number)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find() -> str | None:
    """Returns Chromium, None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One tab, and what it asks of the network and says on the console.

    Args:
        profile (Path): New folder for what Chromium keeps.
    """

    def __init__(self, profile: Path) -> None:
        command = find()
        assert command is not None
        their_input, self._to = os.pipe()
        self._from, their_output = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, '-c', _START, str(their_input),
             str(their_output), command, *FLAGS,
             f'--user-data-dir={profile}', 'about:blank'],
            pass_fds=(their_input, their_output),
            env={**os.environ, 'HOME': str(profile)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(their_input)
        os.close(their_output)
        self._buffer = b''
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        try:
            self._attach()
        except BaseException:
            self.close()
            raise

    def _attach(self) -> None:
        tabs = self.call('Target.getTargets')['targetInfos']
        tab = next(tab for tab in tabs if tab['type'] == 'page')
        self._session = self.call(
            'Target.attachToTarget', targetId=tab['targetId'],
            flatten=True)['sessionId']
        for domain in 'Page', 'Runtime', 'Network', 'Log':
            self.call(f'{domain}.enable')

    def __enter__(self) -> 'Browser':
        return self

    def __exit__(
            self, kind: type[BaseException] | None,
            error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends Chromium."""
        os.close(self._to)
        os.close(self._from)
        self._process.terminate()
        self._process.wait(TIMEOUT)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Sends a command, and returns its result."""
        self._number += 1
        message: dict[str, Any] = {
            'id': self._number, 'method': method, 'params': params}
        if self._session is not None:
            message['sessionId'] = self._session
        data = json.dumps(message).encode() + b'\0'
        while data:
            data = data[os.write(self._to, data):]
        while True:
            answer = self._receive()
            if answer.get('id') == self._number:
                assert 'error' not in answer, (method, answer['error'])
                return answer['result']
            self.events.append(answer)

    def open(self, path: Path, width: int, dark: bool = False) -> None:
        """Opens a file in a window of a width, and waits until it is drawn."""
        self.events.clear()
        self.call(
            'Emulation.setDeviceMetricsOverride', width=width, height=800,
            deviceScaleFactor=1, mobile=False)
        self.call('Emulation.setEmulatedMedia', features=[{
            'name': 'prefers-color-scheme',
            'value': 'dark' if dark else 'light'}])
        self.call('Page.navigate', url=path.resolve().as_uri())
        while not any(
                e['method'] == 'Page.loadEventFired' for e in self.events):
            self.events.append(self._receive())
        # Pictures are ready, and whoever listens has been told.
        self.run('Promise.all([...document.images].map(i => i.decode()))'
                 '.then(() => new Promise(requestAnimationFrame))')

    def run(self, script: str) -> Any:
        """Returns what an expression of JavaScript gives in the page."""
        answer = self.call(
            'Runtime.evaluate', expression=script, returnByValue=True,
            awaitPromise=True)
        assert 'exceptionDetails' not in answer, answer
        return answer['result'].get('value')

    def point_at(self, x: float, y: float) -> None:
        """Moves the pointer to a point of the window."""
        self.call('Input.dispatchMouseEvent', type='mouseMoved', x=x, y=y)

    def requests(self) -> list[str]:
        """Addresses that the page asked for, but for those within it."""
        return [
            e['params']['request']['url'] for e in self.events
            if e['method'] == 'Network.requestWillBeSent'
            and not e['params']['request']['url'].startswith('data:')]

    def complaints(self) -> list[dict[str, Any]]:
        """What stands on the console: errors, warnings, violations."""
        return [
            e['params'] for e in self.events if e['method'] in (
                'Log.entryAdded', 'Runtime.exceptionThrown',
                'Runtime.consoleAPICalled')]

    def screenshot(self) -> bytes:
        """Returns the whole page as a PNG."""
        return base64.b64decode(self.call(
            'Page.captureScreenshot', captureBeyondViewport=True)['data'])

    def print(self) -> bytes:
        """Returns the page as a PDF."""
        return base64.b64decode(self.call('Page.printToPDF')['data'])

    def _receive(self) -> dict[str, Any]:
        end = time.monotonic() + TIMEOUT
        while b'\0' not in self._buffer:
            ready, _, _ = select.select(
                [self._from], [], [], end - time.monotonic())
            assert ready, 'Chromium does not answer'
            data = os.read(self._from, 1 << 16)
            assert data, 'Chromium has ended'
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b'\0')
        return json.loads(message)
