"""Figures layer by layer: what each costs, and how far its sums run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.errors import DataError
from accelsim.explore.width_report import WidthReport
from accelsim.report.plots import COLOURS, figure
from accelsim.simulator.results import LayerRecord, SimulationResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\")
ROW_INCHES = 0.2


def layer_costs(result: SimulationResult) -> Figure:
    """Draw cycles, utilisation, operations and memory traffic of every layer, per sample.

    Parameters
    ----------
    result : SimulationResult
        A run.

    Returns
    -------
    Figure
        Four panels of bars. Layers that cost nothing are left out.

    Raises
    ------
    DataError
        When no layer costs anything.
    """
    layers = [layer for layer in result.layers if layer.cycles.total or layer.operations.total]
    if not layers:
        raise DataError("the run has no layer that costs anything")
    samples, names = result.num_samples, [layer.name for layer in layers]
    with figure(7.0, 2 * (ROW_INCHES * len(layers) + 0.9), 2, 2, squeeze=False, sharey="row") as (drawn, axes):
        parts = ("multiply", "load", "drain", "stall", "vector")
        counted = {part: [getattr(layer.cycles, part) / samples for layer in layers] for part in parts}
        _bars(axes[0][0], names, counted, "cycles per sample")
        _bars(axes[0][1], names, {"": [100 * layer.utilisation for layer in layers]}, "PE utilisation (%)")
        axes[0][1].set_xlim(0, 100)
        _bars(axes[1][0], names, _operations(layers, samples), "operations per sample")
        _bars(axes[1][1], names, _traffic(layers, samples), "memory traffic per sample (bytes)")
        for row in axes:
            row[0].invert_yaxis()  # the first layer on top; shared by the row
        drawn.suptitle(f"{samples:,} samples", x=0.01, ha="left", fontsize=9)
    return drawn


def layer_ranges(subject: WidthReport | SimulationResult, accumulator_bits: int | None = None) -> Figure:
    """Draw how far the running sum of every layer goes, with the limits of accumulators.

    Parameters
    ----------
    subject : WidthReport or SimulationResult
        Needed and proven ranges, or those of a run with ``track="range"``.
    accumulator_bits : int, optional
        The accumulator whose limits are drawn; the needed width when left out.

    Returns
    -------
    Figure
        Thick: on the data. Thin, for a WidthReport: what any input can reach.

    Raises
    ------
    DataError
        When a run did not track ranges.
    """
    rows = _ranges(subject)
    needed = max(_bits(low, high) for _, (low, high), _ in rows)
    bits = needed if accumulator_bits is None else accumulator_bits
    with figure(6.0, ROW_INCHES * len(rows) + 1.2) as (drawn, axes):
        for place, (_, (low, high), proven) in enumerate(rows):
            if proven is not None:
                axes.hlines(place, proven[0], proven[1], color=COLOURS[1], linewidth=1.2)
                axes.plot(proven, [place, place], linestyle="none", marker="|", markersize=7, color=COLOURS[1])
            axes.hlines(place, low, high, color=COLOURS[0], linewidth=5)
        for end in (-(1 << (bits - 1)), (1 << (bits - 1)) - 1):
            axes.axvline(end, color="#000000", linewidth=1.0, linestyle=(0, (4, 2)))
        axes.set_xscale("symlog", base=2, linthresh=256, linscale=1.0)
        _power_ticks(axes, rows, bits)
        axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
        axes.invert_yaxis()
        axes.set_xlabel("running sum (units of the accumulator)")
        handles = [axes.hlines([], 0, 0, color=COLOURS[0], linewidth=5, label="on the data")]
        if any(proven is not None for _, _, proven in rows):
            handles.append(axes.hlines([], 0, 0, color=COLOURS[1], linewidth=1.2, label="any input"))
        label = f"{bits}-bit accumulator"
        handles.append(axes.vlines([], 0, 0, color="#000000", linestyles=[(0, (4, 2))], linewidth=1.0, label=label))
        drawn.legend(handles=handles, loc="outside upper left", ncols=3)
    return drawn


def _bars(axes: Axes, names: list[str], parts: dict[str, list[float]], label: str) -> None:
    """Draw stacked bars, one per layer; parts without anything are left out."""
    from matplotlib.ticker import EngFormatter

    left = np.zeros(len(names))
    for number, (part, values) in enumerate(parts.items()):
        if part and not any(values):
            continue
        axes.barh(
            names, values, left=left, height=0.72, label=part, color=COLOURS[number % len(COLOURS)],
            hatch=HATCHES[number % len(HATCHES)], edgecolor="#FFFFFF", linewidth=0.4,
        )  # fmt: skip
        left += np.array(values)
    axes.set_xlabel(label)
    axes.set_xlim(0, 1.05 * float(left.max()) or 1.0)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(EngFormatter(sep="\N{NO-BREAK SPACE}"))
    if len([part for part in parts if part and any(parts[part])]) > 1:
        axes.legend(loc="best", fontsize=7)


def _operations(layers: list[LayerRecord], samples: int) -> dict[str, list[float]]:
    """Return operations by kind."""
    kinds = {
        "multiply": ("multiplications", "row_sum_multiplications"),
        "add": ("additions", "row_sum_additions"),
        "requantize": ("requantizations",),
        "vector unit": ("vector_operations",),
    }
    return {
        kind: [sum(getattr(layer.operations, name) for name in names) / samples for layer in layers]
        for kind, names in kinds.items()
    }


def _traffic(layers: list[LayerRecord], samples: int) -> dict[str, list[float]]:
    """Return SRAM and DRAM traffic in bytes."""
    return {place.upper(): [layer.accesses.bits(place) / 8 / samples for layer in layers] for place in ("sram", "dram")}


Row = tuple[str, tuple[int, int], tuple[int, int] | None]


def _ranges(subject: WidthReport | SimulationResult) -> list[Row]:
    """Return (name, range on the data, range for any input) of every layer on the grid."""
    if isinstance(subject, SimulationResult):
        rows: list[Row] = [
            (layer.name, (layer.range_min, layer.range_max), None)
            for layer in subject.layers
            if layer.range_min is not None and layer.range_max is not None
        ]
        if not rows:
            raise DataError('the run did not track ranges; run it with track="range"')
        return rows
    found: list[Row] = []
    for layer in subject.layers:
        register: Any = layer.register("accumulator")
        needed, proven = (register.needed_low, register.needed_high), (register.proven_low, register.proven_high)
        found.append((layer.name, needed, proven))
    return found


def _bits(low: int, high: int) -> int:
    """Return the width that holds both ends."""
    return max(high, -low - 1, 0).bit_length() + 1


def _power_ticks(axes: Axes, rows: list[Row], bits: int) -> None:
    """Put ticks at powers of two of either sign."""
    widest = max([bits, *(_bits(*ends) for _, *pair in rows for ends in pair if ends is not None)])
    powers = list(range(10, widest + 1, 2))
    ends = [sign * (1 << power) for power in powers for sign in (-1, 1)]
    axes.set_xlim(-(1 << (widest - 1)) * 1.5, (1 << (widest - 1)) * 1.5)
    inside = sorted(end for end in ends if abs(end) <= 1.5 * (1 << (widest - 1)))
    labels = [f"$-2^{{{(-end).bit_length() - 1}}}$" if end < 0 else f"$2^{{{end.bit_length() - 1}}}$" for end in inside]
    below = [end for end in inside if end < 0]
    axes.set_xticks([*below, 0, *inside[len(below) :]], [*labels[: len(below)], "0", *labels[len(below) :]])
