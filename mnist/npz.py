"""NPZ files, read whole or not at all."""
import io
import math
import stat
import struct
import zipfile
import zlib
from os import PathLike
from pathlib import Path

import numpy

# Bytes of a file and of what is in it, unless more are allowed: MNIST has 47
# million.
MAX_BYTES = 2 ** 28


class NpzError(Exception):
    """A file that is no whole NPZ file; the message is one line."""


def read_npz(
        path: str | PathLike,
        limit: int = MAX_BYTES) -> dict[str, numpy.ndarray]:
    """Returns every array in an NPZ file, each with its checksum checked.

    Pickled objects are refused: a file from elsewhere must not run code.
    What damage may hide is whole arrays, if it hits the zip file's table of
    contents: look whether those that you need are there.

    Args:
        path (path): File to read.
        limit (int): Bytes that the file may have, and so may its arrays: a
            small file can say that it unpacks to a large one.

    Raises:
        NpzError: If the file cannot be read, is too large, is truncated or
            damaged, or is no NPZ file at all.
    """
    arrays = {}
    try:
        status = Path(path).stat()
        if stat.S_ISDIR(status.st_mode):
            raise NpzError('Is a directory')
        if not stat.S_ISREG(status.st_mode):
            raise NpzError('not a regular file')
        if status.st_size > limit:
            raise NpzError(
                f'{status.st_size:,} bytes, expected {limit:,} at most')
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
            if size > limit:
                raise NpzError(
                    f'its arrays have {size:,} bytes, expected {limit:,} at '
                    f'most')
            for member in archive.infolist():
                # read() compares the checksum; a lazy reader may not.
                name = member.filename.removesuffix('.npy')
                if name in arrays:
                    raise NpzError(f'damaged: two arrays {name}')
                arrays[name] = _parse(archive.read(member))
    except zipfile.BadZipFile as e:
        reason = 'truncated, or not an NPZ file'
        if 'CRC' in str(e):
            reason = 'damaged: wrong checksum'
        raise NpzError(reason) from e
    except OSError as e:
        raise NpzError(e.strerror or f'damaged: {e}') from e
    # What zipfile and zlib raise where a damaged file misleads them.
    except (ValueError, EOFError, zlib.error, struct.error, RuntimeError,
            KeyError, OverflowError) as e:
        raise NpzError(f'damaged: {" ".join(str(e).split())}') from e
    return arrays


def _parse(content: bytes) -> numpy.ndarray:
    """Returns the array of an NPY file, if that has as much as it says."""
    file = io.BytesIO(content)
    version = numpy.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = numpy.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = numpy.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f'version {version} of NPY')
    expected = math.prod(shape) * dtype.itemsize
    found = len(content) - file.tell()
    if not dtype.hasobject and found != expected:
        raise ValueError(f'{found:,} bytes of an array of {expected:,}')
    file.seek(0)
    return numpy.lib.format.read_array(file, allow_pickle=False)
