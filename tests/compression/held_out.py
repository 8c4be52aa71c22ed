"""Least squares in float64, with every tenth example held out."""
import numpy

RIDGES = 1e-3, 1e-2, 1e-1, 1., 10.
LEAST = 20


def rows(count):
    """Which are fitted to, and which are held out."""
    held = numpy.arange(count) % 10 == 9
    if count < LEAST:
        return numpy.ones(count, bool), numpy.ones(count, bool)
    return ~held, held


def fit(x, y, W, folds, has_bias, ridge):
    """W' and b' of all the examples of all blocks, and the ridge, as rows.

    Args:
        x: Inputs, (N, d).
        y: Outputs to aim at, (N, o).
        W: Weight of the dense layer, (o, d).
        folds: Of each block, F (m, d).
        has_bias: Whether there is a bias.
        ridge: In units of the mean variance of an input.

    """
    k = len(folds)
    x_mean, y_mean = (a.mean(0) if has_bias else 0 * a[0] for a in (x, y))
    x, y = x - x_mean, y - y_mean
    root = numpy.sqrt(ridge * ((x ** 2).mean() or 1.) * len(x))
    shared = numpy.linalg.lstsq(
        numpy.concatenate(
            [x @ F.T for F in folds] + [root * F.T for F in folds]),
        numpy.concatenate(
            numpy.split(y, k, axis=1) + numpy.split(root * W.T, k, axis=1)),
        rcond=None)[0].T
    b = y_mean - numpy.concatenate([shared @ (F @ x_mean) for F in folds])
    return shared, b if has_bias else None


def outputs(x, W, b, folds):
    y = numpy.concatenate([x @ F.T @ W.T for F in folds], axis=1)
    return y if b is None else y + b


def error(y, z):
    """E|y - z|^2 in units of the variance of y; of its size if it has none."""
    variance = ((y - y.mean(0)) ** 2).sum()
    if variance <= 1e-10 * (y ** 2).sum():
        variance = (y ** 2).sum() or 1.
    return ((y - z) ** 2).sum() / variance


def fits(x, y, W, folds, has_bias):
    """Of each ridge: W', b' and the error on what is held out."""
    x, y, W = (numpy.asarray(a, numpy.float64) for a in (x, y, W))
    train, held = rows(len(x))
    found = []
    for ridge in RIDGES:
        V, b = fit(x[train], y[train], W, folds, has_bias, ridge)
        found.append((V, b, error(
            y[held], outputs(x[held], V, b, folds))))
    return found


def best(x, y, W, folds, has_bias):
    """The first of which the next is no better."""
    found = fits(x, y, W, folds, has_bias)
    return found[_first([e for _, _, e in found])]


def best_of_all(x, y, W, folds, has_bias):
    """W' and b' of all examples, by the ridge that is best on the held out."""
    errors = [e for _, _, e in fits(x, y, W, folds, has_bias)]
    return fit(x, y, W, folds, has_bias, RIDGES[_first(errors)])


def _first(errors):
    for i, (one, other) in enumerate(zip(errors, errors[1:], strict=False)):
        if other >= one:
            return i
    return len(errors) - 1
