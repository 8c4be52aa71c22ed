"""Chainer imports and runs, whichever is imported first.

Each in a process of its own: what is imported can't be unimported.
"""
import sys
import textwrap

import fresh
import numpy
import pytest

USE = """
import numpy
import chainer
import chainer.functions as F
import chainer.links as L
import shared_linear as sl
assert chainer.__version__ == '7.8.1'
x = numpy.ones((2, 12), 'f')
link = sl.SharedLinear(12, 5, n_tiles=3)
F.sum(F.relu(link(x))).backward()
assert link.W.grad.shape == (5, 4)
assert isinstance(link, chainer.Link)
assert F.as_strided(x, (2, 2), (1, 1)).shape == (2, 2)
assert F.resize_images(x.reshape(1, 1, 4, 6), (2, 3)).shape == (1, 1, 2, 3)
print('done')
"""

FAIL_FIRST = """
try:
    import chainer
except Exception as e:
    print(type(e).__name__)
"""

CHAINER_IMPORTS_ALONE = (
    numpy.lib.NumpyVersion(numpy.__version__) < '2.0.0'
    and sys.version_info < (3, 12))


def python(*args, warnings='error'):
    done = fresh.run(*args, warnings=warnings)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def run(*code, warnings='error'):
    source = '\n'.join(textwrap.dedent(c) for c in code)
    return python('-c', source, warnings=warnings)


def test_before_chainer():
    assert run('import shared_linear', USE) == ['done']


def test_after_a_failed_import_of_chainer():
    """As in a notebook, whose first cell failed."""
    error, done = run(FAIL_FIRST, 'import shared_linear', USE)
    assert error in (
        'AttributeError', 'ModuleNotFoundError', 'DeprecationWarning',
        'UserWarning')  # the last where CuPy is, which has no cuDNN
    assert done == 'done'


def test_after_many_failed_imports():
    assert run(FAIL_FIRST, FAIL_FIRST, 'import shared_linear', USE)[-1] == (
        'done')


@pytest.mark.more
@pytest.mark.skipif(
    not CHAINER_IMPORTS_ALONE,
    reason='needs NumPy 1 and Python 3.11, where Chainer imports by itself')
def test_after_chainer():
    assert run('import chainer', USE, MORE, warnings='ignore') == ['done']


# What breaks without mends, in modules that USE does not name.
MORE = """
import chainer.distributions as D
import chainer.functions as F
F.pad_sequence([x.astype('B')[0], x.astype('B')[0, :3]], padding=-1)
D.Categorical(p=x / 12).log_prob(numpy.array([0, 3], 'i'))
class Filled(list):
    def __call__(self, array):
        self.append(array.shape)
        array[...] = 1
L.Maxout(3, 2, 4, initialW=Filled())
texts = chainer.datasets.TextDataset(chainer.__file__)
texts[0]
del texts
from chainer import gradient_check
assert 'CPU' in chainer.Variable(x).debug_print()
"""


def test_after_a_chainer_that_was_mended_by_other_means():
    """A user's own shim came first, and Chainer is whole: it is mended."""
    own = """
    import sys, types
    import numpy
    check = types.ModuleType('chainer._environment_check')
    check.check = lambda: None
    sys.modules[check.__name__] = check
    if not hasattr(numpy, 'sctypes'):
        numpy.sctypes = {'int': [numpy.int32, numpy.int64],
                         'float': [numpy.float32, numpy.float64]}
    numpy.float = float
    import chainer
    before = chainer.Link
    import shared_linear
    assert chainer.Link is before is sys.modules['chainer'].Link
    assert sys.modules['chainer._environment_check'] is check
    """
    assert run(own, USE, MORE) == ['done']


def test_without_the_modules_that_are_gone():
    """Newer setuptools and Python have neither."""
    gone = """
    import sys
    for name in ('pkg_resources', 'setuptools', 'distutils',
                 'numpy.distutils'):
        sys.modules[name] = None
    """
    assert run(gone, 'import shared_linear', USE, """
    from chainer import gradient_check, testing
    """) == ['done']


def test_names_of_all_are_there():
    assert run("""
    import shared_linear
    for name in shared_linear.__all__:
        assert getattr(shared_linear, name) is not None
    from shared_linear import *
    print(SharedLinear.__name__)
    """) == ['SharedLinear']


def test_it_does_not_import_what_tests_need():
    assert run("""
    import sys
    import shared_linear
    print([m for m in ('pkg_resources', 'matplotlib', 'pytest')
           if m in sys.modules])
    """) == ['[]']


def test_numpy_stays_as_it_is():
    """Everybody else in the process sees it too."""
    assert run("""
    import collections, threading
    import numpy
    before = [set(vars(m)) for m in (numpy, collections, threading)]
    """, """
    import shared_linear
    after = [set(vars(m)) for m in (numpy, collections, threading)]
    # Parts of NumPy that somebody imported are attributes of it.
    import sys
    gained = {name for name in after[0] - before[0]
              if 'numpy.' + name not in sys.modules}
    print(sorted(gained), after[1:] == before[1:])
    """) == ['[]', 'True']


def test_nothing_stands_in_for_what_is_gone():
    assert run("""
    import importlib.util, sys
    gone = ('pkg_resources', 'imp', 'distutils', 'onnx.mapping')
    before = [name in sys.modules for name in gone]
    import shared_linear
    from chainer import gradient_check, testing
    import onnx_chainer
    print(before == [name in sys.modules for name in gone])
    """) == ['True']


IMPORT_FAILS = """
import sys
CASE
try:
    import shared_linear
except ImportError as e:
    print(str(e).replace(' ', '_'))
"""


@pytest.mark.parametrize('case, message', [
    ("sys.modules['chainer'] = None", 'which_is_not_installed'),
    ("sys.modules['chainer'] = type(sys)('chainer')",
     'Start_Python_afresh,_and_import_shared_linear_before_chainer'),
    ("sys.path.insert(0, 'other')", 'Chainer_6.7.0_is_installed'),
    ("sys.path.insert(0, 'broken')", 'ValueError:_of_its_own')])
def test_an_import_that_fails_says_what_to_do(
        case, message, tmp_path, monkeypatch):
    for folder, version in [('other', '6.7.0'), ('broken', '7.8.1')]:
        package = tmp_path / folder / 'chainer'
        package.mkdir(parents=True)
        (package / '__init__.py').write_text('raise ValueError("of its own")')
        info = tmp_path / folder / 'chainer-{}.dist-info'.format(version)
        info.mkdir()
        (info / 'METADATA').write_text(
            'Metadata-Version: 2.1\nName: chainer\nVersion: {}\n'.format(
                version))
    monkeypatch.chdir(tmp_path)
    assert message in run(IMPORT_FAILS.replace('CASE', case))[0]


CUPY_14 = """
import sys
from unittest import mock

cupy = mock.MagicMock(__version__='14.2.0')
cupy.ndarray = cupy.cuda.Device = cupy.cuda.Event = type('Fake', (), {})
cupy._util.PerformanceWarning = type('PerformanceWarning', (Warning,), {})
cupy.memoize = lambda *args, **kwargs: lambda function: function
sys.modules.update({
    'cupy': cupy, 'cupy.cuda': cupy.cuda, 'cupy._util': cupy._util,
    'cupyx': cupy, 'cupyx.scipy': cupy, 'cupyx.scipy.linalg': cupy,
    'cupyx.scipy.special': cupy,
    # What CuPy 14 has no more.
    'cupy.cudnn': None, 'cupy.cuda.cudnn': None})
"""


def test_missing_cudnn_is_no_news():
    """Chainer warns while it is imported, and warnings are errors here."""
    assert run(CUPY_14, """
    import shared_linear
    from chainer.backends import cuda
    assert cuda.available and not cuda.cudnn_enabled
    cuda.check_cuda_available()
    print('silent')
    """) == ['silent']


def test_missing_nccl_is_no_news():
    """Chainer asks CuPy for it while it is imported."""
    assert run(CUPY_14, """
    import warnings

    def warn(self):
        asked.append('nccl')
        warnings.warn('\\nnccl library could not be loaded.\\n\\nReason: ...')
        raise ImportError('nccl')

    asked = []
    type(cupy.cuda).nccl = property(warn)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        import shared_linear
        from chainer.training.updaters import multiprocess_parallel_updater
    assert not [w for w in caught if 'nccl' in str(w.message)], caught
    assert not multiprocess_parallel_updater._available
    print(*asked)
    """) == ['nccl']


def test_other_warnings_are_left_as_they_are():
    assert run("""
    import warnings
    import shared_linear
    try:
        warnings.warn('another', UserWarning)
    except UserWarning:
        print('raised')
    """) == ['raised']


WORKERS = """
import multiprocessing
import shared_linear as sl
import chainer
import numpy


class Squares(chainer.dataset.DatasetMixin):

    def __len__(self):
        return 8

    def get_example(self, i):
        layer = sl.SharedLinear(4, 2, initialW=i, n_tiles=2)
        return layer(numpy.ones((1, 4), 'f')).array[0]


if __name__ == '__main__':
    multiprocessing.set_start_method('METHOD')
    iterator = chainer.iterators.MultiprocessIterator(
        Squares(), 4, repeat=False, shuffle=False, n_processes=2,
        shared_mem=1000)
    rows = numpy.concatenate([numpy.stack(batch) for batch in iterator])
    iterator.finalize()
    assert (rows == 4 * numpy.arange(8)[:, None]).all(), rows
    print('done')
"""


@pytest.mark.parametrize('method', ['spawn', 'forkserver'])
def test_data_loading_workers(method, tmp_path):
    if sys.platform == 'win32' and method == 'forkserver':
        pytest.skip('Windows has no forkserver')
    script = tmp_path / 'main.py'
    script.write_text(WORKERS.replace('METHOD', method))
    assert python(str(script)) == ['done']
