"""The sections of a sweep: the best points, accuracy against width, what accuracy costs, every point."""

from __future__ import annotations

import json
from typing import Any

from accelsim.errors import DataError
from accelsim.explore.sweep_result import SweepPoint, SweepResult
from accelsim.report.html.elements import Column, Tile, Value, paragraph, table, tiles
from accelsim.report.html.figures import figure_html, figures_html
from accelsim.report.html.page import Section
from accelsim.report.plots_sweep import pareto_fronts, sweep_by_width

COSTS = ("energy_pj", "cycles")
WIDTH_FIELDS = ("accumulator_bits", "partial_sum_bits", "adder_tree_bits", "weight_bits", "activation_bits")
"""A figure is drawn over the first of these that varies."""

_METRICS = {
    "accuracy": (Column("accuracy", "share", 2, bar=True), 1.0),
    "agreement": (Column("agreement", "share", 2, bar=True), 1.0),
    "sqnr_db": (Column("SQNR dB", "decimal", 2), 1.0),
    "cycles": (Column("cycles", "count", bar=True), 1),
    "operations": (Column("operations", "count"), 1),
    "energy_pj": (Column("energy nJ", "decimal", 0, bar=True), 1e-3),
    "dram_bytes": (Column("DRAM bytes", "count"), 1),
    "utilisation": (Column("PEs in use", "share"), 1.0),
    "overflow_events": (Column("overflow events", "count", alarm=True), 1),
    "partial_overflow_events": (Column("partial-sum or tree events", "count", alarm=True), 1),
    "num_simulated": (Column("samples simulated", "count"), 1),
}


def sweep_sections(result: SweepResult) -> list[Section]:
    """Return the headline figures of a sweep, its figures, and its points.

    Parameters
    ----------
    result : SweepResult
        The points; failed ones are listed with their error.

    Returns
    -------
    list of Section
        Summary, figures and points.
    """
    done = result.done
    quality = "accuracy" if any("accuracy" in point.metrics for point in done) else "agreement"
    front = result.pareto((quality, *COSTS)) if done else ()
    best = {id(point) for point in front}
    sections = [Section("summary", "Summary", _summary(result, quality, front))]
    drawings = _figures(result, quality)
    if drawings:
        sections.append(Section("figures", "Figures", figures_html(drawings)))
    names = list(dict.fromkeys(name for point in result.points for name in point.settings))
    settings = [_setting_column(name, result) for name in names]
    metrics = [name for name in _METRICS if any(point.metrics.get(name) for point in done) or name == quality]
    columns = [*settings, Column("front"), *(_METRICS[name][0] for name in metrics)]
    rows = [
        [
            *(_setting(point.settings.get(name)) for name in names),
            "★" if id(point) in best else "",
            *(_scaled(point, name) for name in metrics),
        ]
        for point in done
    ]
    body = paragraph(f"★: none is as good in {quality}, energy and cycles and better in one. Over all samples.", "lead")
    body += table(columns, rows, f"{len(done):,} points")
    if result.failed:
        failed = [[*(_setting(point.settings.get(name)) for name in names), point.error] for point in result.failed]
        body += table([*settings, Column("error")], failed, f"{len(failed):,} points with an error")
    return [*sections, Section("points", "Points", body)]


def _summary(result: SweepResult, quality: str, front: tuple[SweepPoint, ...]) -> str:
    """Return the headline figures, and the points of the front in words."""
    done = result.done
    failed = Tile("Failed", f"{len(result.failed):,}", alarm=bool(result.failed))
    found = [Tile("Points", f"{len(result.points):,}"), failed]
    if not done:
        return tiles(found)
    samples = done[0].metrics["num_samples"]
    top = max(done, key=lambda point: point.metrics[quality])
    found += [
        Tile("Samples", f"{samples:,}"),
        Tile(f"Best {quality}", f"{100 * top.metrics[quality]:.2f} %", _spelled(top)),
        Tile("On the front", f"{len(front):,}", f"{quality}, energy, cycles"),
    ]
    for name, title in (("cycles", "Fewest cycles"), ("energy_pj", "Least energy")):
        least = min(done, key=lambda point: point.metrics[name])
        value = least.metrics[name] / samples
        amount = f"{value:,.0f}" if name == "cycles" else f"{value / 1e3:,.0f} nJ"
        found.append(Tile(f"{title} a sample", amount, _spelled(least)))
    return tiles(found)


def _figures(result: SweepResult, quality: str) -> list[str]:
    """Return the figures that the sweep has the points for."""
    if not result.done:
        return []
    drawings = []
    widths = [
        name
        for name in WIDTH_FIELDS
        if len({point.settings[name] for point in result.done if isinstance(point.settings.get(name), int)}) > 1
    ]
    if widths:
        caption = f"{quality.capitalize()} against {widths[0].replace('_', ' ')}, by overflow mode"
        try:
            drawings.append(figure_html(sweep_by_width(result, widths[0]), "by-width", caption))
        except DataError as reason:  # too many combinations to draw; the table has them all
            drawings.append(paragraph(f"{caption}: {reason}", "note"))
    fronts = pareto_fronts(result, quality, COSTS)
    drawings.append(figure_html(fronts, "fronts", f"{quality.capitalize()} against energy and cycles, with the front"))
    return drawings


def _setting_column(name: str, result: SweepResult) -> Column:
    values = [point.settings.get(name) for point in result.points]
    whole = all(isinstance(value, int) and not isinstance(value, bool) for value in values)
    return Column(name.replace("_", " "), "count" if whole else "text")


def _setting(value: Any) -> Value:
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        return value if isinstance(value, int) else str(value)
    return None if value is None else json.dumps(value)


def _scaled(point: SweepPoint, name: str) -> Value:
    value, factor = point.metrics.get(name), _METRICS[name][1]
    if value is None:
        return "exact" if name == "sqnr_db" else None
    return value if factor == 1 else float(value * factor)


def _spelled(point: SweepPoint) -> str:
    return ", ".join(f"{name} {value}" for name, value in point.settings.items())
