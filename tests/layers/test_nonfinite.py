"""NaN and infinity are not lost on the way."""
import chainer.functions as F
import numpy
import pytest

import shared_linear as sl
from shared_linear.layers import function


@pytest.mark.filterwarnings('ignore:invalid value:RuntimeWarning')
@pytest.mark.parametrize('method', function.METHODS)
@pytest.mark.parametrize('value', [numpy.nan, numpy.inf, -numpy.inf])
@pytest.mark.parametrize('where', ['x', 'b'])
def test_nan_and_inf_go_where_they_go_in_F_linear(method, value, where):
    x = numpy.random.randn(4, 6).astype('f')
    W = numpy.random.randn(5, 2).astype('f')
    b = numpy.random.randn(5).astype('f')
    {'x': x, 'b': b}[where].flat[0] = value
    x[1, 0], x[1, 2] = numpy.inf, -numpy.inf  # in one sum: nan
    y = sl.shared_linear(x, W, b, method=method).array
    expected = F.linear(x, numpy.tile(W, (1, 3)), b).array
    numpy.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings('ignore:invalid value:RuntimeWarning')
@pytest.mark.parametrize('method', function.METHODS)
@pytest.mark.parametrize('value', [numpy.nan, numpy.inf])
def test_no_result_is_finite_that_is_not_in_F_linear(method, value):
    """An infinite weight times the sum, or times each: inf, or inf - inf."""
    x = numpy.random.randn(4, 6).astype('f')
    W = numpy.random.randn(5, 2).astype('f')
    W[2, 1] = value
    y = sl.shared_linear(x, W, method=method).array
    expected = F.linear(x, numpy.tile(W, (1, 3))).array
    numpy.testing.assert_array_equal(
        numpy.isfinite(y), numpy.isfinite(expected))
