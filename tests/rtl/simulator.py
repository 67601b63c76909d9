"""Runs the Verilog arrays of this folder with Icarus Verilog."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

SOURCES = Path(__file__).parent / "verilog"
RULES = {"floor": 0, "half_up": 1, "toward_zero": 2, "half_even": 3}
OPERAND_BITS = 18
"""Wide enough for signed and unsigned operands of 16 bits."""


@dataclass(frozen=True)
class Registers:
    """What the array held; the names are those of `accelsim.simulator.engine.trace.Trace` and of the result."""

    accumulators: np.ndarray
    weights: np.ndarray
    activations: np.ndarray
    overflow: np.ndarray
    column_accumulators: np.ndarray
    column_overflow: np.ndarray
    fold: np.ndarray
    outputs: np.ndarray
    events: np.ndarray
    partial_events: np.ndarray
    cycles: dict


def require_simulator():
    for program in ("iverilog", "vvp"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian package iverilog): the Verilog arrays are not simulated")


def parameters_of(machine):
    parameters = {
        "ROWS": machine.rows, "COLUMNS": machine.columns, "WEIGHT_BITS": OPERAND_BITS, "ACTIVATION_BITS": OPERAND_BITS,
        "ACC_BITS": machine.accumulator_bits, "SATURATE": int(machine.overflow == "saturate"),
        "LATENCY": machine.pe_latency_cycles, "SHIFT": machine.product_shift_bits,
        "RULE": RULES[machine.product_rounding],
    }  # fmt: skip
    if machine.dataflow == "weight_stationary":
        parameters["PARTIAL_BITS"] = machine.partial_sum_bits or 64
    return parameters


def simulate(machine, folders, work, **changed_parameters):
    """Compile an array for a machine and run it on the folders of test vectors below ``work``; return Registers."""
    array = machine.dataflow
    sources = [SOURCES / name for name in ("registers.v", f"{array}.v", f"testbench_{array}.v")]
    parameters = {**parameters_of(machine), **changed_parameters}
    overrides = [f"-Ptestbench.{name}={value}" for name, value in parameters.items()]
    program = work / "array.vvp"
    _run(["iverilog", "-g2005", "-Wall", "-s", "testbench", *overrides, "-o", str(program), *map(str, sources)], work)
    lines = [_case_line(folder, machine) for folder in folders]
    (work / "cases.txt").write_text("".join(f"{line}\n" for line in lines))
    _run(["vvp", "-n", program.name], work)
    return [_read(folder, machine) for folder in folders]


def _run(command, work):
    finished = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=120, check=False)
    said = (finished.stdout + finished.stderr).strip()
    assert finished.returncode == 0, said
    assert not said, f"{command[0]} is not silent: {said}"


def _case_line(folder, machine):
    manifest = json.loads((folder / "manifest.json").read_text())
    size, files = manifest["dimensions"], manifest["files"]
    numbers = [size["n"], size["k"], size["p"]]
    for name in ("weights.hex", "activations.hex"):
        numbers += [files[name]["bits"], int(files[name]["signed"])]
    numbers += [files["start.hex"]["bits"], int(machine.ragged_folds == "full")]
    return " ".join([folder.name, *map(str, numbers)])


def _read(folder, machine):
    table = np.array((folder / "rtl_registers.txt").read_text().split(), dtype=np.int64)
    below = 2 * machine.columns if machine.dataflow == "weight_stationary" else 0
    table = table.reshape(-1, 1 + 4 * machine.num_pes + below)
    planes = table[:, 1 : 1 + 4 * machine.num_pes].reshape(-1, machine.rows, machine.columns, 4)
    columns = table[:, 1 + 4 * machine.num_pes :].reshape(len(table), -1, 2)
    first, *lines = (folder / "rtl_outputs.txt").read_text().splitlines()
    rows = np.array([line.split() for line in lines], dtype=np.int64)
    shape = rows[:, :2].max(axis=0) + 1
    if machine.dataflow == "output_stationary":  # which has no partial sums
        rows = np.column_stack([rows, np.zeros_like(rows[:, 0])])
    return Registers(
        *(planes[..., i] for i in range(4)),
        *(columns[..., i] for i in range(2)),
        table[:, 0],
        *(rows[:, i].reshape(shape) for i in (2, 3, 4)),
        dict(zip(("load", "multiply", "drain"), map(int, first.split()), strict=True)),
    )
