"""Lets a run of an edited model see the functions and links that it calls.

While at least one run is under way, ``FunctionNode.apply`` and
``Link.__call__`` (and any ``__call__`` that a link's class defines in its
place) first ask whether a run is under way *in this thread*. Afterwards the
classes hold exactly what they held before.
"""
import functools
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import chainer

if TYPE_CHECKING:
    from shared_linear.surgery.run import Run


class _Local(threading.local):
    run: 'Run | None' = None


local = _Local()

_lock = threading.Lock()
# What a class held before, and how many runs want it interposed.
_installed: dict[type, tuple[Callable[..., Any], int]] = {}


def _interposed_apply(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def apply(self: chainer.FunctionNode, inputs: Any) -> Any:
        run = local.run
        if run is None:
            return original(self, inputs)
        return run.apply(self, original, inputs)

    return apply


def _interposed_call(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def __call__(self: chainer.Link, *args: Any, **kwargs: Any) -> Any:
        run = local.run
        # A class that extends __call__ reaches its base's by super(): that
        # is one call of the link, which the class's own __call__ announced.
        if run is None or type(self).__call__ is not __call__:
            return original(self, *args, **kwargs)
        return run.call(
            self, functools.partial(original, self), args, kwargs)

    return __call__


def install(classes: Iterable[type]) -> None:
    """Interposes on the classes' ``apply`` or ``__call__``, counted."""
    with _lock:
        for cls in classes:
            if cls in _installed:
                original, users = _installed[cls]
                _installed[cls] = original, users + 1
                continue
            node = issubclass(cls, chainer.FunctionNode)
            name = 'apply' if node else '__call__'
            interposed = _interposed_apply if node else _interposed_call
            original = cls.__dict__[name]
            _installed[cls] = original, 1
            setattr(cls, name, interposed(original))


def uninstall(classes: Iterable[type]) -> None:
    """Undoes one :func:`install` of the same classes."""
    with _lock:
        for cls in classes:
            original, users = _installed[cls]
            if users > 1:
                _installed[cls] = original, users - 1
                continue
            del _installed[cls]
            node = issubclass(cls, chainer.FunctionNode)
            setattr(cls, 'apply' if node else '__call__', original)


def calling_classes(links: Iterable[chainer.Link]) -> list[type]:
    """The classes whose ``__call__`` some link is called by."""
    classes = {chainer.FunctionNode: None, chainer.Link: None}
    for kind in {type(link) for link in links}:
        for cls in kind.__mro__:
            if cls is chainer.Link:
                break
            if ('__call__' in cls.__dict__ and issubclass(cls, chainer.Link)
                    and not hasattr(cls, 'surgery_base')):
                classes[cls] = None
    return list(classes)
