"""A training step of the MNIST network: shared, tiled, dense; where it goes.

Times optimizer.update of 784 -> 1000 -> 900 -> 10 with Adam: forward,
backward and the update of the parameters. The second layer (1000 -> 900) is
shared by n tiles, with Chainer's Adam and with the same in blocks, or the
same by repeating its weight, or dense. Where PyTorch is installed, the same
network there: dense, tiled, and folded by hand, with its Adam, and folded
with its fused Adam.
"""
import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import harness  # noqa: E402  isort: skip

import numpy  # noqa: E402

from benchmarks.layer_speed import TiledLinear  # noqa: E402
from mnist.blocked_adam import BlockedAdam  # noqa: E402
from mnist.network import MLP  # noqa: E402

import chainer  # noqa: E402  isort: skip
import chainer.links as L  # noqa: E402  isort: skip
from chainer import optimizers  # noqa: E402  isort: skip

N_UNITS, N_OUT_UNITS = 1000, 900
KINDS = ['shared', 'shared, Adam in blocks', 'tile', 'dense']


def make_network(kind, n_tiles, device):
    model = MLP(
        N_UNITS, N_OUT_UNITS, n_tiles=n_tiles,
        layer='linear' if kind == 'dense' else 'shared')
    if kind == 'tile':
        tiled = TiledLinear(
            N_UNITS, N_OUT_UNITS, nobias=True,
            initialW=model.l2.W.array, n_tiles=n_tiles)
        del model.l2
        with model.init_scope():
            model.l2 = tiled
    model = L.Classifier(model).to_device(device)
    optimizer = (
        BlockedAdam() if kind.endswith('in blocks') else optimizers.Adam())
    optimizer.setup(model)
    return model, optimizer


def training_step(kind, n_tiles, x, t, device):
    model, optimizer = make_network(kind, n_tiles, device)

    def run(mark):
        loss = model(x, t)
        mark('forward')
        model.cleargrads()
        loss.backward()
        mark('forward + backward')
        del loss
        optimizer.update()
        mark('step')
    return model, run


def torch_network(kind, shared):
    """The network in PyTorch, with the weights of the shared one."""
    import torch
    from torch import nn

    class Second(nn.Module):

        def __init__(self):
            super().__init__()
            self.n_tiles = shared.l2.n_tiles
            W = torch.tensor(harness.to_numpy(shared.l2.W.array))
            if kind == 'torch dense':
                W = W.repeat(1, self.n_tiles)
            self.W = nn.Parameter(W)

        def forward(self, x):
            W = self.W
            if kind == 'torch tile':
                W = W.repeat(1, self.n_tiles)
            elif kind.startswith('torch fold'):
                x = x.view(len(x), self.n_tiles, -1).sum(1)
            return nn.functional.linear(x, W)

    def dense(link):
        layer = nn.Linear(*reversed(link.W.shape))
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(harness.to_numpy(link.W.array)))
            layer.bias.copy_(torch.tensor(harness.to_numpy(link.b.array)))
        return layer

    return nn.Sequential(
        dense(shared.l1), nn.ReLU(), Second(), nn.ReLU(), dense(shared.l3))


TORCH = {
    # By name, whether Adam is the fused one.
    'torch dense': False, 'torch tile': False, 'torch fold': False,
    'torch fold, fused Adam': True}


def torch_step(kind, shared, x, t):
    """A step in PyTorch, as :func:`training_step`."""
    import torch
    torch.set_num_threads(int(harness.os.environ['OMP_NUM_THREADS']))
    x, t = torch.tensor(x), torch.tensor(t, dtype=torch.long)
    network = torch_network(kind, shared)
    # Chainer's Adam steps along the same moments with the same numbers.
    adam = torch.optim.Adam(
        network.parameters(), lr=1e-3, eps=1e-8, fused=TORCH[kind])

    def run(mark):
        loss = torch.nn.functional.cross_entropy(network(x), t)
        mark('forward')
        adam.zero_grad()
        loss.backward()
        mark('forward + backward')
        adam.step()
        mark('step')
    return network, run


def check_torch(network, shared, x):
    """The network in PyTorch agrees with the shared one."""
    import torch
    with torch.no_grad(), chainer.using_config('train', False), \
            chainer.no_backprop_mode():
        harness.check_close(
            network(torch.tensor(x)).numpy(),
            harness.to_numpy(shared.predictor(x).array).astype('d'),
            'a network in PyTorch against the shared one')


def check(shared, tile, x):
    """The shared and the tiled network, of equal weights, agree."""
    tile.copyparams(shared)
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        harness.check_close(
            shared.predictor(x).array,
            harness.to_numpy(tile.predictor(x).array).astype('d'),
            'the shared network against the tiled one')


class FunctionTimer(chainer.FunctionHook):
    """Times each function of the graph, with what its backward calls."""

    def __init__(self, clock):
        self.marks = []
        self._clock = clock
        self._running = []

    def forward_preprocess(self, function, in_data):
        self._running.append(self._clock.mark())

    def forward_postprocess(self, function, in_data):
        start = self._running.pop()
        if not self._running:
            self.marks.append((function.label, start, self._clock.mark()))

    def backward_preprocess(self, function, in_data, out_grad):
        self.forward_preprocess(function, in_data)

    def backward_postprocess(self, function, in_data, out_grad):
        self.forward_postprocess(function, in_data)


def shares_of_a_step(kind, n_tiles, x, t, device, steps=20, clock=None):
    """Seconds of a step in each function, in Adam, and in what is left."""
    clock = clock or harness.Clock(device)
    _, run = training_step(kind, n_tiles, x, t, device)
    run(lambda part: None)
    shares = {}
    total = 0.
    for _ in range(steps):
        marks = {}
        start = clock.mark()
        with FunctionTimer(clock) as timer:
            run(lambda part, m=marks: m.update({part: clock.mark()}))
        timer.marks.append(
            ('Adam', marks['forward + backward'], marks['step']))
        total += clock.seconds_between(start, marks['step'])
        for name, begin, end in timer.marks:
            shares[name] = (
                shares.get(name, 0.) + clock.seconds_between(begin, end))
    shares['Chainer, between them'] = total - sum(shares.values())
    return {name: s / steps for name, s in shares.items()}


def plot(results, path):
    figure, ((axis,),) = harness.new_figure()
    batches = sorted({r['batch'] for r in results})
    kinds = list(dict.fromkeys(r['kind'] for r in results))
    width = .8 / len(kinds)
    for i, kind in enumerate(kinds):
        values = [
            next(r for r in results
                 if (r['kind'], r['batch']) == (kind, batch))
            for batch in batches]
        axis.bar(
            numpy.arange(len(batches)) + (i - (len(kinds) - 1) / 2) * width,
            [v['step seconds']['median'] / v['dense seconds']
             for v in values], width=.9 * width, label=kind)
    axis.axhline(1, color='k', lw=.5)
    axis.set(
        xticks=range(len(batches)), xticklabels=batches, xlabel='batch',
        ylabel='time of a step, dense = 1', title='MNIST network, Adam')
    axis.legend()
    figure.savefig(path, dpi=100)


def main(argv=None):
    def add_arguments(parser):
        parser.add_argument(
            '--batch', type=int, nargs='+', default=[10, 100, 1000],
            metavar='B')
        parser.add_argument('--n-tiles', type=int, default=10, metavar='N')
        parser.add_argument(
            '--seconds', type=float, default=8,
            help='time for each batch size (default: 8)')
        parser.add_argument(
            '--no-torch', action='store_true',
            help='leave PyTorch out, although it is installed')

    args = harness.parse_args(__doc__.splitlines()[0], argv, add_arguments)
    with_torch = not args.no_torch and args.device.xp is numpy and (
        importlib.util.find_spec('torch') is not None)
    random = numpy.random.RandomState(0)
    results = []
    rows = []
    tables = []
    for batch in args.batch:
        x = args.device.send(random.random_sample((batch, 784)).astype('f'))
        t = args.device.send(random.randint(0, 10, batch).astype('i'))
        steps = {
            kind: training_step(kind, args.n_tiles, x, t, args.device)
            for kind in KINDS}
        check(steps['shared'][0], steps['tile'][0], x)
        if with_torch:
            shared = steps['shared'][0]
            steps.update({
                kind: torch_step(kind, shared.predictor, x, t)
                for kind in TORCH})
            for kind in TORCH:
                check_torch(steps[kind][0], shared, x)
        timings = harness.compare(
            {kind: run for kind, (_, run) in steps.items()}, args.device,
            seconds=args.seconds)
        for kind in steps:
            step = timings.seconds(kind, 'step')
            ratio = timings.ratio('dense', kind, 'step')
            shares = {} if kind in TORCH else shares_of_a_step(
                kind, args.n_tiles, x, t, args.device)
            results.append({
                'batch': batch, 'kind': kind, 'n_tiles': args.n_tiles,
                'step seconds': step._asdict(),
                'dense seconds': timings.seconds('dense', 'step').median,
                'dense / this': ratio._asdict(),
                'this / shared': timings.ratio(
                    kind, 'shared', 'step')._asdict(),
                'seconds by function': shares,
            })
            rows.append([
                'batch {}, {}'.format(batch, kind),
                *(harness.milliseconds(timings.seconds(kind, part))
                  for part in ('forward', 'forward + backward', 'step')),
                harness.times(ratio),
                harness.times(timings.ratio(kind, 'shared', 'step'))])
            if shares:
                tables.append(('batch {}, {}'.format(batch, kind), shares))
    harness.print_table(
        ['network', 'forward ms', '+ backward', '+ Adam = step', 'dense /',
         '/ shared'],
        rows)
    print()
    names = sorted(
        {name for _, shares in tables for name in shares},
        key=lambda name: -max(shares.get(name, 0) for _, shares in tables))
    print('Where a step goes, in ms:')
    harness.print_table(
        ['function (forward and backward)'] + [title for title, _ in tables],
        [[name] + ['{:.3g}'.format(shares[name] * 1e3)
                   if name in shares else '-' for _, shares in tables]
         for name in names])
    print('\nwritten: {}'.format(harness.save(args, __file__, results)))
    path = harness.plot_path(args, __file__)
    plot(results, path)
    print('written: {}'.format(path))


if __name__ == '__main__':
    main()
