"""``accelsim report run``: a run on a machine, layer by layer, with a viewer that steps through cycles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from accelsim.cli import options
from accelsim.cli.inputs import check_outputs
from accelsim.cli.programs import own_machine
from accelsim.cli.report.choice import Choice, Output, Title, save
from accelsim.cli.spelling import spelled_as_options
from accelsim.cli.terminal import progress_bar
from accelsim.cli.trace import index_range

if TYPE_CHECKING:
    from accelsim.machine import Machine
    from accelsim.simulator.tracing import TracedLayer

NAME = "run"
HELP = """Run a network on a machine and report cycles, operations, overflows and ranges, layer by layer.

The viewer steps through the first layer on the grid, or through those named with --trace, on one of the images.

\b
Examples:
  accelsim report run net.npz --images images.npz:test --labels images.npz:labels --output run.html
  accelsim report run net.npz --images images.npz:test --trace conv1 --sample 3 --cycles 0:400 --output conv1.html
"""


@spelled_as_options()
def command(
    model: options.RunnableModel,
    images: options.Images,
    output: Output,
    labels: options.Labels = None,
    machine: options.OwnMachineName = None,
    settings: options.Settings = None,
    trace: Annotated[
        list[str] | None, typer.Option("--trace", metavar="LAYER", help="Step through this layer. Repeatable.")
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
    ptq: options.QuantizationFile = None,
    layout: options.FileLayout = options.Layout.CHANNELS_FIRST,
    as_json: options.Json = False,
) -> None:
    """Report a run; see HELP."""
    from accelsim.arrays import count_right
    from accelsim.report.html import html_report
    from accelsim.simulator.run import placed, simulate

    check_outputs([output], model, [images, labels, calibration])
    window = {"cycles": cycles, "rows": rows, "columns": columns}
    ranges = {name: index_range(f"--{name}", text) for name, text in window.items()}
    choice = Choice(
        model, images, labels, limit, layout, machine, settings, calibration, calibration_limit, weight_bits,
        activation_bits, per_channel, ptq,
    )  # fmt: skip
    network, samples, classes = choice.model_and_samples()
    target = choice.machine(own_machine(network))
    with progress_bar() as progress:
        integers = choice.integers(network, progress)
        program, _ = placed(integers, target, "fast", "range")
        layers = [] if no_trace else _layers(program, trace)
        # Before the long run: a layer that does not exist, or does not fit the page, should be refused at once.
        traced = [_traced(program, samples, layer, sample, target, ranges) for layer in layers]
        result = simulate(program, samples, target, track="range", progress=progress)
    accuracy = None
    if classes is not None:
        accuracy = count_right(result.real_outputs[program.outputs[0]], classes) / result.num_samples
    page = html_report(
        result,
        target,
        network=integers,
        traced=traced,
        accuracy=accuracy,
        title=title,
        inputs=choice.facts(target),
    )
    save(page, output, as_json, {"accuracy": accuracy, "traced": layers})


def _layers(program: Any, asked: list[str] | None) -> list[str]:
    """Return the layers to step through: those asked for, else the first one on the grid."""
    from accelsim.simulator.tracing import traceable_layers

    return asked or list(traceable_layers(program))[:1]


def _traced(
    program: Any, samples: Any, layer: str, sample: int, machine: Machine, ranges: dict[str, Any]
) -> TracedLayer:
    """Trace a layer in the window that a page shows."""
    from accelsim.report.html.cycles import page_window
    from accelsim.simulator.tracing import trace_layer, traceable_layers

    shapes = traceable_layers(program)
    if layer not in shapes:
        return trace_layer(program, samples, layer, machine)  # which says which layers there are
    window = page_window(shapes[layer], machine, **ranges)
    return trace_layer(
        program,
        samples,
        layer,
        machine,
        sample=sample,
        trace_cycles=window.cycles,
        trace_rows=window.rows,
        trace_columns=window.columns,
    )
