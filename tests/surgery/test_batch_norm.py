"""Folded networks against the same arithmetic in float64."""
import copy
import pickle

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from networks import CNN, images, randomize, vectors

import shared_linear
from shared_linear import surgery

# Two float32 computations of the same thing.
RELATIVE = 1e-4


def bn(size, seed=1, **options):
    link = L.BatchNormalization(size, **options)
    rng = np.random.RandomState(seed)
    if link.gamma is not None:
        link.gamma.array[...] = rng.uniform(.5, 2, size)
    if link.beta is not None:
        link.beta.array[...] = rng.randn(size)
    link.avg_mean[...] = rng.randn(size)
    link.avg_var[...] = rng.uniform(.5, 2, size)
    return link


def normalized(y, link):
    """Batch normalization in test mode, written by hand in float64."""
    shape = (1, -1) + (1,) * (y.ndim - 2)
    y, mean, var = (a.astype(np.float64) for a in (
        y, link.avg_mean.reshape(shape), link.avg_var.reshape(shape)))
    y = (y - mean) / np.sqrt(var + link.eps)
    if link.gamma is not None:
        y = y * link.gamma.array.reshape(shape)
    if link.beta is not None:
        y = y + link.beta.array.reshape(shape)
    return y


def in_float64(link, x):
    link = copy.deepcopy(link)
    for param in link.params():
        param.array = param.array.astype(np.float64)
    with chainer.no_backprop_mode(), chainer.using_config('train', False):
        return link(x.astype(np.float64)).array


def evaluate(model, x):
    with chainer.no_backprop_mode(), chainer.using_config('train', False):
        return model(x).array


def assert_close(actual, expected):
    error = abs(actual - expected).max() / abs(expected).max()
    assert error <= RELATIVE, error


def volumes(n=2, channels=4, size=6, ndim=2, seed=0):
    rng = np.random.RandomState(seed)
    return rng.randn(n, channels, *(size,) * ndim).astype(np.float32)


FORWARDS = {
    'linear': (lambda nobias: L.Linear(6, 5, nobias=nobias), 5, vectors()),
    'linear on an image': (
        lambda nobias: L.Linear(144, 5, nobias=nobias), 5, volumes()),
    'convolution': (lambda nobias: L.Convolution2D(
        4, 6, 3, stride=2, pad=1, nobias=nobias), 6, volumes()),
    'grouped convolution': (lambda nobias: L.Convolution2D(
        4, 6, 3, pad=1, groups=2, nobias=nobias), 6, volumes()),
    'dilated convolution': (lambda nobias: L.DilatedConvolution2D(
        4, 6, 3, dilate=2, nobias=nobias), 6, volumes()),
    'convolution in 1 dimension': (lambda nobias: L.Convolution1D(
        4, 6, 3, nobias=nobias), 6, volumes(ndim=1)),
    'convolution in 3 dimensions': (lambda nobias: L.Convolution3D(
        4, 6, 3, nobias=nobias), 6, volumes(ndim=3)),
    'depthwise convolution': (lambda nobias: L.DepthwiseConvolution2D(
        4, 3, 3, pad=1, nobias=nobias), 12, volumes()),
    'deconvolution': (lambda nobias: L.Deconvolution2D(
        4, 6, 4, stride=2, pad=1, nobias=nobias), 6, volumes()),
    'grouped deconvolution': (lambda nobias: L.Deconvolution2D(
        4, 6, 4, stride=2, pad=1, groups=2, nobias=nobias), 6, volumes()),
    'deconvolution in 3 dimensions': (lambda nobias: L.Deconvolution3D(
        4, 6, 3, nobias=nobias), 6, volumes(ndim=3)),
}


@pytest.mark.parametrize('nobias', [False, True])
@pytest.mark.parametrize('name', FORWARDS)
def test_behind_a_layer(name, nobias):
    make, n_outputs, x = FORWARDS[name]
    np.random.seed(0)
    layer = make(nobias)
    if not nobias:
        layer.b.array[...] = np.random.randn(*layer.b.shape)
    model = chainer.Sequential(layer, bn(n_outputs))
    expected = normalized(in_float64(layer, x), model[1])
    assert_close(evaluate(model, x), expected)
    report = surgery.fold_batch_normalization(model, x)
    assert [(one.path, one.into) for one in report] == [('/1', '/0')]
    assert str(report) == '/1 folded into /0'
    assert_close(evaluate(model, x), expected)
    assert layer.b is not None
    # Nothing normalizes any more, in neither mode.
    for train in False, True:
        with chainer.using_config('train', train):
            graph = surgery.trace(model, x)
            assert graph.find(link=L.BatchNormalization) == []
            np.testing.assert_array_equal(
                model(x).array, evaluate(model, x))


@pytest.mark.parametrize('options', [
    {'use_gamma': False}, {'use_beta': False},
    {'use_gamma': False, 'use_beta': False}, {'eps': .1},
    {'axis': (0, 2, 3)}])
def test_kinds_of_normalization(options):
    model = chainer.Sequential(
        L.Convolution2D(4, 6, 3, nobias=True), bn(6, **options))
    x = volumes()
    expected = normalized(in_float64(model[0], x), model[1])
    assert len(surgery.fold_batch_normalization(model, x).folded) == 1
    assert_close(evaluate(model, x), expected)
    surgery.revert(model)
    assert_close(evaluate(model, x), expected)


BACKWARDS = {
    'linear': (lambda: L.Linear(6, 5), 6, vectors()),
    'linear on an image': (lambda: L.Linear(144, 5), 4, volumes()),
    'convolution': (lambda: L.Convolution2D(4, 6, 3, stride=2), 4,
                    volumes()),
    'convolution without bias': (
        lambda: L.Convolution2D(4, 6, 3, nobias=True), 4, volumes()),
    'grouped convolution': (
        lambda: L.Convolution2D(4, 6, 3, groups=2), 4, volumes()),
    'dilated convolution': (
        lambda: L.DilatedConvolution2D(4, 6, 3, dilate=2), 4, volumes()),
    'convolution in 1 dimension': (
        lambda: L.Convolution1D(4, 6, 3), 4, volumes(ndim=1)),
    'depthwise convolution': (
        lambda: L.DepthwiseConvolution2D(4, 3, 3), 4, volumes()),
}


@pytest.mark.parametrize('name', BACKWARDS)
def test_in_front_of_a_layer(name):
    make, n_inputs, x = BACKWARDS[name]
    np.random.seed(0)
    layer = make()
    model = chainer.Sequential(bn(n_inputs), layer)
    expected = in_float64(layer, normalized(x, model[0]))
    assert_close(evaluate(model, x), expected)
    report = surgery.fold_batch_normalization(model, x)
    assert [(one.path, one.into) for one in report] == [('/0', '/1')]
    assert_close(evaluate(model, x), expected)
    assert [n.function for n in surgery.trace(model, x)].count(
        'FixedBatchNormalization') == 0


def test_without_a_shift_padding_is_no_obstacle():
    layer = L.Convolution2D(4, 6, 3, pad=1)
    normalization = bn(4, use_beta=False)
    normalization.avg_mean[...] = 0
    model = chainer.Sequential(normalization, layer)
    x = volumes()
    expected = in_float64(layer, normalized(x, normalization))
    report = surgery.fold_batch_normalization(model, x)
    assert report[0].into == '/1'
    assert_close(evaluate(model, x), expected)


@pytest.mark.parametrize('make', [
    lambda: L.Convolution2D(4, 6, 3, pad=1),
    lambda: L.DepthwiseConvolution2D(4, 2, 3, pad=1)])
def test_padding_does_not_get_the_shift(make):
    model = chainer.Sequential(bn(4), make())
    x = volumes()
    before = evaluate(model, x)
    report = surgery.fold_batch_normalization(model, x)
    assert report.folded == []
    assert 'pads with zeros' in report[0].reason
    np.testing.assert_array_equal(evaluate(model, x), before)


def test_a_deconvolution_does_not_get_the_shift():
    model = chainer.Sequential(bn(4), L.Deconvolution2D(4, 6, 3))
    report = surgery.fold_batch_normalization(model, volumes())
    assert 'the shift is no bias' in report[0].reason


class Between(chainer.Chain):

    """Something more reads what is between the convolution and the BN."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        with self.init_scope():
            self.conv = L.Convolution2D(4, 4, 1)
            self.bn = bn(4)
            self.conv2 = L.Convolution2D(4, 4, 1)

    def forward(self, x):
        h = self.conv(x)
        y = self.bn(h)
        if self.how == 'function':
            return F.relu(y) + h
        if self.how == 'link':
            return F.relu(y) + self.conv2(h)
        if self.how == 'output':
            return y, h
        if self.how == 'array':
            return F.relu(y) + F.sigmoid(h.array)
        if self.how == 'train' and chainer.config.train:
            return F.relu(y) + h
        if self.how == 'twice':
            return F.relu(y) + self.conv(F.tanh(x))
        if self.how == 'bn twice':
            return F.relu(y) + self.bn(F.tanh(x))
        if self.how == 'weight':
            return F.relu(y) + F.sum(self.conv.W)
        return y


@pytest.mark.parametrize('how, reason', [
    ('function', '/Add reads the value between, too'),
    ('link', '/conv2/Convolution2DFunction reads the value between, too'),
    ('output', 'the model returns the value between, too'),
    ('array', '/Sigmoid reads the value between, too'),
    ('train', '/Add reads the value between, too'),
    ('twice', '/conv runs 2 times'),
    ('bn twice', 'it runs 2 times'),
    ('weight', 'the weight of /conv is read by /Sum, too'),
])
def test_left_alone_where_it_would_change_the_model(how, reason):
    model = Between(how)
    x = volumes()
    arrays = {path: p.array.copy() for path, p in model.namedparams()}
    report = surgery.fold_batch_normalization(model, x)
    assert [(one.path, one.into) for one in report] == [('/bn', None)]
    assert reason in report[0].reason
    assert str(report).startswith('/bn left alone: ')
    assert report.left_alone == report
    for path, param in model.namedparams():
        np.testing.assert_array_equal(param.array, arrays[path])
    assert surgery.edits(model) == []
    assert type(model) is Between
    # The same model without the second reader is folded.
    assert len(surgery.fold_batch_normalization(
        Between(''), x).folded) == 1


@pytest.mark.parametrize('how, reason', [
    ('function', '/Tanh reads the value between, too'),
    ('output', 'the model returns the value between, too'),
])
def test_in_front_left_alone_with_a_second_reader(how, reason):
    class InFront(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.bn = bn(4)
                self.conv = L.Convolution2D(4, 4, 1)

        def forward(self, x):
            h = self.bn(x)
            y = self.conv(h)
            return (y, h) if how == 'output' else y + F.tanh(h)

    model = InFront()
    W = model.conv.W.array.copy()
    report = surgery.fold_batch_normalization(model, volumes())
    assert reason in report[0].reason
    np.testing.assert_array_equal(model.conv.W.array, W)


def test_left_alone_where_there_is_no_layer():
    model = chainer.Sequential(F.relu, bn(4), F.relu)
    report = surgery.fold_batch_normalization(model, volumes())
    assert report[0].reason == (
        'it reads /ReLU, not a linear layer; no linear layer reads its '
        'output')


def test_left_alone_where_it_does_not_run():
    class Unused(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.bn = bn(4)

        def forward(self, x):
            return F.relu(x)

    report = surgery.fold_batch_normalization(Unused(), volumes())
    assert report[0].reason == 'it does not run on this input'


def test_left_alone_where_every_pixel_has_its_own():
    model = chainer.Sequential(
        L.Convolution2D(4, 6, 3), L.BatchNormalization((6, 4, 4)))
    report = surgery.fold_batch_normalization(model, volumes())
    assert 'each of (6, 4, 4) values' in report[0].reason
    model = chainer.Sequential(
        L.Linear(6, 4), L.BatchNormalization(axis=1))
    model(vectors())
    report = surgery.fold_batch_normalization(model, vectors())
    assert 'along axis=(1,), not by channel' in report[0].reason


def test_left_alone_before_its_first_run():
    model = chainer.Sequential(
        L.Linear(6, 4), L.BatchNormalization(axis=0))
    report = surgery.fold_batch_normalization(model, vectors())
    assert 'it has no statistics yet' in report[0].reason
    model = chainer.Sequential(L.Linear(None, 4), bn(4))
    report = surgery.fold_batch_normalization(model, vectors())
    assert '/0 is not initialized yet' in report[0].reason
    assert model[0].W.array is None


@pytest.mark.parametrize('nobias', [False, True])
def test_a_whole_network(nobias):
    model = randomize(CNN(nobias))
    plain = copy.deepcopy(model)
    x = images(4)
    before = evaluate(model, x)
    report = surgery.fold_batch_normalization(model, x)
    assert [(one.path, one.into) for one in report] == [
        ('/bn1', '/conv1'), ('/bn2', '/conv2')]
    for n in 1, 3:
        assert_close(evaluate(model, images(n)), evaluate(plain, images(n)))
    assert_close(evaluate(model, x), before)
    assert [str(one) for one in surgery.edits(model)] == [
        'fold /bn1 into /conv1', 'fold /bn2 into /conv2']
    new = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(evaluate(new, x), evaluate(model, x))


@pytest.mark.parametrize('nobias', [False, True])
def test_a_file_of_the_folded_model_means_the_same(tmp_path, nobias):
    model = randomize(CNN(nobias))
    x = images(4)
    before = evaluate(model, x)
    surgery.fold_batch_normalization(model, x)
    chainer.serializers.save_npz(tmp_path / 'folded.npz', model)
    unfolded = CNN(nobias)
    chainer.serializers.load_npz(tmp_path / 'folded.npz', unfolded)
    assert_close(evaluate(unfolded, x), before)


@pytest.mark.parametrize('nobias', [False, True])
def test_reverting_brings_the_identity_back(nobias):
    model = randomize(CNN(nobias))
    names = sorted(path for path, _ in model.namedparams())
    x = images(4)
    surgery.fold_batch_normalization(model, x)
    if nobias:
        # A bias that was trained on goes into the normalization.
        model.conv1.b.array += 1
    before = evaluate(model, x)
    surgery.revert(model)
    assert type(model) is CNN
    assert sorted(path for path, _ in model.namedparams()) == names
    assert (model.conv1.b is None) is nobias
    assert_close(evaluate(model, x), before)


def test_in_a_chain_of_layers_each_finds_its_own():
    class Line(chainer.ChainList):
        def forward(self, x):
            for link in self:
                x = link(x)
            return x

    model = Line(
        bn(4, 1), L.Convolution2D(4, 6, 1), bn(6, 2), bn(6, 3),
        L.Convolution2D(6, 4, 1), bn(4, 4))
    x = volumes()
    y = normalized(x, model[0])
    y = normalized(in_float64(model[1], y), model[2])
    y = in_float64(model[4], normalized(y, model[3]))
    expected = normalized(y, model[5])
    report = surgery.fold_batch_normalization(model, x)
    assert {one.into for one in report} <= {'/1', '/4'}
    assert len(report.folded) == 4
    assert_close(evaluate(model, x), expected)


def test_a_classifier_around_it():
    model = L.Classifier(randomize(CNN()))
    x = images(4)
    before = evaluate(model.predictor, x)
    report = surgery.fold_batch_normalization(
        model, (x, np.zeros(4, np.int32)))
    assert [one.into for one in report] == [
        '/predictor/conv1', '/predictor/conv2']
    assert_close(evaluate(model.predictor, x), before)


def test_resnet50():
    np.random.seed(0)
    model = L.ResNet50Layers(pretrained_model=None)
    for i, (_, link) in enumerate(sorted(model.namedlinks())):
        if isinstance(link, L.BatchNormalization):
            rng = np.random.RandomState(i)
            size = link.avg_mean.size
            link.avg_mean[...] = rng.randn(size) * .1
            link.avg_var[...] = rng.uniform(.5, 2, size)
            link.beta.array[...] = rng.randn(size) * .1
    x = np.random.randn(2, 3, 64, 64).astype(np.float32)
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        before = model(x, layers=['res5'])['res5'].array
        report = surgery.fold_batch_normalization(model, x)
        after = model(x, layers=['res5'])['res5'].array
    assert len(report.folded) == 53
    assert report.left_alone == []
    assert_close(after, before)


def test_a_class_that_folds_wrongly_is_noticed():
    class Doubled(L.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model = chainer.Sequential(Doubled(6, 5), bn(5))
    x = vectors()
    before = evaluate(model, x)
    report = surgery.fold_batch_normalization(model, x)
    assert report.folded == []
    assert 'with it, /0 moves by' in report[0].reason
    np.testing.assert_array_equal(evaluate(model, x), before)
    bare = chainer.Sequential(Doubled(6, 5, nobias=True), bn(5))
    assert surgery.fold_batch_normalization(bare, x).folded == []
    assert bare[0].b is None
    assert [path for path, _ in bare.namedparams()] == [
        '/0/W', '/1/beta', '/1/gamma']


class TiledLinear(chainer.Link):

    """Tiles of the input share a weight, as SharedLinear's do."""

    def __init__(self, in_size, out_size, n_tiles, order=None):
        super().__init__()
        self.n_tiles = n_tiles
        self.order = order
        rng = np.random.RandomState(0)
        with self.init_scope():
            self.W = chainer.Parameter(rng.randn(
                out_size, in_size // n_tiles).astype(np.float32))
            self.b = chainer.Parameter(rng.randn(out_size).astype('f'))

    def forward(self, x):
        x = chainer.as_variable(x)
        if self.order is not None:
            x = x[:, self.order]
        tiles = F.split_axis(x, self.n_tiles, axis=1)
        return F.linear(sum(tiles[1:], tiles[0]), self.W, self.b)


@pytest.mark.parametrize('order', [None, np.array([3, 1, 5, 0, 4, 2])])
class TestTiles:

    def test_behind(self, order):
        model = chainer.Sequential(TiledLinear(6, 5, 2, order), bn(5))
        x = vectors()
        expected = normalized(in_float64(model[0], x), model[1])
        report = surgery.fold_batch_normalization(model, x)
        assert report[0].into == '/0'
        assert_close(evaluate(model, x), expected)

    def test_in_front_with_the_same_scale_in_every_tile(self, order):
        normalization = bn(6)
        read = np.arange(6) if order is None else order
        for array in normalization.gamma.array, normalization.avg_var:
            # The shift differs, the scale does not.
            array[read[3:]] = array[read[:3]]
        model = chainer.Sequential(
            normalization, TiledLinear(6, 5, 2, order))
        x = vectors()
        expected = in_float64(model[1], normalized(x, normalization))
        report = surgery.fold_batch_normalization(model, x)
        assert report[0].into == '/1'
        assert_close(evaluate(model, x), expected)

    def test_in_front_with_other_scales(self, order):
        model = chainer.Sequential(bn(6), TiledLinear(6, 5, 2, order))
        report = surgery.fold_batch_normalization(model, vectors())
        assert 'differs between inputs that share a weight' in (
            report[0].reason)


def test_shared_linear():
    link = shared_linear.SharedLinear(6, 5, n_tiles=2)
    model = chainer.Sequential(link, bn(5))
    x = vectors()
    W = np.tile(link.W.array, (1, 2)).astype(np.float64)
    expected = normalized(x @ W.T + link.b.array, model[1])
    report = surgery.fold_batch_normalization(model, x)
    assert report[0].into == '/0'
    assert_close(evaluate(model, x), expected)


def test_in_front_of_shared_linear():
    normalization = bn(6)
    for array in normalization.gamma.array, normalization.avg_var:
        array[3:] = array[:3]
    link = shared_linear.SharedLinear(6, 5, n_tiles=2, nobias=True)
    model = chainer.Sequential(normalization, link)
    x = vectors()
    W = np.tile(link.W.array, (1, 2)).astype(np.float64)
    expected = normalized(x, normalization) @ W.T
    report = surgery.fold_batch_normalization(model, x)
    assert report[0].into == '/1'
    assert_close(evaluate(model, x), expected)


def test_a_class_of_ones_own():
    class Own(chainer.Link):
        def __init__(self):
            super().__init__()
            self.b = None
            with self.init_scope():
                self.W = chainer.Parameter(
                    np.random.randn(5, 6).astype(np.float32))

        def forward(self, x):
            return F.linear(x, self.W, self.b)

    model = chainer.Sequential(Own(), bn(5))
    x = vectors()
    expected = normalized(in_float64(model[0], x), model[1])
    report = surgery.fold_batch_normalization(model, x)
    assert report.folded == []
    surgery.register_foldable(Own)
    report = surgery.fold_batch_normalization(model, x)
    assert report[0].into == '/0'
    assert_close(evaluate(model, x), expected)
