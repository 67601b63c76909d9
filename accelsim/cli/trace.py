"""``accelsim trace``: the registers of the grid, cycle by cycle, as text, as a waveform, as test vectors for RTL."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
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
    load_samples,
    open_network,
    quantize_network,
)
from accelsim.cli.programs import load_program_samples, open_program
from accelsim.cli.spelling import spelled_as_options
from accelsim.cli.terminal import echo, progress_bar
from accelsim.errors import DataError, OperandError

if TYPE_CHECKING:
    from accelsim.cli.terminal import Progress
    from accelsim.machine import Machine
    from accelsim.program.program import IntegerProgram
    from accelsim.report.terminal import GridView
    from accelsim.simulator.engine.gemm_operands import GemmOperands
    from accelsim.simulator.engine.trace import Trace
    from accelsim.simulator.gemm_result import GemmResult
    from accelsim.simulator.tracing import TracedLayer

NAME = "trace"
HELP = """Step one matrix product or one layer of a network through the grid and show its registers.

Either MODEL with --layer and --images, or two arrays: --weights (n, k) and --activations (k, p). A cycle is a multiply
cycle, counted from 0 over all folds; the grid is printed at the first one in which a register overflows, or in the
middle, or with --at where you like.

\b
Examples:
  accelsim trace --weights w.npy --activations x.npy --set rows=4 --set columns=4 --set accumulator_bits=12
  accelsim trace net.npz --layer conv1 --images images.npz:test --sample 3 --cycles 0:200 --vcd conv1.vcd
  accelsim trace net.npz --layer conv1 --images images.npz:test --cycles 0:200 --html conv1.html
  accelsim trace net.npz --layer conv1 --images images.npz:test --cycles 0:500 --vectors conv1_vectors
"""

_MIB = 1 << 20


@dataclass(frozen=True)
class _Traced:
    """What was stepped, and under what name."""

    name: str
    operands: GemmOperands
    result: GemmResult
    trace: Trace
    layer: TracedLayer | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """N, K and P."""
        (num_outputs, reduction), num_positions = self.operands.weights.shape, self.operands.columns.shape[1]
        return num_outputs, reduction, num_positions

    @property
    def first_overflow(self) -> int | None:
        """First cycle of the window in which a register overflowed."""
        found = self.trace.overflowed()
        return self.trace.first_cycle + int(found.argmax()) if found.any() else None

    def record(self) -> dict[str, Any]:
        """Return the numbers for JSON."""
        result, trace = self.result, self.trace
        begins = trace.first_cycle, trace.first_row, trace.first_column
        events, partial = result.overflow_events, result.partial_overflow_events
        return {
            "name": self.name,
            "dimensions": dict(zip("nkp", self.shape, strict=True)),
            "cycles": result.cycles.to_dict(),
            "window": {
                name: [begin, begin + length]
                for name, begin, length in zip(
                    ("cycles", "rows", "columns"), begins, trace.accumulators.shape, strict=True
                )
            },
            "overflow_events": None if events is None else int(events.sum()),
            "partial_overflow_events": None if partial is None else int(partial.sum()),
            "overflows_in_window": trace.num_overflows,
            "first_overflow_cycle": self.first_overflow,
        }


@spelled_as_options()
def command(
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="MODEL", help="A network: float or quantized (.onnx, .tflite), or from `accelsim quantize`."
        ),
    ] = None,
    layer: Annotated[str | None, typer.Option(metavar="NAME", help="A convolution or matrix product of it.")] = None,
    images: Annotated[
        str | None, typer.Option(metavar="FILE[:ARRAY]", help="Images; the layer is traced on one of them.")
    ] = None,
    sample: Annotated[int, typer.Option(metavar="N", min=0, help="Which image, from 0.")] = 0,
    group: Annotated[int, typer.Option(metavar="N", min=0, help="Which group of a grouped convolution.")] = 0,
    weights: Annotated[
        str | None, typer.Option(metavar="FILE[:ARRAY]", help="Instead of a network: integers of shape (n, k).")
    ] = None,
    activations: Annotated[
        str | None, typer.Option(metavar="FILE[:ARRAY]", help="With --weights: integers of shape (k, p).")
    ] = None,
    bias: Annotated[
        str | None, typer.Option(metavar="FILE[:ARRAY]", help="With --weights: integers of shape (n,).")
    ] = None,
    machine: options.OwnMachineName = None,
    settings: options.Settings = None,
    cycles: Annotated[str | None, typer.Option(metavar="A:B", help="Record cycles A to B - 1 only.")] = None,
    rows: Annotated[str | None, typer.Option(metavar="A:B", help="Record rows A to B - 1 only.")] = None,
    columns: Annotated[str | None, typer.Option(metavar="A:B", help="Record columns A to B - 1 only.")] = None,
    memory: Annotated[int, typer.Option(metavar="MIB", min=1, help="Memory that the trace may take.")] = 1024,
    at: Annotated[int | None, typer.Option(metavar="CYCLE", min=0, help="Print the grid after this cycle.")] = None,
    vcd: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a waveform for GTKWave or Surfer.")] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a page that steps through the cycles.")
    ] = None,
    vectors: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write operands, outputs and trace for a Verilog testbench.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a DIR that holds test vectors.")] = False,
    calibration: options.Calibration = None,
    calibration_limit: options.CalibrationLimit = None,
    weight_bits: options.WeightBits = None,
    activation_bits: options.ActivationBits = None,
    per_channel: options.PerChannel = None,
    layout: options.FileLayout = options.Layout.CHANNELS_FIRST,
    as_json: options.Json = False,
) -> None:
    """Trace; see HELP."""
    from accelsim.report.vector_folder import check_folder

    _check_choice(model, {"--layer": layer, "--images": images}, {"--weights": weights, "--activations": activations})
    check_outputs([vcd, html], model, [images, calibration, weights, activations, bias])
    if vectors is not None:
        check_folder(vectors.resolve(), overwrite)
    elif overwrite:
        raise DataError("--overwrite needs --vectors DIR")
    calibrated_on = CalibrationChoice(calibration, calibration_limit, layout)
    choices = options.quantization(weight_bits, activation_bits, per_channel, None, None, False)
    imported = None if model is None else open_program(model, calibrated_on, choices)
    target = load_machine(machine, settings or [], None if imported is None else imported.machine)
    window = {
        "trace_cycles": index_range("--cycles", cycles),
        "trace_rows": index_range("--rows", rows),
        "trace_columns": index_range("--columns", columns),
        "trace_limit_bytes": memory * _MIB,
    }
    with progress_bar() as progress:
        if model is None:
            traced = _trace_arrays((weights or "", activations or "", bias), target, window)
        else:
            program, every = _network(model, imported, images or "", target, calibrated_on, choices, progress)
            traced = _trace_layer(program, every, layer, target, {"sample": sample, "group": group, **window})
        view = _view(traced, target, at, wide=as_json)
        written = _write(traced, target, {"vcd": vcd, "html": html, "vectors": vectors}, overwrite, progress)
    if as_json:
        record = {"machine": target.model_dump(mode="json"), **traced.record()}
        echo(json.dumps({**record, "grid": view.to_dict(), "files": written}, indent=2, allow_nan=False))
        return
    where = describe_machine(machine or DEFAULT_MACHINE, settings or [], target)
    echo(f"{traced.name} on {where}\n\n{_summary(traced)}\n")
    _print(view)
    for path in written.values():
        echo(f"wrote {path}")


def _check_choice(model: Path | None, network: dict[str, str | None], arrays: dict[str, str | None]) -> None:
    """Refuse half a choice, or both: a network with a layer and images, or two arrays."""
    if model is None:
        missing = [name for name, value in arrays.items() if value is None]
        given = [name for name, value in network.items() if value is not None]
        if given:
            raise DataError(f"{', '.join(given)}: of which network? give MODEL, its file, too")
        if missing:
            raise DataError(
                f"nothing to trace: give MODEL with --layer and --images, or --weights and --activations "
                f"({', '.join(missing)} missing)"
            )
        return
    given = [name for name, value in arrays.items() if value is not None]
    if given:
        raise DataError(f"{', '.join(given)} and MODEL exclude each other: trace a network's layer, or two arrays")
    if network["--images"] is None:
        raise DataError("a layer is traced on real data: add --images FILE[:ARRAY]")


def index_range(option: str, text: str | None) -> tuple[int, int] | None:
    """Return ``A:B`` as a pair; ``option`` is named where it is none."""
    if text is None:
        return None
    begin, colon, end = text.partition(":")
    if not (colon and begin.strip().isdecimal() and end.strip().isdecimal()):
        raise OperandError(f"{option} must be A:B, the first one and the one after the last, as in 0:100; got {text!r}")
    return int(begin), int(end)


def _trace_arrays(files: tuple[str, str, str | None], machine: Machine, window: dict[str, Any]) -> _Traced:
    """Step a matrix product of arrays from files."""
    from accelsim.arrays import read_array
    from accelsim.simulator.gemm import matmul
    from accelsim.simulator.operands import matmul_operands

    weights, activations = read_array(files[0]), read_array(files[1])
    bias = None if files[2] is None else read_array(files[2])
    result = matmul(weights, activations, machine, bias=bias, engine="stepped", trace=True, **window)
    operands = matmul_operands(weights, activations, machine, bias, 0, 0)
    assert result.trace is not None
    return _Traced(f"{files[0]} x {files[1]}", operands, result, result.trace, None)


def _network(
    model: Path,
    imported: IntegerProgram | None,
    images: str,
    machine: Machine,
    calibration: CalibrationChoice,
    choices: dict[str, Any],
    progress: Progress | None,
) -> tuple[IntegerProgram, Any]:
    """Return the program of a model on the machine, and the images."""
    from accelsim.program.lowering import lower
    from accelsim.simulator.run import placed

    if imported is not None:
        every, _ = load_program_samples(model, imported, images, None, None, calibration.layout)
        return placed(imported, machine, "stepped", "overflow")[0], every
    network = open_network(model, calibration, choices)
    every, _ = load_samples(network, images, None, None, calibration.layout)
    return lower(quantize_network(network, calibration, choices, progress), machine), every


def _trace_layer(
    program: IntegerProgram, images: Any, layer: str | None, machine: Machine, choice: dict[str, Any]
) -> _Traced:
    """Step a layer of a network on one image."""
    from accelsim.simulator.tracing import trace_layer, traceable_layers

    if layer is None:
        listed = ", ".join(f"{name} ({n}x{k}x{p})" for name, (n, k, p) in traceable_layers(program).items())
        raise DataError(f"name a layer with --layer; channels x terms x positions of each: {listed}")
    traced = trace_layer(program, images, layer, machine, **choice)
    trace = traced.result.trace
    assert trace is not None
    of_groups = "" if traced.layer.groups == 1 else f", group {traced.group} of {traced.layer.groups}"
    name = f"{program.name}, layer {layer} ({traced.layer.op}){of_groups}, sample {choice['sample']}"
    return _Traced(name, traced.operands, traced.result, trace, traced)


def _view(traced: _Traced, machine: Machine, at: int | None, wide: bool) -> GridView:
    """Return the grid at the cycle that is asked for, or that has most to show."""
    import shutil

    from accelsim.report.terminal import GridView

    cycle = at
    if cycle is None:
        cycle = traced.first_overflow
    if cycle is None:
        cycle = traced.trace.first_cycle + len(traced.trace.fold) // 2
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() and not wide else None
    return GridView.of(traced.trace, machine, traced.shape, cycle, width)


def _write(
    traced: _Traced,
    machine: Machine,
    files: dict[str, Path | None],
    overwrite: bool,
    progress: Progress | None,
) -> dict[str, str]:
    """Write the files that were asked for; return their names."""
    written = {}
    vcd, html, vectors = files["vcd"], files["html"], files["vectors"]
    if html is not None:  # first: it may be more than a page shows
        from accelsim.report.html import html_report

        html_report(traced.result if traced.layer is None else traced.layer, machine, title=traced.name).save(html)
        written["html"] = str(html)
    if vcd is not None:
        from accelsim.report.vcd import write_vcd

        write_vcd(vcd, traced.trace, machine, progress=progress)
        written["vcd"] = str(vcd)
    if vectors is not None:
        from accelsim.report.vectors import write_traced_vectors

        write_traced_vectors(
            vectors, traced.operands, traced.result, machine, layer=traced.layer, overwrite=overwrite
        )  # fmt: skip
        written["vectors"] = str(vectors / "manifest.json")
    return written


def _summary(traced: _Traced) -> str:
    """Return what the run came to, above the grid."""
    record = traced.record()
    (n, k, p), counted = traced.shape, traced.result.cycles
    window = ", ".join(f"{name} {begin}:{end}" for name, (begin, end) in record["window"].items())
    first = record["first_overflow_cycle"]
    lines = [
        f"dimensions   {n} channels x {k} terms x {p} positions",
        f"cycles       multiply {counted.multiply:,}, load {counted.load:,}, drain {counted.drain:,}",
        f"recorded     {window}",
        f"overflows    {record['overflow_events']:,} of accumulators, {record['partial_overflow_events']:,} of partial "
        f"sums or trees; {record['overflows_in_window']:,} in the window"
        + ("" if first is None else f", the first in cycle {first:,}"),
    ]
    return "\n".join(lines)


def _print(view: GridView) -> None:
    """Print the grid, in colour on a terminal."""
    if not sys.stdout.isatty():
        echo(view.text())
        return
    from rich.console import Console

    Console(highlight=False).print(view.styled())
