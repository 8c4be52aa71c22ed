"""Each bad call, and the words in the answer that help."""
import re

import chainer.links as L
import numpy
import pytest
from chainer.utils.type_check import InvalidType

import shared_linear as sl

X = numpy.ones((4, 12), 'f')
W = numpy.ones((5, 4), 'f')
B = numpy.ones(5, 'f')


def link(**kwargs):
    return sl.SharedLinear(12, 5, n_tiles=3, **kwargs)


# What they did, the error's type, and the words in its message.
TABLE = {
    # in_size not divisible by n_tiles: both numbers, what would divide
    'in_size': (
        lambda: sl.SharedLinear(1000, 900, n_tiles=7),
        ValueError, ['in_size', 'n_tiles', '7', '1000', '5 and 8']),
    'in_size, only a smaller one divides': (
        lambda: sl.SharedLinear(10, 5, n_tiles=20),
        ValueError, ['20', '10', 'nearest that does is 10']),
    'in_size that is negative': (
        lambda: sl.SharedLinear(-3, 5, n_tiles=2),
        ValueError, ['in_size', 'n_tiles', '2', '-3']),
    'in_size of the first input': (
        lambda: sl.SharedLinear(5, n_tiles=7)(X),
        ValueError, ['in_size', 'n_tiles', '7', '12', '6 and 12']),
    'in_size of a dense layer': (
        lambda: sl.SharedLinear.from_linear(L.Linear(12, 5), 5),
        ValueError, ['n_tiles', '5', '12', '4 and 6']),
    'width of what is folded': (
        lambda: sl.fold(X, 5),
        InvalidType, ['(4, 12)', 'n_tiles', '5', '4 and 6']),

    # x's width does not match: x and W with both shapes
    'width of x': (
        lambda: sl.shared_linear(X[:, :10], W),
        InvalidType, ['x.shape', '(4, 10)', 'W.shape', '(5, 4)']),
    'width of x that another n_tiles would fit': (
        lambda: link()(X[:, :8]),
        InvalidType, ['x.shape', '(4, 8)', 'W.shape', '(5, 4)',
                      'n_tiles', '3']),
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
    'uint8 x': (
        lambda: link()(X.astype('u1')), InvalidType, ['x.dtype', 'uint8']),
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
    'negative batch axes': (
        lambda: link()(X, n_batch_axes=-1),
        ValueError, ['n_batch_axes', 'greater than 0', '-1']),
    'initialW of the dense shape': (
        lambda: link(initialW=numpy.ones((5, 12), 'f')),
        ValueError, ['(5,12)', '(5,4)']),
    'initialW of no known type': (
        lambda: link(initialW=[1]), TypeError, ['initializer', 'list']),
    'no n_tiles': (
        lambda: sl.SharedLinear(12, 5), TypeError, ['n_tiles']),
    'n_tiles by position': (
        lambda: sl.SharedLinear(12, 5, False, None, None, 3),
        TypeError, ['positional']),
    'W and b of two sizes': (
        lambda: sl.SharedLinear.from_params(W, B[:3], n_tiles=3),
        ValueError, ['out_size', '(5, 4)', '(3,)']),
    'a link that is not Linear': (
        lambda: sl.SharedLinear.from_linear(L.Convolution2D(3, 3), 3),
        TypeError, ['chainer.links.Linear', 'Convolution2D']),
    'a dense layer without a weight': (
        lambda: sl.SharedLinear.from_linear(L.Linear(5), 3),
        ValueError, ['Linear', 'weight', 'in_size', 'input']),
    'a shared layer without a weight': (
        lambda: sl.SharedLinear(5, n_tiles=3).to_linear(),
        ValueError, ['SharedLinear', 'weight', 'in_size', 'input']),
}


@pytest.mark.parametrize('call, error, words', TABLE.values(), ids=TABLE)
def test_error_table(call, error, words):
    with pytest.raises(error) as info:
        call()
    message = str(info.value)
    for word in words:
        assert re.search(
            r'(?<!\w){}(?!\w)'.format(re.escape(word)), message), message


N_TILES_USERS = {
    'SharedLinear': lambda n: sl.SharedLinear(12, 5, n_tiles=n),
    'lazy SharedLinear': lambda n: sl.SharedLinear(5, n_tiles=n),
    'from_params': lambda n: sl.SharedLinear.from_params(W, n_tiles=n),
    'from_linear': lambda n: sl.SharedLinear.from_linear(L.Linear(12, 5), n),
    'shared_linear': lambda n: sl.shared_linear(X, W, n_tiles=n),
    'fold': lambda n: sl.fold(X, n),
    'tile': lambda n: sl.tile(X, n),
}


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


@pytest.mark.parametrize('bad', [
    lambda link: link(X[:, :10]), lambda link: link(X, n_batch_axes=0),
    lambda link: link(X, n_batch_axes=-1)])
def test_a_failed_first_call_fixes_no_size(bad):
    link = sl.SharedLinear(5, n_tiles=3)
    with pytest.raises(ValueError):
        bad(link)
    assert link.W.array is None
    assert link(X).shape == (4, 5)


def test_an_error_names_the_function():
    with pytest.raises(InvalidType, match='SharedLinearFunction'):
        sl.shared_linear(X[:, :10], W)
    with pytest.raises(InvalidType, match='Fold'):
        sl.fold(X, 5)
