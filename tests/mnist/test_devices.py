import types

import chainer
import chainerx
import pytest
from chainer.backends import cuda, intel64

from mnist.devices import get_device
from mnist.errors import UserError


@pytest.fixture
def without_cupy(monkeypatch):
    monkeypatch.setattr(cuda, 'available', False)
    monkeypatch.setattr(
        cuda, '_resolution_error', ImportError("No module named 'cupy'\nsee"))


class NoDriver(Exception):
    """In the place of CuPy's CUDARuntimeError."""


@pytest.fixture
def gpus(monkeypatch):
    """gpus(n): as with CuPy and n GPUs; with n an error, as with that."""
    def gpus(n):
        def count():
            if isinstance(n, Exception):
                raise n
            return n
        runtime = types.SimpleNamespace(
            getDeviceCount=count, CUDARuntimeError=NoDriver)
        monkeypatch.setattr(cuda, 'available', True)
        monkeypatch.setattr(cuda, 'cupy', types.SimpleNamespace(
            cuda=types.SimpleNamespace(runtime=runtime)))
        made = []
        monkeypatch.setattr(
            chainer, 'get_device', lambda spec: made.append(spec) or 'made')
        return made
    return gpus


@pytest.mark.parametrize('spec', ['-1', '-2', '@numpy'])
def test_cpu(spec):
    assert get_device(spec) == chainer.get_device('@numpy')


@pytest.mark.parametrize(('spec', 'number'), [
    ('0', 0), ('1', 1), ('@cupy:0', 0), ('@cupy:1', 1)])
def test_gpu(gpus, spec, number):
    made = gpus(2)
    assert get_device(spec) == 'made'
    assert made == [number]


@pytest.mark.parametrize('spec', ['0', '@cupy:1'])
def test_cupy_is_missing(without_cupy, spec):
    with pytest.raises(UserError, match=(
            rf'--device {spec} needs CuPy \(No module named .cupy.\): '
            r'pip install "\.\[cuda12\]"')) as e:
        get_device(spec)
    assert '\n' not in str(e.value)


def test_no_driver(gpus):
    gpus(NoDriver('cudaErrorInsufficientDriver'))
    with pytest.raises(UserError, match=(
            'finds no GPU .*cudaErrorInsufficientDriver.*-d -1 is the CPU')):
        get_device('0')


@pytest.mark.parametrize(('n', 'message'), [
    (0, 'no GPU 2; -1 or @numpy is the CPU, and this machine has no GPU'),
    (1, 'no GPU 2; -1 or @numpy is the CPU, 0 or @cupy:0 the GPU$'),
    (2, 'no GPU 2; .* 0 to 1 or @cupy:0 to @cupy:1 the GPUs$'),
])
def test_number_out_of_range(gpus, n, message):
    gpus(n)
    with pytest.raises(UserError, match=f'--device 2: there is {message}'):
        get_device('2')


@pytest.mark.parametrize('spec', [
    'gpu', 'cpu', '@cpu', '@cupy', '@cupy:', '@cupy:-1', '@cupy:x', 'cupy:0',
    '@numpy:0', '', '1.5', '--1', ' 0', '\u0661'])
def test_no_such_device(without_cupy, spec):
    with pytest.raises(UserError, match=(
            'no such device; -1 or @numpy is the CPU, and this machine has '
            'no GPU that CuPy can use')):
        get_device(spec)


def test_no_such_device_beside_a_gpu(gpus):
    gpus(1)
    with pytest.raises(UserError, match='0 or @cupy:0 the GPU$'):
        get_device('gpu')


@pytest.mark.parametrize('spec', ['native', 'native:0', 'cuda', 'cuda:0'])
def test_chainerx_is_not_built(without_cupy, spec, monkeypatch):
    monkeypatch.setattr(chainerx, 'is_available', lambda: False)
    with pytest.raises(UserError, match=(
            'ChainerX, which this Chainer is built without; -1 or @numpy')):
        get_device(spec)


def test_ideep_is_not_installed(without_cupy, monkeypatch):
    monkeypatch.setattr(intel64, 'is_ideep_available', lambda: False)
    with pytest.raises(UserError, match='needs iDeep, .* -1 or @numpy'):
        get_device('@intel64')
