"""Small pictures as PNG, without a library, to be written into a page."""
import base64
import struct
import zlib
from collections.abc import Sequence

import numpy

Colour = tuple[int, int, int]

# From the most negative to the most positive; white, or the dark page's
# grey, is zero. The light one is ColorBrewer's RdBu, which the colour-blind
# can read too.
DIVERGING: tuple[Colour, ...] = (
    (5, 48, 97), (33, 102, 172), (67, 147, 195), (146, 197, 222),
    (209, 229, 240), (247, 247, 247), (253, 219, 199), (244, 165, 130),
    (214, 96, 77), (178, 24, 43), (103, 0, 31))
DIVERGING_IN_THE_DARK: tuple[Colour, ...] = (
    (190, 225, 255), (67, 147, 215), (34, 40, 48), (226, 105, 72),
    (255, 220, 190))
GREYS: tuple[Colour, ...] = ((255, 255, 255), (0, 0, 0))
NO_NUMBER: Colour = (128, 128, 0)

N_LEVELS = 63


def ramp(stops: Sequence[Colour], n: int = N_LEVELS) -> numpy.ndarray:
    """Returns ``n`` colours, (n, 3) of uint8, that pass through some."""
    channels = numpy.array(stops, float).T
    places = numpy.linspace(0, len(stops) - 1, n)
    return numpy.stack([
        numpy.interp(places, numpy.arange(len(stops)), channel)
        for channel in channels], axis=1).round().astype(numpy.uint8)


def levels(values: numpy.ndarray, low: float, high: float) -> numpy.ndarray:
    """Returns the level of each value from ``low`` (0) to ``high``.

    What lies outside gets the level at the end, and what is no number a
    level of its own behind the last.
    """
    with numpy.errstate(invalid='ignore'):
        scaled = (values.astype(float) - low) * ((N_LEVELS - 1) / (high - low))
    return numpy.where(
        numpy.isnan(scaled), N_LEVELS,
        numpy.nan_to_num(scaled.round()).clip(0, N_LEVELS - 1),
    ).astype(numpy.uint8)


def encode(picture: numpy.ndarray, stops: Sequence[Colour]) -> bytes:
    """Returns a picture of levels as a PNG with a palette.

    Args:
        picture (numpy.ndarray): (height, width) of what :func:`levels`
            returns.
        stops (sequence of colours): Colours to pass through.
    """
    height, width = picture.shape
    palette = bytes(ramp(stops).tobytes()) + bytes(NO_NUMBER)
    # Each row begins with the number of its filter: none.
    rows = numpy.pad(picture, ((0, 0), (1, 0))).tobytes()
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        _chunk(kind, content) for kind, content in [
            (b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 3, 0, 0, 0)),
            (b'PLTE', palette), (b'IDAT', zlib.compress(rows, 9)),
            (b'IEND', b'')])


def data_uri(png: bytes) -> str:
    """Returns a PNG as an address that holds it whole."""
    return 'data:image/png;base64,' + base64.b64encode(png).decode('ascii')


def _chunk(kind: bytes, content: bytes) -> bytes:
    return (struct.pack('>I', len(content)) + kind + content
            + struct.pack('>I', zlib.crc32(kind + content)))
