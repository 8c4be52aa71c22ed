"""Runs a model and puts everything back that the run changed."""
import contextlib
import os
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import chainer
import numpy
from chainer import reporter
from chainer.backends import cuda

from shared_linear.surgery import interposition, turns
from shared_linear.surgery.callables import class_of
from shared_linear.surgery.holding import Holder
from shared_linear.surgery.state import State


def all_links(model: chainer.Link) -> list[chainer.Link]:
    """Every link once, inserted layers with them, whoever asks."""
    return list({id(link): link for _, link in model.namedlinks()}.values())


@contextlib.contextmanager
def examination(*models: chainer.Link) -> Iterator[list[chainer.Link]]:
    """Waits until no other thread runs the models, and keeps others out.

    Meanwhile the device of the first is in use, and its random numbers.
    """
    links = [link for model in models for link in all_links(model)]
    with interposition.watched(links):
        with turns.turn(links, class_of(models[0]).__name__):
            with chainer.using_device(models[0].device):
                yield links


@contextlib.contextmanager
def transaction(*models: chainer.Link) -> Iterator[None]:
    """All or nothing: what ends by an exception has changed nothing.

    The models, all that they hold, their classes and edits, and the states
    of ``numpy.random``, ``random`` and CuPy's generator are then as before,
    bit for bit.

    """
    with examination(*models) as links:
        state, put_back = State(links), _random_numbers()
        try:
            yield
        except BaseException:
            state.restore()
            put_back()
            raise


@contextlib.contextmanager
def unchanged(model: chainer.Link, args: Any = (),
              leave: Iterable[chainer.Link] = ()) -> Iterator[None]:
    """Puts back all that a model holds, and the random numbers, at the end.

    Args:
        model (~chainer.Link): The model. Its edits stay as they become.
        args: What it is called with, which is put back, too.
        leave (iterable of ~chainer.Link): Links that stay as they become.

    """
    with examination(model) as links:
        state = State([*links, args], (Holder,), leave)
        put_back = _random_numbers()
        try:
            yield
        finally:
            state.restore()
            put_back()


@contextlib.contextmanager
def preserved(model: chainer.Link, args: Any = (),
              leave: Iterable[chainer.Link] = ()) -> Iterator[None]:
    """Puts back the state of a model, of the random generators and hooks.

    Running statistics, recurrent states, whatever a link keeps in whatever
    container, parameters that the first run initializes, the states of
    ``numpy.random``, ``random`` and CuPy's generator, and what is reported
    are as before when the context ends, however it ends. Hooks that are set
    for a thread are not called within it.

    Args:
        model (~chainer.Link): The model.
        args: What it is called with, which is put back, too.
        leave (iterable of ~chainer.Link): Links that stay as they become.

    """
    with unchanged(model, args, leave), _no_hooks(), _no_reports():
        # CuPy's state cannot be read; another generator takes its place.
        if _has_gpu():
            cuda.cupy.random.set_random_state(
                cuda.cupy.random.RandomState(seed=0))
        yield


# NumPy's global generator has a lock, which is held for a moment whenever its
# state is read: none is forked meanwhile, or the child would wait for ever.
_held: list[Any] = []


def _before_fork() -> None:
    generators: Any = numpy.random
    lock = generators.get_bit_generator().lock
    lock.acquire()
    _held.append(lock)


def _after_fork() -> None:
    _held.pop().release()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork,
    after_in_child=_after_fork)


def _has_gpu() -> bool:
    # CuPy may be there without a GPU: a cluster's login node, say.
    return bool(cuda.available and cuda.cupy.cuda.is_available())


def _random_numbers() -> Callable[[], None]:
    legacy, python = numpy.random.get_state(), random.getstate()
    device = before = None
    if _has_gpu():
        device = cuda.cupy.cuda.Device()
        before = cuda.cupy.random.get_random_state()

    def put_back() -> None:
        numpy.random.set_state(legacy)
        random.setstate(python)
        if device is not None:
            with device:
                # The other generator goes, and may have to draw yet.
                device.synchronize()
                cuda.cupy.random.set_random_state(before)

    return put_back


@contextlib.contextmanager
def _no_hooks() -> Iterator[None]:
    kinds = chainer.get_function_hooks(), chainer._get_link_hooks()
    before: list[Any] = [dict(hooks) for hooks in kinds]
    for hooks in kinds:
        hooks.clear()
    try:
        yield
    finally:
        for hooks, saved in zip(kinds, before, strict=True):
            hooks.update(saved)


@contextlib.contextmanager
def _no_reports() -> Iterator[None]:
    reporters = reporter._get_reporters()
    if not reporters:
        yield
        return
    current = reporters[-1]
    observation = current.observation
    current.observation = {}
    try:
        yield
    finally:
        current.observation = observation
