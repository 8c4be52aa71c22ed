"""What the page says of which inputs share a weight, against the layers."""
import html_tree
import numpy
import pytest
from tiny_run import TINY

import shared_linear as sl
from mnist.network import LAYERS
from mnist.report import sharing

import chainer.links as L  # isort: skip

ORDER = numpy.random.RandomState(1).permutation(12)


def dense(link, n_blocks):
    """One row of each block of the dense weight, of W of one row."""
    random = numpy.random.RandomState(0)
    for param in link.params():
        param.array[...] = random.randn(*param.shape)
    W = link.to_linear().W.array
    return W[::len(W) // n_blocks]


@pytest.mark.parametrize(('link', 'n_blocks'), [
    (lambda: L.Linear(12, 6), 1),
    (lambda: sl.SharedLinear(12, 6, n_tiles=3), 1),
    (lambda: sl.SharedLinear(12, 6, n_tiles=3, order=ORDER), 1),
    (lambda: sl.MixedLinear(12, 6, n_tiles=3, n_blocks=2, seed=4), 2),
    (lambda: sl.MixedLinear(
        12, 6, n_tiles=4, n_blocks=3, seed=4, order=ORDER), 3),
    (lambda: sl.LowRankLinear(12, 6, n_tiles=3, rank=2, order=ORDER), 1),
])
def test_inputs_of_one_number_have_the_same_weight(link, n_blocks):
    link = link()
    columns = sharing.columns(link)
    assert columns.shape == (n_blocks, 12)
    if isinstance(link, L.Linear):
        assert columns.tolist() == [list(range(1, 13))]
        return
    weights = dense(link, n_blocks)
    for j in range(n_blocks):
        for a in range(12):
            for b in range(12):
                same = abs(columns[j, a]) == abs(columns[j, b])
                sign = numpy.sign(columns[j, a] * columns[j, b])
                assert numpy.isclose(
                    weights[j, a], sign * weights[j, b], rtol=1e-5) == same


def read_page(run, tmp_path, *options):
    status, out, err = run(*options, '-e', 1)
    assert (status, err) == (0, '')
    path = tmp_path / 'result' / 'report.html'
    return out, html_tree.parse(path.read_text('utf-8'))


WORDS = {
    'shared': ('20 → 10, 5 tiles', '10 × 4', 'shared by 5 tiles'),
    'linear': ('20 → 10', '10 × 20', 'dense'),
    'mixed': ('20 → 10, 5 tiles, 2 blocks', '5 × 4',
              'shared by 5 tiles and 2 blocks'),
    'low-rank': ('20 → 10, 5 tiles, rank 2', '2 × 4, 10 × 2',
                 'shared by 5 tiles, of rank 2'),
}
# Parameters, and operations: of what is folded, and twice of what is used.
COUNTS = {
    'shared': (40, 16 + 80), 'linear': (200, 400), 'mixed': (20, 32 + 80),
    'low-rank': (28, 16 + 16 + 40)}


def test_every_layer_has_its_words():
    assert WORDS.keys() == COUNTS.keys() == LAYERS.keys()


@pytest.mark.parametrize('layer', LAYERS)
def test_table_and_page(run, tmp_path, layer):
    out, page = read_page(
        run, tmp_path, '--layer', layer, '--n-blocks', 2, '--rank', 2)
    sizes, weight, words = WORDS[layer]
    n_params, n_operations = COUNTS[layer]
    assert f'# network: 784-20-10-10, second layer {words}\n' in out
    row, = (line.split() for line in out.splitlines() if
            line.startswith('l2: '))
    assert ' '.join(row).startswith('l2: ' + sizes.replace('→', '->'))
    assert row[-4:-2] == [str(n_params), '200']
    row = page.by_id('cost').one('table').one('tbody').all('tr')[1]
    cells = [e.text for e in row.walk() if e.tag in ('td', 'th')]
    assert cells[:4] == [f'l2 {sizes}', weight, str(n_params), '200']
    assert cells[5:7] == [str(n_operations), '400']
    section = page.by_id('sharing')
    assert section.text.count('nothing is shared') == (
        3 if layer == 'linear' else 2)
    assert len(section.all('img')) == (layer != 'linear')
    facts = {div.one('dt').text
             for div in page.by_id('settings').all('div')}
    flags = {flag.replace('_', '-') for flag in LAYERS[layer].flags}
    assert facts & {'n-tiles', 'n-blocks', 'rank'} == flags - {'seed'}


def test_pixels(run, tmp_path):
    out, page = read_page(
        run, tmp_path, '--order', 'plain', '--first-tiles', 392)
    assert ('first layer shared by 392 tiles of pixels that are apart\n'
            in out)
    pictures = page.by_id('sharing').one('ul').all('img')
    # Two groups of each other pixel.
    assert sorted(image['title'] for image in pictures) == [
        'group 1', 'group 2']
    for image in pictures:
        first = 0 if image['title'] == 'group 1' else 1
        assert image['alt'].startswith(
            f'Group {first + 1}: pixels (row/column) 0/{first}, '
            f'0/{first + 2}, ')
        assert image['alt'].count('/') == 1 + 392


def test_the_order_is_found_from_the_training_digits(
        run, tmp_path, monkeypatch):
    asked = []

    def group_inputs(x, n_tiles, seed):
        asked.append((x.shape, n_tiles, seed))
        return numpy.arange(784)[::-1].astype('i')

    monkeypatch.setattr('mnist.run.group_inputs', group_inputs)
    options = ['--order', 'data', '--first-tiles', 28, '--seed', 5]
    status, out, _ = run(*options, '-e', 1)
    assert status == 0
    assert '# looking for 28 tiles of pixels that are alike\n' in out
    assert asked == [((60, 784), 28, 5)]
    with numpy.load(tmp_path / 'result' / 'snapshot_iter_6') as arrays:
        assert arrays['updater/model:main/predictor/l1/order'].tolist() == (
            list(range(784))[::-1])
        assert arrays['updater/model:main/predictor/l1/W'].shape == (20, 28)
    # A run that goes on has it in the snapshot.
    status, out, _ = run(*options, '-e', 2, '-r')
    assert status == 0
    assert len(asked) == 1
    assert 'resumed from' in out


@pytest.mark.parametrize(('options', 'words'), [
    (['--first-tiles', '7'], '--first-tiles needs --order data'),
    (['--order', 'data', '--first-tiles', '10'],
     'expected a divisor of the 784 pixels (1, 2, 4, 7, 8, 14, '),
    (['--order', 'random'], "invalid choice: 'random'"),
    (['--layer', 'mixed', '--n-blocks', '7'],
     '--n-tiles 10 --n-blocks 7 with --unit 1000 --out-unit 900: '),
    (['--layer', 'mixed', '--n-tiles', '7'], 'in_size must be a multiple'),
    (['--layer', 'low-rank', '--n-tiles', '7'], '5 and 8'),
    (['--rank', '0'], '--rank: expected a number of at least 1'),
    (['--n-blocks', '-1'], '--n-blocks: expected a number of at least 1'),
])
def test_numbers_that_do_not_fit(refused, tmp_path, options, words):
    assert words in refused('--no-plots', '-o', tmp_path / 'r', *options)


def test_what_the_layer_does_not_take_is_said(run):
    """Runs of the same options and another --layer are to be compared."""
    status, out, _ = run(*TINY, '--layer', 'linear', '--rank=3', '-e', 1)
    assert status == 0
    assert (
        'second layer dense\n'
        '# --n-tiles is not used: --layer linear has none\n'
        '# --rank is not used: --layer linear has none\n') in out
