"""The sections of a comparison: float, simulated quantization and integers side by side."""

from __future__ import annotations

import math

from accelsim.reference import ComparisonReport
from accelsim.reference.report import KINDS
from accelsim.report.html.elements import Column, Tile, paragraph, table, tiles
from accelsim.report.html.page import Section

_COLUMNS = (
    Column("tensor"),
    Column("node"),
    Column("op"),
    Column("elements", "count"),
    Column("SQNR simulated dB", "decimal", 2),
    Column("SQNR actual dB", "decimal", 2, bar=True),
    Column("largest difference", "count"),
    Column("differing", "share", 4),
    Column("own difference", "count"),
    Column("own differing", "share", 4),
)
_WORDS = {
    "float": ("Float", "ONNX Runtime"),
    "simulated": ("Simulated quantization", "ONNX Runtime"),
    "actual": ("Integers", "this machine, bit for bit"),
}


def comparison_sections(report: ComparisonReport) -> list[Section]:
    """Return the headline figures of a comparison and the table of its layers.

    Parameters
    ----------
    report : ComparisonReport
        What was found.

    Returns
    -------
    list of Section
        Summary and comparison.
    """
    found = []
    for kind in KINDS if report.metrics is not None else ():
        title, source = _WORDS[kind]
        shares = dict((report.metrics or {})[kind])
        others = ", ".join(f"{name} {100 * share:.2f} %" for name, share in shares.items() if name != "top1")
        found.append(Tile(f"{title}: top-1", f"{100 * shares['top1']:.2f} %", f"{source}; {others}".rstrip("; ")))
    found.append(Tile("Samples", f"{report.num_samples:,}"))
    found.append(Tile("Cycles", f"{report.cycles:,}", f"{report.cycles / report.num_samples:,.1f} a sample"))
    found.append(Tile("Overflow events", f"{report.overflow_events:,}", alarm=report.overflow_events > 0))
    body = paragraph(
        "SQNR holds the float tensor against the other two. Differences are in codes, between simulated quantization "
        "and the integers; the own ones are those of a layer simulated on the integers' own inputs: it inherits "
        "nothing from the layers before it.",
        "lead",
    )
    body += "".join(paragraph(line, "warning") for line in report.warnings())
    rows = [
        [
            layer.name, layer.node, layer.op, layer.num_elements, _level(layer.sqnr_simulated_db),
            _level(layer.sqnr_actual_db), layer.largest_difference, layer.differing_share, layer.own_difference,
            layer.own_differing_share,
        ]
        for layer in report.layers
    ]  # fmt: skip
    body += table(_COLUMNS, rows, "Layers: float, simulated and actual")
    return [Section("summary", "Summary", tiles(found)), Section("comparison", "Layer by layer", body)]


def _level(decibel: float) -> float | str:
    """Return a level; one that is infinite as a word, as nothing can be drawn or sorted by it."""
    return decibel if math.isfinite(decibel) else ("exact" if decibel > 0 else "none")
