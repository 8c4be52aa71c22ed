"""The edits that users make."""
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import chainer

from shared_linear.surgery import edited, trial
from shared_linear.surgery.addresses import EditError, Pattern
from shared_linear.surgery.attachment import (
    attach,
    detach,
    next_number,
    warn_of_optimizer,
)
from shared_linear.surgery.callables import Called, Portable, label_of
from shared_linear.surgery.kinds import (
    Edit,
    InsertAfter,
    InsertBefore,
    Remove,
    Replace,
    Rewire,
)
from shared_linear.surgery.preservation import transaction
from shared_linear.surgery.trace import Example, examples_of

Address = str | Sequence[str]


def insert_after(model: chainer.Link, address: Address,
                 layer: Callable[..., Any], *, output: 'int | None' = None,
                 each: bool = False, name: 'str | None' = None,
                 x: Any = None) -> chainer.Link:
    """Puts a layer on what a function or a link returns.

    Where the model computed ``y = f(x)``, it computes ``y = layer(f(x))``,
    and everything that reads ``y`` reads that.

    It does so in every public method of the model, such as ``predict``, in
    which the address is that of the model's call. In a method that the call
    does not use, repetitions count from the method's beginning.

    Args:
        model (~chainer.Link): The model, changed in place.
        address (str): Address or pattern, or several. See :func:`trace`.
        layer (callable): A function of one variable that keeps its shape,
            or a link, which becomes part of the model: trained, saved,
            copied and moved with it, at ``/name`` below the link in which
            it runs.
        output (int): Which output, where there are several.
        each (bool): If ``True``, ``layer`` is called with the
            :class:`Node` of each place and returns the layer for it. A
            link that is called repeatedly keeps one layer for all calls.
        name (str): Name of the layer, or its beginning with ``each``.
        x: Example input (a tuple for several), to try the edit on at once.
            Without it, what the model was last traced with is used, and
            the first run where it was not traced.

    Returns:
        ~chainer.Link: ``model``.

    Raises:
        EditError: If the address matches nothing, matches in the other mode
            only or inside :func:`~chainer.functions.forget`, or if the
            layer changes the shape. The model is then as before.

    .. admonition:: Example

        >>> import numpy as np
        >>> from shared_linear import surgery
        >>> import chainer.functions as F, chainer.links as L
        >>> model = chainer.Sequential(L.Linear(3, 2), F.relu)
        >>> x = np.ones((1, 3), np.float32)
        >>> before = model(x).array
        >>> surgery.insert_after(model, '/ReLU', F.tanh) is model
        True
        >>> bool((model(x).array == np.tanh(before)).all())
        True

    """
    return _edit(InsertAfter, model, address, layer, each, name, x,
                 output=output)


def insert_before(model: chainer.Link, address: Address,
                  layer: Callable[..., Any], *, input: int = 0,
                  each: bool = False, name: 'str | None' = None,
                  x: Any = None) -> chainer.Link:
    """Puts a layer on an input of a function or a link.

    Where the model computed ``y = f(x)``, it computes ``y = f(layer(x))``;
    other readers of ``x`` read it as before.

    Args:
        model (~chainer.Link): The model, changed in place.
        address (str): Address or pattern, or several.
        layer (callable): As for :func:`insert_after`.
        input (int): Which input. A convolution's are its input, ``W`` and
            ``b``; a link's are the positional arguments of its call.
        each (bool): As for :func:`insert_after`.
        name (str): As for :func:`insert_after`.
        x: As for :func:`insert_after`.

    Returns:
        ~chainer.Link: ``model``.

    Raises:
        EditError: As :func:`insert_after`, or if there is no such input.

    """
    return _edit(InsertBefore, model, address, layer, each, name, x,
                 input=input)


def replace(model: chainer.Link, address: Address,
            layer: Callable[..., Any], *, each: bool = False,
            name: 'str | None' = None, x: Any = None) -> chainer.Link:
    """Runs a layer in place of a function or a link.

    The layer gets all inputs of what it replaces: for a function that has
    parameters those too (``x, W, b``), for a link the arguments of its call.
    A replaced link stays in the model, so that files still load.

    Args:
        model (~chainer.Link): The model, changed in place.
        address (str): Address or pattern, or several.
        layer (callable): As for :func:`insert_after`; it returns as many
            variables as what it replaces.
        each (bool): As for :func:`insert_after`.
        name (str): As for :func:`insert_after`.
        x: As for :func:`insert_after`.

    Returns:
        ~chainer.Link: ``model``.

    Raises:
        EditError: As :func:`insert_after`, or if the number of outputs or
            their shapes do not suit the model.

    """
    return _edit(Replace, model, address, layer, each, name, x)


def remove(model: chainer.Link, address: Address, *, input: int = 0,
           x: Any = None) -> chainer.Link:
    """Passes an input of a function or a link on in place of its output.

    A removed link stays in the model, so that files still load.

    Args:
        model (~chainer.Link): The model, changed in place.
        address (str): Address or pattern, or several.
        input (int): Which input.
        x: As for :func:`insert_after`.

    Returns:
        ~chainer.Link: ``model``.

    Raises:
        EditError: As :func:`insert_after`, or if there are several outputs.

    """
    edit = Remove(_patterns(address), 'remove', input=_index(input))
    _make(model, edit, None, x)
    return model


def rewire(model: chainer.Link, address: Address, *, input: int = 0,
           source: str, output: int = 0, x: Any = None) -> chainer.Link:
    """Takes an input of a function or a link from somewhere else.

    Args:
        model (~chainer.Link): The model, changed in place.
        address (str): Address or pattern, or several, of the readers.
        input (int): Which input of theirs.
        source (str): Address of what computes the new input, earlier in the
            same run. The reader gets what other readers of the source get,
            with the edits after the source.
        output (int): Which output of the source.
        x: As for :func:`insert_after`.

    Returns:
        ~chainer.Link: ``model``.

    Raises:
        EditError: As :func:`insert_after`, or if the source is computed
            later than a reader, or is not one address.

    """
    edit = Rewire(_patterns(address), 'rewire', Pattern(source),
                  input=_index(input), output=_index(output))
    _make(model, edit, None, x)
    return model


class Made(NamedTuple):

    """An edit and the path of the link that it was made on."""

    path: str
    edit: Edit

    def __str__(self) -> str:
        if self.path == '/':
            return str(self.edit)
        return f'{self.edit}, made on {self.path}'

    def __repr__(self) -> str:
        return f'<{self}>'


def edits(model: chainer.Link) -> list[Made]:
    """Lists the edits made on a model and on the links below it.

    They act in this order. At one place, what comes first is nearest to the
    beginning of the data's way: of two layers inserted after the same
    function, the one made first runs first. The last of several removals
    and replacements counts.

    Args:
        model (~chainer.Link): Any link.

    Returns:
        list of Made: Printable; empty if there are none.

    """
    if not isinstance(model, chainer.Link):
        raise TypeError(
            f'only a chainer.Link has edits, not {type(model).__name__}')
    made = [Made(path, edit) for path, link in model.namedlinks()
            for edit in edited.made_on(link)]
    return sorted(made, key=lambda one: one.edit.number)


def revert(model: chainer.Link, name: 'str | None' = None) -> chainer.Link:
    """Takes edits off again.

    The model is then of its author's classes as before. Edits made on a
    link above ``model`` stay: revert them there. Weights that training
    changed stay changed, and a folded batch normalization comes back as the
    identity (see :func:`fold_batch_normalization`).

    Args:
        model (~chainer.Link): The model, changed in place.
        name (str): Take off only the edits of this name.

    Returns:
        ~chainer.Link: ``model``.

    Raises:
        EditError: If no edit has that name.

    """
    made = edits(model)
    chosen = [one for one in made if name in (None, one.edit.name)]
    if name is not None and not chosen:
        names = sorted({one.edit.name for one in made})
        raise EditError(
            f'no edit is named {name!r}; the names are '
            f'{", ".join(names) or "none, as there are no edits"}')
    with transaction(model):
        for one in reversed(chosen):
            one.edit.undo(model, one.path)
        detach(model, {one.edit.uid for one in chosen})
    return model


def _patterns(address: Address) -> list[Pattern]:
    if not isinstance(address, (str, Iterable)):
        raise TypeError(
            'an address must be a str such as \'/l1/ReLU\', or several, not '
            f'{type(address).__name__}')
    given = [address] if isinstance(address, str) else list(address)
    if not given:
        raise ValueError('no address is given')
    return [Pattern(text) for text in given]


def _index(value: 'int | None') -> 'int | None':
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError('input and output are indices, ints from 0, not '
                        f'{type(value).__name__}')
    if value < 0:
        raise ValueError(f'input and output count from 0, not {value}')
    return value


def _edit(kind: type[Edit], model: chainer.Link, address: Address,
          layer: Callable[..., Any], each: bool, name: 'str | None',
          x: Any, **indices: 'int | None') -> chainer.Link:
    if isinstance(layer, type):
        raise TypeError(
            f'the layer must be callable with a variable, and {layer} is a '
            f'class: give {layer.__name__}(...)')
    if not callable(layer):
        raise TypeError(
            'the layer must be a callable or a link, not '
            f'{type(layer).__name__}')
    if each and isinstance(layer, chainer.Link):
        raise TypeError(
            'with each=True give a function that makes a layer for a node, '
            f'not the link {label_of(layer)}: lambda node: '
            f'{label_of(layer)}(...)')
    label = label_of(layer)
    if name is not None and (not isinstance(name, str) or not name
                             or '/' in name):
        raise ValueError(f'the name of a layer cannot be {name!r}')
    edit = kind(
        _patterns(address), name or ('each' if each else label),
        content=f'one of {label} each' if each else label,
        factory=Portable(layer, optional=True) if each else None,
        **{key: _index(value) for key, value in indices.items()})
    if each:
        held = None
    elif isinstance(layer, chainer.Link):
        held = layer
        for path, link in model.namedlinks():
            if link is layer:
                raise EditError(
                    f'{edit}: the link is in the model already, at {path}: '
                    'insert a copy of it, or a function that calls it')
    else:
        held = Called(layer)
    _make(model, edit, held, x, exact=name is not None)
    return model


def _make(model: chainer.Link, edit: Edit, layer: 'chainer.Link | None',
          x: Any, exact: bool = False) -> None:
    if not isinstance(model, chainer.Link):
        raise TypeError(
            f'only a chainer.Link can be edited, not {type(model).__name__}')
    if x is not None:
        args = x if isinstance(x, tuple) else (x,)
        examples = {chainer.config.train: Example(args, {})}
    else:
        examples = examples_of(model)
    with transaction(model, *([] if layer is None else [layer])):
        edit.number = next_number(model)
        if layer is not None:
            warn_of_optimizer(model, layer)
        if examples:
            trial.verified(model, model, '', edit, layer, examples, exact)
        else:
            attach(model, edit, layer, [], exact)
