"""The hardware's description: grid, widths, overflow, requantizer, timing and memory."""

from accelsim.machine.machine import Dataflow, Machine, Memory, Overflow
from accelsim.machine.requantizer import Requantizer, TieRule

__all__ = ["Dataflow", "Machine", "Memory", "Overflow", "Requantizer", "TieRule"]
