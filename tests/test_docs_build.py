"""The pages that ``make docs`` makes: whole, and read without a network."""
import os
import re
import subprocess
import sys
from pathlib import Path

import browser
import pytest

for name in 'sphinx', 'myst_parser', 'furo':
    pytest.importorskip(name, reason='needs what pip install ".[docs]" brings')

pytestmark = pytest.mark.slow

DOCS = Path(__file__).resolve().parents[1] / 'docs'
PAGES = (
    'index', 'tutorial', 'algebra', 'measured', 'machines', 'programs',
    'stacks', 'api', 'changelog')


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """The pages, built as make docs does, with nobody to ask."""
    folder = tmp_path_factory.mktemp('docs')
    process = subprocess.run(
        [sys.executable, '-m', 'sphinx', '-q', '--fail-on-warning',
         '--keep-going', '-d', str(folder / 'doctrees'), str(DOCS),
         str(folder / 'html')],
        env={**os.environ, 'http_proxy': 'http://127.0.0.1:9',
             'https_proxy': 'http://127.0.0.1:9', 'no_proxy': ''},
        capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (0, '')
    return folder / 'html'


@pytest.mark.parametrize('name', PAGES)
def test_pages_are_there_and_ask_nobody(built, name):
    text = (built / f'{name}.html').read_text('utf-8')
    # Links may lead elsewhere; what a page is made of may not.
    made_of = re.findall(
        r'<(?:script|img|iframe|source|object)\b[^>]*?\bsrc="([^"]*)"'
        r'|<link\b[^>]*?\bhref="([^"]*)"', text)
    assert len(made_of) > 5
    for addresses in made_of:
        for address in filter(None, addresses):
            assert not re.match(r'[a-z]+:|//', address), address


def test_formulas_are_mathml(built):
    text = (built / 'api.html').read_text('utf-8')
    assert text.count('<math') > 10
    assert 'MathJax' not in text
    assert not re.search(r'\\(?:mathop|frac|top|text|rm)\b', re.sub(
        r'<annotation.*?</annotation>', '', text, flags=re.DOTALL))


def test_names_of_chainer_lead_to_its_own_pages(built):
    text = (built / 'api.html').read_text('utf-8')
    assert (
        'href="https://docs.chainer.org/en/stable/reference/generated/'
        'chainer.links.Linear.html"') in text


@pytest.fixture(scope='module')
def tab(tmp_path_factory):
    if browser.find() is None:
        pytest.skip('needs Chromium: apt-get install chromium')
    with browser.Browser(tmp_path_factory.mktemp('profile')) as tab:
        yield tab


@pytest.mark.parametrize('width', [390, 1280])
@pytest.mark.parametrize('name', PAGES)
def test_pages_in_a_browser(built, tab, name, width):
    tab.open(built / f'{name}.html', width)
    folder = built.as_uri() + '/'
    assert [a for a in tab.requests() if not a.startswith(folder)] == []
    assert tab.complaints() == []
    # The theme hides its side bars beside a narrow page.
    assert tab.run('document.documentElement.scrollWidth') <= width
    assert tab.run('document.querySelector("article").offsetHeight') > 300


def test_formulas_have_a_size(built, tab):
    tab.open(built / 'algebra.html', 1280)
    sizes = tab.run('''
        [...document.querySelectorAll('math')].map(m => {
          const r = m.getBoundingClientRect(); return [r.width, r.height]; })
    ''')
    assert len(sizes) > 20
    assert all(w > 3 and h > 3 for w, h in sizes)
