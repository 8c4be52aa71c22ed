"""A trained model, compressed to a budget without labels or training."""
from __future__ import annotations

import numbers
from collections.abc import Iterable
from typing import Any

import chainer

from shared_linear.compression import capture, examples, inputs
from shared_linear.compression.examples import hold_out
from shared_linear.compression.pipeline import Compression
from shared_linear.compression.report import Report
from shared_linear.layers import checks

KINDS = 'parameters', 'operations', 'bytes'


def compress(
        model: chainer.Chain | chainer.ChainList,
        x: Any,
        budget: float,
        *,
        of: str = 'parameters',
        exclude: Iterable[str] | str = (),
        mask: Any = None,
        n_inputs: int | None = None,
        seed: int = 0,
        n_sweeps: int | None = None,
        progress: bool = False,
) -> tuple[Any, Report]:
    """Compresses a trained model, without labels or training.

    Each fully connected layer (:class:`chainer.links.Linear`) takes the form
    that loses least at its cost: dense; folded by tiles
    (:class:`SharedLinear`); of low rank; both (:class:`LowRankLinear`),

    .. math:: y = B A \\, fold(x) + b;

    or, where only element-wise functions lie between it and the layer
    before, with fewer of the hidden units between, of any rank. All ranks of
    a fold follow from one decomposition (reduced-rank regression; Izenman,
    1975), and the forms are chosen together, for the least sum of the
    relative errors of the layers' outputs, each times what it does to the
    outputs of the model: E|J e|^2, by their derivative J.

    Then the layers are fitted in the order of their calls, by least squares:
    each to what the layers before, compressed already, feed it, and aimed at
    what the original gave, so that it mends what they have lost. Where
    something is added to its outputs, as in a residual block, it is aimed at
    what is missing of the original's sum. The dense layers behind a
    compressed one are fitted in the same way.

    A tenth of the inputs is not fitted to. It chooses the ridge of each fit
    and ends the searches for what to add up, and the errors in the report
    are those on it.

    The new model is an ordinary one, and an epoch of training mends most of
    what it has lost: set up an optimizer with it.

    Args:
        model (chainer.Chain or chainer.ChainList): Trained model. Copies of
            it are run on ``x`` in test mode, and it is not changed. Of a
            :class:`chainer.links.Classifier` the predictor is run.
        x: Calibration inputs of the model, as for :func:`share_weights`:
            an array or a Variable; a tuple or a dict of several, ``model(*x)``
            or ``model(**x)``; a dataset, a Chainer iterator or an iterator of
            batches, whose lengths may differ. Some thousands are good. Labels
            are not used: see ``n_inputs``.
        budget (float): Part of the parameters, operations or bytes that may
            be left, more than 0 and at most 1.
        of (str): ``'parameters'``: those of the whole model.
            ``'operations'``: floating-point operations of its fully
            connected layers. ``'bytes'``: those of the parameters, where to
            quantize all weights to 8 bits by :func:`surgery.quantize` is a
            choice, too.
        exclude (str or iterable of str): Patterns of paths of layers that
            are to stay as they are.
        mask: Which rows are inputs and which are padding: a function of a
            batch, called as the model is, that returns booleans of the shape
            of the minibatch axes of the layers, as ``lambda ids: ids != 0``;
            or such an array for all of ``x``, if ``x`` is an array, or a tuple
            or a dict of them. Padding is not fitted to.
        n_inputs (int): How many elements at the beginning of a tuple are
            inputs, where the rest are labels. By default, of datasets and
            iterators, as many as there are arguments without a default in the
            model's ``forward``, and at least one, as with ``forward(self,
            *args)``; of ``x`` that is a tuple itself, all. Of an example that
            is a dict the inputs are those that ``forward`` has the names of.
        seed (int): See :func:`group_inputs`.
        n_sweeps (int): Step limit of the searches, for each layer.
        progress (bool): Whether to draw a progress bar for the whole.

    Returns:
        tuple: The new model, of the class of ``model``, with parameters of
        the same dtypes on the same device; and a :class:`Report`, which
        prints as a table of the layers.

    Raises:
        TypeError: If ``model``, ``x`` or ``budget`` is of no such kind, or
            ``model`` does not take as many inputs, or such names.
        ValueError: If there is no layer to compress, or the budget cannot be
            met; if ``x`` has less than two inputs, has a value that is not
            finite, inputs of different lengths, or is not what the model
            takes; if ``mask`` does not fit.
        MemoryError: If it would take more memory than there is.

    Layers that the model calls twice or never, that share a parameter with
    others or have hooks stay as they are; the report says which and why.

    .. admonition:: Example

        >>> model = chainer.Sequential(
        ...     L.Linear(12, 40), F.relu, L.Linear(40, 5))
        >>> x = np.random.RandomState(0).normal(size=(500, 12)).astype('f')
        >>> new, report = sl.compress(model, x, budget=1/2)
        >>> report.parameters <= report.dense_parameters / 2
        True
        >>> new(x).shape
        (500, 5)

    """
    _check_arguments(model, budget, of)
    if n_inputs is not None:
        checks.check_positive_int(n_inputs, 'n_inputs')
    seed = checks.check_seed(seed)
    rule = inputs.OfModel(model, n_inputs)
    batches = examples.read(x, rule)
    masks = examples.masks(mask, x, batches)
    with capture.same_random_numbers(model) as wind_back:
        batches = [batch.to_device(model.device) for batch in batches]
        work = Compression(
            model, batches, masks, hold_out(batches), exclude, wind_back,
            seed, n_sweeps, progress)
        return work.compress(work.measure(), float(budget), of)


def _check_arguments(model, budget, of):
    if not isinstance(model, (chainer.Chain, chainer.ChainList)):
        raise TypeError(
            'compress takes a Chain or a ChainList, not a {}{}'.format(
                type(model).__name__,
                '; for a layer alone there is LowRankLinear.from_linear'
                if isinstance(model, chainer.Link) else ''))
    if isinstance(budget, bool) or not isinstance(budget, numbers.Real):
        raise TypeError(
            'budget must be a number, not a {}'.format(type(budget).__name__))
    if not 0 < float(budget) <= 1:
        raise ValueError(
            'budget is the part that may be left, more than 0 and at most 1, '
            'not {}'.format(budget))
    if of not in KINDS:
        raise ValueError('of must be one of {}, not {!r}'.format(
            ', '.join(map(repr, KINDS)), of))
