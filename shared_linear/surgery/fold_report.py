"""What became of the batch normalizations of a model."""
from typing import NamedTuple


class Folded(NamedTuple):

    """What became of one batch normalization.

    Attributes:
        path (str): Path of the batch normalization.
        into (str): Path of the layer that it was folded into, or ``None``.
        reason (str): Why it was left alone, or ``''``.
        new_bias (bool): Whether the layer got a bias that it did not have.

    """

    path: str
    into: 'str | None'
    reason: str
    new_bias: bool = False

    def __str__(self) -> str:
        if self.into is not None:
            return f'{self.path} folded into {self.into}'
        return f'{self.path} left alone: {self.reason}'


class FoldReport(list[Folded]):

    """What :func:`fold_batch_normalization` did, in the model's order."""

    @property
    def folded(self) -> list[Folded]:
        return [one for one in self if one.into is not None]

    @property
    def left_alone(self) -> list[Folded]:
        return [one for one in self if one.into is None]

    def __str__(self) -> str:
        return '\n'.join(str(one) for one in self)
