"""Edits a network that is already built, without touching its source.

A function or link that runs in a model has an address, such as
``/l1/LinearFunction``, ``/ReLU_1`` or ``/l1``; :func:`trace` lists them.
Edits are bound to addresses, and act whenever the model runs.
"""
from shared_linear.surgery.addresses import EditError
from shared_linear.surgery.batch_norm import fold_batch_normalization
from shared_linear.surgery.editing import (
    edits,
    insert_after,
    insert_before,
    remove,
    replace,
    revert,
    rewire,
)
from shared_linear.surgery.fake_quantize import FakeQuantize
from shared_linear.surgery.foldable import register_foldable
from shared_linear.surgery.graph import Graph
from shared_linear.surgery.nodes import Node, Value
from shared_linear.surgery.quantization import calibrate, quantize
from shared_linear.surgery.trace import trace

__all__ = [
    'EditError', 'FakeQuantize', 'Graph', 'Node', 'Value', 'calibrate',
    'edits', 'fold_batch_normalization', 'insert_after', 'insert_before',
    'quantize', 'register_foldable', 'remove', 'replace', 'revert', 'rewire',
    'trace',
]
