"""Fully connected layers whose weight is shared by n tiles of the input."""
from shared_linear import _compat

_compat.ready_chainer()

__version__ = '0.1.0'
