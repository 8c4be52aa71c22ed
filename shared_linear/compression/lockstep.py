"""A model that runs on many batches at once, from layer to layer.

To fit a layer to what a changed model feeds it takes the layer's inputs from
all batches, with the layers before changed already. To run the whole model
for each layer would make the work grow with the square of the depth. Here
each batch has a run of its own, which waits at each layer for an answer: its
outputs. So the model runs once, however deep it is. The runs are threads, of
which one goes on at a time; a model is any Python code.
"""
from __future__ import annotations

import contextlib
import contextvars
import copy
import random
import threading
from typing import Any

import chainer
import numpy
from chainer import utils

from shared_linear.compression import capture

Array = numpy.ndarray


class Stop:

    """A run that waits at a layer.

    Attributes:
        path: Of the layer.
        x: Its inputs, as rows, on the device of the model.
        batch_shape: Shape of the minibatch axes.

    """

    def __init__(self, path: str, x: Any, batch_shape: Any, dense: Any):
        self.path = path
        self.x = x
        self.batch_shape = batch_shape
        self._dense = dense

    def original(self) -> Any:
        """What the layer of the original gives, as rows."""
        with chainer.using_config('enable_backprop', False), \
                chainer.using_config('train', False):
            y = self._dense(self.x)
        return y.array


class _Abandoned(BaseException):
    """Unwinds a run that is not needed any more."""


class Run:

    """One run of a model, in a thread of its own.

    Args:
        model: Chain. Of a Classifier the predictor is called.
        batch: Some of its inputs.
        paths: Layers to stop at.
        settings: What holds in the main thread.
        skips: Functions, by number, and layers, by path, of which an input
            is kept for a layer: ``{number or path: [(path, place)]}``.

    """

    def __init__(
            self, model: Any, batch: Any, paths: Any, settings: Settings,
            skips: dict[int | str, list[tuple[str, int]]] | None = None,
    ) -> None:
        # Of its own, lest what the model keeps of one batch meet another.
        self._model = _share_parameters(model)
        self._batch = batch
        self._settings = settings
        self._skips = skips or {}
        self.kept: dict[str, Any] = {}
        self._go = threading.Semaphore(0)
        self._stopped = threading.Semaphore(0)
        self._abandoned = False
        self._stop: Stop | None = None
        self._answer: Any = None
        self._error: BaseException | None = None
        self.results: list[Any] = []
        self._random = random.getstate(), numpy.random.get_state()
        self._generator = capture.new_generator(model)
        links = dict(self._model.namedlinks(skipself=True))
        for path in paths:
            links[path].forward = _Station(self, path, links[path].forward)
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._work,), daemon=True)
        self._started = False

    def proceed(self, answer: Any = None) -> Stop | None:
        """Goes on with the answer of a layer to the next, or to the end."""
        main = random.getstate(), numpy.random.get_state()
        random.setstate(self._random[0])
        numpy.random.set_state(self._random[1])
        self._answer, self._stop = answer, None
        with capture.using_generator(self._generator):
            if self._started:
                self._go.release()
            else:
                self._started = True
                self._thread.start()
            self._stopped.acquire()
        self._random = random.getstate(), numpy.random.get_state()
        random.setstate(main[0])
        numpy.random.set_state(main[1])
        if self._error is not None:
            raise self._error
        return self._stop

    def abandon(self) -> None:
        if self._started and self._thread.is_alive():
            self._abandoned = True
            self._go.release()
            self._thread.join()

    def keep_input(self, path: str, x: Any) -> None:
        for target, _ in self._skips.get(path, ()):
            self.kept[target] = x

    def wait(self, stop: Stop) -> Any:
        """Of the thread: waits for an answer."""
        self._stop = stop
        self._stopped.release()
        self._go.acquire()
        if self._abandoned:
            raise _Abandoned
        answer, self._answer = self._answer, None
        return answer

    def _work(self):
        try:
            with self._settings.hold(self._model):
                with _Skips(self._skips, self.kept):
                    self.results = capture.call_model(
                        self._model, self._batch)
        except _Abandoned:
            return
        except BaseException as error:  # raised again by proceed()
            self._error = error
        self._stopped.release()


class _Station:

    """Takes the place of a layer's forward in a run."""

    def __init__(self, run, path, forward):
        self._run = run
        self._path = path
        self._forward = forward

    def __call__(self, x, n_batch_axes=1):
        x = chainer.as_variable(x)
        shape = x.shape[:n_batch_axes]
        rows = x.array.reshape(
            utils.size_of_shape(shape),
            utils.size_of_shape(x.shape[n_batch_axes:]))
        self._run.keep_input(self._path, x.array)
        y = self._run.wait(Stop(self._path, rows, shape, self._forward))
        return chainer.Variable(y.reshape(shape + y.shape[1:]))


class _Skips(chainer.FunctionHook):

    """Keeps inputs of some functions, by the number of the call."""

    name = 'SharedLinearSkips'

    def __init__(self, skips, kept):
        self._skips = skips
        self._kept = kept
        self._number = 0

    def forward_postprocess(self, function, in_data):
        for path, place in self._skips.get(self._number, ()):
            self._kept[path] = in_data[place]
        self._number += 1


class Settings:

    """What holds in the thread that made it, for others."""

    def __init__(self) -> None:
        self._config = dict(vars(chainer.config._local))

    def hold(self, model: Any) -> Any:
        stack = contextlib.ExitStack()
        config = self._config | {'train': False, 'enable_backprop': False}
        for name, value in config.items():
            stack.enter_context(chainer.using_config(name, value))
        stack.enter_context(chainer.using_device(model.device))
        return stack


def _share_parameters(model):
    """A deep copy of a model but for the arrays of its parameters."""
    memo: dict[int, Any] = {}
    for link in model.links():
        for parameter in link.params(include_uninit=True):
            memo[id(parameter)] = parameter
    return copy.deepcopy(model, memo)


class Lockstep:

    """All runs of a model, which stop at the same layer.

    Args:
        model: Chain.
        batches: Batches of inputs.
        paths: Layers to stop at.
        skips: See :class:`Run`.

    """

    def __init__(
            self, model: Any, batches: list[Any], paths: Any,
            skips: Any = None) -> None:
        settings = Settings()
        self.runs = [
            Run(model, batch, paths, settings, skips) for batch in batches]
        self.stops: list[Any] = []

    def proceed(self, answers: list[Any] | None = None) -> str | None:
        """Goes on to the next layer. Returns its path, or ``None``."""
        if answers is None:
            answers = [None] * len(self.runs)
        # What a run was fed is not needed any more when it goes on.
        self.stops = []
        for run, answer in zip(self.runs, answers, strict=True):
            self.stops.append(run.proceed(answer))
        paths = {None if s is None else s.path for s in self.stops}
        if len(paths) > 1:
            raise ValueError(
                'the model calls its layers in another order on some inputs: '
                '{} where others call {}'.format(*sorted(map(str, paths))))
        return paths.pop()

    def __enter__(self) -> Lockstep:
        return self

    def __exit__(self, *exception: Any) -> None:
        for run in self.runs:
            run.abandon()
