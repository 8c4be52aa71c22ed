"""NPZ files, read whole or not at all."""
import io
import struct
import zipfile
import zlib
from os import PathLike

import numpy


class NpzError(Exception):
    """A file that is no whole NPZ file; the message is one line."""


def read_npz(path: str | PathLike) -> dict[str, numpy.ndarray]:
    """Returns every array in an NPZ file, each with its checksum checked.

    Pickled objects are refused: a file from elsewhere must not run code.
    What damage may hide is whole arrays, if it hits the zip file's table of
    contents: look whether those that you need are there.

    Args:
        path (path): File to read.

    Raises:
        NpzError: If the file cannot be read, is truncated or damaged, or is
            no NPZ file at all.
    """
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                # read() compares the checksum; a lazy reader may not.
                content = io.BytesIO(archive.read(member))
                arrays[member.removesuffix('.npy')] = (
                    numpy.lib.format.read_array(content, allow_pickle=False))
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
