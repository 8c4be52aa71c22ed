"""Warnings that point at the user's own line."""
import sys
import warnings


def warn(message: str) -> None:
    """Warns of what the nearest caller outside of this room did."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and str(
            frame.f_globals.get('__name__')).startswith(
                'shared_linear.surgery.'):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
