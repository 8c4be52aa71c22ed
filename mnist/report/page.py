"""The page: what each section says, and the numbers in it."""
import os
import platform
import shlex
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import chainer
import chainer.links as L
import numpy
from chainer.backends import cuda

import shared_linear
from mnist import cache, options, summary
from mnist.idx import N_CLASSES, SIDE
from mnist.network import LAYERS
from mnist.report import charts, png, sharing
from mnist.report.graph import Step
from mnist.report.markup import Markup, join, tag
from mnist.report.reading import N_MISREAD, Reading

# The most first-layer units whose weights are shown.
N_UNITS = 40

# What the browser lets the page do: no scripts, nothing from elsewhere.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Run(NamedTuple):
    """All that a page tells of: a run, and the network that it left."""

    args: Namespace
    network: chainer.Chain
    log: Sequence[Mapping[str, Any]]
    snapshot: Path | None
    source: str
    n_training: int
    n_processes: int
    reading: Reading
    steps: Sequence[Step]


def render(run: Run) -> str:
    """Returns the page of a run as HTML."""
    sections = [
        ('result', 'Result', _headline(run)),
        ('curves', 'Loss and error', _curves(run)),
        ('cost', 'Parameters and operations', _cost(run)),
        ('sharing', 'What is shared with what', sharing.render(
            run.network, run.reading.images, _picture)),
        ('confusion', 'Confusion matrix', _confusion(run.reading)),
        ('misread', 'Misread digits', _misread(run.reading)),
        ('weights', 'Weights of the first layer', _weights(run.network)),
        ('graph', 'Graph of the network', _graph(run)),
        ('settings', 'Command, settings and versions', _settings(run))]
    title = options.describe(run.args)
    style = Path(__file__).with_name('style.css').read_text('utf-8')
    body = tag(
        'body',
        tag('header',
            tag('h1', title),
            tag('p', f'Data: {_without_home(_source(run))}.', class_='quiet'),
            tag('nav', tag('ul', [
                tag('li', tag('a', heading, href=f'#{name}'))
                for name, heading, _ in sections]), aria_label='Sections')),
        tag('main', [
            tag('section', tag('h2', heading, id=f'{name}-heading'), content,
                id=name, aria_labelledby=f'{name}-heading')
            for name, heading, content in sections]))
    head = tag(
        'head',
        tag('meta', charset='utf-8'),
        tag('meta', http_equiv='Content-Security-Policy', content=POLICY),
        tag('meta', name='viewport',
            content='width=device-width, initial-scale=1'),
        # A browser that gets the page from a server asks for no icon then.
        tag('link', rel='icon', href='data:,'),
        tag('title', f'Training report: {title}'),
        tag('style', Markup(style)))
    return '<!DOCTYPE html>\n' + tag('html', head, body, lang='en') + '\n'


def _headline(run: Run) -> Markup:
    errors = summary.test_errors(run.log)
    n_wrong = int((run.reading.predictions != run.reading.labels).sum())
    params, dense_params = _sums(_layers(run), 'params')
    operations, dense_operations = _sums(_layers(run), 'operations')
    numbers = [(
        'Test error', f'{errors[-1]:.2f} %',
        f'{n_wrong:,} of {len(run.reading.labels):,} digits misread')]
    if len(errors) >= summary.ERROR_EPOCHS:
        last = errors[-summary.ERROR_EPOCHS:]
        numbers.append((
            f'Last {summary.ERROR_EPOCHS} epochs',
            f'{sum(last) / len(last):.2f} %', 'mean test error'))
    numbers += [
        ('Parameters', f'{params:,}',
         f'{_per_cent(params, dense_params)} of the dense network'),
        ('Operations per image', f'{operations:,}',
         f'{_per_cent(operations, dense_operations)} of the dense network'),
        ('Time per epoch', f'{summary.seconds_per_epoch(run.log):.2f} s',
         f'{run.log[-1]["epoch"]} epochs on {run.network.device}')]
    return tag('dl', [
        tag('div', tag('dt', name), tag(
            'dd', tag('span', number, class_='number'), tag('small', note)))
        for name, number, note in numbers], class_='numbers')


def _curves(run: Run) -> Markup:
    trained = [entry for entry in run.log if entry['epoch'] > 0]

    def curve(name: str, style: str, key: str, per_cent: bool) -> charts.Curve:
        return charts.Curve(name, style, {
            entry['epoch']: 100 * (1 - entry[key]) if per_cent else entry[key]
            for entry in trained if key in entry})

    loss, error = (
        [curve('training', 'training', f'main/{key}', per_cent),
         curve('test', 'test', f'validation/main/{key}', per_cent)]
        for key, per_cent in (('loss', False), ('accuracy', True)))
    before = [entry for entry in run.log if entry['epoch'] == 0]
    caption = [
        'Training: the mean over the epoch, while the weights change. Test: '
        'after the epoch.']
    if before:
        caption.append(
            ' Before training: test loss {:.3f}, test error {:.1f} %.'.format(
                before[0]['validation/main/loss'],
                100 * (1 - before[0]['validation/main/accuracy'])))
    epochs = charts.thin([entry['epoch'] for entry in trained])
    columns = [(curve, number) for curves, number in (
        (loss, '.4f'), (error, '.2f')) for curve in curves]
    table = tag(
        'table',
        tag('caption', 'The values of the charts, after each epoch'
            if len(epochs) == len(trained) else
            f'The values of the charts, after {len(epochs)} of the '
            f'{len(trained)} epochs'),
        tag('thead', tag('tr', [tag('th', text, scope='col') for text in (
            'epoch', 'training loss', 'test loss', 'training error, %',
            'test error, %')])),
        tag('tbody', [
            tag('tr', tag('th', epoch, scope='row'), [
                tag('td', format(curve.values[epoch], number)
                    if epoch in curve.values else '')
                for curve, number in columns]) for epoch in epochs]),
        class_='rows')
    return join([
        tag('div',
            tag('figure', charts.draw_curves(
                loss, 'Cross entropy loss', '', '.4f')),
            tag('figure', charts.draw_curves(error, 'Error', ' %', '.2f')),
            class_='charts'),
        tag('p', caption, class_='quiet'),
        tag('details', tag('summary', 'The values as a table'),
            _scroll(table, 'Loss and error after each epoch'))])


class Layer(NamedTuple):
    """A fully connected layer: this run's numbers, then a dense one's."""

    name: str
    sizes: str
    weight: str
    params: tuple[int, int]
    operations: tuple[int, int]


def _layers(run: Run) -> list[Layer]:
    operations: dict[str, int] = {}
    for step in run.steps:
        if step.operations is not None and step.layer is not None:
            # A layer of low rank is two functions.
            operations[step.layer] = (
                operations.get(step.layer, 0) + step.operations)
    layers = []
    for name, count in operations.items():
        link = run.network[name]
        in_size, out_size = summary.sizes(link)
        shared = summary.describe(link)
        layers.append(Layer(
            name, f'{in_size:,} → {out_size:,}'
            + (f', {shared}' if shared else ''),
            ', '.join(
                ' × '.join(f'{size:,}' for size in param.shape)
                for _, param in sorted(link.namedparams())
                if param.ndim == 2),
            summary.count_parameters(link),
            (count, 2 * in_size * out_size)))
    return layers


def _sums(layers: Sequence[Layer], name: str) -> tuple[int, int]:
    here, dense = zip(
        *(getattr(layer, name) for layer in layers), strict=True)
    return sum(here), sum(dense)


def _cost(run: Run) -> Markup:
    layers = _layers(run)

    def cells(here: int, dense: int) -> list[Markup]:
        share = 100 * here / dense
        return [
            tag('td', f'{here:,}'), tag('td', f'{dense:,}'),
            tag('td', _per_cent(here, dense), tag(
                'span', tag('span', style=f'width: {share:.1f}%'),
                class_='bar', aria_hidden='true'))]

    table = tag(
        'table',
        tag('caption', 'This run against the network of dense layers.'),
        tag('thead',
            tag('tr',
                tag('th', 'layer', scope='col', rowspan=2, class_='left'),
                tag('th', 'weight', scope='col', rowspan=2),
                tag('th', 'parameters', scope='colgroup', colspan=3),
                tag('th', 'operations per image', scope='colgroup',
                    colspan=3)),
            tag('tr', [
                tag('th', text, scope='col')
                for text in ('this run', 'dense', 'share') * 2])),
        tag('tbody', [
            tag('tr',
                tag('th', layer.name, tag('small', layer.sizes),
                    scope='row'),
                tag('td', layer.weight), cells(*layer.params),
                cells(*layer.operations)) for layer in layers]),
        tag('tfoot', tag(
            'tr', tag('th', 'in all', scope='row'), tag('td'),
            cells(*_sums(layers, 'params')),
            cells(*_sums(layers, 'operations')))),
        class_='rows')
    return join([
        _scroll(table, 'Parameters and operations against dense'),
        tag('p', 'Operations are those on floating-point numbers in the '
            'forward pass for one image: a multiplication and an addition for '
            'each weight that is used (to a sum that starts from the bias), '
            'and an addition for each input that is folded onto others, in '
            'each block. Signs and ReLU are not counted.',
            class_='quiet')])


def _confusion(reading: Reading) -> Markup:
    counts = reading.confusion()
    most_wrong = (counts - numpy.diag(counts.diagonal())).max()

    def cell(label: int, prediction: int) -> Markup:
        count = int(counts[label, prediction])
        if count == 0:
            return tag('td', '0', class_='none')
        if label == prediction:
            kind, share = 'right', .12 + .3 * count / counts[label].sum()
        else:
            kind, share = 'wrong', .15 + .35 * count / most_wrong
        return tag('td', count, class_=kind,
                   style=f'--share: {share:.2f}')

    def row(label: int) -> Markup:
        total = int(counts[label].sum())
        return tag(
            'tr', tag('th', label, scope='row'),
            [cell(label, prediction) for prediction in range(N_CLASSES)],
            tag('td', total, class_='sum'),
            tag('td', _rounded(total - counts[label, label], total),
                class_='sum'))

    table = tag(
        'table',
        tag('caption', 'Blue is right, orange is wrong; the stronger, the '
            'more digits.'),
        tag('thead', tag(
            'tr', tag('td'),
            [tag('th', prediction, scope='col')
             for prediction in range(N_CLASSES)],
            tag('th', 'all', scope='col', class_='sum'),
            tag('th', 'error', scope='col', class_='sum'))),
        tag('tbody', map(row, range(N_CLASSES))),
        class_='confusion')
    return join([
        tag('p', 'Test digits by their label (rows) and by what the network '
            f'reads (columns).{_most_frequent(counts)}'),
        _scroll(table, 'Confusion matrix')])


def _most_frequent(counts: numpy.ndarray) -> str:
    wrong = counts - numpy.diag(counts.diagonal())
    worst = numpy.argsort(-wrong, axis=None, kind='stable')[:3]
    pairs = [divmod(int(i), N_CLASSES) for i in worst if wrong.flat[i]]
    return ' Most often {}.'.format(', '.join(
        f'{label} is read as {prediction} ({wrong[label, prediction]:,} times)'
        for label, prediction in pairs)) if pairs else ''


def _misread(reading: Reading) -> Markup:
    numbers = reading.misread()
    n_digits = len(reading.labels)
    if not len(numbers):
        return tag('p', f'None: all {n_digits:,} test digits are read right.')
    shown = numbers[:N_MISREAD]
    return join([
        tag('p', f'{len(numbers):,} of {n_digits:,}. ' + (
            f'These are the {len(shown)} of which the network is surest.'
            if len(shown) < len(numbers) else 'All of them, the surest '
            'first.')),
        tag('ul', [
            tag('li', _digit(reading, int(number))) for number in shown],
            class_='digits'),
        tag('p', 'p is the probability that the network gives to what it '
            'reads. Numbers count the test digits from 0.',
            class_='quiet')])


def _digit(reading: Reading, number: int) -> Markup:
    label = int(reading.labels[number])
    prediction = int(reading.predictions[number])
    probability = reading.probabilities[number, prediction]
    picture = png.encode(
        png.levels(reading.images[number].reshape(SIDE, SIDE), 0, 1),
        png.GREYS)
    return tag(
        'figure',
        tag('img', src=png.data_uri(picture), width=SIDE, height=SIDE,
            alt=f'Test digit {number}, labelled {label}'),
        tag('figcaption',
            tag('strong', f'{label} read as {prediction}'), tag('br'),
            f'p {probability:.4f}', tag('br'),
            f'no. {number:,}'))


def _weights(network: chainer.Chain) -> Markup:
    dense = network.l1
    if not isinstance(dense, L.Linear):
        dense = dense.to_linear()
    W = cuda.to_cpu(dense.W.array).astype(float)
    with numpy.errstate(over='ignore', invalid='ignore'):
        norms = numpy.nan_to_num(numpy.sqrt((W * W).sum(axis=1)))
    units = numpy.argsort(-norms, kind='stable')[:N_UNITS]
    finite = numpy.abs(W[units][numpy.isfinite(W[units])])
    # A few large weights must not make all the others pale.
    limit = float(numpy.quantile(finite, .998)) if finite.size else 0.
    limit = limit or 1.
    which = (
        f'The {len(units)} of {len(W):,} units with the largest weights'
        if len(units) < len(W) else f'All {len(W)} units')

    def unit(number: int) -> Markup:
        picture = W[number].reshape(SIDE, SIDE)
        return tag('li', _picture(
            png.levels(picture, -limit, limit),
            f'Unit {number}: weights from {picture.min():.2f} to '
            f'{picture.max():.2f}', f'unit {number}'))

    scale = png.levels(
        numpy.linspace(-1, 1, png.N_LEVELS)[None], -1., 1.)
    return join([
        tag('p', f'{which}, the largest first: one picture per unit, one '
            f'pixel per pixel of the digit. All share one scale.'),
        tag('ul', [unit(int(number)) for number in units], class_='units'),
        tag('p', f'−{limit:.2f}', _picture(
            scale, 'Scale, from negative in blue over zero to positive in '
            'red'), f'+{limit:.2f}', class_='scale')])


def _picture(
        levels: numpy.ndarray, alt: str, title: str | None = None) -> Markup:
    """A picture in the colours of the page, be it light or dark."""
    height, width = levels.shape
    light, dark = (
        png.data_uri(png.encode(levels, stops))
        for stops in (png.DIVERGING, png.DIVERGING_IN_THE_DARK))
    return tag(
        'picture',
        tag('source', srcset=dark,
            media='screen and (prefers-color-scheme: dark)'),
        tag('img', src=light, width=width, height=height, alt=alt,
            title=title))


def _graph(run: Run) -> Markup:
    return join([
        tag('p', f'The functions that ran on a mini-batch of '
            f'{run.steps[0].data[0].shape[0]} digits, as Chainer recorded '
            f'them, with the shapes of what passes between them; parameters '
            f'on the left.'),
        tag('figure', charts.draw_graph(run.steps))])


def _settings(run: Run) -> Markup:
    args = run.args
    settings = {
        name.replace('_', '-'): _shown(value)
        for name, value in sorted(vars(args).items())
        if name not in ('command', 'no_report', 'resume')
        and value is not None}
    for name in options.OF_LAYERS:
        # What the kind of layer does not take says nothing about the run.
        if name not in LAYERS[args.layer].flags:
            del settings[name.replace('_', '-')]
    if run.n_processes > 1:
        settings['processes'] = str(run.n_processes)
    settings['training digits'] = f'{run.n_training:,}'
    settings['test digits'] = f'{len(run.reading.labels):,}'
    if run.snapshot is not None:
        settings['last snapshot'] = _without_home(str(run.snapshot))
    versions = {
        'shared_linear': shared_linear.__version__,
        'Chainer': chainer.__version__,
        'NumPy': numpy.__version__,
        'Python': platform.python_version()}
    if cuda.available:
        versions['CuPy'] = cuda.cupy.__version__
    now = time.gmtime()
    return join([
        tag('h3', 'Command'),
        tag('pre', tag('code', command_line(args.command))),
        tag('h3', 'Settings'), _facts(settings),
        tag('h3', 'Versions'), _facts(versions),
        tag('p', 'Written ', tag(
            'time', time.strftime('%Y-%m-%d %H:%M UTC', now),
            datetime=time.strftime('%Y-%m-%dT%H:%MZ', now)), '.',
            class_='quiet', style='margin-top: .75rem')])


def command_line(arguments: Sequence[str]) -> str:
    """Returns the command of a run, to be pasted into a shell."""
    words = ['python', 'train_mnist.py']
    for argument in arguments:
        shown = _without_home(argument)
        if shown == argument:
            words.append(shlex.quote(argument))
        else:
            head, _, tail = shown.partition('~')
            # Only at the start of a word does a shell know ~.
            words.append(
                (shlex.quote(head) + '"$HOME"' if head else '~')
                + (tail[:1] + shlex.quote(tail[1:]) if tail else ''))
    return ' '.join(words)


def _without_home(text: str) -> str:
    """Writes ~ for the user's home: whose it is concerns no reader."""
    home = os.path.expanduser('~')
    if len(home) < 2:
        return text
    before, found, after = text.partition(home)
    if not found or after[:1] not in ('', os.sep) or (
            before and before[-1].isalnum()):
        return text
    return f'{before}~{after}'


def _source(run: Run) -> str:
    """Where the digits come from, as the user would say it."""
    if run.args.data is not None:
        return run.source
    return run.source.replace(f', {cache.directory()}', '')


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    return _without_home(str(value))


def _facts(facts: Mapping[str, str]) -> Markup:
    return tag('dl', [
        tag('div', tag('dt', name), tag('dd', value))
        for name, value in facts.items()], class_='facts')


def _scroll(table: Markup, label: str) -> Markup:
    """A table that scrolls by itself where the screen is narrow."""
    return tag('div', table, class_='scroll', tabindex=0, role='region',
               aria_label=label)


def _per_cent(here: int, dense: int) -> str:
    return f'{100 * here / dense:.0f} %'


def _rounded(n_wrong: int, n: int) -> str:
    return f'{100 * n_wrong / n:.1f} %' if n else '–'
