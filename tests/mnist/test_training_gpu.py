"""The same run on a GPU."""
import json

import numpy
import pytest

from mnist.devices import get_device
from mnist.errors import UserError


def missing_gpu() -> str:
    try:
        get_device('0')
    except UserError as e:
        return str(e)
    return ''


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(bool(missing_gpu()), reason=missing_gpu()),
]


def test_learns_what_the_cpu_learns(run, tmp_path):
    logs = []
    for device in '-1', '@cupy:0':
        out = tmp_path / device
        status, shown, _ = run('-e', 2, '-d', device, '-o', out)
        assert status == 0
        logs.append(json.loads((out / 'log').read_text()))
    assert 'Device: @cupy:0\n' in shown
    for key in 'main/loss', 'validation/main/loss':
        numpy.testing.assert_allclose(
            *[[entry[key] for entry in log if key in entry] for log in logs],
            rtol=1e-3)
    accuracies = [log[-1]['validation/main/accuracy'] for log in logs]
    assert accuracies[1] == pytest.approx(accuracies[0], abs=.02)


def test_goes_on_from_a_snapshot_of_either_device(run, tmp_path):
    for epoch, device in enumerate(['0', '-1', '0', '0'], 1):
        resume = ['-r'] if epoch > 1 else []
        status, shown, err = run('-e', epoch, '-d', device, *resume)
        assert (status, err) == (0, '')
    assert 'snapshot_iter_18, after epoch 3' in shown
