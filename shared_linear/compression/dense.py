"""Which links are dense layers, and whose parameters are theirs alone."""
from __future__ import annotations

from typing import Any

import chainer
import chainer.links as L

from shared_linear.surgery.ties import find_ties, spans

__all__ = ['Readers', 'find_ties', 'is_dense', 'why_not_dense']

# What decides what a layer computes from its W and b.
METHODS = '__call__', 'forward', '_initialize_params'


def why_not_dense(link: Any) -> str | None:
    """Why a link is no ``L.Linear`` in what it computes, or ``None``.

    A subclass may do more: in ``forward``, in ``__call__`` as was the habit
    before Chainer 5, in a ``W`` that is made anew for each call. A layer that
    takes the place of the link would not.
    """
    if not isinstance(link, L.Linear):
        return 'is a {}'.format(type(link).__name__)
    if hasattr(type(link), 'surgery_base'):
        return 'holds edits of surgery, which would be lost: revert them first'
    for name in METHODS:
        if (getattr(type(link), name) is not getattr(L.Linear, name)
                or name in vars(link)):
            return 'has a {} of its own'.format(name)
    for name in 'W', 'b':
        if hasattr(type(link), name):
            return 'computes its {}'.format(name)
        if not isinstance(
                getattr(link, name, None), (chainer.Parameter, type(None))):
            return 'has a {} that is no parameter'.format(name)
    return None


def is_dense(link: Any) -> bool:
    """Whether a link is ``L.Linear`` in what it computes."""
    return why_not_dense(link) is None


def dense_layers(model: Any, purpose: str) -> dict[str, Any]:
    """The dense layers of a model by path; there is at least one."""
    layers = {
        path: link for path, link in model.namedlinks(skipself=True)
        if is_dense(link)}
    if not layers:
        others = [
            '{} {}'.format(path, why_not_dense(link))
            for path, link in model.namedlinks(skipself=True)
            if isinstance(link, L.Linear)]
        raise ValueError(
            'there is no layer to {} in {}: {}'.format(
                purpose, type(model).__name__,
                '; '.join(others) or 'it has no chainer.links.Linear'))
    for path, link in layers.items():
        for parameter in (link.W, link.b):
            if parameter is not None and parameter.array is not None:
                xp = chainer.backend.get_array_module(parameter.array)
                if not bool(xp.isfinite(parameter.array).all()):
                    raise ValueError(
                        '{} has weights that are not finite'.format(path))
    return layers


class Readers(chainer.FunctionHook):

    """Counts the functions that read the parameters of some links.

    A model may compute with a layer's weight without the layer: a decoder
    that uses the encoder's, or a penalty.
    """

    name = 'SharedLinearReaders'

    def __init__(self, links: dict[str, Any]) -> None:
        self.functions: dict[str, list[str]] = {path: [] for path in links}
        self._spans = [
            (start, end, path) for path, link in links.items()
            for parameter in (link.W, link.b)
            if parameter is not None and parameter.array is not None
            for start, end in spans(parameter.array)]

    def forward_postprocess(self, function: Any, in_data: Any) -> None:
        reads = set()
        for array in in_data:
            if not isinstance(array, chainer.get_array_types()):
                continue
            for start, end in spans(array):
                reads |= {
                    path for a, b, path in self._spans
                    if start < b and a < end}
        for path in reads:
            self.functions[path].append(function.label)

    def ties(self, n_calls: dict[str, int]) -> dict[str, str]:
        """Links whose parameters are read more often than they are called."""
        return {
            path: 'the model itself, by ' + ', '.join(dict.fromkeys(labels))
            for path, labels in self.functions.items()
            if len(labels) > n_calls[path]}
