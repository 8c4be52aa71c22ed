"""Random programs of edits, with exceptions thrown in the model's own code.

A model that was edited in this way computes what the model computes when the
same is done by hand: to the n-th function of the whole run, by a counter that
knows nothing of addresses, links or frames. What raised has done nothing.
"""
import contextlib
import copy
import os
import random
import sys

import chainer
import chainer.functions as F
import numpy as np
import pytest
from structures import STRUCTURES, Bomb, bomb, everything

from shared_linear import surgery

# More by N_PROGRAMS, with any number to begin with.
N_PROGRAMS = int(os.environ.get('N_PROGRAMS', 60))

FUNCTIONS = {
    'ReLU', 'Tanh', 'Sigmoid', 'LinearFunction', 'Add', 'LeakyReLU'}


def double(h):
    return h * 2


def shift(h):
    return F.tanh(h) + 1


class Scale(chainer.Link):

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.s = chainer.Parameter(np.full((), 1.5, np.float32))

    def forward(self, x):
        return x * F.cast(F.broadcast_to(self.s, x.shape), x.dtype)


LAYERS = double, shift, Scale


@contextlib.contextmanager
def by_hand(changes):
    """Changes what the n-th function of a run reads and returns."""
    original = chainer.FunctionNode.apply
    count, paused = -1, 0

    def apply(self, inputs):
        nonlocal count, paused
        if paused:
            return original(self, inputs)
        count += 1
        mine = [change for change in changes if change[0] == count]
        paused += 1
        try:
            inputs = list(inputs)
            instead = None
            for _, kind, layer in mine:
                if kind == 'before':
                    inputs[0] = layer(chainer.as_variable(inputs[0]))
                elif kind in ('replace', 'remove'):
                    instead = layer
            outputs = (original(self, tuple(inputs)) if instead is None
                       else (instead(chainer.as_variable(inputs[0])),))
            for _, kind, layer in mine:
                if kind == 'after':
                    outputs = (layer(outputs[0]),)
            return outputs
        finally:
            paused -= 1

    chainer.FunctionNode.apply = apply
    try:
        yield
    finally:
        chainer.FunctionNode.apply = original


def run(model, args, train):
    np.random.seed(5)
    random.seed(5)
    with chainer.using_config('train', train):
        return model(*args).array


class Program:

    """A model that is edited, and its copy with what was done by hand."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.name = self.rng.choice(sorted(STRUCTURES))
        self.model, self.args = STRUCTURES[self.name]()
        run(self.model, self.args, True)
        self.plain = copy.deepcopy(self.model)
        self.orders = {}
        for train in True, False:
            with chainer.using_config('train', train):
                graph = surgery.trace(copy.deepcopy(self.model), *self.args)
            # In train mode dropout runs, too.
            self.orders[train] = [node.address for node in graph]
        self.places = [
            node.address for node in graph
            if node.function in FUNCTIONS and len(node.outputs) == 1
            and node.outputs[0].dtype == np.float32]
        self.unary = [address for address in self.places if not (
            address.endswith('LinearFunction')
            or 'LinearFunction_' in address
            or '/Add' in address)]
        self.changes = []
        self.n_raised = 0

    def step(self):
        kind = self.rng.choice(
            ['after', 'after', 'before', 'replace', 'remove', 'revert',
             'look', 'train', 'pending'])
        exception = self.rng.choice(
            [None, Bomb(), KeyboardInterrupt(), MemoryError()])
        before = everything(self.model)
        lit = (contextlib.nullcontext() if exception is None
               else bomb(self.rng.randrange(1, 60), exception))
        done = None
        try:
            with chainer.using_config('train', False), lit:
                done = getattr(self, kind)()
        except (Bomb, KeyboardInterrupt, MemoryError, surgery.EditError):
            self.n_raised += 1
            if kind not in ('train', 'pending'):
                assert everything(self.model) == before, kind
                return
            # The author's own run ended half-way: of both, so that they
            # begin alike again.
            self.start_again()
            return
        if done is not None:
            self.changes = done

    def start_again(self):
        """Both models from what the edited one holds by now."""
        for one in reversed(surgery.edits(self.model)):
            if not one.edit.confirmed:
                surgery.revert(self.model, one.edit.name)
        fresh, _ = STRUCTURES[self.name]()
        run(fresh, self.args, True)
        for target in self.model, self.plain:
            links = dict(target.namedlinks())
            for path, link in fresh.namedlinks():
                for key, value in vars(copy.deepcopy(link)).items():
                    if not isinstance(value, (chainer.Link, list)) and (
                            key not in ('_children', 'name')):
                        vars(links[path])[key] = value

    def layer(self):
        layer = self.rng.choice(LAYERS)
        if layer is Scale:
            layer = Scale()
            return layer, copy.deepcopy(layer)
        return layer, layer

    def after(self):
        return self.insert(surgery.insert_after, 'after')

    def before(self):
        return self.insert(surgery.insert_before, 'before')

    def insert(self, edit, kind):
        address = self.rng.choice(self.places)
        ours, theirs = self.layer()
        edit(self.model, address, ours, x=self.args)
        return [*self.changes, (address, kind, theirs)]

    def replace(self):
        if not self.unary:
            return None
        address = self.rng.choice(self.unary)
        surgery.replace(self.model, address, shift, x=self.args)
        return [*self.changes, (address, 'replace', shift)]

    def remove(self):
        if not self.unary:
            return None
        address = self.rng.choice(self.unary)
        surgery.remove(self.model, address, x=self.args)
        return [*self.changes,
                (address, 'remove', lambda h: h)]

    def revert(self):
        surgery.revert(self.model)
        return []

    def look(self):
        before = everything(self.model)
        surgery.trace(self.model, *self.args)
        assert everything(self.model) == before

    def train(self):
        self.compare(self.rng.random() < .5)

    def pending(self):
        """An edit that only the first run tries."""
        address = self.rng.choice(self.places)
        name = f'pending{self.rng.random()}'
        surgery.insert_after(self.model, address, double, name=name)
        changes = [*self.changes, (address, 'after', double)]
        before, self.changes = self.changes, changes
        try:
            self.compare(False)
        except BaseException:
            self.changes = before
            if any(one.edit.confirmed and one.edit.name == name
                   for one in surgery.edits(self.model)):
                # It was tried, and the run that followed ended.
                self.changes = changes
            raise
        return changes

    def compare(self, train):
        y = run(self.model, self.args, train)
        # No bomb goes off in the other, lest both end.
        order = self.orders[train]
        changes = [(order.index(address), kind, layer)
                   for address, kind, layer in self.changes]
        with by_hand(changes), quiet():
            expected = run(self.plain, self.args, train)
        np.testing.assert_array_equal(y, expected)


@contextlib.contextmanager
def quiet():
    trace = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(trace)


def check(seed):
    program = Program(seed)
    for _ in range(6):
        program.step()
    program.compare(False)
    program.compare(True)
    return program.n_raised


@pytest.mark.parametrize('first', range(0, N_PROGRAMS, 20))
def test_random_programs(first):
    raised = sum(check(seed) for seed in range(
        first, min(first + 20, N_PROGRAMS)))
    assert raised > 0


@pytest.mark.slow
@pytest.mark.parametrize('first', range(1000, 2000, 100))
def test_a_thousand_random_programs(first):
    assert sum(check(seed) for seed in range(first, first + 100)) > 50
