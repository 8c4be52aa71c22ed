"""What h5py 3 took from Chainer's HDF5 files."""
from __future__ import annotations

from shared_linear.stack.mending import Source, mends


@mends('chainer.serializers.hdf5')
def read_strings_as_text(source: Source) -> None:
    """h5py 3 gives the strings of a file as bytes.

    Without this a string comes back as ``"b'abc'"``.
    """
    source.replace(
        'value = type(value)(numpy.asarray(dataset))',
        'value = type(value)(dataset.asstr()[()] if isinstance(value, str) '
        'else numpy.asarray(dataset))')
