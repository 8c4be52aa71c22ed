"""The code in the pages of docs/ does what the pages say."""
import ast
import doctest
import importlib
import importlib.util
import re
from pathlib import Path

import numpy
import pytest

import shared_linear

import chainer  # isort: skip
import chainer.functions as F  # isort: skip
import chainer.links as L  # isort: skip

DOCS = Path(__file__).resolve().parents[1] / 'docs'
PAGES = sorted(DOCS.glob('*.md'))
FENCED = re.compile(r'^```python\n(.*?)^```$', re.MULTILINE | re.DOTALL)
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples(page):
    """The examples of a page as one doctest, with the page's own lines."""
    text = page.read_text('utf-8')
    lines = [''] * text.count('\n')
    for block in FENCED.finditer(text):
        start = text.count('\n', 0, block.start(1))
        code = block[1].splitlines()
        lines[start:start + len(code)] = code
    return doctest.DocTestParser().get_doctest(
        '\n'.join(lines) + '\n', {'__name__': '__main__'}, page.name,
        str(page), 0)


def missing(test):
    """Packages that a page imports and that are not installed."""
    source = ''.join(example.source for example in test.examples)
    names = re.findall(r'^(?:from|import) (\w+)', source, re.MULTILINE)
    if 'sl.onnx.' in source:
        names.append('onnx')
    return [n for n in names if importlib.util.find_spec(n) is None]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_examples(page, tmp_path, monkeypatch):
    test = examples(page)
    if missing(test):
        pytest.skip('needs ' + ', '.join(missing(test)))
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    out = []
    runner.run(test, out=out.append)
    assert not runner.failures, ''.join(out)


def test_examples_are_found():
    """And one that fails, fails."""
    counts = {page.name: len(examples(page).examples) for page in PAGES}
    assert counts['tutorial.md'] > 30
    assert counts['algebra.md'] > 5
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    test = doctest.DocTestParser().get_doctest(
        '>>> 1 + 1\n3\n', {}, 'wrong', None, 0)
    out = []
    runner.run(test, out=out.append)
    assert runner.failures == 1


def test_the_example_of_the_readme(tmp_path, monkeypatch):
    """With a trained model and inputs that take less time than the reader's.
    """
    pytest.importorskip('onnx', reason='needs the extra "onnx"')
    readme = (DOCS.parent / 'README.md').read_text('utf-8')
    code, = FENCED.findall(readme)
    monkeypatch.chdir(tmp_path)
    names = {
        'trained': chainer.Sequential(
            L.Linear(784, 60), F.relu, L.Linear(60, 10)),
        'x': numpy.random.rand(300, 784).astype('f')}
    exec(compile(code, 'README.md', 'exec'), names)
    assert names['model'](names['x']).shape == (300, 10)
    assert len(shared_linear.surgery.edits(names['model'])) == 1
    assert names['new'].count_params() < names['trained'].count_params() / 14
    assert (tmp_path / 'model.onnx').stat().st_size > 3_000_000


def test_every_public_name_has_its_place_in_the_reference():
    api = (DOCS / 'api.rst').read_text('utf-8')
    modules = re.split(r'^\.\. currentmodule:: (\S+)$', api, flags=re.M)
    documented = {
        f'{module}.{name}'
        for module, text in zip(modules[1::2], modules[2::2], strict=True)
        for name in re.findall(
            r'^\.\. auto\w+:: (\w+)$', text, re.M)}
    public = {
        f'{module.__name__}.{name}'
        for module in public_modules(shared_linear)
        for name in module.__all__
        if not isinstance(getattr(module, name), type(shared_linear))}
    assert documented == public


def test_supported_stacks_are_those_of_the_matrix():
    source = (DOCS.parent / 'noxfile.py').read_text('utf-8')
    oldest = ast.literal_eval(re.search(
        r'^OLDEST = (\{.*?\})$', source, re.M)[1])
    table = dict(re.findall(
        r'^\| (3\.[0-9]+) \| ([0-9.]+) \| yes \|$',
        (DOCS / 'stacks.md').read_text('utf-8'), re.M))
    assert {
        python: f'{numpy}.*' for python, numpy in table.items()} == oldest


def public_modules(package):
    """The package and the modules in it that name what is public in them."""
    yield package
    for path in sorted(Path(package.__file__).parent.iterdir()):
        name = path.stem
        if not name.startswith('_') and (
                path.suffix == '.py' or (path / '__init__.py').exists()):
            module = importlib.import_module(f'{package.__name__}.{name}')
            if hasattr(module, '__all__'):
                yield module
