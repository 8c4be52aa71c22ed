"""Sizes are known before they are asked for."""
import gzip
import io
import struct
import tracemalloc
import zipfile

import numpy
import pytest
from made_digits import NAMES, images_file, make_digits
from tiny_run import TINY

from mnist import idx, memory, npz, snapshots
from mnist.errors import DataError, UserError

IMAGES = NAMES['train'][0]


@pytest.fixture
def small_machine(monkeypatch):
    monkeypatch.setattr(memory, 'available', lambda: 10 ** 8)


def test_what_is_available():
    with open('/proc/meminfo') as file:
        total = int(file.readline().split()[1]) * 1024
    assert 10 ** 7 < memory.available() <= total
    memory.check(10 ** 6, 'it')
    with pytest.raises(UserError, match='^it: not enough memory: about 1,0'):
        memory.check(10 ** 18, 'it')


def test_a_limit_of_the_process(monkeypatch):
    monkeypatch.setattr(
        memory.resource, 'getrlimit', lambda what: (2 * 10 ** 6, -1))
    assert memory.available() == 2 * 10 ** 6
    with pytest.raises(UserError, match='about 3 MB are needed, and 2 MB'):
        memory.check(3 * 10 ** 6, 'it')


def peak(function, *args):
    """Returns the most bytes that a call has at once, and its error."""
    tracemalloc.start()
    try:
        function(*args)
    except (UserError, npz.NpzError) as e:
        return tracemalloc.get_traced_memory()[1], e
    finally:
        tracemalloc.stop()
    raise AssertionError('no error')


@pytest.mark.parametrize('packed', [False, True])
def test_idx_with_more_in_it_than_its_header_says(tmp_path, packed):
    path = tmp_path / IMAGES
    content = images_file(make_digits(3, 0)[0]) + bytes(5 * 10 ** 7)
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    del content
    n_bytes, error = peak(idx.read_bytes, path, idx.IMAGES_MAGIC)
    assert n_bytes < 10 ** 6
    assert str(error) == f'{path}: ' + (
        'bytes' if packed else '50,000,000 bytes') + (
        ' more than its header says')


@pytest.mark.parametrize('packed', [False, True])
@pytest.mark.parametrize('shape', [
    (5_000_000, 28, 28), (2 ** 32 - 1,) * 3])
def test_idx_of_more_than_there_is_memory(
        small_machine, refused, digits_dir, tmp_path, packed, shape):
    path = digits_dir / IMAGES
    content = struct.pack('>iIII', 2051, *shape) + bytes(1000)
    path.write_bytes(gzip.compress(content) if packed else content)
    line = refused(
        '--unit', 20, '--no-plots', '--data', digits_dir, '-o', tmp_path / 'r')
    assert f'{path}: not enough memory: about ' in line


@pytest.mark.parametrize('path', ['/dev/zero', '/dev/null'])
def test_devices_are_no_files(refused, digits_dir, tmp_path, path):
    assert f'{path}: no snapshot: not a regular file' in refused(
        *TINY, '--no-plots', '-o', tmp_path / 'r', '--resume', path)
    with pytest.raises(DataError, match='not a regular file'):
        idx.read_bytes(tmp_path.joinpath(path), idx.IMAGES_MAGIC)


def test_npz_that_unpacks_to_more_than_it_may(tmp_path):
    path = tmp_path / 'f'
    with open(path, 'wb') as file:
        numpy.savez_compressed(file, x=numpy.zeros(5 * 10 ** 7, 'u1'))
    assert path.stat().st_size < 10 ** 5
    n_bytes, error = peak(npz.read_npz, path, 10 ** 7)
    assert n_bytes < 10 ** 6
    assert 'its arrays have 50,000,128 bytes, expected 10,000,000' in (
        str(error))


def test_npz_of_many_members_is_as_large_as_all(tmp_path):
    path = tmp_path / 'f'
    with open(path, 'wb') as file:
        numpy.savez_compressed(
            file, **{f'x{i}': numpy.zeros(10 ** 6, 'u1') for i in range(20)})
    assert 'its arrays have 20,' in str(peak(npz.read_npz, path, 10 ** 7)[1])
    assert len(npz.read_npz(path, 3 * 10 ** 7)) == 20


def test_npz_file_that_is_too_large_itself(tmp_path):
    path = tmp_path / 'f'
    with open(path, 'wb') as file:
        file.truncate(10 ** 12)  # Takes no room.
    n_bytes, error = peak(npz.read_npz, path)
    assert n_bytes < 10 ** 6
    assert '1,000,000,000,000 bytes, expected' in str(error)


@pytest.mark.parametrize('shape', [(10 ** 15,), (3,), (10 ** 30, 10 ** 30)])
def test_npy_whose_header_lies(tmp_path, shape):
    header = io.BytesIO()
    numpy.lib.format.write_array_header_1_0(
        header, {'shape': shape, 'fortran_order': False, 'descr': '<f4'})
    path = tmp_path / 'f'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('x.npy', header.getvalue() + bytes(4 * 7))
    n_bytes, error = peak(npz.read_npz, path)
    assert n_bytes < 10 ** 6
    assert 'damaged: 28 bytes of an array of ' in str(error)


def test_snapshot_that_unpacks_to_more_than_the_network_takes(
        run, refused, digits_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(snapshots, 'MAX_BYTES', 10 ** 6)
    assert run('-e', 1)[0] == 0
    assert run('-e', 2, '-r')[0] == 0
    path = tmp_path / 'bomb'
    with open(path, 'wb') as file:
        numpy.savez_compressed(file, x=numpy.zeros(10 ** 7, 'u1'))
    assert f'{path}: no snapshot: its arrays have 10,000,128 bytes' in refused(
        *TINY, '--no-plots', '-o', tmp_path / 'r', '--resume', path)


@pytest.mark.parametrize('options', [
    ['--unit', 10 ** 6], ['--out-unit', 10 ** 7], ['--unit', 10 ** 30],
    ['--layer', 'low-rank', '--rank', 10 ** 6],
    ['--layer', 'mixed', '--unit', 100, '--out-unit', 10 ** 6, '--n-blocks',
     10 ** 6]])
def test_networks_of_more_than_there_is_memory(
        small_machine, refused, tmp_path, options):
    line = refused('--no-plots', '-o', tmp_path / 'r', *options)
    assert 'not enough memory: about ' in line
    assert f'{options[-2]} {options[-1]}' in line


@pytest.mark.parametrize('batchsize', [61, 1000, 99999999999])
def test_more_in_a_mini_batch_than_there_are_digits(
        refused, digits_dir, tmp_path, batchsize):
    assert (f'--batchsize {batchsize} is more than the 60 digits to train on'
            in refused('--unit', 20, '--no-plots', '--data', digits_dir, '-o',
                       tmp_path / 'r', '-e', 1, '-b', batchsize))
