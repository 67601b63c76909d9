"""Figures of a sweep: accuracy against a width, and what accuracy costs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from accelsim.errors import DataError
from accelsim.explore.sweep_result import MORE_IS_BETTER, SweepPoint, SweepResult, objective_values
from accelsim.report.plots import MODE_STYLES, figure, style, whole_widths

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PANELS = 6
MAX_LABELS = 8
"""Points of a front that are named in the figure."""

_UNITS = {
    "accuracy": ("top-1 accuracy (%)", 100.0),
    "agreement": ("agreement with float (%)", 100.0),
    "sqnr_db": ("SQNR of the output (dB)", 1.0),
    "utilisation": ("PE utilisation (%)", 100.0),
    "cycles": ("cycles per sample", 1.0),
    "operations": ("operations per sample", 1.0),
    "energy_pj": ("energy proxy per sample (\N{MICRO SIGN}J)", 1e-6),
    "overflow_events": ("accumulator overflows per sample", 1.0),
    "partial_overflow_events": ("partial-sum overflows per sample", 1.0),
    "dram_bytes": ("DRAM traffic per sample (bytes)", 1.0),
}
_SHARES = ("accuracy", "agreement", "sqnr_db", "utilisation")
"""Metrics that do not grow with the number of samples."""


def sweep_by_width(result: SweepResult, field: str = "accumulator_bits", metric: str | None = None) -> Figure:
    """Draw a metric of a sweep against a field of whole numbers, one line for each overflow mode.

    Parameters
    ----------
    result : SweepResult
        With that field among its settings.
    field : str
        On the horizontal axis.
    metric : str, optional
        On the vertical axis; ``accuracy`` where there are labels, else ``agreement``.

    Returns
    -------
    Figure
        One panel for every combination of the other settings; combinations with the same lines share a panel.

    Raises
    ------
    DataError
        When the sweep has no such field or metric, or more than `MAX_PANELS` different panels.
    """
    points = [point for point in result.done if isinstance(point.settings.get(field), int)]
    if not points:
        raise DataError(f"the sweep has no finished point with a whole number of {field}")
    chosen = metric or ("accuracy" if "accuracy" in points[0].metrics else "agreement")
    panels = _panels(points, field, chosen)
    if len(panels) > MAX_PANELS:
        raise DataError(f"{len(panels)} different panels are too many to read; take a part of the sweep's points")
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    with figure(3.4 * columns + 0.6, 2.4 * rows + 0.4, rows, columns, squeeze=False, sharex=True, sharey=True) as (
        drawn,
        axes,
    ):
        flat: list[Axes] = list(axes.flat)
        for axis, (title, lines) in zip(flat, panels, strict=False):
            for number, (label, values) in enumerate(lines.items()):
                at = MODE_STYLES.get(label, number)
                axis.plot([x for x, _ in values], [y for _, y in values], label=label, **style(at))
            axis.set_title(title, loc="left")
            axis.set_xlabel(f"{field.replace('_', ' ').replace(' bits', ' width (bits)')}")
            axis.set_ylabel(_UNITS[chosen][0])
            whole_widths(axis, words=False)
        for axis in flat[len(panels) :]:
            axis.set_visible(False)
        flat[0].legend(loc="best")
        drawn.suptitle(f"{result.network}, {points[0].metrics['num_samples']:,} samples", x=0.01, ha="left", fontsize=9)
    return drawn


def pareto_fronts(
    result: SweepResult, quality: str | None = None, costs: Sequence[str] = ("energy_pj", "cycles")
) -> Figure:
    """Draw quality against costs, one panel for each cost, with the front of the points that no other one beats.

    Parameters
    ----------
    result : SweepResult
        With at least one finished point.
    quality : str, optional
        On the vertical axes; ``accuracy`` where there are labels, else ``agreement``.
    costs : sequence of str
        On the horizontal axes.

    Returns
    -------
    Figure
        The points of each front are numbered, and named below.

    Raises
    ------
    DataError
        When there is no finished point, or a metric is unknown.
    """
    if not result.done:
        raise DataError("the sweep has no finished point to draw")
    chosen = quality or ("accuracy" if "accuracy" in result.done[0].metrics else "agreement")
    for name in (chosen, *costs):
        objective_values(result.done[0].metrics, [name])  # refuses unknown names
    with figure(3.4 * len(costs) + 0.2, 4.4, 1, len(costs), squeeze=False, sharey=True) as (drawn, axes):
        for axis, cost in zip(axes[0], costs, strict=True):
            axis.plot(
                [_value(point, cost) for point in result.done],
                [_value(point, chosen) for point in result.done],
                linestyle="none", marker="o", markersize=3, color="#909090", label="a point",
            )  # fmt: skip
            front = sorted(result.pareto((chosen, cost)), key=lambda point: _value(point, cost))
            where = [(_value(point, cost), _value(point, chosen)) for point in front]
            after = MORE_IS_BETTER[cost]
            axis.step(
                [x for x, _ in where], [y for _, y in where], where="pre" if after else "post", label="none is better",
                **style(1),
            )  # fmt: skip
            _name_front(axis, front, where)
            axis.set_xlabel(_UNITS[cost][0])
            axis.set_ylabel(_UNITS[chosen][0])
        drawn.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
        samples = result.done[0].metrics["num_samples"]
        title = f"{result.network}, {len(result.done):,} points, {samples:,} samples"
        drawn.suptitle(title, x=0.01, ha="left", fontsize=9)
    return drawn


def _name_front(axis: Axes, front: list[SweepPoint], where: list[tuple[float, float]]) -> None:
    """Write numbers at the points of a front, and below what they are; of many the best ones only."""
    different = list(dict(zip(where, front, strict=True)).items())[-MAX_LABELS:]
    words = []
    for number, ((x, y), point) in enumerate(different, start=1):
        axis.annotate(str(number), (x, y), xytext=(3, -9), textcoords="offset points", fontsize=7.5)
        settings = ", ".join(_setting(value, name) for name, value in point.settings.items())
        words.append(f"{number}  {settings}")
    axis.text(0, -0.2, "\n".join(words), transform=axis.transAxes, fontsize=6.5, va="top")


def _setting(value: Any, name: str) -> str:
    """Return a setting in few characters."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if isinstance(value, str) else f"{name} {text}"


def _value(point: SweepPoint, metric: str) -> float:
    """Return a metric in the units of its axis."""
    value = point.metrics[metric]
    scaled = (float("nan") if value is None else float(value)) * _UNITS[metric][1]
    return scaled if metric in _SHARES else scaled / float(point.metrics["num_samples"])


def _panels(
    points: Sequence[SweepPoint], field: str, metric: str
) -> list[tuple[str, dict[str, list[tuple[int, float]]]]]:
    """Return (title, lines by overflow mode) for every different combination of the other settings."""
    groups: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for point in points:
        others = {name: value for name, value in point.settings.items() if name not in (field, "overflow")}
        title = ", ".join(_setting(value, name) for name, value in others.items())
        mode = str(point.settings.get("overflow", (point.machine or {}).get("overflow", "")))
        groups.setdefault(title, {}).setdefault(mode, []).append((point.settings[field], _value(point, metric)))
    merged: dict[str, tuple[list[str], dict[str, list[tuple[int, float]]]]] = {}
    for title, lines in groups.items():
        ordered = {mode: sorted(values) for mode, values in lines.items()}
        merged.setdefault(json.dumps(ordered), ([], ordered))[0].append(title)
    return [("\n".join(titles), lines) for titles, lines in merged.values()]
