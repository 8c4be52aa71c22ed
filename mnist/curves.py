"""Plots of the log: loss.png and accuracy.png."""
from pathlib import Path

from chainer.training import Trainer, extension

from mnist.errors import UserError
from shared_linear.files import write_atomically


def load_matplotlib() -> None:
    """Imports matplotlib for drawing to files.

    Raises:
        UserError: If it is not there; the message says what to do.
    """
    try:
        import matplotlib
        matplotlib.use('Agg')
        import matplotlib.figure  # noqa: F401
    except Exception as e:
        # ValueError of a wrong MPLBACKEND, and what it is built with fails.
        raise UserError(
            f'plots need matplotlib ({e}): pip install ".[train]", or pass '
            f'--no-plots') from e


class DrawCurves(extension.Extension):
    """Draws a value over the epochs, in training and in test, from the log.

    Chainer's ``PlotReport`` keeps a log of its own. In a run that goes on it
    adds a point in the middle of an epoch, and it cannot go on at all from a
    snapshot of a run without plots. This one draws what ``LogReport`` has,
    and has nothing to keep.

    Args:
        key (str): Key of the value in the log, without ``'main/'``.
    """

    def __init__(self, key: str) -> None:
        self.key = key

    def is_due(self, trainer: Trainer) -> bool:
        """Is its trigger, with no state to be resumed: an epoch ended."""
        return trainer.updater.is_new_epoch

    def __call__(self, trainer: Trainer) -> None:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        log = trainer.get_extension('LogReport').log
        figure = Figure(figsize=(6.4, 4.), layout='constrained')
        axes = figure.add_subplot()
        for prefix, name in ('main/', 'training'), (
                'validation/main/', 'test'):
            points = [
                (entry['epoch'], entry[prefix + self.key])
                for entry in log if prefix + self.key in entry]
            axes.plot(*zip(*points, strict=True), marker='.', label=name)
        axes.set_xlabel('epoch')
        axes.set_ylabel(self.key)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=.3)
        axes.legend()
        write_atomically(
            Path(trainer.out) / f'{self.key}.png',
            lambda file: figure.savefig(file, format='png', dpi=150))
