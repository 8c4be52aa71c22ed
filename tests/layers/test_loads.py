"""What comes from a file is checked each time, as if from an enemy."""
import numpy as np
import pytest

import shared_linear as sl

import chainer  # isort: skip
import chainer.links as L  # isort: skip

KINDS = {
    'npz': (np.savez, chainer.serializers.load_npz),
    'h5': (None, chainer.serializers.load_hdf5),
}


def save(path, arrays, kind):
    if kind == 'h5':
        h5py = pytest.importorskip('h5py')
        with h5py.File(path, 'w') as file:
            for name, array in arrays.items():
                file.create_dataset(name, data=array)
    else:
        np.savez(path, **arrays)


def arrays_of(link, path):
    chainer.serializers.save_npz(path, link)
    with np.load(path) as file:
        return dict(file)


def state(link):
    return {name: value.array.copy() if isinstance(value, chainer.Parameter)
            and value.array is not None else np.copy(value)
            if isinstance(value, np.ndarray) else value
            for name, value in sorted(vars(link).items())
            if name != '_params'} | {'params': set(link._params)}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, other[name])
        else:
            assert value is other[name] or value == other[name], name


def shared(**options):
    return sl.SharedLinear(6, 4, n_tiles=2, **options)


MAKES = {
    'ordered': lambda: shared(order=np.array([3, 1, 0, 2, 5, 4])),
    'plain': shared,
    'lazy': lambda: sl.SharedLinear(None, 4, n_tiles=2),
    'mixed': lambda: sl.MixedLinear(6, 4, n_tiles=2, n_blocks=2),
    'mixed, ordered': lambda: sl.MixedLinear(
        6, 4, n_tiles=2, n_blocks=2, order=np.array([3, 1, 0, 2, 5, 4])),
}

ORDERS = {
    'out of range': [0, 1, 2, 3, 4, 6],
    'negative': [0, 1, 2, 3, 4, -1],
    'huge': [0, 1, 2, 3, 4, 2 ** 40],
    'twice': [0, 1, 2, 3, 4, 4],
    'short': [0, 1, 2, 3],
    'scalar': 0,
    'square': [[0, 1, 2], [3, 4, 5]],
    'floats': [0., 1., 2., 3., 4., 5.],
}


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('make', MAKES)
@pytest.mark.parametrize('what', ORDERS)
def test_a_bad_order(tmp_path, kind, make, what):
    link = MAKES[make]()
    arrays = arrays_of(MAKES[
        'mixed' if 'mixed' in make else 'ordered'](), tmp_path / 'good.npz')
    arrays['order'] = np.array(ORDERS[what])
    arrays['W'] = arrays['W'] + 1
    save(tmp_path / f'bad.{kind}', arrays, kind)
    before = state(link)
    with pytest.raises((TypeError, ValueError), match='order'):
        KINDS[kind][1](tmp_path / f'bad.{kind}', link)
    assert_same(state(link), before)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('make', ['ordered', 'plain', 'mixed'])
@pytest.mark.parametrize('name', ['W', 'b'])
@pytest.mark.parametrize('value', [
    np.float32(1), np.ones(1, 'f'), np.ones((1, 3), 'f'), np.ones((8, 3), 'f'),
    np.ones((4, 3), 'i')], ids=['()', '(1,)', '(1, 3)', '(8, 3)', 'ints'])
def test_an_array_of_another_shape_or_kind(tmp_path, kind, make, name, value):
    link = MAKES[make]()
    arrays = arrays_of(link, tmp_path / 'good.npz')
    arrays = {key: array + np.ones((), array.dtype)
              if array.dtype.kind == 'f' else array
              for key, array in arrays.items()}
    arrays[name] = value
    save(tmp_path / f'bad.{kind}', arrays, kind)
    before = state(link)
    with pytest.raises(ValueError, match=f'^{name} of the snapshot'):
        KINDS[kind][1](tmp_path / f'bad.{kind}', link)
    assert_same(state(link), before)


@pytest.mark.parametrize('make', MAKES)
def test_a_file_that_lacks_something(tmp_path, make):
    link = MAKES[make]()
    source = MAKES['mixed, ordered' if 'mixed' in make else 'ordered']()
    arrays = arrays_of(source, tmp_path / 'good.npz')
    del arrays['b']
    np.savez(tmp_path / 'bad.npz', **arrays)
    before = state(link)
    with pytest.raises(KeyError):
        chainer.serializers.load_npz(tmp_path / 'bad.npz', link)
    assert_same(state(link), before)


def test_an_order_of_another_width_than_the_weight(tmp_path):
    link = MAKES['lazy']()
    arrays = arrays_of(MAKES['ordered'](), tmp_path / 'good.npz')
    arrays['order'] = np.arange(8)
    np.savez(tmp_path / 'bad.npz', **arrays)
    before = state(link)
    with pytest.raises(ValueError, match='order'):
        chainer.serializers.load_npz(tmp_path / 'bad.npz', link)
    assert_same(state(link), before)


RANGES = {
    'backwards': {'low': np.float32(1), 'high': np.float32(0)},
    'NaN': {'low': np.float32('nan')},
    'infinite': {'high': np.float32('inf')},
    'several': {'low': np.zeros(3, 'f'), 'high': np.ones(3, 'f')},
    'unlike': {'low': np.zeros(3, 'f')},
    'ints': {'low': np.int32(0)},
    'strings': {'n_observed': np.array('many')},
    'arrays': {'calibrating': np.array([True, False])},
}


@pytest.mark.parametrize('what', RANGES)
@pytest.mark.parametrize('calibrated', [False, True])
def test_quantizers(tmp_path, what, calibrated):
    quantizer = sl.surgery.FakeQuantize(4)
    quantizer(np.linspace(-1, 2, 5, dtype='f'))
    arrays = arrays_of(quantizer, tmp_path / 'good.npz')
    arrays.update(RANGES[what])
    np.savez(tmp_path / 'bad.npz', **arrays)
    link = sl.surgery.FakeQuantize(4)
    if calibrated:
        link(np.linspace(-3, 2, 5, dtype='f'))
    before = state(link)
    with pytest.raises(ValueError, match='the snapshot of a FakeQuantize'):
        chainer.serializers.load_npz(tmp_path / 'bad.npz', link)
    assert_same(state(link), before)


def test_good_files_still_load(tmp_path):
    for make in MAKES.values():
        source, link = make(), make()
        if source.W.array is None:
            source(np.ones((1, 6), 'f'))
        chainer.serializers.save_npz(tmp_path / 'good.npz', source)
        chainer.serializers.load_npz(tmp_path / 'good.npz', link)
        x = np.random.randn(3, 6).astype('f')
        np.testing.assert_array_equal(link(x).array, source(x).array)
    dense = L.Linear(6, 4)
    chainer.serializers.save_npz(tmp_path / 'dense.npz', dense)
    with pytest.raises(ValueError, match='W of the snapshot'):
        chainer.serializers.load_npz(tmp_path / 'dense.npz', shared())
