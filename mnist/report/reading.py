"""What a trained network reads in the test digits."""
from typing import NamedTuple

import chainer
import chainer.functions as F
import numpy
from chainer.backends import cuda
from chainer.datasets import TupleDataset

from mnist.idx import N_CLASSES

# The most that are shown of those that were misread.
N_MISREAD = 12


class Reading(NamedTuple):
    """Labels and pictures of N digits, and what a network takes them for.

    ``images`` is (N, 784) in [0, 1], ``labels`` (N,), ``probabilities``
    (N, 10), all on the CPU.
    """

    images: numpy.ndarray
    labels: numpy.ndarray
    probabilities: numpy.ndarray

    @property
    def predictions(self) -> numpy.ndarray:
        return self.probabilities.argmax(axis=1)

    def confusion(self) -> numpy.ndarray:
        """Returns how many digits of each label (row) are read as what."""
        counts = numpy.zeros((N_CLASSES, N_CLASSES), int)
        numpy.add.at(counts, (self.labels, self.predictions), 1)
        return counts

    def misread(self) -> numpy.ndarray:
        """Returns the numbers of the misread digits, the surest first."""
        predictions = self.predictions
        wrong = numpy.flatnonzero(predictions != self.labels)
        certainty = self.probabilities[wrong, predictions[wrong]]
        return wrong[numpy.argsort(-certainty, kind='stable')]


def read(
        network: chainer.Chain, digits: TupleDataset,
        batchsize: int) -> Reading:
    """Returns what a network reads in digits.

    Args:
        network (Chain): From (N, 784) images to (N, 10) scores.
        digits (TupleDataset): Images and labels.
        batchsize (int): Digits that are read at once.
    """
    images, labels = digits._datasets
    batches = []
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        for start in range(0, len(images), batchsize):
            x = network.device.send(images[start:start + batchsize])
            batches.append(cuda.to_cpu(F.softmax(network(x)).array))
    return Reading(images, labels, numpy.concatenate(batches))
