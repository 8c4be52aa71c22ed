import re
import shutil
import subprocess

import chainer
import chainer.functions as F
import numpy as np
import pytest
from networks import MLP, Article, Skips, vectors

from shared_linear import surgery


def nodes(dot):
    return dict(re.findall(r'^  (\w+) \[.*?label="(.*?)"', dot, re.M))


def arrows(dot):
    """Labels of the ends of every arrow, with the shape on it."""
    names = nodes(dot)
    return {(names[a], names[b], shape) for a, b, shape in re.findall(
        r'(\w+) -> (\w+) \[label="(.*?)"', dot)}


def test_before_and_after():
    model = Article()
    x = chainer.Variable(np.zeros(1, np.float32))
    before = surgery.trace(model, x).to_dot()
    assert arrows(before) == {
        ('input', '/AddConstant', '(1,)'),
        ('/AddConstant', '/MulConstant', '(1,)'),
        ('/MulConstant', 'output', '(1,)')}
    assert 'filled' not in before
    surgery.insert_after(model, '/AddConstant', F.square)
    after = surgery.trace(model, x).to_dot()
    assert arrows(after) == {
        ('input', '/AddConstant', '(1,)'),
        ('/AddConstant', '/square/Square', '(1,)'),
        ('/square/Square', '/MulConstant', '(1,)'),
        ('/MulConstant', 'output', '(1,)')}
    assert [line for line in after.splitlines() if 'filled' in line] == [
        line for line in after.splitlines() if '"/square/Square"' in line]
    assert surgery.trace(model, x).to_dot() == after


def test_fan_out_and_parameters():
    dot = surgery.trace(Skips(), vectors()).to_dot()
    assert {('/ReLU', '/b/LinearFunction', '(4, 6)'),
            ('/ReLU', '/Add', '(4, 6)'), ('/ReLU', '/Concat', '(4, 6)'),
            ('/b/W', '/b/LinearFunction', '(6, 6)')} <= arrows(dot)


def test_what_was_taken_out_is_dashed():
    model = MLP()
    surgery.remove(model, '/Dropout', x=vectors())
    dot = surgery.trace(model, vectors()).to_dot()
    dashed = [line for line in dot.splitlines() if 'style=dashed' in line]
    assert any('remove /Dropout' in line for line in dashed)
    assert ('/ReLU', '/l2/LinearFunction', '(4, 5)') in arrows(dot)


def test_rewired_inputs_are_marked():
    model = Skips()
    surgery.rewire(model, '/Concat', input=0, source='/a', x=vectors())
    dot = surgery.trace(model, vectors()).to_dot()
    marked = [line for line in dot.splitlines() if 'style=bold' in line]
    assert len(marked) == 1
    names = nodes(dot)
    a, b = re.search(r'(\w+) -> (\w+)', marked[0]).groups()
    assert (names[a], names[b]) == ('/a/LinearFunction', '/Concat')


@pytest.mark.more
@pytest.mark.skipif(shutil.which('dot') is None, reason='needs Graphviz')
def test_graphviz_reads_it():
    model = MLP()
    surgery.remove(model, '/Dropout', x=vectors())
    dot = surgery.trace(model, vectors()).to_dot()
    svg = subprocess.run(
        ['dot', '-Tsvg'], input=dot, capture_output=True, text=True,
        check=True).stdout
    assert '/l1/LinearFunction' in svg
