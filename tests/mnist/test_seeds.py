import random

import chainer
import numpy

from mnist import seeds

CPU = chainer.get_device('@numpy')


def draw():
    # An odd number of normal deviates leaves one behind, which counts.
    return (random.random(), random.gauss(0, 1), numpy.random.rand(),
            numpy.random.randn(), numpy.random.permutation(20).tolist())


def test_a_seed_repeats():
    seeds.seed_all(5, CPU)
    first = draw()
    second = draw()
    assert first != second
    seeds.seed_all(5, CPU)
    assert (draw(), draw()) == (first, second)
    seeds.seed_all(6, CPU)
    assert draw()[0] != first[0]
    assert draw()[2] != first[2]


def test_a_state_goes_on():
    seeds.seed_all(5, CPU)
    draw()
    state = seeds.get_state()
    expected = draw(), draw()
    seeds.seed_all(0, CPU)
    seeds.set_state(state)
    assert (draw(), draw()) == expected
