"""Calibration inputs of any kind, in batches that a model is called with."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import chainer
import numpy
from chainer import backend, variable
from chainer.dataset import iterator as iterator_module

from shared_linear.compression import signature

BATCH_SIZE = 1000


class Batch:

    """What a model is called with: some rows of each of its inputs.

    Its length is the number of rows, and slices are batches of fewer. What
    is no array, such as ``None`` or a bool, is for all rows, as it is.

    Args:
        args: Inputs by their places.
        kwargs: Inputs by their names.
        n_left: Elements of the examples that were taken for labels.

    Raises:
        TypeError: If one is of no numbers, or a list of arrays.
        ValueError: If one has no rows, or not as many as another one.

    """

    def __init__(
            self, args: Iterable[Any] = (),
            kwargs: dict[str, Any] | None = None, n_left: int = 0) -> None:
        self.args = tuple(map(variable.as_array, args))
        self.kwargs = {
            name: variable.as_array(value)
            for name, value in (kwargs or {}).items()}
        self.n_left = n_left
        for value in (*self.args, *self.kwargs.values()):
            _check(value)
        self.arrays = [
            value for value in (*self.args, *self.kwargs.values())
            if is_array(value)]
        if not self.arrays:
            raise TypeError(
                'calibration inputs must be arrays, but there is none among '
                'those of the model')
        lengths = [len(array) for array in self.arrays]
        if len(set(lengths)) > 1:
            raise ValueError(
                'the inputs of a model must have as many rows each, not '
                '{}'.format(' and '.join(map(str, lengths))))

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, rows: slice) -> Batch:
        return self._mapped(lambda array: array[rows])

    def to_device(self, device: Any) -> Batch:
        return self._mapped(device.send)

    def _mapped(self, function: Callable[[Any], Any]) -> Batch:
        def mapped(value):
            return function(value) if is_array(value) else value

        return Batch(
            map(mapped, self.args),
            {name: mapped(value) for name, value in self.kwargs.items()},
            self.n_left)

    def call(self, function: Callable[..., Any]) -> Any:
        """What a function gives for the inputs."""
        return function(*self.args, **self.kwargs)

    def __str__(self) -> str:
        """Shapes and dtypes, as in an error message."""
        return ' and '.join(
            'shape {} and dtype {}'.format(array.shape, array.dtype)
            for array in self.arrays) + (
                ' ({} of each example {} taken for labels: n_inputs says how '
                'many are inputs)'.format(
                    self.n_left, 'is' if self.n_left == 1 else 'are')
                if self.n_left else '')


def is_array(value: Any) -> bool:
    return (hasattr(value, 'dtype') and hasattr(value, 'ndim')
            and not isinstance(value, numpy.generic))


def _check(value):
    if not is_array(value):
        if isinstance(value, (list, tuple, dict)):
            raise TypeError(
                'each calibration input of a model must be one array, not a '
                '{}'.format(type(value).__name__))
        return
    if value.dtype.kind not in 'fiub':
        raise TypeError(
            'calibration inputs must be numbers, not of dtype {}'.format(
                value.dtype))
    if value.ndim == 0:
        raise ValueError('calibration inputs must be more than a scalar')


class OfLayer:

    """The rule for inputs of one layer: one array, and labels beside it."""

    # Whether tuples and dicts of arrays are the inputs of one call.
    several = False
    n_inputs: int | None = None

    def count(self) -> int:
        """How many of the first elements of an example are inputs."""
        return 1

    def takes_name(self, name: str) -> bool:
        raise TypeError(
            'calibration inputs of a layer must be arrays, and no dicts')


class OfModel(OfLayer):

    """The rule for inputs of a model.

    Of the elements of an example those at the beginning are inputs, as many
    as the model cannot be called without; of its names those that the model
    knows. The others are labels.

    Args:
        model: Chain. Of a Classifier the predictor is asked.
        n_inputs: How many elements are inputs, if not as many.

    """

    several = True

    def __init__(self, model: Any, n_inputs: int | None = None) -> None:
        self.n_inputs = n_inputs
        self._model = model
        self._count = (
            signature.count_inputs(model) if n_inputs is None else n_inputs)

    def count(self) -> int:
        return self._count

    def takes_name(self, name: str) -> bool:
        return signature.takes_name(self._model, name)


def iterate(
        x: Any, rule: OfLayer | None = None,
        batch_size: int = BATCH_SIZE) -> Iterator[Batch]:
    """Yields calibration inputs in batches.

    Args:
        x: An array or a Variable of inputs; a dataset, whose examples are
            inputs, or tuples or dicts of inputs and labels; a Chainer
            iterator, which is read for one epoch; or any iterator of batches,
            which are arrays, tuples or dicts of them, or lists of examples.
            Of a model, also a tuple or a dict of arrays.
        rule: What are inputs and what are labels; that of a layer by default.
        batch_size: Number of inputs of a batch, where the batches are made
            here.

    """
    rule = rule or OfLayer()
    x = variable.as_array(x)
    whole = _whole(x, rule)
    if whole is not None:
        yield from _split([whole], batch_size)
    elif isinstance(x, _Batches):
        yield from _split(x, batch_size)
    elif isinstance(x, iterator_module.Iterator):
        for batch in x:
            yield _collect(batch, rule)
            if getattr(x, 'is_new_epoch', False):
                break
    elif _is_dataset(x):
        for start in range(0, len(x), batch_size):
            stop = min(start + batch_size, len(x))
            yield _collect([x[i] for i in range(start, stop)], rule)
    elif hasattr(x, '__next__'):
        for batch in x:
            yield _collect(batch, rule)
    else:
        raise TypeError(
            'calibration inputs must be an array, a dataset or an iterator of '
            'batches, not a {}'.format(type(x).__name__))


def _whole(x, rule):
    """All inputs as one batch, if x is arrays."""
    if is_array(x):
        return _alone(x, rule)
    if not rule.several:
        return None
    if isinstance(x, dict):
        _check_alone(rule)
        return Batch(kwargs=x)
    # A tuple of examples, which are tuples themselves, is a dataset.
    if isinstance(x, tuple) and any(
            is_array(variable.as_array(value)) for value in x):
        return Batch(x) if rule.n_inputs is None else _first(x, rule)
    return None


def _is_dataset(x):
    return (
        hasattr(x, '__len__') and hasattr(x, '__getitem__')
        and not isinstance(x, (str, bytes)) and not hasattr(x, 'keys'))


def count(x: Any) -> int:
    """How many inputs there are, where that can be told at once."""
    x = variable.as_array(x)
    whole = None
    if isinstance(x, (tuple, dict)) or is_array(x):
        whole = _whole(x, _SEVERAL)
    if whole is not None:
        return len(whole)
    return len(x) if hasattr(x, '__len__') else 0


def are_arrays(x: Any) -> bool:
    """Whether inputs are arrays, which a mask may go beside."""
    return _whole(variable.as_array(x), _SEVERAL) is not None


def _split(batches, size):
    for batch in batches:
        for start in range(0, len(batch), size):
            yield batch[start:start + size]


def _collect(batch, rule):
    """A batch without the labels: of arrays, or of examples."""
    if isinstance(batch, tuple):
        return _first(batch, rule)
    if isinstance(batch, dict):
        return _named(batch, rule)
    batch = variable.as_array(batch)
    if is_array(batch):
        return _alone(batch, rule)
    examples = list(batch)
    if not examples:
        return Batch([numpy.empty((0, 0))])
    kinds = {
        next((kind for kind in (tuple, dict) if isinstance(e, kind)), None)
        for e in examples}
    if len(kinds) > 1:
        raise TypeError(
            'the examples of a dataset must be of one kind, not some tuples '
            'or dicts and some others')
    if dict in kinds:
        names = [name for name in examples[0] if rule.takes_name(name)]
        return _named({
            name: _stack([example[name] for example in examples])
            for name in names}, rule)
    if tuple in kinds:
        sizes = {len(example) for example in examples}
        n = min(rule.count(), min(sizes))
        columns = [_stack([e[i] for e in examples]) for i in range(n)]
        # What is left is told by its number alone.
        return _first((*columns, *[None] * (min(sizes) - n)), rule)
    return _alone(_stack(examples), rule)


def _alone(array, rule):
    _check_alone(rule)
    return Batch([array])


def _check_alone(rule):
    if rule.n_inputs is not None and rule.n_inputs > 1:
        raise ValueError(
            'n_inputs = {} is of tuples, and the calibration inputs are '
            'none'.format(rule.n_inputs))


def _first(values, rule):
    """The inputs of a tuple, which come first."""
    n = rule.count()
    if len(values) < n:
        raise ValueError(
            'the model takes {} inputs, and the tuples of calibration inputs '
            'have {}'.format(n, len(values)))
    return Batch(values[:n], n_left=len(values) - n)


def _named(values, rule):
    _check_alone(rule)
    return Batch(kwargs={
        name: value for name, value in values.items()
        if rule.takes_name(name)})


def _stack(inputs):
    """The same input of some examples as one array."""
    if all(value is None for value in inputs):
        return None
    inputs = [variable.as_array(value) for value in inputs]
    xp = backend.get_array_module(*inputs)
    device = backend.get_device_from_array(*inputs)
    with chainer.using_device(device):
        arrays = [xp.asarray(value) for value in inputs]
        shapes = list(dict.fromkeys(e.shape for e in arrays))
        if len(shapes) > 1:
            raise ValueError(
                'calibration inputs of the examples must be of one shape, '
                'not {}'.format(' and '.join(map(str, shapes[:3]))))
        stacked = xp.stack(arrays)
        if isinstance(device, backend.GpuDevice):
            # Another GPU may read it, which waits for its own stream alone.
            device.device.synchronize()
        return stacked


def repeatable(x: Any, rule: OfLayer) -> Any:
    """Calibration inputs that can be read several times."""
    x = variable.as_array(x)
    if hasattr(x, 'reset') or not hasattr(x, '__next__'):
        return x
    return _Batches(iterate(x, rule))


class _Batches(list[Batch]):
    """Batches, whose lengths may differ."""


class _Several(OfLayer):
    several = True


_SEVERAL = _Several()
