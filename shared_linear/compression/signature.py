"""What a model is called with, as the signature of its forward says."""
from __future__ import annotations

import inspect
from typing import Any

import chainer
import chainer.links as L

from shared_linear.surgery.edited import Edited


def called(model: Any) -> Any:
    """What is called with inputs: of a Classifier the predictor."""
    return model.predictor if isinstance(model, L.Classifier) else model


def signature(model: Any) -> inspect.Signature | None:
    """The signature of what is called, if there is one that says anything.

    A :class:`chainer.Sequential` passes all on to its first layer.
    """
    function = called(model)
    while type(function) is chainer.Sequential and len(function):
        function = function[0]
    try:
        return inspect.signature(_forward(function))
    except (TypeError, ValueError, AttributeError):
        return None  # Such as a function in C.


def _forward(function):
    if not isinstance(function, chainer.Link):
        return function
    # Where a model holds edits, that of its author's class.
    edited = isinstance(function, Edited)
    base = function.surgery_base if edited else type(function)
    owner: Any = super(Edited, function) if edited else function
    if base.__call__ is not chainer.Link.__call__:
        return owner.__call__
    return owner.forward


def count_inputs(model: Any) -> int:
    """The positional arguments that a model cannot do without; at least one.
    """
    found = signature(model)
    return 1 if found is None else max(1, sum(
        parameter.kind in (
            parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and parameter.default is parameter.empty
        for parameter in found.parameters.values()))


def takes_name(model: Any, name: str) -> bool:
    """Whether a model has an argument of a name."""
    found = signature(model)
    if found is None:
        return True
    return any(
        parameter.kind is parameter.VAR_KEYWORD or (
            parameter.name == name and parameter.kind in (
                parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY))
        for parameter in found.parameters.values())


def check(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raises a TypeError unless a model can be called with some arguments."""
    found = signature(model)
    if found is None:
        return
    try:
        bound = found.bind(*args, **kwargs)
        # An option of Chainer's own layers, to which no input is meant.
        if not isinstance(bound.arguments.get('n_batch_axes', 1), int):
            raise TypeError('too many positional arguments')
    except TypeError as error:
        raise TypeError(
            'the inputs of {} are ({}), and the calibration inputs are {}: '
            '{}'.format(
                type(called(model)).__name__,
                ', '.join(
                    str(parameter.replace(annotation=parameter.empty))
                    for parameter in found.parameters.values()),
                ' and '.join(map(repr, kwargs)) or '{} array{}'.format(
                    len(args), 's' if len(args) > 1 else ''),
                error)) from error
