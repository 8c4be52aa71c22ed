"""Each of Chainer's functions is equal in ONNX, or refused: the table."""
import inspect
import re
import sys
import warnings
from pathlib import Path

import numpy
import pytest

import shared_linear as sl

import chainer  # isort: skip
import chainer.functions as F  # isort: skip
import chainer.links as L  # isort: skip

from onnx_cases import expressions, integers, numbers  # isort: skip

REASON = 'needs the extra "onnx"'
onnx = pytest.importorskip('onnx', reason=REASON)
onnxruntime = pytest.importorskip('onnxruntime', reason=REASON)

PAGE = Path(__file__).parents[2] / 'docs' / 'onnx_functions.md'
HEAD = """\
# Functions in ONNX

What {func}`shared_linear.onnx.export` writes, function by function and
argument by argument. A test makes this table: each expression is exported,
run in onnxruntime on numbers that the export has not seen, and compared with
Chainer. There is no third outcome beside *equal* and *refused*: what is
refused raises an `ExportError` that names the function.

`p(...)` are numbers of a shape and `i(n, m)` n integers below m. The opset is
the oldest in which the expression is equal.

| expression | x | in ONNX | from opset |
| --- | --- | --- | --- |
"""
OPSETS = range(7, 18)
# Those in which operators changed, and the newest.
NEWER = [18, 21, onnx.defs.onnx_opset_version()]


class Model(chainer.Chain):

    """Computes an expression of x, with the links that it makes once."""

    def __init__(self, expression):
        super().__init__()
        self._expression = expression
        self._number = 0

    def _link(self, kind, *args, **kwargs):
        name = 'link_{}'.format(self._number)
        self._number += 1
        if not hasattr(self, name):
            made = kind(*args, **kwargs)
            for param in made.params():
                if param.array is not None:
                    param.array[...] = .5 * numbers(*param.shape)
            with self.init_scope():
                setattr(self, name, made)
        return getattr(self, name)

    def _rnn(self, kind, n_layers):
        return self._link(getattr(L, kind), n_layers, 3, 5, .5)

    def forward(self, x):
        self._number = 0
        made = eval(self._expression, {
            'F': F, 'L': L, 'sl': sl, 'numpy': numpy, 'p': numbers,
            'i': integers, 'x': chainer.as_variable(x), 'link': self._link,
            'rnn': self._rnn})
        return flat(made)


def flat(values):
    if isinstance(values, (tuple, list)):
        return [v for value in values for v in flat(value)]
    return [values] if isinstance(values, chainer.Variable) else []


def run_chainer(model, x):
    # The links that hold a state begin anew.
    for link in model.links():
        if hasattr(link, 'reset_state'):
            link.reset_state()
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        outputs = [y.array for y in model(x)]
    for link in model.links():
        if hasattr(link, 'reset_state'):
            link.reset_state()
    return outputs


def outcome(expression, shape, path, opset):
    """None if the file computes the same, or why there is none."""
    random = numpy.random.RandomState(0)
    x, other = random.uniform(-2, 2, (2, *shape)).astype(numpy.float32)
    model = Model(expression)
    with chainer.using_config('train', False):
        run_chainer(model, x)
    with warnings.catch_warnings():
        # Many of these are written for one batch size.
        warnings.filterwarnings('ignore', 'the batch size in the file')
        try:
            sl.onnx.export(model, x, path, opset_version=opset)
        except sl.onnx.ExportError as e:
            return str(e)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        path.read_bytes(), options, providers=['CPUExecutionProvider'])
    outputs = session.run(None, {'x': other})
    expected = run_chainer(model, other)
    assert len(outputs) == len(expected)
    for y, z in zip(outputs, expected, strict=True):
        assert (y.shape, y.dtype) == (z.shape, z.dtype), expression
        if z.dtype.kind == 'f':
            scale = abs(z[numpy.isfinite(z)]).max(initial=1e-3)
            numpy.testing.assert_allclose(
                y.astype(float), z.astype(float), rtol=0,
                atol=(2e-3 if z.dtype == 'e' else 1e-5) * scale,
                err_msg=expression)
        else:
            assert (y == z).all(), expression
    return None


def reason_in_short(message):
    """What the table says: without the names of modules."""
    if 'there is no ONNX converter' in message:
        return 'refused: no converter'
    if 'something else than the model' in message:
        return 'refused: the runtime gives other numbers'
    found = re.search(r'has no form in ONNX opset \d+: (.*)', message)
    if found:
        return 'refused: ' + found[1].partition(';')[0]
    return 'refused: ' + message.partition(':')[0]


def first_opset(expression, shape, path):
    for opset in OPSETS:
        if outcome(expression, shape, path, opset) is None:
            return opset
    raise AssertionError(expression)


def lines_of_the_table():
    return dict(re.findall(
        r'^\| `(.*)` \| (?:[\d x]+) \| (.*) \| \d* \|$',
        PAGE.read_text(encoding='utf-8'), re.MULTILINE))


@pytest.mark.slow
def test_the_table(tmp_path):
    path = tmp_path / 'model.onnx'
    lines = []
    for shape, expression in expressions():
        why = outcome(expression, shape, path, 17)
        result = ('equal', str(first_opset(expression, shape, path))
                  ) if why is None else (reason_in_short(why), '')
        lines.append('| `{}` | {} | {} | {} |\n'.format(
            expression, ' x '.join(map(str, shape)), *result))
    made = HEAD + ''.join(lines)
    if not PAGE.exists():
        PAGE.write_text(made, encoding='utf-8')
    assert PAGE.read_text(encoding='utf-8') == made, (
        'remove {} and run this test again'.format(PAGE.name))


@pytest.mark.slow
@pytest.mark.parametrize('opset', NEWER)
def test_newer_opsets(tmp_path, opset):
    """What is equal at the default is equal in their forms too."""
    table = lines_of_the_table()
    for shape, expression in expressions():
        if table[expression] == 'equal':
            why = outcome(expression, shape, tmp_path / 'model.onnx', opset)
            # The newest have operators that no runtime has yet.
            assert why is None or 'nothing runs it' in why, expression


@pytest.mark.slow
def test_by_onnx_alone(tmp_path, monkeypatch):
    """Where there is no onnxruntime, its reference says the same."""
    table = lines_of_the_table()
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    for shape, expression in expressions():
        if table[expression] == 'equal':
            why = outcome(expression, shape, tmp_path / 'model.onnx', 17)
            assert why is None or 'nothing runs it' in why, expression


@pytest.mark.parametrize('part', range(6))
def test_a_part_of_the_table(tmp_path, part):
    """A sixth of every ninth line, at an opset that changes."""
    table = lines_of_the_table()
    for n, (shape, expression) in enumerate(expressions()[part::54]):
        opset = (17, 13, 18, 21, 11, 17)[(n + part) % 6]
        why = outcome(expression, shape, tmp_path / 'model.onnx', opset)
        assert why is None or table[expression] != 'equal' or (
            ' begins with opset ' in why), expression


def test_every_function_is_in_the_table():
    """By its name in chainer.functions."""
    names = {
        name for name in dir(F) if inspect.isfunction(getattr(F, name))}
    shown = set(re.findall(r'F\.(\w+)\(', ' '.join(
        expression for _, expression in expressions())))
    assert names - shown - LEFT_OUT == set()
    assert LEFT_OUT & shown == set()


LEFT_OUT = {
    # Through the links of these names.
    'n_step_bigru', 'n_step_bilstm', 'n_step_birnn', 'n_step_gru',
    'n_step_lstm', 'n_step_rnn',
    # Of training alone, or measures of it; they have no converters.
    'argmax_crf1d', 'batch_renormalization', 'binary_accuracy', 'black_out',
    'classification_summary', 'connectionist_temporal_classification',
    'contrastive', 'crf1d', 'cross_covariance',
    'decorrelated_batch_normalization', 'decov',
    'discriminative_margin_based_clustering_loss', 'f1_score', 'forget',
    'negative_sampling', 'precision', 'r2_score', 'recall', 'triplet',
    # Deprecated, or of what is no array of numbers, or of SciPy's floats.
    'batch_matmul', 'fixed_batch_renormalization',
    'fixed_decorrelated_batch_normalization', 'ifft', 'sparse_matmul',
    'zeta',
}
