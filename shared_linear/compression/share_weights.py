"""The weights of a trained model, shared without labels or training."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import chainer
import numpy

from shared_linear.compression import capture, examples, grouping, inputs
from shared_linear.compression.pipeline import Compression
from shared_linear.compression.report import Report
from shared_linear.compression.sharing import Numbers
from shared_linear.layers import checks


def share_weights(
        model: chainer.Chain | chainer.ChainList,
        x: Any,
        n_tiles: int | Mapping[str, int] | None = None,
        *,
        budget: float | None = None,
        exclude: Iterable[str] | str = (),
        refit: bool = True,
        add_bias: bool = False,
        n_blocks: int | Mapping[str, int] = 1,
        mask: Any = None,
        n_inputs: int | None = None,
        seed: int = 0,
        n_sweeps: int | None = None,
        time_limit: float | None = None,
        progress: bool = False,
) -> tuple[Any, Report]:
    """Shares the weights of a trained model, without labels or training.

    The fully connected layers (:class:`chainer.links.Linear`) are taken in
    the order in which the model calls them. Each becomes a
    :class:`SharedLinear`, whose inputs are grouped by a search and whose
    weight is fitted as by :meth:`SharedLinear.from_linear`, with two
    differences. What it is given are the inputs that the new model feeds it,
    whose layers before are shared already, and what it is aimed at are the
    outputs of the original model: it mends what the layers before have lost
    (asymmetric reconstruction; Zhang, Zou, He and Sun, Accelerating very
    deep convolutional networks, 2015). The dense layers behind the first
    shared one are fitted in the same way, at no cost in parameters.

    The search does not take all errors e of a layer's outputs for equal, but
    minimises

    .. math:: E |e|^2 / o + E |J e|^2 / E |J|^2,

    with the number :math:`o` of the outputs and the derivative :math:`J` of
    the model's outputs by them. It is the second-order term of the error of
    the whole (LeCun, Denker and Solla, Optimal brain damage, 1989), and as
    much of the plain one.

    Hidden units have no order. Where only element-wise functions lie between
    a layer and the one before, and nothing else needs what is between, its
    permutation is put in the rows of that layer and costs nothing. Elsewhere
    the layer keeps it as its ``order``. Where these functions scale with
    their inputs, as ReLU does, the search also scales the units, by those
    rows, and may take one twice and another one not at all.

    With ``n_blocks`` layers become :class:`MixedLinear`, whose weight is
    shared by blocks of the outputs, too. Nothing is searched for: the
    permutations are random and follow from ``seed``. The weight is fitted in
    the same way, by least squares that are stacked over the blocks. There is
    little that random blocks of a trained layer have in common: before it is
    trained, the new model has lost more than by tiles alone of as few
    parameters. It is where fine-tuning begins.

    A tenth of the inputs is not fitted to. It chooses the ridge of each fit,
    and ends the search for a layer that has more inputs than there are
    examples to fit to. The errors in the report are those on it, which is
    what is to be expected on other inputs. Of less than 20 examples none is
    held out, and they are those on what was fitted to. Where something is
    added to the outputs of a layer, as in a residual block, it is aimed at
    what is missing of the original's sum.

    The new model is an ordinary one: to fine-tune it, set up an optimizer
    with it. Those of the original do not update it.

    Args:
        model (chainer.Chain or chainer.ChainList): Trained model, of which
            copies are run on ``x``, and differentiated, in test mode. It is
            not changed, and no
            statistics, gradients or random states (of Python and NumPy) are.
            Of a :class:`chainer.links.Classifier` the predictor is run.
        x: Calibration inputs of the model: an array or a Variable; of a
            model of several inputs, a tuple of them, ``model(*x)``, or a dict,
            ``model(**x)``, with a row of each for an example; a dataset whose
            examples are inputs, or tuples or dicts of inputs and labels; a
            Chainer iterator, which is read for one epoch; or an iterator of
            batches, each an array, a tuple, a dict or a list of examples.
            The lengths of batches may differ. They are read once, and kept in
            memory. Labels are not used: see ``n_inputs``.
        n_tiles (int or dict): Number of tiles for every layer that it
            divides the input size of; or numbers by patterns of paths, such
            as ``{'/l2': 10, '/head/*': 4}``, of which the first that matches
            counts. (A :class:`chainer.Sequential` of three or more links
            numbers them otherwise than they run, 0, n-1, ..., 1, as its files
            do: see the paths in the report.) All other layers stay dense.
        budget (float): Instead of ``n_tiles``, the part of the model's
            parameters that may be left, more than 0 and at most 1. The number
            of tiles of each layer is chosen for the least sum of the relative
            errors of the layers' outputs, each times what it does to the
            outputs of the model; with ``n_blocks``, for as many blocks in
            each layer that does not stay dense.
        exclude (str or iterable of str): Patterns of paths of layers that
            are to stay as they are.
        refit (bool): Whether dense layers behind shared ones are fitted, too.
        add_bias (bool): Whether shared layers get a bias where there was none.
        n_blocks (int or dict): Number of blocks of the outputs for every
            shared layer that it divides the output size of; or numbers by
            patterns of paths, as for ``n_tiles``. The other shared layers
            have one block. A layer of one tile and several blocks is shared,
            too.
        mask: Which rows are inputs and which are padding, as for
            :func:`compress`. Padding is not fitted to.
        n_inputs (int): How many elements at the beginning of a tuple are
            inputs, where the rest are labels. By default, of datasets and
            iterators, as many as there are arguments without a default in the
            model's ``forward``, and at least one, as with ``forward(self,
            *args)``; of ``x`` that is a tuple itself, all. Of an example that
            is a dict the inputs are those that ``forward`` has the names of.
        seed (int): See :func:`group_inputs`, as for all that follow. The
            seed of a :class:`MixedLinear` is the sum of it and of the number
            of fully connected layers that the model calls before.
        n_sweeps (int): Step limit of the search, for each layer.
        time_limit (float): Time limit of the search, for each layer.
        progress (bool): Whether to draw a progress bar for the whole.

    Returns:
        tuple: The new model, of the class of ``model``, with parameters of
        the same dtypes on the same device; and a :class:`Report`, which
        prints as a table of the layers.

    Raises:
        TypeError: If ``model`` or ``x`` is of no such kind, or ``model`` does
            not take as many inputs, or such names.
        ValueError: If there is no layer to share; if a layer that is to be
            shared is never called, called twice, or has no parameters yet; if
            a pattern matches no layer, ``n_tiles`` does not divide an input
            size, or ``n_blocks`` an output size; if the budget cannot be met;
            if ``x`` is empty, has a value that is not finite, inputs of
            different lengths, or is not what the model takes; if a layer
            that is to be shared has a parameter that something else reads,
            too; if ``mask`` does not fit.
        MemoryError: If it would take more memory than there is.
        RuntimeError: If a layer of the new model does not give what its
            weight was fitted to give: that is looked at in the end.

    .. admonition:: Example

        >>> model = chainer.Sequential(
        ...     L.Linear(12, 20), F.relu, L.Linear(20, 5))
        >>> x = np.random.RandomState(0).normal(size=(100, 12)).astype('f')
        >>> shared, report = sl.share_weights(model, x, {'/1': 4})
        >>> print(shared)
        Sequential(
          (0): Linear(in_size=12, out_size=20, nobias=False),
          (1): <function relu at 0x...>,
          (2): SharedLinear(in_size=20, out_size=5, nobias=False, n_tiles=4),
        )
        >>> report.layers[1].parameters
        30

        With blocks, for all layers:

        >>> mixed, report = sl.share_weights(model, x, 4, n_blocks=5)
        >>> mixed[0].W.shape, mixed[2].W.shape
        ((4, 3), (1, 5))

    """
    _check_arguments(model, n_tiles, budget, n_inputs)
    grouping.check_search(seed, n_sweeps, time_limit)
    rule = inputs.OfModel(model, n_inputs)
    batches = examples.read(x, rule)
    if not batches:
        raise ValueError('there are no calibration inputs')
    masks = examples.masks(mask, x, batches)
    held_out = examples.hold_out(batches, examples.LEAST_HELD_OUT)
    with capture.same_random_numbers(model) as wind_back:
        batches = [batch.to_device(model.device) for batch in batches]
        work = Compression(
            model, batches, masks, held_out, exclude, wind_back,
            checks.check_seed(seed), n_sweeps, progress, purpose='share',
            time_limit=time_limit, add_bias=add_bias, refit=refit,
            patient=True)
        numbers = Numbers(work)
        if budget is None:
            forms = numbers.forms(n_tiles, n_blocks)
            work.course.weigh(
                path for path, form in forms.items() if form.n_blocks > 1)
        else:
            blocks = numbers.match_blocks(n_blocks, numbers.may_change())
            forms = work.plan(
                work.measure(
                    lambda path, problem: work.course.tile_curves(
                        path, problem, blocks.get(path, 1)),
                    [path for path, k in blocks.items() if k > 1]),
                float(budget))
        return work.give(forms)


def _check_arguments(model, n_tiles, budget, n_inputs):
    if not isinstance(model, (chainer.Chain, chainer.ChainList)):
        raise TypeError(
            'share_weights takes a Chain or a ChainList, not a {}{}'.format(
                type(model).__name__,
                '; for a layer alone there is SharedLinear.from_linear'
                if isinstance(model, chainer.Link) else ''))
    if n_inputs is not None:
        checks.check_positive_int(n_inputs, 'n_inputs')
    if (n_tiles is None) == (budget is None):
        raise ValueError('give either n_tiles or a budget')
    if budget is not None and (
            isinstance(budget, bool)
            or not isinstance(budget, (int, float, numpy.number))):
        raise TypeError('budget must be a number, not {!r}'.format(budget))
    if budget is not None and not 0 < budget <= 1:
        raise ValueError(
            'budget is the part of the parameters that may be left, more than '
            '0 and at most 1, not {}'.format(budget))
