"""Writes a model that contains the layers as ONNX, in standard operators."""
from shared_linear.onnx.compat import ExportError
from shared_linear.onnx.exporter import export

__all__ = ['ExportError', 'export']
