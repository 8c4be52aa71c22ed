"""What tests on a GPU need."""
import contextlib

import chainer
import numpy


def keep_busy(xp, seconds):
    """Gives the stream in use a kernel that takes so long."""
    xp.RawKernel(r'''
        __device__ unsigned long long nanoseconds() {
            unsigned long long now;
            asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
            return now;
        }
        extern "C" __global__ void keep_busy(unsigned long long duration) {
            const unsigned long long begin = nanoseconds();
            while (nanoseconds() - begin < duration) {}
        }''', 'keep_busy')((1,), (1,), (numpy.uint64(seconds * 1e9),))


def launches_wait(stream, xp):
    """Whether a launch waits for its kernel, as on no GPU."""
    keep_busy(xp, .1)
    waits = stream.done
    stream.synchronize()
    return waits


@contextlib.contextmanager
def random_numbers_go_on(device):
    """Asserts that those of a GPU are after a block as if it were not there.
    """
    def draw():
        with chainer.using_device(device):
            return chainer.get_device('@numpy').send(
                device.xp.random.normal(size=4))

    def seed():
        with chainer.using_device(device):
            device.xp.random.seed(5)

    seed()
    draw()
    expected = draw()
    seed()
    draw()
    yield
    numpy.testing.assert_array_equal(draw(), expected)
