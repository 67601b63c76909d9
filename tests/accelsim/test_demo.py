import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import accelsim as ax
from accelsim import demo
from accelsim.cli import app
from accelsim.data import digits_model_path, load_digits
from accelsim.simulator.engine import compile_ahead

ROOT = Path(__file__).resolve().parents[2]


def test_a_small_demonstration_measures_what_single_runs_give(monkeypatch):
    """One quantization, one machine, two images, so that it also runs with the JIT off."""
    monkeypatch.setattr(demo, "WIDTHS", ((8, 8, True),))
    monkeypatch.setattr(demo, "RECIPES", ((8, 8, True),))
    monkeypatch.setattr(demo, "MACHINES", ("edge_16x16",))
    monkeypatch.setattr(demo, "COLLAPSED", 1.01)  # narrowing ends at the first width
    lines = []
    report = demo.run_demo(lines.append, num_images=2)
    digits, graph = load_digits(), ax.load_onnx(digits_model_path())
    images, labels = digits.x_test[:2], digits.y_test[:2]
    quantized = ax.quantize(graph, digits.x_calibration, ax.PTQConfig(per_channel=True))
    expected = ax.simulate(quantized, images)
    (run,) = report.runs
    assert (run.weight_bits, run.activation_bits, run.per_channel, run.machine) == (8, 8, True, "edge_16x16")
    assert (run.cycles, run.operations) == (expected.cycles.total, expected.operations.total)
    assert run.macs == 2 * report.macs_per_image
    assert run.integer_accuracy == (expected.real_outputs["logits"].argmax(axis=1) == labels).mean()
    assert [(width.accumulator_bits, width.overflow) for width in report.narrowed] == [
        (report.safe_bits, "wrap"),
        (report.safe_bits, "saturate"),
    ]
    assert len(lines) == 5
    (recipe,) = report.recipes
    assert recipe.pipeline_accuracy == run.integer_accuracy
    assert recipe.float_accuracy == run.float_accuracy
    assert str(report) == "\n\n".join(
        [report.runs_table(), report.recipes_table(), report.narrowed_table(), report.conclusion()]
    )
    assert demo.run_demo(num_images=2) == report


_KERNELS_OF = """
import json
import accelsim as ax
from accelsim import demo
from accelsim.cli.demo import rehearse_narrowing
from accelsim.data import digits_model_path, load_digits
from tests.kernels.test_specialisations import signatures

kernels = []
for part in {}:
    exec(part)
    kernels.append([f"{{name}}{{types}}" for name, found in signatures().items() for types in found])
print(json.dumps(kernels))
"""
_BEGINNING = """
digits = load_digits()
network = ax.quantize(ax.load_onnx(digits_model_path()), digits.x_calibration, ax.PTQConfig(per_channel=True))
ax.simulate(network, digits.x_test, ax.Machine.preset(demo.NARROWED_MACHINE))
"""


def _kernels_of(*parts):
    """Return the compiled variants of kernels that a new process has called after each part of its program."""
    code = _KERNELS_OF.format(parts)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [set(kernels) for kernels in json.loads(done.stdout)]


@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="nothing is compiled with the JIT off")
def test_what_is_compiled_ahead_is_all_that_narrowing_needs():
    """Else the demonstration would compile at its end, alone: it would give the same report, half a minute later."""
    beginning, both = _kernels_of(_BEGINNING, "demo._narrow(network, digits, demo._silent)")
    needed = both - beginning
    assert any("extremes.bound_layer" in kernel for kernel in needed)
    (rehearsed,) = _kernels_of("rehearse_narrowing()")
    assert needed <= rehearsed


def _report(*narrowed):
    runs = tuple(demo.NarrowedRun(bits, mode, accuracy, 0) for bits, mode, accuracy in narrowed)
    return demo.DemoReport("net", 10, 10, 1, (), "edge", 12, runs)


def test_the_narrowest_width_without_loss_ends_at_the_first_loss():
    """A narrower width that happens to be right again does not count."""
    report = _report(
        (12, "wrap", 0.9), (11, "wrap", 0.95), (10, "wrap", 0.89), (9, "wrap", 0.9),
        (12, "saturate", 0.9), (11, "saturate", 0.8), (10, "saturate", 0.7), (9, "saturate", 0.2),
    )  # fmt: skip
    assert report.narrowest_without_loss("wrap") == 11
    assert report.narrowest_without_loss("saturate") == 12
    assert "has 11 bits where it wraps and 12 bits where it saturates; with 12 bits nothing" in report.conclusion()
    assert [row.split() for row in report.narrowed_table().splitlines()[2:]] == [
        ["12", "90.0", "0", "90.0", "0"],
        ["11", "95.0", "0", "80.0", "0"],
        ["10", "89.0", "0", "70.0", "0"],
        ["9", "90.0", "0", "20.0", "0"],
    ]


@pytest.mark.parametrize("arguments", [["demo"], ["demo", "--json"]])
def test_the_command_prints_the_report(monkeypatch, arguments):
    measured = demo.DemoRun(4, 8, False, "edge", 0.95, 0.85, 0.75, 12345, 100, 250, 6789, 3, 1, 0.25)
    report = replace(_report((12, "wrap", 0.9), (12, "saturate", 0.9)), runs=(measured,))

    def run(step):
        step("a step")
        return report

    monkeypatch.setattr(demo, "run_demo", run)
    monkeypatch.setattr(compile_ahead, "cpu_count", lambda: 1)  # nothing is compiled ahead
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    if "--json" in arguments:
        record = json.loads(result.stdout)
        assert record["runs"] == [asdict(measured)]
        assert record["narrowest_without_loss"] == {"wrap": 12, "saturate": 12}
        assert record["conclusion"] == report.conclusion()
    else:
        assert result.stdout.split("\n\n")[0].endswith("\na step")
        row = next(line for line in result.stdout.splitlines() if line.startswith("W4A8"))
        expected = "W4A8 per tensor edge 95.0 85.0 75.0 12,345 100 250 6,789 3 1"
        assert row.split() == expected.split()
        assert result.stdout.endswith(f"{report.narrowed_table()}\n\n{report.conclusion()}\n")


@pytest.fixture(scope="module")
def whole():
    """Run the demonstration as a user does who wants JSON."""
    result = CliRunner().invoke(app, ["demo", "--json"])
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return json.loads(result.stdout)


@pytest.mark.slow
def test_the_demonstration_has_every_quantization_on_every_machine(whole):
    columns = ("weight_bits", "activation_bits", "per_channel", "machine")
    assert [[run[column] for column in columns] for run in whole["runs"]] == [
        [weight_bits, 8, per_channel, machine]
        for weight_bits in (8, 4)
        for per_channel in (False, True)
        for machine in ("paper_4x4", "edge_16x16")
    ]  # fmt: skip
    assert whole["num_images"] == len(load_digits().x_test)
    for run in whole["runs"]:
        assert run["macs"] == whole["num_images"] * whole["macs_per_image"]
        assert run["operations"] > 2 * run["macs"]
        pes = {"paper_4x4": 16, "edge_16x16": 256}[run["machine"]]
        assert run["cycles"] * pes > run["macs"]
        assert run["overflow_events"] == 0  # 32 bits
        assert run["largest_difference"] >= run["largest_own_difference"]
        assert run["largest_own_difference"] <= 1


@pytest.mark.slow
def test_the_machine_does_not_change_what_the_network_answers_while_nothing_overflows(whole):
    by_machine = {}
    for run in whole["runs"]:
        key = run["weight_bits"], run["per_channel"]
        by_machine.setdefault(key, set()).add((run["integer_accuracy"], run["largest_difference"]))
    assert all(len(answers) == 1 for answers in by_machine.values())


@pytest.mark.slow
def test_eight_bits_keep_the_accuracy(whole):
    for run in whole["runs"]:
        assert run["float_accuracy"] > 0.97
        if run["weight_bits"] == 8 and run["per_channel"]:
            assert abs(run["integer_accuracy"] - run["float_accuracy"]) <= 0.02
            assert abs(run["simulated_accuracy"] - run["float_accuracy"]) <= 0.02


@pytest.mark.slow
def test_the_accumulator_is_narrowed_from_safe_to_collapsed(whole):
    narrowed = {mode: [run for run in whole["narrowed"] if run["overflow"] == mode] for mode in ("wrap", "saturate")}
    widths = [run["accumulator_bits"] for run in narrowed["wrap"]]
    assert widths == list(range(whole["safe_bits"], whole["safe_bits"] - len(widths), -1))
    assert [run["accumulator_bits"] for run in narrowed["saturate"]] == widths
    full = next(
        run for run in whole["runs"]
        if run["machine"] == whole["narrowed_machine"] and run["weight_bits"] == 8 and run["per_channel"]
    )  # fmt: skip
    for runs in narrowed.values():
        assert runs[0]["overflow_events"] == 0
        for run in runs:
            # without events there is nothing that the width could have changed
            assert run["overflow_events"] > 0 or run["accuracy"] == full["integer_accuracy"]
        assert runs[-1]["accuracy"] < demo.COLLAPSED * full["integer_accuracy"]
        assert whole["narrowest_without_loss"][runs[0]["overflow"]] in widths
    # an accumulator that wraps or saturates for the first time does so on the same sum
    assert [run["overflow_events"] > 0 for run in narrowed["wrap"]] == [
        run["overflow_events"] > 0 for run in narrowed["saturate"]
    ]
    # the safe width is the least one: the running sums of these images need all of its bits
    assert narrowed["wrap"][1]["overflow_events"] > 0
