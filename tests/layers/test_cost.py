"""What makes the layer fast: few passes, few bytes, one node in the graph.

tracemalloc counts the bytes of NumPy's arrays exactly; clocks do not.
"""
import contextlib
import gc
import tracemalloc

import chainer
import chainer.functions as F
import numpy
import pytest

import shared_linear as sl
from shared_linear.layers import bilinear, function, tiling

BATCH, IN, OUT, N = 256, 1024, 512, 8
WIDTH = IN // N
# Bytes of float32 arrays.
X, Y, W = 4 * BATCH * IN, 4 * BATCH * OUT, 4 * OUT * WIDTH
FOLDED, B = 4 * BATCH * WIDTH, 4 * OUT
# Nodes, tuples, and the buffer of 8192 elements that NumPy adds a bias with.
SLACK = 48_000


class Memory:
    """Bytes at the peak and in the end, above those in the beginning."""

    peak = kept = None


@contextlib.contextmanager
def memory():
    m = Memory()
    gc.collect()
    tracemalloc.start()
    try:
        start, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        yield m
        now, peak = tracemalloc.get_traced_memory()
        m.kept, m.peak = now - start, peak - start
    finally:
        tracemalloc.stop()


def draw(*shape, dtype='f'):
    return numpy.random.randn(*shape).astype(dtype)


def inputs(batch=BATCH, dtype='f', bias=True):
    arrays = draw(batch, IN, dtype=dtype), draw(OUT, WIDTH, dtype=dtype)
    if bias:
        arrays += draw(OUT, dtype=dtype),
    sl.shared_linear(*arrays)  # what is made once is made now
    return [chainer.Variable(a) for a in arrays]


@pytest.fixture
def folds(monkeypatch):
    """A list of the shapes that were folded."""
    shapes = []
    fold_array = tiling.fold_array

    def counted(x, *args, **kwargs):
        shapes.append(x.shape)
        return fold_array(x, *args, **kwargs)

    monkeypatch.setattr(tiling, 'fold_array', counted)
    return shapes


def test_the_meter_sees_what_tiling_costs():
    args = inputs()
    with memory() as m:
        sl.shared_linear(*args, method='tile')
    assert m.peak >= N * W + Y


@pytest.mark.parametrize('bias', [True, False])
def test_forward_allocates_the_folded_input_and_the_result(bias):
    """No copy of x or W, and the bias is added in place."""
    args = inputs(bias=bias)
    with memory() as m:
        y = sl.shared_linear(*args)
    assert m.peak <= FOLDED + Y + SLACK
    assert y.array.nbytes == Y


def test_forward_with_one_tile_allocates_the_result_alone():
    x, b = draw(BATCH, IN), draw(OUT)
    weight = draw(OUT, IN)
    with memory() as m:
        y = sl.shared_linear(x, weight, b)
    assert m.peak <= Y + SLACK
    assert y.array.nbytes == Y


@pytest.mark.parametrize('order', ['C', 'F', 'reversed', 'broadcast'])
def test_no_memory_order_is_copied_first(order):
    x = draw(BATCH, IN)
    x = {'C': x, 'F': numpy.asfortranarray(x), 'reversed': x[::-1, ::-1],
         'broadcast': numpy.broadcast_to(x[:1], x.shape)}[order]
    with memory() as m:
        sl.fold(x, N)
    assert m.peak <= FOLDED + SLACK


@pytest.mark.parametrize('dtype, wider', [('e', 'f'), ('f', 'd')])
def test_no_copy_of_x_in_a_wider_dtype(dtype, wider):
    x, dtype = draw(BATCH, IN, dtype=dtype), numpy.dtype(wider)
    with memory() as m:
        tiling.fold_array(x, N, dtype)
    assert m.peak < BATCH * IN * dtype.itemsize / 2


def test_backward_allocates_the_gradients_alone():
    """gx is tiled from gy W, and x is folded for gW."""
    args = inputs()
    y = sl.shared_linear(*args)
    y.grad = draw(BATCH, OUT)
    with memory() as m:
        y.backward()
    gradients = X + W + B
    assert gradients <= m.kept <= gradients + SLACK
    assert m.peak <= gradients + FOLDED + SLACK


def test_no_work_for_the_gradient_of_a_first_layers_input(folds):
    x, W_, b = inputs()
    x = chainer.Variable(x.array, requires_grad=False)
    y = sl.shared_linear(x, W_, b)
    y.grad = draw(BATCH, OUT)
    functions = []

    class Names(chainer.FunctionHook):

        name = 'Names'

        def forward_postprocess(self, node, in_data):
            functions.append(type(node))

    with Names(), memory() as m:
        y.backward()
    assert m.peak <= W + B + FOLDED + SLACK
    assert bilinear.GradData not in functions
    assert bilinear.GradWeight in functions
    assert x.grad is None


def test_no_work_for_the_gradient_of_a_weight_that_asks_for_none():
    x, W_, _ = inputs()
    W_ = chainer.Variable(W_.array, requires_grad=False)
    y = sl.shared_linear(x, W_)
    y.grad = draw(BATCH, OUT)
    with memory() as m:
        y.backward()
    assert m.peak <= X + FOLDED + SLACK
    assert W_.grad is None


@pytest.mark.parametrize('batch', [1, BATCH, 16 * BATCH])
def test_forward_keeps_the_result_alone(batch):
    """A training step never holds more than with a dense layer."""
    args = inputs(batch)
    with memory() as m:
        y = sl.shared_linear(*args)
    assert m.kept <= y.array.nbytes + SLACK


def test_x_is_read_once_by_forward_and_once_by_backward(folds):
    y = sl.shared_linear(*inputs())
    del folds[:-1]  # that of inputs()
    assert folds == [(BATCH, IN)]
    y.grad = draw(BATCH, OUT)
    y.backward()
    assert folds == 2 * [(BATCH, IN)]


def test_with_one_tile_nothing_is_kept_beside_x():
    args = [chainer.Variable(a) for a in (draw(BATCH, IN), draw(OUT, IN))]
    with memory() as m:
        y = sl.shared_linear(*args)
    assert m.kept <= y.array.nbytes + SLACK


def test_nothing_is_kept_in_no_backprop_mode():
    args = inputs()
    with chainer.no_backprop_mode(), memory() as m:
        y = sl.shared_linear(*args)
    assert m.kept <= Y + SLACK
    assert y.creator is None


def test_a_dropped_graph_frees_all():
    link = sl.SharedLinear(IN, OUT, n_tiles=N)
    x = draw(BATCH, IN)
    link.cleargrads()
    F.sum(link(x)).backward()
    link.cleargrads()
    with memory() as m:
        F.sum(link(x)).backward()
        link.cleargrads()
    assert m.kept <= SLACK


def nodes(variable):
    """The functions of a graph, the last first."""
    found, stack = [], [variable.creator_node]
    while stack:
        node = stack.pop()
        if node is not None and node not in found:
            found.append(node)
            stack += [v.creator_node for v in node.inputs]
    return [type(n).__name__ for n in found]


@pytest.mark.parametrize('method', function.METHODS)
def test_the_layer_is_one_node(method):
    args = inputs()
    y = sl.shared_linear(*args, method=method)
    assert nodes(y) == ['SharedLinearFunction']
    with chainer.using_config('enable_backprop', True):
        gx, gW, gb = chainer.grad([y], args, enable_double_backprop=True)
    assert gx.creator_node.__class__ is bilinear.GradData
    assert gW.creator_node.__class__ is bilinear.GradWeight
    assert gb.creator_node.__class__ is bilinear.GradBias


def test_many_axes_add_one_reshape_before_and_one_behind():
    x = chainer.Variable(draw(2, 3, IN))
    weight = chainer.Variable(draw(OUT, WIDTH))
    y = sl.shared_linear(x, weight, n_batch_axes=2)
    assert nodes(y) == ['Reshape', 'SharedLinearFunction', 'Reshape']
    image = chainer.Variable(draw(2, 4, IN // 4))
    assert nodes(sl.shared_linear(image, weight)) == [
        'SharedLinearFunction', 'Reshape']


@pytest.mark.parametrize('n_tiles', [1, 4])
def test_operations_are_n_times_fewer(n_tiles, monkeypatch):
    """The products that are left have W's own shape."""
    products = []
    dot = function.dot

    def counted(a, b):
        products.append(a.shape[0] * a.shape[1] * b.shape[1])
        return dot(a, b)

    monkeypatch.setattr(function, 'dot', counted)
    link = sl.SharedLinear(24, 5, n_tiles=n_tiles)
    y = link(chainer.Variable(draw(7, 24)))
    F.sum(y).backward()
    assert products == 3 * [7 * 24 * 5 // n_tiles]
