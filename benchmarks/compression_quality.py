"""What a trained network loses by being made smaller, whichever way.

For 784-1000-900-10 and LeNet-300-100, trained densely for five epochs: test
error after each way of compressing to a budget of parameters, without labels
or training, and after one epoch of fine-tuning.

  dense     as it is, after one more epoch, and after six
  together  sl.compress: tiles, rank and fewer hidden units, whichever loses
            least
  tiles     folds alone, as sl.share_weights has them
  low rank  data-aware low rank alone, as SVD-LLM and DRONE have it
  units     hidden units chosen by forward selection, with refit
  narrow, hashed, mixed
            from scratch, for six epochs: see scratch_peers.py
  tuned     together, fine-tuned for six epochs
  8 bits    LeNet to 1/60 of its bytes: fine-tuned for six epochs, then in 8
            bits for one more

Together, tiles, low rank and units are this package's engine with some of its
forms, so that each has the same targets, the same held-out inputs and the
same choice of how to spend the budget over the layers. All are fine-tuned
alike.

Beside them is one layer alone, 1000 -> 900, by 2 to 100 times fewer weights:
together, tiles and low rank, without training.

Each result is kept in the folder --runs, so that a benchmark that was stopped
goes on where it was, and several processes can share the work.
"""
import concurrent.futures
import functools
import multiprocessing
import sys
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import harness  # noqa: E402  isort: skip

from benchmarks import (  # noqa: E402
    compression_tables,
    scratch_peers,
    small_networks,
)
from benchmarks.small_networks import Data, Trained  # noqa: E402
from examples.compress_mnist import NETWORKS  # noqa: E402
from mnist.errors import UserError  # noqa: E402

ENGINE = 'together', 'tiles', 'low rank', 'units'
WAYS = 'dense', *ENGINE, *scratch_peers.KINDS, 'tuned', '8 bits'
PARTS = 'networks', 'layer'
BUDGETS = 2, 5, 15, 31, 54
# Of one layer alone.
LAYER_WAYS = 'together', 'tiles', 'low rank'
RATIOS = 2, 5, 10, 20, 50, 100


class Job(NamedTuple):
    """What is one result."""

    network: str
    seed: int
    budget: int
    way: str
    layer: bool = False

    @property
    def name(self):
        return '{}{}-seed{}-{}-{}'.format(
            self.network, '-layer' if self.layer else '', self.seed,
            self.budget, self.way.replace(' ', '_'))


def jobs(args):
    """In an order that leaves whole seeds where time runs out."""
    for seed in args.seeds:
        for network in args.networks if 'networks' in args.parts else ():
            if 'dense' in args.ways:
                yield Job(network, seed, 1, 'dense')
            for budget in args.budgets:
                for way in args.ways:
                    if way == 'dense' or way == '8 bits' and (
                            network, budget) != small_networks.QUANTIZED[:2]:
                        continue
                    yield Job(network, seed, budget, way)
        if 'layer' in args.parts:
            for ratio in RATIOS:
                for way in LAYER_WAYS:
                    yield Job(
                        small_networks.LAYER[0], seed, ratio, way, True)


@functools.cache
def read_digits(directory, validate):
    """Once in each process."""
    return Data(directory, validate)


class Kept(NamedTuple):
    """Where the results are kept, and all that they depend on."""

    directory: Path | None
    validate: bool
    runs: Path
    n_calibration: int
    checksum: str

    def path(self, job):
        return self.runs / '{}-{}-{}.json'.format(
            job.name, self.checksum, self.n_calibration)

    def read(self, job):
        return harness.read_result(self.path(job))


def compute(kept, some):
    """Computes and keeps what is missing, in one process."""
    data = read_digits(kept.directory, kept.validate)
    trained = None
    for job in some:
        if kept.read(job) is not None:
            continue  # Another process was here first.
        if trained is None or (trained.name, trained.seed) != job[:2]:
            trained = None  # before there is another
            trained = Trained(*job[:2], data, kept.runs, kept.n_calibration)
        start = time.process_time()
        result = trained.result(job)
        result['cpu_seconds'] = round(time.process_time() - start, 1)
        harness.keep_result(kept.path(job), job._asdict() | result)
        print(job.name, result, flush=True)


def pieces(some):
    """What is best in one process, in the order to begin with it.

    Dense networks are first, since most of the others need them; then those
    that need none and take long; and the shortest are last.
    """
    by_piece = {}
    for job in some:
        big = job.network == small_networks.LAYER[0]
        scratch = job.way in scratch_peers.KINDS
        if job.layer:
            key = 3, job.seed, job.budget > 10
        elif job.way == 'dense':
            key = 0, job.seed, not big
        elif scratch:
            key = 1 if big and job.way == 'hashed' else 4, job.way, (
                big, job.budget, job.seed)
        else:
            # What the engine knows of a network is measured in each.
            key = 2 if big else 4, '', (
                big, job.budget if big else job.budget > 5, job.seed)
        by_piece.setdefault(key, []).append(job)
    return [by_piece[key] for key in sorted(by_piece)]


def main(argv=None):
    args = harness.parse_args(__doc__.splitlines()[0], argv, add_arguments)
    try:
        data = read_digits(args.data, args.validate)
    except UserError as error:
        sys.exit(str(error))
    args.runs.mkdir(parents=True, exist_ok=True)
    kept = Kept(
        args.data, args.validate, args.runs, args.calibration, data.checksum)
    n_digits = len(data.fit[0])
    chosen = list(jobs(args))
    missing = [] if args.report else [
        job for job in chosen if kept.read(job) is None]
    if missing and args.processes == 1:
        compute(kept, missing)
    elif missing:
        with concurrent.futures.ProcessPoolExecutor(
                args.processes, multiprocessing.get_context('spawn')) as pool:
            for done in [pool.submit(compute, kept, piece)
                         for piece in pieces(missing)]:
                done.result()
    results = {job: kept.read(job) for job in chosen}
    compression_tables.report(args, __file__, {
        job: result for job, result in results.items() if result is not None
    }, {'digits': n_digits, 'checksum': kept.checksum,
        'validation': args.validate, 'calibration': args.calibration})


def add_arguments(parser):
    parser.add_argument(
        '--data', type=Path, default=None,
        help='folder with the four MNIST files')
    parser.add_argument(
        '--runs', type=Path, default=Path('result/compression_quality'),
        help='folder that keeps each result, and where a benchmark that was '
             'stopped goes on (default: %(default)s)')
    parser.add_argument(
        '--report', action='store_true',
        help='compute nothing, and report the results that are there')
    parser.add_argument(
        '--validate', action='store_true',
        help='train on all but the last 10,000 digits and count errors on '
             'those: to develop with')
    parser.add_argument(
        '--processes', type=int, default=1,
        help='how many to share the work (default: 1); each takes one core '
             'and about 1 GB')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--calibration', type=int, default=20000,
                        help='unlabelled digits to fit on')
    parser.add_argument(
        '--networks', nargs='+', choices=list(NETWORKS),
        default=list(NETWORKS))
    parser.add_argument(
        '--budgets', nargs='+', type=int, choices=BUDGETS, default=BUDGETS,
        help='times fewer parameters')
    parser.add_argument('--ways', nargs='+', choices=WAYS, default=WAYS)
    parser.add_argument(
        '--parts', nargs='+', choices=PARTS, default=PARTS,
        help='whole networks, one layer alone, or both (default)')


if __name__ == '__main__':
    main()
