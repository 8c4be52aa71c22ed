"""NaN and infinity are not lost on the way."""
import chainer.functions as F
import kinds
import numpy
import pytest


@pytest.mark.filterwarnings('ignore:invalid value:RuntimeWarning')
@kinds.EACH_FORM
@pytest.mark.parametrize('value', [numpy.nan, numpy.inf, -numpy.inf])
@pytest.mark.parametrize('where', ['x', 'b'])
def test_nan_and_inf_go_where_they_go_in_F_linear(form, value, where):
    x, W, b, _ = form.draw(dtype='f')
    {'x': x, 'b': b}[where].flat[0] = value
    x[1, 0], x[1, 2] = numpy.inf, -numpy.inf  # in one sum: nan
    y = form(x, W, b).array
    expected = F.linear(x, form.weight(W).astype('f'), b).array
    numpy.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings('ignore:invalid value:RuntimeWarning')
@kinds.EACH_FORM
@pytest.mark.parametrize('value', [numpy.nan, numpy.inf])
def test_no_result_is_finite_that_is_not_in_F_linear(form, value):
    """An infinite weight times the sum, or times each: inf, or inf - inf."""
    x, W, _, _ = form.draw(dtype='f')
    W[-1, 0] = value
    y = form(x, W).array
    expected = F.linear(x, form.weight(W).astype('f')).array
    numpy.testing.assert_array_equal(
        numpy.isfinite(y), numpy.isfinite(expected))
