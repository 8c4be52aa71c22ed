"""What users insert: links as they are, and callables in a link."""
import pickle
from collections.abc import Callable
from typing import Any

import chainer


def class_of(link: chainer.Link) -> type:
    """The class that the author of a link gave it."""
    return getattr(type(link), 'surgery_base', type(link))


class Called(chainer.Link):

    """Holds a callable that an edit put into a model.

    Args:
        function (callable): What to call.

    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = Portable(function)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function.value(*args, **kwargs)

    @property
    def printable_specs(self) -> Any:
        yield 'function', label_of(self.function.value)


class Portable:

    """A callable that copies like a function, and says why pickle fails."""

    def __init__(self, value: Callable[..., Any],
                 optional: bool = False) -> None:
        self.value = value
        self.optional = optional

    def __deepcopy__(self, memo: dict[int, Any]) -> 'Portable':
        return self

    def __getstate__(self) -> dict[str, Any]:
        if '<' in getattr(self.value, '__qualname__', ''):
            if self.optional:
                return {'value': None, 'optional': True}
            raise pickle.PicklingError(
                f'the inserted {label_of(self.value)} cannot be pickled: '
                'define it by def at the top of a module, or insert a link')
        return dict(self.__dict__)


def label_of(function: Any) -> str:
    if isinstance(function, chainer.Link):
        return class_of(function).__name__
    name = getattr(function, '__name__', type(function).__name__)
    return 'lambda' if name == '<lambda>' else name
