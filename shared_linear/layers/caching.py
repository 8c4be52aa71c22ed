"""A cache that is bounded by what it keeps, in bytes."""
from __future__ import annotations

import collections
import functools
import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar('Result')


def cache_up_to(
        n_bytes: int) -> Callable[[Callable[..., Result]], Any]:
    """Keeps the latest results of a function, tuples of arrays or arrays.

    Args:
        n_bytes: How much they may take. One is always kept, however large.

    """
    def decorate(function: Callable[..., Result]) -> Any:
        results: collections.OrderedDict[Any, tuple[Result, int]] = (
            collections.OrderedDict())
        lock = [threading.Lock()]
        # A lock that another thread holds would stay held in a child.
        os.register_at_fork(
            after_in_child=lambda: lock.__setitem__(0, threading.Lock()))

        @functools.wraps(function)
        def cached(*args: Any) -> Result:
            with lock[0]:
                if args in results:
                    results.move_to_end(args)
                    return results[args][0]
            result = function(*args)
            arrays: Any = (
                result if isinstance(result, tuple) else (result,))
            with lock[0]:
                results[args] = result, sum(a.nbytes for a in arrays)
                results.move_to_end(args)
                total = sum(size for _, size in results.values())
                while total > n_bytes and len(results) > 1:
                    _, (_, size) = results.popitem(last=False)
                    total -= size
            return result

        cached.results = results  # type: ignore[attr-defined]
        return cached

    return decorate
