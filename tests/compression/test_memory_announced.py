"""What compressing takes is said beforehand, and is what it takes."""
import re
import subprocess
import sys
import textwrap

import numpy
import pytest

import shared_linear as sl
from shared_linear.compression import capture, folds, memory
from shared_linear.compression.inputs import Batch

import chainer  # isort: skip
import chainer.functions as F  # isort: skip
import chainer.links as L  # isort: skip

GIB = 2 ** 30

SCRIPT = textwrap.dedent('''
    import resource
    import numpy
    import shared_linear as sl
    import chainer.functions as F, chainer.links as L
    from chainer import Sequential

    def status(what):
        for line in open('/proc/self/status'):
            if line.startswith(what + ':'):
                return 1024 * int(line.split()[1])

    def compress():
        return sl.compress(model, x, .2, n_sweeps=1)[1].memory

    rng = numpy.random.RandomState(0)
    model = Sequential(L.Linear({0}, 300), F.relu, L.Linear(300, 30))
    x = rng.normal(size=({1}, {0})).astype('f')
    open('/proc/self/clear_refs', 'w').write('5')
    before = status('VmRSS')
    announced = compress()
    print(status('VmHWM') - before, announced)

    def limit(part):
        stacks = 2 * -(-len(x) // 500) * resource.getrlimit(
            resource.RLIMIT_STACK)[0]
        resource.setrlimit(resource.RLIMIT_AS, (
            status('VmSize') + stacks + int(part * announced),
            resource.RLIM_INFINITY))

    limit(1.05)
    compress()
    limit(.5)
    try:
        compress()
    except MemoryError as error:
        print(error)
''')


@pytest.mark.skipif(
    not sys.platform.startswith('linux'), reason='reads /proc')
@pytest.mark.parametrize('in_size,n_inputs', [(298, 2000), (1202, 1000)])
def test_no_more_than_is_announced(in_size, n_inputs):
    """By covariances and by samples; and under a limit of as much."""
    run = subprocess.run(
        [sys.executable, '-c', SCRIPT.format(in_size, n_inputs)],
        capture_output=True, text=True, check=True,
        preexec_fn=limit_stacks)
    taken, announced, message = run.stdout.split(maxsplit=2)
    assert 2 ** 23 < int(taken) < int(announced) < 2 ** 25 + 4 * int(taken)
    assert re.fullmatch(
        'fitting the layers takes about .* GiB, the most for /0 of {} inputs '
        'and 300 outputs with {:,} calibration inputs, but .* GiB are free: '
        'give fewer inputs, or exclude the layer'.format(in_size, n_inputs),
        message.strip())


def limit_stacks():
    import resource
    resource.setrlimit(
        resource.RLIMIT_STACK,
        (2 ** 23, resource.getrlimit(resource.RLIMIT_STACK)[1]))


def test_what_runs_out_on_the_way_names_the_layer(monkeypatch):
    def find_fold(*args, **kwargs):
        raise MemoryError('Unable to allocate 7 GiB')

    model = chainer.Sequential(L.Linear(8, 6), F.relu, L.Linear(6, 4))
    x = numpy.random.RandomState(0).normal(size=(50, 8)).astype('f')
    monkeypatch.setattr(folds, 'find_fold', find_fold)
    with pytest.raises(MemoryError, match=(
            '/0: Unable to allocate 7 GiB: give fewer inputs, or exclude')):
        sl.compress(model, x, .5)


def test_the_limit_of_a_container(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, 'CGROUPS', str(tmp_path))
    monkeypatch.setattr(memory, '_of_machine', lambda: 40 * GIB)
    monkeypatch.setattr(memory, 'resource', None)
    assert memory.available() == 40 * GIB
    (tmp_path / 'memory.max').write_text('max\n')
    (tmp_path / 'memory.current').write_text('{}\n'.format(3 * GIB))
    assert memory.available() == 40 * GIB
    (tmp_path / 'memory.max').write_text('{}\n'.format(8 * GIB))
    assert memory.available() == 5 * GIB
    # Files that were read once can go.
    (tmp_path / 'memory.stat').write_text(
        'anon 5\nfile 9\ninactive_file {}\nactive_file 7\n'.format(GIB))
    assert memory.available() == 6 * GIB


@pytest.mark.parametrize('of_float64', [False, True])
def test_what_waits_for_its_turn_counts(of_float64):
    """A skip over two layers waits until they are through."""
    class Model(chainer.Chain):

        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.l1 = L.Linear(10, 40)
                self.l2 = L.Linear(40, 7)
                self.l3 = L.Linear(7, 40)

        def forward(self, x):
            h = F.tanh(self.l1(x))
            return h + self.l3(self.l2(h))

    dtype = numpy.float64 if of_float64 else numpy.float32
    with chainer.using_config('dtype', dtype):
        model = Model()
    x = numpy.zeros((5, 10), dtype)
    recorded = capture.run(
        model, Batch([x]), {'/l1': model.l1, '/l2': model.l2,
                            '/l3': model.l3}, graph=True)
    waiting, whole = memory._of_runs(
        recorded, {'/l1': 1., '/l2': 1., '/l3': 1.})
    # The skip, the output of l3, and their sum.
    size = x.dtype.itemsize
    assert waiting == 3 * 40 * size
    assert whole == (4 * 40 + 7) * size
