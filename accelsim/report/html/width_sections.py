"""The sections of a width analysis: proven, needed and sufficient widths, and where the accuracy breaks."""

from __future__ import annotations

from accelsim.explore.width_report import REGISTERS, RegisterWidths, WidthReport
from accelsim.report.html.elements import Column, Tile, Value, paragraph, table, tiles
from accelsim.report.html.figures import figure_html, figures_html
from accelsim.report.html.page import Section
from accelsim.report.plots import accuracy_by_width

_COLUMNS = (
    Column("layer"),
    Column("register"),
    Column("K", "count"),
    Column("proven bits", "count", bar=True),
    Column("needed bits", "count", bar=True),
    Column("half need", "count"),
    Column("99.9 % need", "count"),
    Column("holds: wrap", "count", bar=True),
    Column("holds: saturate", "count", bar=True),
    Column("least value", "count"),
    Column("greatest value", "count"),
)
_STEPS = (
    Column("overflow"),
    Column("bits", "count"),
    Column("accuracy", "share", 2, bar=True),
    Column("overflow events", "count", alarm=True),
    Column("samples run again", "count"),
)


def width_sections(report: WidthReport) -> list[Section]:
    """Return the headline figures of a width analysis, its table, and accuracy against width.

    Parameters
    ----------
    report : WidthReport
        What was found.

    Returns
    -------
    list of Section
        Summary, curve and widths.
    """
    whole = report.register("accumulator")
    held = f"at most {100 * report.max_loss:g} points lost"
    found = [
        Tile("Proven for any input", f"{whole.proven_bits} bits", "accumulators of all layers"),
        Tile("Needed on the data", f"{whole.needed_bits} bits", f"{report.num_samples:,} samples"),
        Tile("Accuracy holds, wrap", f"{whole.holds_wrap_bits} bits", held),
        Tile("Accuracy holds, saturate", f"{whole.holds_saturate_bits} bits", held),
        Tile("Exact integers", f"{100 * report.exact_accuracy:.2f} %", f"{report.num_searched:,} samples"),
    ]
    drawing = figure_html(
        accuracy_by_width(report),
        "accuracy-by-width",
        "Accuracy against the width of all accumulators, by overflow mode",
    )
    steps: list[list[Value]] = [
        [step.overflow, step.bits, step.accuracy, step.overflow_events, step.num_run] for step in report.curve
    ]
    rows = [_row(layer.name, layer.reduction, register) for layer in report.layers for register in layer.registers]
    rows += [_row("all layers", None, register) for register in report.network_registers]
    return [
        Section("summary", "Summary", tiles(found) + paragraph(report.summary(), "lead")),
        Section("curve", "Where it breaks", figures_html([drawing]) + table(_STEPS, steps, "Widths that were tried")),
        Section("widths", "Widths", table(_COLUMNS, rows, "Registers of every layer")),
    ]


def _row(layer: str, reduction: int | None, register: RegisterWidths) -> list[Value]:
    return [
        layer, REGISTERS[register.register], reduction, register.proven_bits, register.needed_bits,
        register.bits_for(0.5), register.bits_for(0.999), register.holds_wrap_bits, register.holds_saturate_bits,
        register.needed_low, register.needed_high,
    ]  # fmt: skip
