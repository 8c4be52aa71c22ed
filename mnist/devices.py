"""Devices by the names that Chainer gives them."""
import re

import chainer
import chainerx  # type: ignore[import-untyped]
from chainer.backends import cuda, intel64

from mnist.errors import UserError

INSTALL_CUPY = 'pip install ".[cuda12]" (or cuda13)'


def get_device(spec: str) -> chainer.backend.Device:
    """Returns the device of a name, if this machine has it.

    Args:
        spec (str): A negative number or ``@numpy`` for the CPU, a number or
            ``@cupy:N`` for a GPU; ``@intel64``, ``native`` and ``cuda:N``
            where iDeep and ChainerX are.

    Raises:
        UserError: If no device has that name, or this machine lacks it; the
            message says what is missing.
    """
    if spec == '@numpy' or re.fullmatch(r'-[0-9]+', spec):
        return chainer.get_device('@numpy')
    gpu = re.fullmatch(r'(?:@cupy:)?([0-9]+)', spec)
    if gpu:
        return _get_gpu(spec, int(gpu[1]))
    if spec == '@intel64':
        if not intel64.is_ideep_available():
            raise UserError(
                f'--device {spec} needs iDeep, which is not installed; '
                f'{_devices_here()}')
        return chainer.get_device(spec)
    if re.fullmatch(r'(native|cuda)(:[0-9]+)?', spec):
        return _get_chainerx(spec)
    raise UserError(f'--device {spec}: no such device; {_devices_here()}')


def _get_gpu(spec: str, number: int) -> chainer.backend.Device:
    if not cuda.available:
        reason = str(cuda._resolution_error).strip().partition('\n')[0]
        raise UserError(
            f'--device {spec} needs CuPy ({reason}): {INSTALL_CUPY}, or '
            f'-d -1 for the CPU')
    try:
        n_gpus = _count_gpus()
    except cuda.cupy.cuda.runtime.CUDARuntimeError as e:
        raise UserError(
            f'--device {spec}: CuPy is installed and finds no GPU or no '
            f'driver for it ({e}); -d -1 is the CPU') from e
    if number >= n_gpus:
        raise UserError(
            f'--device {spec}: there is no GPU {number}; {_devices_here()}')
    return chainer.get_device(number)


def _get_chainerx(spec: str) -> chainer.backend.Device:
    if not chainerx.is_available():
        raise UserError(
            f'--device {spec} is a device of ChainerX, which this Chainer is '
            f'built without; {_devices_here()}')
    try:
        return chainer.get_device(spec)
    except chainerx.ChainerxError as e:
        raise UserError(f'--device {spec}: {e}; {_devices_here()}') from e


def _devices_here() -> str:
    """What works on this machine, for the end of an error."""
    here = '-1 or @numpy is the CPU'
    try:
        n_gpus = _count_gpus() if cuda.available else 0
    except cuda.cupy.cuda.runtime.CUDARuntimeError:
        n_gpus = 0
    if n_gpus == 0:
        return f'{here}, and this machine has no GPU that CuPy can use'
    if n_gpus == 1:
        return f'{here}, 0 or @cupy:0 the GPU'
    last = n_gpus - 1
    return f'{here}, 0 to {last} or @cupy:0 to @cupy:{last} the GPUs'


def _count_gpus() -> int:
    return cuda.cupy.cuda.runtime.getDeviceCount()
