import csv
import json

import pytest

import accelsim as ax

from .conftest import NUM_TEST, assert_failed, assert_refused


def sweep(accelsim, small, network, store, *options):
    return accelsim(
        "sweep", network, "--images", small.test, "--labels", small.labels, "--store", store, "--workers", 1, *options
    )


def test_json_and_files_are_those_of_the_library(accelsim, small, quantized, tmp_path):
    settings = ["--set", "accumulator_bits=12,16..18", "--set", "overflow=wrap,saturate", "--machine", "paper_4x4"]
    files = ["--csv", tmp_path / "s.csv", "--plot", tmp_path / "s.svg"]
    result = sweep(accelsim, small, quantized, tmp_path / "s.sqlite", *settings, *files, "--json")
    assert result.exit_code == 0, result.output
    expected = ax.sweep(
        ax.QuantizedGraph.load(quantized),
        small.arrays.test,
        small.arrays.labels,
        {"accumulator_bits": [12, 16, 17, 18], "overflow": ["wrap", "saturate"]},
        machine=ax.Machine.preset("paper_4x4"),
        workers=1,
    )
    assert json.loads(result.stdout) == json.loads(expected.to_json())
    with (tmp_path / "s.csv").open(newline="") as file:
        assert [int(row["accumulator_bits"]) for row in csv.DictReader(file)] == [12, 12, 16, 16, 17, 17, 18, 18]
    assert b"<svg" in (tmp_path / "s.svg").read_bytes()
    again = sweep(accelsim, small, quantized, tmp_path / "s.sqlite", *settings)
    assert again.exit_code == 0
    assert "8 points, 0 with an error" in again.stdout


def test_a_float_network_is_swept_over_its_quantization_from_a_file(accelsim, small, tmp_path):
    (tmp_path / "sweep.toml").write_text("[set]\nweight_bits = [4, 8]\nper_channel = [true, false]\n")
    options = ["--calibration", small.train, "--file", tmp_path / "sweep.toml", "--json"]
    result = sweep(accelsim, small, small.model, tmp_path / "s.sqlite", *options)
    assert result.exit_code == 0, result.output
    points = json.loads(result.stdout)["points"]
    assert [(p["ptq"]["weight_bits"], p["ptq"]["per_channel"]) for p in points] == [
        (4, True), (4, False), (8, True), (8, False)
    ]  # fmt: skip
    assert {point["metrics"]["num_samples"] for point in points} == {NUM_TEST}


def test_a_point_that_fails_is_said_at_the_end_and_the_others_are_there(accelsim, small, quantized, tmp_path):
    result = sweep(accelsim, small, quantized, tmp_path / "s.sqlite", "--set", "accumulator_bits=3,32")
    assert_failed(result, "1 of 2 points", "at least 4, got 3")
    assert "2 points, 1 with an error" in result.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "nothing varies"),
        (["--set", "colour=red"], "colour"),
        (["--set", "rows"], "FIELD=VALUES"),
        (["--set", "rows=4", "--plot", "x.gif"], ".svg"),
        (["--set", "rows=4", "--sampler", "random"], "needs points"),
        (["--set", "weight_bits=4"], "quantized already"),
        *(
            (["--set", "rows=4", "--scheduler", address], f"tcp://HOST:8786, got {address!r}")
            for address in ("nonsense", "", "tcp:/x:1", "tcp://host:port", "tcp://host:0", "http://host:8786")
        ),
    ],
)
def test_wrong_input_is_refused_in_a_line(accelsim, small, quantized, tmp_path, options, words):
    assert_refused(sweep(accelsim, small, quantized, tmp_path / "s.sqlite", *options), words)
