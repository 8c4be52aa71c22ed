"""Runs Chainer's own tests on a Chainer that is mended.

    git clone --branch v7.8.1 https://github.com/chainer/chainer
    python tests/stack/chainer_suite.py chainer
    python tests/stack/chainer_suite.py chainer chainer_tests/links_tests

The folder is that of Chainer's repository; its tests are not ours to keep.
They need pytest and mock, and some of them SciPy, h5py, matplotlib, Pillow
and protobuf. Those for GPUs, ChainerX, iDeep and Theano are left out, and
those that Chainer calls slow.

A failure that ``chainer_suite.txt`` lists is the test's own, for the reason
given there. The exit status is 1 if there are others.
"""
import collections
import fnmatch
import os
import re
import subprocess
import sys
from pathlib import Path

LEFT_OUT = ('gpu', 'slow', 'ideep', 'chainerx', 'cudnn', 'multi_gpu', 'theano')
LIST = Path(__file__).with_suffix('.txt')


def main(folder, *paths):
    tests = Path(folder, 'tests').resolve()
    if not (tests / 'chainer_tests').is_dir():
        sys.exit('{} has no tests/chainer_tests: give the folder of a '
                 'checkout of Chainer 7.8.1'.format(folder))
    ours = str(Path(__file__).resolve().parents[2])
    process = subprocess.Popen(
        [sys.executable, '-u', '-m', 'shared_linear', '-m', 'pytest',
         '-c', str(tests.parent / 'setup.cfg'), '-p', 'no:cacheprovider',
         '-q', '--tb=short', '-rfE',
         '-m', ' and '.join('not ' + name for name in LEFT_OUT),
         *(paths or ['chainer_tests'])],
        cwd=tests, stdout=subprocess.PIPE, text=True, errors='replace',
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(
            [ours] + [p for p in [os.environ.get('PYTHONPATH')] if p])))
    failed = collections.Counter()
    for line in process.stdout:
        print(line, end='', flush=True)
        found = re.match(r'(?:FAILED|ERROR) (.+?)(?: - .*)?$', line)
        if found:
            failed[without_parameters(found[1])] += 1
    if process.wait() not in (0, 1):
        sys.exit('the tests could not be run')
    return report(failed)


def without_parameters(name):
    """The test of a class that Chainer made for each set of parameters."""
    return re.sub(
        r'_(?:param_\d+_|use_chainerx_|use_cuda_|none).*(?=::\w+$)', '', name)


def report(failed):
    reasons = dict(read_list())
    others = []
    print()
    for name, count in sorted(failed.items()):
        pattern = next(
            (p for p in reasons if fnmatch.fnmatchcase(name, p)), None)
        if pattern is None:
            others.append((name, count))
        else:
            print('{:5} {}\n      its own: {}'.format(
                count, name, reasons[pattern]))
    print('\nfailures that are not listed: {}'.format(
        sum(count for _, count in others)))
    for name, count in others:
        print('{:5} {}'.format(count, name))
    return 1 if others else 0


def read_list():
    """Pairs of a pattern and the reason that stands above it."""
    reason = []
    for line in LIST.read_text('utf-8').splitlines():
        if line.startswith('#'):
            reason.append(line[1:].strip())
        elif line.strip():
            yield line.strip(), ' '.join(reason)
        else:
            reason = []


if __name__ == '__main__':
    if len(sys.argv) < 2 or sys.argv[1].startswith('-'):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
