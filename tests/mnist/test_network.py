import chainer.links as L
import numpy
import pytest

from mnist.network import MLP
from shared_linear import SharedLinear


def forward(l1, l2, l3, x):
    """The network in float64 NumPy; weights are (W, b), b may be None."""
    def layer(x, W, b):
        return x.astype(float) @ W.T.astype(float) + (0 if b is None else b)
    h = numpy.maximum(layer(x, *l1), 0)
    h = numpy.maximum(layer(h, *l2), 0)
    return layer(h, *l3)


def arrays(link):
    return link.W.array, None if link.b is None else link.b.array


@pytest.mark.parametrize('layer', ['shared', 'linear'])
def test_forward(layer):
    numpy.random.seed(0)
    network = MLP(12, 7, n_tiles=4, layer=layer)
    for param in network.params():
        param.array[...] = numpy.random.randn(*param.shape)
    x = numpy.random.rand(3, 784).astype(numpy.float32)

    W2 = network.l2.W.array
    if layer == 'shared':
        assert W2.shape == (7, 3)
        W2 = numpy.tile(W2, (1, 4))
    expected = forward(
        arrays(network.l1), (W2, None), arrays(network.l3), x)
    numpy.testing.assert_allclose(
        network(x).array, expected, rtol=1e-4, atol=1e-3)


def test_the_layers_of_the_defaults():
    network = MLP(1000, 900)
    assert [link.name for link in network.children()] == ['l1', 'l2', 'l3']
    assert type(network.l2) is SharedLinear
    assert {path: param.shape for path, param in network.namedparams()} == {
        '/l1/W': (1000, 784), '/l1/b': (1000,),
        '/l2/W': (900, 100),
        '/l3/W': (10, 900), '/l3/b': (10,)}


def test_the_dense_layers():
    network = MLP(1000, 900, layer='linear')
    assert type(network.l2) is L.Linear
    assert network.l2.W.shape == (900, 1000)
    assert network.l2.b is None


def test_number_of_classes():
    assert MLP(10, 4, n_out=3)(
        numpy.zeros((2, 784), numpy.float32)).shape == (2, 3)


def test_tiles_that_do_not_divide():
    with pytest.raises(ValueError, match='5 and 8'):
        MLP(1000, 900, n_tiles=7)


def test_layer_of_no_kind():
    with pytest.raises(
            ValueError, match="'shared' or 'linear' or .* not 'conv'"):
        MLP(10, 4, layer='conv')
