"""The class of a link that holds edits: its author's class, and a little."""
import functools
import os
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import chainer

from shared_linear.surgery import notice, turns
from shared_linear.surgery.callables import class_of
from shared_linear.surgery.holding import Holder, holder_of
from shared_linear.surgery.interposition import local
from shared_linear.surgery.kinds import Edit
from shared_linear.surgery.methods import own_methods
from shared_linear.surgery.run import Run

# Called with a model and its arguments before the first run of new edits.
before_first_run: list[Callable[
    [chainer.Link, tuple[Any, ...], dict[str, Any]], None]] = []

# Called where an edit did not act in a mode in which it acted before.
after_missing: list[Callable[
    [chainer.Link, str, Edit, tuple[Any, ...], dict[str, Any]], None]] = []


class Edited(chainer.Link):

    """Runs the author's code with the edits, and takes care of the layers.

    A link that holds edits is of a class of the same name that derives from
    this one and from the class that its author gave it. It is still an
    instance of that class. Layers that were inserted belong to it by their
    names: they are saved, moved, trained and copied with it. But they are no
    children, since an author's code may run its children; nor does links()
    tell of them while the author's code runs.

    """

    _surgery: Holder
    surgery_base: type = chainer.Link

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _enter(self, super().__call__, args, kwargs, True)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        run = local.run
        if run is not None and run.reaches_forward(self):
            return super().forward(*args, **kwargs)
        return _enter(self, super().forward, args, kwargs, False)

    def __getattr__(self, name: str) -> Any:
        holder = self.__dict__.get('_surgery')
        if holder is not None and name in holder.layers:
            return holder.layers[name]
        above = getattr(super(), '__getattr__', None)
        if above is not None:
            return above(name)
        raise AttributeError(
            f'{type(self).__name__!r} object has no attribute {name!r}')

    def __reduce_ex__(self, protocol: Any) -> Any:
        reduced: Any = super().__reduce_ex__(protocol)
        cls, base = type(self), self.surgery_base
        make = base if reduced[0] is cls else reduced[0]
        args = tuple(base if x is cls else x for x in reduced[1])
        return (_rebuild, (make, args, self._surgery), *reduced[2:])

    # The names of the layers are paths.

    def children(self) -> Iterator[chainer.Link]:
        yield from super().children()
        if local.shows_layers:
            for _, layer in held(self):
                yield layer

    def links(self, skipself: bool = False) -> Iterator[chainer.Link]:
        yield from super().links(skipself)
        if local.run is None:
            for _, layer in held(self):
                yield from layer.links()

    def __str__(self) -> str:
        before, local.shows_layers = local.shows_layers, True
        try:
            return super().__str__()
        finally:
            local.shows_layers = before

    def namedlinks(self, skipself: bool = False,
                   ) -> Iterator[tuple[str, chainer.Link]]:
        yield from super().namedlinks(skipself)
        for name, layer in held(self):
            yield f'/{name}', layer
            for path, link in layer.namedlinks(True):
                yield f'/{name}{path}', link

    def params(self, include_uninit: bool = True,
               ) -> Iterator[chainer.Parameter]:
        yield from super().params(include_uninit)
        for _, layer in held(self):
            yield from layer.params(include_uninit)

    def namedparams(self, include_uninit: bool = True,
                    ) -> Iterator[tuple[str, chainer.Parameter]]:
        yield from super().namedparams(include_uninit)
        for name, layer in held(self):
            for path, param in layer.namedparams(include_uninit):
                yield f'/{name}{path}', param

    def device_resident_accept(self, visitor: Any) -> None:
        super().device_resident_accept(visitor)
        for _, layer in held(self):
            layer.device_resident_accept(visitor)

    def serialize(self, serializer: Any) -> None:
        super().serialize(serializer)
        for name, layer in held(self):
            try:
                layer.serialize(serializer[name])
            except KeyError as error:
                raise KeyError(
                    f'{error.args[0]} belongs to the inserted layer {name!r},'
                    ' which the file does not have: load a file from before '
                    'the edit before editing, or with strict=False'
                ) from error

    def copyparams(self, link: chainer.Link,
                   copy_persistent: bool = True) -> None:
        super().copyparams(link, copy_persistent)
        for name, layer in held(self):
            source = layers_of(link).get(name)
            if source is not None:
                layer.copyparams(source, copy_persistent)

    def addgrads(self, link: chainer.Link) -> None:
        super().addgrads(link)
        for name, layer in held(self):
            source = layers_of(link).get(name)
            if source is not None:
                layer.addgrads(source)

    def copy(self, mode: str = 'share') -> chainer.Link:
        new = super().copy(mode)
        # Sequential makes an unedited one.
        new.__class__ = edited_class(class_of(new))
        new._surgery = self._surgery.copy(mode)
        return new


def settle(link: chainer.Link, args: tuple[Any, ...],
           kwargs: dict[str, Any]) -> None:
    """Tries the edits that no run has tried yet, on these arguments."""
    if any(not edit.confirmed for _, below in link.namedlinks()
           for edit in made_on(below)):
        for check in before_first_run:
            check(link, args, kwargs)


def made_on(link: chainer.Link) -> tuple[Edit, ...]:
    holder = holder_of(link)
    return () if holder is None else holder.made


def held(link: chainer.Link) -> list[tuple[str, chainer.Link]]:
    return sorted(layers_of(link).items())


def layers_of(link: chainer.Link) -> dict[str, chainer.Link]:
    holder = holder_of(link)
    return {} if holder is None else holder.layers


def _enter(link: chainer.Link, original: Callable[..., Any],
           args: tuple[Any, ...], kwargs: dict[str, Any],
           pending: bool) -> Any:
    run = local.run
    if isinstance(run, Run) and not run.inside and id(link) in run.paths:
        return run.call(link, original, args, kwargs, pending)
    settle(link, args, kwargs)
    turns.gate(link)
    run = Run(link)
    with run.under_way():
        result = run.call(link, original, args, kwargs, pending)
    run.remember_beginnings()
    _notice(run, args, kwargs)
    return result


def _enter_method(link: chainer.Link, name: str, original: Callable[..., Any],
                  args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Runs another method than the call, in which the edits act as well.

    It is not tried beforehand: it may be a whole training.
    """
    run = local.run
    if isinstance(run, Run) and not run.inside and id(link) in run.paths:
        return run.method(link, name, original, args, kwargs)
    turns.gate(link)
    holder = holder_of(link)
    begun = [] if holder is None else holder.begins.get(name, [])
    run = Run(link, begun=begun)
    with run.under_way():
        result = run.method(link, name, original, args, kwargs)
    if isinstance(result, types.GeneratorType):
        return _stepwise(run, link, result)
    _say_partly(run, name)
    return result


def _stepwise(run: Run, link: chainer.Link, generator: Any) -> Any:
    """What a method yields, each step of it in the run."""
    def step(value: Any) -> Any:
        with run.under_way():
            return run.method(link, 'send', generator.send, (value,), {})

    value = None
    try:
        while True:
            try:
                item = step(value)
            except StopIteration as end:
                return end.value
            value = yield item
    finally:
        generator.close()


def _say_partly(run: Run, name: str) -> None:
    for edit in sorted(run.partly, key=lambda edit: edit.number):
        if name not in edit.warned:
            edit.warned = edit.warned | {name}
            notice.warn(
                f'{edit}: {name}() runs in several places of the model, and '
                'the edit is made for one of them: where it is called by '
                'itself, it counts as the first')


def _notice(run: Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Keeps count of where edits act, to notice when one does not."""
    train = chainer.config.train
    for path, holder in run.holders:
        for edit in holder.made:
            if edit.uid in run.acted:
                if train not in edit.modes:
                    edit.modes = edit.modes | {train}
                edit.confirmed = True
            elif train in edit.modes:
                for check in after_missing:
                    check(run.root, path, edit, args, kwargs)


_classes: 'weakref.WeakValueDictionary[type, type]' = (
    weakref.WeakValueDictionary())
_lock = threading.Lock()


def edited_class(base: type) -> type:
    """The class of links of class ``base`` that hold edits."""
    with _lock:
        cls = _classes.get(base)
        if cls is None:
            body: dict[str, Any] = {
                'surgery_base': base, '__module__': base.__module__,
                '__qualname__': base.__qualname__, '__doc__': base.__doc__}
            cls = type(base)(base.__name__, (Edited, base), body)
            for name in own_methods(base):
                setattr(cls, name, _entering(name, getattr(base, name)))
            _classes[base] = cls
        return cls


def _entering(name: str, original: Callable[..., Any]) -> Any:
    @functools.wraps(original)
    def method(self: chainer.Link, *args: Any, **kwargs: Any) -> Any:
        return _enter_method(
            self, name, functools.partial(original, self), args, kwargs)

    return method


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def hold(link: chainer.Link) -> Holder:
    """The holder of a link, which becomes an edited one."""
    holder = holder_of(link)
    if holder is None:
        holder = Holder()
        link.__dict__['_surgery'] = holder
        link.__class__ = edited_class(type(link))
    return holder


def release(link: chainer.Link) -> None:
    """Gives a link that holds nothing any more its author's class back."""
    holder = holder_of(link)
    if holder is not None and holder.is_empty:
        link.__class__ = class_of(link)
        del link.__dict__['_surgery']


def _rebuild(make: Callable[..., Any], args: tuple[Any, ...],
             holder: Holder) -> chainer.Link:
    link = make(*args)
    link.__class__ = edited_class(class_of(link))
    link.__dict__['_surgery'] = holder
    return link
