"""What the layer computes, in float64, written without its code.

The definition is taken word for word: the small weight is repeated along its
last axis, and what comes is a dense layer.
"""
import numpy


def tile(x, n_tiles):
    return numpy.concatenate([numpy.asarray(x, 'd')] * n_tiles, axis=-1)


def fold(x, n_tiles):
    return sum(numpy.split(numpy.asarray(x, 'd'), n_tiles, axis=-1))


def matrix(x, n_batch_axes=1):
    """x as a matrix of float64: one row for each example."""
    x = numpy.asarray(x, 'd')
    rows = int(numpy.prod(x.shape[:n_batch_axes]))
    return x.reshape(rows, int(numpy.prod(x.shape[n_batch_axes:])))


def dense_weight(x, W, n_batch_axes=1):
    return tile(W, matrix(x, n_batch_axes).shape[1] // W.shape[1])


def affine(x, V, b=None, n_batch_axes=1):
    """The dense layer of the weight V."""
    y = numpy.einsum('bi,oi->bo', matrix(x, n_batch_axes), V)
    if b is not None:
        y = y + numpy.asarray(b, 'd')
    return y.reshape(x.shape[:n_batch_axes] + (len(V),))


def shared_linear(x, W, b=None, n_batch_axes=1):
    return affine(x, dense_weight(x, W, n_batch_axes), b, n_batch_axes)


def adjoint(weight, shape, gV):
    """gW with <gW, W> = <gV, weight(W)>, from one unit after the other."""
    gW = numpy.zeros(shape)
    for i in numpy.ndindex(*shape):
        unit = numpy.zeros(shape)
        unit[i] = 1
        gW[i] = (weight(unit) * gV).sum()
    return gW


def _maps(x, W, n_batch_axes, weight):
    """From W to V, which is tiled where no other is given, and its adjoint."""
    if weight is not None:
        return weight, lambda gV: adjoint(weight, W.shape, gV)
    n_tiles = matrix(x, n_batch_axes).shape[1] // W.shape[1]
    return lambda W: tile(W, n_tiles), lambda gV: fold(gV, n_tiles)


def gradients(x, W, gy, n_batch_axes=1, weight=None):
    """gx, gW and gb of <gy, y>."""
    weight, transpose = _maps(x, W, n_batch_axes, weight)
    gy = matrix(gy, n_batch_axes)
    gx = numpy.einsum('bo,oi->bi', gy, weight(W))
    gV = numpy.einsum('bo,bi->oi', gy, matrix(x, n_batch_axes))
    return gx.reshape(x.shape), transpose(gV), gy.sum(0)


def second_gradients(x, W, gy, ggx, ggW, ggb, n_batch_axes=1, weight=None):
    """Gradients of <ggx, gx> + <ggW, gW> + <ggb, gb> by x, W and gy."""
    weight, transpose = _maps(x, W, n_batch_axes, weight)
    V, ggV = weight(W), weight(ggW)
    rows, ggrows = matrix(x, n_batch_axes), matrix(ggx, n_batch_axes)
    gy_rows = matrix(gy, n_batch_axes)
    by_gy = (
        numpy.einsum('bi,oi->bo', ggrows, V)
        + numpy.einsum('bi,oi->bo', rows, ggV) + ggb)
    by_x = numpy.einsum('bo,oi->bi', gy_rows, ggV)
    by_V = numpy.einsum('bo,bi->oi', gy_rows, ggrows)
    return (
        by_x.reshape(x.shape), transpose(by_V), by_gy.reshape(gy.shape))


def mixed_permutations(in_size, n_blocks, seed, order=None):
    """p_j and s_j of each block, drawn in turn from one Mersenne Twister."""
    random = numpy.random.RandomState(seed)
    blocks = []
    for _ in range(n_blocks):
        keys = random.random_sample(in_size).tolist()
        permutation = sorted(range(in_size), key=keys.__getitem__)
        signs = [-1. if u < .5 else 1. for u in random.random_sample(in_size)]
        blocks.append((permutation, signs))
    if order is not None:
        for j, permutation in enumerate(numpy.atleast_2d(order)):
            blocks[j] = permutation.tolist(), [1.] * in_size
    return blocks


def mixed_weight(W, n_tiles, n_blocks, seed=0, order=None):
    """The dense weight: one element after the other, as in the formula."""
    W = numpy.asarray(W, 'd')
    height, width = W.shape
    V = numpy.zeros((n_blocks * height, n_tiles * width))
    blocks = mixed_permutations(V.shape[1], n_blocks, seed, order)
    for j, (permutation, signs) in enumerate(blocks):
        rows = V[j * height:(j + 1) * height]
        for place, (source, sign) in enumerate(
                zip(permutation, signs, strict=True)):
            rows[:, source] = sign * W[:, place % width]
    return V


def mixed_linear(x, W, b, mixing, n_batch_axes=1):
    return affine(x, mixed_weight(W, **mixing), b, n_batch_axes)
