"""``accelsim sweep``: many machines, many quantizations."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accelsim.cli import options
from accelsim.cli.inputs import CalibrationChoice, check_outputs, load_machine
from accelsim.cli.programs import open_model, own_machine
from accelsim.cli.terminal import BoundMissedError, echo, progress_bar
from accelsim.errors import DataError

if TYPE_CHECKING:
    from accelsim.explore import Axis, SweepResult

NAME = "sweep"
HELP = """Run a network over any fields of machine and quantization: accuracy, cycles, operations, energy, overflows.

Points are written to an SQLite file as they come. Repeat the command to continue an interrupted sweep; start it twice
to let two processes share the points. Exit status 1 where a point failed; the others are there all the same.

\b
Examples:
  accelsim sweep net.npz --images images.npz:test --labels images.npz:labels --store sweep.sqlite \\
      --set accumulator_bits=14..32 --set dataflow=output_stationary,weight_stationary --set overflow=wrap,saturate
  accelsim sweep net.onnx --calibration images.npz:train --images images.npz:test --labels images.npz:labels \\
      --store bits.sqlite --file sweep.toml --csv points.csv
  accelsim sweep net.npz --images images.npz:test --store grids.sqlite --set rows=4..64 --set columns=4..64 \\
      --sampler nsga2 --points 100 --objective agreement --objective cycles
  accelsim sweep model_int8.tflite --images images.npz:test --store tflite.sqlite --set accumulator_bits=14..32
"""


class SamplerChoice(StrEnum):
    """Which points are run."""

    GRID = "grid"
    RANDOM = "random"
    NSGA2 = "nsga2"
    TPE = "tpe"


def command(
    model: options.RunnableModel,
    images: options.Images,
    store: Annotated[Path, typer.Option(metavar="FILE.sqlite", help="Where points are kept; made, or continued.")],
    labels: options.Labels = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUES",
            help="A field of the machine or the quantization: 14..32, 8..32..4, a,b. Repeatable.",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(metavar="SWEEP.toml", help="Fields and values in a table [set], added to those of --set."),
    ] = None,
    machine: options.OwnMachineName = None,
    sampler: Annotated[
        SamplerChoice, typer.Option(help="All points, some at random, or Optuna's multi-objective samplers.")
    ] = SamplerChoice.GRID,
    points: Annotated[int | None, typer.Option(metavar="N", min=1, help="How many points a sampler takes.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the samplers.")] = 0,
    objectives: Annotated[
        list[str] | None,
        typer.Option(
            "--objective", metavar="NAME", help="For Optuna and the Pareto front; accuracy, energy_pj, cycles."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Local processes; by default one per processor.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="tcp://HOST:PORT", help="Use the workers of a Dask cluster instead.")
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try points again that failed before.")] = False,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the points as CSV.")] = None,
    parquet: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the points as Parquet.")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the Pareto fronts as a figure: .svg, .pdf or .png.")
    ] = None,
    limit: options.Limit = None,
    calibration: options.Calibration = None,
    calibration_limit: options.CalibrationLimit = None,
    weight_bits: options.WeightBits = None,
    activation_bits: options.ActivationBits = None,
    per_channel: options.PerChannel = None,
    ptq: options.QuantizationFile = None,
    layout: options.FileLayout = options.Layout.CHANNELS_FIRST,
    as_json: options.Json = False,
) -> None:
    """Sweep; see HELP."""
    from accelsim.explore.sweeps import OBJECTIVES
    from accelsim.explore.sweeps import sweep as run_sweep
    from accelsim.graph.graph import Graph
    from accelsim.ptq import PTQConfig
    from accelsim.report.plots import figure_format

    check_outputs([store, csv, parquet, plot], model, [images, labels, calibration])
    if plot is not None:
        figure_format(plot)
    axes = _axes(settings or [], file)
    choices = options.quantization(weight_bits, activation_bits, per_channel, None, None, False, file=ptq)
    calibrated_on = CalibrationChoice(calibration, calibration_limit, layout)
    network, samples, classes = open_model(model, calibrated_on, choices, images, labels, limit)
    target = load_machine(machine, [], own_machine(network))
    chosen = tuple(objectives or (OBJECTIVES if classes is not None else ("agreement", *OBJECTIVES[1:])))
    with progress_bar() as progress:
        result = run_sweep(
            network,
            samples,
            classes,
            axes,
            machine=target,
            config=PTQConfig(**choices),
            calibration=calibrated_on.images(network) if isinstance(network, Graph) else None,
            store=store,
            sampler=sampler.value,
            points=points,
            seed=seed,
            objectives=chosen,
            workers=workers,
            scheduler=scheduler,
            retry_failed=retry_failed,
            progress=progress,
        )
    _write(result, {"to_csv": csv, "to_parquet": parquet}, plot, chosen)
    if as_json:
        echo(result.to_json())
    else:
        echo(f"{result}\n\n{_summary(result, store, chosen)}")
    if result.failed:
        first = result.failed[0].error
        raise BoundMissedError(f"{len(result.failed)} of {len(result.points)} points have an error, the first: {first}")


def _axes(settings: list[str], file: Path | None) -> list[Axis]:
    """Return the axes of the options and of the file."""
    from accelsim.explore.space import parse_axis, read_axes

    axes = [parse_axis(setting) for setting in settings]
    if file is not None:
        read, others = read_axes(file)
        if others:
            raise DataError(f"sweep file {str(file)!r}: {', '.join(others)} is not a known key; [set] is")
        axes += read
    if not axes:
        raise DataError("nothing varies: add --set FIELD=VALUES, as in --set accumulator_bits=14..32, or --file")
    return axes


def _write(result: SweepResult, tables: dict[str, Path | None], plot: Path | None, objectives: tuple[str, ...]) -> None:
    """Write the files that were asked for."""
    for method, path in tables.items():
        if path is not None:
            getattr(result, method)(path)
    if plot is not None:
        from accelsim.report.plots import save_figure
        from accelsim.report.plots_sweep import pareto_fronts

        save_figure(pareto_fronts(result, objectives[0], objectives[1:]), plot)


def _summary(result: SweepResult, store: Path, objectives: tuple[str, ...]) -> str:
    """Return the lines below the table."""
    done: tuple[Any, ...] = result.done
    lines = [f"{len(result.points)} points, {len(result.failed)} with an error; kept in {store}"]
    if done:
        front = result.pareto(objectives)
        lines.append(f"{len(front)} points that none beats in {', '.join(objectives)}:")
        lines += [f"  {', '.join(f'{name}={value}' for name, value in point.settings.items())}" for point in front[:20]]
        lines += [f"  and {len(front) - 20} more"] if len(front) > 20 else []
    return "\n".join(lines)
