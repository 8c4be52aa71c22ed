"""Runs keep to their own thread, and leave nothing behind."""
import copy
import threading

import chainer
import chainer.functions as F
import numpy as np
import pytest
from networks import MLP, OldStyle, Skips, randomize, vectors

from shared_linear import surgery
from shared_linear.surgery.interposition import local


def test_two_models_in_two_threads_do_not_disturb_each_other():
    plain = randomize(Skips())
    models = [plain, copy.deepcopy(plain), copy.deepcopy(plain)]
    surgery.insert_after(models[1], '/ReLU', F.tanh)
    surgery.insert_after(models[2], '/ReLU', F.sigmoid)
    surgery.rewire(models[2], '/Concat', input=0, source='/a')
    x = vectors()
    expected = [model(x).array for model in models]
    assert not np.array_equal(expected[1], expected[2])
    assert not np.array_equal(expected[0], expected[1])
    barrier = threading.Barrier(3)
    wrong, errors = [0, 0, 0], []

    def work(i):
        try:
            for _ in range(60):
                barrier.wait(timeout=30)
                y = models[i](x)
                wrong[i] += not np.array_equal(y.array, expected[i])
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert wrong == [0, 0, 0]


def test_a_run_in_one_thread_is_not_seen_in_another():
    model = randomize(MLP())
    seen = []
    inside, done = threading.Event(), threading.Event()

    def waits(h):
        inside.set()
        assert done.wait(30)
        return h

    surgery.insert_after(model, '/l1', waits, name='waits')
    thread = threading.Thread(
        target=lambda: seen.append(model(vectors()).shape))
    thread.start()
    assert inside.wait(30)
    # The first run tries the edit, and then runs: both wait here.
    assert local.run is None
    y = F.relu(vectors())
    np.testing.assert_array_equal(y.array, np.maximum(vectors(), 0))
    done.set()
    thread.join()
    assert seen == [(4, 3)]


@pytest.mark.parametrize('how', ['forward', '__call__'])
def test_an_exception_in_the_run_leaves_nothing_installed(how):
    before = (chainer.FunctionNode.__dict__['apply'],
              chainer.Link.__dict__['__call__'])
    model = MLP()
    surgery.insert_after(model, '/ReLU', F.tanh, x=vectors())
    with pytest.raises(chainer.utils.type_check.InvalidType):
        getattr(model, how)(vectors(width=7))
    assert local.run is None
    assert (chainer.FunctionNode.__dict__['apply'],
            chainer.Link.__dict__['__call__']) == before
    assert model(vectors()).shape == (4, 3)


def test_running_leaves_the_classes_as_they_were():
    model = OldStyle()
    own = OldStyle.__dict__['__call__']
    surgery.insert_after(model, '/OldSquare', F.tanh)
    model(vectors())
    assert OldStyle.__dict__['__call__'] is own
    other = OldStyle()
    np.testing.assert_array_equal(
        other(vectors()).array, other.l1(vectors()).array ** 2)


def test_editing_one_model_leaves_its_class_alone():
    one, other = randomize(MLP()), randomize(MLP())
    surgery.replace(one, '/ReLU*', F.tanh)
    surgery.remove(one, 'Dropout')
    one(vectors())
    assert type(other) is MLP
    with chainer.using_config('train', False):
        h = F.relu(other.l2(F.relu(other.l1(vectors()))))
        np.testing.assert_array_equal(
            other(vectors()).array, other.l3(h).array)
