"""MNIST itself, where it lies beside the checkout."""
import hashlib
import os
from pathlib import Path

import numpy
import pytest

from mnist import embedded, idx, original
from mnist.data import load_digits

FOLDER = Path(os.environ.get(
    'MNIST_DIR', Path(__file__).parents[3] / 'shared' / 'data' / 'mnist'))

pytestmark = [pytest.mark.more, pytest.mark.skipif(
    not FOLDER.is_dir(),
    reason=f'needs the four files of MNIST in {FOLDER}, or in $MNIST_DIR')]

# As published with the mirrors of torchvision and others.
MD5 = {
    'train-images-idx3-ubyte': '6bbc9ace898e44ae57da46a324031adb',
    'train-labels-idx1-ubyte': 'a25bea736e30d166cdddb491f175f624',
    't10k-images-idx3-ubyte': '2646ac647ad5339dbf082846283269ea',
    't10k-labels-idx1-ubyte': '27ae3e4e09519cfbb04c329615203637',
}


@pytest.mark.parametrize('file', original.TRAIN + original.TEST)
def test_sizes_and_checksums(file):
    magic = idx.IMAGES_MAGIC if 'images' in file.name else idx.LABELS_MAGIC
    content = idx.read_bytes(FOLDER / f'{file.name}.gz', magic)
    assert hashlib.md5(content).hexdigest() == MD5[file.name]
    assert hashlib.sha256(content).hexdigest() == file.sha256
    assert len(content) == file.size


def test_it_is_known():
    train, test, source = load_digits(FOLDER)
    assert source == (
        f'MNIST, 60,000 to train and 10,000 to test on, from {FOLDER}')
    assert (len(train), len(test)) == (60000, 10000)
    # The first digits of both halves, as every tutorial shows them.
    assert [int(label) for _, label in train[:5]] == [5, 0, 4, 1, 9]
    assert [int(label) for _, label in test[:5]] == [7, 2, 1, 0, 4]


def test_the_embedded_digits_are_its_first_500_of_each_class():
    whole = idx.read_split(*[
        FOLDER / f'{file.name}.gz' for file in original.TRAIN])
    expected = {
        (digit, image.tobytes())
        for digit in range(10)
        for image in whole.images[whole.labels == digit][:500]}
    halves = embedded.read(embedded.find())
    ours = [
        (int(label), image.tobytes())
        for half in halves for image, label in zip(*half, strict=True)]
    assert len(ours) == 5000
    assert set(ours) == expected
    assert numpy.intersect1d(halves[0].labels, halves[1].labels).size == 10
