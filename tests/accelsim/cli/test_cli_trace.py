import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import accelsim as ax
from accelsim.report.terminal import GridView
from accelsim.simulator.tracing import trace_layer

from .conftest import assert_failed, assert_refused

WEIGHTS = np.array([[100, 100, -100], [1, 2, 3]])
ACTIVATIONS = np.array([[1, 2], [1, 0], [1, 1]])
SMALL_GRID = ["--set", "rows=2", "--set", "columns=2", "--set", "accumulator_bits=8"]


@pytest.fixture
def arrays(tmp_path):
    np.save(tmp_path / "w.npy", WEIGHTS)
    np.savez(tmp_path / "rest.npz", x=ACTIVATIONS, b=np.array([0, 5]))
    return ["--weights", tmp_path / "w.npy", "--activations", f"{tmp_path / 'rest.npz'}:x"]


def test_arrays_show_the_grid_where_it_overflows_first(accelsim, arrays):
    result = accelsim("trace", *arrays, *SMALL_GRID)
    assert result.exit_code == 0, result.output
    machine = ax.Machine.preset("edge_16x16").replace(rows=2, columns=2, accumulator_bits=8)
    expected = ax.matmul(WEIGHTS, ACTIVATIONS, machine, engine="stepped", trace=True)
    first = int(expected.trace.overflowed().argmax())
    assert first > 0
    assert GridView.of(expected.trace, machine, (2, 3, 2), first).text() in result.stdout
    assert "2 channels x 3 terms x 2 positions" in result.stdout
    assert f"overflows    {expected.overflow_events.sum()} of accumulators" in result.stdout
    assert f"the first in cycle {first}" in result.stdout
    assert "-56!" in result.stdout
    assert result.stderr == ""


def test_at_chooses_the_cycle_and_bias_is_added(accelsim, arrays, tmp_path):
    result = accelsim("trace", *arrays, *SMALL_GRID, "--bias", f"{tmp_path / 'rest.npz'}:b", "--at", 0)
    assert result.stdout.count("multiply cycle 0, fold 0 of 1") == 1
    machine = ax.Machine.preset("edge_16x16").replace(rows=2, columns=2, accumulator_bits=8)
    trace = ax.matmul(WEIGHTS, ACTIVATIONS, machine, bias=[0, 5], engine="stepped", trace=True).trace
    assert GridView.of(trace, machine, (2, 3, 2), 0).text() in result.stdout


def test_json_has_the_numbers_and_the_grid(accelsim, arrays):
    result = accelsim("trace", *arrays, *SMALL_GRID, "--cycles", "1:4", "--columns", "0:1", "--json")
    record = json.loads(result.stdout)
    machine = ax.Machine.preset("edge_16x16").replace(rows=2, columns=2, accumulator_bits=8)
    expected = ax.matmul(
        WEIGHTS, ACTIVATIONS, machine, engine="stepped", trace=True, trace_cycles=(1, 4), trace_columns=(0, 1)
    )
    assert record["dimensions"] == {"n": 2, "k": 3, "p": 2}
    assert record["window"] == {"cycles": [1, 4], "rows": [0, 2], "columns": [0, 1]}
    assert record["overflow_events"] == expected.overflow_events.sum() > 0
    assert record["overflows_in_window"] == expected.trace.num_overflows > 0
    assert record["first_overflow_cycle"] == 1 + expected.trace.overflowed().argmax()
    assert record["cycles"] == expected.cycles.to_dict()
    assert record["machine"]["accumulator_bits"] == 8
    assert [row["row"] for row in record["grid"]["rows"]] == ["r0 p=0", "r1 p=1"]
    assert record["files"] == {}


def test_a_layer_of_a_network_with_its_files(accelsim, small, quantized, tmp_path):
    machine = ["--set", "accumulator_bits=12", "--set", "dataflow=weight_stationary"]
    result = accelsim(
        "trace", quantized, "--layer", "conv", "--images", small.test, "--sample", 3, *machine, "--cycles", "10:30",
        "--vcd", tmp_path / "a.vcd", "--vectors", tmp_path / "v",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    target = ax.Machine.preset("edge_16x16").replace(accumulator_bits=12, dataflow="weight_stationary")
    expected = trace_layer(
        ax.QuantizedGraph.load(quantized), small.arrays.test, "conv", target, sample=3, trace_cycles=(10, 30)
    )
    first = 10 + int(expected.result.trace.overflowed().argmax())
    shape = (6, 27, 25)
    assert GridView.of(expected.result.trace, target, shape, first).text() in result.stdout
    assert result.stdout.endswith(f"wrote {tmp_path / 'a.vcd'}\nwrote {tmp_path / 'v' / 'manifest.json'}\n")
    assert (tmp_path / "a.vcd").read_text().count("\n#") == 20 + 1
    manifest = json.loads((tmp_path / "v" / "manifest.json").read_text())
    assert manifest["layer"] == "conv"
    assert manifest["files"]["trace_accumulators.hex"]["shape"] == [20, 16, 16]
    assert manifest["files"]["outputs.hex"]["shape"] == [6, 25]


def test_a_float_network_is_quantized_first(accelsim, small, quantized):
    common = ["--layer", "classifier", "--images", small.test, "--json"]
    from_file = accelsim("trace", quantized, *common)
    at_once = accelsim("trace", small.model, "--calibration", small.train, "--per-channel", *common)
    assert at_once.exit_code == 0, at_once.output
    assert json.loads(at_once.stdout) == json.loads(from_file.stdout)


def test_vectors_are_replaced_when_asked(accelsim, arrays, tmp_path):
    assert accelsim("trace", *arrays, "--vectors", tmp_path / "v").exit_code == 0
    assert_refused(
        accelsim("trace", *arrays, "--vectors", tmp_path / "v"), "holds test vectors already", "with --overwrite\n"
    )
    assert accelsim("trace", *arrays, "--vectors", tmp_path / "v", "--overwrite").exit_code == 0


def test_a_window_that_fits_is_advised_in_options_that_can_be_typed(accelsim, quantized, small):
    common = ["trace", quantized, "--images", small.test, "--layer", "conv", "--memory", "1", "--set", "rows=2000"]
    result = accelsim(*common)
    advised = re.search(
        r"fit: ((?:--(?:cycles|rows|columns) \d+:\d+ ?){3}); or raise the limit with --memory\n$", result.stderr
    )
    assert_refused(result, "trace")
    assert "trace_" not in result.stderr
    assert accelsim(*common, *advised[1].split()).exit_code == 0


def test_an_overflow_that_the_machine_forbids_is_status_1(accelsim, arrays, tmp_path):
    result = accelsim("trace", *arrays, *SMALL_GRID, "--set", "overflow=error", "--vcd", tmp_path / "a.vcd")
    assert_failed(result, "accumulator overflow events")
    assert not (tmp_path / "a.vcd").exists()


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        ([], ["nothing to trace", "--weights, --activations missing"]),
        (["--weights", "w.npy"], ["--activations missing"]),
        (["--layer", "conv"], ["--layer: of which network? give MODEL"]),
        (["NET", "--weights", "w.npy"], ["exclude each other"]),
        (["NET"], ["add --images"]),
        (["NET", "--images", "IMAGES"], ["--layer", "conv (6x27x25)", "classifier (4x150x1)"]),
        (["NET", "--images", "IMAGES", "--layer", "none"], ["one of conv, classifier; got 'none'"]),
        (["NET", "--images", "IMAGES", "--layer", "conv", "--sample", "16"], ["sample must be one of the 16"]),
        (["NET", "--images", "IMAGES", "--layer", "conv", "--group", "1"], ["group must be one of the 1"]),
        (["NET", "--images", "IMAGES", "--layer", "conv", "--cycles", "5"], ["--cycles must be A:B", "got '5'"]),
        (["NET", "--images", "IMAGES", "--layer", "conv", "--rows", "3:99"], ["--rows must lie", "16 rows", "3..99"]),
        (["NET", "--images", "IMAGES", "--layer", "conv", "--at", "9999"], ["cycle must be one of the trace", "9999"]),
        (["NET", "--images", "IMAGES", "--layer", "conv", "--overwrite"], ["--overwrite needs --vectors"]),
        (["NET", "--images", "IMAGES", "--layer", "conv", "--vcd", "none/a.vcd"], ["there is no folder 'none'"]),
        (["NET", "--images", "IMAGES", "--layer", "conv", "--vectors", "none/v"], ["is not a folder; make it first"]),
        (
            ["NET", "--images", "IMAGES", "--layer", "conv", "--memory", "1", "--set", "rows=2000"],
            ["more than the limit of 1,048,576", "cycles 0:"],
        ),
    ],
)
def test_wrong_input_is_one_line(accelsim, small, quantized, tmp_path, monkeypatch, arguments, fragments):
    monkeypatch.chdir(tmp_path)
    names = {"NET": quantized, "IMAGES": small.test}
    assert_refused(accelsim("trace", *(names.get(argument, argument) for argument in arguments)), *fragments)
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_shows_colours_and_what_fits_its_width(arrays):
    """The same grid in 80 columns of a terminal, overflows in red."""
    root = Path(__file__).resolve().parents[3]
    environment = {
        **os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'kernels'}", "COLUMNS": "80", "TERM": "xterm-256color",
    }  # fmt: skip
    environment.pop("NO_COLOR", None)
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "from accelsim.cli import main; main()", "trace", *map(str, arrays), "--set",
         "accumulator_bits=8"],
        env=environment, stdout=slave, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(slave)
    output = b""
    try:
        while chunk := os.read(master, 65536):
            output += chunk
    except OSError:  # the terminal is closed with the program
        pass
    os.close(master)
    assert process.wait(timeout=60) == 0
    text = output.decode()
    assert "\x1b[1;31m" in text
    assert "fit the line" in text
