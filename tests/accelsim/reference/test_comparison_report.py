import json
import math
from dataclasses import replace

from accelsim.reference import ComparisonReport, LayerComparison

FIRST = LayerComparison("relu", "relu_node", "Relu", 1000, 30.0, 29.5, 1, 0.0125, 1, 0.01)
SECOND = LayerComparison("<logits>", "fc", "Gemm", 100, math.inf, -math.inf, 7, 0.5, 1, 0.25)
METRICS = {
    "float": {"top1": 0.9, "agreement": 1.0},
    "simulated": {"top1": 0.875, "agreement": 0.95},
    "actual": {"top1": 0.85, "agreement": 0.925},
}
REPORT = ComparisonReport((FIRST, SECOND), METRICS, 40, 123456, 3, 16)


def test_layers_more_than_one_code_apart_are_named():
    assert REPORT.worst_layers == (SECOND,)
    assert "in: <logits> (7 codes); no layer does by itself, on the same inputs" in str(REPORT)
    assert "relu (" not in str(REPORT)
    guilty = replace(REPORT, layers=(FIRST, replace(SECOND, own_difference=5)))
    assert "by itself, on the same inputs, in: <logits> (5 codes)" in str(guilty)
    calm = replace(REPORT, layers=(FIRST,))
    assert calm.worst_layers == ()
    assert "warning" not in str(calm)


def test_the_table_shows_metrics_and_layers():
    lines = REPORT.table().splitlines()
    assert lines[0] == "40 samples, 123,456 cycles, 3 overflow events"
    assert [line.split() for line in lines[1:6]] == [
        ["top1", "agreement"],
        ["---------", "------", "---------"],
        ["float", "90.00%", "100.00%"],
        ["simulated", "87.50%", "95.00%"],
        ["actual", "85.00%", "92.50%"],
    ]
    (row,) = (line.split() for line in lines if line.startswith("relu"))
    assert row == ["relu", "Relu", "1000", "30.00", "29.50", "1", "1.2500", "1", "1.0000"]
    assert "top1" not in str(replace(REPORT, metrics=None))


def test_json_is_strict_and_complete():
    def refuse(constant):
        raise AssertionError(constant)

    read = json.loads(REPORT.to_json(), parse_constant=refuse)
    assert read["metrics"] == METRICS
    assert read["worst_layers"] == ["<logits>"]
    assert (read["num_samples"], read["cycles"], read["overflow_events"], read["batch_size"]) == (40, 123456, 3, 16)
    assert read["layers"][0]["sqnr_simulated_db"] == 30.0
    assert read["layers"][1]["sqnr_simulated_db"] is None
    assert read["layers"][1]["sqnr_actual_db"] is None
    assert set(read["layers"][0]) == set(LayerComparison.__dataclass_fields__)
    assert json.loads(replace(REPORT, metrics=None).to_json())["metrics"] is None


def test_html_escapes_names():
    html = REPORT._repr_html_()
    assert ">&lt;logits&gt;</td>" in html
    assert "<logits>" not in html
    assert html.count("<tr>") == 4 + 3  # metrics of three sides, two layers, and two headers
