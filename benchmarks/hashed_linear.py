"""HashedNets' layer: a dense weight that is looked up in fewer numbers.

Chen et al., Compressing Neural Networks with the Hashing Trick, ICML 2015:

    y = x V^T + b,    V_ij = w[h(i, j)] xi(i, j),

with a hash h into the K weights w, and a hash xi into {-1, 1}. It is here to
compare with: K is any number, and V is rebuilt at each step, so that it takes
the time of a dense layer and more.
"""
from __future__ import annotations

import chainer
import chainer.functions as F
import numpy
from chainer import backend, function_node, initializers, variable
from chainer.utils import type_check

GOLDEN = 0x9e3779b97f4a7c15
MASK = 2 ** 64 - 1


def splitmix64(keys):
    """A bijection of the 64-bit numbers that leaves no pattern in them.

    It is the output function of Steele, Lea and Flood, Fast splittable
    pseudorandom number generators, 2014.

    Args:
        keys (numpy.ndarray): uint64 of any shape.

    Returns:
        numpy.ndarray: uint64 of the same shape.

    """
    z = keys + numpy.uint64(GOLDEN)
    z = (z ^ (z >> numpy.uint64(30))) * numpy.uint64(0xbf58476d1ce4e5b9)
    z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(0x94d049bb133111eb)
    return z ^ (z >> numpy.uint64(31))


def hash_places(out_size, in_size, n_weights, seed):
    """h and xi of all (i, j) in one: h, plus K where xi is -1.

    The lowest bit of the hash of (seed, i, j) gives the sign, and the others
    modulo K the place.

    Returns:
        numpy.ndarray: Integers from 0 to 2 * n_weights - 1, of shape
        (out_size, in_size).

    """
    start, = splitmix64(numpy.array([seed & MASK], numpy.uint64))
    pairs = numpy.arange(out_size * in_size, dtype=numpy.uint64)
    hashes = splitmix64(start ^ pairs)
    places = (hashes >> numpy.uint64(1)) % numpy.uint64(n_weights)
    places += (hashes & numpy.uint64(1)) * numpy.uint64(n_weights)
    return places.astype(numpy.intp).reshape(out_size, in_size)


class LookUp(function_node.FunctionNode):

    """V = (w, -w)[places]; the transpose of :class:`Collect`."""

    def __init__(self, places):
        self.places = places

    def check_type_forward(self, in_types):
        type_check._argname(in_types, ('w',))
        type_check.expect(
            in_types[0].dtype.kind == 'f',
            in_types[0].ndim == 1,
        )

    def forward(self, inputs):
        w, = inputs
        self.n_weights = w.size
        xp = backend.get_array_module(w)
        return xp.concatenate([w, -w]).take(self.places),

    def backward(self, indexes, grad_outputs):
        return Collect(self.places, self.n_weights).apply(grad_outputs)


class Collect(function_node.FunctionNode):

    """gw_k = the sum of xi(i, j) gV_ij over the (i, j) with h(i, j) = k."""

    def __init__(self, places, n_weights):
        self.places = places
        self.n_weights = n_weights

    def forward(self, inputs):
        gV, = inputs
        xp = backend.get_array_module(gV)
        # On the CPU they are added in float64.
        sums = xp.bincount(
            self.places.ravel(), gV.ravel(), 2 * self.n_weights)
        gw = sums[:self.n_weights] - sums[self.n_weights:]
        return gw.astype(gV.dtype, copy=False),

    def backward(self, indexes, grad_outputs):
        return LookUp(self.places).apply(grad_outputs)


class HashedLinear(chainer.Link):

    """Linear layer whose weight is hashed into ``n_weights`` numbers.

    Args:
        in_size (int): Dimension of input vectors.
        out_size (int): Dimension of output vectors.
        n_weights (int): Number K of weights.
        nobias (bool): If ``True``, the link has no bias vector.
        initialW (:ref:`initializer <initializer>`): Initializer of ``w``. By
            default its standard deviation is
            :math:`\\sqrt{1/\\text{in_size}}`, that of a dense layer.
        seed (int): Seed of the hashes.

    Attributes:
        w (~chainer.Parameter): Weights of shape ``(n_weights,)``.
        b (~chainer.Parameter): Bias of shape ``(out_size,)``, or ``None``.
        places (:ref:`ndarray`): See :func:`hash_places`.

    """

    def __init__(
            self, in_size, out_size, n_weights, nobias=False, initialW=None,
            *, seed=0):
        super().__init__()
        self.in_size = in_size
        self.out_size = out_size
        if initialW is None:
            initialW = initializers.Normal(in_size ** -.5)
        with self.init_scope():
            self.w = variable.Parameter(
                initializers._get_initializer(initialW), n_weights)
            self.b = None if nobias else variable.Parameter(0, out_size)
        self.places = hash_places(out_size, in_size, n_weights, seed)
        self.register_persistent('places')

    def forward(self, x):
        V, = LookUp(self.places).apply((self.w,))
        return F.linear(x, V, self.b)
