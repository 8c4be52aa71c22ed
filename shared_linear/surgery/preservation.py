"""Runs a model and puts everything back that the run changed."""
import contextlib
import random
from collections.abc import Iterator
from typing import Any

import chainer
import numpy
from chainer import reporter
from chainer.backends import cuda

_CONTAINERS = (list, dict, set)


@contextlib.contextmanager
def preserved(model: chainer.Link) -> Iterator[None]:
    """Puts back the state of a model, of the random generators and hooks.

    Running statistics, recurrent states, whatever a link assigns to its
    attributes, parameters that the first run initializes, the states of
    ``numpy.random``, ``random`` and CuPy's generator, and what is reported
    are as before when the context ends, however it ends. Hooks that are set
    for a thread are not called within it.

    """
    links = list(model.links())
    with contextlib.ExitStack() as stack:
        stack.enter_context(_random_states())
        stack.enter_context(_no_hooks())
        stack.enter_context(_no_reports())
        for link in links:
            stack.callback(_restore_attributes, link, dict(link.__dict__),
                           _contents(link))
        for param in model.params():
            if not param.is_initialized:
                stack.callback(_uninitialize, param, param._grad,
                               param._grad_valid)
        yield


def _contents(link: chainer.Link) -> list[tuple[Any, Any]]:
    contents = []
    for value in link.__dict__.values():
        if isinstance(value, chainer.get_array_types()):
            contents.append((value, value.copy()))
        elif type(value) in _CONTAINERS:
            contents.append((value, value.copy()))
        elif isinstance(value, numpy.random.RandomState):
            contents.append((value, value.get_state()))
        elif isinstance(value, numpy.random.Generator):
            contents.append((value, value.bit_generator.state))
    return contents


def _restore_attributes(link: chainer.Link, attributes: dict[str, Any],
                        contents: list[tuple[Any, Any]]) -> None:
    link.__dict__.clear()
    link.__dict__.update(attributes)
    for value, before in contents:
        if isinstance(value, chainer.get_array_types()):
            value[...] = before
        elif isinstance(value, list):
            value[:] = before
        elif isinstance(value, numpy.random.RandomState):
            value.set_state(before)
        elif isinstance(value, numpy.random.Generator):
            value.bit_generator.state = before
        else:
            value.clear()
            value.update(before)


def _uninitialize(param: chainer.Parameter, grad: Any,
                  grad_valid: bool) -> None:
    param._set_array(None, layout_check=False)
    param._grad = grad
    param._grad_valid = grad_valid


@contextlib.contextmanager
def _random_states() -> Iterator[None]:
    legacy, python = numpy.random.get_state(), random.getstate()
    device = before = None
    # CuPy may be there without a GPU: a cluster's login node, say.
    if cuda.available and cuda.cupy.cuda.is_available():
        # CuPy's state cannot be read; another generator takes its place.
        device = cuda.cupy.cuda.Device()
        before = cuda.cupy.random.get_random_state()
        cuda.cupy.random.set_random_state(
            cuda.cupy.random.RandomState(seed=0))
    try:
        yield
    finally:
        numpy.random.set_state(legacy)
        random.setstate(python)
        if device is not None:
            with device:
                cuda.cupy.random.set_random_state(before)


@contextlib.contextmanager
def _no_hooks() -> Iterator[None]:
    kinds = chainer.get_function_hooks(), chainer._get_link_hooks()
    before = [dict(hooks) for hooks in kinds]
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
