"""When the page is written, when it cannot be, and what it may meet."""
import errno
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import chainer
import chainer.functions as F
import chainer.links as L
import html_tree
import numpy
import pytest
from made_digits import write_digits
from tiny_run import SCRIPT, TINY

from mnist import options, report
from mnist.network import MLP
from mnist.report import charts, graph, markup, page, png, reading


def read_page(out):
    return html_tree.parse((out / 'report.html').read_text('utf-8'))


def test_one_line_says_where(run, tmp_path):
    status, out, err = run('-e', 1)
    assert (status, err) == (0, '')
    assert out.splitlines()[-1] == (
        f'# report: {tmp_path / "result" / "report.html"}')
    assert read_page(tmp_path / 'result').one('h1')


def test_no_report(run, tmp_path):
    status, out, _ = run('-e', 1, '--no-report')
    assert status == 0
    assert '# report' not in out
    assert sorted(os.listdir(tmp_path / 'result')) == [
        'log', 'snapshot_iter_6']


def test_a_run_that_goes_on_writes_it_anew(run, tmp_path):
    """And so does one that is done already."""
    path = tmp_path / 'result' / 'report.html'
    run('-e', 1)
    run('-e', 4, '-r')
    section = read_page(path.parent).by_id('curves')
    assert [row.one('th').text for row in section.one('tbody').all('tr')] == [
        '1', '2', '3', '4']
    path.unlink()
    status, out, err = run('-e', 4, '-r')
    assert (status, err) == (0, '')
    assert '# every epoch is done already' in out
    again = read_page(path.parent).by_id('curves')
    assert again.text == section.text


def test_needs_no_matplotlib(digits_dir, tmp_path):
    script = (
        'import sys; sys.modules["matplotlib"] = sys.modules["PIL"] = None; '
        'import train_mnist; sys.exit(train_mnist.main(sys.argv[1:]))')
    process = subprocess.run(
        [sys.executable, '-W', 'error', '-c', script, *TINY, '-e', '1',
         '--data', str(digits_dir), '--no-plots'], cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(SCRIPT.parent)},
        capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (0, '')
    assert process.stdout.endswith('# report: result/report.html\n')
    # Where the user did not say where, no page does.
    assert str(tmp_path) not in (
        tmp_path / 'result' / 'report.html').read_text().replace(
            str(digits_dir), '')


def check_failure(status, out, err, folder):
    assert status == 2
    assert 'in all' in out
    assert err.count('\n') == 1
    assert err.endswith(
        f'the network is trained, and {folder / "snapshot_iter_6"} is whole: '
        f'the same options and --resume write the report\n')
    assert not list(folder.glob('.*.tmp'))


def test_a_page_that_cannot_be_written_loses_nothing(run, tmp_path):
    folder = tmp_path / 'result'
    (folder / 'report.html').mkdir(parents=True)
    status, out, err = run('-e', 1)
    check_failure(status, out, err, folder)
    assert f'no report, {folder / "report.html"}: Is a directory; ' in err
    (folder / 'report.html').rmdir()
    assert run('-e', 1, '-r')[0] == 0
    assert read_page(folder).one('h1')


def test_a_full_disk_leaves_the_page_that_was_there(
        run, tmp_path, monkeypatch):
    folder = tmp_path / 'result'
    run('-e', 1)
    before = (folder / 'report.html').read_bytes()

    def fail(path, write):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(report, 'write_atomically', fail)
    status, out, err = run('-e', 1, '-r')
    check_failure(status, out, err, folder)
    assert 'No space left on device' in err
    assert (folder / 'report.html').read_bytes() == before


def test_a_mistake_in_the_page_loses_nothing(run, tmp_path, monkeypatch):
    def fail(run):
        raise ZeroDivisionError('by\nzero')
    monkeypatch.setattr(page, 'render', fail)
    check_failure(*run('-e', 1), tmp_path / 'result')


def test_ctrl_c_while_it_is_written(run, tmp_path, monkeypatch):
    def interrupt(run):
        raise KeyboardInterrupt
    monkeypatch.setattr(page, 'render', interrupt)
    status, _, err = run('-e', 1)
    assert status == 130
    assert err == 'train_mnist.py: stopped after the last epoch\n'
    assert (tmp_path / 'result' / 'snapshot_iter_6').exists()


def test_names_that_look_like_markup(run, tmp_path):
    folder = tmp_path / '<script>alert(1)<' / '"&amp;\''
    folder.parent.mkdir()
    digits = write_digits(folder)
    out = tmp_path / 'o\x1b[1m<b>'
    status, _, err = run('-e', 1, '--data', digits, '-o', out)
    assert (status, err) == (0, '')
    found = read_page(out)
    assert not found.all('script')
    assert not found.all('b')
    assert '<script>alert(1)</"&amp;\'' in found.one('header').text
    assert '<script>alert(1)</"&amp;' in found.one('code').text
    # A terminal's code is spelled out.
    assert r'o\x1b[1m<b>' in found.one('code').text


def test_the_users_home_is_not_in_the_page(run, tmp_path, monkeypatch):
    home = tmp_path / 'home' / 'somebody'
    home.mkdir(parents=True)
    monkeypatch.setenv('HOME', str(home))
    digits = write_digits(home / 'my digits')
    out = home / 'out'
    status, _, _ = run('-e', 1, f'--data={digits}', '-o', out)
    assert status == 0
    text = (out / 'report.html').read_text()
    assert str(home) not in text
    found = html_tree.parse(text)
    assert 'from ~/my digits.' in found.one('header').text
    command = found.one('code').text
    assert command.endswith(
        ' -e 1 --data="$HOME"/\'my digits\' -o ~/out')


def test_the_command_can_be_pasted_into_a_shell(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path / 'a b'))
    arguments = [
        '-e', '3', f'--out={tmp_path}/a b/x y', f'{tmp_path}/a b/$(z)',
        f'{tmp_path}/a b', "it's", '~', f'{tmp_path}/a bc', '']
    line = page.command_line(arguments)
    assert line.startswith('python train_mnist.py -e 3 ')
    assert f'{tmp_path}/a b/' not in line
    shown = subprocess.run(
        ['/bin/sh', '-c', 'printf "%s\\n" ' + line.partition('.py ')[2]],
        capture_output=True, text=True, check=True).stdout
    assert shown.split('\n')[:-1] == arguments


def test_the_cache_is_named_without_its_place(tmp_path, alone):
    args = options.parse([])
    source = f"MNIST, from Chainer's cache, {alone}/pfnet/chainer/mnist"
    run = SimpleNamespace(args=args, source=source)
    assert page._source(run) == "MNIST, from Chainer's cache"


def make_run(network, log, images, labels, *arguments):
    """What the page is made of, without training."""
    args = options.parse([*TINY, *arguments])
    digits = chainer.datasets.TupleDataset(images, labels)
    x = chainer.Variable(images[:4])
    with numpy.errstate(invalid='ignore'):
        return page.Run(
            args, network, log, None, 'made', 100, 1,
            reading.read(network, digits, 32), graph.trace(network, x))


def entry(epoch, loss=.5, accuracy=.9):
    return {
        'epoch': epoch, 'elapsed_time': 2. * epoch, 'main/loss': loss,
        'main/accuracy': accuracy, 'validation/main/loss': loss,
        'validation/main/accuracy': accuracy}


@pytest.fixture
def some_digits():
    random = numpy.random.RandomState(0)
    return (random.rand(70, 784).astype(numpy.float32),
            random.randint(0, 10, 70).astype(numpy.int32))


def test_a_network_that_diverged(some_digits):
    network = MLP(20, 10, n_tiles=5)
    network.l1.W.array[3] = numpy.nan
    network.l1.W.array[4] = numpy.inf
    log = [entry(0), entry(1, .5), entry(2, float('nan'), .1),
           entry(3, float('inf'), .1), entry(4, .25)]
    html = page.render(make_run(network, log, *some_digits))
    found = html_tree.parse(html)
    path = found.by_id('curves').all('svg')[0].all('path', 'test')[0]
    # Two dots, and no line between them.
    assert path['d'].count('M') == 2
    assert all(n not in path['d'] for n in ('nan', 'inf'))
    texts = [g.one('text').text for g in found.all('g', 'readout')]
    assert 'epoch 2, training nan, test nan' in texts
    assert 'epoch 3, training inf, test inf' in texts
    assert 'unit 3' in [
        image.get('title') for image in found.by_id('weights').all('img')]


def test_every_value_is_infinite(some_digits):
    network = MLP(20, 10, n_tiles=5)
    network.l1.W.array[:] = numpy.nan
    log = [entry(0), entry(1, float('nan'), 0.)]
    found = html_tree.parse(
        page.render(make_run(network, log, *some_digits)))
    assert found.by_id('curves').all('svg')[0].all('path', 'curve')[0].get(
        'd') is None


def test_all_digits_are_read_right(some_digits):
    images, _ = some_digits
    network = MLP(20, 10, n_tiles=5)
    with chainer.no_backprop_mode():
        labels = network(images).array.argmax(1).astype(numpy.int32)
    found = html_tree.parse(page.render(
        make_run(network, [entry(0), entry(1)], images, labels)))
    assert found.by_id('misread').one('p').text == (
        'None: all 70 test digits are read right.')
    assert 'Most often' not in found.by_id('confusion').text
    # A label that no digit has is not divided by.
    missing = sorted(set(range(10)) - set(labels.tolist()))
    row = found.one('table', 'confusion').one('tbody').all('tr')[missing[0]]
    assert row.all('td')[-1].text == '–'


def test_a_dense_network(some_digits):
    network = MLP(20, 10, layer='linear')
    found = html_tree.parse(page.render(make_run(
        network, [entry(0), entry(1)], *some_digits, '--layer', 'linear')))
    assert found.one('h1').text == '784-20-10-10, second layer dense'
    shares = [
        row.all('td')[3].text for row in
        found.by_id('cost').one('tbody').all('tr')]
    assert shares == ['100 %'] * 3
    assert 'SharedLinearFunction' not in found.by_id('graph').text
    assert 'n-tiles' not in [
        dt.text for dt in found.by_id('settings').all('dt')]


def test_the_method_that_tiles_costs_what_a_dense_layer_does():
    import shared_linear as sl
    x = numpy.ones((3, 20), numpy.float32)
    W = numpy.ones((7, 4), numpy.float32)
    for method, expected in ('fold', 16 + 2 * 7 * 4), ('tile', 2 * 7 * 20):
        y = sl.shared_linear(
            chainer.Variable(x), W, method=method)
        assert graph.count_operations(y.creator_node) == (
            expected, 2 * 7 * 20)


@pytest.mark.parametrize('n_epochs', [2000])
def test_a_long_run_and_a_large_network_are_a_small_page(
        n_epochs, some_digits):
    log = [entry(e, 1 / (e + 1)) for e in range(n_epochs + 1)]
    run = make_run(MLP(3000, 900), log, *some_digits)
    html = page.render(run)
    assert len(html.encode()) < 2 ** 20
    found = html_tree.parse(html)
    rows = found.by_id('curves').one('tbody').all('tr')
    assert len(rows) == 200
    assert rows[-1].one('th').text == '2000'
    assert 'after 200 of the 2000 epochs' in found.by_id('curves').text
    assert len(found.by_id('weights').one('ul').all('img')) == page.N_UNITS


def test_one_epoch_is_a_dot():
    chart = html_tree.parse('<html>' + charts.draw_curves(
        [charts.Curve('test', 'test', {1: 3.})], 'Error', ' %', '.2f')
        + '</html>')
    path = chart.all('path', 'test')[0]
    start, end = path['d'].removeprefix('M').split('L')
    assert start == end


@pytest.mark.parametrize(('epochs', 'n', 'expected'), [
    ([1, 2, 3], 200, [1, 2, 3]), (range(1, 11), 5, [2, 4, 6, 8, 10]),
    (range(1, 12), 5, [2, 5, 8, 11]), ([7], 1, [7])])
def test_thinned_epochs_end_with_the_last(epochs, n, expected):
    assert charts.thin(epochs, n) == expected


@pytest.mark.parametrize(('low', 'high', 'whole', 'expected'), [
    (0, 1, False, [0, .2, .4, .6, .8, 1]), (1, 3, True, [1, 2, 3]),
    (1, 20, True, [5, 10, 15, 20]), (0, .031, False, [0, .01, .02, .03]),
    (0, 2e5, False, [0, 50000, 100000, 150000, 200000])])
def test_ticks_are_round(low, high, whole, expected):
    found = charts.ticks(low, high, 5, whole)
    numpy.testing.assert_allclose(found, expected, atol=1e-12)


class Residual(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.a = L.Linear(6, 6)
            self.b = L.Linear(6, 6)

    def forward(self, x):
        h = F.relu(self.a(x))
        return self.b(h) + h


def test_a_graph_that_branches():
    x = chainer.Variable(numpy.ones((2, 6), numpy.float32))
    steps = graph.trace(Residual(), x)
    assert [step.kind for step in steps] == [
        'LinearFunction', 'ReLU', 'LinearFunction', '_ + _']
    assert [step.layer for step in steps] == ['a', None, 'b', None]
    assert [[s.step for s in step.data] for step in steps] == [
        [None], [0], [1], [2, 1]]
    # x, three straight arrows, y, four parameters, and the one around.
    paths = html_tree.parse(
        '<html>' + charts.draw_graph(steps) + '</html>').all('path', 'arrow')
    assert len(paths) == 10
    assert sum('C' in path['d'] for path in paths) == 1


def test_half_a_character_is_spelled_out():
    """As in the name of a file that is not UTF-8."""
    shown = markup.tag('p', 'a\udcff\0')
    assert shown == r'<p>a\udcff\x00</p>'
    assert shown.encode()


def test_markup_is_escaped_once():
    inner = markup.tag('b', 'a < "b"', class_='x&y')
    assert inner == '<b class="x&amp;y">a &lt; &quot;b&quot;</b>'
    assert markup.tag('p', inner, None, [1, ['<']], data_x=None) == (
        f'<p>{inner}1&lt;</p>')
    assert markup.tag('line', stroke_width=2) == '<line stroke-width="2"/>'
    assert markup.tag('br') == '<br>'


def test_levels_at_the_ends_and_of_no_number():
    values = numpy.array([-9, -1, 0, 1, 9, numpy.nan, -numpy.inf, numpy.inf])
    assert png.levels(values, -1, 1).tolist() == [
        0, 0, 31, 62, 62, 63, 0, 62]
    assert (png.ramp(png.DIVERGING)[31] == 247).all()


def test_the_log_stays_what_it_was(run, tmp_path):
    """Drawing the page changes nothing that a run goes on from."""
    run('-e', 2, '--no-report')
    log = tmp_path / 'result' / 'log'
    before = json.loads(log.read_text())
    snapshot = (tmp_path / 'result' / 'snapshot_iter_12').read_bytes()
    run('-e', 2, '-r')
    assert json.loads(log.read_text()) == before
    assert (tmp_path / 'result' / 'snapshot_iter_12').read_bytes() == snapshot
