"""fold and tile, by Chainer's own way of testing a function."""
import cases
import numpy
import pytest
import reference
from chainer import testing

import shared_linear as sl


@testing.parameterize(*testing.product({
    'name': ['fold', 'tile'],
    'dtype': ['e', 'f', 'd'],
    'shape': [(12,), (4, 12), (2, 1, 3, 6)],
    'n_tiles': [1, 3],
    'contiguous': ['C', None],
}))
@testing.inject_backend_tests(None, cases.BACKENDS)
class TestFoldAndTile(cases.FourDraws, testing.FunctionTestCase):

    def setUp(self):
        self.check_forward_options = cases.TOLERANCES[self.dtype]
        self.check_backward_options = cases.TOLERANCES[self.dtype]
        self.check_double_backward_options = cases.TOLERANCES[self.dtype]

    def generate_inputs(self):
        return numpy.random.uniform(-1, 1, self.shape).astype(self.dtype),

    def forward(self, inputs, device):
        return getattr(sl, self.name)(*inputs, self.n_tiles),

    def forward_expected(self, inputs):
        y = getattr(reference, self.name)(*inputs, self.n_tiles)
        return y.astype(self.dtype),


@pytest.mark.parametrize('name', ['fold', 'tile'])
@pytest.mark.parametrize('dtype', ['e', 'f', 'd', '>f4', 'g'])
def test_fold_and_tile_keep_the_dtype(name, dtype):
    x = numpy.random.randn(4, 6).astype(dtype)
    y = getattr(sl, name)(x, 3)
    assert y.dtype == numpy.dtype(dtype)
    numpy.testing.assert_allclose(
        y.array.astype('d'), getattr(reference, name)(x, 3),
        **cases.TOLERANCES['e' if dtype == 'e' else 'f'])
