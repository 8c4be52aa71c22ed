"""Sources are edited as modules are imported, and nothing else is."""
import importlib
import importlib.util
import linecache
import sys
import traceback
from pathlib import Path

import pytest

from shared_linear.stack import imported, mending

TEXT = 'x = 1\ny = [2,\n     3]\n\n\ndef fail():\n    raise ValueError(x)\n'


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Imports a module of that text, mended by the functions given."""
    (tmp_path / 'to_be_mended.py').write_text(TEXT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(mending, '_mends', dict(mending._mends))

    def import_it(*mends):
        sys.modules.pop('to_be_mended', None)
        mending._mends['to_be_mended'] = list(mends)
        importlib.invalidate_caches()
        return importlib.import_module('to_be_mended')

    import_it.folder = tmp_path
    yield import_it
    sys.modules.pop('to_be_mended', None)


def test_the_module_is_mended_and_its_file_is_not(module, tmp_path):
    imported = module(
        lambda source: source.replace('x = 1', 'x = 10'),
        lambda source: source.replace('x = 10', 'x = 11'))
    assert imported.x == 11
    assert (tmp_path / 'to_be_mended.py').read_text() == TEXT
    # Nor is it found mended by somebody without this package.
    assert not list(tmp_path.glob('__pycache__/*'))


def test_lines_keep_their_numbers(module):
    imported = module(
        lambda source: source.replace('y = [2,\n     3]', 'y = [4]'))
    assert imported.y == [4]
    with pytest.raises(ValueError) as e:
        imported.fail()
    frame = traceback.extract_tb(e.value.__traceback__)[-1]
    assert frame.line == 'raise ValueError(x)'
    assert linecache.getline(imported.__file__, frame.lineno).strip() == (
        frame.line)
    assert not [f for f in traceback.extract_tb(e.value.__traceback__)
                if f.filename == mending.__file__]


def test_a_mend_may_not_add_lines():
    with pytest.raises(ValueError, match='more lines than before'):
        mending.Source('m', TEXT).replace('x = 1', 'x = 1\nz = 1')


@pytest.mark.parametrize('old, count', [
    ('z = 1', 1), ('x', 1), ('x = 1', 2), ('x', 3)])
def test_a_text_that_is_not_as_released_is_left_alone(old, count, module):
    source = mending.Source('m', TEXT)
    with pytest.raises(mending.NotAsReleased):
        source.replace(old, 'w', count)
    assert source.text == TEXT
    imported = module(
        lambda source: source.replace('x = 1', 'x = 2')
        and source.replace(old, 'w', count),
        lambda source: source.replace(old, 'w', count),
        lambda source: source.replace('3]', '5]'))
    assert imported.y == [2, 5]


def test_half_a_mend_is_none(module):
    def mend(source):
        source.replace('x = 1', 'x = 2')
        source.replace('no such text', '')

    assert module(mend).x == 1


def test_a_mend_that_is_not_needed():
    assert mending.mended('m', TEXT, lambda source: None) is None
    assert mending.mended(
        'm', TEXT, lambda source: source.replace('x = 1', 'x = 2')) == (
            TEXT.replace('x = 1', 'x = 2'))


def test_it_is_installed_once():
    before = list(sys.meta_path)
    mending.install()
    assert sys.meta_path == before


def test_every_mend_finds_its_text():
    """Or says that it is not needed: Chainer is as it was released."""
    pytest.importorskip('onnx')
    for name, mend in mending.all_mends():
        spec = importlib.util.find_spec(name)
        mending.mended(name, mending.text_of(spec), mend)


def test_every_mend_says_what_breaks():
    for _, mend in mending.all_mends():
        assert mend.__doc__ and '``' in mend.__doc__, mend


def test_a_module_that_was_imported_before_is_mended_in_place(module):
    """Whoever holds its functions and classes holds mended ones."""
    text = (
        'import functools\n\n\ndef wrapper(f):\n    @functools.wraps(f)\n'
        '    def g(*args):\n        return f(*args)\n    return g\n\n\n'
        'class A:\n    x = 1\n\n    @wrapper\n    def f(self):\n'
        '        return 1\n\n    class B:\n        def g(self):\n'
        '            return [1 for _ in range(2)]\n\n\ndef h(a=5):\n'
        '    return a\n')
    (path := Path(module.folder, 'to_be_mended.py')).write_text(text)
    held = module()
    a, h = held.A(), held.h
    imported.mend(held, text, text.replace(
        'import functools', 'import functools, math').replace(
        '        return 1\n', '        return math.floor(2.5)\n').replace(
        '[1 for', '[math.pi for').replace('return a\n', 'return a + 1\n'))
    assert a.f() == 2 and a.B().g()[0] > 3 and h() == 6 and a.x == 1
    assert path.read_text() == text
