"""The course of sharing a model's weights, layer by layer."""
from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import chainer
import numpy
from chainer import backend

from shared_linear.compression import (
    between,
    calibration,
    capture,
    comparison,
    dense,
    grouping,
    hidden_units,
    inputs,
)
from shared_linear.compression.paths import matching
from shared_linear.compression.report import LayerReport, Report
from shared_linear.layers import checks
from shared_linear.layers.link import SharedLinear
from shared_linear.layers.mixed_link import MixedLinear
from shared_linear.layers.mixing import Mixing
from shared_linear.layers.tiled_link import link_like, to_cpu

# Inputs that a model is run on at a time, and those on which it is compared
# before and after an edit.
BATCH_SIZE = 500
N_COMPARED = 16
# Inputs for each output of a layer, to know what its errors weigh.
INPUTS_PER_OUTPUT = 10


class Sharing:

    """A model in the course of becoming a shared one.

    Args:
        model: Chain, which is copied.
        x: Calibration inputs that can be read several times.
        rule: What of them the model is called with.
        exclude: Patterns of paths of layers to leave as they are.
        add_bias: Whether shared layers get a bias where there was none.
        wind_back: Function that winds the random numbers back.

    """

    def __init__(self, model, x, rule, exclude, add_bias, wind_back):
        self.x = x
        self.rule = rule
        self.add_bias = add_bias
        self.wind_back = wind_back
        # A copy no longer shares all that the model shares.
        self.ties = dense.find_ties(model)
        self.original = capture.copy_model(model)
        self.new = capture.copy_model(model)
        for parameter in self.new.params():
            # An optimizer's, with the state that it has gathered.
            parameter.update_rule = None
        layers = dense.dense_layers(self.original, 'share')
        excluded = matching(layers, exclude)
        self.open = [path for path in layers if path not in excluded]
        if not self.open:
            raise ValueError('there is no layer to share: every layer is '
                             'excluded')
        # Before the first run, which initializes what has no size yet.
        self.in_sizes = {
            path: link.W.shape[1] if link.W.is_initialized else None
            for path, link in layers.items()}
        missing = [
            (name, parameter)
            for name, parameter in self.original.namedparams()
            if not parameter.is_initialized]
        self.compared = next(self._batches())[:N_COMPARED]
        readers = dense.Readers(layers)
        with readers:
            recorded = self._run(
                self.original, self.compared, layers, graph=True)
        calls = recorded.calls
        for name, parameter in missing:
            if parameter.is_initialized:
                raise ValueError(
                    '{} has no weight yet, before the first call: only a '
                    'trained model can be shared'.format(
                        name.rpartition('/')[0]))
        self.n_calls = {
            path: sum(call.path == path for call in calls) for path in layers}
        self.ties = readers.ties(self.n_calls) | self.ties
        self.pairs = between.find_pairs(
            self.original, self.compared, recorded,
            [path for path in self.open
             if self.n_calls[path] == 1 and path not in self.ties
             and not layers[path].local_link_hooks], wind_back)
        called = list(dict.fromkeys(call.path for call in calls))
        self.layers = {path: layers[path] for path in called} | layers
        self.errors = dict.fromkeys(layers, numpy.nan)
        self.orders = dict.fromkeys(layers, '')
        self.rows: dict[str, tuple[Any, Any]] = {}

    def match(self, n_tiles):
        """The number of tiles for each path that is to be shared."""
        numbers = self._match(
            'n_tiles', n_tiles, self.open, self.in_size, 'input')
        if not numbers:
            raise ValueError('there is no layer to share')
        return numbers

    def match_blocks(self, n_blocks, paths):
        """The number of blocks for some of the paths that may be shared."""
        numbers = self._match(
            'n_blocks', n_blocks, paths,
            lambda path: self.layers[path].out_size, 'output')
        if not numbers:
            raise ValueError('n_blocks is of no layer that is shared')
        return numbers

    def _match(self, name, number, paths, size_of, what):
        if not isinstance(number, Mapping):
            number = checks.check_positive_int(number, name)
            sizes = {path: size_of(path) for path in paths}
            numbers = {
                path: number for path in paths if sizes[path] % number == 0}
            if not numbers:
                reasons = [
                    checks.describe_divisors(size, number, name) + ' of '
                    + path for path, size in sizes.items()]
                raise ValueError('{} = {} divides no {} size: '.format(
                    name, number, what) + '; '.join(reasons))
            return numbers
        numbers = {}
        for pattern, one in number.items():
            one = checks.check_positive_int(one, name)
            for path in matching(self.layers, pattern):
                if path not in paths:
                    continue
                size = size_of(path)
                if size % one != 0:
                    raise ValueError('{}: {}'.format(
                        path, checks.describe_divisors(size, one, name)))
                numbers.setdefault(path, one)
        return numbers

    def in_size(self, path):
        if self.in_sizes[path] is None:
            raise ValueError(
                '{} has no weight yet: only a trained model can be '
                'shared'.format(path))
        return self.in_sizes[path]

    def count_parameters(self):
        """All parameters of the original, and those of its open layers."""
        return _count(self.original), {
            path: (self.layers[path].out_size,
                   0 if self.layers[path].b is None
                   else self.layers[path].out_size)
            for path in self.open}

    def errors_by_n_tiles(self, blocks, seed):
        """The relative error of each layer alone, for all numbers of tiles.

        One tile stands for a layer that stays dense.
        """
        errors: dict[str, dict[int, float]] = {}
        for path in self.open:
            self._check_once(path)
            in_size = self.in_size(path)
            fit = self._fit(path, self.original)
            errors[path] = {1: 0.}
            for n_tiles in range(2, in_size + 1):
                if in_size % n_tiles != 0:
                    continue
                if blocks.get(path, 1) > 1:
                    mixing = self._mixing(path, n_tiles, blocks, seed)
                    errors[path][n_tiles] = fit.solve_mixed(mixing)[2]
                else:
                    order = grouping.search_order(
                        fit, n_tiles, seed=seed,
                        n_sweeps=grouping.default_sweeps(
                            in_size, n_tiles, most=4, least=1))
                    errors[path][n_tiles] = fit.solve(n_tiles, order)[2]
        return errors

    def share(self, numbers, blocks, refit, search):
        for path in numbers:
            self._check_once(path)
            self.in_size(path)
        changed = False
        for path in self.layers:
            n_tiles = numbers.get(path, 1)
            if blocks.get(path, 1) > 1:
                mixing = self._mixing(path, n_tiles, blocks, search['seed'])
                self._mix_one(path, mixing, changed)
                changed = True
            elif n_tiles > 1:
                self._share_one(path, n_tiles, changed, search)
                changed = True
            elif (changed and refit and path in self.open
                    and self.n_calls[path] == 1
                    and path not in self.ties
                    and not self.layers[path].local_link_hooks):
                self._refit_one(path)

    def _share_one(self, path, n_tiles, changed, search):
        fit = self._fit(path, self.new if changed else None)
        aim = fit.weighted(self._sensitivity(path, fit.count))
        before, scalable = self._find_layer_before(path)
        if scalable:
            order, scales = hidden_units.search_units(aim, n_tiles, **search)
        else:
            order, scales = grouping.search_order(
                aim, n_tiles, **search), None
        W, b, self.errors[path] = fit.solve(n_tiles, order, scales)
        if before is None:
            self.orders[path] = 'kept'
        else:
            self.orders[path] = 'in ' + before
            _choose_rows(self._links_of_new()[before], order, scales)
            self.rows[before] = order, scales
        capture.replace_link(self.new, path, link_like(
            SharedLinear, self.layers[path], W, b, n_tiles=n_tiles,
            order=to_cpu(order) if before is None else None))
        self._check_called(path)

    def _mixing(self, path, n_tiles, blocks, seed):
        """Layers of one seed would mix alike, so that each has its own."""
        place = list(self.layers).index(path)
        seed = (checks.check_seed(seed) + place) % 2 ** 32
        return Mixing(n_tiles, blocks[path], seed)

    def _mix_one(self, path, mixing, changed):
        fit = self._fit(path, self.new if changed else None)
        W, b, self.errors[path] = fit.solve_mixed(mixing)
        capture.replace_link(
            self.new, path,
            link_like(
                MixedLinear, self.layers[path], W, b, n_tiles=mixing.n_tiles,
                n_blocks=mixing.n_blocks, seed=mixing.seed,
                order=mixing.order_array))
        self._check_called(path)

    def _refit_one(self, path):
        fed = [
            self._run(model, self.compared, {path: link}).calls[0].x
            for model, link in (
                (self.original, self.layers[path]),
                (self.new, self._links_of_new()[path]))]
        if (fed[0] == fed[1]).all():
            return  # It is behind no shared layer.
        W, b, self.errors[path] = self._fit(
            path, self.new, may_add_bias=False).solve(1)
        _write(self._links_of_new()[path], W, b)

    def _find_layer_before(self, path):
        """The layer whose rows can be chosen instead of a layer's inputs.

        Returns:
            Its path, or ``None``; and whether the rows can be scaled as well.

        """
        pair = self.pairs.get(path)
        if pair is None or not capture.can_be_permuted(
                self._links_of_new()[pair.before]):
            return None, False
        return pair.before, pair.scalable

    def _check_called(self, path):
        calls = self._run(
            self.new, self.compared, self._links_of_new()).calls
        if sum(call.path == path for call in calls) != 1:
            raise ValueError(
                'the model does not call {} by its place in the model, but '
                'by another reference; exclude it'.format(path))

    def _links_of_new(self):
        links = dict(self.new.namedlinks(skipself=True))
        return {path: links[path] for path in self.layers}

    def _fit(self, path, fed_by, may_add_bias=True):
        """The least-squares problem of a layer.

        Its inputs are those in the model ``fed_by``, or in the original.
        """
        link = self.layers[path]
        W, b = _array(link.W), _array(link.b)
        aims = fed_by is self.new
        moments = calibration.Moments(
            self.in_size(path), len(W) if aims else 0)
        for batch in self._batches():
            call, = self._run(self.original, batch, {path: link}).calls
            try:
                if aims:
                    new_call, = self._run(
                        self.new, batch,
                        {path: self._links_of_new()[path]}).calls
                    moments.add(_cpu(new_call.x), _cpu(call.y))
                else:
                    moments.add(_cpu(call.x))
            except ValueError as error:
                raise ValueError('{}: {}'.format(path, error)) from error
        return calibration.Fit(
            moments, W, None if b is None else b.astype(numpy.float64),
            has_bias=b is not None or may_add_bias and self.add_bias)

    def _sensitivity(self, path, n_inputs):
        """What an error of a layer's outputs weighs, (o, o).

        It is the mean of two: that all outputs weigh alike, and E[J^T J],
        what the error does to the outputs of the model, by its derivative J.
        Errors are not small enough, nor the inputs enough, for this alone.
        """
        link = self.layers[path]
        out_size = link.out_size
        M = numpy.zeros((out_size, out_size))
        every = max(1, n_inputs // (INPUTS_PER_OUTPUT * out_size))
        rng = numpy.random.RandomState(0)
        for batch in self._batches():
            self.wind_back()
            gradients = capture.sensitivities(
                self.original, batch[::every], {path: link}, rng)
            if not gradients:
                break
            gradient = _cpu(gradients[path]).astype(numpy.float64)
            M += gradient.T @ gradient
        trace = M.trace()
        if numpy.isfinite(trace) and trace > 0:
            M *= out_size / trace
        else:
            M[...] = numpy.eye(out_size)
        return (M + numpy.eye(out_size)) / 2

    def _batches(self):
        """Calibration inputs in batches; there is at least one."""
        if hasattr(self.x, 'reset'):
            self.x.reset()
        batches = inputs.iterate(self.x, self.rule, BATCH_SIZE)
        first = next(batches, None)
        if first is None or len(first) == 0:
            raise ValueError('there are no calibration inputs')
        return itertools.chain([first], batches)

    def _run(self, model, batch, layers, graph=False):
        self.wind_back()
        return capture.run(model, batch, layers, graph)

    def _check_once(self, path):
        link = self.layers[path]
        others = [
            name for name, other in self.layers.items()
            if other is link and name != path]
        if others:
            raise ValueError('{} is one link with {}: exclude both'.format(
                path, ', '.join(others)))
        if self.n_calls[path] != 1:
            raise ValueError(
                'the model {}: exclude it'.format(
                    'never calls {}'.format(path) if not self.n_calls[path]
                    else 'calls {} {} times, and a shared layer is fitted to '
                    'the inputs of one call'.format(
                        path, self.n_calls[path])))
        if link.local_link_hooks:
            raise ValueError(
                '{} has link hooks, which would be lost: delete {} or exclude '
                'the layer'.format(path, ', '.join(link.local_link_hooks)))
        if path in self.ties:
            raise ValueError(
                '{} shares a parameter with {}, which a layer with a weight '
                'of its own would not: exclude it'.format(
                    path, self.ties[path]))

    def compare(self):
        """Raises unless the new model differs by what is reported."""
        links = self._links_of_new()

        def run(model, layers, batch):
            return [(call.path, _cpu(call.x), _cpu(call.y))
                    for call in self._run(model, batch, layers).calls]

        comparison.compare(
            self._batches(),
            lambda batch: run(self.original, self.layers, batch),
            lambda batch: run(self.new, links, batch), self.errors,
            [path for path, link in links.items() if link.b is None],
            self.rows)

    def report(self):
        links = self._links_of_new()
        return Report(
            [LayerReport(
                path, self.in_size(path), link.out_size,
                getattr(links[path], 'n_tiles', 1),
                _count(link), _count(links[path]), float(self.errors[path]),
                self.orders[path], getattr(links[path], 'n_blocks', 1))
             for path, link in self.layers.items() if self.in_sizes[path]],
            _count(self.original), _count(self.new))


def _choose_rows(link, order, scales=None):
    for parameter in (link.W, link.b):
        if parameter is not None:
            rows = _array(parameter)[order]
            if scales is not None:
                rows = (rows.T * scales).T
            parameter.array[...] = parameter.device.send(
                rows.astype(parameter.dtype))


def _write(link, W, b):
    for parameter, values in ((link.W, W), (link.b, b)):
        if parameter is not None:
            parameter.array[...] = parameter.device.send(
                values.astype(parameter.dtype))


def _count(link):
    parameters = {id(p): p.size for p in link.params()}
    return sum(parameters.values())


def _array(variable):
    if variable is None:
        return None
    return _cpu(chainer.as_array(variable))


def _cpu(array):
    return backend.CpuDevice().send(array)
