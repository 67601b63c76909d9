"""``accelsim report widths``: how wide the registers must be, with the figure of accuracy against width."""

from __future__ import annotations

from dataclasses import asdict

from accelsim.cli import options
from accelsim.cli.inputs import check_outputs
from accelsim.cli.programs import own_machine
from accelsim.cli.report.choice import Choice, Output, Title, save
from accelsim.cli.terminal import progress_bar
from accelsim.cli.widths import MaxLoss, SearchLimit

NAME = "widths"
HELP = """Report how wide accumulators, partial sums, adder trees and multipliers must be; see `accelsim widths`.

\b
Examples:
  accelsim report widths net.npz --images images.npz:test --labels images.npz:labels --output widths.html
"""


def command(
    model: options.RunnableModel,
    images: options.Images,
    output: Output,
    labels: options.Labels = None,
    machine: options.OwnMachineName = None,
    settings: options.Settings = None,
    max_loss: MaxLoss = 1.0,
    search_limit: SearchLimit = 256,
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
    """Report the widths; see HELP."""
    from accelsim.explore import accumulator_widths
    from accelsim.report.html import html_report

    check_outputs([output], model, [images, labels, calibration])
    choice = Choice(
        model, images, labels, limit, layout, machine, settings, calibration, calibration_limit, weight_bits,
        activation_bits, per_channel, ptq,
    )  # fmt: skip
    network, samples, classes = choice.model_and_samples()
    target = choice.machine(own_machine(network))
    with progress_bar() as progress:
        integers = choice.integers(network, progress)
        report = accumulator_widths(
            integers,
            samples,
            target,
            classes,
            max_loss=max_loss / 100,
            search_samples=search_limit,
            progress=progress,
        )
    page = html_report(report, target, network=integers, title=title, inputs=choice.facts(target))
    whole = asdict(report.register("accumulator"))
    found = {name: whole[name] for name in ("proven_bits", "needed_bits", "holds_wrap_bits", "holds_saturate_bits")}
    save(page, output, as_json, {"accumulator": found})
