"""Names that Chainer's doctests use too: np, L, F, chainer; and sl."""
import numpy
import pytest

import shared_linear

import chainer  # isort: skip
import chainer.functions  # isort: skip
import chainer.links  # isort: skip


@pytest.fixture(autouse=True)
def _names_for_doctests(doctest_namespace):
    doctest_namespace.update(
        np=numpy, sl=shared_linear, chainer=chainer,
        F=chainer.functions, L=chainer.links)


@pytest.fixture(autouse=True)
def _onnx_for_its_doctests(request):
    if request.node.name.startswith('shared_linear.onnx.'):
        pytest.importorskip('onnx', reason='needs the extra "onnx"')
