"""A Python of its own for a test: what is imported can't be unimported."""
import os
import subprocess
import sys
from pathlib import Path

import shared_linear

ENVIRONMENT = dict(os.environ, PYTHONPATH=os.pathsep.join(
    [str(Path(shared_linear.__file__).parents[1])]
    + [p for p in [os.environ.get('PYTHONPATH')] if p]))


def run(*arguments, environment=ENVIRONMENT, warnings='error', cwd=None):
    return subprocess.run(
        [sys.executable, '-W', warnings, *arguments], env=environment,
        cwd=cwd, capture_output=True, text=True, timeout=120)
