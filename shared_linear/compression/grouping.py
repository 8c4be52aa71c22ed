"""Which inputs share a weight: the search for an order."""
from __future__ import annotations

import numbers
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy
from chainer import backend, variable
from chainer.training.extensions import util

from shared_linear.compression import calibration
from shared_linear.compression.swap_search import SwapSearch
from shared_linear.layers import checks

if TYPE_CHECKING:
    from chainer import Variable
    from chainer.types import NdArray

Array = numpy.ndarray

# Part of the inputs that a kick moves, and of the variance that a swap must
# gain.
KICK = .05
LEAST_GAIN = 1e-6
BLOCK = 32
# In units of the mean variance of an input.
RIDGE = 1e-3
# Sweeps that may be no better on inputs that are held out.
PATIENCE = 8


class StoppedByTimeLimit(UserWarning):

    """The search was stopped by the clock: another run may find another order.
    """


def check_search(seed: Any, n_sweeps: Any, time_limit: Any) -> None:
    """Says what is wrong with the arguments of a search, if anything is."""
    checks.check_seed(seed)
    if n_sweeps is not None:
        checks.check_int(n_sweeps, 'n_sweeps')
    if time_limit is not None and (
            isinstance(time_limit, bool)
            or not isinstance(time_limit, numbers.Real)):
        raise TypeError(
            'time_limit must be a number of seconds, not {!r}'.format(
                time_limit))


def group_inputs(
        x: Any,
        n_tiles: int,
        W: Variable | NdArray | None = None,
        *,
        seed: int = 0,
        n_sweeps: int | None = None,
        time_limit: float | None = None,
        progress: bool = False,
) -> NdArray:
    """Finds which inputs lose least when they share a weight.

    With :math:`S` the covariance of the inputs and :math:`F` the fold of
    ``x[:, order]``, the least-squares fit of the outputs :math:`W x` from the
    sums :math:`F x` explains

    .. math::

        \\mathop{\\rm tr}\\bigl((F S F^\\top)^{-1} F Q F^\\top\\bigr),
        \\quad Q = S W^\\top W S,

    of their variance. The order makes this large. Without ``W`` the outputs
    are the inputs themselves, so that the sums tell as much of the inputs as
    they can: an order for training from scratch on raw inputs.

    The search starts from clusters of inputs that act alike, made by halving
    along the principal axis again and again (Boley, Principal direction
    divisive partitioning, 1998). It goes on by swaps of two inputs, each
    time the best one of an input with any other, all rated at once (swaps:
    Kernighan and Lin, An efficient heuristic procedure for partitioning
    graphs, 1970), until none helps. Then it kicks 5 % of the inputs to other
    groups, searches again, and keeps the better of the two (Lourenco, Martin
    and Stutzle, Iterated local search, 2003), until its sweeps are used up.

    The same seed gives the same order, on the same kind of machine. A time
    limit could break that silently, so it does not: a search that the clock
    stops warns with the number of sweeps that it made, and this number as
    ``n_sweeps`` gives the same order again.

    Args:
        x: Calibration inputs: an array or a Variable of shape
            ``(N, in_size)``, or with more axes, which are flattened; a
            dataset, whose examples are inputs or tuples that begin with one;
            a Chainer iterator, read for one epoch; or an iterator of batches,
            of more inputs than fit in memory. Labels are not used.
        n_tiles (int): Number of tiles, a divisor of ``in_size``.
        W (:class:`~chainer.Variable` or :ref:`ndarray`): Trained dense weight
            of shape ``(out_size, in_size)``, if there is one.
        seed (int): Seed of the random choices. The global random state is
            neither read nor changed.
        n_sweeps (int): Step limit: how often the search goes through all
            inputs. By default 60 times, and less often where a sweep takes
            long, which is for less than 4 tiles or more than 1000 inputs: 7
            times for 4096 inputs. That is half a minute for 1000 inputs and
            some minutes for 4096, on one core.
        time_limit (float): Limit in seconds, looked at after each sweep.
        progress (bool): Whether to draw a progress bar on standard output.

    Returns:
        :ref:`ndarray`: The order, int32 of shape ``(in_size,)``, on the CPU.
        Of equal orders it is the one with the inputs of a group in ascending
        order, and the groups in the order of their first inputs.

    Raises:
        TypeError: If ``n_tiles`` is not an int, or ``x`` is of no such kind.
        ValueError: If ``n_tiles`` does not divide ``in_size``; if ``x`` is
            empty, has a value that is not finite, or does not fit ``W``.

    .. admonition:: Example

        Each column comes twice, so that nothing need be lost:

        >>> x = np.random.RandomState(0).normal(size=(50, 3))
        >>> order = sl.group_inputs(np.repeat(x, 2, axis=1), n_tiles=2)
        >>> order
        array([0, 2, 4, 1, 3, 5], dtype=int32)
        >>> layer = sl.SharedLinear(6, 5, n_tiles=2, order=order)

    """
    checks.check_n_tiles(n_tiles)
    check_search(seed, n_sweeps, time_limit)
    if W is None:
        moments = calibration.measure(x)
        weight = numpy.eye(moments.x_mean.size)
    else:
        weight = backend.CpuDevice().send(variable.as_array(W))
        if weight.ndim != 2:
            raise ValueError(
                'W must be of shape (out_size, in_size), not {}'.format(
                    weight.shape))
        if len(weight) == 0 or weight.dtype.kind not in 'fiub' or not (
                numpy.isfinite(weight).all()):
            raise ValueError(
                'W must have rows of finite numbers, but is of shape {} and '
                '{}, or has values that are not finite'.format(
                    weight.shape, weight.dtype))
        moments = calibration.measure(x, weight.shape[1])
    return search_order(
        Sums(moments, weight.astype(numpy.float64)), n_tiles, seed=seed,
        n_sweeps=n_sweeps, time_limit=time_limit, progress=progress)


class Sums:

    """What a search is told of outputs W x: covariances, with a little ridge.

    Args:
        moments: Of the inputs.
        W: Weight, (o, d).
        centred: Whether means are of no concern, as where there is a bias.

    """

    def __init__(
            self, moments: calibration.Moments, W: Array,
            centred: bool = True) -> None:
        self.S = moments.xx(centred)
        ridge = RIDGE * (self.S.trace() / len(self.S) or 1.)
        self.variance = float(((W @ self.S) * W).sum())
        self.S[numpy.diag_indices(len(self.S))] += ridge
        self.C = W @ self.S


def search_order(
        fit: Any,
        n_tiles: int,
        *,
        seed: int = 0,
        n_sweeps: int | None = None,
        time_limit: float | None = None,
        progress: bool = False,
        judge: Callable[[NdArray], float] | None = None,
) -> NdArray:
    """The search of :func:`group_inputs` on moments that are there already.

    ``fit`` has the covariances ``S`` and ``C``, and the ``variance``. Of an
    order ``judge`` says the error on other inputs than these: the best is
    kept, and where it gets no better the search ends.
    """
    in_size = len(fit.S)
    if in_size % n_tiles != 0:
        raise ValueError(checks.describe_divisors(in_size, n_tiles))
    if n_sweeps is None:
        n_sweeps = default_sweeps(in_size, n_tiles)
    if n_sweeps < 0:
        raise ValueError(
            'n_sweeps must not be negative, but is {}'.format(n_sweeps))
    rng = numpy.random.RandomState(seed)
    groups = cluster(fit, n_tiles, rng)
    if 1 < n_tiles < in_size and fit.variance > 0 and n_sweeps > 0:
        clock = _Clock(n_sweeps, time_limit, progress)
        groups = _improve(fit, groups, rng, clock, _Best(judge, n_tiles))
        clock.close()
    return order_of(groups, n_tiles)


def default_sweeps(
        in_size: int, n_tiles: int, most: int = 60, least: int = 3) -> int:
    """Fewer sweeps where one takes long: in_size^3 / n_tiles operations."""
    by_tiles = min(1., n_tiles / 4)
    by_size = min(1., (1000 / in_size) ** 1.5)
    return max(least, int(most * by_tiles * by_size))


def cluster(
        fit: Any, n_tiles: int, rng: Any) -> Array:
    """Groups of equal size of inputs that do alike to the outputs.

    Inputs are points, cov(y, x_i) / sigma(x_i); a set of them is halved at
    the middle of its principal axis, until it is one group.
    """
    return cluster_points(
        fit.C.T / numpy.sqrt(fit.S.diagonal())[:, None], n_tiles, rng)


def cluster_points(points: Array, n_tiles: int, rng: Any) -> Array:
    """Groups of equal size of points that are near to each other."""
    in_size = len(points)
    if points.shape[1] > 64:
        # Distances survive a random projection (Johnson, Lindenstrauss).
        points = points @ rng.normal(size=(points.shape[1], 64))
    groups = numpy.empty(in_size, int)
    parts = [(numpy.arange(in_size), 0, in_size // n_tiles)]
    while parts:
        inputs, first, stop = parts.pop()
        if stop - first == 1:
            groups[inputs] = first
            continue
        centred = points[inputs] - points[inputs].mean(0)
        if len(centred) < centred.shape[1]:
            # Of few points the places on the axis are there already.
            places = numpy.linalg.eigh(centred @ centred.T)[1][:, -1]
        else:
            axis = numpy.linalg.eigh(centred.T @ centred)[1][:, -1]
            places = centred @ axis
        inputs = inputs[numpy.argsort(places, kind='stable')]
        middle = (first + stop) // 2
        cut = (middle - first) * n_tiles
        parts.append((inputs[:cut], first, middle))
        parts.append((inputs[cut:], middle, stop))
    return groups


class _Best:

    """The best grouping so far: on other inputs, if there is a judge."""

    def __init__(self, judge, n_tiles):
        self._judge = judge
        self._n_tiles = n_tiles
        self._value = -numpy.inf
        self._n_worse = 0
        self.groups = None

    def offer(self, search, is_descended):
        """Takes a grouping if it is better."""
        if self._judge is not None:
            value = -self._judge(order_of(search.groups, self._n_tiles))
        elif is_descended:
            value = search.explained
        else:
            return
        if value > self._value:
            self._value, self.groups = value, search.groups.copy()
            self._n_worse = 0
        else:
            self._n_worse += 1

    @property
    def is_final(self):
        return self._judge is not None and self._n_worse >= PATIENCE


def _improve(fit, groups, rng, clock, best):
    """Iterated local search."""
    search = SwapSearch(fit.S, fit.C.T @ fit.C, groups)
    least = LEAST_GAIN * fit.variance
    best.offer(search, False)
    _descend(search, least, rng, clock, best)
    best.offer(search, True)
    kicked = max(2, int(KICK * len(groups)))
    while not best.is_final and not clock.is_over():
        inputs = rng.choice(len(groups), kicked, replace=False)
        search.groups = best.groups.copy()
        search.groups[inputs] = best.groups[numpy.roll(inputs, 1)]
        search.recompute()
        _descend(search, least, rng, clock, best)
        best.offer(search, True)
    return best.groups


def _descend(search, least, rng, clock, best):
    """Best swaps of one input after the other, until none helps."""
    while not best.is_final and not clock.is_over():
        n_swaps = 0
        inputs = rng.permutation(len(search.groups))
        for start in range(0, len(inputs), BLOCK):
            block = inputs[start:start + BLOCK]
            gains = search.rate(block)
            best_swaps = gains.argmax(axis=1)
            gains = gains[numpy.arange(len(block)), best_swaps]
            for i in numpy.argsort(-gains, kind='stable'):
                # Rated before the swaps of this block: swap() rates again.
                if (gains[i] > least and search.groups[block[i]]
                        != search.groups[best_swaps[i]]):
                    n_swaps += search.swap(block[i], best_swaps[i], least)
            clock.tick((start + len(block)) / len(inputs))
        search.recompute()
        clock.count_sweep()
        if n_swaps == 0:
            break
        best.offer(search, False)


def order_of(groups: Array, n_tiles: int) -> NdArray:
    """The order whose fold adds the inputs of each group."""
    members = numpy.argsort(groups, kind='stable').reshape(-1, n_tiles)
    members = members[numpy.argsort(members[:, 0])]
    return members.T.ravel().astype(numpy.int32)


class _Clock:

    """Counts sweeps, looks at the time, and draws the progress."""

    def __init__(self, n_sweeps, time_limit, progress):
        self.n_sweeps = n_sweeps
        self.time_limit = time_limit
        self.done = 0
        self._start = time.monotonic()
        self._bar = _Bar(n_sweeps) if progress else None

    def is_over(self):
        if self.done >= self.n_sweeps:
            return True
        if (self.time_limit is None
                or time.monotonic() - self._start < self.time_limit):
            return False
        warnings.warn(
            'the search for an order was stopped by time_limit={} after {} of '
            '{} sweeps; n_sweeps={} finds the same order on any day'.format(
                self.time_limit, self.done, self.n_sweeps, self.done),
            StoppedByTimeLimit, stacklevel=5)
        self.n_sweeps = self.done
        return True

    def count_sweep(self):
        self.done += 1

    def tick(self, part):
        if self._bar is not None:
            self._bar.show(self.done + part)

    def close(self):
        if self._bar is not None:
            self._bar.close()


class _Bar(util.ProgressBar):

    """Chainer's progress bar, for the sweeps of a search."""

    def __init__(self, n_sweeps):
        super().__init__()
        self._n_sweeps = n_sweeps
        self._done = 0.
        self._drawn = 0.

    def show(self, done):
        self._done = done
        if time.monotonic() - self._drawn > .1:
            self._drawn = time.monotonic()
            self.update()

    def get_lines(self):
        rate = self._done / self._n_sweeps
        marks = '#' * int(rate * self._bar_length)
        count = '{:.1f} of {} sweeps'.format(self._done, self._n_sweeps)
        return ['    search [{}{}] {}\n'.format(
            marks, '.' * (self._bar_length - len(marks)), count)]
