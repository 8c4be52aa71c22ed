"""Networks of Chainer's own, and of well-known kinds, take edits.

A layer after every activation that is the identity changes no bit, at two
batch sizes, in train and in test mode.
"""
import functools
from unittest import mock

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from networks import MLP, Recurrent, Same, UNet, randomize, vectors

from shared_linear import surgery

ACTIVATIONS = ['ReLU*', 'Tanh*', 'LSTM*']


def narrow_linear(n_in, n_out, **options):
    n_in = 512 if n_in == 512 * 7 * 7 else 64
    return L.Linear(n_in, min(n_out, 64), **options)


def vgg():
    # With narrow fc layers for an image of 32 x 32: drawing their 124
    # million weights would take longer than all other tests.
    with mock.patch('chainer.links.model.vision.vgg.Linear', narrow_linear):
        return L.VGG16Layers(pretrained_model=None)


def image(size, n):
    rng = np.random.RandomState(n)
    return rng.randn(n, 3, size, size).astype(np.float32)


def sequence(n):
    return np.stack([vectors(n, seed=seed) for seed in range(4)])


def digits(n):
    return np.random.RandomState(n).rand(n, 1, 16, 16).astype(np.float32)


NETWORKS = {
    # name: model, its input, number of activations in it
    'VGG16Layers': (vgg, functools.partial(image, 32), 15),
    'ResNet50Layers': (
        lambda: L.ResNet50Layers(pretrained_model=None),
        functools.partial(image, 64), 49),
    'GoogLeNet': (
        lambda: L.GoogLeNet(pretrained_model=None),
        functools.partial(image, 224), 30),
    'LSTM': (Recurrent, sequence, 5),
    'UNet': (lambda: randomize(UNet()), digits, 5),
    'MLP': (MLP, vectors, 2),
}


def flat(result):
    if isinstance(result, dict):
        return [result[key].array for key in sorted(result)]
    return [result.array]


def run(model, x, train):
    np.random.seed(1)
    with chainer.using_config('train', train), chainer.no_backprop_mode():
        return flat(model(x))


@pytest.mark.parametrize('name', NETWORKS)
def test_identities_after_every_activation_change_no_bit(name):
    make, data, n_activations = NETWORKS[name]
    np.random.seed(0)
    plain = make()
    edited = plain.copy('copy')
    graph = surgery.trace(edited, data(1))
    found = [node for pattern in ACTIVATIONS for node in graph.find(pattern)
             if not node.is_call]
    assert len(found) == n_activations
    before = {path: p.array.copy() for path, p in plain.namedparams()}
    for pattern in ACTIVATIONS:
        if graph.find(pattern) and pattern != 'LSTM*':
            surgery.insert_after(
                edited, pattern, lambda node: Same(), each=True,
                name='same')
        elif graph.find(pattern):
            surgery.insert_after(
                edited, '/lstm/LSTM*', lambda node: Same(), each=True,
                name='same', output=1)
    inserted = {node.address for node in surgery.trace(edited, data(1))
                if node.inserted}
    assert len(inserted) == n_activations
    for n in 1, 2:
        for train in False, True:
            for got, expected in zip(
                    run(edited, data(n), train), run(plain, data(n), train),
                    strict=True):
                assert np.isfinite(expected).all()
                np.testing.assert_array_equal(got, expected)
    # In train mode both moved their statistics alike.
    links = dict(edited.namedlinks())
    for path, link in plain.namedlinks():
        if isinstance(link, L.BatchNormalization):
            np.testing.assert_array_equal(
                links[path].avg_mean, link.avg_mean)
    after = dict(edited.namedparams())
    assert set(after) == set(before)
    for path, array in before.items():
        np.testing.assert_array_equal(after[path].array, array)


@pytest.mark.parametrize('name', ['LSTM', 'UNet', 'MLP'])
def test_gradients_are_the_same_too(name):
    make, data, _ = NETWORKS[name]
    plain = randomize(make())
    edited = plain.copy('copy')
    surgery.insert_after(
        edited, ['/ReLU*', '/Tanh*'], F.identity, x=data(2))
    for model in plain, edited:
        model.cleargrads()
        np.random.seed(2)
        y = model(data(3))
        F.sum(y * y).backward()
    ours = dict(edited.namedparams())
    for path, param in plain.namedparams():
        assert np.any(param.grad != 0), path
        np.testing.assert_array_equal(ours[path].grad, param.grad)


def test_a_quantizer_after_every_relu_of_resnet50():
    model = L.ResNet50Layers(pretrained_model=None)
    graph = surgery.trace(model, image(64, 1))
    relus = [node.address for node in graph.find('ReLU*')]
    surgery.insert_after(
        model, 'ReLU*', lambda node: surgery.FakeQuantize(8), each=True,
        name='act')
    quantizers = [link for link in model.links()
                  if isinstance(link, surgery.FakeQuantize)]
    assert len(quantizers) == len(relus) == 49
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        model(image(64, 2))
    assert [link.n_observed for link in quantizers] == [1] * 49
