"""The command around a run, and the one line in which it ends."""
import contextlib
import errno
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence

from mnist import connecting, console, options
from mnist.errors import UserError, out_of_memory
from mnist.folder import Folder
from mnist.processes import Processes
from mnist.run import Run
from mnist.stopping import StopSignals

# What standard output may say. What is written to a file names it.
# Of Open MPI 5's mpiexec, on Ctrl-C, if it is quicker than the disk.
NO_TIME = (
    'train_mnist.py: mpiexec may leave no time for a snapshot: if it does '
    'not, --resume goes on from the last that is whole')
CANNOT_PRINT = [
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF,
    errno.EAGAIN, errno.ENXIO, errno.ECONNRESET, errno.EINVAL]


def run(
        train: Callable[[Namespace, Run], None],
        argv: Sequence[str] | None = None) -> int:
    """Runs a training script, and returns its exit status.

    What the user can mend, or has asked for, ends in one line.

    Args:
        train (callable): Builds all there is, and runs it.
        argv (sequence of str): Arguments; those of the process if None.
    """
    console.ready()
    ours = connecting.unconnected()
    signals = StopSignals(ours.warning)
    try:
        with signals:
            args = options.parse(argv)
            ours = connecting.connect(args.communicator)
            if ours.is_first:
                signals.hurry = lambda: ours.say_on_terminal(NO_TIME)
            with _silent_unless(ours.is_first), Folder(args.out) as folder:
                ours.open(args.communicator)
                train(args, Run(args, ours, signals, folder))
                sys.stdout.flush()
    except UserError as e:
        return _stop(ours, f'error: {e}', 2)
    except MemoryError as e:
        ours.go_apart()
        return _stop(ours, f'error: {out_of_memory(e)}', 2)
    except BrokenPipeError:
        ours.go_apart()
        return _stop(ours, 'error: nobody reads the output any more', 2)
    except KeyboardInterrupt as e:
        if not e.args:
            ours.break_off()
        if signals.is_warned:
            ours.lose_voice()
        when = 'after the last epoch' if signals.is_training else (
            'before training began')
        return _stop(ours, str(e) or f'stopped {when}', signals.status)
    except OSError as e:
        line = _refused(e)
        if line is None:
            ours.crash()
            raise
        ours.go_apart()
        return _stop(ours, f'error: {line}', 2)
    except Exception:
        ours.crash()
        raise
    return 0


def _refused(error: OSError) -> str | None:
    """What the operating system has refused; None if it may be our fault."""
    if error.filename is not None:
        name = os.fsdecode(error.filename)
        return f'{name}: {error.strerror or error}'
    if error.errno in CANNOT_PRINT:
        return f'cannot print: {error.strerror}'
    return None


def _silent_unless(speaks: bool) -> contextlib.ExitStack:
    stack = contextlib.ExitStack()
    if not speaks:
        nowhere = stack.enter_context(open(os.devnull, 'w'))
        stack.enter_context(contextlib.redirect_stdout(nowhere))
    return stack


def _stop(ours: Processes, message: str, status: int) -> int:
    try:
        print(end='', flush=True)
    except OSError:
        # What is left to be flushed at exit must not fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if ours.speaks():
        ours.say(f'train_mnist.py: {" ".join(message.splitlines())}')
    ours.leave(status)
    return status
