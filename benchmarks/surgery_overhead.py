"""Edits cost a training step of the MNIST network at most a tenth.

Times optimizer.update of 784-1000-900-10 with Adam, plain and with the
identity inserted after both ReLUs, which costs what the edits cost and nothing
more; both are checked to compute the same loss and the same gradients, bit for
bit. The same step of a network of one unit a layer, where there is next to
nothing to compute, tells the cost by itself.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import harness  # noqa: E402  isort: skip

import numpy  # noqa: E402

from shared_linear import surgery  # noqa: E402

import chainer  # noqa: E402  isort: skip
import chainer.functions as F  # noqa: E402  isort: skip
import chainer.links as L  # noqa: E402  isort: skip


class MLP(chainer.Chain):

    def __init__(self, *widths):
        super().__init__()
        with self.init_scope():
            self.l1, self.l2, self.l3 = (
                L.Linear(n_in, n_out)
                for n_in, n_out in zip(widths, widths[1:], strict=False))

    def forward(self, x):
        h = F.relu(self.l1(x))
        h = F.relu(self.l2(h))
        return self.l3(h)


def same(h):
    return h


def training_step(model, x, t):
    optimizer = chainer.optimizers.Adam().setup(model)

    def run(mark):
        optimizer.update(lambda: F.softmax_cross_entropy(model(x), t))
        mark('step')
    return run


def check(plain, edited, x, t):
    """Stops unless both compute the same loss and gradients."""
    inserted = [
        node.inserted for node in surgery.trace(edited, x).calls
        if node.inserted]
    if inserted != ['same', 'same']:
        sys.exit('the identity does not run at both ReLUs')
    losses = []
    for model in plain, edited:
        model.cleargrads()
        losses.append(F.softmax_cross_entropy(model(x), t))
        losses[-1].backward()
    grads = dict(edited.namedparams())
    if not (losses[0].array == losses[1].array and all(
            (param.grad == grads[path].grad).all()
            for path, param in plain.namedparams())):
        sys.exit('the edited model does not compute what the plain one does')


def measure(widths, batch, device, seconds):
    random = numpy.random.RandomState(0)
    x = device.send(random.random_sample((batch, widths[0])).astype('f'))
    t = device.send(random.randint(0, widths[-1], batch).astype('i'))
    plain = MLP(*widths).to_device(device)
    edited = plain.copy('copy')
    surgery.insert_after(edited, '/ReLU*', same, x=x)
    check(plain, edited, x, t)
    return harness.compare(
        {'plain': training_step(plain, x, t),
         'edited': training_step(edited, x, t)},
        device, seconds=seconds, max_rounds=400)


def main(argv=None):
    def add_arguments(parser):
        parser.add_argument(
            '--batch', type=int, default=100, metavar='B',
            help='size of the batch (default: 100)')
        parser.add_argument(
            '--seconds', type=float, default=10,
            help='time for each network (default: 10)')

    args = harness.parse_args(__doc__.splitlines()[0], argv, add_arguments)
    results = []
    rows = []
    for widths, batch in ((784, 1000, 900, 10), args.batch), ((1,) * 4, 1):
        timings = measure(widths, batch, args.device, args.seconds)
        name = '-'.join(map(str, widths))
        ratio = timings.ratio('edited', 'plain', 'step')
        plain, edited = (
            timings.seconds(which, 'step') for which in ('plain', 'edited'))
        results.append({
            'network': name, 'batch': batch,
            'plain seconds': plain._asdict(),
            'edited seconds': edited._asdict(),
            'edited / plain': ratio._asdict()})
        rows.append([
            '{}, batch {}'.format(name, batch), harness.milliseconds(plain),
            harness.milliseconds(edited), '{:.3f} ({:.3f}-{:.3f})'.format(
                *ratio)])
    harness.print_table(
        ['network', 'plain ms', 'edited ms', 'edited / plain'], rows)
    print('\nwritten: {}'.format(harness.save(args, __file__, results)))


if __name__ == '__main__':
    main()
