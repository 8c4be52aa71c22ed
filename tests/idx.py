"""Files of the kind that MNIST is in."""
import struct

import numpy


def write_idx(path, array):
    """Writes an array as bytes, behind its number of axes and its shape."""
    path.write_bytes(struct.pack(
        '>I{}I'.format(array.ndim), 0x800 + array.ndim, *array.shape)
        + array.astype(numpy.uint8).tobytes())
