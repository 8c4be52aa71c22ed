"""What mpiexec starts in the tests: the script, several times in one start.

Takes a list of runs as JSON. Each process writes the parameters of each run
into the folder ``dump`` of the run, if there is one, and the first prints the
exit statuses in the end.
"""
# Before Chainer, which accidents imports.
import train_mnist  # isort: skip

import json
import sys

import accidents
import chainer


def main(runs: list[dict]) -> int:
    # Here, since pytest imports this file to look for doctests: without an
    # MPI library it raises RuntimeError.
    from mpi4py import MPI
    world = MPI.COMM_WORLD
    networks = []
    make_network = train_mnist.make_network

    def make_and_keep(args):
        networks.append(make_network(args))
        return networks[-1]

    train_mnist.make_network = make_and_keep
    statuses = []
    for run in runs:
        for rank, *accident in run.get('accidents', ()):
            if rank == world.rank:
                accidents.arrange(*accident)
        statuses.append(
            train_mnist.main([*run['options'], '--communicator', 'naive']))
        if 'dump' in run:
            chainer.serializers.save_npz(
                f'{run["dump"]}/{world.rank}', networks[-1])
        world.Barrier()
    if world.rank == 0:
        print('statuses', *statuses, flush=True)
    return max(statuses)


if __name__ == '__main__':
    sys.exit(main(json.loads(sys.argv[1])))
