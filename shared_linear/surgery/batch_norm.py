"""Folds batch normalization into the layer before it, or behind it."""
from typing import Any, NamedTuple

import chainer
import chainer.links as L
import numpy

from shared_linear.surgery import edited, notice
from shared_linear.surgery.addresses import Pattern
from shared_linear.surgery.attachment import attach, next_number
from shared_linear.surgery.fold_report import Folded, FoldReport
from shared_linear.surgery.foldable import (
    CannotFold,
    Weights,
    foldable,
    why_not_foldable,
    why_not_plain,
)
from shared_linear.surgery.graph import Graph
from shared_linear.surgery.kinds import Remove
from shared_linear.surgery.nodes import Node, Value
from shared_linear.surgery.preservation import preserved, transaction
from shared_linear.surgery.ties import find_ties
from shared_linear.surgery.trace import Example, record_quietly


class Fold(Remove):

    """Skips a batch normalization that was folded.

    Attributes:
        into (str): Path of the layer, seen from the model.
        added_bias (bool): Whether the layer had no bias before.

    """

    kind = 'fold'
    into = ''
    added_bias = False

    def __str__(self) -> str:
        return f'fold {self.patterns[0].text} into {self.into}'

    def undo(self, model: chainer.Link, path: str) -> None:
        if not self.added_bias:
            return
        prefix = '' if path == '/' else path
        links = dict(model.namedlinks())
        layer = links[prefix + self.into]
        normalization = links[prefix + self.patterns[0].text]
        normalization.avg_mean = -layer.b.array
        del layer.b
        layer.b = None


def fold_batch_normalization(model: chainer.Link, x: Any) -> FoldReport:
    """Folds each batch normalization into a linear layer next to it.

    In test mode a batch normalization is the map ``s y + t`` with
    ``s = gamma / sqrt(var + eps)`` and ``t = beta - s mean``. Behind a layer
    ``y = W x + b`` it folds into it, as ``(s W) x + (s b + t)``; in front of
    one as ``(W s) x + (b + W t)``. It is then skipped, in train mode too.

    It is left alone where that would change what the model computes: if
    something else reads the value between the two, if one of them runs
    twice or shares its weights, if it would scale what shares a weight in
    the layer by different numbers, or if the layer pads with zeros, which a
    shift in front of it would not reach. Each fold is checked on ``x``.

    The batch normalization stays in the model as the identity, so that a
    file of the folded model loads into the unfolded one and means the same
    there in test mode. A layer without a bias gets one.

    Args:
        model (~chainer.Link): The model, changed in place.
        x: Example input (a tuple for several).

    Returns:
        FoldReport: One entry for each batch normalization. Printable.

    .. admonition:: Example

        >>> import numpy as np
        >>> from shared_linear import surgery
        >>> import chainer.links as L
        >>> model = chainer.Sequential(
        ...     L.Convolution2D(1, 4, 3), L.BatchNormalization(4))
        >>> x = np.ones((2, 1, 8, 8), np.float32)
        >>> print(surgery.fold_batch_normalization(model, x))
        /1 folded into /0

    """
    if not isinstance(model, chainer.Link):
        raise TypeError('batch normalization is folded in a chainer.Link, '
                        f'not in a {type(model).__name__}')
    example = Example(x if isinstance(x, tuple) else (x,), {})
    edited.settle(model, example.args, example.kwargs)
    folded: dict[str, Folded] = {}
    with transaction(model):
        trained = any(param.update_rule is not None
                      for param in model.params())
        left = None
        while left is None:
            graphs = [record_quietly(model, example, train)
                      for train in (False, True)]
            left = _fold_some(model, graphs, folded)
        new = [one.into for one in folded.values() if one.new_bias]
        if trained and new:
            notice.warn(
                'an optimizer was set up before biases were added to '
                f'{", ".join(map(str, new))}, and does not train them: call '
                'optimizer.setup(model) again, which begins with a new '
                'state')
    report = {**left, **folded}
    return FoldReport(
        report[path] for path, link in model.namedlinks() if path in report)


def _fold_some(model: chainer.Link, graphs: list[Graph],
               folded: dict[str, Folded]) -> 'dict[str, Folded] | None':
    """Folds what these runs allow; where nothing, tells why."""
    touched: set[int] = set()
    ties = find_ties(model)
    left = {}
    for path, link in model.namedlinks():
        if not isinstance(link, L.BatchNormalization) or path in folded:
            continue
        reasons = []
        for attempt in _forwards, _backwards:
            try:
                _check_plain(link, L.BatchNormalization)
                _check_ties(path, ties)
                fold = attempt(path, link, graphs)
                _check_ties(fold.node.address, ties)
                folded[path] = _carry_out(model, path, fold, touched)
                break
            except CannotFold as reason:
                reasons.append(str(reason))
        else:
            left[path] = Folded(path, None, '; '.join(dict.fromkeys(reasons)))
    return None if touched else left


def _call(graph: Graph, link: chainer.Link, what: str) -> Node:
    calls = [node for node in graph.calls if node.link is link]
    if not calls:
        raise CannotFold(f'{what} does not run on this input')
    if len(calls) > 1:
        raise CannotFold(f'{what} runs {len(calls)} times')
    if not calls[0].inputs or not calls[0].outputs:
        raise CannotFold(f'{what} is not called with an array and returns one')
    return calls[0]


def _only_readers(value: Value, link: chainer.Link) -> None:
    others = [node.address for node, _ in value.readers
              if node.link is not link]
    if others:
        raise CannotFold(f'{others[0]} reads the value between, too')
    if value.is_output:
        raise CannotFold('the model returns the value between, too')


def _own_weight(graph: Graph, link: Any, path: str) -> None:
    kind = foldable(link)
    arrays = [getattr(link, name).array
              for name in {kind.output_weight, kind.input_weight}]
    for node in graph:
        for value in node.inputs:
            if value.is_parameter and any(
                    value.array is array for array in arrays
                    if array is not None):
                if node.link is not link or len(value.readers) > 1:
                    raise CannotFold(
                        f'the weight of {path} is read by '
                        f'{value.readers[-1][0].address}, too')


class Attempt(NamedTuple):

    """A fold that the graph allows.

    Attributes:
        node (Node): The call of the layer.
        normalization (~chainer.Link): The batch normalization.
        given (Value): What the layer is to read.
        wanted (Value): What it is to compute.
        forwards (bool): Whether the layer comes first.

    """

    node: Node
    normalization: Any
    given: Value
    wanted: Value
    forwards: bool

    def weights(self) -> Weights:
        link = self.node.link
        scale, shift = _affine(self.normalization)
        how = foldable(link)
        return (how.outputs if self.forwards else how.inputs)(
            link, scale, shift)


def _check_plain(link: chainer.Link, base: Any) -> None:
    why = why_not_plain(link, base)
    if why is not None:
        raise CannotFold(f'it {why}')


def _check_ties(path: str, ties: dict[str, str]) -> None:
    if path in ties:
        raise CannotFold(f'{path} shares a parameter with {ties[path]}')


def _forwards(path: str, normalization: Any,
              graphs: list[Graph]) -> Attempt:
    layers = []
    for graph in graphs:
        call = _call(graph, normalization, 'it')
        between = call.inputs[0]
        before = [node for node in graph.calls
                  if any(y is between for y in node.outputs)
                  and foldable(node.link) is not None]
        if not before:
            origin = between.origin
            raise CannotFold(f'it reads {origin}, not a linear layer')
        layer = _call(graph, before[0].link, before[0].address)
        _only_readers(between, normalization)
        _own_weight(graph, layer.link, layer.address)
        layers.append(layer)
    _same(layers)
    return Attempt(
        layers[0], normalization, layers[0].inputs[0],
        _call(graphs[0], normalization, 'it').outputs[0], True)


def _backwards(path: str, normalization: Any,
               graphs: list[Graph]) -> Attempt:
    layers = []
    for graph in graphs:
        call = _call(graph, normalization, 'it')
        between = call.outputs[0]
        behind = [node for node in graph.calls
                  if any(x is between for x in node.inputs)
                  and foldable(node.link) is not None]
        if not behind:
            raise CannotFold('no linear layer reads its output')
        layer = _call(graph, behind[0].link, behind[0].address)
        _only_readers(between, layer.link)
        _own_weight(graph, layer.link, layer.address)
        layers.append(layer)
    _same(layers)
    return Attempt(
        layers[0], normalization,
        _call(graphs[0], normalization, 'it').inputs[0],
        layers[0].outputs[0], False)


def _same(layers: list[Node]) -> None:
    if layers[0].link is not layers[1].link:
        raise CannotFold('in train mode it follows another layer')


def _affine(normalization: Any) -> tuple[Any, Any]:
    mean, var = normalization.avg_mean, normalization.avg_var
    if mean is None:
        raise CannotFold('it has no statistics yet')
    if mean.ndim != 1:
        raise CannotFold(
            f'it normalizes each of {mean.shape} values by itself')
    axis = normalization.axis
    if axis is not None and 1 in axis:
        raise CannotFold(f'it normalizes along axis={axis}, not by channel')
    xp = chainer.backend.get_array_module(mean)
    scale = 1 / xp.sqrt(var.astype(numpy.float64) + normalization.eps)
    if normalization.gamma is not None:
        scale = scale * normalization.gamma.array
    shift = -mean * scale
    if normalization.beta is not None:
        shift = shift + normalization.beta.array
    return scale, shift


def _carry_out(model: chainer.Link, path: str, fold: Attempt,
               touched: set[int]) -> Folded:
    layer: Any = fold.node.link
    address = fold.node.address
    if id(layer) in touched:
        # Its recorded values are from before; the next round sees it again.
        raise CannotFold('its neighbour was folded in this round')
    kind = foldable(layer)
    weight = getattr(layer, kind.output_weight if fold.forwards
                     else kind.input_weight)
    if weight.array is None:
        raise CannotFold(f'{address} is not initialized yet')
    dtype, added = weight.dtype, layer.b is None
    with transaction(layer, fold.normalization):
        W, b = fold.weights()
        weight.array = W.astype(dtype)
        if added:
            with layer.init_scope():
                layer.b = chainer.Parameter(b.astype(dtype))
        else:
            layer.b.array = b.astype(dtype)
        difference = _difference(fold)
        # Ten thousand roundings, which is far more than ever add up.
        if not difference <= 1e4 * numpy.finfo(dtype).eps:
            raise CannotFold(
                f'with it, {address} moves by {difference:.1e} of its '
                'greatest value')
        why = why_not_foldable(layer)
        if why is not None:
            raise CannotFold(
                f'{address} {why}, which may do otherwise on other inputs')
        _neutralize(fold.normalization,
                    layer.b.array if added and fold.forwards else None)
    touched.add(id(layer))
    edit = Fold([Pattern(path)], 'fold', input=0)
    edit.into = dict((id(link), p) for p, link in model.namedlinks())[
        id(layer)]
    edit.added_bias = added and fold.forwards
    edit.number = next_number(model)
    edit.confirmed = True
    attach(model, edit, None, [])
    return Folded(path, edit.into, '', added)


def _difference(fold: Attempt) -> float:
    """The greatest difference on the example, relative to the greatest."""
    args, kwargs = fold.node.given
    read = fold.node.inputs[0]

    def argument(x: Any) -> Any:
        if x is read:
            return fold.given.array
        return chainer.Variable(x.array) if isinstance(x, Value) else x

    layer = fold.node.link
    try:
        with preserved(layer), chainer.using_config('train', False), \
                chainer.no_backprop_mode():
            got = layer(*(argument(x) for x in args),
                        **{key: argument(x) for key, x in kwargs.items()})
    except Exception as error:
        raise CannotFold(
            f'with it, {fold.node.address} fails, by '
            f'{type(error).__name__}') from error
    wanted: Any = fold.wanted.array
    if (not isinstance(got, chainer.Variable) or got.shape != wanted.shape
            or wanted.size == 0):
        return float('inf')
    xp = chainer.backend.get_array_module(got.array)
    greatest = float(xp.abs(wanted).max())
    difference = float(xp.abs(got.array - wanted).max())
    return difference / (greatest or 1.)


def _neutralize(normalization: Any, bias: Any) -> None:
    """Makes it the identity, or what adds ``bias``, in test mode."""
    mean = normalization.avg_mean
    normalization.avg_var = mean * 0 + mean.dtype.type(1 - normalization.eps)
    normalization.avg_mean = (
        mean * 0 if bias is None else -bias.astype(mean.dtype))
    if normalization.gamma is not None:
        gamma = normalization.gamma.array
        normalization.gamma.array = gamma * 0 + gamma.dtype.type(1)
    if normalization.beta is not None:
        normalization.beta.array = normalization.beta.array * 0
