"""Random numbers that a run can be repeated with, and gone on with."""
import json
import random

import chainer
import numpy


def seed_all(seed: int, device: chainer.backend.Device) -> None:
    """Seeds Python's, NumPy's and, on a GPU, CuPy's random numbers.

    Args:
        seed (int): From 0 to 2**32 - 1.
        device (chainer.backend.Device): Where the run computes.
    """
    random.seed(seed)
    numpy.random.seed(seed)
    if isinstance(device, chainer.backend.GpuDevice):
        with chainer.using_device(device):
            device.xp.random.seed(seed)


def get_state() -> str:
    """Returns the state of Python's and NumPy's random numbers, as JSON.

    CuPy's has no state that can be kept. Nothing here draws from it: weights
    are drawn on the CPU, and so is the order of the digits.
    """
    state = numpy.random.get_state(legacy=False)
    state['state']['key'] = state['state']['key'].tolist()
    return json.dumps({'python': random.getstate(), 'numpy': state})


def check_state(state: str) -> None:
    """Raises ValueError if a text is no state of random numbers.

    Other errors of Python may say so as well.
    """
    states = json.loads(state)
    version, internal, gauss = states['python']
    random.Random().setstate((version, tuple(internal), gauss))
    numpy.random.RandomState().set_state(states['numpy'])


def set_state(state: str) -> None:
    """Goes back to a state that :func:`get_state` returned."""
    states = json.loads(state)
    version, internal, gauss = states['python']
    random.setstate((version, tuple(internal), gauss))
    numpy.random.set_state(states['numpy'])
