"""How the layers that are linear maps take in a scale and a shift."""
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import chainer
import chainer.links as L
import numpy

from shared_linear.surgery.callables import class_of

Weights = tuple[Any, Any]


class CannotFold(Exception):

    """Why a layer cannot take in a scale and a shift."""


class Foldable(NamedTuple):

    """What a class of links does with a scale and a shift.

    Attributes:
        outputs (callable): ``(link, scale, shift)``, one element for each
            output channel, to the ``W`` and ``b`` with which the link
            computes ``scale * y + shift`` in place of ``y``.
        inputs (callable): ``(link, scale, shift)``, one element for each
            input channel, to the ``W`` and ``b`` with which the link
            computes from ``x`` what it computed from ``scale * x + shift``.
        output_weight (str): The parameter that is ``W`` to ``outputs``.
        input_weight (str): The parameter that is ``W`` to ``inputs``.

    """

    outputs: Callable[[Any, Any, Any], Weights]
    inputs: Callable[[Any, Any, Any], Weights]
    output_weight: str = 'W'
    input_weight: str = 'W'


_foldable: 'weakref.WeakKeyDictionary[type, Foldable]' = (
    weakref.WeakKeyDictionary())


def why_not_plain(link: chainer.Link, base: type) -> 'str | None':
    """Why a link may compute something else than its base class, or not."""
    for name in '__call__', 'forward':
        if (getattr(class_of(link), name) is not getattr(base, name)
                or name in vars(link)):
            return (f'is a {class_of(link).__name__}, with a {name} of its '
                    'own')
    return None


def why_not_foldable(link: chainer.Link) -> 'str | None':
    """Why what is known of the class of a link may not hold for it."""
    for cls in type(link).__mro__:
        if cls in _foldable:
            return why_not_plain(link, cls)
    return None


def foldable(link: chainer.Link) -> Any:
    """The :class:`Foldable` of the class of a link, or ``None``."""
    for cls in type(link).__mro__:
        if cls in _foldable:
            return _foldable[cls]
    W = getattr(link, 'W', None)
    if (isinstance(getattr(link, 'n_tiles', None), int)
            and hasattr(link, 'b') and W is not None
            and W.array is not None and W.ndim == 2):
        # Tiles of its input share a weight. Should it compute something
        # else, the check on the example input leaves it alone.
        return Foldable(linear_outputs, linear_inputs)
    return None


def bias(link: Any) -> Any:
    return 0 if getattr(link, 'b', None) is None else link.b.array


def linear_outputs(link: Any, scale: Any, shift: Any) -> Weights:
    """Of a layer whose ``W`` begins with the axis of its outputs."""
    W = link.W.array
    if len(scale) != len(W):
        raise CannotFold(f'it normalizes {len(scale)} channels, and the '
                         f'layer has {len(W)} outputs')
    return (W * scale.reshape((-1,) + (1,) * (W.ndim - 1)),
            bias(link) * scale + shift)


def linear_inputs(link: Any, scale: Any, shift: Any) -> Weights:
    """Of ``y = x W^T + b``, where tiles of ``x`` may share ``W``.

    With n tiles, ``y = sum_i x_i W^T + b``: a shift adds the sum of its
    tiles to each x_i's sum, but a scale can only move into ``W`` if it is
    the same for every tile.

    """
    W = link.W.array
    xp = chainer.backend.get_array_module(W)
    n_tiles = getattr(link, 'n_tiles', 1)
    width = W.shape[1] * n_tiles
    if width % len(scale):
        raise CannotFold(f'it normalizes {len(scale)} channels, and the '
                         f'layer reads {width} values')
    # An image is flattened channel by channel.
    scale = xp.repeat(scale, width // len(scale))
    shift = xp.repeat(shift, width // len(shift))
    order = getattr(link, 'order', None)
    if order is not None:
        scale, shift = scale[order], shift[order]
    scale = scale.reshape(n_tiles, -1)
    if not bool(xp.allclose(scale, scale[:1], rtol=1e-6, atol=0)):
        raise CannotFold('the scale differs between inputs that share a '
                         'weight')
    return (W * scale[0],
            bias(link) + W @ shift.reshape(n_tiles, -1).sum(axis=0))


def convolution_inputs(link: Any, scale: Any, shift: Any) -> Weights:
    """Of a convolution, whose ``W`` is (out, in / groups, ...)."""
    W = link.W.array
    groups = getattr(link, 'groups', 1)
    if len(scale) != W.shape[1] * groups:
        raise CannotFold(f'it normalizes {len(scale)} channels, and the '
                         f'layer reads {W.shape[1] * groups}')
    if numpy.any(link.pad) and bool((shift != 0).any()):
        raise CannotFold('the layer pads with zeros, which the shift of the '
                         'normalization does not reach')
    ones = (1,) * (W.ndim - 2)
    grouped = W.reshape(groups, -1, *W.shape[1:])
    factor = scale.reshape(groups, 1, -1, *ones)
    added = grouped * shift.reshape(groups, 1, -1, *ones)
    axes = tuple(range(2, added.ndim))
    return ((grouped * factor).reshape(W.shape),
            bias(link) + added.sum(axis=axes).reshape(-1))


def deconvolution_outputs(link: Any, scale: Any, shift: Any) -> Weights:
    """Of a deconvolution, whose ``W`` is (in, out / groups, ...)."""
    W = link.W.array
    groups = getattr(link, 'groups', 1)
    if len(scale) != W.shape[1] * groups:
        raise CannotFold(f'it normalizes {len(scale)} channels, and the '
                         f'layer has {W.shape[1] * groups} outputs')
    grouped = W.reshape(groups, -1, *W.shape[1:])
    factor = scale.reshape(groups, 1, -1, *(1,) * (W.ndim - 2))
    return (grouped * factor).reshape(W.shape), bias(link) * scale + shift


def deconvolution_inputs(link: Any, scale: Any, shift: Any) -> Weights:
    W = link.W.array
    if len(scale) != len(W):
        raise CannotFold(f'it normalizes {len(scale)} channels, and the '
                         f'layer reads {len(W)}')
    if bool((shift != 0).any()):
        raise CannotFold('the outputs of a deconvolution read differing '
                         'numbers of inputs, so the shift is no bias')
    return (W * scale.reshape((-1,) + (1,) * (W.ndim - 1)),
            bias(link))


def depthwise_outputs(link: Any, scale: Any, shift: Any) -> Weights:
    """Of a depthwise convolution, whose ``W`` is (multiplier, in, ...)."""
    W = link.W.array
    multiplier, channels = W.shape[:2]
    if len(scale) != multiplier * channels:
        raise CannotFold(f'it normalizes {len(scale)} channels, and the '
                         f'layer has {multiplier * channels} outputs')
    factor = scale.reshape(channels, multiplier).T[:, :, None, None]
    return W * factor, bias(link) * scale + shift


def depthwise_inputs(link: Any, scale: Any, shift: Any) -> Weights:
    W = link.W.array
    if len(scale) != W.shape[1]:
        raise CannotFold(f'it normalizes {len(scale)} channels, and the '
                         f'layer reads {W.shape[1]}')
    if numpy.any(link.pad) and bool((shift != 0).any()):
        raise CannotFold('the layer pads with zeros, which the shift of the '
                         'normalization does not reach')
    added = (W * shift[:, None, None]).sum(axis=(2, 3))
    return (W * scale[:, None, None], bias(link) + added.T.reshape(-1))


def register_foldable(
        link_class: type,
        outputs: Callable[[Any, Any, Any], Weights] = linear_outputs,
        inputs: Callable[[Any, Any, Any], Weights] = linear_inputs,
        output_weight: str = 'W', input_weight: str = 'W') -> None:
    """Tells how batch normalization folds into links of a class.

    Links of other classes that have ``n_tiles``, a two-dimensional ``W`` and
    ``b`` are taken for fully connected layers as they are.

    By default as into a fully connected layer with ``W`` of shape
    (out, in / n_tiles), ``b`` of shape (out,) or ``None`` and, if it has
    them, ``n_tiles``, the number of tiles of the input that share ``W``, and
    ``order``, in which the input is read.

    Args:
        link_class (type): The class, with those derived from it.
        outputs (callable): See :class:`.Foldable`.
        inputs (callable): See :class:`.Foldable`.
        output_weight (str): See :class:`.Foldable`.
        input_weight (str): See :class:`.Foldable`.

    """
    _foldable[link_class] = Foldable(
        outputs, inputs, output_weight, input_weight)


_convolutions: tuple[type, ...] = (
    L.Convolution2D, L.ConvolutionND, L.DilatedConvolution2D)
_deconvolutions: tuple[type, ...] = L.Deconvolution2D, L.DeconvolutionND

register_foldable(L.Linear)
for _class in _convolutions:
    register_foldable(_class, linear_outputs, convolution_inputs)
for _class in _deconvolutions:
    register_foldable(_class, deconvolution_outputs, deconvolution_inputs)
register_foldable(
    L.DepthwiseConvolution2D, depthwise_outputs, depthwise_inputs)
