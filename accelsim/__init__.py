"""accelsim: a bit-exact, cycle-level simulator of fixed-point neural-network accelerators.

The public names are loaded when they are first used, so that ``import accelsim`` loads neither numba nor onnx.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accelsim.errors import (
        AccelsimError,
        AccumulatorOverflowError,
        CalibrationError,
        DataError,
        FormatError,
        LoweringError,
        MachineError,
        ModelError,
        OperandError,
    )
    from accelsim.explore import SweepResult, WidthReport, accumulator_widths, sweep
    from accelsim.formats import IntegerFormat, QuantizationParameters
    from accelsim.graph.graph import Graph
    from accelsim.graph.quantized import QuantizedGraph
    from accelsim.graph.reader import load_onnx
    from accelsim.machine import Machine, Memory, Requantizer
    from accelsim.program.lowering import lower
    from accelsim.program.onnx.reader import load_integer_onnx
    from accelsim.program.program import IntegerProgram
    from accelsim.program.tflite.loading import load_tflite
    from accelsim.ptq.config import PTQConfig
    from accelsim.ptq.diagnosis import Diagnosis, diagnose
    from accelsim.ptq.pipeline import quantize
    from accelsim.reference import ComparisonReport, compare
    from accelsim.report.html import HtmlReport, html_report
    from accelsim.report.vectors import Requantization, write_vectors
    from accelsim.simulator.conv2d import conv2d
    from accelsim.simulator.counts import OperationCount
    from accelsim.simulator.energy import EnergyTable
    from accelsim.simulator.gemm import matmul
    from accelsim.simulator.gemm_result import GemmResult
    from accelsim.simulator.requantization import requantize
    from accelsim.simulator.results import SimulationResult
    from accelsim.simulator.run import simulate
    from accelsim.simulator.timing import CycleCount, gemm_cycles

__version__ = "0.1.0"

_HOMES = {
    "AccelsimError": "errors",
    "AccumulatorOverflowError": "errors",
    "CalibrationError": "errors",
    "ComparisonReport": "reference",
    "CycleCount": "simulator.timing",
    "DataError": "errors",
    "Diagnosis": "ptq.diagnosis",
    "EnergyTable": "simulator.energy",
    "FormatError": "errors",
    "GemmResult": "simulator.gemm_result",
    "Graph": "graph.graph",
    "HtmlReport": "report.html",
    "IntegerFormat": "formats",
    "IntegerProgram": "program.program",
    "LoweringError": "errors",
    "Machine": "machine",
    "MachineError": "errors",
    "Memory": "machine",
    "ModelError": "errors",
    "OperandError": "errors",
    "OperationCount": "simulator.counts",
    "PTQConfig": "ptq.config",
    "QuantizationParameters": "formats",
    "QuantizedGraph": "graph.quantized",
    "Requantization": "report.vectors",
    "Requantizer": "machine",
    "SimulationResult": "simulator.results",
    "SweepResult": "explore",
    "WidthReport": "explore",
    "accumulator_widths": "explore",
    "compare": "reference",
    "conv2d": "simulator.conv2d",
    "gemm_cycles": "simulator.timing",
    "diagnose": "ptq.diagnosis",
    "html_report": "report.html",
    "load_integer_onnx": "program.onnx.reader",
    "load_onnx": "graph.reader",
    "load_tflite": "program.tflite.loading",
    "lower": "program.lowering",
    "matmul": "simulator.gemm",
    "quantize": "ptq.pipeline",
    "requantize": "simulator.requantization",
    "simulate": "simulator.run",
    "sweep": "explore",
    "write_vectors": "report.vectors",
}

__all__ = [
    "AccelsimError",
    "AccumulatorOverflowError",
    "CalibrationError",
    "ComparisonReport",
    "CycleCount",
    "DataError",
    "Diagnosis",
    "EnergyTable",
    "FormatError",
    "GemmResult",
    "Graph",
    "HtmlReport",
    "IntegerFormat",
    "IntegerProgram",
    "LoweringError",
    "Machine",
    "MachineError",
    "Memory",
    "ModelError",
    "OperandError",
    "OperationCount",
    "PTQConfig",
    "QuantizationParameters",
    "QuantizedGraph",
    "Requantization",
    "Requantizer",
    "SimulationResult",
    "SweepResult",
    "WidthReport",
    "__version__",
    "accumulator_widths",
    "compare",
    "conv2d",
    "diagnose",
    "gemm_cycles",
    "html_report",
    "load_integer_onnx",
    "load_onnx",
    "load_tflite",
    "lower",
    "matmul",
    "quantize",
    "requantize",
    "simulate",
    "sweep",
    "write_vectors",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'accelsim' has no attribute {name!r}")
    value = getattr(import_module(f"accelsim.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
