import chainer.links as L
import numpy
import pytest
from chainer import Reporter
from chainer.datasets import TupleDataset
from chainer.iterators import SerialIterator

from mnist.evaluation import EvaluateEveryDigit
from mnist.network import MLP


@pytest.mark.parametrize('batchsize', [1, 4, 7, 100])
def test_every_digit_counts_the_same(batchsize):
    random = numpy.random.RandomState(0)
    images = random.rand(9, 784).astype(numpy.float32)
    labels = random.randint(0, 10, 9).astype(numpy.int32)
    model = L.Classifier(MLP(20, 10))
    scores = model.predictor(images).array.astype(float)
    # Right answers at the end only, where a small last mini-batch has them.
    labels[-1] = scores[-1].argmax()

    odds = numpy.exp(scores - scores.max(axis=1, keepdims=True))
    losses = -numpy.log(
        odds[numpy.arange(9), labels] / odds.sum(axis=1))
    iterator = SerialIterator(
        TupleDataset(images, labels), batchsize, repeat=False, shuffle=False)
    evaluator = EvaluateEveryDigit(iterator, model)
    for _ in range(2):
        with Reporter():
            result = evaluator()
        assert result['main/accuracy'] == pytest.approx(
            (scores.argmax(axis=1) == labels).mean())
        assert result['main/loss'] == pytest.approx(losses.mean(), rel=1e-4)
