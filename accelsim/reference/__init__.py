"""The independent reference: ONNX Runtime runs, and the comparison of float, simulated and actual quantization."""

from accelsim.reference.report import ComparisonReport, LayerComparison
from accelsim.reference.runner import OnnxRunner
from accelsim.reference.side_by_side import compare

__all__ = ["ComparisonReport", "LayerComparison", "OnnxRunner", "compare"]
