"""The log of a run: Chainer's, in a file that is whole or not there."""
import json
from pathlib import Path

from chainer.training import Trainer, extensions

from shared_linear.files import write_atomically


class LogReport(extensions.LogReport):
    """Chainer's ``LogReport``, after each epoch, in the file ``log``.

    Chainer's own is renamed without having reached the disk, and leaves a
    folder behind if the process is killed meanwhile.
    """

    def __init__(self) -> None:
        super().__init__(log_name=None)

    def __call__(self, trainer: Trainer) -> None:
        """Adds what was observed; writes the file if an epoch ended."""
        before = len(self.log)
        super().__call__(trainer)
        if len(self.log) > before:
            content = json.dumps(self.log, indent=4).encode()
            write_atomically(
                Path(trainer.out) / 'log', lambda file: file.write(content))
