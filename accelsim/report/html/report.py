"""From results to a page."""

from __future__ import annotations

from collections.abc import Sequence

from accelsim.errors import DataError
from accelsim.explore.sweep_result import SweepResult
from accelsim.explore.width_report import WidthReport
from accelsim.graph.quantized import QuantizedGraph
from accelsim.machine import Machine
from accelsim.program.program import IntegerProgram
from accelsim.reference import ComparisonReport
from accelsim.report.html.comparison_sections import comparison_sections
from accelsim.report.html.cycles import CycleView
from accelsim.report.html.page import HtmlReport, Section, cycles_section
from accelsim.report.html.provenance import Facts, provenance_section
from accelsim.report.html.run_sections import run_figures, run_sections
from accelsim.simulator.gemm_result import GemmResult
from accelsim.simulator.results import SimulationResult
from accelsim.simulator.tracing import TracedLayer

Traced = GemmResult | TracedLayer
Subject = SimulationResult | ComparisonReport | WidthReport | SweepResult | GemmResult | TracedLayer


def html_report(
    subject: Subject,
    machine: Machine | None = None,
    *,
    network: QuantizedGraph | IntegerProgram | None = None,
    traced: Sequence[Traced] = (),
    accuracy: float | None = None,
    title: str | None = None,
    inputs: Facts = (),
) -> HtmlReport:
    """Make one HTML page of a run, a comparison, a width analysis, a sweep or a traced GEMM.

    Parameters
    ----------
    subject : SimulationResult, ComparisonReport, WidthReport, SweepResult, GemmResult or TracedLayer
        What to show; the last two need a trace and show the cycle viewer.
    machine : Machine, optional
        What it ran on; only a sweep has more than one and goes without.
    network : QuantizedGraph or IntegerProgram, optional
        What was run: its name and how it was quantized.
    traced : sequence of GemmResult or TracedLayer
        Traces to step through in the page, besides the subject's own.
    accuracy : float, optional
        Share of samples with the right answer, 0..1, of a run.
    title : str, optional
        Heading; the network and the grid where it is left out.
    inputs : sequence of (str, str)
        What else was given, by name: files, hashes, options.

    Returns
    -------
    HtmlReport
        ``.save(path)``; in a notebook it shows itself.

    Raises
    ------
    OperandError
        When something to step through has no trace, or one that is larger than a page holds: it names a smaller window.
    DataError
        When the subject is of another kind, or comes without its machine.

    Examples
    --------
    >>> from accelsim import matmul
    >>> machine = Machine(rows=2, columns=2)
    >>> gemm = matmul([[3, -2], [1, 4]], [[5], [6]], machine, engine="stepped", trace=True)
    >>> html_report(gemm, machine).title
    'matrix product on a 2x2 output-stationary grid'
    """
    if isinstance(subject, SweepResult):
        return _sweep_page(subject, title, inputs)
    if machine is None:
        raise DataError(f"a report on a {type(subject).__name__} needs the machine that it ran on")
    views = [CycleView.of(item, machine) for item in _traces(subject, traced)]
    sections, what = _sections(subject, machine, network, accuracy)
    if isinstance(network, QuantizedGraph):
        name, log = network.graph.name, network.log
    elif network is not None:
        name, log = network.name, ()
    else:
        name, log = "network" if sections else views[0].name, ()
    if views:
        sections.append(cycles_section(views))
    sections.append(provenance_section(machine, log, inputs))
    grid = f"a {machine.rows}x{machine.columns} {machine.dataflow.replace('_', '-')} grid"
    accumulators = f"{machine.accumulator_bits}-bit accumulators ({machine.overflow})"
    subtitle = f"{what}: {accumulators}, requantizer {machine.requantizer.name}"
    return HtmlReport(f"{name} on {grid}" if title is None else title, subtitle, tuple(sections))


def _sections(
    subject: Subject, machine: Machine, network: QuantizedGraph | IntegerProgram | None, accuracy: float | None
) -> tuple[list[Section], str]:
    """Return the sections of a subject, and what it is in words."""
    match subject:
        case SimulationResult():
            return [*run_sections(subject, accuracy), run_figures(subject, machine, network)], "A run"
        case ComparisonReport():
            return comparison_sections(subject), "Float, simulated and actual"
        case WidthReport():
            from accelsim.report.html.width_sections import width_sections

            return width_sections(subject), "How wide each register must be"
        case GemmResult() | TracedLayer():
            return [], "Every register in every cycle"
    raise DataError(
        "subject must be a SimulationResult, a ComparisonReport, a WidthReport, a SweepResult or something traced, got "
        f"{type(subject).__name__}"
    )


def _traces(subject: Subject, traced: Sequence[Traced]) -> Sequence[Traced]:
    """Return what is to be stepped through, the subject first where it has a trace."""
    return [subject, *traced] if isinstance(subject, GemmResult | TracedLayer) else traced


def _sweep_page(result: SweepResult, title: str | None, inputs: Facts) -> HtmlReport:
    """Return the page of a sweep."""
    from accelsim.report.html.sweep_sections import sweep_sections

    sections = [*sweep_sections(result), provenance_section(None, (), inputs)]
    return HtmlReport(title or f"{result.network}: a sweep", "Machines and quantizations compared", tuple(sections))
