"""The tolerances of the gradient checks are tight enough to tell."""
import cases
import numpy
import pytest
from chainer import testing

from shared_linear.layers import bilinear, function

WRONG_BY_1_PERCENT = [
    (bilinear.GradData, 'test_backward'),
    (bilinear.GradWeight, 'test_backward'),
    (bilinear.GradData, 'test_double_backward'),
    (bilinear.GradWeight, 'test_double_backward'),
]


@pytest.mark.parametrize('dtype', ['f', 'd'])
@pytest.mark.parametrize('method', function.METHODS)
@pytest.mark.parametrize(
    'node, test', WRONG_BY_1_PERCENT,
    ids=['{}-{}'.format(n.__name__, t) for n, t in WRONG_BY_1_PERCENT])
@pytest.mark.parametrize('seed', range(5))
def test_a_gradient_1_percent_wrong_is_caught(
        monkeypatch, node, test, method, dtype, seed):
    class Case(cases.SharedLinearCase, testing.FunctionTestCase):
        x_dtype = W_dtype = dtype

        def runTest(self):
            getattr(self, 'run_' + test)(testing.BackendConfig({}))

    Case.method = method
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
