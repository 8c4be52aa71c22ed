"""The network: three layers, of which the second is of any kind there is."""
from argparse import Namespace
from collections.abc import Callable
from typing import Any, NamedTuple

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
from chainer import Variable

from mnist import memory
from mnist.errors import UserError
from shared_linear import LowRankLinear, MixedLinear, SharedLinear

N_PIXELS = 28 * 28

# Of a weight, its gradient and Adam's two means, and of a temporary copy.
BYTES_OF_A_WEIGHT = 20


class Kind(NamedTuple):
    """A kind of second layer.

    ``build`` takes the sizes, ``nobias`` and what ``flags`` names; ``words``
    say it, with the flags in their places; ``count`` tells its weights from
    the options.
    """

    build: Callable[..., chainer.Link]
    flags: tuple[str, ...]
    words: str
    count: Callable[[Namespace], int]


# By the name that --layer takes.
LAYERS = {
    'shared': Kind(
        SharedLinear, ('n_tiles',), 'shared by {n_tiles} tiles',
        lambda args: args.unit * args.out_unit // args.n_tiles),
    'linear': Kind(
        L.Linear, (), 'dense', lambda args: args.unit * args.out_unit),
    'mixed': Kind(
        MixedLinear, ('n_tiles', 'n_blocks', 'seed'),
        'shared by {n_tiles} tiles and {n_blocks} blocks',
        # And the places that its permutations take.
        lambda args: args.unit * (
            args.out_unit // args.n_tiles // args.n_blocks + args.n_blocks)),
    'low-rank': Kind(
        LowRankLinear, ('n_tiles', 'rank'),
        'shared by {n_tiles} tiles, of rank {rank}',
        lambda args: args.rank * (
            args.unit // args.n_tiles + args.out_unit)),
}


class MLP(chainer.Chain):
    """784 -> ``n_units`` -> ``n_out_units`` -> ``n_out``, ReLU between.

    Args:
        n_units (int): Units of the first layer.
        n_out_units (int): Units of the second layer, which has no bias.
        n_out (int): Number of classes.
        n_tiles (int): Tiles of the first layer's units that share the second
            layer's weight. It has to divide ``n_units``.
        layer (str): Kind of the second layer, a key of :data:`LAYERS`.
            Each takes of ``n_tiles`` and the keywords what it knows.
        n_blocks (int): Blocks of the second layer's units that share its
            weight. It has to divide ``n_out_units``.
        rank (int): Rank of the second layer's weight.
        seed (int): Where a mixed layer's permutations come from.
        first_tiles (int): Tiles of the pixels that share the first layer's
            weight: 1, where it is dense, or a divisor of 784.

    Raises:
        ValueError: If a number does not divide what it has to, or ``layer``
            is not known.
    """

    def __init__(
            self, n_units: int, n_out_units: int, n_out: int = 10,
            n_tiles: int = 10, layer: str = 'shared', *, n_blocks: int = 10,
            rank: int = 20, seed: int = 0, first_tiles: int = 1) -> None:
        super().__init__()
        if layer not in LAYERS:
            raise ValueError('layer must be {}, not {!r}'.format(
                ' or '.join(map(repr, LAYERS)), layer))
        kind = LAYERS[layer]
        given = {
            'n_tiles': n_tiles, 'n_blocks': n_blocks, 'rank': rank,
            'seed': seed}
        with self.init_scope():
            if first_tiles == 1:
                self.l1 = L.Linear(N_PIXELS, n_units)
            else:
                self.l1 = SharedLinear(N_PIXELS, n_units, n_tiles=first_tiles)
            self.l2 = kind.build(
                n_units, n_out_units, nobias=True,
                **{flag: given[flag] for flag in kind.flags})
            self.l3 = L.Linear(n_out_units, n_out)

    def order_pixels(self, order: numpy.ndarray) -> None:
        """Chooses which pixels share a weight of the first layer.

        Args:
            order (numpy.ndarray): Permutation of the 784 pixels.
        """
        plain = self.l1
        del self.l1
        with self.init_scope():
            self.l1 = SharedLinear.from_params(
                plain.W, plain.b, n_tiles=plain.n_tiles, order=order)

    def forward(self, x: Variable) -> Variable:
        """Returns the (N, n_out) scores of an (N, 784) batch of images."""
        h = F.relu(self.l1(x))
        h = F.relu(self.l2(h))
        return self.l3(h)


def count_weights(args: Namespace) -> int:
    """Returns how many weights the network of the options has.

    Args:
        args (Namespace): What ``options.parse`` returns.
    """
    return (N_PIXELS * args.unit // (args.first_tiles or 1)
            + LAYERS[args.layer].count(args) + 10 * args.out_unit)


def make_network(args: Namespace) -> MLP:
    """Returns the network of the options, with new weights.

    Args:
        args (Namespace): What ``options.parse`` returns.

    Raises:
        UserError: If the sizes and the numbers of parts do not fit.
    """
    flags = [flag for flag in LAYERS[args.layer].flags if flag != 'seed']
    given: dict[str, Any] = {flag: getattr(args, flag) for flag in flags}
    numbers = ' '.join(
        f'--{flag.replace("_", "-")} {number}'
        for flag, number in given.items())
    sizes = f'--unit {args.unit} --out-unit {args.out_unit}'
    memory.check(
        BYTES_OF_A_WEIGHT * count_weights(args), f'{sizes} {numbers}'.strip())
    try:
        return MLP(
            args.unit, args.out_unit, layer=args.layer, seed=args.seed,
            first_tiles=args.first_tiles or 1, **given)
    except ValueError as e:
        raise UserError(f'{numbers} with {sizes}: {e}') from e
