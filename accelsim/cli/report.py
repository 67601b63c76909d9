"""``accelsim report``: a run or a comparison as one HTML file that needs no network."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accelsim.cli import options
from accelsim.cli.inputs import (
    CalibrationChoice,
    check_outputs,
    describe_machine,
    load_machine,
    load_samples,
    open_network,
    quantize_network,
)
from accelsim.cli.terminal import echo, progress_bar
from accelsim.cli.trace import index_range

if TYPE_CHECKING:
    from accelsim.machine import Machine
    from accelsim.report.html import HtmlReport
    from accelsim.simulator.tracing import TracedLayer

NAME = "report"
HELP = """Make one HTML file of a run or a comparison: tables, figures, and a viewer that steps through the cycles.

The file needs no network and no other file. It names what was run: versions, hashes of the files, every field of the
machine.

\b
Examples:
  accelsim report run net.npz --images images.npz:test --labels images.npz:labels --output run.html
  accelsim report run net.npz --images images.npz:test --set accumulator_bits=16 --trace conv1 --trace conv2 \\
      --cycles 0:400 --output cycles.html
  accelsim report compare net.onnx --calibration images.npz:train --images images.npz:test --output compare.html
"""
RUN_HELP = """Run a network on a machine and report cycles, operations, overflows and ranges, layer by layer.

The cycle viewer shows the first layer on the grid, or those named with --trace, on one of the images.

\b
Examples:
  accelsim report run net.npz --images images.npz:test --labels images.npz:labels --output run.html
  accelsim report run net.npz --images images.npz:test --trace conv1 --sample 3 --cycles 0:400 --output conv1.html
"""
COMPARE_HELP = """Report float, simulated quantization and actual integers side by side, layer by layer.

\b
Examples:
  accelsim report compare net.npz --images images.npz:test --labels images.npz:labels --output compare.html
"""

Output = Annotated[Path, typer.Option(metavar="REPORT.html", help="The file to make; replaced if it exists.")]
Title = Annotated[str | None, typer.Option(metavar="TEXT", help="The page's heading; network and grid if left out.")]

app = typer.Typer(name=NAME, help=HELP, no_args_is_help=True, rich_markup_mode=None)


@dataclass(frozen=True)
class _Choice:
    """What the two commands share: files, machine, quantization."""

    model: Path
    images: str
    labels: str | None
    machine_name: str
    settings: list[str]
    calibration: CalibrationChoice
    quantization: dict[str, Any]
    limit: int | None

    def machine(self) -> Machine:
        """Return the machine that was asked for."""
        return load_machine(self.machine_name, self.settings)

    def facts(self, machine: Machine) -> list[tuple[str, str]]:
        """Return what was given, with the hashes of the files."""
        from accelsim.arrays import array_file
        from accelsim.report.html.provenance import file_facts

        found = file_facts("model", self.model)
        files = {"images": self.images, "labels": self.labels, "calibration": self.calibration.file}
        for what, name in files.items():
            if name is not None:
                file = array_file(name)
                found += file_facts(what, file, file.name + name[len(str(file)) :])
        found += [(f"{name} limit", str(value)) for name, value in self._limits() if value is not None]
        found += [(name, str(value)) for name, value in self.quantization.items()]
        return [*found, ("machine", describe_machine(Path(self.machine_name).name, self.settings, machine))]

    def _limits(self) -> list[tuple[str, int | None]]:
        return [("images", self.limit), ("calibration", self.calibration.limit)]


@app.command("run", help=RUN_HELP)
def report_run(
    model: options.AnyModel,
    images: options.Images,
    output: Output,
    labels: options.Labels = None,
    machine: options.MachineName = "edge_16x16",
    settings: options.Settings = None,
    trace: Annotated[
        list[str] | None,
        typer.Option("--trace", metavar="LAYER", help="Step through this layer in the viewer. Repeatable."),
    ] = None,
    no_trace: Annotated[bool, typer.Option("--no-trace", help="Leave the viewer out.")] = False,
    sample: Annotated[int, typer.Option(metavar="N", min=0, help="Trace on which image, from 0.")] = 0,
    cycles: Annotated[
        str | None, typer.Option(metavar="A:B", help="Trace cycles A to B - 1 only; as many as fit if left out.")
    ] = None,
    rows: Annotated[str | None, typer.Option(metavar="A:B", help="Trace rows A to B - 1 of the grid only.")] = None,
    columns: Annotated[str | None, typer.Option(metavar="A:B", help="Trace columns A to B - 1 only.")] = None,
    limit: options.Limit = None,
    title: Title = None,
    calibration: options.Calibration = None,
    calibration_limit: options.CalibrationLimit = None,
    weight_bits: options.WeightBits = None,
    activation_bits: options.ActivationBits = None,
    per_channel: options.PerChannel = None,
    weight_range: options.WeightRange = None,
    activation_range: options.ActivationRange = None,
    power_of_two: options.PowerOfTwo = False,
    layout: options.FileLayout = options.Layout.CHANNELS_FIRST,
    as_json: options.Json = False,
) -> None:
    """Report a run; see RUN_HELP."""
    from accelsim.arrays import count_right
    from accelsim.program.lowering import lower
    from accelsim.report.html import html_report
    from accelsim.simulator.run import simulate

    check_outputs([output], model, [images, labels, calibration])
    window = {
        "cycles": index_range("--cycles", cycles),
        "rows": index_range("--rows", rows),
        "columns": index_range("--columns", columns),
    }
    bits = options.quantization(weight_bits, activation_bits, per_channel, weight_range, activation_range, power_of_two)
    calibrated_on = CalibrationChoice(calibration, calibration_limit, layout)
    choice = _Choice(model, images, labels, machine, settings or [], calibrated_on, bits, limit)
    target = choice.machine()
    network = open_network(model, calibrated_on, bits)
    samples, classes = load_samples(network, images, labels, limit, layout)
    with progress_bar() as progress:
        quantized = quantize_network(network, calibrated_on, bits, progress)
        program = lower(quantized, target)
        layers = [] if no_trace else _layers(program, trace)
        # Before the long run: a layer that does not exist, or does not fit the page, should be refused at once.
        traced = [_traced(program, samples, layer, sample, target, window) for layer in layers]
        result = simulate(program, samples, target, track="range", progress=progress)
    accuracy = None
    if classes is not None:
        accuracy = count_right(result.real_outputs[program.outputs[0]], classes) / result.num_samples
    page = html_report(
        result, target, network=quantized, traced=traced, accuracy=accuracy, title=title, inputs=choice.facts(target)
    )
    _save(page, output, as_json, {"accuracy": accuracy, "traced": layers})


@app.command("compare", help=COMPARE_HELP)
def report_compare(
    model: options.AnyModel,
    images: options.Images,
    output: Output,
    labels: options.Labels = None,
    machine: options.MachineName = "edge_16x16",
    settings: options.Settings = None,
    limit: options.Limit = None,
    title: Title = None,
    calibration: options.Calibration = None,
    calibration_limit: options.CalibrationLimit = None,
    weight_bits: options.WeightBits = None,
    activation_bits: options.ActivationBits = None,
    per_channel: options.PerChannel = None,
    weight_range: options.WeightRange = None,
    activation_range: options.ActivationRange = None,
    power_of_two: options.PowerOfTwo = False,
    layout: options.FileLayout = options.Layout.CHANNELS_FIRST,
    as_json: options.Json = False,
) -> None:
    """Report a comparison; see COMPARE_HELP."""
    from accelsim.reference import compare
    from accelsim.report.html import html_report

    check_outputs([output], model, [images, labels, calibration])
    bits = options.quantization(weight_bits, activation_bits, per_channel, weight_range, activation_range, power_of_two)
    calibrated_on = CalibrationChoice(calibration, calibration_limit, layout)
    choice = _Choice(model, images, labels, machine, settings or [], calibrated_on, bits, limit)
    target = choice.machine()
    network = open_network(model, calibrated_on, bits)
    samples, classes = load_samples(network, images, labels, limit, layout)
    with progress_bar() as progress:
        quantized = quantize_network(network, calibrated_on, bits, progress)
        report = compare(quantized.original, quantized, samples, target, classes, progress=progress)
    page = html_report(report, target, network=quantized, title=title, inputs=choice.facts(target))
    _save(page, output, as_json, {"metrics": json.loads(report.to_json())["metrics"]})


def _layers(program: Any, asked: list[str] | None) -> list[str]:
    """Return the layers to step through: those asked for, else the first one on the grid."""
    from accelsim.program.layers import MacLayer

    return asked or [layer.name for layer in program.layers if isinstance(layer, MacLayer)][:1]


def _traced(
    program: Any, samples: Any, layer: str, sample: int, machine: Machine, window: dict[str, Any]
) -> TracedLayer:
    """Trace a layer in the window that a page shows."""
    from accelsim.report.html.cycles import page_window
    from accelsim.simulator.tracing import trace_layer, traceable_layers

    shapes = traceable_layers(program)
    if layer not in shapes:
        return trace_layer(program, samples, layer, machine)  # which says which layers there are
    fitting = page_window(shapes[layer], machine, **window)
    return trace_layer(
        program,
        samples,
        layer,
        machine,
        sample=sample,
        trace_cycles=fitting.cycles,
        trace_rows=fitting.rows,
        trace_columns=fitting.columns,
    )


def _save(page: HtmlReport, output: Path, as_json: bool, found: dict[str, Any]) -> None:
    """Write the file and say so."""
    page.save(output)
    size = output.stat().st_size
    if as_json:
        sections = [section.key for section in page.sections]
        echo(json.dumps({"output": str(output), "bytes": size, "sections": sections, **found}, indent=2))
    else:
        echo(f"wrote {output} ({size:,} bytes): {', '.join(section.title.lower() for section in page.sections)}")
