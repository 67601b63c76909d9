import json

import pytest

import accelsim as ax
from accelsim.cli import compare as command
from accelsim.cli.terminal import BoundMissedError
from accelsim.reference import ComparisonReport

from .conftest import assert_failed, assert_refused


def test_json_is_the_report_for_either_model(accelsim, small, quantized):
    arguments = ["--images", small.test, "--labels", small.labels, "--machine", "paper_4x4", "--json"]
    saved = accelsim("compare", quantized, *arguments)
    fresh = accelsim("compare", small.model, "--calibration", small.train, "--per-channel", *arguments)
    assert saved.exit_code == fresh.exit_code == 0, saved.output + fresh.output
    expected = ax.compare(
        ax.load_onnx(small.model),
        ax.QuantizedGraph.load(quantized),
        small.arrays.test,
        ax.Machine.preset("paper_4x4"),
        small.arrays.labels,
    )
    for result, model in ((saved, quantized), (fresh, small.model)):
        record = json.loads(result.stdout)
        assert record["model"] == str(model)
        assert record["machine"]["dataflow"] == "broadcast"
        assert record.items() >= json.loads(expected.to_json()).items()
    assert expected.metrics["float"]["top1"] == 1  # the labels are the float network's answers


def test_the_text_is_the_table_of_the_report(accelsim, small, quantized):
    result = accelsim("compare", quantized, "--images", small.test, "--limit", 5)
    network = ax.QuantizedGraph.load(quantized)
    expected = ax.compare(network.original, network, small.arrays.test[:5])
    assert result.exit_code == 0
    assert result.stdout.endswith(expected.table() + "\n")
    assert result.stdout.startswith("small on edge_16x16: 16x16 output_stationary, 32-bit accumulators (wrap)")


def test_a_loss_above_the_bound_is_a_no(accelsim, small, quantized):
    arguments = ["--images", small.test, "--labels", small.labels, "--max-loss"]
    assert accelsim("compare", quantized, *arguments, 100).exit_code == 0
    narrow = accelsim("compare", quantized, *arguments, 1, "--set", "accumulator_bits=8", "--json")
    assert_failed(narrow, "points under", "--max-loss 1")
    record = json.loads(narrow.stdout)["metrics"]
    assert record["float"]["top1"] - record["actual"]["top1"] > 0.01


@pytest.mark.parametrize(("lost", "bound", "fails"), [(1, 0.2, False), (2, 0.3, True), (0, 0, False), (-3, 0, False)])
def test_the_bound_is_compared_without_rounding(lost, bound, fails):
    """A loss of 1 in 500 is 0.2 points, though 99.4 - 99.2 is more than 0.2 in binary."""
    top1 = {"float": 497 / 500, "simulated": 0.0, "actual": (497 - lost) / 500}
    report = ComparisonReport((), {kind: {"top1": share} for kind, share in top1.items()}, 500, 1, 0, 1)
    if fails:
        with pytest.raises(BoundMissedError, match=r"0\.40 points"):
            command._hold_to(report, bound)
    else:
        command._hold_to(report, bound)


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--images", "{data}:test", "--max-loss", "1"], ["--max-loss", "--labels"]),
        (["--images", "{data}"], ["4 arrays"]),
        (["--images", "{data}:test", "--labels", "{data}:train"], ["whole numbers"]),
        (["--images", "{data}:test", "--machine", "none.toml"], ["none.toml"]),
        (["--images", "{data}:test", "--set", "overflow=stop"], ["machine.overflow must be one of"]),
        (["--images", "{data}:test", "--calibration", "{data}:train"], ["quantized already", "--calibration"]),
    ],
)
def test_wrong_input_is_refused(accelsim, small, quantized, arguments, fragments):
    assert_refused(accelsim("compare", quantized, *(a.format(data=small.data) for a in arguments)), *fragments)


def test_a_float_model_needs_calibration(accelsim, small):
    assert_refused(accelsim("compare", small.model, "--images", small.test), "--calibration")
