"""Other packages of the process do not notice that Chainer is mended.

They are imported and used after this one, and warnings are errors.
"""
import functools
import importlib.util

import pytest
from fresh import run

USES = {
    'sklearn': """
        from sklearn.linear_model import LogisticRegression
        x = numpy.arange(20.).reshape(10, 2)
        t = x[:, 0] > 9
        assert LogisticRegression().fit(x, t).predict(x).tolist() == (
            t.tolist())
    """,
    'pandas': """
        import pandas
        frame = pandas.DataFrame({'a': [1, 1, 2], 'b': [1., 2., 3.]})
        assert frame.groupby('a').b.sum().tolist() == [3, 3]
        assert frame.b.astype('int64').to_numpy().dtype == numpy.int64
    """,
    'torch': """
        import torch
        x = torch.from_numpy(numpy.ones((2, 3), 'f')).requires_grad_()
        (x * 2).sum().backward()
        assert (x.grad.numpy() == 2).all()
    """,
    'onnxruntime': """
        import onnx
        import onnxruntime
        from onnx import helper
        inputs, outputs = ([helper.make_tensor_value_info(
            name, onnx.TensorProto.FLOAT, [2])] for name in 'xy')
        graph = helper.make_graph(
            [helper.make_node('Neg', ['x'], ['y'])], 'g', inputs, outputs)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid('', 13)], ir_version=7)
        y, = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=['CPUExecutionProvider']
        ).run(None, {'x': numpy.ones(2, 'f')})
        assert (y == -1).all()
    """,
}

EACH = """
import textwrap
import traceback
import numpy
import shared_linear
for name, use in USES:
    try:
        exec(textwrap.dedent(use))
        print(name, 'done')
    except Exception as e:
        print(name, traceback.format_exc().replace('\\n', ' / '))
"""


@functools.cache
def results():
    """What came of each package that is installed, in one process."""
    uses = [(name, use) for name, use in USES.items()
            if importlib.util.find_spec(name) is not None]
    done = run('-c', EACH.replace('USES', repr(uses)))
    assert done.returncode == 0, done.stderr
    return dict(line.split(None, 1) for line in done.stdout.splitlines())


@pytest.mark.parametrize('name', [
    pytest.param(
        name, marks=() if importlib.util.find_spec(name) else pytest.mark.more)
    for name in USES])
def test_a_package_beside_this_one(name):
    if importlib.util.find_spec(name) is None:
        pytest.skip('{} is not installed'.format(name))
    assert results()[name] == 'done'
