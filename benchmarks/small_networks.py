"""A trained network of compression_quality.py, and what becomes of it."""
from __future__ import annotations

import copy
import functools
import itertools
import zlib

from benchmarks import harness, scratch_peers, sharing_quality
from examples.compress_mnist import (
    NETWORKS,
    count_parameters,
    load,
    make_network,
    test_error,
    train,
)
from shared_linear import surgery
from shared_linear.compression import capture
from shared_linear.compression.compress import hold_out
from shared_linear.compression.inputs import Batch
from shared_linear.compression.pipeline import Compression

import chainer  # isort: skip
import chainer.functions as F  # isort: skip

# One layer alone: the network it is of, and its path.
LAYER = '1000-900', '/l2'
# 8 bits: this network to so many times fewer bytes, which is 15 times fewer
# parameters.
QUANTIZED = 'lenet-300-100', 15, 60
EPOCHS = 5
TUNED_EPOCHS = 6
# Step sizes at the beginning of an epoch of fine-tuning, and of six.
RATES = {1: .001, TUNED_EPOCHS: .002}
BATCH_SIZE = 500
# Digits that the ranges of 8-bit activations are taken from.
N_RANGES = 2000
# Digits that are held out of training where none may be tested on.
N_VALIDATION = 10000


def forms(curves, way):
    """The curves of a way alone."""
    def allowed(curve):
        whole = curve._replace(errors=curve.errors[-1:])
        if way == 'together':
            return curve
        if way == 'tiles':
            return whole if curve.n_units is None else None
        if way == 'units':
            return whole if curve.n_tiles == 1 else None
        plain = curve.n_tiles == 1 and curve.n_units is None
        return curve if plain else None
    return {
        path: [c for c in map(allowed, of_layer) if c is not None]
        for path, of_layer in curves.items()}


def forms_of_layer(curves, way, path):
    """Likewise, where all other layers stay dense, and all units."""
    chosen = {
        p: [c for c in of_layer if c.n_units is None]
        for p, of_layer in curves.items()}
    alone = forms(chosen, way)[path]
    return {
        p: alone if p == path else [
            c._replace(errors=c.errors[-1:]) for c in of_layer
            if c.n_tiles == 1]
        for p, of_layer in chosen.items()}


class Measured:
    """What the engine knows of a network, for all budgets and ways."""

    def __init__(self, model, images, exclude=()):
        batches = [Batch([images[i:i + BATCH_SIZE]])
                   for i in range(0, len(images), BATCH_SIZE)]
        with capture.same_random_numbers(model) as wind_back:
            self._work = Compression(
                model, batches, None, hold_out(batches), exclude, wind_back,
                0)
            self.curves = self._work.measure()

    def compress(self, curves, budget, of='parameters'):
        return self._work.compress(curves, budget, of)


class Trained:
    """A dense network of a seed, and what becomes of it."""

    def __init__(self, name, seed, data, folder, n_calibration):
        self.name = name
        self.seed = seed
        self.data = data
        self.folder = folder
        self.calibration = data.fit[0][:n_calibration]
        self._kept = {}

    @functools.cached_property
    def dense(self):
        model = make_network(NETWORKS[self.name], self.seed)
        path = self.folder / 'dense-{}-seed{}-{}.npz'.format(
            self.name, self.seed, self.data.checksum)
        if path.exists():
            chainer.serializers.load_npz(path, model)
            return model
        train(model, self.data.fit, EPOCHS, self.seed)
        with harness.written_whole(path) as unfinished:
            chainer.serializers.save_npz(str(unfinished), model)
        return model

    @functools.cached_property
    def measured(self):
        return Measured(self.dense, self.calibration)

    @functools.cached_property
    def measured_layer(self):
        """Nothing behind the layer makes good for it."""
        return Measured(self.dense, self.calibration, ['/l3'])

    def error(self, model):
        return float(test_error(model, self.data.counted))

    def tune(self, model, n_epochs):
        """The error after so many epochs; the model itself stays as it is."""
        model = copy.deepcopy(model)
        sharing_quality.train(
            model, self.data.fit, RATES[n_epochs], n_epochs, self.seed)
        return self.error(model), model

    def result(self, job):
        if job.layer:
            return self._layer(job)
        if job.way == 'dense':
            return {
                'parameters': count_parameters(self.dense),
                'before': self.error(self.dense),
                'after': self.tune(self.dense, 1)[0],
                'tuned': self.tune(self.dense, TUNED_EPOCHS)[0]}
        if job.way in scratch_peers.KINDS:
            return self._from_scratch(job)
        if job.way == '8 bits':
            return self._quantized()
        try:
            new, row = self._compressed(
                job.budget, 'together' if job.way == 'tuned' else job.way)
        except ValueError as error:
            if 'cannot be met' not in str(error):
                raise
            return {'refused': str(error)}
        n_epochs = TUNED_EPOCHS if job.way == 'tuned' else 1
        return row | {'after': self.tune(new, n_epochs)[0]}

    def _compressed(self, budget, way):
        """Together is fine-tuned twice, and made once."""
        if (budget, way) not in self._kept:
            made = self._compress(
                forms(self.measured.curves, way), 1 / budget)
            if way != 'together':
                return made
            self._kept = {(budget, way): made}
        return self._kept[budget, way]

    def _compress(self, curves, budget, of='parameters'):
        new, report = self.measured.compress(curves, budget, of)
        return new, {
            'parameters': report.parameters,
            'operations': report.flops / report.dense_flops,
            'bytes': report.bytes / report.dense_bytes,
            'before': self.error(new),
            'reported': report.error,
            'measured': self._relative_error(self.dense, new),
            'layers': shapes(report)}

    def _from_scratch(self, job):
        sizes = [784, *NETWORKS[self.name], 10]
        pairs = list(itertools.pairwise(sizes))
        model, layers = scratch_peers.train(
            job.way, sizes, sum((i + 1) * o for i, o in pairs) // job.budget,
            self.data.fit, self.seed)
        dense = 2 * sum(i * o for i, o in pairs)
        return {
            'parameters': count_parameters(model),
            'operations': scratch_peers.operations(layers) / dense,
            'after': self.error(model),
            'layers': [
                [layer.n_tiles, layer.n_blocks, layer.out_size]
                for layer in layers]}

    def _quantized(self):
        new, row = self._compress(
            self.measured.curves, 1 / QUANTIZED[2], 'bytes')
        surgery.revert(new)
        row['six_epochs'], new = self.tune(new, TUNED_EPOCHS)
        surgery.quantize(new, self.calibration[:N_RANGES], 8)
        row['after'] = self.tune(new, 1)[0]
        return row

    def _layer(self, job):
        path = LAYER[1]
        W = self.dense[path[1:]].W
        whole = count_parameters(self.dense)
        # Its bias stays, and so do all other layers.
        allowed = whole - W.size + W.size // job.budget
        new, report = self.measured_layer.compress(
            forms_of_layer(self.measured_layer.curves, job.way, path),
            (allowed + .5) / whole)
        row, = (row for row in report.layers if row.path == path)
        return {
            'parameters': row.parameters,
            'before': self.error(new), 'dense': self.error(self.dense),
            'reported': row.error,
            'measured': self._relative_error(
                *(first_two(model) for model in (self.dense, new))),
            'layers': shapes(report)}

    def _relative_error(self, run, new_run):
        x = self.data.counted[0]
        with chainer.using_config('train', False), chainer.no_backprop_mode():
            y, z = (one(x).array.astype(float) for one in (run, new_run))
        return float(((y - z) ** 2).sum() / ((y - y.mean(0)) ** 2).sum())


def shapes(report):
    return [[layer.n_tiles, layer.rank, layer.inputs]
            for layer in report.layers]


def first_two(model):
    return lambda x: model.l2(F.relu(model.l1(x)))


class Data:
    """The digits to train on, and those to count the errors on."""

    def __init__(self, directory, validate):
        self.fit, self.counted = load(directory)
        if validate:
            images, labels = self.fit
            self.fit = images[:-N_VALIDATION], labels[:-N_VALIDATION]
            self.counted = images[-N_VALIDATION:], labels[-N_VALIDATION:]
        checksum = 0
        for array in (*self.fit, *self.counted):
            checksum = zlib.crc32(array.tobytes(), checksum)
        self.checksum = '{:08x}'.format(checksum)
