"""Modules under their names of 0.1: pickles made then ask for them."""
import importlib
import sys

MOVED = {
    'link': 'layers.link',
    'mixed_link': 'layers.mixed_link',
    'tiled_link': 'layers.tiled_link',
    'report': 'compression.report',
}


def keep_old_names() -> None:
    for old, new in MOVED.items():
        sys.modules['shared_linear.' + old] = importlib.import_module(
            'shared_linear.' + new)
