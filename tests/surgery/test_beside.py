"""Edits beside running threads, and in the children of busy parents."""
import os
import signal
import sys
import threading
import time

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from networks import Bias, vectors

from shared_linear import surgery
from shared_linear.surgery import interposition, turns

# More by these, of one process each time.
N_CALLS = int(os.environ.get('N_CALLS', 600))
N_CHILDREN = int(os.environ.get('N_CHILDREN', 25))


class Small(chainer.Chain):

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.l = L.Linear(6, 6)
            self.n = L.BatchNormalization(6)

    def forward(self, x):
        return F.relu(self.n(self.l(x)))


class Workers:

    """Threads that begin at once, and what went wrong in them."""

    def __init__(self, n, work):
        self.errors = []
        barrier = threading.Barrier(n)

        def run(i):
            try:
                barrier.wait(30)
                work(i)
            except BaseException as error:
                self.errors.append(error)

        self.threads = [
            threading.Thread(target=run, args=(i,)) for i in range(n)]
        for thread in self.threads:
            thread.start()

    def join(self):
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()
        assert self.errors == []


def test_an_edit_that_was_not_tried_acts_in_every_call_of_every_thread():
    x = vectors()
    calls = 0
    with chainer.using_config('train', False):
        plain = Small()
        y = plain(x).array
    for i in range(N_CALLS // 8):
        model = plain.copy('copy')
        surgery.insert_after(model, '/ReLU', F.square)
        if i % 2:
            surgery.insert_after(
                model, '/l', lambda node: Bias(0.), each=True)
        got = []

        def work(i, model=model, got=got):
            with chainer.using_config('train', False):
                for _ in range(2):
                    got.append(model(x).array)

        Workers(4, work).join()
        calls += len(got)
        for result in got:
            np.testing.assert_array_equal(result, y * y)
        assert len(surgery.edits(model)) == 1 + i % 2
        assert all(one.edit.confirmed for one in surgery.edits(model))
    assert calls == N_CALLS // 8 * 8


def test_tracing_beside_runs_loses_no_statistics():
    """Each run in train mode counts once, each trace not at all."""
    model, x = Small(), vectors()
    stop = threading.Event()
    counts = [0, 0, 0]

    def work(i):
        if i == 0:
            for _ in range(15):
                surgery.trace(model, x)
            stop.set()
            return
        while not stop.is_set():
            model(x)
            counts[i] += 1
            time.sleep(.0005)

    before = np.array(model.n.avg_mean)
    Workers(2, work).join()
    n = sum(counts)
    assert n > 0
    mean = model.l(x).array.mean(0)
    expected = before
    for _ in range(n):
        expected = expected * .9 + mean * .1
    np.testing.assert_allclose(model.n.avg_mean, expected, rtol=1e-3)


def test_a_model_that_runs_elsewhere_for_long_is_refused(monkeypatch):
    monkeypatch.setattr(turns, 'PATIENCE', .2)
    model, x = Small(), vectors()
    inside, done = threading.Event(), threading.Event()

    class Slow(chainer.Link):
        def forward(self, h):
            inside.set()
            done.wait(30)
            return h

    with model.init_scope():
        model.slow = Slow()
    model.forward = lambda x: model.slow(model.l(x))
    mean = model.n.avg_mean.copy()
    thread = threading.Thread(target=lambda: model(x))
    thread.start()
    assert inside.wait(30)
    try:
        for call in (lambda: surgery.trace(model, x),
                     lambda: surgery.insert_after(model, '/l', F.relu, x=x),
                     lambda: surgery.quantize(model, x)):
            with pytest.raises(RuntimeError, match='runs in another thread'):
                call()
    finally:
        done.set()
        thread.join(30)
    assert surgery.edits(model) == []
    np.testing.assert_array_equal(model.n.avg_mean, mean)


def test_parts_in_threads_of_the_model_do_not_hang(monkeypatch):
    """A forward that waits for threads which run edited parts."""
    monkeypatch.setattr(turns, 'PATIENCE', .2)

    class Parallel(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.a, self.b = Small(), Small()

        def forward(self, x):
            results = [None, None]

            def work(i, link):
                with chainer.using_config('train', False):
                    results[i] = link(x)

            threads = [threading.Thread(target=work, args=pair)
                       for pair in enumerate((self.a, self.b))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            return results[0] + results[1]

    model, x = Parallel(), chainer.Variable(vectors())
    with chainer.using_config('train', False):
        y = model(x).array
        surgery.insert_after(model.a, '/ReLU', lambda h: h + 1)
        surgery.insert_after(model, '/Add', lambda h: 2 * h)
        np.testing.assert_allclose(
            model(x).array, 2 * (y + 1), rtol=1e-6)


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs os.fork')
@pytest.mark.filterwarnings('ignore:.*multi-threaded.*:DeprecationWarning')
def test_children_of_a_busy_parent_do_not_hang():
    if sys.gettrace() is not None:
        pytest.skip(
            'coverage takes a lock of its own in every thread, which a fork '
            'takes along')
    models = [Small() for _ in range(3)]
    x = vectors()
    for model in models:
        surgery.insert_after(model, '/ReLU', F.square, x=x)
    stop = threading.Event()

    def work(i):
        with chainer.using_config('train', False):
            while not stop.is_set():
                models[i](x)
                if i == 1:
                    surgery.trace(models[i], x)
                fresh = type('Small', (Small,), {})()
                surgery.insert_after(fresh, '/ReLU', F.tanh, x=x)

    workers = Workers(2, work)
    try:
        hung = sum(not child_ends(models[i % 3], x)
                   for i in range(N_CHILDREN))
    finally:
        stop.set()
        workers.join()
    assert hung == 0


def child_ends(model, x):
    """Whether a child can run, trace and edit what its parent is busy with.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with chainer.using_config('train', False):
                y = model(x)
                surgery.trace(model, x)
                surgery.insert_after(model, '/ReLU', F.tanh, x=x)
                same = np.array_equal(model(x).array, np.tanh(y.array))
            clean = not interposition._installed
            status = 0 if same and clean else 2
        finally:
            os._exit(status)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            assert os.waitstatus_to_exitcode(status) == 0
            return True
        time.sleep(.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False
