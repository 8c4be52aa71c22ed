"""examples/export_onnx.py on made digits, and what it says when it cannot."""
import importlib.util
import re
import sys
from pathlib import Path

import numpy
import pytest
from made_digits import make_digits, write_digits

REASON = 'needs the extra "onnx"'
onnx = pytest.importorskip('onnx', reason=REASON)
onnxruntime = pytest.importorskip('onnxruntime', reason=REASON)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def example(monkeypatch):
    # The example puts the root first in the path.
    monkeypatch.setattr(sys, 'path', list(sys.path))
    spec = importlib.util.spec_from_file_location(
        'export_onnx', ROOT / 'examples' / 'export_onnx.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def refused(example, capsys):
    def refused(*options):
        assert example.main([str(option) for option in options]) == 2
        captured = capsys.readouterr()
        assert captured.err.count('\n') == 1
        assert captured.err.startswith('export_onnx.py: error: ')
        assert captured.out == '' or captured.out.startswith('#')
        return captured.err
    return refused


def test_files_compute_what_the_network_computes(
        example, tmp_path, capsys):
    digits = write_digits(tmp_path / 'digits', n_train=200)
    out = tmp_path / 'new' / 'result'
    assert example.main([
        '--data', str(digits), '--epoch', '5', '-o', str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.count('# epoch ') == 5
    table = {
        line[:25].strip(): line[25:].split()
        for line in printed.partition('\n\n')[2].splitlines()}
    assert all(len(line) < 80 for line in printed.splitlines()[-8:])

    # What it says of the files is so, by a run of their own.
    images, labels = make_digits(25, 1)
    images = images.reshape(25, 784).astype(numpy.float32) / 255
    for column, name in enumerate(['shared', 'int8', 'dense']):
        path = out / 'mnist_{}.onnx'.format(name)
        assert table['bytes'][column] == '{:,}'.format(path.stat().st_size)
        scores, = onnxruntime.InferenceSession(
            path, providers=['CPUExecutionProvider']).run(None, {'x': images})
        accuracy = '{:.2f}'.format(100 * (scores.argmax(1) == labels).mean())
        assert table['accuracy in onnxruntime'][2 * column] == accuracy
        assert table['accuracy in Chainer'][2 * column] == accuracy
        assert float(accuracy) > 50
    differences = table['largest difference']
    # Of the integers one may be the next.
    assert [0 <= float(d) < 1e-5 for d in differences][::2] == [True, True]
    assert 0 <= float(differences[1]) < .5
    assert table['weights of layer 2'] == [
        '90,000', '90,000', '900,000']
    assert sorted(path.name for path in out.iterdir()) == [
        'mnist_dense.onnx', 'mnist_int8.onnx', 'mnist_shared.onnx']


def test_help(example, capsys):
    with pytest.raises(SystemExit) as exit:
        example.main(['--help'])
    assert exit.value.code == 0
    printed = re.sub(r'\s+', ' ', capsys.readouterr().out)
    assert '--data DIR' in printed
    assert 'default: 5' in printed


def test_unknown_option(refused):
    assert 'unrecognized arguments: --speed' in refused('--speed')


@pytest.mark.parametrize('epochs', ['0', '-1', 'many', '1.5'])
def test_bad_number_of_epochs(refused, epochs):
    assert 'at least 1, not ' in refused('--epoch=' + epochs)


def test_tiles_that_do_not_divide(refused):
    assert '5 and 8' in refused('--n-tiles', 7)


def test_data_that_is_not_there(refused, tmp_path):
    assert 'no such folder' in refused(
        '--data', tmp_path / 'nothing', '-o', tmp_path)


def test_folder_that_cannot_be_made(refused, tmp_path, digits_dir):
    (tmp_path / 'file').touch()
    assert 'Not a directory' in refused(
        '--data', digits_dir, '-o', tmp_path / 'file' / 'result')


def test_file_that_cannot_be_written(refused, tmp_path, digits_dir):
    (tmp_path / 'mnist_shared.onnx').mkdir()
    assert 'mnist_shared.onnx: Is a directory' in refused(
        '--data', digits_dir, '--epoch', 1, '-o', tmp_path)


@pytest.mark.parametrize('package', ['onnx', 'onnxruntime'])
def test_package_that_is_not_installed(
        refused, monkeypatch, package, tmp_path, digits_dir):
    monkeypatch.setitem(sys.modules, package, None)
    assert 'pip install' in refused(
        '--data', digits_dir, '--epoch', 1, '-o', tmp_path)


def test_interrupt(example, monkeypatch, digits_dir, tmp_path, capsys):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(example, 'train', interrupt)
    assert example.main(
        ['--data', str(digits_dir), '-o', str(tmp_path)]) == 130
    assert capsys.readouterr().err == 'export_onnx.py: stopped\n'
