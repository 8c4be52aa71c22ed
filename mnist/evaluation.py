"""Loss and accuracy on the test digits."""
from typing import Any

from chainer import function, reporter
from chainer.training import extensions


class EvaluateEveryDigit(extensions.Evaluator):
    """Evaluator in which every digit counts the same.

    Chainer's takes the mean over the mini-batches. Where the last is smaller
    than the others, its digits count for more, and the error is off.
    ChainerMN's takes the mean over the processes, which is off where one has
    more digits than another: ``weight`` is to make up for it.

    Args:
        weight (float): Factor of the results.
        args: As of Chainer's ``Evaluator``, and so are the keywords.
    """

    default_name = 'validation'

    def __init__(self, *args: Any, weight: float = 1., **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._weight = weight

    def evaluate(self) -> dict:
        """Returns the mean of loss and accuracy over the test digits."""
        iterator = self.get_iterator('main')
        iterator.reset()
        summary = reporter.DictSummary()
        for batch in iterator:
            observation: dict = {}
            with reporter.report_scope(observation), \
                    function.no_backprop_mode():
                self.get_target('main')(*self.converter(batch, self.device))
            summary.add({
                key: (value, len(batch))
                for key, value in observation.items()})
        return {
            key: self._weight * mean
            for key, mean in summary.compute_mean().items()}
