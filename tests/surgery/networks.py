"""Small networks that the tests of surgery edit, each written by hand."""
import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np

import shared_linear  # noqa: F401  (readies Chainer)


def images(n=2, channels=1, size=8, seed=0):
    rng = np.random.RandomState(seed)
    return rng.randn(n, channels, size, size).astype(np.float32)


def vectors(n=4, width=6, seed=0):
    return np.random.RandomState(seed).randn(n, width).astype(np.float32)


def randomize(model, seed=0):
    """Gives every parameter and statistic a value of its own."""
    rng = np.random.RandomState(seed)
    for _, param in sorted(model.namedparams()):
        param.array[...] = rng.randn(*param.shape) * .5
    for _, link in sorted(model.namedlinks()):
        if isinstance(link, L.BatchNormalization):
            link.gamma.array[...] = rng.uniform(.5, 2, link.gamma.shape)
            link.avg_mean[...] = rng.randn(*link.avg_mean.shape) * .3
            link.avg_var[...] = rng.uniform(.5, 2, link.avg_var.shape)
    return model


class Article(chainer.Chain):

    def forward(self, x):
        h = x + 0.5
        y = h * -2
        return y


class MLP(chainer.Chain):

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(6, 5)
            self.l2 = L.Linear(5, 5)
            self.l3 = L.Linear(5, 3)

    def forward(self, x):
        h = F.relu(self.l1(x))
        h = F.dropout(h, .5)
        h = F.relu(self.l2(h))
        return self.l3(h)


class CNN(chainer.Chain):

    def __init__(self, nobias=False):
        super().__init__()
        with self.init_scope():
            self.conv1 = L.Convolution2D(1, 4, 3, pad=1, nobias=nobias)
            self.bn1 = L.BatchNormalization(4)
            self.conv2 = L.Convolution2D(4, 6, 3, nobias=nobias)
            self.bn2 = L.BatchNormalization(6)
            self.fc = L.Linear(6 * 3 * 3, 3)

    def forward(self, x):
        h = F.relu(self.bn1(self.conv1(x)))
        h = F.max_pooling_2d(h, 2)[:, :, :5, :5]
        h = F.pad(h, ((0, 0), (0, 0), (0, 1), (0, 1)), 'constant')
        h = F.relu(self.bn2(self.conv2(h)))
        return self.fc(h)


class Skips(chainer.Chain):

    """Fan-out, a residual sum and a concatenation."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.a = L.Linear(6, 6)
            self.b = L.Linear(6, 6)
            self.c = L.Linear(12, 3)

    def forward(self, x):
        h = F.relu(self.a(x))
        s = h + self.b(h)
        return self.c(F.concat([h, s]))


class Recurrent(chainer.Chain):

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.lstm = L.LSTM(6, 5)
            self.out = L.Linear(5, 3)

    def forward(self, xs):
        self.lstm.reset_state()
        for x in xs:
            h = self.lstm(x)
        return F.tanh(self.out(h))


class UNet(chainer.Chain):

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.down1 = L.Convolution2D(1, 4, 3, pad=1)
            self.down2 = L.Convolution2D(4, 8, 4, stride=2, pad=1)
            self.down3 = L.Convolution2D(8, 8, 4, stride=2, pad=1)
            self.up3 = L.Deconvolution2D(8, 8, 4, stride=2, pad=1)
            self.up2 = L.Deconvolution2D(16, 4, 4, stride=2, pad=1)
            self.up1 = L.Convolution2D(8, 1, 3, pad=1)

    def forward(self, x):
        h1 = F.relu(self.down1(x))
        h2 = F.relu(self.down2(h1))
        h3 = F.relu(self.down3(h2))
        u3 = F.relu(self.up3(h3))
        u2 = F.relu(self.up2(F.concat([u3, h2])))
        return self.up1(F.concat([u2, h1]))


class OldSquare(chainer.Function):

    """An old-style function."""

    def forward(self, inputs):
        return inputs[0] * inputs[0],

    def backward(self, inputs, grads):
        return 2 * inputs[0] * grads[0],


class OldStyle(chainer.Chain):

    """Old-style in both ways: a Function, and __call__ for forward."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(6, 5)

    def __call__(self, x):
        return OldSquare()(self.l1(x))


class Block(chainer.Chain):

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.l = L.Linear(6, 6)

    def forward(self, x):
        return F.relu(self.l(x))


class Forgetful(chainer.Chain):

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(6, 6)

    def forward(self, x):
        h = F.forget(lambda h: F.tanh(F.relu(h)), self.l1(x))
        return F.sigmoid(h)


class Bias(chainer.Link):

    """A layer with a parameter and a persistent value."""

    def __init__(self, value=0.):
        super().__init__()
        with self.init_scope():
            self.shift = chainer.Parameter(
                np.array(value, np.float32))
        self.n_calls = 0
        self.register_persistent('n_calls')

    def forward(self, x):
        self.n_calls += 1
        return x + F.broadcast_to(self.shift, x.shape)


class Same(chainer.Link):

    """The identity, as a function of its own."""

    def forward(self, x):
        return F.identity(x)


def parameters(model):
    return {path: param.array.copy()
            for path, param in sorted(model.namedparams())
            if param.array is not None}


def snapshot(model):
    """All that an edit must leave alone when it fails."""
    return (
        {path: type(link) for path, link in model.namedlinks()},
        {path: sorted(vars(link)) for path, link in model.namedlinks()},
        {path: param.array if param.array is None else param.array.tolist()
         for path, param in model.namedparams()})
