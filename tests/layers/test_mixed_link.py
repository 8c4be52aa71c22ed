"""MixedLinear where L.Linear stood: sizes, life, files, errors."""
import copy
import io
import pickle
import re

import cases
import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
import reference
from chainer import initializers, optimizers, serializers, testing
from chainer.utils.type_check import InvalidType
from test_initialization import DRAWN, Halves, name_of
from test_link_life import save_and_load

import shared_linear as sl

LAZY = pytest.mark.parametrize('lazy', [False, True])
FORMATS = pytest.mark.parametrize('kind', ['npz', 'hdf5'])
X = numpy.random.RandomState(1).randn(5, 12).astype('f')
ORDER = numpy.random.RandomState(2).permutation(12)
ORDERS = numpy.stack([ORDER, ORDER[::-1]])
WITH_ORDER = pytest.mark.parametrize(
    'order', [None, ORDER, ORDERS], ids=['random', 'order', 'orders'])


def new_link(lazy=False, **kwargs):
    kwargs = {'n_tiles': 3, 'n_blocks': 2, 'seed': 3, **kwargs}
    return sl.MixedLinear(
        None if lazy else 12, 6, initial_bias=initializers.Normal(1), **kwargs)


def expected(link, x=X):
    mixing = {
        'n_tiles': link.n_tiles, 'n_blocks': link.n_blocks,
        'seed': link.seed, 'order': link.order}
    return reference.mixed_linear(
        x, link.W.array, None if link.b is None else link.b.array, mixing)


def assert_right(link):
    numpy.testing.assert_allclose(
        link(X).array, expected(link), rtol=1e-4, atol=1e-5)


def assert_same(a, b):
    assert repr(a) == repr(b)
    if a.W.array is not None:
        numpy.testing.assert_array_equal(a(X).array, b(X).array)


@testing.parameterize(*testing.product_dict(
    [
        {'x_dtype': 'e', 'W_dtype': 'e'},
        {'x_dtype': 'f', 'W_dtype': 'f'},
        {'x_dtype': 'd', 'W_dtype': 'd'},
        {'x_dtype': 'f', 'W_dtype': 'e'},
    ],
    [
        {'batch_shape': (4,), 'data_shape': (12,), 'contiguous': None},
        {'batch_shape': (2, 3), 'data_shape': (3, 2, 2), 'contiguous': 'C'},
    ],
    [{'n_blocks': 1}, {'n_blocks': 3}],
    [{'nobias': True}, {'nobias': False}],
    [{'lazy': True}, {'lazy': False}],
))
@testing.inject_backend_tests(None, cases.BACKENDS[:2])
class TestMixedLinear(testing.LinkTestCase):

    def setUp(self):
        tolerance = cases.TOLERANCES[min(
            self.x_dtype, self.W_dtype, key='efd'.index)]
        self.check_forward_options = tolerance
        self.check_backward_options = tolerance
        self.param_names = ('W',) if self.nobias else ('W', 'b')

    def generate_params(self):
        W = numpy.random.uniform(-1, 1, (6 // self.n_blocks, 3))
        b = numpy.random.uniform(-1, 1, 6)
        params = initializers.Constant(
            W.astype(self.W_dtype), dtype=self.W_dtype),
        if self.nobias:
            return params
        return params + (initializers.Constant(
            b.astype(self.x_dtype), dtype=self.x_dtype),)

    def create_link(self, initializers):
        return sl.MixedLinear(
            None if self.lazy else 12, 6, self.nobias, *initializers,
            n_tiles=4, n_blocks=self.n_blocks, seed=5)

    def generate_inputs(self):
        return numpy.random.uniform(
            -1, 1, self.batch_shape + self.data_shape).astype(self.x_dtype),

    def forward(self, link, inputs, device):
        return link(*inputs, n_batch_axes=len(self.batch_shape)),

    def forward_expected(self, link, inputs):
        y = reference.mixed_linear(
            *inputs, link.W.array, None if self.nobias else link.b.array,
            {'n_tiles': 4, 'n_blocks': self.n_blocks, 'seed': 5},
            len(self.batch_shape))
        return y.astype(self.x_dtype),


@WITH_ORDER
def test_to_linear_and_from_params(order):
    link = new_link(order=order)
    dense = link.to_linear()
    assert isinstance(dense, L.Linear) and dense.W.shape == (6, 12)
    V = reference.mixed_weight(link.W.array, 3, 2, 3, order)
    numpy.testing.assert_array_equal(dense.W.array, V.astype('f'))
    numpy.testing.assert_array_equal(dense.b.array, link.b.array)
    again = sl.MixedLinear.from_params(
        link.W, link.b, n_tiles=3, n_blocks=2, seed=3, order=order)
    assert_same(link, again)
    assert not numpy.shares_memory(link.W.array, again.W.array)
    assert sl.MixedLinear.from_params(
        link.W, link.b, True, n_tiles=3, n_blocks=2).b is None


def test_n_times_k_fewer_weights():
    link = sl.MixedLinear(784, 1000, n_tiles=8, n_blocks=8)
    assert link.count_params() == 784 * 1000 // 64 + 1000
    assert (link.in_size, link.out_size) == (784, 1000)


def test_the_out_size_alone():
    link = sl.MixedLinear(6, n_tiles=3, n_blocks=2)
    assert link.in_size is None and link.out_size == 6
    link(X)
    assert link.in_size == 12
    assert_right(link)


@pytest.mark.parametrize('initialW', DRAWN + [Halves()], ids=name_of)
@pytest.mark.parametrize('in_size, out_size, n_tiles, n_blocks', [
    (1000, 200, 4, 2), (500, 100, 1, 4), (240, 960, 2, 8), (960, 240, 8, 2)])
def test_deviation_is_that_of_the_dense_layer(
        initialW, in_size, out_size, n_tiles, n_blocks):
    W = sl.MixedLinear(
        in_size, out_size, initialW=initialW, n_tiles=n_tiles,
        n_blocks=n_blocks).W.array
    V = L.Linear(in_size, out_size, initialW=initialW).W.array
    margin = 5 * (1 / (2 * W.size) + 1 / (2 * V.size)) ** .5
    assert W.std() == pytest.approx(V.std(), rel=margin)


def test_output_has_the_variance_of_a_dense_layer():
    x = numpy.random.randn(500, 1000).astype('f')
    y = sl.MixedLinear(1000, 400, n_tiles=20, n_blocks=8)(x).array
    assert y.std() == pytest.approx(1, rel=0.05)


@LAZY
@WITH_ORDER
def test_copies_and_pickles(lazy, order):
    link = new_link(lazy, order=order)
    for other in (
            copy.deepcopy(link), link.copy('copy'),
            pickle.loads(pickle.dumps(link))):
        assert_same(link, other)
        numpy.random.seed(0)
        other(X)
        assert_right(other)


def test_a_pickle_holds_no_permutations():
    link = sl.MixedLinear(10000, 2, n_tiles=1000, n_blocks=2)
    link(numpy.ones((1, 10000), 'f'))
    assert len(pickle.dumps(link)) < 5000


@FORMATS
@LAZY
@WITH_ORDER
def test_save_and_load(kind, lazy, order):
    source = new_link(order=order)
    target = new_link(lazy and order is None, order=(
        None if lazy or order is None else ORDER[::-1]))
    save_and_load(kind, source, target)
    assert target.in_size == 12
    assert_same(source, target)
    assert_right(target)


def test_a_file_holds_the_seed_and_no_permutations(tmp_path):
    serializers.save_npz(tmp_path / 'a.npz', new_link())
    with numpy.load(tmp_path / 'a.npz') as file:
        assert {k: file[k].size for k in file} == {
            'W': 12, 'b': 6, 'n_tiles': 1, 'n_blocks': 1, 'seed': 1}
        assert file['seed'] == 3


@FORMATS
@pytest.mark.parametrize('other, words', [
    ({'seed': 4}, 'seed = 3, but this one has seed = 4'),
    ({'n_tiles': 6}, 'n_tiles = 3, but this one has n_tiles = 6'),
    ({'n_blocks': 3}, 'n_blocks = 2, but this one has n_blocks = 3'),
    ({'order': ORDER}, 'without an order'),
])
def test_a_snapshot_of_another_mixing_is_refused(kind, other, words):
    source, target = new_link(), new_link(**other)
    before = target.W.array.copy(), target.b.array.copy()
    with pytest.raises(ValueError, match=words):
        save_and_load(kind, source, target)
    numpy.testing.assert_array_equal(target.W.array, before[0])
    numpy.testing.assert_array_equal(target.b.array, before[1])


def test_a_snapshot_of_a_dense_layer_is_refused():
    file = io.BytesIO()
    serializers.save_npz(file, L.Linear(12, 6))
    file.seek(0)
    with pytest.raises(KeyError, match='n_tiles'):
        serializers.load_npz(file, new_link())


def test_a_bad_order_in_a_snapshot_is_refused():
    file = io.BytesIO()
    serializers.save_npz(file, new_link(order=ORDER))
    file.seek(0)
    arrays = dict(numpy.load(file))
    arrays['order'] = numpy.zeros(12, 'i')
    file = io.BytesIO()
    numpy.savez(file, **arrays)
    file.seek(0)
    target = new_link()
    before = target.W.array.copy()
    with pytest.raises(ValueError, match='permutation'):
        serializers.load_npz(file, target)
    numpy.testing.assert_array_equal(target.W.array, before)


def test_it_trains_and_resumes():
    def start():
        model = chainer.Sequential(
            sl.MixedLinear(8, n_tiles=3, n_blocks=2), F.relu,
            sl.MixedLinear(2, n_tiles=4, n_blocks=2, seed=1))
        return model, optimizers.Adam(0.01).setup(model)

    def step(model, optimizer):
        optimizer.update(lambda: F.sum((model(X) - 1) ** 2))
        return float(F.sum((model(X) - 1) ** 2).array)

    model, optimizer = start()
    first = step(model, optimizer)
    other, other_optimizer = start()
    save_and_load('npz', model, other)
    save_and_load('npz', optimizer, other_optimizer)
    for _ in range(50):
        assert step(model, optimizer) == step(other, other_optimizer)
    assert step(model, optimizer) < first / 10


def test_printing():
    assert str(new_link(order=ORDER)) == (
        'MixedLinear(in_size=12, out_size=6, nobias=False, n_tiles=3, '
        'n_blocks=2, seed=3, order=int32[12])')


TABLE = {
    'n_tiles does not divide': (
        lambda: sl.MixedLinear(1000, 900, n_tiles=7),
        ValueError, 'in_size.*n_tiles = 7 does not divide 1000.*5 and 8'),
    'n_tiles of the first input': (
        lambda: sl.MixedLinear(6, n_tiles=7)(X),
        ValueError, 'n_tiles = 7 does not divide 12.*6 and 12'),
    'n_blocks does not divide': (
        lambda: sl.MixedLinear(12, 10, n_tiles=2, n_blocks=4),
        ValueError, 'out_size.*n_blocks = 4 does not divide 10.*2 and 5'),
    'no blocks': (
        lambda: new_link(n_blocks=0), ValueError, 'n_blocks.*positive.*0'),
    'half a block': (
        lambda: new_link(n_blocks=.5), TypeError, 'n_blocks.*int.*0.5'),
    'True blocks': (
        lambda: new_link(n_blocks=True), TypeError, 'n_blocks.*True'),
    'no tiles': (lambda: new_link(n_tiles=0), ValueError, 'n_tiles.*0'),
    'seed of no int': (
        lambda: new_link(seed=.5), TypeError, r'seed.*int.*0\.5'),
    'no seed': (lambda: new_link(seed=None), TypeError, 'seed.*None'),
    'True as seed': (lambda: new_link(seed=True), TypeError, 'seed.*True'),
    'negative seed': (lambda: new_link(seed=-1), ValueError, 'seed.*-1'),
    'seed too large': (
        lambda: new_link(seed=2 ** 32), ValueError, 'seed.*4294967296'),
    'order': (
        lambda: new_link(order=[0] * 12), ValueError, 'permutation'),
    'order of another size': (
        lambda: new_link(order=ORDER[ORDER < 9]), ValueError, '12.*9'),
    'order of another size in the function': (
        lambda: sl.mixed_linear(
            X, numpy.ones((2, 4), 'f'), n_tiles=3, order=[1, 0]),
        InvalidType, r'order.shape = \(2,\)'),
    'more orders than blocks': (
        lambda: new_link(order=[ORDER] * 3),
        ValueError, 'order has 3 permutations, but there are 2 blocks'),
    'no orders': (
        lambda: new_link(order=numpy.zeros((0, 12), 'i')),
        ValueError, 'order has 0 permutations'),
    'a bad one of two orders': (
        lambda: new_link(order=[ORDER, [0] * 12]), ValueError, 'permutation'),
    'orders of three axes': (
        lambda: new_link(order=ORDERS[None]), ValueError, 'one axis'),
    'width': (
        lambda: new_link()(X[:, :8]),
        InvalidType, r'\(5, 8\).*\(3, 4\).*n_tiles = 3'),
    'bias': (
        lambda: sl.mixed_linear(
            X, numpy.ones((2, 4), 'f'), numpy.ones(5, 'f'), n_tiles=3,
            n_blocks=2),
        InvalidType, r'b.shape = \(5,\).*\(2, 4\).*n_blocks = 2'),
    'integer x': (lambda: new_link()(X.astype('i')), InvalidType, 'int32'),
    'complex x': (
        lambda: new_link()(X.astype('F')), InvalidType, 'complex64'),
    'n_batch_axes': (
        lambda: new_link()(X, n_batch_axes=0), ValueError, 'n_batch_axes.*0'),
    'sizes of the parameters': (
        lambda: sl.MixedLinear.from_params(
            numpy.ones((2, 4)), numpy.ones(6), n_tiles=3, n_blocks=2),
        ValueError, r'\(2, 4\), n_blocks = 2, b.shape = \(6,\)'),
    'to_linear of nothing': (
        lambda: new_link(lazy=True).to_linear(), ValueError, 'no weight yet'),
}


@pytest.mark.parametrize('what', TABLE)
def test_errors(what):
    call, error, words = TABLE[what]
    with pytest.raises(error) as info:
        call()
    assert re.search(words, str(info.value), re.DOTALL), str(info.value)


def test_it_follows_chainers_dtype():
    for dtype in ('e', 'f', 'd'):
        with chainer.using_config('dtype', numpy.dtype(dtype)):
            link = new_link()
        assert link.W.dtype == link.b.dtype == numpy.dtype(dtype)
