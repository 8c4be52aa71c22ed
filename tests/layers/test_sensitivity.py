"""The tolerances of the gradient checks are tight enough to tell."""
import kinds
import numpy
import pytest
from chainer import testing

from shared_linear.layers import bilinear
from shared_linear.layers.function import METHODS

WRONG_BY_1_PERCENT = [
    (bilinear.GradData, 'test_backward'),
    (bilinear.GradWeight, 'test_backward'),
    (bilinear.GradData, 'test_double_backward'),
    (bilinear.GradWeight, 'test_double_backward'),
]


@pytest.mark.parametrize('dtype', ['f', 'd'])
@pytest.mark.parametrize(
    'node, test', WRONG_BY_1_PERCENT,
    ids=['{}-{}'.format(n.__name__, t) for n, t in WRONG_BY_1_PERCENT])
@pytest.mark.parametrize('form, seed', [
    ('mixed', 0), *((form, seed) for form in METHODS for seed in range(5))])
def test_a_gradient_1_percent_wrong_is_caught(
        monkeypatch, node, test, form, dtype, seed):
    class Case(kinds.FormCase, testing.FunctionTestCase):
        x_dtype = W_dtype = dtype

        def runTest(self):
            getattr(self, 'run_' + test)(testing.BackendConfig({}))

    Case.form_name = form
    numpy.random.seed(seed)
    Case().debug()  # passes as it is

    forward = node.forward
    monkeypatch.setattr(
        node, 'forward',
        lambda self, inputs: tuple(
            1.01 * g for g in forward(self, inputs)))
    numpy.random.seed(seed)
    with pytest.raises(AssertionError, match='not implemented correctly'):
        Case().debug()
