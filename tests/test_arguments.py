"""Any argument gives the right value, or an error that names it."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shared_linear as sl
from shared_linear import surgery
from shared_linear.layers import caching

import chainer  # isort: skip
import chainer.functions as F  # isort: skip
import chainer.links as L  # isort: skip

RIGHT = TypeError, ValueError, chainer.utils.type_check.InvalidType
ANY = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 9), st.just(2 ** 31),
    st.floats(), st.text(max_size=3), st.lists(st.integers(-2, 6), max_size=6),
    st.just([[0, 1], [2]]), st.just({}), st.just(object()),
    st.just(np.arange(6)), st.just(np.zeros((0, 6), np.float32)))
few = settings(max_examples=40, deadline=None)
x = np.random.RandomState(0).randn(4, 6).astype(np.float32)
W = np.ones((2, 3), np.float32)

CALLS = {
    'n_tiles': [lambda v: sl.fold(x, v), lambda v: sl.SharedLinear(
        6, 2, n_tiles=v), lambda v: sl.fold(x[:, :0], v)],
    'in_size': [lambda v: sl.SharedLinear(v, 2, n_tiles=1)
                if v != 2 ** 31 else None],
    'out_size': [lambda v: sl.SharedLinear(6, v, n_tiles=2)
                 if v != 2 ** 31 else None],
    'n_batch_axes': [
        lambda v: sl.shared_linear(x, W, n_batch_axes=v),
        lambda v: sl.MixedLinear(6, 2, n_tiles=2)(x, n_batch_axes=v)],
    'order': [lambda v: sl.fold(x, 2, order=v),
              lambda v: sl.SharedLinear(6, 2, n_tiles=2, order=v)],
    'seed': [lambda v: sl.group_inputs(x, 2, seed=v, n_sweeps=0)],
    'n_sweeps': [lambda v: sl.group_inputs(x, 2, n_sweeps=v)
                 if v != 2 ** 31 else None],
    'axis': [lambda v: surgery.FakeQuantize(8, axis=v)],
    'decay': [lambda v: surgery.FakeQuantize(8, decay=v)],
    'n_bits': [lambda v: surgery.FakeQuantize(v)],
    'address': [lambda v: surgery.insert_after(L.Linear(6, 2), v, F.relu)],
    'source': [lambda v: surgery.rewire(L.Linear(6, 2), '/a', source=v)],
    'exclude': [lambda v: sl.share_weights(
        chainer.Sequential(L.Linear(6, 2)), x, 2, exclude=v)
        if isinstance(v, (type(None), int, float)) else None],
    'budget': [lambda v: sl.share_weights(
        chainer.Sequential(L.Linear(6, 2)), x, budget=v)],
}


@pytest.mark.parametrize('name', CALLS)
@few
@given(value=ANY)
def test_any_value(name, value):
    for call in CALLS[name]:
        try:
            call(value)
        except RIGHT as error:
            assert str(error).strip()
            assert 'inhomogeneous' not in str(error)
            assert 'not supported between' not in str(error)


@pytest.mark.parametrize('model', [None, 3, 'model', L.Linear])
@pytest.mark.parametrize('call', [
    surgery.edits, surgery.revert, lambda m: surgery.trace(m, x),
    lambda m: surgery.quantize(m, x), lambda m: surgery.calibrate(m, x),
    lambda m: surgery.fold_batch_normalization(m, x),
    lambda m: surgery.insert_after(m, '/l', F.relu),
    lambda m: sl.share_weights(m, x, 2)])
def test_what_is_no_model(model, call):
    with pytest.raises(TypeError, match='Link|Chain'):
        call(model)


@pytest.mark.parametrize('make', [
    lambda a: np.ma.masked_array(a, mask=a > 0), np.matrix])
@pytest.mark.filterwarnings('ignore::PendingDeprecationWarning')
def test_masks_and_matrices_are_arrays_everywhere(make):
    """As in F.linear, which does not look at the mask."""
    np.testing.assert_array_equal(
        F.linear(make(x), np.ones((2, 6), 'f')).array,
        F.linear(x, np.ones((2, 6), 'f')).array)
    mixed = sl.MixedLinear(6, 2, n_tiles=2)
    for call in (lambda a: sl.fold(a, 2), lambda a: sl.tile(a, 2),
                 lambda a: sl.shared_linear(a, W),
                 lambda a: sl.shared_linear(a, W, method='tile'), mixed):
        got = call(make(x)).array
        assert type(got) is np.ndarray
        np.testing.assert_array_equal(got, call(x).array)


def test_a_weight_that_is_not_finite_or_has_no_rows():
    for bad in np.full((3, 6), np.nan), np.ones((0, 6)):
        with pytest.raises(ValueError, match='W must have rows of finite'):
            sl.group_inputs(x, 2, W=bad)
    model = chainer.Sequential(L.Linear(6, 4), L.Linear(4, 2))
    model[1].W.array[0] = np.nan
    with pytest.raises(ValueError, match='/1 has weights that are not finit'):
        sl.share_weights(model, x, 2)


def test_inputs_of_a_kind_that_is_not_known():
    class Frame:
        """As a DataFrame of pandas."""

        def __len__(self):
            return 4

        def __getitem__(self, key):
            raise KeyError(key)

        def keys(self):
            return ['a']

    model = chainer.Sequential(L.Linear(6, 4))
    with pytest.raises(TypeError, match='not a Frame'):
        sl.share_weights(model, Frame(), 2)
    two = x, np.ones((4, 3), 'f')
    with pytest.raises(TypeError, match=r'of Sequential are \(x, n_batch'):
        sl.share_weights(model, two, 2)
    with pytest.raises(ValueError, match='of one shape, not'):
        sl.share_weights(model, list(two), 2)


def test_a_recurrent_network_begins_each_batch_as_it_is():
    model = chainer.Sequential(L.LSTM(6, 6), L.Linear(6, 2))
    data = np.random.RandomState(1).randn(50, 6).astype('f')
    new, report = sl.share_weights(model, data, {'/1': 2})
    assert model[0].h is None and new[0].h is None
    assert np.isfinite(new(data).array).all()


def test_a_cache_is_bounded_by_bytes():
    calls = []

    @caching.cache_up_to(1000)
    def make(n):
        calls.append(n)
        return np.zeros(n, np.uint8)

    for n in 100, 200, 300, 400, 100, 500, 600, 2000, 600:
        assert make(n).nbytes == n
        kept = sum(size for _, size in make.results.values())
        assert kept <= 1000 or len(make.results) == 1
    assert calls == [100, 200, 300, 400, 500, 600, 2000, 600]
