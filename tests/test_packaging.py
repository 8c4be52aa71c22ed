"""The source distribution and the wheel: what they hold, and that they work.

Nothing is fetched: they are built by the setuptools that is installed here,
and tried in a new environment with the Chainer and NumPy of this one.
"""
import ast
import email
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import shared_linear

pytest.importorskip('setuptools', minversion='77')

ROOT = Path(__file__).resolve().parents[1]
NAME = f'shared_linear-{shared_linear.__version__}'
# Of the checkout, what is of no use without it.
FOR_GIT_ONLY = {'.gitignore'}


def python(*arguments, cwd, executable=sys.executable, **variables):
    """Runs Python apart from this checkout, and returns what it prints."""
    # The constraints that make exports are a file beside the Makefile.
    environment = {
        key: value for key, value in os.environ.items()
        if key not in (
            'PYTHONPATH', 'PIP_CONSTRAINT', 'PIP_BUILD_CONSTRAINT')}
    process = subprocess.run(
        [str(executable), *map(str, arguments)], cwd=cwd,
        env={**environment, **variables}, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def tracked():
    """The files of the checkout, None where it is none of git's."""
    if shutil.which('git') is None or not (ROOT / '.git').exists():
        return None
    listed = subprocess.run(
        ['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        return None
    return {name for name in listed.stdout.split('\0')
            if name and (ROOT / name).exists()}


@pytest.fixture(scope='module')
def sdist(tmp_path_factory):
    """The source distribution, made of a copy of this checkout."""
    folder = tmp_path_factory.mktemp('sdist')
    copy = folder / 'checkout'
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(
        '.*', '__pycache__', '*.egg-info', 'build', 'dist', 'result'))
    # What a user has lying about does not belong into it.
    (copy / 'result').mkdir()
    (copy / 'result' / 'snapshot_iter_1').write_text('a large file')
    (copy / 'mnist' / '__pycache__').mkdir()
    (copy / 'mnist' / '__pycache__' / 'x.pyc').write_text('')
    python('-c', 'from setuptools.build_meta import build_sdist; '
           f'build_sdist({str(folder)!r})', cwd=copy)
    path = folder / f'{NAME}.tar.gz'
    assert path.exists(), os.listdir(folder)
    return path


@pytest.fixture(scope='module')
def unpacked(sdist, tmp_path_factory):
    folder = tmp_path_factory.mktemp('unpacked')
    with tarfile.open(sdist) as archive:
        # Of Python 3.11, 3.11.4 and later know it; 3.14 does it anyway.
        safely = {'filter': 'data'} if hasattr(tarfile, 'data_filter') else {}
        archive.extractall(folder, **safely)
    return folder / NAME


@pytest.fixture(scope='module')
def wheel(unpacked, tmp_path_factory):
    """The wheel, made of nothing but the source distribution."""
    folder = tmp_path_factory.mktemp('wheel')
    python('-c', 'from setuptools.build_meta import build_wheel; '
           f'build_wheel({str(folder)!r})', cwd=unpacked)
    path = folder / f'{NAME}-py3-none-any.whl'
    assert path.exists(), os.listdir(folder)
    return path


def test_sdist_holds_the_checkout(unpacked):
    held = {
        str(path.relative_to(unpacked))
        for path in unpacked.rglob('*') if path.is_file()}
    for name in (
            'README.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'LICENSE',
            'Makefile', 'build-constraints.txt', 'pyproject.toml', 'setup.py',
            'conftest.py', 'noxfile.py', 'train_mnist.py',
            'mnist/run.py', 'mnist/report/style.css', 'docs/conf.py',
            'docs/tutorial.md', 'docs/fold.svg', 'docs/_static/style.css',
            'tests/test_packaging.py', 'tests/mnist/test_report.py',
            'tests/files_of_0_1/shared.npz',
            'tests/files_of_0_1/shared.pickle',
            'benchmarks/harness.py', 'shared_linear/py.typed'):
        assert name in held
    assert not [
        name for name in held
        if name.startswith(('result', '.venv', 'build/', 'dist/'))
        or name.endswith(('.pyc', '.tar.gz', '.whl'))]


@pytest.mark.skipif(tracked() is None, reason='needs a checkout of git')
def test_sdist_forgets_no_file(unpacked):
    forgotten = {
        name for name in tracked() - FOR_GIT_ONLY
        if not name.startswith('.ci/') and not (unpacked / name).exists()}
    assert forgotten == set()


def test_sdist_can_train(unpacked):
    shown = python('train_mnist.py', '--help', cwd=unpacked)
    assert '--n-tiles' in shown


def test_wheel_holds_the_package_alone(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = {n for n in names if '.dist-info/' not in n}
    folder = Path(shared_linear.__file__).parent
    assert package == {
        f'shared_linear/{path.relative_to(folder).as_posix()}'
        for path in folder.rglob('*')
        if path.suffix == '.py' or path.name == 'py.typed'}
    assert names - package == {
        f'{NAME}.dist-info/{name}' for name in (
            'METADATA', 'RECORD', 'WHEEL', 'licenses/LICENSE',
            'top_level.txt')}


def test_metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        metadata = email.message_from_bytes(
            archive.read(f'{NAME}.dist-info/METADATA'))
        top_level = archive.read(f'{NAME}.dist-info/top_level.txt')
    assert top_level == b'shared_linear\n'
    assert metadata['Version'] == shared_linear.__version__
    assert metadata['Requires-Python'] == '>=3.11'
    assert metadata['License-Expression'] == 'MIT'
    assert metadata['License-File'] == 'LICENSE'
    assert metadata['Description-Content-Type'] == 'text/markdown'
    assert metadata.get_payload().startswith('# shared_linear\n')
    requirements = metadata.get_all('Requires-Dist')
    # CuPy takes the newest of NVIDIA's libraries that are installed, and the
    # driver may be older: the extra of its own brings those that fit.
    assert not [r for r in requirements if r.startswith('nvidia')]
    always = [r for r in requirements if 'extra ==' not in r]
    assert sorted(r.replace(' ', '') for r in always) == [
        'chainer==7.8.1', 'numpy>=1.26']
    assert {'cuda12', 'cuda13', 'docs', 'test', 'train'} <= set(
        metadata.get_all('Provides-Extra'))


@pytest.mark.more
def test_they_pass_the_check_of_the_index(sdist, wheel, tmp_path):
    pytest.importorskip('twine', reason='needs twine: pip install twine')
    shown = python(
        '-m', 'twine', 'check', '--strict', sdist, wheel, cwd=tmp_path)
    assert shown.count('PASSED') == 2


def test_every_python_of_the_matrix_is_in_the_classifiers(wheel):
    with zipfile.ZipFile(wheel) as archive:
        metadata = email.message_from_bytes(
            archive.read(f'{NAME}.dist-info/METADATA'))
    source = (ROOT / 'noxfile.py').read_text('utf-8')
    oldest = ast.literal_eval(re.search(
        r'^OLDEST = (\{.*?\})$', source, re.M | re.S)[1])
    prefix = 'Programming Language :: Python :: 3.'
    assert [
        name.removeprefix('Programming Language :: Python :: ')
        for name in metadata.get_all('Classifier')
        if name.startswith(prefix)] == list(oldest)


SMOKE = '''
import importlib.metadata, pathlib
import shared_linear as sl
import chainer, numpy as np
folder = pathlib.Path(sl.__file__).parent
x = np.ones((2, 12), np.float32)
layer = sl.SharedLinear(12, 3, n_tiles=4)
loss = (layer(x) ** 2).array.sum()
expected = ((x @ np.tile(layer.W.array, 4).T) ** 2).sum()
assert np.allclose(loss, expected)
print(folder)
print(importlib.metadata.version('shared_linear'))
print((folder / 'py.typed').exists())
try:
    import mnist
except ImportError:
    print('no mnist')
'''


def test_installed_in_a_new_environment(wheel, tmp_path):
    pytest.importorskip('pip', minversion='22.3')
    environment = tmp_path / 'env'
    venv.create(environment, symlinks=True)
    new_python = environment / 'bin' / 'python'
    python('-m', 'pip', '--python', new_python, 'install', '--no-index',
           '--no-deps', '--quiet', wheel, cwd=tmp_path)
    site = Path(python(
        '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))',
        cwd=tmp_path, executable=new_python).strip())
    # The dependencies of this environment, behind what is in the new one. A
    # path in a .pth file brings no .pth files of its own with it, and so no
    # editable installation.
    (site / 'dependencies.pth').write_text(
        sysconfig.get_path('purelib') + '\n')
    shown = python(
        '-W', 'error', '-c', SMOKE, cwd=tmp_path, executable=new_python)
    assert shown.splitlines() == [
        str(site / 'shared_linear'), shared_linear.__version__, 'True',
        'no mnist']
