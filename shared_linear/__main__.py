"""Runs a Chainer program as it is, on today's Python, NumPy and CuPy."""
from __future__ import annotations

import sys

from shared_linear.stack import check, program

USAGE = """\
usage: python -m shared_linear [--no-old-names] FILE [ARGS...]
       python -m shared_linear [--no-old-names] -m MODULE [ARGS...]
       python -m shared_linear --check

Runs a Chainer program as it is: "python -m shared_linear train.py -e 5" does
what "python train.py -e 5" did when Chainer 7.8.1 was new.

  --no-old-names  do not give back to the process the names that old programs
                  take from NumPy and the standard library, such as numpy.int
                  and collections.Iterable
  --check         print what was found on this machine, and what is mended
  -h, --help      print this
"""


def main() -> int:
    """What the command line asks for; the status to exit with."""
    arguments = sys.argv[1:]
    give_old_names = True
    while arguments and arguments[0].startswith('-') and arguments[0] != '-':
        option = arguments.pop(0)
        if option in ('-h', '--help'):
            print(USAGE, end='')
            return 0
        if option == '--check':
            return check.print_report()
        if option == '--no-old-names':
            give_old_names = False
        elif option.startswith('-m') and not option.startswith('--'):
            name = option[2:] or (arguments.pop(0) if arguments else '')
            if not name:
                return _refuse('-m needs the name of a module')
            return _run(name, arguments, True, give_old_names)
        else:
            return _refuse(
                'there is no option {} here: options of Python come before '
                '"-m shared_linear", those of the program after it'.format(
                    option))
    if not arguments:
        return _refuse('there is no program to run')
    return _run(arguments[0], arguments[1:], False, give_old_names)


def _run(name: str, arguments: list[str], is_module: bool,
         give_old_names: bool) -> int:
    try:
        program.run(name, arguments, is_module=is_module,
                    give_old_names=give_old_names)
    except program.CannotRun as e:
        print('{}: {}'.format(sys.executable, e), file=sys.stderr)
        return e.status
    return 0


def _refuse(message: str) -> int:
    print('{}\n{}'.format(message, USAGE), end='', file=sys.stderr)
    return 2


if __name__ == '__main__':
    sys.exit(main())
