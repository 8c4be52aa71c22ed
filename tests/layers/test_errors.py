"""Each bad call, and the words in the answer that help."""
import re

import chainer.links as L
import kinds
import numpy
import pytest
from chainer.utils.type_check import InvalidType

import shared_linear as sl

X = numpy.ones((4, 12), 'f')
W = numpy.ones((5, 4), 'f')
B = numpy.ones(5, 'f')


# What they did, the error's type, and the words in its message.
TABLE = {
    # a width not divisible by n_tiles: both numbers, what would divide
    'width of what is folded': (
        lambda: sl.fold(X, 5),
        InvalidType, ['(4, 12)', 'n_tiles', '5', '4 and 6']),

    # x's width does not match: x and W with both shapes
    'width of x': (
        lambda: sl.shared_linear(X[:, :10], W),
        InvalidType, ['x.shape', '(4, 10)', 'W.shape', '(5, 4)']),
    'x narrower than W': (
        lambda: sl.shared_linear(X[:, :2], W),
        InvalidType, ['x.shape', '(4, 2)', 'W.shape', '(5, 4)']),
    'x of no columns': (
        lambda: sl.shared_linear(X[:, :0], W),
        InvalidType, ['x.shape', '(4, 0)', 'W.shape', '(5, 4)']),
    'W of no columns': (
        lambda: sl.shared_linear(X, W[:, :0]),
        InvalidType, ['x.shape', '(4, 12)', 'W.shape', '(5, 0)']),
    'n_tiles that does not fit': (
        lambda: sl.shared_linear(X, W, n_tiles=2),
        InvalidType, ['x.shape', '(4, 12)', 'W.shape', '(5, 4)', 'n_tiles']),
    'x of one axis': (
        lambda: sl.shared_linear(X[0], W), InvalidType, ['x.ndim', '1', '2']),
    'W of one axis': (
        lambda: sl.shared_linear(X, W[0]), InvalidType, ['W.ndim', '1', '2']),
    'b of another size': (
        lambda: sl.shared_linear(X, W, B[:3]),
        InvalidType, ['b.shape', 'W.shape', '3', '5']),
    'b of two axes': (
        lambda: sl.shared_linear(X, W, B[None]), InvalidType, ['b.ndim']),
    'b of another dtype': (
        lambda: sl.shared_linear(X, W, B.astype('d')),
        InvalidType, ['b.dtype', 'x.dtype', 'float64', 'float32']),
    'nothing to fold': (
        lambda: sl.fold(numpy.array(1, 'f'), 1), InvalidType, ['x.ndim']),
    'nothing to tile': (
        lambda: sl.tile(numpy.array(1, 'f'), 2), InvalidType, ['x.ndim']),

    # integer or complex: the dtype
    'integer x': (
        lambda: sl.shared_linear(X.astype('i8'), W),
        InvalidType, ['x.dtype', 'int64']),
    'bool x': (
        lambda: sl.shared_linear(X.astype(bool), W),
        InvalidType, ['x.dtype', 'bool']),
    'complex x': (
        lambda: sl.shared_linear(X.astype('F'), W),
        InvalidType, ['x.dtype', 'complex64']),
    'integer W': (
        lambda: sl.shared_linear(X, W.astype('i4')),
        InvalidType, ['W.dtype', 'int32']),
    'integers to fold': (
        lambda: sl.fold(X.astype('i4'), 3), InvalidType, ['x.dtype', 'int32']),
    'complex to tile': (
        lambda: sl.tile(X.astype('D'), 3),
        InvalidType, ['x.dtype', 'complex128']),

    # other arguments
    'method': (
        lambda: sl.shared_linear(X, W, method='matmul'),
        ValueError, ['method', "'fold'", "'tile'", "'matmul'"]),
    'no batch axis': (
        lambda: sl.shared_linear(X, W, n_batch_axes=0),
        ValueError, ['n_batch_axes', 'greater than 0', '0']),
}




def order_of(*elements):
    return lambda kind: kind.make(order=numpy.array(elements))


# The same of each class of links, whose weight is W and n_tiles 3.
OF_EACH_CLASS = {
    'in_size': (
        lambda kind: kind.make(in_size=1000, out_size=900, n_tiles=7),
        ValueError, ['in_size', 'n_tiles', '7', '1000', '5 and 8']),
    'in_size, only a smaller one divides': (
        lambda kind: kind.make(in_size=10, n_tiles=20),
        ValueError, ['20', '10', 'nearest that does is 10']),
    'in_size that is negative': (
        lambda kind: kind.make(in_size=-3, n_tiles=2),
        ValueError, ['in_size', 'n_tiles', '2', '-3']),
    'in_size of the first input': (
        lambda kind: kind.make(lazy=True, n_tiles=7)(X),
        ValueError, ['in_size', 'n_tiles', '7', '12', '6 and 12']),
    'in_size of a dense layer': (
        lambda kind: kind.link_class.from_linear(L.Linear(12, 6), 5),
        ValueError, ['n_tiles', '5', '12', '4 and 6']),
    'width of x that another n_tiles would fit': (
        lambda kind: kind.make()(X[:, :8]),
        InvalidType, ['x.shape', '(4, 8)', 'W.shape', '({W}, 4)',
                      'n_tiles', '3']),
    'integer x': (
        lambda kind: kind.make()(X.astype('i')),
        InvalidType, ['x.dtype', 'int32']),
    'uint8 x': (
        lambda kind: kind.make()(X.astype('u1')),
        InvalidType, ['x.dtype', 'uint8']),
    'complex x': (
        lambda kind: kind.make()(X.astype('F')),
        InvalidType, ['x.dtype', 'complex64']),
    'no batch axis': (
        lambda kind: kind.make()(X, n_batch_axes=0),
        ValueError, ['n_batch_axes', 'greater than 0', '0']),
    'negative batch axes': (
        lambda kind: kind.make()(X, n_batch_axes=-1),
        ValueError, ['n_batch_axes', 'greater than 0', '-1']),
    'initialW of the dense shape': (
        lambda kind: kind.make(initialW=numpy.ones((6, 12), 'f')),
        ValueError, ['(6,12)', '({W},4)']),
    'initialW of no known type': (
        lambda kind: kind.make(initialW=[1]),
        TypeError, ['initializer', 'list']),
    'no n_tiles': (
        lambda kind: kind.link_class(12, 6), TypeError, ['n_tiles']),
    'n_tiles by position': (
        lambda kind: kind.link_class(12, 6, False, None, None, 3),
        TypeError, ['positional']),
    'W and b of two sizes': (
        lambda kind: kind.link_class.from_params(W, B[:3], n_tiles=3),
        ValueError, ['out_size', '(5, 4)', '(3,)']),
    'a link that is not Linear': (
        lambda kind: kind.link_class.from_linear(L.Convolution2D(3, 3), 3),
        TypeError, ['chainer.links.Linear', 'Convolution2D']),
    'a link that is shared already': (
        lambda kind: kind.link_class.from_linear(kind.make(), 3),
        TypeError, ['chainer.links.Linear', '{name}']),
    'a dense layer without a weight': (
        lambda kind: kind.link_class.from_linear(L.Linear(5), 3),
        ValueError, ['Linear', 'weight', 'in_size', 'input']),
    'a shared layer without a weight': (
        lambda kind: kind.make(lazy=True).to_linear(),
        ValueError, ['{name}', 'no weight yet', 'in_size', 'input']),
    'order that has an input often': (
        order_of(*[0] * 12), ValueError,
        ['order', 'permutation of 0 to 11', 'has 0 12 times']),
    'order that has an input twice': (
        order_of(0, 1, 2, 2, *range(4, 12)), ValueError,
        ['0 to 11, but has 2 2 times and 3 never']),
    'order of an input that is not there': (
        order_of(*range(11), 12), ValueError, ['0 to 11, but has 12']),
    'order of a negative input': (
        order_of(*range(11), -1), ValueError, ['0 to 11, but has -1']),
    'order of floats': (
        order_of(0., *range(1, 12)), TypeError,
        ['ints, not an array of float64']),
    'order of another size': (
        order_of(0, 1, 2), ValueError, ['the 12 inputs, but has 3 elements']),
}


def assert_says(call, error, words):
    with pytest.raises(error) as info:
        call()
    message = str(info.value)
    for word in words:
        assert re.search(
            r'(?<!\w){}(?!\w)'.format(re.escape(word)), message), message


@pytest.mark.parametrize('call, error, words', TABLE.values(), ids=TABLE)
def test_error_table(call, error, words):
    assert_says(call, error, words)


@kinds.EACH_CLASS_WITH_W
@pytest.mark.parametrize(
    'call, error, words', OF_EACH_CLASS.values(), ids=OF_EACH_CLASS)
def test_errors_of_each_class(kind, call, error, words):
    assert_says(lambda: call(kind), error, [
        word.format(name=kind.link_class.__name__, W=kind.shapes['W'][0])
        for word in words])


# Each takes a number of tiles.
N_TILES_USERS = {
    'shared_linear': lambda n: sl.shared_linear(X, W, n_tiles=n),
    'mixed_linear': lambda n: sl.mixed_linear(X, W, n_tiles=n),
    'fold': lambda n: sl.fold(X, n),
    'tile': lambda n: sl.tile(X, n),
}
for name, kind in kinds.CLASSES_WITH_W.items():
    def from_params(n, link_class=kind.link_class):
        return link_class.from_params(W, n_tiles=n)

    def from_linear(n, link_class=kind.link_class):
        return link_class.from_linear(L.Linear(12, 5), n)

    N_TILES_USERS.update({
        name: lambda n, kind=kind: kind.make(n_tiles=n),
        'lazy ' + name: lambda n, kind=kind: kind.make(True, n_tiles=n),
        'from_params of ' + name: from_params,
        'from_linear of ' + name: from_linear})


@pytest.mark.parametrize('use', N_TILES_USERS.values(), ids=N_TILES_USERS)
@pytest.mark.parametrize('n_tiles, error', [
    (0, ValueError), (-3, ValueError), (numpy.int64(0), ValueError),
    (3.0, TypeError), ('3', TypeError), (True, TypeError),
    (numpy.bool_(True), TypeError), ([3], TypeError),
    (numpy.array([3, 4]), TypeError), (numpy.float32(3), TypeError)], ids=repr)
def test_n_tiles_that_is_no_positive_int(use, n_tiles, error):
    with pytest.raises(error, match='n_tiles must be a positive int, not '):
        use(n_tiles)


@pytest.mark.parametrize('use', [
    N_TILES_USERS[name] for name in N_TILES_USERS if name != 'shared_linear'])
def test_n_tiles_None(use):
    with pytest.raises(TypeError, match='n_tiles must be .*, not None'):
        use(None)


@kinds.EACH_CLASS
@pytest.mark.parametrize('bad', [
    lambda link: link(X[:, :10]), lambda link: link(X, n_batch_axes=0),
    lambda link: link(X, n_batch_axes=-1)])
def test_a_failed_first_call_fixes_no_size(kind, bad):
    link = kind.make(lazy=True)
    with pytest.raises(ValueError):
        bad(link)
    assert link.in_size is None
    assert link(X).shape == (4, 6)


def test_an_error_names_the_function():
    with pytest.raises(InvalidType, match='SharedLinearFunction'):
        sl.shared_linear(X[:, :10], W)
    with pytest.raises(InvalidType, match='Fold'):
        sl.fold(X, 5)
