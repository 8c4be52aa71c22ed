"""Digits that are made here, and the IDX files of them, by hand."""
import gzip
import struct
from pathlib import Path

import numpy

NAMES = {
    'train': ('train-images-idx3-ubyte', 'train-labels-idx1-ubyte'),
    'test': ('t10k-images-idx3-ubyte', 't10k-labels-idx1-ubyte'),
}


def images_file(images: numpy.ndarray) -> bytes:
    """An IDX file of (N, 28, 28) images, written by hand."""
    return struct.pack('>iiii', 2051, len(images), 28, 28) + images.tobytes()


def labels_file(labels: numpy.ndarray) -> bytes:
    """An IDX file of (N,) labels, written by hand."""
    return struct.pack('>ii', 2049, len(labels)) + labels.tobytes()


def make_digits(n: int, seed: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Noise with a bright row where the label says: easy to learn."""
    random = numpy.random.RandomState(seed)
    labels = random.randint(0, 10, n).astype(numpy.uint8)
    images = random.randint(0, 50, (n, 28, 28)).astype(numpy.uint8)
    images[numpy.arange(n), 2 * labels + 3] = 255
    return images, labels


def write_digits(
        folder: Path, n_train: int = 60, n_test: int = 25,
        gzipped: bool = False) -> Path:
    """Writes the four files into a new folder, and returns it."""
    folder.mkdir()
    for seed, (split, n) in enumerate([('train', n_train), ('test', n_test)]):
        images, labels = make_digits(n, seed)
        for name, content in zip(NAMES[split], [
                images_file(images), labels_file(labels)], strict=True):
            if gzipped:
                name, content = name + '.gz', gzip.compress(content)
            (folder / name).write_bytes(content)
    return folder
