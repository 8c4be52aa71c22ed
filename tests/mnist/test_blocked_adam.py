"""Adam in blocks: Chainer's, bit for bit."""
import chainer
import numpy
import pytest

from mnist import blocked_adam
from mnist.blocked_adam import BlockedAdam


def make(kind, dtype, shape, **options):
    numpy.random.seed(1)
    link = chainer.Link()
    with link.init_scope():
        link.W = chainer.Parameter(numpy.random.randn(*shape).astype(dtype))
    return link, kind(**options).setup(link)


def step(link, optimizer, i):
    random = numpy.random.RandomState(i)
    link.W.grad = (10. ** random.randint(-6, 3) * random.randn(
        *link.W.shape)).astype(link.W.dtype)
    optimizer.update()


@pytest.mark.parametrize('dtype', ['f', 'd', 'e'])
@pytest.mark.parametrize('options', [
    {}, {'alpha': .1, 'beta1': .5, 'beta2': .9, 'eps': 1e-3, 'eta': .7},
    {'amsgrad': True}, {'weight_decay_rate': .1}, {'adabound': True}])
@pytest.mark.parametrize('shape', [(7, 9), (1,), (30,), (0, 3)])
def test_every_bit(monkeypatch, dtype, options, shape):
    monkeypatch.setattr(blocked_adam, 'BLOCK', 10)
    if dtype == 'e':
        options = {'eps': 1e-4, **options}
    pairs = [
        make(kind, dtype, shape, **options)
        for kind in (chainer.optimizers.Adam, BlockedAdam)]
    before = pairs[1][0].W.array.copy()
    for i in range(20):
        for link, optimizer in pairs:
            step(link, optimizer, i)
    (ours, _), (theirs, _) = pairs
    numpy.testing.assert_array_equal(ours.W.array, theirs.W.array)
    for name in 'm', 'v':
        numpy.testing.assert_array_equal(
            ours.W.update_rule.state[name], theirs.W.update_rule.state[name])
    assert before.size == 0 or (theirs.W.array != before).any()


def test_a_weight_that_does_not_lie_in_one_piece():
    """Its blocks would be copies, and the step lost."""
    pairs = [
        make(kind, 'f', (6, 8))
        for kind in (chainer.optimizers.Adam, BlockedAdam)]
    for link, optimizer in pairs:
        link.W.array = numpy.asfortranarray(link.W.array)
        before = link.W.array.copy()
        step(link, optimizer, 0)
        assert (link.W.array != before).all()
    numpy.testing.assert_array_equal(
        pairs[0][0].W.array, pairs[1][0].W.array)


def test_no_gradient():
    link, optimizer = make(BlockedAdam, 'f', (3,))
    before = link.W.array.copy()
    link.cleargrads()
    optimizer.update()
    numpy.testing.assert_array_equal(link.W.array, before)


def test_a_run_goes_on_with_either(run, tmp_path):
    """One epoch with each are two with one, bit for bit."""
    assert run('-e', 1)[0] == 0
    assert run('-e', 2, '-r', '--optimizer', 'adam')[0] == 0
    assert run(
        '-e', 2, '--optimizer', 'adam', '-o', tmp_path / 'unbroken')[0] == 0
    with numpy.load(tmp_path / 'result' / 'snapshot_iter_12') as ours, (
            numpy.load(tmp_path / 'unbroken' / 'snapshot_iter_12')) as theirs:
        names = [name for name in theirs if name.startswith('updater/')]
        assert len(names) > 20
        for name in names:
            numpy.testing.assert_array_equal(ours[name], theirs[name])
