"""Test cases that several files share."""
import chainerx
import numpy
import reference

import shared_linear as sl

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


class ThreeDraws:

    """Checks gradients along three random directions.

    Along one alone, what is wrong with one input's gradient may be small
    beside the gradients of the others.
    """

    def run_test_backward(self, backend_config):
        for _ in range(3):
            super().run_test_backward(backend_config)

    def run_test_double_backward(self, backend_config):
        for _ in range(3):
            super().run_test_double_backward(backend_config)


class SharedLinearCase(ThreeDraws):

    batch_shape = (4,)
    data_shape = (12,)
    out_size = 3
    n_tiles = 3
    x_dtype = W_dtype = 'f'
    nobias = False
    method = 'fold'

    def setUp(self):
        tolerance = TOLERANCES[min(
            self.x_dtype, self.W_dtype, key='efd'.index)]
        self.check_forward_options = tolerance
        self.check_backward_options = tolerance
        self.check_double_backward_options = tolerance

    def generate_inputs(self):
        in_size = int(numpy.prod(self.data_shape))
        x = numpy.random.uniform(-1, 1, self.batch_shape + self.data_shape)
        W = numpy.random.uniform(
            -1, 1, (self.out_size, in_size // self.n_tiles))
        b = numpy.random.uniform(-1, 1, self.out_size)
        inputs = x.astype(self.x_dtype), W.astype(self.W_dtype)
        if self.nobias:
            return inputs
        return inputs + (b.astype(self.x_dtype),)

    def forward(self, inputs, device):
        return sl.shared_linear(
            *inputs, n_batch_axes=len(self.batch_shape), method=self.method),

    def forward_expected(self, inputs):
        y = reference.shared_linear(
            *inputs, n_batch_axes=len(self.batch_shape))
        return y.astype(self.x_dtype),
