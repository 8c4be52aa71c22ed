"""The numbers in the page, against NumPy and the network that was saved."""
import base64
import json
import re
import struct
import zlib
from types import SimpleNamespace

import chainer
import html_tree
import numpy
import pytest
from chainer.backends import cuda
from made_digits import make_digits, write_digits
from tiny_run import TINY

import train_mnist

N_TRAIN, N_TEST, N_UNITS, N_OUT, N_TILES = 300, 150, 20, 10, 5


@pytest.fixture(scope='module', params=[
    '-1', pytest.param('@cupy:0', marks=pytest.mark.gpu),
    pytest.param('@cupy:1', marks=pytest.mark.gpu)])
def ran(request, tmp_path_factory):
    """A run of two epochs: its page, its log and its parameters."""
    device = request.param
    if (device == '@cupy:1'
            and cuda.cupy.cuda.runtime.getDeviceCount() < 2):
        pytest.skip('needs two GPUs')
    folder = tmp_path_factory.mktemp('report')
    digits = write_digits(folder / 'digits', N_TRAIN, N_TEST)
    out = folder / 'result'
    # The run leaves its device in use.
    with chainer.using_device('@numpy' if device == '-1' else '@cupy:0'):
        assert train_mnist.main([
            *TINY, '--data', str(digits), '-o', str(out), '--no-plots',
            '-e', '2', '-d', device]) == 0
    with numpy.load(out / 'snapshot_iter_60') as arrays:
        prefix = 'updater/model:main/predictor/'
        parameters = {
            name.removeprefix(prefix): arrays[name].astype(float)
            for name in arrays if name.startswith(prefix)}
    page = html_tree.parse((out / 'report.html').read_text('utf-8'))
    log = json.loads((out / 'log').read_text())
    # Seed 1 is that of the test digits.
    images, labels = make_digits(N_TEST, 1)
    return SimpleNamespace(
        device=device, out=out, page=page, log=log, parameters=parameters,
        images=images, labels=labels)


@pytest.fixture
def probabilities(ran):
    """The definition of the network, in float64."""
    p = ran.parameters
    x = ran.images.reshape(N_TEST, 784) / 255
    h = numpy.maximum(x @ p['l1/W'].T + p['l1/b'], 0)
    h = numpy.maximum(h @ numpy.tile(p['l2/W'], (1, N_TILES)).T, 0)
    e = numpy.exp(h @ p['l3/W'].T + p['l3/b'])
    return e / e.sum(axis=1, keepdims=True)


def number(text):
    return float(re.sub('[,%s]', '', text))


def cells(row):
    return [e.text for e in row.walk() if e.tag in ('td', 'th')]


def decode(uri):
    """Colours (height, width, 3) of a PNG with a palette, by hand."""
    kind, _, content = uri.partition(';base64,')
    assert kind == 'data:image/png'
    data = base64.b64decode(content, validate=True)
    assert data[:8] == b'\x89PNG\r\n\x1a\n'
    chunks, at = {}, 8
    while at < len(data):
        size, = struct.unpack_from('>I', data, at)
        body = data[at + 8:at + 8 + size]
        crc, = struct.unpack_from('>I', data, at + 8 + size)
        assert crc == zlib.crc32(data[at + 4:at + 8 + size])
        chunks[data[at + 4:at + 8]] = body
        at += 12 + size
    assert list(chunks) == [b'IHDR', b'PLTE', b'IDAT', b'IEND']
    width, height, *rest = struct.unpack('>IIBBBBB', chunks[b'IHDR'])
    assert rest == [8, 3, 0, 0, 0]
    rows = numpy.frombuffer(zlib.decompress(chunks[b'IDAT']), numpy.uint8)
    rows = rows.reshape(height, width + 1)
    assert not rows[:, 0].any()
    palette = numpy.frombuffer(chunks[b'PLTE'], numpy.uint8).reshape(-1, 3)
    return palette[rows[:, 1:]].astype(int)


def test_confusion_matrix(ran, probabilities):
    expected = numpy.zeros((10, 10), int)
    for label, prediction in zip(
            ran.labels, probabilities.argmax(1), strict=True):
        expected[label, prediction] += 1
    # Something is to be seen on both sides of the diagonal.
    assert 10 < N_TEST - expected.trace() < N_TEST - 10

    table = ran.page.one('table', 'confusion')
    head = table.one('thead').one('tr')
    assert cells(head) == ['', *map(str, range(10)), 'all', 'error']
    assert all(th['scope'] == 'col' for th in head.all('th'))
    rows = table.one('tbody').all('tr')
    assert [row.one('th').text for row in rows] == list('0123456789')
    assert all(row.one('th')['scope'] == 'row' for row in rows)
    counts = [[td.text for td in row.all('td')] for row in rows]
    assert [[int(c) for c in row[:10]] for row in counts] == expected.tolist()
    assert [int(row[10]) for row in counts] == expected.sum(1).tolist()
    for label, row in enumerate(counts):
        wrong = expected[label].sum() - expected[label, label]
        assert row[11] == f'{100 * wrong / expected[label].sum():.1f} %'

    for label, row in enumerate(rows):
        for prediction, td in enumerate(row.all('td')[:10]):
            count = expected[label, prediction]
            assert td['class'] == (
                'none' if count == 0 else
                'right' if label == prediction else 'wrong')
    wrong = expected - numpy.diag(expected.diagonal())
    label, prediction = numpy.unravel_index(wrong.argmax(), wrong.shape)
    assert (f'Most often {label} is read as {prediction} ({wrong.max()} '
            f'times)') in ran.page.by_id('confusion').text


def test_misread_digits(ran, probabilities):
    predictions = probabilities.argmax(1)
    wrong = [i for i in range(N_TEST) if predictions[i] != ran.labels[i]]
    wrong.sort(key=lambda i: -probabilities[i].max())
    section = ran.page.by_id('misread')
    assert section.all('p')[0].text == (
        f'{len(wrong)} of {N_TEST}. These are the 12 of which the network is '
        f'surest.')
    figures = section.all('figure')
    assert len(figures) == 12
    shades = []
    for figure, i in zip(figures, wrong, strict=False):
        image = figure.one('img')
        assert image['alt'] == f'Test digit {i}, labelled {ran.labels[i]}'
        assert figure.one('figcaption').text == (
            f'{ran.labels[i]} read as {predictions[i]} '
            f'p {probabilities[i].max():.4f} no. {i}')
        picture = decode(image['src'])
        assert picture.shape == (28, 28, 3)
        # Black ink on white, within the half of a level of 63.
        assert numpy.abs(
            255 - picture - ran.images[i][..., None].astype(int)).max() <= 3
        shades.append(picture)
    assert len({picture.tobytes() for picture in shades}) == 12


class Counted:
    """A number that counts the additions and multiplications done on it."""

    n = 0

    def __add__(self, other):
        Counted.n += 1
        return self

    __mul__ = __add__


def count(out_size, in_size, n_tiles):
    """Operations of a layer on one image, by doing them one by one."""
    Counted.n = 0
    x = [Counted() for _ in range(in_size)]
    width = in_size // n_tiles
    folded = x[:width]
    for start in range(width, in_size, width):
        folded = [a + b for a, b in zip(
            folded, x[start:start + width], strict=True)]
    for _ in range(out_size):
        y = Counted()  # The bias, or zero.
        for value in folded:
            y = y + value * Counted()
    return Counted.n


def test_parameters_and_operations(ran):
    layers = [
        # Name, sizes, and whether there is a bias.
        ('l1', N_UNITS, 784, 1, True), ('l2', N_OUT, N_UNITS, N_TILES, False),
        ('l3', 10, N_OUT, 1, True)]
    rows = ran.page.by_id('cost').one('table').one('tbody').all('tr')
    sums = numpy.zeros(4, int)
    for row, (name, out_size, in_size, n_tiles, bias) in zip(
            rows, layers, strict=True):
        arrays = [
            array for key, array in ran.parameters.items()
            if key.startswith(name)]
        params = sum(array.size for array in arrays)
        dense_params = out_size * in_size + bias * out_size
        operations = count(out_size, in_size, n_tiles)
        dense_operations = count(out_size, in_size, 1)
        tiles = f', {n_tiles} tiles' if n_tiles > 1 else ''
        assert cells(row) == [
            f'{name} {in_size} → {out_size}{tiles}',
            f'{out_size} × {in_size // n_tiles}',
            f'{params:,}', f'{dense_params:,}',
            f'{100 * params / dense_params:.0f} %',
            f'{operations:,}', f'{dense_operations:,}',
            f'{100 * operations / dense_operations:.0f} %']
        sums += [params, dense_params, operations, dense_operations]
        assert [bar.all('span')[1]['style']
                for bar in row.all('span', 'bar')] == [
            f'width: {100 * params / dense_params:.1f}%',
            f'width: {100 * operations / dense_operations:.1f}%']
    in_all = cells(ran.page.by_id('cost').one('tfoot').one('tr'))
    assert [number(in_all[i]) for i in (2, 3, 5, 6)] == sums.tolist()
    # 20 inputs onto 4 are 16 additions, then 10 outputs of 4 weights.
    assert cells(rows[1])[5:7] == ['96', '400']


def test_headline(ran):
    shown = {
        div.one('dt').text: (
            div.one('span', 'number').text, div.one('small').text)
        for div in ran.page.by_id('result').all('div')}
    wrong = round(N_TEST * (1 - ran.log[-1]['validation/main/accuracy']))
    assert shown['Test error'] == (
        f'{100 * wrong / N_TEST:.2f} %',
        f'{wrong} of {N_TEST} digits misread')
    assert 'Last 3 epochs' not in shown
    assert shown['Parameters'] == ('15,850', '99 % of the dense network')
    # 2 * 784 * 20, the 96 of the second layer, and 2 * 10 * 10.
    assert shown['Operations per image'] == (
        '31,656', '99 % of the dense network')
    seconds = (
        ran.log[2]['elapsed_time'] - ran.log[0]['elapsed_time']) / 2
    assert shown['Time per epoch'] == (
        f'{seconds:.2f} s', '2 epochs on {}'.format(
            '@numpy' if ran.device == '-1' else ran.device))
    assert ran.page.one('h1').text == (
        '784-20-10-10, second layer shared by 5 tiles')
    assert f'{N_TRAIN} to train and {N_TEST} to test on' in (
        ran.page.one('header').text)


@pytest.mark.parametrize('chart', [0, 1])
def test_curves(ran, chart):
    """The heights of the points are the values, up to a scale from zero."""
    expected = []
    for prefix in 'main/', 'validation/main/':
        values = [e[prefix + ('loss', 'accuracy')[chart]] for e in ran.log[1:]]
        expected.append(
            [100 * (1 - v) for v in values] if chart else values)
    section = ran.page.by_id('curves')
    svg = section.all('svg')[chart]
    lines = svg.all('g', 'grid')[0]
    labels = [float(e.text) for e in lines.all('text')]
    heights = [float(e['y1']) for e in lines.all('line')]
    scale, zero = numpy.polyfit(labels, heights, 1)
    # A larger value is higher up.
    assert scale < 0
    numpy.testing.assert_allclose(
        heights, numpy.array(labels) * scale + zero, atol=.1)
    for name, values in zip(('training', 'test'), expected, strict=True):
        path, = (e for e in svg.all('path', name) if e['d'].count('L') == 1
                 and 'h' not in e['d'])
        points = numpy.array(
            [float(n) for n in re.findall(r'[-0-9.]+', path['d'])]
        ).reshape(-1, 2)
        numpy.testing.assert_allclose(
            (points[:, 1] - zero) / scale, values, atol=.2 / abs(scale))
        assert (numpy.diff(points[:, 0]) > 0).all()

    unit, digits = (' %', 2) if chart else ('', 4)
    assert [g.one('text').text for g in svg.all('g', 'readout')] == [
        f'epoch {epoch}, training {a:.{digits}f}{unit}, '
        f'test {b:.{digits}f}{unit}'
        for epoch, (a, b) in enumerate(zip(*expected, strict=True), 1)]
    rows = section.one('table').one('tbody').all('tr')
    assert [cells(row)[1 + 2 * chart:3 + 2 * chart] for row in rows] == [
        [f'{a:.{digits}f}', f'{b:.{digits}f}']
        for a, b in zip(*expected, strict=True)]
    assert 'Before training: test loss {:.3f}, test error {:.1f} %'.format(
        ran.log[0]['validation/main/loss'],
        100 * (1 - ran.log[0]['validation/main/accuracy'])) in section.text


def test_weights_of_the_first_layer(ran):
    W = ran.parameters['l1/W']
    section = ran.page.by_id('weights')
    order = numpy.argsort(-(W ** 2).sum(1), kind='stable')
    images = section.one('ul').all('img')
    assert [image['title'] for image in images] == [
        f'unit {unit}' for unit in order]
    assert 'All 20 units' in section.text
    limit = number(section.one('p', 'scale').text.split('+')[1])
    assert limit == pytest.approx(numpy.quantile(abs(W), .998), abs=.0051)
    for image, unit in zip(images, order, strict=True):
        assert image['alt'] == (
            f'Unit {unit}: weights from {W[unit].min():.2f} to '
            f'{W[unit].max():.2f}')
    for image, source in zip(
            images, section.one('ul').all('source'), strict=True):
        unit = int(image['title'].split()[1])
        weights = W[unit].reshape(28, 28).clip(-limit, limit)
        for uri in image['src'], source['srcset']:
            colours = decode(uri)
            # Blue below zero, red above it, the more the farther from it.
            redness = colours[..., 0] - colours[..., 2]
            strong = abs(weights) > limit / 10
            assert (numpy.sign(redness) == numpy.sign(weights))[strong].all()
            middle = numpy.median(
                colours[abs(weights) < limit / 60], axis=0)
            distance = abs(colours - middle).sum(axis=-1)
            assert numpy.corrcoef(
                distance.ravel(), abs(weights).ravel())[0, 1] > .9


def test_graph(ran):
    svg = ran.page.by_id('graph').one('svg')
    assert svg['aria-label'] == (
        'Function 1: LinearFunction of x, l1/W, l1/b gives 10 × 20. '
        'Function 2: ReLU of the output of function 1 gives 10 × 20. '
        'Function 3: SharedLinearFunction, 5 tiles of the output of '
        'function 2, l2/W gives 10 × 10. '
        'Function 4: ReLU of the output of function 3 gives 10 × 10. '
        'Function 5: LinearFunction of the output of function 4, l3/W, l3/b '
        'gives 10 × 10.')
    assert [e.text for e in svg.all('text', 'function')] == [
        'LinearFunction', 'ReLU', 'SharedLinearFunction, 5 tiles', 'ReLU',
        'LinearFunction']
    assert [e.text for e in svg.all('text', 'parameter')] == [
        'l1/W 20 × 784', 'l1/b 20', 'l2/W 10 × 4', 'l3/W 10 × 10', 'l3/b 10']


def test_settings_and_versions(ran):
    import shared_linear
    section = ran.page.by_id('settings')
    facts = {
        div.one('dt').text: div.one('dd').text for div in section.all('div')}
    assert facts['unit'] == '20'
    assert facts['n-tiles'] == '5'
    assert facts['batchsize'] == '10'
    assert facts['seed'] == '0'
    assert facts['training digits'] == str(N_TRAIN)
    assert facts['NumPy'] == numpy.__version__
    assert facts['Chainer'] == chainer.__version__
    assert facts['shared_linear'] == shared_linear.__version__
    assert facts['last snapshot'].endswith('result/snapshot_iter_60')
    assert section.one('code').text.startswith(
        'python train_mnist.py --unit 20 --out-unit 10 --n-tiles 5 -b 10 ')


def test_well_formed_and_whole(ran):
    html = (ran.out / 'report.html').read_bytes()
    assert len(html) < 2 ** 20
    text = html.decode('utf-8')
    assert text.startswith('<!DOCTYPE html>\n')
    text = re.sub(';base64,[A-Za-z0-9+/=]+', '', text)
    for reference in 'http:', 'https:', '//', '@import', '<script', 'nan':
        assert reference not in text
    page = ran.page
    assert page['lang'] == 'en'
    assert page.one('title').text.startswith('Training report: 784-20-10-10')
    levels = [
        int(e.tag[1]) for e in page.walk() if re.fullmatch('h[1-6]', e.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False))
    ids = [e['id'] for e in page.walk() if e.get('id')]
    assert len(ids) == len(set(ids))
    for element in page.walk():
        if element.tag == 'img':
            assert element['alt']
        if element.tag == 'svg':
            assert element['aria-label']
            assert element['role'] == 'img'
        if element.tag == 'th':
            assert element['scope']
        if element.tag == 'a':
            assert element['href'].removeprefix('#') in ids
        if element.get('aria-labelledby'):
            assert element['aria-labelledby'] in ids
        for name in 'src', 'srcset':
            if element.get(name):
                assert element[name].startswith('data:')
