"""Made digits, a cache of their own, and no way out to the mirrors."""
import pytest
from made_digits import write_digits
from tiny_run import TINY

import train_mnist


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """An empty cache, and a proxy that refuses, here and in subprocesses."""
    root = tmp_path / 'chainer'
    monkeypatch.setenv('CHAINER_DATASET_ROOT', str(root))
    monkeypatch.setattr('chainer.dataset.download._dataset_root', str(root))
    for scheme in 'http', 'https':
        monkeypatch.setenv(f'{scheme}_proxy', 'http://127.0.0.1:9')
    monkeypatch.setenv('no_proxy', '')
    return root


@pytest.fixture
def digits_dir(tmp_path):
    return write_digits(tmp_path / 'digits')


@pytest.fixture
def run(digits_dir, tmp_path, capsys):
    """Runs the script on made digits: run(*options) -> status, out, err."""
    def run(*options):
        status = train_mnist.main([
            *TINY, '--data', str(digits_dir), '--no-plots',
            '-o', str(tmp_path / 'result'), *map(str, options)])
        return status, *capsys.readouterr()
    return run


@pytest.fixture
def refused(capsys):
    """Asserts that the script refuses options in one line; returns it."""
    def refused(*options):
        status = train_mnist.main([str(option) for option in options])
        captured = capsys.readouterr()
        assert status == 2
        assert captured.err.endswith('\n')
        assert captured.err.count('\n') == 1
        assert captured.err.startswith('train_mnist.py: error: ')
        return captured.err
    return refused
