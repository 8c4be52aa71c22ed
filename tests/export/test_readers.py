"""PyTorch (by onnx2torch) and OpenVINO compute what the model computes."""
import contextlib
import importlib
import sys
import types

import numpy
import pytest
from test_onnx import make_cnn, make_layer, normal, run_chainer

import shared_linear as sl
from shared_linear import surgery

import chainer  # isort: skip
import chainer.functions as F  # isort: skip
import chainer.links as L  # isort: skip

pytest.importorskip('onnx', reason='needs the extra "onnx"')


def make_mixed():
    return chainer.Sequential(
        sl.MixedLinear(12, 6, n_tiles=3, n_blocks=2), F.relu, L.Linear(6, 3))


def make_quantized():
    model = chainer.Sequential(make_layer(12, 8), F.relu, L.Linear(8, 3))
    surgery.quantize(model, normal(50, 12))
    return model


MODELS = {
    'cnn': (make_cnn, (2, 8, 8)),
    'mixed': (make_mixed, (12,)),
    'quantized': (make_quantized, (12,)),
}


@contextlib.contextmanager
def torchvision_or_a_stand_in():
    """Its wheel wants the torch of its own build, and is only for boxes."""
    names = 'torchvision', 'torchvision.ops'
    try:
        importlib.import_module('torchvision')
    except Exception:
        for name in [n for n in sys.modules
                     if n.partition('.')[0] == 'torchvision']:
            del sys.modules[name]
        for name in names:
            sys.modules[name] = types.ModuleType(name)
        sys.modules['torchvision'].ops = sys.modules['torchvision.ops']
        sys.modules['torchvision.ops'].roi_align = None
        yield
        for name in names:
            del sys.modules[name]
    else:
        yield


def read_by_torch(path):
    torch = pytest.importorskip('torch', reason='needs the extra "bench"')
    with torchvision_or_a_stand_in():
        onnx2torch = pytest.importorskip(
            'onnx2torch', reason='needs the extra "bench"')
    module = onnx2torch.convert(str(path)).eval()

    def run(x):
        with torch.no_grad():
            return module(torch.from_numpy(x)).numpy()

    return run


def read_by_openvino(path):
    openvino = pytest.importorskip(
        'openvino', reason='needs the extra "bench"')
    model = openvino.compile_model(
        path, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    return lambda x: model(x)[0]


@pytest.mark.more
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('read, name', [
    # onnx2torch has no integers of 8 bits.
    (read_by_torch, 'cnn'), (read_by_torch, 'mixed'),
    (read_by_openvino, 'cnn'), (read_by_openvino, 'mixed'),
    (read_by_openvino, 'quantized')])
def test_outputs(tmp_path, read, name):
    make, shape = MODELS[name]
    model, path = make(), tmp_path / 'model.onnx'
    sl.onnx.export(model, normal(2, *shape), path)
    run = read(path)
    for batch_size in 1, 5:
        x = normal(batch_size, *shape)
        numpy.testing.assert_allclose(
            run(x), run_chainer(model, x), rtol=0, atol=1e-5)
