"""Test cases that several files share."""
import chainerx

# NumPy always; CuPy is marked gpu, and skipped where there is none.
BACKENDS = [{}, {'use_cuda': True}]
if chainerx.is_available():
    BACKENDS += [{'use_chainerx': True, 'chainerx_device': 'native:0'}]

# Chainer's own 1e-2 passes many a gradient that is several percent wrong.
TOLERANCES = {
    'e': {'atol': 3e-3, 'rtol': 3e-2},
    'f': {'atol': 1e-5, 'rtol': 1e-3},
    'd': {'atol': 1e-9, 'rtol': 1e-7},
}

# Of an array, others of its shape, whose elements lie otherwise.
LAYOUTS = {
    'C': lambda xp, x: x,
    'F': lambda xp, x: xp.asfortranarray(x),
    'reversed': lambda xp, x: x[..., ::-1],
    'rows reversed': lambda xp, x: x[::-1],
    'broadcast rows': lambda xp, x: xp.broadcast_to(x[:1], x.shape),
    'broadcast': lambda xp, x: xp.broadcast_to(x[:1, ..., :1], x.shape),
    'every second': lambda xp, x: xp.repeat(x, 2, axis=-1)[..., ::2],
    'every second row': lambda xp, x: xp.repeat(x, 2, axis=0)[::2],
    'a part': lambda xp, x: xp.concatenate([x, x], axis=-1)[
        ..., x.shape[-1] // 2:][..., :x.shape[-1]],
    'a wider row': lambda xp, x: xp.concatenate(
        [x, x[..., :1]], axis=-1)[..., :-1],
    'from the third': lambda xp, x: xp.concatenate(
        [x[..., :3], x], axis=-1)[..., 3:],
    'axes swapped': lambda xp, x: x.swapaxes(0, -2).copy().swapaxes(0, -2),
}


class FourDraws:

    """Checks gradients along four random directions.

    Along one alone, what is wrong with one input's gradient may be small
    beside the gradients of the others.
    """

    def run_test_backward(self, backend_config):
        for _ in range(4):
            super().run_test_backward(backend_config)

    def run_test_double_backward(self, backend_config):
        for _ in range(4):
            super().run_test_double_backward(backend_config)
