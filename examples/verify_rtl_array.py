"""Does my RTL array do what the simulator says, in every register and every cycle?

A layer of the shipped network, with real operands, is written out as test vectors; a Verilog array runs on them in
Icarus Verilog; each of its registers is compared with the trace after every clock edge. Then the same array is built
with a fault (it wraps where the machine saturates), and the first register that goes wrong is named. Put your own array
and testbench in place of `tests/rtl/verilog/`: docs/vectors.md says what is in the files.

    python examples/verify_rtl_array.py                                # needs iverilog and vvp
    python examples/verify_rtl_array.py --layer classifier --bits 14
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import accelsim as ax
from accelsim.data import digits_model_path, load_digits
from accelsim.report.folds import UNUSED, states
from accelsim.report.vectors import write_traced_vectors
from accelsim.simulator.tracing import TracedLayer, trace_layer

VERILOG = Path(__file__).resolve().parents[1] / "tests" / "rtl" / "verilog"
SOURCES = ("registers.v", "output_stationary.v", "testbench_output_stationary.v")


def main() -> None:
    options = arguments()
    if shutil.which("iverilog") is None:
        sys.exit("iverilog is not installed: on Debian, apt-get install iverilog")
    machine = ax.Machine(rows=8, columns=8, accumulator_bits=options.bits, overflow="saturate")
    digits = load_digits()
    graph = ax.load_onnx(digits_model_path())
    quantized = ax.quantize(graph, calibration=digits.x_calibration, config=ax.PTQConfig(per_channel=True))
    traced = trace_layer(quantized, digits.x_test, options.layer, machine, sample=options.sample)
    trace = traced.result.trace
    print(
        f"{options.layer}: {len(trace.fold):,} cycles of {machine.num_pes} PEs, {trace.num_overflows:,} overflows of "
        f"{options.bits}-bit accumulators"
    )
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_traced_vectors(work / "layer", traced.operands, traced.result, machine, layer=traced)
        for name, saturates in (("the array", 1), ("the array with a fault", 0)):
            run_array(work, machine, saturates)
            print(f"{name}: {compare(read_registers(work, machine), traced, machine)}")


def run_array(work: Path, machine: ax.Machine, saturates: int) -> None:
    """Compile the array for the machine and run it on the test vectors."""
    parameters = {
        "ROWS": machine.rows,
        "COLUMNS": machine.columns,
        "ACC_BITS": machine.accumulator_bits,
        "SATURATE": saturates,
    }
    overrides = [f"-Ptestbench.{name}={value}" for name, value in parameters.items()]
    sources = [str(VERILOG / name) for name in SOURCES]
    compiler = ["iverilog", "-g2005", "-s", "testbench", *overrides, "-o", "array.vvp", *sources]
    subprocess.run(compiler, cwd=work, check=True)
    # What the testbench has to know stands in the manifest of the test vectors.
    manifest = json.loads((work / "layer" / "manifest.json").read_text())
    sizes, files = manifest["dimensions"], manifest["files"]
    case = ["layer", sizes["n"], sizes["k"], sizes["p"]]
    for name in ("weights.hex", "activations.hex"):
        case += [files[name]["bits"], int(files[name]["signed"])]
    case += [files["start.hex"]["bits"], int(machine.ragged_folds == "full")]
    (work / "cases.txt").write_text(" ".join(map(str, case)) + "\n")
    subprocess.run(["vvp", "-n", "array.vvp"], cwd=work, check=True)


def read_registers(work: Path, machine: ax.Machine) -> np.ndarray:
    """Return accumulator, weight, activation and overflow: int64 (4, cycles, rows, columns)."""
    lines = np.loadtxt(work / "layer" / "rtl_registers.txt", dtype=np.int64, ndmin=2)
    return np.moveaxis(lines[:, 1:].reshape(len(lines), machine.rows, machine.columns, 4), -1, 0)


def compare(registers: np.ndarray, traced: TracedLayer, machine: ax.Machine) -> str:
    """Hold the array's registers against the trace; name the first one that differs."""
    trace = traced.result.trace
    expected = np.stack([trace.accumulators, trace.weights, trace.activations, trace.overflow.astype(np.int64)])
    if registers.shape != expected.shape:
        return f"{registers.shape[1]} cycles, the trace has {expected.shape[1]}"
    # A PE that a fold has no work for hands operands on all the same; the trace shows none there.
    shape = (*traced.operands.weights.shape, traced.operands.columns.shape[1])
    in_use = states(trace, shape, machine) != UNUSED
    different = np.argwhere((registers != expected).any(axis=0) & in_use)
    if not len(different):
        return f"all {4 * np.count_nonzero(in_use):,} registers agree"
    cycle, row, column = different[0]
    where = (slice(None), cycle, row, column)
    names = ("accumulator", "weight", "activation", "overflow")
    wrong = [
        f"{name} is {is_now}, should be {should}"
        for name, is_now, should in zip(names, registers[where], expected[where], strict=True)
        if is_now != should
    ]
    return f"cycle {cycle + 1}, PE ({row}, {column}): {'; '.join(wrong)}; {len(different) - 1:,} more places differ"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layer", default="stem_conv")
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--bits", type=int, default=16, help="width of the accumulators (default 16)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
