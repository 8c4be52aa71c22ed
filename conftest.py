"""Names for the doctests, a seed for each test, and what a test may need."""
import functools

import numpy
import pytest

import shared_linear

import chainer  # isort: skip
import chainer.functions  # isort: skip
import chainer.links  # isort: skip
import chainerx  # isort: skip
from chainer.backends import cuda  # isort: skip


@pytest.fixture(autouse=True)
def _names_for_doctests(doctest_namespace):
    """The names that Chainer's own doctests use, and sl."""
    doctest_namespace.update(
        np=numpy, sl=shared_linear, chainer=chainer,
        F=chainer.functions, L=chainer.links)


@pytest.fixture(autouse=True)
def _seed(request):
    """Chainer's test cases and initializers draw from numpy.random.

    A link whose size is left to the first input draws on its device.
    """
    numpy.random.seed(0)
    if request.node.get_closest_marker('gpu') and _why_no_gpu() is None:
        cuda.cupy.random.seed(0)


@pytest.fixture(autouse=True)
def _onnx_for_its_doctests(request):
    if request.node.name.startswith('shared_linear.onnx.'):
        pytest.importorskip('onnx', reason='needs the extra "onnx"')


@pytest.fixture(params=['@cupy:0', '@cupy:1'])
def some_gpu(request):
    """The GPU that is in use; and another one, while that stays in use."""
    device = chainer.get_device(request.param)
    if cuda.cupy.cuda.runtime.getDeviceCount() <= device.device.id:
        pytest.skip('needs two GPUs')
    with chainer.using_device('@cupy:0'):
        yield device
        assert cuda.cupy.cuda.Device().id == 0


@functools.lru_cache
def _why_no_gpu():
    if not cuda.available:
        return 'needs CuPy: {}'.format(
            str(cuda._resolution_error).strip().splitlines()[0])
    try:
        if cuda.cupy.cuda.runtime.getDeviceCount() > 0:
            return None
    except cuda.cupy.cuda.runtime.CUDARuntimeError as e:
        return 'needs a GPU: {}'.format(e)
    return 'needs a GPU: CuPy finds none'


def _why_no_chainerx():
    if chainerx.is_available():
        return None
    return 'needs ChainerX: this Chainer was built without it'


# By the markers that chainer.testing's backends bear too.
_NEEDS = {'gpu': _why_no_gpu, 'chainerx': _why_no_chainerx}


def pytest_runtest_setup(item):
    for marker, why_not in _NEEDS.items():
        if item.get_closest_marker(marker) is not None:
            reason = why_not()
            if reason is not None:
                pytest.skip(reason)
