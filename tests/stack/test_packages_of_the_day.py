"""What Chainer does by matplotlib, Pillow and onnx of the day.

Warnings are errors here, as everywhere in these tests.
"""
import numpy
import pytest

import shared_linear  # noqa: F401

import chainer  # isort: skip
import chainer.functions as F  # isort: skip
import chainer.links as L  # isort: skip
from chainer import training  # isort: skip
from chainer.training import extensions  # isort: skip


def trainer(folder, epochs=3):
    x = numpy.random.randn(20, 4).astype('f')
    t = numpy.arange(20, dtype='i') % 3
    model = L.Classifier(L.Linear(4, 3))
    optimizer = chainer.optimizers.SGD().setup(model)
    iterator = chainer.iterators.SerialIterator(
        chainer.datasets.TupleDataset(x, t), 10)
    updater = training.updaters.StandardUpdater(iterator, optimizer)
    return training.Trainer(updater, (epochs, 'epoch'), out=str(folder)), model


def assert_drawn(path):
    """There is something in a picture."""
    image = pytest.importorskip('PIL.Image')
    with image.open(path) as picture:
        pixels = numpy.asarray(picture.convert('RGB'))
    assert pixels.std() > 1


def test_plots(tmp_path):
    pytest.importorskip('matplotlib').use('agg')
    run, model = trainer(tmp_path)
    run.extend(extensions.LogReport())
    run.extend(extensions.PlotReport(
        ['main/loss'], 'epoch', filename='loss.png'))
    run.extend(extensions.PlotReport(
        ['main/loss'], 'epoch', filename='log.png',
        postprocess=lambda figure, axes, summary: axes.set_yscale('log')))
    run.extend(extensions.VariableStatisticsPlot(
        model, trigger=(1, 'epoch'), filename='statistics.png'))
    run.extend(extensions.ParameterStatistics(model))
    run.extend(extensions.dump_graph('main/loss'))
    run.run()
    for name in 'loss.png', 'log.png', 'statistics.png':
        assert_drawn(tmp_path / name)
    assert 'digraph' in (tmp_path / 'cg.dot').read_text()


def test_images(tmp_path):
    image = pytest.importorskip('PIL.Image')
    pixels = numpy.random.randint(0, 256, (5, 6, 3)).astype('B')
    image.fromarray(pixels).save(tmp_path / 'a.png')
    image.fromarray(pixels[..., 0]).save(tmp_path / 'gray.png')
    images = chainer.datasets.ImageDataset(
        ['a.png', 'gray.png'], root=str(tmp_path))
    numpy.testing.assert_array_equal(images[0], pixels.transpose(2, 0, 1))
    numpy.testing.assert_array_equal(images[1], pixels[None, ..., 0])
    labeled = chainer.datasets.LabeledImageDataset(
        [('a.png', 3)], root=str(tmp_path))
    x, t = labeled[0]
    assert x.dtype == 'f' and t == 3
    numpy.testing.assert_array_equal(x, pixels.transpose(2, 0, 1))


@pytest.mark.parametrize('module', ['vgg', 'resnet', 'googlenet'])
@pytest.mark.parametrize('shape', [(6, 7, 3), (3, 6, 7), (1, 6, 7), (6, 7)])
def test_images_for_a_pretrained_model(module, shape):
    import importlib
    pytest.importorskip('PIL')
    vision = importlib.import_module('chainer.links.model.vision.' + module)
    x = numpy.full(shape, 100, 'B')
    y = vision.prepare(x, size=(8, 9))
    assert y.dtype == 'f' and y.shape == (3, 9, 8)
    blue = {'vgg': 103.939, 'resnet': 103.063, 'googlenet': 104}[module]
    numpy.testing.assert_allclose(y[0], 100 - blue, rtol=1e-5)


def test_hdf5_snapshots(tmp_path):
    pytest.importorskip('h5py')
    model, other = L.Linear(3, 2), L.Linear(3, 2)
    chainer.serializers.save_hdf5(str(tmp_path / 'a.h5'), model)
    chainer.serializers.load_hdf5(str(tmp_path / 'a.h5'), other)
    numpy.testing.assert_array_equal(model.W.array, other.W.array)


@pytest.mark.parametrize('opset', [7, 9, 11])
def test_onnx_chainer_by_itself(opset, tmp_path):
    """As a program calls it that knows nothing of this package."""
    onnx = pytest.importorskip('onnx')
    runtime = pytest.importorskip('onnxruntime')
    import onnx_chainer

    class Net(chainer.Chain):

        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.conv, self.fc = L.Convolution2D(2, 3, 3), L.Linear(48, 5)
                self.bn = L.BatchNormalization(3)

        def forward(self, x):
            h = F.relu(self.bn(self.conv(x)))
            return F.softmax(self.fc(F.reshape(h, (x.shape[0], -1))))

    model, x = Net(), numpy.random.randn(4, 2, 6, 6).astype('f')
    model(x)
    path = str(tmp_path / 'net.onnx')
    with pytest.warns(DeprecationWarning, match='without testcases'):
        onnx_chainer.export(
            model, x, filename=path, opset_version=opset,
            input_names=['x'], output_names=['y'])
    onnx.checker.check_model(onnx.load(path))
    y, = runtime.InferenceSession(
        path, providers=['CPUExecutionProvider']).run(['y'], {'x': x})
    with chainer.using_config('train', False):
        numpy.testing.assert_allclose(
            y, model(x).array, rtol=1e-4, atol=1e-6)
    with pytest.warns(FutureWarning, match='return_named_inout'):
        onnx_chainer.export_testcase(model, x, str(tmp_path / 'case'))
    assert (tmp_path / 'case' / 'model.onnx').stat().st_size > 0
