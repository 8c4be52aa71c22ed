"""A snapshot that 0.1 wrote: the run goes on from it.

The files were written by version 0.1, at its last commit, on the digits of
``write_digits``: one epoch, and what three came to without a stop.
"""
import gzip
from pathlib import Path

import numpy
import pytest

import train_mnist

FILES = Path(__file__).parents[1] / 'files_of_0_1'
OPTIONS = [
    '--unit', '2', '--out-unit', '2', '--n-tiles', '2', '-b', '10', '--seed',
    '3', '--no-plots', '--no-report']


@pytest.fixture
def old(tmp_path):
    path = tmp_path / 'old'
    path.write_bytes(gzip.decompress(
        (FILES / 'train_mnist_iter_6.gz').read_bytes()))
    return path


def test_goes_on(old, digits_dir, tmp_path, capsys):
    out = tmp_path / 'result'
    assert train_mnist.main([
        *OPTIONS, '--data', str(digits_dir), '-o', str(out), '-e', '3',
        '--resume', str(old)]) == 0
    assert f'# resumed from {old}, after epoch 1, iteration 6\n' in (
        capsys.readouterr().out)
    with numpy.load(out / 'snapshot_iter_18') as ours, numpy.load(
            FILES / 'train_mnist_iter_18.npz') as theirs:
        names = list(theirs)
        assert len([name for name in names if name.endswith('/W')]) == 3
        assert any(name.endswith('/l2/W/v') for name in names)
        for name in names:
            assert ours[name].dtype == theirs[name].dtype
            # On the machine that wrote it, bit for bit; sums are rounded
            # otherwise on another, which Adam makes up to 1e-5 of.
            numpy.testing.assert_allclose(
                ours[name], theirs[name], rtol=1e-3, atol=1e-5,
                err_msg=name)


@pytest.mark.parametrize(('others', 'words'), [
    (['--n-tiles', '1'], '--n-tiles 2, not --n-tiles 1'),
    (['--layer', 'linear'], '--layer shared --n-tiles 2, not --layer linear'),
    (['--layer', 'mixed', '--n-blocks', '2'],
     '--layer shared --n-blocks None, not --layer mixed --n-blocks 2'),
    (['--order', 'plain'], '--order None --first-tiles None, not --order'),
])
def test_other_settings_are_refused(
        old, digits_dir, tmp_path, refused, others, words):
    line = refused(
        *OPTIONS, '--data', digits_dir, '-o', tmp_path / 'result', '--resume',
        old, *others)
    assert f'{old} was trained with {words}' in line
    assert not (tmp_path / 'result').exists()
