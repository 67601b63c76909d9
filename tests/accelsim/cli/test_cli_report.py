import hashlib
import json
import re

import numpy as np

from .conftest import assert_refused


def _trace(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" class="trace">(.*?)</script>', text).group(1))


def test_a_run_as_a_page(accelsim, small, quantized, tmp_path):
    output = tmp_path / "run.html"
    result = accelsim(
        "report", "run", quantized, "--images", small.test, "--labels", small.labels, "--set", "accumulator_bits=14",
        "--machine", "paper_4x4", "--output", output, "--title", "A title & more", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["sections"] == ["summary", "layers", "figures", "cycles", "provenance"]
    assert found["bytes"] == output.stat().st_size
    assert found["traced"] == ["conv"]
    run = accelsim(
        "run", quantized, "--images", small.test, "--labels", small.labels, "--set", "accumulator_bits=14", "--json",
        "--machine", "paper_4x4",
    )  # fmt: skip
    whole = json.loads(run.stdout)
    assert found["accuracy"] == whole["accuracy"]
    page = output.read_text(encoding="utf-8")
    assert "<h1>A title &amp; more</h1>" in page
    assert f"{whole['cycles']['total']:,} for 16 samples" in page
    for file in (quantized, small.data):
        assert hashlib.sha256(file.read_bytes()).hexdigest() in page
    assert "data.npz:test" in page
    assert str(small.folder) not in page
    (view,) = _trace(output)
    assert view["name"] == "conv"
    assert view["shape"] == {"n": 6, "k": 27, "p": 25}
    assert view["window"]["cycles"] == [0, view["num_cycles"]]


def test_layers_and_windows_of_the_viewer(accelsim, small, quantized, tmp_path):
    output = tmp_path / "run.html"
    result = accelsim(
        "report", "run", quantized, "--images", small.test, "--output", output, "--trace", "conv", "--trace",
        "classifier", "--sample", 3, "--cycles", "2:9", "--rows", "0:4", "--columns", "1:3",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"wrote {output} (")
    assert [(view["name"], view["window"]) for view in _trace(output)] == [
        (name, {"cycles": [2, 9], "rows": [0, 4], "columns": [1, 3]}) for name in ("conv", "classifier")
    ]
    other = tmp_path / "other.html"
    arguments = ["report", "run", quantized, "--images", small.test, "--trace", "conv", "--output", other]
    assert accelsim(*arguments, "--no-trace").exit_code == 0
    assert 'class="trace"' not in other.read_text(encoding="utf-8")


def test_a_comparison_as_a_page(accelsim, small, quantized, tmp_path):
    output = tmp_path / "compare.html"
    arguments = ["--images", small.test, "--labels", small.labels, "--output", output]
    first = accelsim("report", "compare", quantized, *arguments, "--json")
    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout)["metrics"]["float"]["top1"] == 1.0
    page = output.read_text(encoding="utf-8")
    float_model = accelsim("report", "compare", small.model, "--calibration", small.train, "--per-channel", *arguments)
    assert float_model.exit_code == 0, float_model.output
    tables = [re.search(r"<tbody>.*?</tbody>", text).group(0) for text in (page, output.read_text(encoding="utf-8"))]
    assert tables[0] == tables[1]


def test_widths_as_a_page(accelsim, small, quantized, tmp_path):
    output = tmp_path / "widths.html"
    arguments = [quantized, "--images", small.test, "--labels", small.labels, "--max-loss", 20, "--limit", 4]
    result = accelsim("report", "widths", *arguments, "--output", output, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    whole = json.loads(accelsim("widths", *arguments, "--json").stdout)
    (register,) = [r for r in whole["network_registers"] if r["register"] == "accumulator"]
    assert found["accumulator"] == {name: register[name] for name in found["accumulator"]}
    assert f"{register['proven_bits']} bits" in output.read_text(encoding="utf-8")


def test_a_sweep_as_a_page(accelsim, small, quantized, tmp_path):
    store, output = tmp_path / "sweep.sqlite", tmp_path / "sweep.html"
    swept = accelsim(
        "sweep", quantized, "--images", small.test, "--labels", small.labels, "--store", store, "--workers", 1,
        "--set", "accumulator_bits=14,20", "--set", "overflow=wrap,saturate", "--json",
    )  # fmt: skip
    assert swept.exit_code == 0, swept.output
    points = json.loads(swept.stdout)["points"]
    result = accelsim("report", "sweep", store, "--output", output, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["points"], found["failed"]) == (4, 0)
    assert found["sections"] == ["summary", "figures", "points", "provenance"]
    page = output.read_text(encoding="utf-8")
    for point in points:
        assert f"{point['metrics']['cycles']:,}</td>" in page
    assert_refused(accelsim("report", "sweep", tmp_path / "none.sqlite", "--output", output), "none.sqlite")
    assert_refused(accelsim("report", "sweep", store, "--output", store), "is an input")


def test_a_trace_as_a_page(accelsim, tmp_path):
    np.save(tmp_path / "w.npy", np.array([[3, -2], [1, 4]]))
    np.save(tmp_path / "x.npy", np.array([[5], [6]]))
    output = tmp_path / "trace.html"
    result = accelsim(
        "trace", "--weights", tmp_path / "w.npy", "--activations", tmp_path / "x.npy", "--html", output, "--json"
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["files"] == {"html": str(output)}
    assert _trace(output)[0]["shape"] == {"n": 2, "k": 2, "p": 1}


def test_what_is_wrong_is_said_in_one_line(accelsim, small, quantized, tmp_path):
    output = tmp_path / "run.html"
    arguments = ["report", "run", quantized, "--images", small.test, "--output", output]
    assert_refused(accelsim(*arguments, "--trace", "nothing"), "layer must be", "conv, classifier", "'nothing'")
    assert_refused(accelsim(*arguments, "--cycles", "4"), "--cycles must be A:B")
    assert_refused(accelsim(*arguments, "--cycles", "7:7"), "--cycles must lie in")
    assert_refused(accelsim(*arguments, "--sample", "99"), "sample must be one of the 16")
    wide = ["--set", "rows=128", "--set", "columns=64", "--rows", "0:128"]
    assert_refused(accelsim(*arguments, *wide, "--columns", "0:64"), "8,192 PEs (at most 4,096)", "rows 0:64")
    assert_refused(
        accelsim("report", "run", quantized, "--images", small.test, "--output", tmp_path / "no" / "r.html"),
        "there is no folder",
    )
    assert_refused(
        accelsim("report", "compare", quantized, "--images", small.test, "--output", quantized), "is an input"
    )
    assert not output.exists()
