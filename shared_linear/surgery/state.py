"""All that links hold, as it was: kept, and put back bit for bit."""
import array
import ast
import collections
import copyreg
import functools
import itertools
import random
import types
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import chainer
import numpy
from chainer.backends import cuda

# What belongs to the program rather than to a model: other threads may be
# using it, and to put it back would be to take their work away.
OUTSIDE = frozenset([
    '_io', '_thread', '_weakref', 'asyncio', 'builtins', 'concurrent',
    'ctypes', 'io', 'logging', 'mpi4py', 'multiprocessing', 'pathlib', 're',
    'selectors', 'socket', 'sqlite3', 'subprocess', 'threading', 'weakref'])

Restore = Callable[[], Any]


class State:

    """What can be reached from some links, as it is now.

    Attributes of links and of other objects, the contents of containers of
    whatever kind, arrays, parameters and their gradients, generators of
    random numbers, and the classes of the links. Functions and modules, with
    what they refer to, are no part of a model.

    Args:
        links: Links, each with what it holds; its children are to be among
            them. Other objects may be, too.
        leave: Classes of objects that are left as they are.
        leave_links: Links that are left as they are, with what they hold.

    """

    def __init__(self, links: Iterable[Any],
                 leave: tuple[type, ...] = (),
                 leave_links: Iterable[chainer.Link] = ()) -> None:
        self._leave = leave
        # An id is good only as long as its object lives.
        self._seen: dict[int, Any] = {id(link): link for link in leave_links}
        self._restores: list[Restore] = []
        pending: list[Any] = []
        for link in links:
            if (isinstance(link, chainer.Link)
                    and id(link) not in self._seen):
                self._restores.append(_restorer_of_class(link))
                pending += _class_data(link)
            pending.append(link)
        while pending:
            value = pending.pop()
            if id(value) in self._seen or isinstance(value, _LEAVES):
                continue
            self._seen[id(value)] = value
            if isinstance(value, leave):
                continue
            restore, below = keep(value)
            if restore is not None:
                self._restores.append(restore)
            pending.extend(below)
            pending.extend(self._attributes(value))

    def _attributes(self, value: Any) -> Iterable[Any]:
        """Keeps the attributes of an object, and returns them."""
        if type(value).__module__.partition('.')[0] in OUTSIDE and not (
                isinstance(value, types.SimpleNamespace)):
            return ()
        below: list[Any] = []
        try:
            attributes = object.__getattribute__(value, '__dict__')
        except AttributeError:
            attributes = None
        if isinstance(attributes, dict):
            before = _rewindable(attributes)
            self._restores.append(
                functools.partial(_restore_dict, attributes, before))
            if not isinstance(value, chainer.variable.VariableNode):
                below += attributes.values()
        for name in copyreg._slotnames(type(value)):  # type: ignore
            slot = getattr(type(value), name, None)
            if isinstance(slot, types.MemberDescriptorType):
                restore, held = _keep_slot(value, slot)
                self._restores.append(restore)
                below += held
        return below

    def restore(self) -> None:
        """Puts everything back; nothing stops it half-way."""
        interrupt = None
        while True:
            try:
                for restore in self._restores:
                    restore()
                break
            except KeyboardInterrupt as error:
                # Once more from the beginning, which does no harm.
                interrupt = error
        if interrupt is not None:
            raise interrupt


_LEAVES = (
    bool, int, float, complex, str, bytes, type, type(None), range, slice,
    types.BuiltinFunctionType, types.CodeType, types.FrameType,
    types.FunctionType, types.GeneratorType, types.ModuleType, numpy.dtype,
    numpy.generic, chainer.FunctionNode, chainer.backend.Device)


def _restorer_of_class(link: chainer.Link) -> Restore:
    before = type(link)

    def restore() -> None:
        if type(link) is not before:
            link.__class__ = before

    return restore


def _class_data(link: chainer.Link) -> list[Any]:
    """What the author's classes hold for all their instances."""
    return [
        value for cls in type(link).__mro__
        if cls.__module__.partition('.')[0] not in ('chainer', 'builtins')
        for name, value in vars(cls).items()
        if not name.startswith('__') and isinstance(
            value, (list, dict, set, collections.deque, numpy.ndarray))]


@functools.singledispatch
def keep(value: Any) -> tuple['Restore | None', Iterable[Any]]:
    """How to put an object back, but for its attributes; what it holds."""
    if isinstance(value, cuda.ndarray):
        return _keep_on_gpu(value), ()
    return None, ()


@keep.register(tuple)
@keep.register(frozenset)
def _keep_fixed(value: Any) -> tuple['Restore | None', Iterable[Any]]:
    return None, value


@keep.register
def _keep_method(value: types.MethodType,
                 ) -> tuple['Restore | None', Iterable[Any]]:
    return None, (value.__self__,)


@keep.register
def _keep_partial(value: functools.partial,  # type: ignore[type-arg]
                  ) -> tuple['Restore | None', Iterable[Any]]:
    return None, (value.func, value.args, value.keywords)


@keep.register
def _keep_list(value: list,  # type: ignore[type-arg]
               ) -> tuple['Restore | None', Iterable[Any]]:
    before = [_rewound(item) for item in list.__iter__(value)]

    def restore() -> None:
        now = list(list.__iter__(value))
        after = [_unless_moved(*item) for item in before]
        if len(now) != len(after) or any(
                a is not b for a, b in zip(now, after, strict=True)):
            list.__setitem__(value, slice(None), after)

    return restore, [item for item, _ in before]


@keep.register
def _keep_dict(value: dict,  # type: ignore[type-arg]
               ) -> tuple['Restore | None', Iterable[Any]]:
    before = _rewindable(value)
    return (functools.partial(_restore_dict, value, before),
            [*before, *(item for item, _ in before.values())])


@keep.register
def _keep_set(value: set,  # type: ignore[type-arg]
              ) -> tuple['Restore | None', Iterable[Any]]:
    before = set(set.__iter__(value))

    def restore() -> None:
        if set(set.__iter__(value)) != before:
            set.clear(value)
            set.update(value, before)

    return restore, before


@keep.register
def _keep_deque(value: collections.deque,  # type: ignore[type-arg]
                ) -> tuple['Restore | None', Iterable[Any]]:
    before = list(value)

    def restore() -> None:
        now = list(value)
        if len(now) != len(before) or any(
                a is not b for a, b in zip(now, before, strict=True)):
            collections.deque.clear(value)
            collections.deque.extend(value, before)

    return restore, before


@keep.register(bytearray)
@keep.register(array.array)
def _keep_bytes(value: Any) -> tuple['Restore | None', Iterable[Any]]:
    before = value[:]

    def restore() -> None:
        if value != before:
            value[:] = before

    return restore, ()


@keep.register
def _keep_array(value: numpy.ndarray,
                ) -> tuple['Restore | None', Iterable[Any]]:
    owner: Any = value
    # What cannot be written to may be a view of what can.
    while isinstance(owner.base, numpy.ndarray):
        owner = owner.base
    if owner.size == 0 or not owner.flags.writeable:
        return None, ()
    before, is_objects = owner.copy(), owner.dtype.hasobject

    def restore() -> None:
        if is_objects or not _same_bytes(owner, before):
            locked = not owner.flags.writeable
            if locked:
                owner.flags.writeable = True
            owner[...] = before
            if locked:
                owner.flags.writeable = False

    return restore, before.ravel().tolist() if is_objects else ()


def _same_bytes(a: Any, b: Any) -> bool:
    if a.flags.c_contiguous and b.flags.c_contiguous:
        return bool((a.reshape(-1).view(numpy.uint8)
                     == b.reshape(-1).view(numpy.uint8)).all())
    return bool(a.tobytes() == b.tobytes())


def _keep_on_gpu(value: Any) -> Restore:
    with value.device:
        before = value.copy()

    def restore() -> None:
        with value.device:
            value[...] = before

    return restore


@keep.register
def _keep_legacy(value: numpy.random.RandomState,
                 ) -> tuple['Restore | None', Iterable[Any]]:
    return functools.partial(value.set_state, value.get_state()), ()


@keep.register
def _keep_generator(value: numpy.random.Generator,
                    ) -> tuple['Restore | None', Iterable[Any]]:
    return None, (value.bit_generator,)


@keep.register
def _keep_bits(value: numpy.random.BitGenerator,
               ) -> tuple['Restore | None', Iterable[Any]]:
    before = value.state

    def restore() -> None:
        value.state = before

    return restore, ()


@keep.register
def _keep_random(value: random.Random,
                 ) -> tuple['Restore | None', Iterable[Any]]:
    try:
        before = value.getstate()
    except NotImplementedError:  # of the system, without a state
        return None, ()
    return functools.partial(value.setstate, before), ()


def _keep_slot(value: Any, slot: types.MemberDescriptorType,
               ) -> tuple[Restore, list[Any]]:
    try:
        before = slot.__get__(value)
    except AttributeError:
        def restore() -> None:
            try:
                slot.__delete__(value)
            except AttributeError:
                return  # It still has none.

        return restore, []
    return functools.partial(slot.__set__, value, before), [before]


# Iterators can only go forward: a copy stays behind.
_ITERATORS: tuple[type, ...] = (
    itertools.count, itertools.cycle, type(iter([])), type(iter(())),
    type(iter(range(0))), type(iter('')), type(iter(b'')))


def _rewound(value: Any) -> tuple[Any, Any]:
    """With a copy that stays behind, where there is one."""
    if not isinstance(value, _ITERATORS):
        return value, None
    return value, _copy_of(value)


def _unless_moved(value: Any, kept: Any) -> Any:
    if kept is None:
        return value
    again, state = kept
    now = _copy_of(value)
    return value if now is not None and now[1] == state else again


def _copy_of(value: Any) -> tuple[Any, str] | None:
    """A copy of an iterator, and what tells how far it is."""
    with warnings.catch_warnings():
        # From Python 3.12 on, to say that 3.14 cannot.
        warnings.simplefilter('ignore', DeprecationWarning)
        try:
            reduced: Any = value.__reduce__()
        except TypeError:
            return _copy_of_count(value)
        again = reduced[0](*reduced[1])
        if len(reduced) > 2:
            again.__setstate__(reduced[2])
        return again, str(reduced[1:])


def _copy_of_count(value: Any) -> tuple[Any, str] | None:
    """From Python 3.14 on, where those of itertools cannot be copied.

    What a count of numbers will give is in its name; what a cycle holds is
    nowhere to be had.
    """
    if type(value) is not itertools.count:
        return None
    name = repr(value)
    try:
        arguments = ast.literal_eval(f'[{name[len("count("):-1]}]')
    except (SyntaxError, ValueError):  # of numbers that are no literals
        return None
    return itertools.count(*arguments), name


def _rewindable(value: dict[Any, Any]) -> dict[Any, tuple[Any, Any]]:
    return {key: _rewound(item) for key, item in dict.items(value)}


def _restore_dict(value: dict[Any, Any],
                  before: dict[Any, tuple[Any, Any]]) -> None:
    now = list(dict.items(value))
    after = [(key, _unless_moved(*item)) for key, item in before.items()]
    if len(now) == len(after) and all(
            a[0] is b[0] and a[1] is b[1]
            for a, b in zip(now, after, strict=True)):
        return
    kind = (collections.OrderedDict
            if isinstance(value, collections.OrderedDict) else dict)
    kind.clear(value)
    for key, item in after:
        kind.__setitem__(value, key, item)
