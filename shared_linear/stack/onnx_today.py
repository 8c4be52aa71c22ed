"""What today's onnx took from onnx_chainer, the exporter of Chainer."""
from __future__ import annotations

from typing import Any

import numpy

from shared_linear.stack.mending import Source, mends


@mends('onnx_chainer.export', 'onnx_chainer.functions.array',
       'onnx_chainer.functions.math')
def look_up_types_of_onnx_without_mapping(source: Source) -> None:
    """``onnx.mapping`` is gone, and warned before it went.

    ``onnx_chainer.export`` says without this that onnx is not installed.
    """
    source.replace(
        'from onnx.mapping import NP_TYPE_TO_TENSOR_TYPE\n',
        'from shared_linear.stack.onnx_today import '
        'NP_TYPE_TO_TENSOR_TYPE\n')


@mends('onnx_chainer.context')
def keep_constants_as_bytes(source: Source) -> None:
    """``onnx.mapping`` said which field of a constant is easier to read.

    Without this every model with a constant raises an AttributeError.
    """
    source.replace(
        'onnx.mapping.STORAGE_TENSOR_TYPE_TO_FIELD.get(', '{}.get(')


@mends('onnx_chainer.export')
def write_a_version_that_runtimes_read(source: Source) -> None:
    """``onnx.IR_VERSION``, the newest, is more than onnxruntime reads.

    The oldest that the operators are made for will do.
    """
    source.replace(
        'model.ir_version = onnx.IR_VERSION\n',
        'model.ir_version = max(3, '
        'helper.find_min_ir_version_for(model.opset_import))\n')


@mends('onnx_chainer.export')
def advise_an_onnx_that_can_be_installed(source: Source) -> None:
    """No Python of today has the ``onnx<1.7.0`` that the error asks for."""
    source.replace(r"'\t$ pip install \'onnx<1.7.0\'\n\n'",
                   r"'\t$ pip install onnx\n\n'")


def __getattr__(name: str) -> Any:
    """The table that ``onnx.mapping`` held, made when it is asked for."""
    if name != 'NP_TYPE_TO_TENSOR_TYPE':
        raise AttributeError(name)
    from onnx import helper
    return {numpy.dtype(kind): helper.np_dtype_to_tensor_dtype(
        numpy.dtype(kind)) for kind in '?bBhHiIqQefdFDO'}
