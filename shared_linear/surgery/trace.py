"""One run of a model on example input, seen function by function."""
import contextlib
import warnings
import weakref
from typing import Any, NamedTuple

import chainer

from shared_linear.surgery.edited import settle
from shared_linear.surgery.graph import Graph
from shared_linear.surgery.preservation import preserved, unchanged
from shared_linear.surgery.recorder import Recorder
from shared_linear.surgery.run import Run


class Example(NamedTuple):

    """The arguments that a model was traced with."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    # Where the model was then; None leaves the arguments where they are.
    device: 'chainer.backend.Device | None' = None


# What each model was last traced with, in test and in train mode, to try
# its edits on. It goes when the model goes.
_examples: 'weakref.WeakKeyDictionary[chainer.Link, dict[bool, Example]]' = (
    weakref.WeakKeyDictionary())


def trace(model: chainer.Link, *args: Any, **kwargs: Any) -> Graph:
    """Runs a model once on example input and tells what ran.

    The model runs in the mode that ``chainer.config.train`` says. Nothing is
    changed: running statistics, recurrent states, random generators,
    gradients and reports are as before, and parameters that are initialized
    on the first run are uninitialized again.

    The model is remembered with its example input, so that the edits that
    follow are tried on it at once.

    Args:
        model (~chainer.Link): Any link.
        args: What the model is called with. Arithmetic on a plain array is
            done by NumPy, where Chainer does not see it: give a
            :class:`~chainer.Variable` to a model that computes with its
            input by itself.
        kwargs: Likewise.

    Returns:
        Graph: The functions that ran, by address.

    Raises:
        ValueError: If no function ran at all.

    .. admonition:: Example

        >>> import numpy as np
        >>> from shared_linear import surgery
        >>> import chainer.functions as F, chainer.links as L
        >>> model = chainer.Sequential(L.Linear(3, 2, nobias=True), F.relu)
        >>> g = surgery.trace(model, np.zeros((4, 3), np.float32))
        >>> print(g)
        address            function        inputs  outputs  dtype    parameters
        /0/LinearFunction  LinearFunction  (4, 3)  (4, 2)   float32  /0/W
        /ReLU              ReLU            (4, 2)  (4, 2)   float32
        >>> g['/ReLU'].inputs[0].origin
        '/0/LinearFunction'

    """
    if not isinstance(model, chainer.Link):
        raise TypeError(
            f'trace needs a chainer.Link, not {type(model).__name__}: put '
            'the functions in the forward of a chainer.Chain')
    settle(model, args, kwargs)
    graph = record(model, Example(args, kwargs), chainer.config.train)
    if not graph.functions and not graph.hidden:
        raise ValueError(
            f'no function of Chainer ran in {type(model).__name__}: NumPy '
            'computes with plain arrays by itself; wrap the input in a '
            'chainer.Variable')
    _examples.setdefault(model, {}).pop(chainer.config.train, None)
    _examples[model][chainer.config.train] = Example(
        _detached(args), _detached(kwargs), model.device)
    return graph


def examples_of(model: chainer.Link) -> dict[bool, Example]:
    """What the model was traced with, by mode, the latest last."""
    return dict(_examples.get(model, {}))


def record(model: chainer.Link, example: Example, train: bool,
           run_of: Any = Run) -> Graph:
    """Traces without remembering, in the given mode."""
    return record_steps(model, example, train, 1, run_of)[0]


def record_steps(model: chainer.Link, example: Example, train: bool,
                 steps: int, run_of: Any = Run) -> list[Graph]:
    """Traces several runs, of which one begins with the state of the last.

    If another than the first fails, it ends there: not every model can run
    twice on the same input.

    """
    args, kwargs, device = example
    if device is not None and device != model.device:
        args, kwargs = _on_device(model, args), _on_device(model, kwargs)
    graphs: list[Graph] = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(preserved(model, (args, kwargs)))
        stack.enter_context(chainer.using_config('train', train))
        for step in range(steps):
            recorder = Recorder(model)
            recorder.name_inputs(args, kwargs)
            run = run_of(model, recorder)
            run.on_adopt.append(
                lambda layer: stack.enter_context(unchanged(layer)))
            try:
                with run.under_way():
                    result = model(*args, **kwargs)
            except Exception:
                if step == 0:
                    raise
                break
            run.remember_beginnings()
            recorder.finish(run.edits(), result)
            graphs.append(recorder.graph)
    return graphs


def record_quietly(model: chainer.Link, example: Example,
                   train: bool) -> Graph:
    """In a mode that the user did not ask for, such as with one sample."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return record(model, example, train)


def wrapped(example: Example) -> Example:
    """The same with every floating point array as a variable."""
    return Example(
        _mapped(example.args, _as_variable),
        _mapped(example.kwargs, _as_variable))


def _as_variable(x: Any) -> Any:
    if isinstance(x, chainer.get_array_types()) and x.dtype.kind == 'f':
        return chainer.Variable(x)
    return x


def _detached(x: Any) -> Any:
    def detach(value: Any) -> Any:
        if isinstance(value, chainer.Variable):
            return chainer.Variable(
                value.array, requires_grad=value.requires_grad)
        return value

    return _mapped(x, detach)


def _on_device(model: chainer.Link, x: Any) -> Any:
    def send(value: Any) -> Any:
        if isinstance(value, chainer.Variable):
            return chainer.Variable(
                model.device.send(value.array),
                requires_grad=value.requires_grad)
        if isinstance(value, chainer.get_array_types()):
            return model.device.send(value)
        return value

    return _mapped(x, send)


def _mapped(x: Any, function: Any) -> Any:
    if type(x) in (list, tuple):
        return type(x)(_mapped(value, function) for value in x)
    if isinstance(x, dict):
        return {key: _mapped(value, function) for key, value in x.items()}
    return function(x)
