"""Nodes of y = f(x, W) + b, with f linear in each of x and W.

Such an f has three products, of which each gives the gradients of the others:

    <f(x, W), gy> = <x, f_x(W, gy)> = <W, f_W(x, gy)>.

Three nodes are made of them, so every further derivative is of their kind.
"""
from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any

import chainer
import chainer.functions as F
import chainerx
import numpy
from chainer import function_node, utils
from chainer.functions.math.sum import Sum
from chainer.utils import type_check

from shared_linear.layers import checks, kernels
from shared_linear.layers.products import cast

if TYPE_CHECKING:
    from chainer import Variable
    from chainer.types import NdArray


class Form(abc.ABC):

    """The three products, and how the sizes of x, W and y belong together.

    x is (B, n_tiles * m), W is (M / n_blocks, m), and gy, as y, is (B, M).
    Attributes are the numbers of tiles and of blocks that share W, and the
    permutation of the inputs that comes first, if any.
    """

    n_tiles: int
    n_blocks: int = 1
    order: NdArray | None = None

    @abc.abstractmethod
    def product(self, x: NdArray, W: NdArray) -> tuple[NdArray, Any]:
        """f(x, W), unrounded, and what :meth:`grad_weight` may reuse."""

    @abc.abstractmethod
    def grad_data(self, W: NdArray, gy: NdArray, dtype: Any) -> NdArray:
        """f_x(W, gy), as ``dtype``."""

    @abc.abstractmethod
    def grad_weight(
            self, x: NdArray, gy: NdArray, dtype: Any,
            kept: Any = None) -> NdArray:
        """f_W(x, gy), as ``dtype``."""


class BilinearFunction(function_node.FunctionNode):

    """y = f(x, W) + b, of x, W and, if there is a bias, b."""

    form: Form
    _kept: Any = None

    def __init__(self, form: Form) -> None:
        self.form = form

    def _find_form(self, x_shape, W_shape):
        """A node whose form depends on the shapes sets it here."""

    def check_type_forward(self, in_types):
        n_in = in_types.size()
        type_check.expect(2 <= n_in, n_in <= 3)
        x_type, W_type = in_types[:2]
        type_check._argname((x_type, W_type), ('x', 'W'))
        checks.expect_float(x_type, 'x')
        checks.expect_float(W_type, 'W')
        type_check.expect(x_type.ndim == 2, W_type.ndim == 2)
        x_shape = type_check.eval(x_type.shape)
        W_shape = type_check.eval(W_type.shape)
        self._find_form(x_shape, W_shape)
        form = self.form
        if x_shape[1] != form.n_tiles * W_shape[1]:
            raise type_check.InvalidType(
                'x.shape[1] == n_tiles * W.shape[1]',
                'x.shape = {}, W.shape = {}, n_tiles = {}'.format(
                    x_shape, W_shape, form.n_tiles))
        if form.order is not None and form.order.shape[-1] != x_shape[1]:
            raise type_check.InvalidType(
                'x.shape[1] == order.shape[-1]',
                'x.shape = {}, order.shape = {}'.format(
                    x_shape, form.order.shape))
        if type_check.eval(n_in) == 3:
            b_type = in_types[2]
            type_check._argname((b_type,), ('b',))
            type_check.expect(b_type.dtype == x_type.dtype, b_type.ndim == 1)
            b_shape = type_check.eval(b_type.shape)
            if b_shape[0] != form.n_blocks * W_shape[0]:
                raise type_check.InvalidType(
                    'b.shape[0] == n_blocks * W.shape[0]',
                    'b.shape = {}, W.shape = {}, n_blocks = {}'.format(
                        b_shape, W_shape, form.n_blocks))

    def forward(self, inputs):
        inputs = checks.plain(inputs)
        self.retain_inputs((0, 1))  # b is not retained
        x, W = inputs[:2]
        checks.check_one_device('xWb', inputs)
        self._find_form(x.shape, W.shape)
        y, self._kept = self.form.product(x, W)
        if len(inputs) == 3:
            if isinstance(y, numpy.ndarray):
                y += inputs[2]
            else:
                kernels.add_bias(y, inputs[2])
        return cast(y, x.dtype),

    def backward(self, indexes, grad_outputs):
        x, W = self.get_retained_inputs()
        gy, = grad_outputs
        ret = []
        if 0 in indexes:
            ret += _apply(GradData(self.form, x.dtype), (W, gy))
        if 1 in indexes:
            ret += _apply(
                GradWeight(self.form, W.dtype, self._kept), (x, gy))
        if 2 in indexes:
            ret += _apply(GradBias(axis=0), (gy,))
        return ret


def _apply(node, inputs):
    """What a node gives, without the graph if nobody asks for one.

    A graph of gradients takes longer than the products of a small layer.
    """
    config = chainer.config
    if (config.enable_backprop or config.schedule_func is not None
            or chainer.get_function_hooks() or inputs[0].xp is chainerx):
        return node.apply(inputs)
    return [
        chainer.Variable(output, requires_grad=False)
        for output in node.forward(tuple(x.array for x in inputs))]


class GradBias(Sum):

    """gb = the sum of gy over the batch."""

    def forward(self, inputs):
        gy, = inputs
        if isinstance(gy, numpy.ndarray):
            return super().forward(inputs)
        return kernels.sum_rows(gy),


class GradData(function_node.FunctionNode):

    """gx = f_x(W, gy)."""

    def __init__(self, form, dtype):
        self.form = form
        self.dtype = dtype

    def forward(self, inputs):
        inputs = checks.plain(inputs)
        self.retain_inputs((0, 1))
        checks.check_one_device(('W', 'gy'), inputs)
        return self.form.grad_data(*inputs, self.dtype),

    def backward(self, indexes, grad_outputs):
        W, gy = self.get_retained_inputs()
        ggx, = grad_outputs
        ret = []
        if 0 in indexes:
            ret += GradWeight(self.form, W.dtype).apply((ggx, gy))
        if 1 in indexes:
            ret.append(_product(self.form, ggx, W, gy.dtype))
        return ret


class GradWeight(function_node.FunctionNode):

    """gW = f_W(x, gy)."""

    def __init__(self, form, dtype, kept=None):
        self.form = form
        self.dtype = dtype
        self._kept = kept

    def forward(self, inputs):
        inputs = checks.plain(inputs)
        self.retain_inputs((0, 1))
        checks.check_one_device(('x', 'gy'), inputs)
        kept, self._kept = self._kept, None
        return self.form.grad_weight(*inputs, self.dtype, kept),

    def backward(self, indexes, grad_outputs):
        x, gy = self.get_retained_inputs()
        ggW, = grad_outputs
        ret = []
        if 0 in indexes:
            ret += GradData(self.form, x.dtype).apply((ggW, gy))
        if 1 in indexes:
            ret.append(_product(self.form, x, ggW, gy.dtype))
        return ret


def _product(form, x, W, dtype):
    y, = BilinearFunction(form).apply((x, W))
    return F.cast(y, dtype)


def apply_to_rows(
        node: BilinearFunction, x: Variable | NdArray,
        W: Variable | NdArray, b: Variable | NdArray | None,
        n_batch_axes: int) -> Variable:
    """Applies the node to examples as rows."""
    n_batch_axes = checks.check_int(n_batch_axes, 'n_batch_axes')
    if n_batch_axes <= 0:
        raise ValueError(
            'n_batch_axes should be greater than 0, not {}'.format(
                n_batch_axes))
    batch_shape = x.shape[:n_batch_axes]
    if n_batch_axes > 1 or x.ndim > 2:
        # Chainer's own reshape to (batch, -1) fails on an empty batch.
        x = x.reshape(
            utils.size_of_shape(batch_shape),
            utils.size_of_shape(x.shape[n_batch_axes:]))
    args = (x, W) if b is None else (x, W, b)
    y, = node.apply(args)
    if n_batch_axes > 1:
        y = y.reshape(batch_shape + y.shape[1:])
    return y
