"""The sections of a run: headline figures, and tables of its layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from accelsim.graph.quantized import QuantizedGraph
from accelsim.machine import Machine
from accelsim.program.program import IntegerProgram
from accelsim.report.html.elements import Column, Tile, Value, paragraph, table, tiles
from accelsim.report.html.figures import figure_html, figures_html
from accelsim.report.html.page import Section
from accelsim.simulator.results import LayerRecord, SimulationResult

_Cells = Sequence[tuple[Column, Callable[[LayerRecord], Value]]]

_NAME: _Cells = (
    (Column("layer"), lambda layer: layer.name),
    (Column("op"), lambda layer: layer.op),
)
_TIME: _Cells = (
    *_NAME,
    (Column("output"), lambda layer: "x".join(map(str, layer.output_shape))),
    (Column("MACs", "count", bar=True), lambda layer: layer.macs),
    (Column("cycles", "count", bar=True), lambda layer: layer.cycles.total),
    (Column("PEs in use", "share", bar=True), lambda layer: layer.utilisation if layer.macs else None),
    (Column("multiply", "count"), lambda layer: layer.cycles.multiply),
    (Column("load", "count"), lambda layer: layer.cycles.load),
    (Column("drain", "count"), lambda layer: layer.cycles.drain),
    (Column("stall", "count"), lambda layer: layer.cycles.stall),
    (Column("vector unit", "count"), lambda layer: layer.cycles.vector),
)
_NUMBERS: _Cells = (
    *_NAME,
    (Column("overflow events", "count", alarm=True), lambda layer: layer.overflow_events),
    (Column("outputs that overflowed", "count", alarm=True), lambda layer: layer.overflowed_outputs),
    (Column("partial-sum or tree events", "count", alarm=True), lambda layer: layer.partial_overflow_events),
    (Column("least running sum", "count"), lambda layer: layer.range_min if layer.macs else None),
    (Column("greatest running sum", "count"), lambda layer: layer.range_max if layer.macs else None),
    (Column("needed bits", "count", bar=True), lambda layer: layer.needed_bits if layer.macs else None),
    (Column("zero weights", "share"), lambda layer: _share(layer.zero_operands.weight, layer)),
    (Column("zero activations", "share", bar=True), lambda layer: _share(layer.zero_operands.activation, layer)),
)
_COST: _Cells = (
    *_NAME,
    (Column("operations", "count", bar=True), lambda layer: layer.operations.total),
    (Column("SRAM accesses", "count", bar=True), lambda layer: layer.accesses.accesses("sram")),
    (Column("DRAM bytes", "count", bar=True), lambda layer: layer.memory.dram_bytes),
    (Column("arithmetic nJ", "decimal"), lambda layer: layer.energy.arithmetic_pj / 1e3),
    (Column("registers nJ", "decimal"), lambda layer: layer.energy.registers_pj / 1e3),
    (Column("SRAM nJ", "decimal"), lambda layer: layer.energy.sram_pj / 1e3),
    (Column("DRAM nJ", "decimal"), lambda layer: layer.energy.dram_pj / 1e3),
    (Column("energy nJ", "decimal", bar=True), lambda layer: layer.energy_pj / 1e3),
)


def run_sections(result: SimulationResult, accuracy: float | None) -> list[Section]:
    """Return the headline figures of a run and the tables of its layers.

    Parameters
    ----------
    result : SimulationResult
        The run.
    accuracy : float or None
        Share of samples with the right answer, 0..1.

    Returns
    -------
    list of Section
        Summary and layers.
    """
    layers = "".join(
        [
            paragraph("Over all samples. A click on a heading sorts; a filter may be: conv cycles>1000", "lead"),
            _table(_TIME, result, "Work and time"),
            _table(_NUMBERS, result, "Numbers: overflows, ranges, zeros"),
            _table(_COST, result, "Operations, memory and the energy proxy"),
        ]
    )  # fmt: skip
    return [Section("summary", "Summary", tiles(run_tiles(result, accuracy))), Section("layers", "Layers", layers)]


def run_figures(result: SimulationResult, machine: Machine, network: QuantizedGraph | IntegerProgram | None) -> Section:
    """Return the figures of a run: what each layer costs, how far its sums run, how the first weights are rounded.

    Parameters
    ----------
    result : SimulationResult
        The run; ranges are drawn where they were tracked.
    machine : Machine
        The limits of its accumulators are drawn in.
    network : QuantizedGraph, IntegerProgram or None
        A quantized graph shows its weights.

    Returns
    -------
    Section
        Figures.
    """
    from accelsim.report.plots_distributions import distributions
    from accelsim.report.plots_layers import layer_costs, layer_ranges

    drawn = [figure_html(layer_costs(result), "costs", "Cycles, utilisation, operations and traffic of each layer")]
    if any(layer.range_min is not None and layer.macs for layer in result.layers):
        ranges = layer_ranges(result, machine.accumulator_bits)
        drawn.append(figure_html(ranges, "ranges", "Running sums of each layer, and the limits of the accumulators"))
    if isinstance(network, QuantizedGraph):
        weights = distributions(network)
        drawn.append(
            figure_html(weights, "weights", "Weights of the first layer, and the grid that they are rounded to")
        )
    return Section("figures", "Figures", figures_html(drawn))


def run_tiles(result: SimulationResult, accuracy: float | None) -> list[Tile]:
    """Return the headline figures of a run."""
    samples, cycles = result.num_samples, result.cycles
    macs = sum(layer.macs for layer in result.layers)
    needed = [layer.needed_bits for layer in result.layers if layer.needed_bits is not None]
    found = []
    if accuracy is not None:
        found.append(Tile("Top-1 accuracy", f"{100 * accuracy:.2f} %", f"{round(accuracy * samples):,} of {samples:,}"))
    found += [
        Tile("Cycles a sample", f"{cycles.total / samples:,.1f}", f"{cycles.total:,} for {samples:,} samples"),
        Tile("MACs a sample", f"{macs / samples:,.0f}", f"{result.operations.total / samples:,.0f} operations in all"),
        Tile("Energy proxy a sample", f"{result.energy_pj / samples / 1e3:,.1f} nJ", _energy_note(result)),
        _overflow_tile(result),
    ]  # fmt: skip
    if needed:
        found.append(Tile("Needed accumulator", f"{max(needed)} bits", "holds every running sum of these samples"))
    found.append(Tile("DRAM traffic a sample", f"{result.memory.dram_bytes / samples:,.0f} B", "under the tiling rule"))
    return found


def _overflow_tile(result: SimulationResult) -> Tile:
    events = result.overflow_events
    if events is None:
        return Tile("Overflow events", "not tracked")
    outputs = sum(layer.overflowed_outputs or 0 for layer in result.layers)
    partial = sum(layer.partial_overflow_events or 0 for layer in result.layers)
    note = f"in {outputs:,} outputs" if events else "in accumulators"
    note += f"; {partial:,} in partial sums or trees" if partial else ""
    return Tile("Overflow events", f"{events:,}", note, alarm=bool(events or partial))


def _energy_note(result: SimulationResult) -> str:
    energy, total = result.energy, result.energy_pj or 1.0
    parts = {
        "arithmetic": energy.arithmetic_pj,
        "registers": energy.registers_pj,
        "SRAM": energy.sram_pj,
        "DRAM": energy.dram_pj,
    }
    return ", ".join(f"{name} {100 * part / total:.0f} %" for name, part in parts.items())


def _share(count: int, layer: LayerRecord) -> float | None:
    products = layer.operations.multiplications
    return count / products if products else None


def _table(cells: _Cells, result: SimulationResult, caption: str) -> str:
    """Return a table of the layers, without columns that are empty or 0 throughout; the overflows always."""
    columns = [(column, [value(layer) for layer in result.layers]) for column, value in cells]
    kept = [(column, values) for column, values in columns if any(values) or column.title == "overflow events"]
    rows = list(zip(*(values for _, values in kept), strict=True))
    return table([column for column, _ in kept], rows, caption)
