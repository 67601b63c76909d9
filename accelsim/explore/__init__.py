"""Exploration: how wide the registers must be, and what a choice costs."""

from accelsim.explore.space import Axis, make_axis, parse_axis, read_axes
from accelsim.explore.sweep_result import SweepPoint, SweepResult
from accelsim.explore.sweeps import sweep
from accelsim.explore.width_report import LayerWidths, RegisterWidths, SearchStep, WidthReport
from accelsim.explore.widths import accumulator_widths

__all__ = [
    "Axis",
    "LayerWidths",
    "RegisterWidths",
    "SearchStep",
    "SweepPoint",
    "SweepResult",
    "WidthReport",
    "accumulator_widths",
    "make_axis",
    "parse_axis",
    "read_axes",
    "sweep",
]
