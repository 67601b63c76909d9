"""Figure 9 on networks with planted faults, and each of its steps against a second way to compute it."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from ptq_networks import Net, conv_net

import accelsim as ax
from accelsim.data import digits_model_path, load_digits
from accelsim.errors import DataError
from accelsim.graph.feeds import Feeds
from accelsim.ptq import diagnosis as module
from accelsim.ptq.channel_ranges import activation_ranges, weight_ranges
from accelsim.ptq.evaluation import Evaluation
from accelsim.reference import OnnxRunner

PLAIN = {"equalize": False, "prune_constants": False, "bias_correction": "none"}
GRAPH = conv_net(np.random.default_rng(0))
IMAGES = np.random.default_rng(1).normal(size=(24, 3, 6, 6)).astype(np.float32)


def simulate(quantized, active=None):
    return OnnxRunner.of_simulated(quantized, active=active).run({"image": IMAGES})["logits"]


def test_with_every_quantizer_bypassed_the_float_network_is_left():
    quantized = ax.quantize(GRAPH, IMAGES, ax.PTQConfig(weight_bits=3))
    from accelsim.graph.writer import to_onnx

    plain = OnnxRunner(to_onnx(quantized.graph), optimize=False).run({"image": IMAGES})["logits"]
    np.testing.assert_array_equal(simulate(quantized, ()), plain)
    np.testing.assert_array_equal(
        simulate(quantized, {*quantized.activations, *quantized.weights}), simulate(quantized)
    )


def test_one_active_constant_is_the_float_network_with_other_weights():
    quantized = ax.quantize(GRAPH, IMAGES, ax.PTQConfig(weight_bits=3))
    node = next(node for node in quantized.graph.nodes if node.op == "Conv")
    changed = quantized.graph.with_nodes(
        quantized.graph.nodes,
        {
            node.inputs[1]: quantized.weights[node.inputs[1]].dequantize(),
            node.inputs[2]: quantized.biases[node.name].astype(np.float32),
        },
    )
    np.testing.assert_array_equal(
        simulate(quantized, {node.inputs[1]}), simulate(replace(quantized, graph=changed), active=())
    )


def test_one_active_tensor_is_rounded_and_nothing_else():
    quantized = ax.quantize(GRAPH, IMAGES, ax.PTQConfig(activation_bits=3))
    parameters = quantized.activations["logits"]
    expected = parameters.dequantize(parameters.quantize(simulate(quantized, ())))
    np.testing.assert_array_equal(simulate(quantized, {"logits"}), expected)


def digits(graph=None, **config):
    data = load_digits()
    return module.diagnose(
        graph or ax.load_onnx(digits_model_path()),
        data.x_calibration[:64],
        ax.PTQConfig(**config),
        data.x_test[:200],
        data.y_test[:200],
    )


def test_a_layer_with_an_outlier_channel_is_found_and_explained():
    """All of one filter is 300 times larger, and its bias and the next layer's weights unchanged."""
    rng = np.random.default_rng(3)
    net = Net(x=(4, 5, 5))
    weights = rng.normal(size=(6, 4, 3, 3))
    weights[2] *= 300
    net.add("Conv", "x", "c1", [weights, np.zeros(6)])
    net.add("Clip", "c1", "r1", [0.0, 6.0])
    net.add("Conv", "r1", "c2", [rng.normal(size=(5, 6, 3, 3)), np.zeros(5)])
    net.add("Flatten", "c2", "y")
    images = rng.normal(size=(40, 4, 5, 5)).astype(np.float32)
    graph = net.graph("y")
    found = ax.diagnose(graph, images, ax.PTQConfig(**PLAIN))
    worst = found.sensitivities[0]
    assert (worst.kind, worst.layer) == ("weights", "c1_node")
    assert worst.ranges.spread > 100
    assert worst.ranges.starved == 5  # all but the blown-up one
    finding = next(finding for finding in found.findings if finding.subject == "layer 'c1_node'")
    assert "weight ranges uneven" in finding.text
    assert finding.recommendation == "try equalize=True or per_channel=True"
    assert found.metric == "agreement with float"
    assert not found.ok
    repaired = ax.diagnose(graph, images, ax.PTQConfig(**{**PLAIN, "per_channel": True}))
    assert repaired.loss() < found.loss() / 2


def test_uneven_activations_after_equalization_are_told_from_coarse_steps():
    rng = np.random.default_rng(4)
    net = Net(x=(4, 5, 5))
    net.add("Mul", "x", "m", [rng.uniform(0.5, 1, size=(4, 1, 1)) * np.array([1, 400, 1, 1]).reshape(4, 1, 1)])
    net.add("Relu", "m", "r")
    weights = rng.normal(size=(5, 4, 3, 3)) / np.array([1, 400, 1, 1]).reshape(4, 1, 1)
    net.add("Conv", "r", "c", [weights, np.zeros(5)])
    net.add("Flatten", "c", "y")
    graph = net.graph("y")
    images = rng.normal(size=(40, 4, 5, 5)).astype(np.float32)
    found = ax.diagnose(graph, images, ax.PTQConfig(equalize=True, prune_constants=False, activation_range="min_max"))
    one = next(one for one in found.sensitivities if one.tensor == "r")
    assert one.ranges.spread > 100
    finding = next(finding for finding in found.findings if finding.subject == f"layer {one.layer!r}")
    assert "activation ranges uneven after equalization" in finding.text
    assert "'activation_bits': 16" in finding.recommendation
    assert found.proposal[one.layer]["activation_bits"] == 16
    better = ax.diagnose(graph, images, found.proposed_config())
    assert better.loss() < found.loss()


def test_a_network_that_was_changed_before_quantization_is_the_first_finding(monkeypatch):
    def wrong(graph, calibration, config, progress):
        quantized = ax.quantize(graph, calibration, config)
        bias = next(node.inputs[2] for node in quantized.graph.nodes if len(node.inputs) > 2)
        shifted = quantized.graph.with_nodes(quantized.graph.nodes, {bias: quantized.graph.constants[bias] + 0.5})
        return replace(quantized, graph=shifted)

    monkeypatch.setattr(module, "quantize", wrong)
    found = ax.diagnose(GRAPH, IMAGES)
    assert found.findings[0].step == "fp32"
    assert "differs from the float network with every quantizer bypassed" in found.findings[0].text
    assert not found.ok


def test_a_good_network_has_nothing_to_repair():
    found = digits(per_channel=True)
    assert found.ok
    assert found.metric == "top-1"
    assert found.findings == ()
    assert found.proposal == {}
    assert "nothing to repair" in str(found)
    assert found.scores["fp32"].sqnr_db > 90


def test_the_proposal_repairs_two_bit_weights():
    found = digits(weight_bits=2, rounding="nearest", **PLAIN)
    assert found.loss() > 0.05
    assert found.scores["weights"].value < found.scores["activations"].value
    assert any(finding.step == "weights" for finding in found.findings)
    assert found.proposal
    assert set(found.proposal) <= {one.layer for one in found.sensitivities}
    assert found.sensitivities == tuple(sorted(found.sensitivities, key=lambda one: (-one.loss, one.sqnr_db)))
    data = load_digits()
    again = ax.diagnose(
        ax.load_onnx(digits_model_path()), data.x_calibration[:64], found.proposed_config(), data.x_test[:200],
        data.y_test[:200],
    )  # fmt: skip
    assert again.loss() <= max(found.tolerance, found.loss() / 4)
    record = json.loads(found.to_json())
    assert record["ok"] is False
    assert record["scores"]["all"]["loss"] == found.loss()
    assert record["scores"]["float"]["sqnr_db"] is None
    assert len(record["sensitivities"]) == len(found.sensitivities)
    for finding in found.findings:
        assert finding.recommendation in found.table()


def test_a_metric_of_ones_own_sees_outputs_and_labels():
    seen = []

    def metric(outputs, labels):
        seen.append(outputs.shape)
        return -float(np.square(outputs - labels).mean())

    truth = OnnxRunner.of_original(GRAPH).run({"image": IMAGES})["logits"]
    found = ax.diagnose(GRAPH, IMAGES, ax.PTQConfig(activation_bits=4), IMAGES, truth, metric, tolerance=0.0)
    assert set(seen) == {(24, 7)}
    assert found.scores["float"].value == 0
    assert found.scores["all"].value < 0
    assert found.metric == "metric"
    without = ax.diagnose(GRAPH, IMAGES, ax.PTQConfig(activation_bits=4), metric=metric, tolerance=0.0)
    assert without.scores["all"] == found.scores["all"]


def test_a_network_with_two_outputs_gives_the_metric_a_mapping():
    net = Net(x=(3,))
    net.add("Relu", "x", "a")
    net.add("Gemm", "a", "b", [np.eye(3), np.ones(3)])
    images = np.random.default_rng(0).normal(size=(10, 3))
    found = ax.diagnose(net.graph("a", "b"), images, metric=lambda outputs, labels: float(outputs["b"][0, 0]))
    assert found.scores["float"].value == pytest.approx(max(images[0, 0], 0) + 1)
    assert ax.diagnose(net.graph("a", "b"), images).metric == "agreement with float"


def test_ranges_are_those_of_the_values():
    quantized = ax.quantize(GRAPH, IMAGES, ax.PTQConfig(**PLAIN, activation_range="min_max"))
    feeds = Feeds(GRAPH, IMAGES)
    found = activation_ranges(quantized, feeds, ("image", "r1"))
    values = OnnxRunner.of_normalised(quantized.graph, ["r1"]).run({"image": IMAGES})["r1"]
    np.testing.assert_array_equal(found["r1"].high, values.max(axis=(0, 2, 3)))
    np.testing.assert_array_equal(found["image"].low, IMAGES.min(axis=(0, 2, 3)))
    assert found["r1"].clipped == 0
    per_channel = ax.quantize(GRAPH, IMAGES, ax.PTQConfig(**PLAIN, per_channel=True, weight_range="min_max"))
    for name, ranges in weight_ranges(per_channel).items():
        rows = quantized.graph.constants[name].reshape(len(ranges.low), -1)
        np.testing.assert_array_equal(ranges.low, rows.min(axis=1))
        assert (ranges.grid_low <= ranges.low).all()
        assert ranges.clipped == 0


def test_a_score_without_noise_is_exact():
    quantized = ax.quantize(GRAPH, IMAGES)
    assert Evaluation(quantized, Feeds(GRAPH, IMAGES), None, None).reference.sqnr_db == math.inf


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tolerance": -0.1}, "tolerance must be a finite number of at least 0, got -0.1"),
        ({"calibration": None}, "diagnosis needs images"),
        ({"labels": np.zeros(3, int)}, r"labels must be 24 whole numbers, one per sample, got shape \(3,\)"),
        ({"labels": np.zeros(24)}, "a metric of your own may take other labels"),
        ({"labels": np.full(24, 7)}, r"labels must be classes 0..6"),
        ({"metric": lambda outputs, labels: math.nan}, "the metric must give a finite number, got nan"),
    ],
)
def test_what_cannot_be_diagnosed_is_refused(arguments, message):
    with pytest.raises(DataError, match=message):
        ax.diagnose(GRAPH, **{"calibration": IMAGES, **arguments})


def test_progress_counts_every_evaluation():
    calls = []
    found = ax.diagnose(GRAPH, IMAGES, progress=lambda *call: calls.append(call))
    counts = [call for call in calls if call[0] == "diagnosis"]
    total = len(found.sensitivities) + 4
    assert counts == [("diagnosis", done, total) for done in range(1, total + 1)]
