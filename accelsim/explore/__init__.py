"""Exploration: how wide the registers must be, and what a choice costs."""

from accelsim.explore.width_report import LayerWidths, RegisterWidths, SearchStep, WidthReport
from accelsim.explore.widths import accumulator_widths

__all__ = ["LayerWidths", "RegisterWidths", "SearchStep", "WidthReport", "accumulator_widths"]
