"""Each benchmark runs, small, and writes what a figure depends on."""
import json
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

from benchmarks import harness

ROOT = Path(__file__).resolve().parents[1]
SMALL = {
    'layer_speed': [
        '--size', '12,5', '--batch', '2', '--n-tiles', '3', '--seconds', '0'],
    'mixed_speed': [
        '--size', '12,6', '--batch', '2', '--mixing', '3,2', '--seconds', '0'],
    'memory': ['--batch', '2', '--in-size', '20', '--out-size', '5'],
    'scaling': ['--batch', '2', '--seconds', '0'],
    'surgery_overhead': ['--batch', '2', '--seconds', '0'],
    'training_speed': ['--batch', '2', '--seconds', '0'],
}


@pytest.mark.parametrize('name', sorted(SMALL))
def test_benchmark_writes_its_results(name, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / 'benchmarks' / (name + '.py'), *SMALL[name],
         '--out', tmp_path / 'out'],
        capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / 'out' / (name + '.json')).read_text())
    assert written['results']
    assert written['command'].startswith(
        'python benchmarks/{}.py'.format(name))
    assert written['machine']['numpy'] == numpy.__version__
    assert set(written['machine']['threads']) == set(harness.THREADS)


def test_unknown_device_is_one_clear_error(capsys):
    with pytest.raises(SystemExit) as stop:
        harness.parse_args('A benchmark.', ['--device', '@nonsense'])
    assert stop.value.code == 2
    assert 'cannot use the device @nonsense' in capsys.readouterr().err


def test_wrong_result_stops_the_benchmark():
    expected = numpy.array([1., 2.])
    harness.check_close(expected + 1e-6, expected, 'y')
    with pytest.raises(SystemExit, match='y is wrong: relative error 5.0e-02'):
        harness.check_close(expected + .1, expected, 'y')


def test_not_a_number_stops_the_benchmark():
    with pytest.raises(SystemExit, match='y is wrong'):
        harness.check_close(
            numpy.array([numpy.nan]), numpy.array([1.]), 'y')


def test_ratio_is_the_median_of_the_rounds():
    timings = harness.Timings({
        'a': {'step': [2., 40., 6.]}, 'b': {'step': [1., 10., 2.]}})
    assert timings.ratio('a', 'b', 'step').median == 3
    assert timings.seconds('b', 'step') == (2, 1.5, 6)


def test_contestants_take_turns():
    turns = []
    harness.compare(
        {name: lambda mark, n=name: (turns.append(n), mark('all'))
         for name in 'ab'},
        harness.chainer.get_device('@numpy'), seconds=0, min_rounds=3,
        sample_seconds=0)
    assert ''.join(turns[-6:]) == 'ababab'
