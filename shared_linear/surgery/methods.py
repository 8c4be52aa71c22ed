"""The methods by which an author's link is used, besides its call."""
import types
import weakref

import chainer

_BASES = chainer.Link, chainer.Chain, chainer.ChainList, chainer.Sequential

_known: 'weakref.WeakKeyDictionary[type, dict[str, type]]' = (
    weakref.WeakKeyDictionary())


def own_methods(cls: type) -> dict[str, type]:
    """Public methods that are not those of every link, and who defines them.

    Args:
        cls (type): Class of links.

    Returns:
        dict: The class that defines a method, by its name.

    """
    found = _known.get(cls)
    if found is None:
        found = {}
        for kind in cls.__mro__:
            if kind in _BASES or not issubclass(kind, chainer.Link):
                continue
            for name, value in vars(kind).items():
                if (isinstance(value, types.FunctionType)
                        and not name.startswith('_')
                        and not any(hasattr(base, name) for base in _BASES)):
                    found.setdefault(name, kind)
        # One that a subclass made a property, say, is no method.
        found = {name: kind for name, kind in found.items()
                 if _definition(cls, name) is vars(kind)[name]}
        _known[cls] = found
    return found


def _definition(cls: type, name: str) -> object:
    for kind in cls.__mro__:
        if name in vars(kind):
            return vars(kind)[name]
    return None
