"""One package that is broken takes no other tests with it."""
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# As mpi4py does without an MPI library, and others with one too old.
BREAK = '''
import sys

BROKEN = 'mpi4py.MPI', 'matplotlib', 'onnxruntime'


class Breaker:
    def find_spec(self, name, path=None, target=None):
        if name in BROKEN:
            raise RuntimeError('cannot load ' + name)


sys.meta_path.insert(0, Breaker())
import pytest
sys.exit(pytest.main(sys.argv[1:]))
'''


@pytest.mark.slow
def test_a_package_that_cannot_be_loaded():
    done = subprocess.run(
        [sys.executable, '-c', BREAK, '--collect-only', '-q', '-p',
         'no:cacheprovider', 'tests'],
        cwd=ROOT, capture_output=True, text=True, check=False)
    # 1 for the files that could not be, 2 if that had been the end.
    assert done.returncode == 1, done.stdout[-2000:] + done.stderr
    for name in 'mnist/test_mpi.py', 'layers/test_link.py':
        assert f'tests/{name}::' in done.stdout


def test_a_file_that_cannot_be_imported(pytestconfig):
    """It is an error, and the others run."""
    assert pytestconfig.option.continue_on_collection_errors
