"""Runs every benchmark that is not slow, each in a process of its own.

    python -m benchmarks [flags that every benchmark takes]
"""
import subprocess
import sys
import time
from pathlib import Path

here = Path(__file__).resolve().parent
support = {
    '__init__.py', '__main__.py', 'compression_tables.py', 'harness.py',
    'hashed_linear.py', 'minilm.py', 'scratch_peers.py', 'small_networks.py'}
# These take up to hours, and are run by their names.
slow = {
    'compress_cost.py', 'compression_quality.py', 'minilm_quality.py',
    'search_cost.py', 'shared_weights_quality.py', 'sharing_quality.py'}
# These measure a GPU, and run where one is asked for.
gpu = {'gpu_layer.py', 'gpu_step.py'}
if not any('cupy' in flag for flag in sys.argv[1:]):
    slow |= gpu

failed = []
for script in sorted(here.glob('*.py')):
    if script.name in support | slow:
        continue
    print('== {}'.format(script.name), flush=True)
    start = time.perf_counter()
    if subprocess.run([sys.executable, script, *sys.argv[1:]]).returncode:
        failed.append(script.name)
    print('{:.0f} s\n'.format(time.perf_counter() - start), flush=True)
if failed:
    sys.exit('failed: ' + ', '.join(failed))
