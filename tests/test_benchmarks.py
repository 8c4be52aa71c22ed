"""Each benchmark runs, small, and writes what a figure depends on."""
import json
import runpy
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest
from nvrtc import compile_cuda

from benchmarks import gpu_layer, harness

from chainer.backends import cuda  # isort: skip

ROOT = Path(__file__).resolve().parents[1]
SMALL = {
    'gpu_layer': [
        '--batch', '4', '--in-size', '16',
        '--out-size', '5', '--n-tiles', '2', '--mib', '1', '--copy-mib', '1',
        '--product-size', '8', '--rotated-mib', '1', '--seconds', '0'],
    'gpu_step': ['--batch', '2', '--steps', '2'],
    'layer_speed': [
        '--size', '12,5', '--batch', '2', '--n-tiles', '3', '--seconds', '0'],
    'mixed_speed': [
        '--size', '12,6', '--batch', '2', '--mixing', '3,2', '--seconds', '0'],
    'memory': ['--batch', '2', '--in-size', '20', '--out-size', '5'],
    'onnx_speed': ['--batch', '2', '--seconds', '0'],
    'scaling': ['--batch', '2', '--seconds', '0'],
    'surgery_overhead': ['--batch', '2', '--seconds', '0'],
    'training_speed': ['--batch', '2', '--seconds', '0'],
}


@pytest.mark.slow
@pytest.mark.parametrize('device', [
    '@numpy', pytest.param('@cupy:0', marks=pytest.mark.gpu)])
@pytest.mark.parametrize('name', sorted(SMALL))
def test_benchmark_writes_its_results(name, device, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / 'benchmarks' / (name + '.py'), *SMALL[name],
         '--device', device, '--out', tmp_path / 'out'],
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
    assert 'error: --device @nonsense: no such device' in (
        capsys.readouterr().err)


@pytest.mark.parametrize('name', ['gpu_layer', 'gpu_step'])
def test_no_gpu_is_one_clear_error(name):
    if cuda.available:
        pytest.skip('needs a machine without CuPy')
    done = subprocess.run(
        [sys.executable, ROOT / 'benchmarks' / (name + '.py')],
        capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        name + '.py: error: --device @cupy:0 needs CuPy')


def test_a_gpu_can_be_held_up():
    said, ptx = compile_cuda(harness.HOLD, ('-arch=compute_90',))
    assert (said, ptx.count('globaltimer')) == ('', 2)


class FullQueue:
    """The clock of a GPU that lets a hundred marks wait for it, no more."""

    cupy = 'CuPy'
    free = 0.
    waiting = 0

    def hold(self, seconds):
        self.free, self.waiting = time.perf_counter() + seconds, 0

    def mark(self):
        self.waiting += 1
        if self.waiting > 100:
            time.sleep(max(0, self.free - time.perf_counter()))
        return time.perf_counter()

    def seconds_between(self, start, end):
        return 1.


def test_a_full_queue_is_not_waited_for_again_and_again():
    """However long a GPU is held up, it has no room for more."""
    calls = []

    def contestant(mark):
        calls.append(mark)
        mark('all')

    clock = FullQueue()
    assert harness._sample(clock, contestant, 400, 1e-3) == {'all': 1.}
    assert clock.waiting <= 100
    assert len(calls) < 1000


@pytest.mark.parametrize('flags, runs', [
    ([], False), (['--device', '@numpy'], False), (['-d', '@cupy:0'], True)])
def test_benchmarks_of_a_gpu_run_where_one_is_asked_for(
        monkeypatch, capsys, flags, runs):
    ran = []

    def run(command):
        ran.append(Path(command[1]).stem)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, 'run', run)
    monkeypatch.setattr(sys, 'argv', ['benchmarks', *flags])
    runpy.run_module('benchmarks.__main__', run_name='__main__')
    assert 'layer_speed' in ran
    assert ('gpu_layer' in ran, 'gpu_step' in ran) == (runs, runs)


def test_floor_of_a_layer():
    """Its products, and x, gx, y twice and gy over the bandwidth."""
    assert gpu_layer.floor_seconds(2, 10, 6, 4, 4, 96) == (
        2 + 4 * (60 + 60 + 40 + 40 + 40) / 96)


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
