"""What Chainer computes where it failed before, by independent values."""
import gc
import pickle
import warnings

import numpy
import pytest

import shared_linear  # noqa: F401

import chainer  # isort: skip
import chainer.distributions as D  # isort: skip
import chainer.functions as F  # isort: skip


def test_log_prob_of_a_categorical_distribution():
    p = numpy.array([[.1, .2, .7], [.5, .3, .2]])
    x = numpy.array([2, 0], 'i')
    expected = [numpy.log(.7), numpy.log(.5)]
    for given in x, chainer.Variable(x):
        y = D.Categorical(p=p).log_prob(given)
        numpy.testing.assert_allclose(y.array, expected, rtol=1e-12)


def test_divergence_of_categorical_distributions():
    p, q = numpy.array([[.1, .2, .7]]), numpy.array([[.3, .3, .4]])
    y = chainer.kl_divergence(D.Categorical(p=p), D.Categorical(p=q))
    numpy.testing.assert_allclose(
        y.array, (p * numpy.log(p / q)).sum(1), rtol=1e-12)


@pytest.mark.parametrize('dtype, padding, expected', [
    ('B', -1, 255), ('H', -1, 65535), ('B', 7, 7), ('b', -1, -1),
    ('i', -1, -1), ('f', -1, -1.), ('f', numpy.nan, numpy.nan),
    ('e', .5, .5), ('i', 2.7, 2), ('B', 300, 44)])
def test_pad_sequence(dtype, padding, expected):
    xs = [numpy.arange(1, n + 1).astype(dtype) for n in (2, 3, 1)]
    y = F.pad_sequence(xs, padding=padding).array
    assert y.dtype == dtype
    numpy.testing.assert_array_equal(y, numpy.array(
        [[1, 2, expected], [1, 2, 3], [1, expected, expected]]).astype(dtype))


@pytest.mark.parametrize('dtype', ['e', 'f', 'd'])
@pytest.mark.parametrize('batch', [(), (2,)])
@pytest.mark.parametrize('transa', [False, True])
def test_sparse_matmul(dtype, batch, transa):
    pytest.importorskip('scipy', reason='sparse matrices need SciPy')
    a = numpy.random.randn(*batch, 4, 4)
    a[..., numpy.random.rand(4, 4) < .5] = 0
    a, b = a.astype(dtype), numpy.random.randn(*batch, 4, 3).astype(dtype)
    sparse = chainer.utils.sparse.to_coo(a, requires_grad=True)
    dense = chainer.Variable(b)
    y = F.sparse_matmul(sparse, dense, transa=transa)
    left = a.astype('d').swapaxes(-1, -2) if transa else a.astype('d')
    assert y.dtype == dtype
    accuracy = dict(rtol={'e': 4e-3, 'f': 1e-5, 'd': 1e-12}[dtype],
                    atol={'e': 4e-3, 'f': 1e-6, 'd': 1e-14}[dtype])
    numpy.testing.assert_allclose(
        y.array, left @ b.astype('d'), **accuracy)
    gy = numpy.random.randn(*y.shape).astype(dtype)
    y.grad = gy
    y.backward()
    numpy.testing.assert_allclose(
        dense.grad, left.swapaxes(-1, -2) @ gy.astype('d'), **accuracy)


def test_sparse_matmul_of_matrices_made_by_scipy():
    sparse = pytest.importorskip('scipy.sparse')
    a = sparse.random(5, 4, density=.5, format='coo', random_state=0)
    b = numpy.random.randn(4, 3)
    given = chainer.utils.sparse.CooMatrix(a.data, a.row, a.col, a.shape)
    numpy.testing.assert_allclose(
        F.sparse_matmul(given, b).array, a.toarray() @ b, rtol=1e-12)


def test_as_strided_and_its_gradient():
    x = chainer.Variable(numpy.arange(4, dtype='f'))
    y = F.as_strided(x, (3, 2), (1, 1), 0)
    numpy.testing.assert_array_equal(y.array, [[0, 1], [1, 2], [2, 3]])
    y.grad = numpy.ones((3, 2), 'f')
    y.backward()
    numpy.testing.assert_array_equal(x.grad, [1, 2, 2, 1])


def test_gradients_of_integers_are_refused_by_as_strided():
    from chainer.functions.array import as_strided
    x = numpy.arange(4)
    grad = as_strided.AsStridedGrad(
        as_strided.TensorGeometry(x), (2,), (1,), 0)
    with pytest.raises(TypeError, match='Only float is supported'):
        grad.forward((x[:2],))


@pytest.mark.parametrize('mode, align_corners, expected', [
    ('bilinear', True, [0, 1.5, 3]), ('bilinear', False, [1 / 6, 1.5, 17 / 6]),
    ('nearest', False, [0, 1, 2])])
def test_resize_images(mode, align_corners, expected):
    x = numpy.arange(4, dtype='f').reshape(1, 1, 1, 4)
    y = F.resize_images(x, (1, 3), mode=mode, align_corners=align_corners)
    numpy.testing.assert_allclose(
        y.array.ravel(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('shape', [(1, 1), (2, 2), (3, 3)])
def test_det(shape):
    x = numpy.random.randn(*shape)
    y = F.det(x)
    assert y.shape == ()
    numpy.testing.assert_allclose(
        float(y.array), numpy.linalg.det(x), rtol=1e-12)
    numpy.testing.assert_allclose(
        F.batch_det(numpy.stack([x, 2 * x])).array,
        numpy.linalg.det(x) * numpy.array([1, 2 ** shape[0]]), rtol=1e-12)


@pytest.mark.parametrize('normalize', [False, True])
def test_softmax_cross_entropy_in_halves(normalize):
    """Where a sum in float16, as Chainer's own test makes it, overflows."""
    n = 100000
    x = numpy.random.randn(n, 2).astype('e')
    t = numpy.random.randint(-1, 2, n).astype('i')
    weight = numpy.array([1, 2.5], 'e')
    y = F.softmax_cross_entropy(
        x, t, normalize=normalize, class_weight=weight)
    z = x.astype('d')
    losses = -(z - numpy.log(numpy.exp(z).sum(1, keepdims=True)))[
        numpy.arange(n), t] * weight.astype('d')[t] * (t >= 0)
    numpy.testing.assert_allclose(
        float(y.array), losses.sum() / ((t >= 0).sum() if normalize else n),
        rtol=2e-3)


def test_gradient_check_and_testing_are_there():
    from chainer import gradient_check, testing
    x = numpy.random.randn(3, 4).astype('f')
    gradient_check.check_backward(F.tanh, x, numpy.ones_like(x))
    with testing.assert_warns(UserWarning):
        warnings.warn('such', UserWarning, stacklevel=1)


@pytest.mark.parametrize('requirement, met', [
    ('numpy', True), ('numpy>=1.10', True), ('numpy<1', False),
    ('numpy>=1.10,<99', True), ('numpy>=1.10,!=' + numpy.__version__, False),
    ('no-such-package-of-ours', False)])
def test_requirements_of_tests(requirement, met):
    import unittest

    from chainer import testing

    class Case(unittest.TestCase):

        @testing.with_requires(requirement)
        def test_with(self):
            pass

        @testing.without_requires(requirement)
        def test_without(self):
            pass

    for name, runs in [('test_with', met), ('test_without', not met)]:
        result = unittest.TestResult()
        Case(name).run(result)
        assert (not result.skipped) == runs, result.skipped
        assert not result.errors


def test_hdf5_gives_strings_none_and_numbers(tmp_path):
    h5py = pytest.importorskip('h5py')
    from chainer import serializers
    path = tmp_path / 'a.h5'
    with h5py.File(path, 'w') as f:
        f.create_dataset('text', data='größer')
        save = serializers.HDF5Serializer(f)
        save('none', None)
        save('number', 3)
        save('array', numpy.arange(3))
    with h5py.File(path) as f:
        load = serializers.HDF5Deserializer(f)
        assert load('text', '') == 'größer'
        assert load('none', 1) is None
        assert load('number', 0) == 3
        numpy.testing.assert_array_equal(
            load('array', numpy.zeros(3, 'l')), [0, 1, 2])


@pytest.mark.parametrize('dtype, padding, expected', [
    ('B', -1, 255), ('i', -1, -1), ('f', .5, .5)])
def test_examples_are_padded(dtype, padding, expected):
    examples = [numpy.ones((1, 2), dtype), numpy.ones((2, 1), dtype)]
    numpy.testing.assert_array_equal(
        chainer.dataset.concat_examples(examples, padding=padding),
        numpy.array([[[1, 1], [expected, expected]],
                     [[1, expected], [1, expected]]], dtype))


def test_maxout_with_functions_that_fill():
    def fill(array):
        shapes.append(array.shape)
        array[...] = numpy.arange(array.size).reshape(array.shape)

    shapes = []
    link = chainer.links.Maxout(
        3, 2, 4, initialW=fill, initial_bias=fill)
    assert shapes == [(2, 4, 3), (2, 4)]
    numpy.testing.assert_array_equal(
        link.linear.W.array, numpy.arange(24).reshape(8, 3))
    numpy.testing.assert_array_equal(link.linear.b.array, numpy.arange(8))
    x = numpy.random.randn(5, 3).astype('f')
    numpy.testing.assert_allclose(
        link(x).array, (x @ numpy.arange(24).reshape(8, 3).T
                        + numpy.arange(8)).reshape(5, 2, 4).max(2), rtol=1e-4,
        atol=1e-4)


def test_variables_are_printed_as_before():
    text = chainer.Variable(numpy.ones((2, 3), 'f'), name='x').debug_print()
    assert text.splitlines()[1:5] == [
        '- device: CPU', "- backend: <class 'numpy.ndarray'>",
        '- shape: (2, 3)', '- dtype: float32']


def test_text_files_are_closed(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_text('one\ntwo\n')
    texts = chainer.datasets.TextDataset(str(path))
    assert pickle.loads(pickle.dumps(texts))[1] == 'two\n'
    del texts
    with warnings.catch_warnings():
        # A file that is closed by garbage collection alone warns.
        warnings.simplefilter('error')
        gc.collect()
    with pytest.raises(FileNotFoundError):
        chainer.datasets.TextDataset(str(tmp_path / 'no.txt'))
    gc.collect()


def test_fix_and_fmod():
    x = numpy.array([-2.5, -.5, 0, .5, 2.5])
    numpy.testing.assert_array_equal(F.fix(x).array, [-2, 0, 0, 0, 2])
    assert F.fix(x.astype('e')).dtype == 'e'
    numpy.testing.assert_allclose(
        F.fmod(x, numpy.full(5, 2.)).array, [-.5, -.5, 0, .5, .5])
