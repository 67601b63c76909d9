import json

import accelsim as ax

from .conftest import assert_refused


def test_json_is_the_report_of_the_library(accelsim, small, quantized, tmp_path):
    figure = tmp_path / "curve.svg"
    result = accelsim(
        "widths", quantized, "--images", small.test, "--labels", small.labels, "--machine", "paper_4x4",
        "--max-loss", 5, "--limit", 3, "--plot", figure, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    machine = ax.Machine.preset("paper_4x4")
    report = ax.accumulator_widths(
        ax.QuantizedGraph.load(quantized), small.arrays.test[:3], machine, small.arrays.labels[:3], max_loss=0.05
    )
    assert json.loads(result.stdout) == json.loads(report.to_json())
    assert b"<svg" in figure.read_bytes()


def test_the_text_is_the_table(accelsim, small):
    limits = ["--limit", 5, "--search-limit", 2]
    result = accelsim("widths", small.model, "--calibration", small.train, "--images", small.test, *limits)
    assert result.exit_code == 0, result.output
    assert "all layers" in result.stdout
    assert "needed: on 5 samples; holds: agreement with the exact integers of 2 samples" in result.stdout


def test_a_figure_of_an_unknown_kind_is_refused(accelsim, small, quantized, tmp_path):
    result = accelsim("widths", quantized, "--images", small.test, "--plot", tmp_path / "curve.gif")
    assert_refused(result, "curve.gif", ".svg, .pdf, .png")
