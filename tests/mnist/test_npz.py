import io
import random

import numpy
import pytest

from mnist.npz import NpzError, read_npz

ARRAYS = {
    'a/b': numpy.arange(300, dtype=numpy.float32).reshape(3, 100),
    'n': numpy.array(7),
    'text': numpy.array('{"seed": 0}'),
}


def npz_file(packed):
    file = io.BytesIO()
    save = numpy.savez_compressed if packed else numpy.savez
    save(file, **ARRAYS)
    return file.getvalue()


def assert_same(arrays):
    for name, array in arrays.items():
        assert array.dtype == ARRAYS[name].dtype
        numpy.testing.assert_array_equal(array, ARRAYS[name])


@pytest.mark.parametrize('packed', [False, True])
def test_reads_what_numpy_wrote(tmp_path, packed):
    path = tmp_path / 'f'
    path.write_bytes(npz_file(packed=packed))
    arrays = read_npz(path)
    assert arrays.keys() == ARRAYS.keys()
    assert_same(arrays)


@pytest.mark.parametrize('packed', [False, True])
def test_every_truncation_is_noticed(tmp_path, packed):
    path = tmp_path / 'f'
    content = npz_file(packed=packed)
    for length in range(0, len(content), 17):
        path.write_bytes(content[:length])
        with pytest.raises(NpzError, match='truncated, or not an NPZ file'):
            read_npz(path)


@pytest.mark.parametrize('packed', [False, True])
def test_a_changed_byte_is_noticed_or_does_no_harm(tmp_path, packed):
    path = tmp_path / 'f'
    content = npz_file(packed=packed)
    draw = random.Random(0)
    noticed = 0
    for _ in range(200):
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            arrays = read_npz(path)
        except NpzError as e:
            noticed += 1
            assert '\n' not in str(e)
        else:
            # Times and the like, or the end of the table of contents.
            assert_same(arrays)
    assert noticed > 100


def test_pickled_objects_are_refused(tmp_path):
    path = tmp_path / 'f.npz'
    numpy.savez(path, x=numpy.array([{}], object))
    with pytest.raises(NpzError, match='Object arrays cannot be loaded'):
        read_npz(path)


def test_file_that_is_not_there(tmp_path):
    with pytest.raises(NpzError, match='No such file'):
        read_npz(tmp_path / 'f')


def test_folder(tmp_path):
    with pytest.raises(NpzError, match='Is a directory'):
        read_npz(tmp_path)
