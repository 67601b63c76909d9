"""``accelsim run``: a network on a machine, bit for bit."""

from __future__ import annotations

import io
import json
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accelsim.cli import options
from accelsim.cli.inputs import (
    DEFAULT_MACHINE,
    CalibrationChoice,
    check_outputs,
    describe_machine,
    load_machine,
)
from accelsim.cli.programs import open_model, own_machine, quantized_or_program
from accelsim.cli.terminal import BoundMissedError, echo, progress_bar
from accelsim.errors import DataError

if TYPE_CHECKING:
    from accelsim.simulator.results import SimulationResult

NAME = "run"
HELP = """Run a network on a machine, bit for bit: cycles, operations, overflows and accuracy, layer by layer.

\b
Examples:
  accelsim run net.npz --images images.npz:test --labels images.npz:labels
  accelsim run net.onnx --calibration images.npz:train --weight-bits 4 --images images.npz:test \\
      --machine paper_4x4 --set accumulator_bits=18 --set overflow=saturate --track range
  accelsim run net.npz --images images.npz:test --labels images.npz:labels --min-accuracy 90 --json
  accelsim run model_int8.tflite --images images.npz:test --set accumulator_bits=20 --set overflow=saturate
"""


def command(
    model: options.RunnableModel,
    images: options.Images,
    labels: options.Labels = None,
    machine: options.OwnMachineName = None,
    settings: options.Settings = None,
    engine: options.EngineChoice = options.Engine.FAST,
    track: Annotated[
        options.Track, typer.Option(help="Record nothing, overflows, or the range of all running sums, too.")
    ] = options.Track.OVERFLOW,
    energy: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="Your own prices for the energy proxy, docs/energy.md.")
    ] = None,
    activity: Annotated[bool, typer.Option("--activity", help="Count bit toggles of the PEs' registers, too.")] = False,
    activity_folds: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Count those of products and sums in N folds a layer only.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="CODES.npz", help="Write the codes of the network's outputs.")
    ] = None,
    min_accuracy: Annotated[
        float | None,
        typer.Option(metavar="PERCENT", min=0, max=100, help="Exit with status 1 where top-1 accuracy is under this."),
    ] = None,
    limit: options.Limit = None,
    threads: Annotated[int, typer.Option(metavar="N", min=1, help="Run so many batches at a time.")] = 1,
    summary: Annotated[bool, typer.Option("--summary", help="Print the integer program before it runs.")] = False,
    calibration: options.Calibration = None,
    calibration_limit: options.CalibrationLimit = None,
    weight_bits: options.WeightBits = None,
    activation_bits: options.ActivationBits = None,
    per_channel: options.PerChannel = None,
    weight_range: options.WeightRange = None,
    activation_range: options.ActivationRange = None,
    power_of_two: options.PowerOfTwo = False,
    rounding: options.Rounding = None,
    layers: options.LayerWidths = None,
    ptq: options.QuantizationFile = None,
    layout: options.FileLayout = options.Layout.CHANNELS_FIRST,
    as_json: options.Json = False,
) -> None:
    """Run a network; see HELP."""
    from accelsim.arrays import count_right
    from accelsim.simulator.energy import EnergyTable
    from accelsim.simulator.run import placed, simulate

    if min_accuracy is not None and labels is None:
        raise DataError("--min-accuracy needs to know what is right: add --labels FILE")
    if activity_folds is not None and not activity:
        raise DataError("--activity-folds needs --activity")
    table = EnergyTable() if energy is None else EnergyTable.load(energy)
    check_outputs([output], model, [images, labels, calibration])
    choices = options.quantization(
        weight_bits, activation_bits, per_channel, weight_range, activation_range, power_of_two, rounding, layers, ptq
    )
    calibrated_on = CalibrationChoice(calibration, calibration_limit, layout)
    network, samples, classes = open_model(model, calibrated_on, choices, images, labels, limit)
    target = load_machine(machine, settings or [], own_machine(network))
    with progress_bar() as progress:
        integers = quantized_or_program(network, calibrated_on, choices, progress)
        program, _ = placed(integers, target, engine.value, track.value)
        if summary and not as_json:
            echo(program.summary() + "\n")
        result = simulate(
            program, samples, target, engine=engine.value, track=track.value, progress=progress, energy=table,
            activity=activity, activity_folds=activity_folds, threads=threads,
        )  # fmt: skip
    right, labelled = None, 0 if classes is None else len(classes)  # a run of a model may be several samples
    if classes is not None:
        right = count_right(result.real_outputs[program.outputs[0]], classes)
    if output is not None:
        _write_codes(result, output)
    if as_json:
        record: dict[str, Any] = {
            "model": str(model),
            "machine": target.model_dump(mode="json"),
            "engine": engine.value,
            "energy_table": table.name,
        }
        record["accuracy"] = None if right is None else right / labelled
        record["right"] = right
        if summary:
            record["summary"] = program.summary()
        echo(json.dumps({**record, **result.to_dict()}, indent=2, allow_nan=False))
    else:
        where = describe_machine(machine or DEFAULT_MACHINE, settings or [], target)
        echo(f"{program.name} on {where}; {engine.value} engine\n")
        echo(f"{result}\n\n{_totals(result, right, labelled)}")
        if output is not None:
            echo(f"wrote {output}")
    if right is not None and min_accuracy is not None:
        _hold_to(right, labelled, min_accuracy)


def _totals(result: SimulationResult, right: int | None, labelled: int) -> str:
    """Return the lines below the table of layers."""
    cycles, operations, samples, energy = result.cycles, result.operations, result.num_samples, result.energy
    events = "not tracked" if result.overflow_events is None else f"{result.overflow_events:,}"
    macs = sum(layer.macs for layer in result.layers)
    bits = [layer.needed_bits for layer in result.layers if layer.needed_bits is not None]
    lines = [
        f"samples          {samples:,}",
        f"cycles           {cycles.total:,} ({cycles.total / samples:,.1f} a sample): multiply {cycles.multiply:,}, "
        f"load {cycles.load:,}, drain {cycles.drain:,}, stall {cycles.stall:,}, vector unit {cycles.vector:,}",
        f"operations       {operations.total:,} ({macs:,} multiply-accumulates)",
        f"zero operands    {_share(result.zero_operands.either, macs)} of the multiply-accumulates",
        f"energy           {energy.total_pj / 1e6:,.3f} uJ, a proxy: arithmetic {energy.arithmetic_pj / 1e6:,.3f}, "
        f"registers {energy.registers_pj / 1e6:,.3f}, SRAM {energy.sram_pj / 1e6:,.3f}, "
        f"DRAM {energy.dram_pj / 1e6:,.3f}",
        f"overflow events  {events}",
    ]
    if result.toggles is not None:
        toggles = result.toggles
        sampled = f"; products and sums estimated from {toggles.folds_counted:,} of {toggles.folds:,} folds"
        lines.append(
            f"bit toggles      {toggles.total:,}: weights {toggles.weight:,}, activations {toggles.activation:,}, "
            f"products {toggles.product:,}, sums {toggles.sum:,}{sampled if toggles.sampled else ''}"
        )
    if bits:
        lines.append(f"needed width     {max(bits)} bits hold every running sum of these samples")
    if right is not None:
        lines.append(f"accuracy         {100 * right / labelled:.2f} % ({right:,} of {labelled:,})")
    return "\n".join(lines)


def _share(part: int, whole: int) -> str:
    """Spell a share in percent; of nothing it is none."""
    return f"{100 * part / whole:.1f} %" if whole else "none"


def _write_codes(result: SimulationResult, path: Path) -> None:
    """Write the stored outputs under their names as an .npz file."""
    import numpy as np

    from accelsim.files import write_whole

    buffer = io.BytesIO()
    # Not np.savez: it takes the names as keyword arguments, and an output may be called "file".
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, codes in result.outputs.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(codes), allow_pickle=False)
            archive.writestr(f"{name}.npy", member.getvalue())
    write_whole(path, buffer.getvalue())


def _hold_to(right: int, samples: int, min_accuracy: float) -> None:
    """Raise BoundMissedError where the accuracy is under the bound, compared without rounding."""
    if Fraction(100 * right, samples) < Fraction(str(min_accuracy)):
        raise BoundMissedError(
            f"accuracy {100 * right / samples:.2f} % ({right} of {samples}) is under --min-accuracy {min_accuracy:g} %"
        )
