"""Runs the script as often as it is asked to, and is imported once.

It reads a line of JSON for each run, forks, and prints the exit status, which
is negative if a signal ended the run.
"""
# Before Chainer, which accidents imports.
import train_mnist  # isort: skip

import json
import os
import signal
import sys
import traceback
from pathlib import Path

import accidents

from mnist import curves


def run(job: dict) -> int:
    for stream, number in ('out', 1), ('err', 2):
        os.dup2(os.open(
            job[stream], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    # A shell's background job is born deaf to it, and so are its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    counts = accidents.count_events() if 'counts' in job else None
    for accident in job['accidents']:
        accidents.arrange(*accident)
    status = train_mnist.main(job['options'])
    if counts is not None:
        Path(job['counts']).write_text(json.dumps(counts))
    sys.stdout.flush()
    return status


def main() -> None:
    curves.load_matplotlib()
    # What else takes its time, and is the same in every run.
    from matplotlib import font_manager, ticker  # noqa: F401
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            try:
                os._exit(run(json.loads(line)))
            except BaseException:
                traceback.print_exc()
                os._exit(99)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == '__main__':
    main()
