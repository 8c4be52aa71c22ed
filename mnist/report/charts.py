"""Charts as SVG: the curves of a run, and the graph of a network."""
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from mnist.report.graph import Step
from mnist.report.markup import Markup, tag

# In units of the drawing, which the page scales.
WIDTH, HEIGHT = 400, 270
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 34, 42

# More points than pixels make a page large, and show nothing.
MAX_POINTS = 200


class Curve(NamedTuple):
    """A line of a chart: its name, its class in CSS, a value per epoch."""

    name: str
    style: str
    values: Mapping[int, float]


def thin(epochs: Sequence[int], n: int = MAX_POINTS) -> list[int]:
    """Returns at most ``n`` of the epochs, evenly, the last among them."""
    step = math.ceil(len(epochs) / n)
    return list(reversed(list(reversed(epochs))[::step or 1]))


def ticks(low: float, high: float, n: int, whole: bool = False) -> list[float]:
    """Returns up to ``n`` + 1 round numbers from ``low`` to ``high``."""
    raw = (high - low) / n or 1.
    power = 10. ** math.floor(math.log10(raw))
    step = next(
        f * power for f in (1, 2, 2.5, 5, 10) if f * power >= raw * (1 - 1e-9)
        and not (whole and f * power % 1))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [step * i for i in range(first, last + 1)]


def draw_curves(
        curves: Sequence[Curve], title: str, unit: str,
        number: str) -> Markup:
    """Returns a chart of curves over the epochs, with a scale from zero.

    The values of an epoch appear above it under the pointer. A value that is
    not finite leaves a gap.

    Args:
        curves (sequence of Curve): What to draw.
        title (str): What the values are.
        unit (str): Their unit, put behind each number.
        number (str): How to write them, as of :func:`format`.
    """
    epochs = thin(sorted({e for curve in curves for e in curve.values}))
    first, last = min(epochs), max(epochs)
    span = last - first or 1
    finite = [
        value for curve in curves for epoch in epochs
        if math.isfinite(value := curve.values.get(epoch, math.nan))]
    top = max(finite, default=0) or 1
    y_ticks = ticks(0, top * 1.05, 5)
    top = max(top * 1.05, y_ticks[-1])

    def x(epoch: float) -> float:
        if first == last:
            return (LEFT + WIDTH - RIGHT) / 2
        return LEFT + (epoch - first) / span * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM)

    x_ticks = [first] if first == last else ticks(first, last, 8, whole=True)
    digits = max(0, -math.floor(math.log10(y_ticks[1])) + (
        0 if _is_whole(y_ticks[1] / 10 ** math.floor(
            math.log10(y_ticks[1]))) else 1))
    return tag(
        'svg',
        tag('g', [
            [tag('line', x1=LEFT, x2=WIDTH - RIGHT, y1=_n(y(t)), y2=_n(y(t))),
             tag('text', f'{t:.{digits}f}', x=LEFT - 6, y=_n(y(t) + 4),
                 text_anchor='end')]
            for t in y_ticks], class_='grid'),
        tag('g', [
            tag('text', f'{t:.0f}', x=_n(x(t)), y=HEIGHT - BOTTOM + 18,
                text_anchor='middle') for t in x_ticks], class_='grid'),
        tag('text', 'epoch', x=WIDTH - RIGHT, y=HEIGHT - 6,
            text_anchor='end', class_='axis'),
        tag('text', f'{title}{unit and f",{unit}"}', x=LEFT, y=TOP - 20,
            class_='axis'),
        [_draw(curve, epochs, x, y) for curve in curves],
        [_legend(curve, i) for i, curve in enumerate(curves)],
        [_readout(curves, epoch, x, y, span, len(epochs), unit, number)
         for epoch in epochs],
        viewBox=f'0 0 {WIDTH} {HEIGHT}', class_='chart', role='img',
        aria_label=_describe(curves, title, unit, number))


def _draw(curve: Curve, epochs: Iterable[int], x, y) -> Markup:  # type: ignore
    points: list[list[str]] = [[]]
    for epoch in epochs:
        value = curve.values.get(epoch, math.nan)
        if math.isfinite(value):
            points[-1].append(f'{_n(x(epoch))} {_n(y(value))}')
        elif points[-1]:
            points.append([])
    # A line of no length is drawn as a dot, by its round end.
    lines = ''.join(
        'M' + 'L'.join(run if len(run) > 1 else run * 2)
        for run in points if run)
    return tag('path', d=lines or None, class_=f'curve {curve.style}')


def _legend(curve: Curve, i: int) -> Markup:
    start = WIDTH - RIGHT - 84 * (2 - i) + 16
    return tag(
        'g', tag('path', d=f'M{start} {TOP - 24}h18',
                 class_=f'curve {curve.style}'),
        tag('text', curve.name, x=start + 23, y=TOP - 20), class_='legend')


def _readout(  # type: ignore
        curves: Sequence[Curve], epoch: int, x, y, span: int, n: int,
        unit: str, number: str) -> Markup:
    """A strip over an epoch that shows its values under the pointer."""
    width = (WIDTH - LEFT - RIGHT) / max(n - 1, 1)
    values = [
        (curve, curve.values[epoch]) for curve in curves
        if epoch in curve.values]
    return tag(
        'g',
        tag('rect', x=_n(x(epoch) - width / 2), y=TOP - 8, width=_n(width),
            height=HEIGHT - TOP - BOTTOM + 8),
        tag('line', x1=_n(x(epoch)), x2=_n(x(epoch)), y1=TOP,
            y2=HEIGHT - BOTTOM),
        [tag('circle', cx=_n(x(epoch)), cy=_n(y(value)), r=4,
             class_=curve.style)
         for curve, value in values if math.isfinite(value)],
        tag('text', ', '.join(
            [f'epoch {epoch}'] + [
                f'{curve.name} {value:{number}}{unit}'
                for curve, value in values]),
            x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 8,
            text_anchor='middle'),
        class_='readout')


def _describe(
        curves: Sequence[Curve], title: str, unit: str, number: str) -> str:
    parts = []
    for curve in curves:
        if curve.values:
            start, end = min(curve.values), max(curve.values)
            parts.append(
                f'{curve.name} {curve.values[start]:{number}}{unit} after '
                f'epoch {start}, {curve.values[end]:{number}}{unit} after '
                f'epoch {end}')
    return f'Chart of the {title} over the epochs: {"; ".join(parts)}.'


# Of the graph, in the same units: a row per function.
ROW, BOX = 74, 34
PARAMETER_WIDTH, FUNCTION_LEFT, FUNCTION_WIDTH = 118, 152, 224
# Of a function, as many as fit its box in any of the fonts.
MAX_LETTERS = 30


def draw_graph(steps: Sequence[Step]) -> Markup:
    """Returns a picture of the functions of a run, the first on top.

    Parameters stand on the left. What a function passes to the next goes
    straight down, with its shape beside it; what it passes to a later one
    goes around on the right.

    Args:
        steps (sequence of Step): Functions, in the order in which they ran.
    """
    center = FUNCTION_LEFT + FUNCTION_WIDTH / 2
    height = ROW * (len(steps) + 1) + 40

    def top(i: int) -> int:
        return ROW * (i + 1)

    drawn: list[Markup] = [tag('text', 'x', x=center, y=22, class_='end')]
    for i, step in enumerate(steps):
        middle = top(i) + BOX / 2
        for source in step.data:
            start = 30 if source.step is None else top(source.step) + BOX
            before = -1 if source.step is None else source.step
            if before == i - 1:
                drawn.append(_arrow(f'M{center} {start}V{top(i) - 2}'))
                drawn.append(tag(
                    'text', _shape(source.shape), x=center + 8,
                    y=(start + top(i)) / 2 + 4, class_='shape'))
            else:
                edge = FUNCTION_LEFT + FUNCTION_WIDTH
                reach = edge + 14 + 6 * (i - before)
                drawn.append(_arrow(
                    f'M{edge} {start - BOX / 2}C{reach} {start} {reach} '
                    f'{middle} {edge + 2} {middle}'))
        n = len(step.parameters)
        for k, source in enumerate(step.parameters):
            y = middle + (k - (n - 1) / 2) * (BOX - 2)
            drawn.append(tag(
                'rect', x=1, y=y - 14, width=PARAMETER_WIDTH, height=28,
                rx=14, class_='parameter'))
            drawn.append(tag(
                'text', f'{source.name} {_shape(source.shape)}',
                x=1 + PARAMETER_WIDTH / 2, y=y + 4, class_='parameter'))
            drawn.append(_arrow(
                f'M{PARAMETER_WIDTH + 1} {y}L{FUNCTION_LEFT - 2} '
                f'{middle + (y - middle) / 4}'))
        drawn.append(tag(
            'rect', x=FUNCTION_LEFT, y=top(i), width=FUNCTION_WIDTH,
            height=BOX, rx=5, class_='function'))
        drawn.append(tag(
            'text', step.kind, x=center, y=middle + 4, class_='function',
            # A long one is drawn together, rather than out of its box.
            **({'textLength': FUNCTION_WIDTH - 12,
                'lengthAdjust': 'spacingAndGlyphs'}
               if len(step.kind) > MAX_LETTERS else {})))
    end = top(len(steps) - 1) + BOX
    drawn.append(_arrow(f'M{center} {end}V{end + 32}'))
    drawn.append(tag(
        'text', _shape(steps[-1].shape), x=center + 8, y=end + 20,
        class_='shape'))
    drawn.append(tag('text', 'y', x=center, y=end + 50, class_='end'))
    return tag(
        'svg',
        tag('marker', tag('path', d='M0 0L8 4L0 8z'), id='tip', refX=7,
            refY=4, markerWidth=8, markerHeight=8, orient='auto',
            markerUnits='userSpaceOnUse'),
        drawn, viewBox=f'0 0 {FUNCTION_LEFT + FUNCTION_WIDTH + 40} {height}',
        class_='graph', role='img', aria_label=' '.join(
            _tell(i, step) for i, step in enumerate(steps, 1)))


def _tell(i: int, step: Step) -> str:
    sources = [
        source.name if source.step is None
        else f'the output of function {source.step + 1}'
        for source in step.sources]
    return (f'Function {i}: {step.kind} of {", ".join(sources)} gives '
            f'{_shape(step.shape)}.')


def _shape(shape: Sequence[int]) -> str:
    return ' × '.join(map(str, shape))


def _arrow(path: str) -> Markup:
    return tag('path', d=path, class_='arrow', marker_end='url(#tip)')


def _n(number: float) -> str:
    """A coordinate in few characters."""
    return f'{number:.1f}'.removesuffix('.0')


def _is_whole(number: float) -> bool:
    return abs(number - round(number)) < 1e-9
