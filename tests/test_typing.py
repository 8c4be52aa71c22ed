"""The package type-checks as users call it."""
import subprocess
import sys
from pathlib import Path

import pytest

import shared_linear

ROOT = Path(shared_linear.__file__).parents[1]

GOOD = """
from typing import Any

import chainer
import numpy
import numpy.typing
from chainer import initializers
from chainer.links import Linear
from typing_extensions import assert_type

import shared_linear as sl


def fill(array: numpy.typing.NDArray[Any]) -> None:
    array[...] = 1


x = numpy.ones((4, 12), numpy.float32)
W = numpy.ones((5, 4), numpy.float32)
b = numpy.ones(5, numpy.float32)

link = sl.SharedLinear(12, 5, n_tiles=3)
sl.SharedLinear(5, n_tiles=3)
sl.SharedLinear(None, 5, True, initializers.HeNormal(), n_tiles=3)
sl.SharedLinear(12, 5, False, W, b, n_tiles=3)
sl.SharedLinear(12, 5, initialW=0.5, initial_bias=1, n_tiles=3)
sl.SharedLinear(12, 5, initialW=fill, n_tiles=3)

y: chainer.Variable = link(x)
assert_type(link.forward(chainer.Variable(x), n_batch_axes=1),
            chainer.Variable)
assert_type(link.in_size, int | None)
assert_type(link.n_tiles, int)
assert_type(sl.SharedLinear.from_params(W, b, n_tiles=3), sl.SharedLinear)
assert_type(sl.SharedLinear.from_linear(Linear(12, 5), 3), sl.SharedLinear)
assert_type(link.to_linear(), Linear)
assert_type(sl.shared_linear(x, chainer.Variable(W), b), chainer.Variable)
assert_type(sl.shared_linear(x, W, n_batch_axes=1, method='tile'),
            chainer.Variable)
assert_type(sl.fold(x, 3), chainer.Variable)
assert_type(sl.tile(chainer.Variable(x), n_tiles=3), chainer.Variable)


class Model(chainer.Chain):

    def __init__(self) -> None:
        super().__init__()
        with self.init_scope():
            self.layer = sl.SharedLinear(12, 5, n_tiles=3)

    def forward(self, x: chainer.Variable) -> chainer.Variable:
        return self.layer(x)
"""

# A wrong call, and the argument or method that the checker should name.
BAD = {
    'sl.SharedLinear(12, 5)': 'n_tiles',
    'sl.SharedLinear(12, 5, n_tiles="3")': 'n_tiles',
    'sl.SharedLinear(12, 5, initialW=[1], n_tiles=3)': 'SharedLinear',
    'sl.fold(x)': 'n_tiles',
    'sl.tile(x, 2.5)': 'tile',
    'sl.shared_linear(x, W, method=3)': 'method',
    'sl.SharedLinear.from_linear(x, 3)': 'from_linear',
}


# Chainer has annotations, but exports nothing by their letter.
CONFIG = """
[mypy]
strict = true
disallow_subclassing_any = false
disallow_untyped_calls = false
warn_return_any = false
[mypy-chainer.*]
implicit_reexport = true
[mypy-shared_linear.*]
follow_imports = silent
"""


def mypy(cache, config, *files):
    done = subprocess.run(
        [sys.executable, '-m', 'mypy', '--config-file', str(config),
         '--cache-dir', str(cache), *map(str, files)],
        cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert not done.stderr
    return done.stdout.splitlines()


def test_users_calls_pass_and_wrong_ones_are_named(tmp_path):
    config, user = tmp_path / 'mypy.ini', tmp_path / 'user.py'
    config.write_text(CONFIG)
    user.write_text(GOOD + '\n'.join(BAD) + '\n')
    first = len(GOOD.splitlines()) + 1
    *errors, summary = mypy(tmp_path / 'cache', config, user)
    assert 'error' in summary
    by_line = {}
    for error in errors:
        if ': note:' not in error:
            line = int(error.split(':')[1])
            by_line.setdefault(line, []).append(error)
    assert sorted(by_line) == list(range(first, first + len(BAD))), errors
    for (call, name), line in zip(BAD.items(), sorted(by_line), strict=True):
        assert any(name in e for e in by_line[line]), (call, by_line[line])


@pytest.mark.slow
def test_the_package_passes_its_own_check(tmp_path):
    """Against this NumPy, whose annotations differ from the next one's."""
    output = mypy(tmp_path / 'cache', ROOT / 'pyproject.toml')
    assert output[-1].startswith('Success'), output


def test_the_package_says_that_it_is_typed():
    assert (ROOT / 'shared_linear' / 'py.typed').is_file()


def test_what_the_API_names_is_annotated():
    for name in ('fold', 'tile', 'shared_linear'):
        function = getattr(shared_linear, name)
        names = set(function.__code__.co_varnames[
            :function.__code__.co_argcount
            + function.__code__.co_kwonlyargcount])
        assert set(function.__annotations__) == names | {'return'}
