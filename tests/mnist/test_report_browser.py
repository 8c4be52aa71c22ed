"""The page in a real browser: Chromium, as Debian packages it."""
import time

import browser
import pytest
from made_digits import write_digits
from tiny_run import TINY

import train_mnist

pytestmark = pytest.mark.skipif(
    browser.find() is None,
    reason='needs Chromium: apt-get install chromium')

WIDTHS = [390, 1280]

# The contrast of each text with what lies behind it, by WCAG 2, the worst
# first. A transparent background shows the one of the element around.
CONTRAST = """
(() => {
  const rgba = c => {
    const [r, g, b, a = 1] = c.match(/[0-9.]+/g).map(Number);
    return [r, g, b, a];
  };
  const over = ([r, g, b, a], under) =>
    [r, g, b].map((c, i) => c * a + under[i] * (1 - a));
  const behind = e => {
    if (!e) return [255, 255, 255];
    const style = getComputedStyle(e);
    if (e instanceof SVGElement && e.parentNode)
      return behind(e.parentNode);
    return over(rgba(style.backgroundColor), behind(e.parentElement));
  };
  const luminance = rgb => rgb.map(c => c / 255).map(
    c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4).reduce(
    (sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const found = [];
  for (const e of document.body.querySelectorAll('*')) {
    const text = [...e.childNodes].filter(n => n.nodeType === 3)
      .map(n => n.textContent.trim()).join('');
    if (!text) continue;
    const style = getComputedStyle(e);
    const under = behind(e);
    const color = over(rgba(
      e instanceof SVGElement ? style.fill : style.color), under);
    const [dark, light] = [luminance(color), luminance(under)]
      .sort((a, b) => a - b);
    found.push([(light + .05) / (dark + .05), text]);
  }
  return found.sort((a, b) => a[0] - b[0]);
})()
"""


@pytest.fixture(scope='module')
def tab(tmp_path_factory):
    with browser.Browser(tmp_path_factory.mktemp('profile')) as tab:
        yield tab


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp('page')
    digits = write_digits(folder / 'digits', 300, 150)
    assert train_mnist.main([
        *TINY, '--data', str(digits), '-o', str(folder), '--no-plots',
        '--unit', '50', '-e', '3']) == 0
    return folder / 'report.html'


@pytest.fixture(params=[False, True], ids=['light', 'dark'])
def dark(request):
    return request.param


@pytest.mark.parametrize('width', WIDTHS)
def test_asks_nobody_and_complains_of_nothing(tab, page, width, dark):
    tab.open(page, width, dark)
    assert tab.requests() == [page.as_uri()]
    assert tab.complaints() == []


def test_a_page_that_asks_and_complains_is_noticed(tab, tmp_path):
    bad = tmp_path / 'bad.html'
    bad.write_text(
        '<img src="http://127.0.0.1:9/x.png" onerror="null.x">'
        '<script>console.warn("oh")</script>')
    tab.events.clear()
    tab.call('Page.navigate', url=bad.as_uri())
    end = time.monotonic() + browser.TIMEOUT
    while len(tab.complaints()) < 2 and time.monotonic() < end:
        tab.run('1')
    assert 'http://127.0.0.1:9/x.png' in tab.requests()
    assert len(tab.complaints()) >= 2


@pytest.mark.parametrize('width', WIDTHS)
def test_all_of_it_is_drawn(tab, page, width, dark):
    tab.open(page, width, dark)
    assert tab.run('document.compatMode') == 'CSS1Compat'
    # The page as such never scrolls to the side; its tables may.
    assert tab.run('document.documentElement.scrollWidth') == width
    outside = tab.run("""
        [...document.body.querySelectorAll('*')].filter(
          e => !e.closest('.scroll > *') && e.getClientRects().length
          && !e.closest('svg *')
          && (e.getBoundingClientRect().right > innerWidth
              || e.getBoundingClientRect().left < 0)).map(
          e => e.outerHTML.slice(0, 80))""")
    assert outside == []
    sizes = tab.run("""
        [...document.querySelectorAll('section')].map(s =>
          [s.id, s.getBoundingClientRect().width,
           s.getBoundingClientRect().height])""")
    assert [name for name, *_ in sizes] == [
        'result', 'curves', 'cost', 'sharing', 'confusion', 'misread',
        'weights', 'graph', 'settings']
    assert all(w > .9 * width or w == 992 for _, w, _ in sizes)
    assert all(h > 100 for *_, h in sizes)
    pictures = tab.run("""
        [...document.images].map(i =>
          [i.complete, i.naturalWidth, i.width, i.height])""")
    # 12 misread digits, 40 units, the scale, and the inputs of l2.
    assert len(pictures) == 54
    assert all(
        complete and natural in (28, 50, 63) and w >= 40 and h >= 8
        for complete, natural, w, h in pictures)
    drawings = tab.run("""
        [...document.querySelectorAll('svg')].map(s =>
          [s.getBoundingClientRect().width, s.getBBox().height,
           s.getBoundingClientRect().height])""")
    assert len(drawings) == 3
    assert all(min(sizes) > 150 for sizes in drawings)


@pytest.fixture(scope='module', params=[
    ['linear'], ['mixed', '--n-blocks', '5', '--order', 'plain'],
    ['low-rank', '--rank', '2', '--order', 'plain', '--first-tiles', '28']],
    ids=lambda options: options[0])
def other_page(request, tmp_path_factory):
    """The pages of the layers that ``page`` is not of."""
    folder = tmp_path_factory.mktemp('other')
    digits = write_digits(folder / 'digits', 100, 60)
    assert train_mnist.main([
        *TINY, '--data', str(digits), '-o', str(folder / 'result'),
        '--no-plots', '-e', '1', '--layer', *request.param]) == 0
    return folder / 'result' / 'report.html'


@pytest.mark.parametrize('width', WIDTHS)
def test_pages_of_other_layers_are_drawn(tab, other_page, width):
    tab.open(other_page, width)
    assert tab.complaints() == []
    assert tab.run('document.documentElement.scrollWidth') == width
    sizes = tab.run("""
        [...document.querySelectorAll('#sharing img')].map(
          i => [i.complete && i.naturalWidth, i.width, i.height,
                i.getBoundingClientRect().right])""")
    assert len(sizes) in (0, 25)  # 24 groups of pixels, and one of units.
    assert all(
        natural and w >= 40 and h >= 8 and right <= width
        for natural, w, h, right in sizes)
    assert tab.run(CONTRAST)[0][0] >= 4.5
    # What stands in a box of the graph does not stand out of it.
    texts, boxes = (tab.run(f"""
        [...document.querySelectorAll('#graph {name}.function')].map(
          e => (b => [b.left, b.right])(e.getBoundingClientRect()))""")
        for name in ('text', 'rect'))
    assert len(texts) == len(boxes) >= 5
    for text, box in zip(texts, boxes, strict=True):
        assert box[0] < text[0] < text[1] < box[1]


def test_the_confusion_matrix_fits_a_phone(tab, page):
    tab.open(page, 390)
    # Counts as of the 10,000 digits of MNIST.
    tab.run("""
        document.querySelectorAll('.confusion .right, .confusion .sum')
          .forEach(e => { e.textContent = '1135'; })""")
    inner, outer = tab.run("""
        (s => [s.scrollWidth, s.clientWidth])(
          document.querySelector('#confusion .scroll'))""")
    assert inner <= outer


def test_text_stands_out(tab, page, dark):
    tab.open(page, 1280, dark)
    found = tab.run(CONTRAST)
    assert len(found) > 150
    assert found[0][0] >= 4.5, found[:5]


def test_dark_is_dark(tab, page):
    brightness = []
    for dark in False, True:
        tab.open(page, 1280, dark)
        brightness.append(tab.run(
            'getComputedStyle(document.body).backgroundColor'
            '.match(/[0-9]+/g).reduce((a, b) => +a + +b, 0) / 3'))
    assert brightness[0] > 230
    assert brightness[1] < 30


def test_the_pointer_reads_off_values(tab, page):
    tab.open(page, 1280)
    x, y = tab.run("""
        (r => [r.x + r.width / 2, r.y + r.height / 2])(
          document.querySelectorAll('.readout rect')[1]
          .getBoundingClientRect())""")
    visible = """
        [...document.querySelectorAll('.readout text')].filter(
          t => getComputedStyle(t).visibility === 'visible').map(
          t => t.textContent)"""
    assert tab.run(visible) == []
    tab.point_at(x, y)
    shown, = tab.run(visible)
    assert shown.startswith('epoch 2, training 1.')
    tab.point_at(1, 1)
    assert tab.run(visible) == []


def test_keys_reach_the_tables_and_the_values(tab, page):
    tab.open(page, 390)
    stops = tab.run("""
        [...document.querySelectorAll('a[href], summary, [tabindex="0"]')]
        .map(e => {
          e.focus();
          return document.activeElement === e && e.tagName; })""")
    # A link to each section, and the summary; the table in it is closed.
    assert stops[:9] == ['A'] * 9
    assert stops[9:] == ['SUMMARY', False, 'DIV', 'DIV']


def test_prints_on_few_pages(tab, page):
    tab.open(page, 1280, dark=True)
    pdf = tab.print()
    assert pdf.startswith(b'%PDF-')
    assert 1 <= pdf.count(b'/Type /Page\n') <= 6
    assert len(tab.screenshot()) > 50_000
