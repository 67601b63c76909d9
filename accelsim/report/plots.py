"""Figures for print: the style, and accuracy against register width.

Every function of the ``plots`` modules takes a result and returns a `matplotlib.figure.Figure`; nothing is shown, saved
or left in pyplot's state. Series differ in colour, marker and line style, so that they can be told apart without
colour.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.errors import DataError
from accelsim.explore.sweep_result import SweepResult
from accelsim.explore.width_report import WidthReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Okabe and Ito's palette, safe for colour-blind readers; the yellow is left out, which paper swallows."""
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
MODE_STYLES = {"wrap": 0, "saturate": 1, "error": 2}
FORMATS = (".svg", ".pdf", ".png")

_STYLE = {
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 9.0,
    "legend.fontsize": 8.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "axes.grid": True,
    "grid.color": "#B0B0B0",
    "grid.linewidth": 0.4,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "svg.hashsalt": "accelsim",
    "savefig.dpi": 200,
}


def _house_style() -> Any:
    """Return a context in which matplotlib draws in the house style, whatever the user's settings are."""
    import matplotlib as mpl

    settings: Any = {**mpl.rcParamsDefault, **_STYLE}
    return mpl.rc_context(settings)


@contextmanager
def figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> Iterator[tuple[Figure, Any]]:
    """Give an empty figure in the house style, and its axes.

    Parameters
    ----------
    width, height : float
        Inches; 6.5 fill a page.
    rows, columns : int
        Of axes.
    **options
        For `Figure.subplots`.

    Yields
    ------
    tuple
        The figure, and one Axes or an array of them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from accelsim.report.plot_figure import ShownFigure

    with _house_style():
        drawn = ShownFigure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(drawn)
        yield drawn, drawn.subplots(rows, columns, **options)


def style(number: int) -> dict[str, Any]:
    """Return colour, marker and line style of a series by its number."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": LINES[number % len(LINES)],
    }


def save_figure(drawn: Figure, path: str | PathLike[str]) -> None:
    """Write a figure as a file that appears whole or not at all, the same bytes each time.

    Parameters
    ----------
    drawn : Figure
        What to write.
    path : path
        Its ending says the format: .svg, .pdf or .png.

    Raises
    ------
    DataError
        When the ending is another one or the file cannot be written.
    """
    from accelsim.files import write_whole

    ending = figure_format(path)
    undated = {".svg": {"Date": None, "Creator": None}, ".pdf": {"CreationDate": None}, ".png": {}}[ending]
    buffer = io.BytesIO()
    with _house_style():
        drawn.savefig(buffer, format=ending[1:], metadata=undated)
    write_whole(path, buffer.getvalue())


def figure_format(path: str | PathLike[str]) -> str:
    """Return the ending of a figure's file, in small letters; raise DataError where it is none of `FORMATS`."""
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        raise DataError(f"figure {str(path)!r} must end in {', '.join(FORMATS)}, got {ending!r}")
    return ending


def accuracy_by_width(report: WidthReport | SweepResult, register: str = "accumulator") -> Figure:
    """Draw accuracy against the width of a register, narrowed in all layers together, for both overflow modes.

    Parameters
    ----------
    report : WidthReport or SweepResult
        What was found; of a sweep see `accelsim.report.plots_sweep.sweep_by_width`.
    register : {"accumulator", "partial_sum", "adder_tree"}
        Which register.

    Returns
    -------
    Figure
        With the needed and the proven width marked, for a WidthReport.
    """
    if isinstance(report, SweepResult):
        from accelsim.report.plots_sweep import sweep_by_width

        return sweep_by_width(report, f"{register}_bits")
    return width_curves({f"{report.network}: all {_words(register)}s narrowed": report}, register)


def width_curves(reports: Mapping[str, WidthReport], register: str = "accumulator") -> Figure:
    """Draw `accuracy_by_width` of several networks or quantizations side by side.

    Parameters
    ----------
    reports : mapping of str to WidthReport
        By the title of the panel.
    register : {"accumulator", "partial_sum", "adder_tree"}
        Which register.

    Returns
    -------
    Figure
        One panel each, at the same scales.
    """
    count = len(reports)
    with figure(5.2 if count == 1 else 3.4 * count, 3.0, 1, count, squeeze=False, sharey=True) as (drawn, panels):
        for axes, (title, report) in zip(panels[0], reports.items(), strict=True):
            _draw_curves(axes, report, register)
            axes.set_title(title, loc="left")
        panels[0][0].set_ylim(0, 103)
        panels[0][0].set_ylabel(_metric(report.metric, report.num_searched))
        panels[0][-1].legend(loc="center right")
    return drawn


def _draw_curves(axes: Axes, report: WidthReport, register: str) -> None:
    """Draw the accuracy under wrap and under saturate, the needed and the proven width."""
    widths = report.register(register)
    for mode, label in (("wrap", "wraps"), ("saturate", "saturates")):
        steps = sorted((step.bits, step.accuracy) for step in widths.steps if step.overflow == mode)
        if widths.proven_bits is not None and widths.proven_bits > steps[-1][0]:
            steps.append((widths.proven_bits, steps[-1][1]))  # nothing overflows from the needed width on
        values = [100 * accuracy for _, accuracy in steps]
        axes.plot([bits for bits, _ in steps], values, label=label, **style(MODE_STYLES[mode]))
    mark_width(axes, widths.needed_bits, f"needed\n{report.num_samples:,} samples")
    if widths.proven_bits is not None:
        mark_width(axes, widths.proven_bits, "proven\nany input")
    axes.set_xlabel(f"{_words(register)} width (bits)")
    whole_widths(axes)


def mark_width(axes: Axes, bits: int, text: str) -> None:
    """Mark a width by an upright line with words beside it."""
    axes.axvline(bits, color="#000000", linewidth=0.8, linestyle=(0, (2, 2)))
    axes.annotate(
        text, (bits, 0.03), xycoords=("data", "axes fraction"), xytext=(3, 0), textcoords="offset points",
        fontsize=7.5, va="bottom",
    )  # fmt: skip


def whole_widths(axes: Axes, words: bool = True) -> None:
    """Put ticks at whole bits only, with some room at the right for words."""
    from matplotlib.ticker import MaxNLocator

    low, high = axes.get_xlim()
    axes.set_xlim(low, high + (0.12 * (high - low) if words else 0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _metric(metric: str, samples: int) -> str:
    """Return the label of an axis of accuracy."""
    name = "top-1 accuracy" if metric == "top1" else "agreement with exact integers"
    return f"{name} (%), {samples:,} samples"


def _words(register: str) -> str:
    """Return a register's name as words."""
    return register.replace("_", " ")
