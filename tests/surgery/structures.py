"""Model structures as people write them, and what is to hold for all.

Each is a function that makes a model and arguments of its call. An exception
can be thrown at any line of this file, which is the models' own code.
"""
import array
import ast
import collections
import contextlib
import copyreg
import functools
import itertools
import random
import sys

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np

import shared_linear  # noqa: F401  (readies Chainer)


def reduce_count(count):
    return itertools.count, tuple(ast.literal_eval(
        '[{}]'.format(repr(count)[len('count('):-1])))


# Python 3.14 copies none; the tests compare with a copy of the model.
copyreg.pickle(itertools.count, reduce_count)


def rows(n=4, width=6, seed=0):
    return np.random.RandomState(seed).randn(n, width).astype(np.float32)


class Plain(chainer.Chain):

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(6, 6)
            self.l2 = L.Linear(6, 6)

    def forward(self, x):
        h = F.dropout(F.relu(self.l1(x)), .3)
        h = F.tanh(self.l2(h))
        return h


class LoopsOverChildren(chainer.ChainList):

    def __init__(self):
        super().__init__(L.Linear(6, 6), L.Linear(6, 6), L.Linear(6, 6))

    def forward(self, x):
        for link in self.children():
            x = F.relu(link(x))
        return x


class LoopsOverNames(chainer.Chain):

    """Runs what is registered, in that order, as Chainer's VGG does."""

    def __init__(self):
        super().__init__()
        self.names = []
        with self.init_scope():
            self.z = L.Linear(6, 6)
            self.b = L.Linear(6, 6)
            self.a = L.Linear(6, 6)

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if self.within_init_scope and isinstance(value, chainer.Link):
            self.names.append(name)

    def __delattr__(self, name):
        super().__delattr__(name)
        self.names.remove(name)

    def forward(self, x):
        for name in self.names:
            x = F.sigmoid(self[name](x))
        return x


class LoopsOverLinks(chainer.Chain):

    """Scales by how many links it has, and resets those that can."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.lstm = L.LSTM(6, 6)
            self.out = L.Linear(6, 6)

    def reset(self):
        for link in self.links():
            if link is not self:
                getattr(link, 'reset_state', link.cleargrads)()
        for child in self.children():
            child.name  # noqa: B018
        return len(list(self.links()))

    def forward(self, x):
        n = self.reset()
        h = self.lstm(x)
        return F.relu(self.out(h)) * n


class Tied(chainer.Chain):

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.embed = L.EmbedID(9, 6)
            self.middle = L.Linear(6, 6)
            self.out = L.Linear(6, 9)
        self.out.W = self.embed.W

    def forward(self, ids):
        h = F.sum(self.embed(ids), axis=1)
        h = F.relu(self.middle(h))
        return self.out(h)


class Stateful(chainer.Chain):

    """Keeps its state from call to call."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.gru = L.StatefulGRU(6, 6)
            self.out = L.Linear(6, 6)

    def forward(self, x):
        h = self.gru(x)
        return F.tanh(self.out(h))


class LossInForward(chainer.Chain):

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(6, 6)
            self.l2 = L.Linear(6, 6)

    def encode(self, x):
        return F.relu(self.l1(x))

    def predict(self, x):
        h = self.encode(x)
        return F.sigmoid(self.l2(h))

    def forward(self, x, t):
        y = self.predict(x)
        loss = F.mean_squared_error(y, t)
        chainer.report({'loss': loss}, self)
        return loss


class Skips(chainer.Chain):

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.a = L.Linear(6, 6)
            self.b = L.Linear(6, 6)
            self.c = L.Linear(12, 6)

    def forward(self, x):
        h = F.relu(self.a(x))
        s = h + F.tanh(self.b(h))
        return self.c(F.concat([h, s]))


class Normalized(chainer.Chain):

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.c1 = L.Convolution2D(1, 3, 3, pad=1)
            self.n1 = L.BatchNormalization(3)
            self.c2 = L.Convolution2D(3, 3, 3, nobias=True)
            self.n2 = L.BatchNormalization(3)
            self.fc = L.Linear(None, 6)

    def forward(self, x):
        h = F.relu(self.n1(self.c1(x)))
        h = F.relu(self.n2(self.c2(h)))
        return self.fc(h)


class MixedPrecision(chainer.Chain):

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(6, 6)
            with chainer.using_config('dtype', np.float16):
                self.l2 = L.Linear(6, 6)

    def forward(self, x):
        h = F.relu(self.l1(x))
        h = self.l2(F.cast(h, np.float16))
        return F.cast(F.tanh(h), np.float32)


class Slotted:

    __slots__ = 'n', 'last', 'never'

    def __init__(self):
        self.n = 0
        self.last = []


class KeepsAll(chainer.Chain):

    """Keeps something in every kind of container."""

    seen = collections.Counter()

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.l = L.Linear(6, 6)
        self.list, self.set, self.dict = [], set(), {'n': [0]}
        self.deque = collections.deque(maxlen=3)
        self.ordered = collections.OrderedDict(a=1, b=2)
        self.default = collections.defaultdict(list)
        self.bytes, self.array = bytearray(b'abc'), array.array('d', [0.])
        self.slotted = Slotted()
        self.ids = itertools.count()
        self.rng = np.random.RandomState(0)
        self.generator = np.random.default_rng(0)
        self.python = random.Random(0)
        self.running = np.zeros((2, 3))
        self.column = self.running[:, 1]
        self.objects = np.array([[], None], object)
        self.tuple = ([], self.running[0])
        self.add_persistent('mean', np.zeros(6, np.float32))
        self.last = None

    def forward(self, x):
        y = F.relu(self.l(x))
        self.list.append(y.shape)
        self.set.add(len(self.list))
        self.dict['n'][0] += 1
        self.dict[len(self.list)] = y.shape
        self.deque.append(len(self.list))
        self.ordered.move_to_end('a')
        self.default['x'].append(1)
        self.bytes.extend(b'x')
        self.array.append(1.)
        self.slotted.n += 1
        self.slotted.last.append(self.slotted.n)
        self.slotted.never = 1
        KeepsAll.seen['forward'] += 1
        noise = self.rng.randn() + self.generator.random() + next(self.ids)
        self.running += 1
        self.column[...] = noise
        self.objects[0].append(1)
        self.objects[1] = 'x'
        self.tuple[0].append(1)
        self.mean *= .9
        self.mean += y.array.mean(0)
        self.last = F.tanh(y)
        self.l.W.array[...] *= np.float32(.999)
        return self.last * float(noise + self.python.random())


class ReadOnly(chainer.Chain):

    """Reads tables that cannot be written to."""

    def __init__(self):
        super().__init__()
        self.mean = np.broadcast_to(np.float32(.5), (6,))
        self.table = np.arange(6, dtype=np.float32)
        self.table.flags.writeable = False
        with self.init_scope():
            self.l = L.Linear(6, 6)

    def forward(self, x):
        h = self.l(x - self.mean) + self.table
        return F.relu(h)


class OldStyle(chainer.Chain):

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(6, 6)
            self.l2 = L.Linear(6, 6)

    def __call__(self, x):
        h = F.relu(self.l1(x))
        return F.relu(self.l2(h))


class Twice(chainer.Chain):

    """Calls one block twice, and the block of a block."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.block = Plain()
            self.head = chainer.Sequential(L.Linear(6, 6), F.relu)

    def forward(self, x):
        h = self.block(x)
        h = self.block(h)
        return self.head(h)


class EncodesAndDecodes(chainer.Chain):

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.e = L.Linear(6, 6)
            self.d = L.Linear(6, 6)

    def encode(self, x):
        return F.relu(self.e(x))

    def decode(self, z):
        return F.relu(self.d(z))

    def forward(self, x):
        z = self.encode(x)
        return self.decode(z)


class CallsMethodsOfParts(chainer.Chain):

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.part = EncodesAndDecodes()
            self.l = L.Linear(6, 6)

    def forward(self, x):
        z = self.part.encode(x)
        return self.part.decode(F.tanh(self.l(z)))


def wants(make, *args):
    """A structure; its parameters have values that no other has."""
    def structure():
        np.random.seed(0)
        model = make()
        rng = np.random.RandomState(1)
        for _, param in sorted(model.namedparams()):
            if param.array is not None:
                param.array[...] = rng.randn(*param.shape) * .4
        return model, args

    return structure


x = chainer.Variable(rows())
STRUCTURES = {
    'chain': wants(Plain, x),
    'children': wants(LoopsOverChildren, x),
    'names': wants(LoopsOverNames, x),
    'links': wants(LoopsOverLinks, x),
    'list': wants(lambda: chainer.Sequential(
        LoopsOverChildren(), F.relu, LoopsOverChildren()), x),
    'sequential': wants(lambda: chainer.Sequential(
        L.Linear(6, 6), F.relu, L.Linear(6, 6),
        functools.partial(F.leaky_relu, slope=.3), L.Linear(6, 6)), x),
    'tied': wants(Tied, np.arange(8, dtype='i').reshape(4, 2)),
    'stateful': wants(Stateful, x),
    'loss': wants(LossInForward, x, rows(seed=3)),
    'skips': wants(Skips, x),
    'normalized': wants(Normalized, chainer.Variable(
        rows(2, 36).reshape(2, 1, 6, 6))),
    'mixed precision': wants(MixedPrecision, x),
    'containers': wants(KeepsAll, x),
    'read-only': wants(ReadOnly, x),
    'old style': wants(OldStyle, x),
    'twice': wants(Twice, x),
    'methods': wants(EncodesAndDecodes, x),
    'parts': wants(CallsMethodsOfParts, x),
    'classifier': wants(
        lambda: L.Classifier(Plain()), x, np.arange(4, dtype='i')),
    'repeated': wants(lambda: Plain().repeat(2, 'copy'), x),
}


class Bomb(Exception):
    pass


@contextlib.contextmanager
def bomb(line, error):
    """Throws an exception at the n-th line of this file that runs."""
    count = 0

    def local(frame, event, arg):
        nonlocal count
        if event == 'line':
            count += 1
            if count == line:
                raise error
        return local

    def trace(frame, event, arg):
        code = frame.f_code
        theirs = code.co_filename == __file__ and code.co_name != 'bomb'
        return local if theirs else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def describe(value, seen=None):
    """All of a value that can be told, without any code under test."""
    seen = {} if seen is None else seen
    if id(value) in seen:
        return 'seen', seen[id(value)]
    if isinstance(value, (bool, int, float, complex, str, bytes, type,
                          type(None), np.dtype, np.generic)):
        return repr(value)
    seen[id(value)] = len(seen)
    # Lest another object get its id.
    seen.setdefault('alive', []).append(value)

    def below(item):
        return describe(item, seen)

    kind = type(value).__qualname__, getattr(type(value), 'surgery_base', 0)
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            return kind, [below(item) for item in value.ravel()]
        return (kind, value.shape, value.dtype.str, value.flags.writeable,
                value.tobytes())
    if isinstance(value, dict):
        return kind, [(below(k), below(v)) for k, v in dict.items(value)]
    if isinstance(value, (set, frozenset)):
        return kind, sorted(map(repr, value))
    if isinstance(value, (list, tuple, collections.deque)):
        return kind, [below(item) for item in value]
    if isinstance(value, (bytearray, array.array)):
        return kind, bytes(value)
    if isinstance(value, itertools.count):
        return kind, repr(value)
    if isinstance(value, np.random.RandomState):
        return kind, below(value.get_state())
    if isinstance(value, np.random.Generator):
        return kind, below(value.bit_generator.state)
    if isinstance(value, random.Random):
        return kind, hash(value.getstate())
    if isinstance(value, chainer.variable.VariableNode):
        return kind, value.shape, str(value.dtype)
    if isinstance(value, Slotted):
        return kind, [(name, below(getattr(value, name)))
                      for name in Slotted.__slots__ if hasattr(value, name)]
    if callable(value) and not hasattr(value, '__dict__') or isinstance(
            value, type(describe)):
        return kind
    # But for what surgery remembers of names that it looked up.
    return kind, [(k, below(v)) for k, v in sorted(
        getattr(value, '__dict__', {}).items()) if k != '_matching']


def everything(model):
    """What a call that fails has to leave as it was."""
    return (describe(model), describe(KeepsAll.seen),
            describe(np.random.get_state()), random.getstate(),
            [str(one) for one in shared_linear.surgery.edits(model)],
            [(path, type(link)) for path, link in model.namedlinks()])
