"""A file that computes something else is refused, and the function named."""
import os
import stat
import subprocess
import sys
import threading

import numpy
import pytest
from test_onnx import Computed, array_of, make_layer, normal, run, run_chainer

import shared_linear as sl
from shared_linear import surgery
from shared_linear.onnx import checking

import chainer  # isort: skip
import chainer.functions as F  # isort: skip
import chainer.links as L  # isort: skip
from chainer.link_hooks import SpectralNormalization  # isort: skip

REASON = 'needs the extra "onnx"'
onnx = pytest.importorskip('onnx', reason=REASON)
onnxruntime = pytest.importorskip('onnxruntime', reason=REASON)


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'model.onnx'


@pytest.fixture
def model():
    return Computed(
        lambda self, x: F.tanh(self.b(F.elu(self.a(F.sigmoid(x))))),
        a=L.Linear(6, 5), b=L.Linear(5, 4))


def as_operator(kind, **attributes):
    def convert(params):
        return onnx.helper.make_node(
            kind, params.input_names, params.output_names, **attributes),

    return convert


@pytest.fixture(params=['onnxruntime', 'reference'])
def runner(request, monkeypatch):
    if request.param == 'reference':
        monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    return request.param


class TestOfWhatItComputes:

    def test_first_function_that_differs(self, path, model, runner):
        converters = {
            'ELU': as_operator('Elu', alpha=.5), 'Tanh': as_operator('Sin')}
        with pytest.raises(sl.onnx.ExportError, match=(
                r'ELU_0, the first function that differs \(chainer\.functions'
                r'\.activation\.elu\.ELU\), gives numbers that are off by ')):
            sl.onnx.export(model, normal(3, 6), path, converters=converters)
        assert not path.exists()
        sl.onnx.export(
            model, normal(3, 6), path, converters=converters, check=False)
        assert path.exists()

    def test_a_small_difference(self, path, model, runner):
        """Of one part in ten thousand, in one number of many."""
        def convert(params):
            noise = numpy.ones(4, numpy.float32)
            noise[2] += 1e-4
            params.context.add_const(noise, 'noise')
            name = params.context.add_const(noise, 'noise')
            return [
                onnx.helper.make_node(
                    'Tanh', params.input_names, ['half_way']),
                onnx.helper.make_node(
                    'Mul', ['half_way', name], params.output_names)]

        with pytest.raises(sl.onnx.ExportError, match='Tanh_0, the first'):
            sl.onnx.export(
                model, normal(3, 6), path, converters={'Tanh': convert})

    def test_shape_and_type(self, path):
        model = Computed(lambda self, x: F.sum(x, axis=1, keepdims=True))
        with pytest.raises(sl.onnx.ExportError):
            sl.onnx.export(model, normal(3, 6), path, converters={
                'Sum': as_operator('ReduceMax', axes=[1], keepdims=0)})

    def test_rounding_that_is_amplified(self, path):
        """Off by much, and yet by no more than the rounding of x makes."""
        model = Computed(lambda self, x: F.sin(1e5 * F.exp(self.l(x))),
                         l=L.Linear(50, 4))
        sl.onnx.export(model, normal(3, 50), path)

    def test_nothing_runs_it(self, path, monkeypatch):
        def refuse(*args):
            raise RuntimeError('no such kernel')

        monkeypatch.setattr(checking.Runner, '_run', refuse)
        monkeypatch.setattr(checking.Runner, '_refer', refuse)
        with pytest.raises(sl.onnx.ExportError, match=(
                'cannot be checked, as nothing runs it: .*no such kernel')):
            sl.onnx.export(make_layer(), normal(2, 12), path)
        sl.onnx.export(make_layer(), normal(2, 12), path, check=False)

    def test_onnxruntime_does_not_run_it(self, path, monkeypatch):
        def refuse(*args):
            raise RuntimeError('no such kernel')

        monkeypatch.setattr(checking.Runner, '_run', refuse)
        with pytest.warns(UserWarning, match='does not run .*no such kernel'):
            sl.onnx.export(make_layer(), normal(2, 12), path)

    def test_a_user_converter_may_name_no_node(self, path):
        """add_const in one is enough for an array that a function holds."""
        def convert(params):
            condition = params.context.add_const(
                params.func.condition, 'condition')
            return onnx.helper.make_node(
                'Where', [condition, *params.input_names],
                params.output_names),

        mask = numpy.array([[True, False, True]])
        model = Computed(lambda self, x: F.where(
            mask, F.relu(x), numpy.zeros((1, 3), numpy.float32)))
        sl.onnx.export(
            model, normal(2, 3), path, converters={'Where': convert})
        x = normal(5, 3)
        assert (run(path, x=x)[0] == run_chainer(model, x)).all()


class TestOfWhatIsNoFunction:

    @pytest.mark.parametrize('forward', [
        lambda self, x: x * (x.array > 0),
        lambda self, x: F.where(x.array > 0, x, -x),
        lambda self, x: x - x.array.mean(),
        lambda self, x: x + numpy.random.normal(size=3).astype('f'),
        lambda self, x: surgery.FakeQuantize(ranges='current')(x),
    ], ids=['mask', 'where', 'mean', 'random', 'range'])
    @pytest.mark.parametrize('x', [
        numpy.random.RandomState(0).normal(size=(2, 3)).astype('f') - 1,
        numpy.zeros((2, 3), 'f')])
    def test_numbers_of_this_x(self, path, forward, x):
        with pytest.raises(sl.onnx.ExportError, match=(
                'numbers that are drawn at random, or computed from x')):
            sl.onnx.export(Computed(forward), x, path)

    def test_floor_division(self, path):
        model = Computed(lambda self, x: chainer.as_variable(x) // 2)
        with pytest.raises(sl.onnx.ExportError):
            sl.onnx.export(model, normal(2, 3), path)

    def test_input_that_is_not_used(self, path):
        model = Computed(lambda self, x, t: F.relu(x))
        sl.onnx.export(model, (normal(2, 3), normal(2, 3)), path)
        x = normal(4, 3)
        y, = run(path, x_0=x, x_1=x)
        assert (y == numpy.maximum(x, 0)).all()

    def test_condition_that_is_an_input(self, path):
        model = Computed(lambda self, c, x: F.where(c, x, -x))
        c, x = normal(2, 3) > 0, normal(2, 3)
        sl.onnx.export(model, (c, x), path)
        c, x = normal(5, 3) > 0, normal(5, 3)
        assert (run(path, x_0=c, x_1=x)[0] == numpy.where(c, x, -x)).all()

    def test_condition_that_a_function_made(self, path):
        """F.where takes its array, and does not tell of what it is."""
        model = Computed(
            lambda self, x: F.where(F.cast(F.relu(x), bool), x, -2 * x))
        with pytest.raises(sl.onnx.ExportError, match='Where_0 takes numb'):
            sl.onnx.export(model, normal(2, 3), path)


class TestOfTheModel:

    def test_spectral_normalization(self, path):
        """In test mode it takes no vector of the last training."""
        def make():
            return chainer.Sequential(
                L.Linear(50, 40).add_hook(SpectralNormalization()))

        model, x = make(), normal(3, 50)
        model(x)
        y = run_chainer(model, x)
        hook, = model[0]._local_link_hooks.values()
        before = hook.v, model[0].W_u.copy()
        sl.onnx.export(model, x, path)
        assert hook.v is before[0]
        assert (model[0].W_u == before[1]).all()
        numpy.testing.assert_allclose(run(path, x=x)[0], y, atol=1e-5)

        chainer.serializers.save_npz(path.with_suffix('.npz'), model)
        loaded = make()
        chainer.serializers.load_npz(path.with_suffix('.npz'), loaded)
        sl.onnx.export(loaded, x, path)
        numpy.testing.assert_allclose(run(path, x=x)[0], y, atol=1e-5)
        assert not hasattr(
            next(iter(loaded[0]._local_link_hooks.values())), 'v')

    def test_classifier(self, path):
        model = L.Classifier(L.Linear(4, 3))
        x = normal(2, 4)
        with pytest.raises(sl.onnx.ExportError, match=(
                'export the predictor, model.predictor')):
            sl.onnx.export(model, x, path)
        sl.onnx.export(model.predictor, x, path)
        t = numpy.array([1, 2], numpy.int32)
        sl.onnx.export(model, (x, t), path, input_names=['x', 't'])
        loss, = run(path, x=x, t=t)
        assert loss == pytest.approx(float(model(x, t).array), rel=1e-5)

    def test_read_only_array(self, path):
        model = Computed(
            lambda self, x: self.l(x - self.mean), l=L.Linear(4, 3))
        mean = numpy.broadcast_to(numpy.float32(.5), (4,))
        with model.init_scope():
            model.add_persistent('mean', mean)
        sl.onnx.export(model, normal(2, 4), path)
        assert model.mean is mean

    @pytest.mark.parametrize('opset', [7, 9, 11, 13, 17, 21])
    def test_embedding_of_inputs(self, path, opset):
        model = chainer.Sequential(
            L.EmbedID(9, 4), lambda h: F.sum(h, axis=1), L.Linear(4, 2))
        x = numpy.arange(6, dtype=numpy.int32).reshape(2, 3)
        sl.onnx.export(model, x, path, opset_version=opset)
        x = numpy.arange(9, dtype=numpy.int32).reshape(3, 3)
        numpy.testing.assert_allclose(
            run(path, x=x)[0], run_chainer(model, x), atol=1e-5)

    @pytest.mark.filterwarnings('ignore:onnxruntime does not run the file')
    @pytest.mark.parametrize('dtype', ['d', 'e'])
    def test_attributes_are_as_exact_as_the_type(self, path, dtype):
        """Those of ONNX are of float32."""
        norm = L.BatchNormalization(6, eps=1e-3, dtype=dtype)
        norm.avg_mean[...] = normal(6)
        model = Computed(lambda self, x: self.norm(F.elu(F.leaky_relu(
            F.hard_sigmoid(x) - F.clip(x, -.1, .7), .1), .3)), norm=norm)
        x = normal(3, 6, dtype=dtype)
        proto = sl.onnx.export(model, x, path)
        y, = onnx.reference.ReferenceEvaluator(proto).run(None, {'x': x})
        numpy.testing.assert_allclose(
            y, run_chainer(model, x), rtol=0,
            atol={'d': 1e-13, 'e': 1e-2}[dtype])


class TestEightBits:

    @pytest.fixture
    def quantized(self):
        model = Computed(
            lambda self, x: self.c(F.relu(self.b(F.relu(self.a(x))))),
            a=L.Linear(12, 10), b=make_layer(10, 8, n_tiles=2),
            c=L.Linear(8, 3))
        surgery.quantize(model, normal(50, 12))
        return model

    def test_weights_are_stored_as_integers(self, path, quantized):
        proto = sl.onnx.export(quantized, normal(2, 12), path)
        arrays = {a.name: onnx.numpy_helper.to_array(a)
                  for a in proto.graph.initializer}
        stored = [a for a in arrays.values() if a.dtype == numpy.int8
                  and a.ndim == 2]
        assert sorted(a.shape for a in stored) == [(3, 8), (8, 5), (10, 12)]
        assert all(a.ndim < 2 for a in arrays.values()
                   if a.dtype == numpy.float32)
        W = quantized.a.W.array
        scale = abs(W).max(axis=1, keepdims=True) / 127
        q, = (a for a in stored if a.shape == W.shape)
        assert (q == numpy.rint(W / scale)).all()

    def test_pairs_per_channel(self, path, quantized):
        proto = sl.onnx.export(quantized, normal(2, 12), path)
        axes = [
            [a.i for a in node.attribute] for node in proto.graph.node
            if node.op_type == 'DequantizeLinear']
        assert axes.count([0]) == 3
        assert len(axes) == 5
        assert [n.op_type for n in proto.graph.node].count(
            'QuantizeLinear') == 2

    @pytest.mark.parametrize('opset', [11, 13, 17, 21])
    @pytest.mark.parametrize('n_bits', [2, 4, 8, 12])
    @pytest.mark.parametrize('symmetric', [False, True])
    def test_grids(self, path, n_bits, symmetric, opset):
        """Beyond the calibrated range, too, where integers are cut off."""
        model = chainer.Sequential(L.Linear(6, 6), F.relu, L.Linear(6, 2))
        surgery.quantize(model, normal(50, 6), n_bits, symmetric=symmetric)
        sl.onnx.export(model, normal(2, 6), path, opset_version=opset)
        x = 9 * normal(40, 6)
        y, expected = run(path, x=x)[0], run_chainer(model, x)
        assert numpy.isclose(y, expected, rtol=0, atol=1e-4).mean() > .95

    def test_shared_weight_is_stored_once(self, path):
        link = L.Linear(6, 6)
        model = Computed(
            lambda self, x: self.l(F.relu(self.l(F.relu(self.l(x))))), l=link)
        surgery.quantize(model, normal(50, 6))
        proto = sl.onnx.export(model, normal(2, 6), path)
        assert sum(list(a.dims) == [6, 6]
                   for a in proto.graph.initializer) == 1
        x = normal(5, 6)
        numpy.testing.assert_allclose(
            run(path, x=x)[0], run_chainer(model, x), atol=.1)

    def test_onnxruntime_takes_a_kernel_of_integers(self, path, quantized):
        sl.onnx.export(quantized, normal(2, 12), path)
        options = onnxruntime.SessionOptions()
        optimized = path.with_name('optimized.onnx')
        options.optimized_model_filepath = os.fspath(optimized)
        options.log_severity_level = 3
        model = chainer.Sequential(
            L.Linear(12, 10), F.relu, L.Linear(10, 8), F.relu)
        surgery.quantize(model, normal(50, 12))
        sl.onnx.export(model, normal(2, 12), path)
        onnxruntime.InferenceSession(
            path, options, providers=['CPUExecutionProvider'])
        assert 'QGemm' in [
            n.op_type for n in onnx.load(optimized).graph.node]


class TestOfTheFile:

    def test_a_device_stays_one(self, tmp_path):
        path = tmp_path / 'null'
        try:
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
            path.write_bytes(b'')
        except OSError:
            pytest.skip('a device can be made and used by root only')
        sl.onnx.export(make_layer(), normal(2, 12), path)
        assert stat.S_ISCHR(path.stat().st_mode)
        assert os.listdir(tmp_path) == ['null']

    def test_a_pipe_stays_one(self, tmp_path):
        path = tmp_path / 'pipe'
        os.mkfifo(path)
        read = []
        thread = threading.Thread(
            target=lambda: read.append(path.read_bytes()), daemon=True)
        thread.start()
        proto = sl.onnx.export(make_layer(), normal(2, 12), path)
        thread.join(10)
        assert onnx.load_from_string(read[0]) == proto
        assert stat.S_ISFIFO(path.stat().st_mode)

    def test_standard_output(self):
        done = subprocess.run(
            [sys.executable, '-c', 'import numpy, shared_linear as sl\n'
             'sl.onnx.export(sl.SharedLinear(4, 3, n_tiles=2), numpy.ones('
             '(2, 4), numpy.float32), "/dev/stdout")'],
            stdout=subprocess.PIPE, check=True)
        assert onnx.load_from_string(done.stdout).graph.node

    @pytest.mark.parametrize('mode', [0o600, 0o640, 0o666])
    def test_mode_stays(self, path, mode):
        path.touch()
        path.chmod(mode)
        sl.onnx.export(make_layer(), normal(2, 12), path)
        assert stat.S_IMODE(path.stat().st_mode) == mode
        assert onnx.load(path).graph.node

    def test_read_only_file_is_kept(self, path, monkeypatch):
        path.write_bytes(b'old')
        path.chmod(0o400)
        # Root may write to it.
        monkeypatch.setattr(os, 'access', lambda path, mode: False)
        with pytest.raises(PermissionError) as error:
            sl.onnx.export(make_layer(), normal(2, 12), path)
        assert error.value.filename == str(path)
        assert path.read_bytes() == b'old'

    def test_longest_name(self, tmp_path):
        path = tmp_path / ('a' * 255)
        sl.onnx.export(make_layer(), normal(2, 12), path)
        assert array_of(onnx.load(path), 'param_W').size
