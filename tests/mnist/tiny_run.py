"""Options of a run that takes no time, and the script itself."""
from pathlib import Path

import train_mnist

SCRIPT = Path(train_mnist.__file__)
TINY = ['--unit', '20', '--out-unit', '10', '--n-tiles', '5', '-b', '10']
