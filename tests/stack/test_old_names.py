"""The names that old programs take: what they gave, where they are given."""
import importlib.util
import sys

import fresh
import numpy
import pytest

from shared_linear.stack import old_modules, old_names

NAMES = old_names.numpy_names(numpy)


@pytest.mark.parametrize('expression, expected', [
    ('asscalar(numpy.array([3]))', 3),
    ('alltrue([True, False])', False), ('sometrue([True, False])', True),
    ('product([2, 3, 4])', 24), ('cumproduct([2, 3, 4])', [2, 6, 24]),
    ('round_(2.567, 1)', 2.6),
    ('in1d([[1, 2], [3, 4]], [2, 3])', [False, True, True, False]),
    ('in1d([1, 2], [2], invert=True)', [True, False]),
    ('row_stack([[1, 2], [3, 4]])', [[1, 2], [3, 4]]),
    ('trapz([1, 2, 3])', 4), ('msort([[2, 1], [1, 3]])', [[1, 1], [2, 3]]),
    ('asfarray([1, 2])', [1., 2.]), ('NINF', -numpy.inf),
    ('cast["f"]([1, 2])', [1., 2.]), ('math.factorial(4)', 24),
    ('int(3.7)', 3), ('float("1.5")', 1.5), ('complex(1)', 1 + 0j)])
def test_a_name_of_numpy(expression, expected):
    # NumPy 1.26 has some of them itself.
    value = eval(expression, {'trapz': getattr(numpy, 'trapz', None),
                              'numpy': numpy, **NAMES})
    numpy.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize('name, dtype', [
    ('int', 'l'), ('float', 'd'), ('bool', '?'), ('object', 'O'),
    ('float_', 'd'), ('complex_', 'D'), ('cfloat', 'D'),
    ('singlecomplex', 'F'), ('longfloat', 'g'), ('string_', 'S'),
    ('unicode_', 'U')])
def test_a_type_of_numpy(name, dtype):
    expected = numpy.array([0]).dtype if dtype == 'l' else numpy.dtype(dtype)
    assert numpy.dtype(NAMES[name]) == expected


def test_in1d_and_its_kin_keep_their_dtype():
    assert NAMES['asfarray']([1], dtype='f').dtype == 'f'
    assert NAMES['asfarray']([1], dtype='i').dtype == 'd'
    assert NAMES['cast']['i']([1.5]).dtype == 'i'
    assert type(NAMES['asscalar'](numpy.float32([1]))) is float


@pytest.mark.parametrize('arrays, scalars, expected', [
    (['f'], ['d'], 'f'), (['i'], ['d'], 'd'), (['f', 'd'], [], 'd'),
    ([], ['i', 'b'], 'i'), (['b'], ['q'], 'b'), (['f'], ['D'], 'D')])
def test_find_common_type(arrays, scalars, expected):
    """As the documentation of NumPy 1.26 has it."""
    assert NAMES['find_common_type'](arrays, scalars) == expected


def test_sctypes_are_those_of_numpy_1():
    for kind, name in [('i', 'int'), ('u', 'uint'), ('f', 'float'),
                       ('c', 'complex')]:
        types = NAMES['sctypes'][name]
        assert all(numpy.dtype(t).kind == kind for t in types)
        assert [numpy.dtype(t).itemsize for t in types] == sorted(
            numpy.dtype(t).itemsize for t in types)


OLD_PROGRAM = """
from collections import Iterable, Mapping, OrderedDict
import collections
import fractions
import inspect
import threading
import time
import unittest
import xml.etree.cElementTree as tree
from distutils.version import LooseVersion
from distutils.util import strtobool
import imp
import numpy as np

assert isinstance([], Iterable) and isinstance({}, collections.Mapping)
assert np.zeros(2, np.int).dtype == np.array([1]).dtype
assert np.zeros(2, np.object)[0] == 0 and np.float is float
np.warnings.filterwarnings('ignore', category=np.VisibleDeprecationWarning)
assert fractions.gcd(6, 4) == 2
assert time.clock() <= time.clock()
assert inspect.getargspec(lambda a, b=1, *c: 0) == (
    ['a', 'b'], 'c', None, (1,))
assert not threading.Thread().isAlive()
assert tree.fromstring('<a>1</a>').text == '1'
assert LooseVersion('1.10') > LooseVersion('1.9.1') > '1.2'
assert strtobool('yes') == 1
assert imp.reload(fractions).gcd(9, 6) == 3
unittest.TestCase().assertEquals(1, 1)
print('done')
"""


def test_an_old_program(tmp_path):
    """Warnings are no errors: Python 3.11 has some of these, and warns."""
    (tmp_path / 'old.py').write_text(OLD_PROGRAM)
    done = fresh.run('-m', 'shared_linear', 'old.py', cwd=tmp_path,
                     warnings='ignore')
    assert (done.returncode, done.stdout, done.stderr) == (0, 'done\n', '')
    done = fresh.run('-m', 'shared_linear', '--no-old-names', 'old.py',
                     cwd=tmp_path, warnings='ignore')
    assert done.returncode == 1
    assert "cannot import name 'Iterable' from 'collections'" in done.stderr


def test_names_that_are_there_stay():
    done = fresh.run('-c', """
import sys
import numpy
before = dict(vars(numpy))
from shared_linear.stack import old_names
given = old_names.give_back()
assert all(vars(numpy)[name] is value for name, value in before.items()
           if name not in ('exceptions',))
print(len(given) == len(set(given)), old_names.give_back())
""")
    assert (done.stdout, done.stderr) == ('True []\n', '')


def test_versions():
    version = old_modules.make_distutils()['distutils.version'].LooseVersion
    ordered = ['0.9', '1.0', '1.2.3', '1.2.10', '1.10', '2.0']
    assert sorted(reversed(ordered), key=version) == ordered
    assert version('1.2') == '1.2' and version('1.2') != version('1.3')
    assert str(version('1.2rc1')) == '1.2rc1'
    assert version('7.8.1').version == [7, 8, 1]


@pytest.mark.parametrize('word, value', [
    ('Yes', 1), ('on', 1), ('0', 0), ('F', 0)])
def test_strtobool(word, value):
    strtobool = old_modules.make_distutils()['distutils.util'].strtobool
    assert strtobool(word) == value
    with pytest.raises(ValueError, match='invalid truth value'):
        strtobool('perhaps')


def test_a_source_is_loaded(tmp_path):
    (tmp_path / 'settings.py').write_text('x = 3')
    module = old_modules.make_imp()['imp'].load_source(
        'settings_of_a_test', str(tmp_path / 'settings.py'))
    try:
        assert module.x == 3
        assert sys.modules['settings_of_a_test'] is module
    finally:
        del sys.modules['settings_of_a_test']


def test_versions_and_resources_of_packages():
    resources = old_modules.make_pkg_resources()['pkg_resources']
    assert resources.get_distribution('numpy').version == numpy.__version__
    with pytest.raises(resources.DistributionNotFound):
        resources.get_distribution('no-such-package-of-ours')
    resources.require('numpy>=1.26')
    with pytest.raises(resources.ResolutionError):
        resources.require('numpy<1')
    path = resources.resource_filename('numpy', '__init__.py')
    assert path == numpy.__file__
    assert b'numpy' in resources.resource_string('numpy', '__init__.py')
    assert resources.parse_version('1.10') > resources.parse_version('1.9')


def test_the_modules_are_not_there_by_the_import_alone():
    if sys.version_info >= (3, 12):
        assert importlib.util.find_spec('imp') is None
