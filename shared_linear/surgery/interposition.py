"""Lets a run of an edited model see the functions and links that it calls.

While at least one run is under way, ``FunctionNode.apply``, ``Link.__call__``
and the ``__call__`` and ``forward`` of the classes of the model's links
first ask whether a run is under way *in this thread*. Afterwards the classes
hold exactly what they held before.
"""
import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import chainer

from shared_linear.surgery import turns
from shared_linear.surgery.methods import own_methods


class UnderWay(Protocol):

    """A run that sees what its thread calls."""

    def apply(self, node: chainer.FunctionNode,
              original: Callable[..., Any], inputs: Any) -> Any:
        """Runs a function."""

    def call(self, link: chainer.Link, original: Callable[..., Any],
             args: Any, kwargs: dict[str, Any], pending: bool) -> Any:
        """Runs the call of a link, by ``__call__`` if ``pending``."""

    def method(self, link: chainer.Link, name: str,
               original: Callable[..., Any], args: Any,
               kwargs: dict[str, Any]) -> Any:
        """Runs another method of a link."""

    def reaches_forward(self, link: chainer.Link) -> bool:
        """Whether this is the ``forward`` of a ``__call__`` under way."""


class _Local(threading.local):
    run: 'UnderWay | None' = None
    # Edits that do not act, though they are there.
    without: frozenset[str] = frozenset()
    # Whether children() tells of inserted layers, too.
    shows_layers = False
    # What this thread has interposed.
    installed: 'tuple[Sequence[Method], ...]' = ()


local = _Local()

_lock = threading.Lock()
# What a class held before, and how many runs want it interposed.
_installed: 'dict[Method, tuple[Callable[..., Any], int]]' = {}


@functools.lru_cache(maxsize=512)
def _interposed_apply(original: Callable[..., Any],
                      name: str) -> Callable[..., Any]:
    @functools.wraps(original)
    def apply(self: chainer.FunctionNode, inputs: Any) -> Any:
        run = local.run
        if run is None:
            return original(self, inputs)
        return run.apply(self, original, inputs)

    return apply


@functools.lru_cache(maxsize=512)
def _interposed_call(original: Callable[..., Any],
                     name: str) -> Callable[..., Any]:
    @functools.wraps(original)
    def __call__(self: chainer.Link, *args: Any, **kwargs: Any) -> Any:
        run = local.run
        # A class that extends __call__ reaches its base's by super(): that
        # is one call of the link, which the class's own __call__ announced.
        if type(self).__call__ is not __call__:
            return original(self, *args, **kwargs)
        if run is None:
            turns.gate(self)
            return original(self, *args, **kwargs)
        return run.call(
            self, functools.partial(original, self), args, kwargs, True)

    return __call__


@functools.lru_cache(maxsize=512)
def _interposed_forward(original: Callable[..., Any],
                        name: str) -> Callable[..., Any]:
    @functools.wraps(original)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        run = local.run
        if (run is None or type(self).forward is not forward
                or run.reaches_forward(self)):
            return original(self, *args, **kwargs)
        return run.call(
            self, functools.partial(original, self), args, kwargs, False)

    return forward


@functools.lru_cache(maxsize=512)
def _interposed_method(original: Callable[..., Any],
                       name: str) -> Callable[..., Any]:
    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        run = local.run
        if run is None:
            turns.gate(self)
            return original(self, *args, **kwargs)
        return run.method(
            self, name, functools.partial(original, self), args, kwargs)

    return method


_INTERPOSED = {'apply': _interposed_apply, '__call__': _interposed_call,
               'forward': _interposed_forward}

Method = tuple[type, str]


def install(methods: Iterable[Method]) -> None:
    """Interposes on methods of classes, and counts how often."""
    with _lock:
        for cls, name in methods:
            if (cls, name) in _installed:
                original, users = _installed[cls, name]
                _installed[cls, name] = original, users + 1
            else:
                original = cls.__dict__[name]
                _installed[cls, name] = original, 1
                interposed = _INTERPOSED.get(name, _interposed_method)
                setattr(cls, name, interposed(original, name))


def uninstall(methods: Iterable[Method]) -> None:
    """Undoes one :func:`install` of the same methods."""
    with _lock:
        for cls, name in methods:
            original, users = _installed[cls, name]
            if users > 1:
                _installed[cls, name] = original, users - 1
            else:
                del _installed[cls, name]
                setattr(cls, name, original)


def called_methods(links: Iterable[chainer.Link]) -> list[Method]:
    """The methods by which functions and these links are called."""
    methods: dict[Method, None] = {
        (chainer.FunctionNode, 'apply'): None,
        (chainer.Link, '__call__'): None}
    for kind in {type(link) for link in links}:
        if hasattr(kind, 'surgery_base'):
            # An edited link sees to that by itself.
            continue
        for name in '__call__', 'forward':
            for cls in kind.__mro__:
                if name in cls.__dict__:
                    if issubclass(cls, chainer.Link):
                        methods[cls, name] = None
                    break
        for name, cls in own_methods(kind).items():
            methods[cls, name] = None
    return list(methods)


@contextlib.contextmanager
def watched(links: Iterable[chainer.Link]) -> Iterator[None]:
    """Interposes on the methods by which these links are called."""
    methods = called_methods(links)
    before = local.installed
    install(methods)
    local.installed = *before, methods
    try:
        yield
    finally:
        local.installed = before
        uninstall(methods)


@contextlib.contextmanager
def under_way(run: UnderWay, links: Iterable[chainer.Link],
              ) -> Iterator[None]:
    """Lets a run see what this thread calls, whatever happens in it."""
    before = local.run
    with watched(links):
        local.run = run
        try:
            yield
        finally:
            local.run = before


def _after_fork() -> None:
    """Takes off, in the child, what threads of the parent interposed."""
    global _lock
    _lock = threading.Lock()
    for method, (original, _) in list(_installed.items()):
        users = sum(method in methods for methods in local.installed)
        if users:
            _installed[method] = original, users
        else:
            del _installed[method]
            setattr(*method, original)


# None is forked while another thread is half-way in the classes.
os.register_at_fork(
    before=lambda: _lock.acquire() and None,
    after_in_parent=lambda: _lock.release(), after_in_child=_after_fork)
