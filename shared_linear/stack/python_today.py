"""What today's Python took, or is about to take."""
from __future__ import annotations

from shared_linear.stack.mending import Source, mends


@mends('chainer.iterators.multiprocess_iterator')
def make_a_daemon_by_its_attribute(source: Source) -> None:
    """``Thread.setDaemon`` has been deprecated since Python 3.10.

    ``MultiprocessIterator`` fails without this where warnings are errors.
    """
    source.replace('thread.setDaemon(True)', 'thread.daemon = True')


@mends('chainer.datasets.text_dataset')
def close_text_files(source: Source) -> None:
    """``TextDataset`` leaves its files to be closed as it goes out of scope.

    Python warns of each such file without this.
    """
    source.replace(
        '\n\n    def close(self):\n',
        "\n    def __del__(self): [fp.close() for fp in "
        "vars(self).get('_fps') or () if fp is not None]"
        '\n    def close(self):\n')
