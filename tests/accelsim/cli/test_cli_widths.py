import json

import accelsim as ax

from .conftest import NUM_TEST, assert_refused


def test_json_is_the_report_of_the_library(accelsim, small, quantized, tmp_path):
    figure = tmp_path / "curve.svg"
    result = accelsim(
        "widths", quantized, "--images", small.test, "--labels", small.labels, "--machine", "paper_4x4",
        "--max-loss", 5, "--plot", figure, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    machine = ax.Machine.preset("paper_4x4")
    report = ax.accumulator_widths(
        ax.QuantizedGraph.load(quantized), small.arrays.test, machine, small.arrays.labels, max_loss=0.05
    )
    assert json.loads(result.stdout) == json.loads(report.to_json())
    assert b"<svg" in figure.read_bytes()


def test_the_text_is_the_table(accelsim, small):
    result = accelsim("widths", small.model, "--calibration", small.train, "--images", small.test, "--search-limit", 4)
    assert result.exit_code == 0, result.output
    assert "all layers" in result.stdout
    assert f"needed: on {NUM_TEST} samples; holds: agreement with the exact integers of 4 samples" in result.stdout


def test_a_figure_of_an_unknown_kind_is_refused(accelsim, small, quantized, tmp_path):
    result = accelsim("widths", quantized, "--images", small.test, "--plot", tmp_path / "curve.gif")
    assert_refused(result, "curve.gif", ".svg, .pdf, .png")
