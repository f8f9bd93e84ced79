"""A model as an ONNX graph that takes raw columns."""

from attfm.serve.onnx.graph import export_onnx, read_card

__all__ = ["export_onnx", "read_card"]
