"""What is shared with what: pictures of the inputs that meet one weight."""
from collections.abc import Callable

import chainer
import chainer.links as L
import numpy
from chainer.backends import cuda

from mnist.idx import SIDE
from mnist.report import png
from mnist.report.markup import Markup, join, tag
from mnist.summary import sizes
from shared_linear import LowRankLinear, MixedLinear, SharedLinear

# The most that is shown: groups of pixels, blocks of outputs, inputs.
N_GROUPS = 24
N_BLOCKS = 20
N_INPUTS = 1200
# Pixels of the picture for a block of outputs.
HEIGHT = 12

Picture = Callable[..., Markup]


def columns(link: chainer.Link) -> numpy.ndarray:
    """Returns which column of the weight each input meets.

    Args:
        link (Link): ``L.Linear`` or one that takes its place.

    Returns:
        numpy.ndarray: For each block of outputs a row of numbers from 1, one
        for each input; negative where the input's sign is turned.
    """
    in_size, _ = sizes(link)
    if isinstance(link, L.Linear):
        return numpy.arange(1, in_size + 1)[None]
    # A layer that shares as this one does, of one output for each block,
    # whose weight says where it stands.
    order = link.order
    if order is not None:
        order = cuda.to_cpu(order)
    with chainer.using_config('dtype', numpy.dtype(numpy.float64)), \
            chainer.using_device('@numpy'):
        W = numpy.arange(1., in_size // link.n_tiles + 1)[None]
        if isinstance(link, MixedLinear):
            probe = MixedLinear.from_params(
                W, n_tiles=link.n_tiles, n_blocks=link.n_blocks,
                seed=link.seed, order=order)
        else:
            probe = SharedLinear.from_params(
                W, n_tiles=link.n_tiles, order=order)
        return probe.to_linear().W.array.round().astype(int)


def render(
        network: chainer.Chain, images: numpy.ndarray,
        picture: Picture) -> Markup:
    """Returns the section of the page.

    Args:
        network (Chain): The network; its first layer is ``l1``.
        images (numpy.ndarray): Images of shape (N, 784), which the groups of
            pixels are shown on.
        picture (callable): Makes an element of levels, a text and a title.
    """
    return join([
        _layer(link, images, picture) for link in network.children()])


def _layer(
        link: chainer.Link, images: numpy.ndarray,
        picture: Picture) -> Markup:
    in_size, out_size = sizes(link)
    title = f'{link.name}: {in_size:,} → {out_size:,}'
    if isinstance(link, L.Linear) or len(_groups(link)) == in_size:
        return tag(
            'p', tag('strong', title), ', '
            f'nothing is shared: each of its {in_size * out_size:,} weights '
            'is between one input and one output.')
    body = (_pixels(link, images, picture) if in_size == SIDE * SIDE
            else _bands(link, picture))
    return join([tag('h3', title), body])


def _groups(link: chainer.Link) -> numpy.ndarray:
    return numpy.unique(numpy.abs(columns(link)[0]))


def _pixels(
        link: chainer.Link, images: numpy.ndarray,
        picture: Picture) -> Markup:
    """For the first layer: the pixels of a group, on the mean image."""
    column = numpy.abs(columns(link)[0])
    mean = images.mean(axis=0)
    numbers = numpy.unique(column)
    ink = numpy.array([mean[column == n].sum() for n in numbers])
    shown = numbers[numpy.argsort(-ink, kind='stable')[:N_GROUPS]]

    def group(number: int) -> Markup:
        inside = column == number
        # Blue is the mean image, red are the pixels of the group.
        values = numpy.where(inside, 1., -.6 * mean / (mean.max() or 1.))
        pixels = ', '.join(
            f'{i // SIDE}/{i % SIDE}' for i in numpy.flatnonzero(inside))
        return tag('li', picture(
            png.levels(values.reshape(SIDE, SIDE), -1., 1.),
            f'Group {number}: pixels (row/column) {pixels} share a weight',
            f'group {number}'))

    return join([
        tag('p', f'The {len(column)} pixels are added up in '
            f'{len(numbers)} groups of {link.n_tiles}, and the pixels of a '
            f'group share a weight to each unit. In red the groups '
            f'{"with the most ink" if len(shown) < len(numbers) else ""} '
            f'({len(shown)} of {len(numbers)}), in blue the mean test image.'),
        tag('ul', [group(int(number)) for number in shown], class_='units')])


def _bands(link: chainer.Link, picture: Picture) -> Markup:
    """For the second layer: the inputs in a row, coloured by their weight."""
    in_size, out_size = sizes(link)
    table = columns(link)[:N_BLOCKS, :N_INPUTS]
    n_columns = in_size // link.n_tiles
    values = numpy.sign(table) * (numpy.abs(table) - .5) / n_columns
    n_blocks = getattr(link, 'n_blocks', 1)
    bands = png.levels(numpy.repeat(values, HEIGHT, axis=0), -1., 1.)
    if len(table) == 1:
        bands = numpy.repeat(bands, 2, axis=0)
    words = (f'The {in_size:,} inputs from left to right; inputs of one '
             f'colour meet the same {n_columns:,} columns of the weight: '
             f'{link.n_tiles} inputs to a column.')
    if n_blocks > 1:
        words += (
            f' Each row is a block of {out_size // n_blocks:,} of the '
            f'{out_size:,} outputs: all {n_blocks} have the same weight and '
            f'another choice of inputs; in blue the inputs whose sign is '
            f'turned.')
        if len(table) < n_blocks:
            words += f' The first {len(table)} blocks are shown.'
    if isinstance(link, LowRankLinear):
        words += (
            f' The {link.rank} sums behind them, its rank, are then weighed '
            f'for each of the {out_size:,} outputs alone.')
    if table.shape[1] < in_size:
        words += f' The first {table.shape[1]:,} inputs are shown.'
    return join([
        tag('p', words),
        tag('p', picture(
            bands, f'Which inputs of {link.name} share a weight: '
            f'{link.n_tiles} tiles, {n_blocks} blocks',
            f'{link.n_tiles} tiles'), class_='bands')])
