"""Averages of whole images: docs/ptq.md (99)."""

import numpy as np
import pytest

import accelsim as ax
from accelsim.formats import IntegerFormat, QuantizationParameters
from accelsim.ptq import PTQConfig, quantize
from accelsim.ptq.average_ranges import average_range
from accelsim.ptq.calibration import TensorStatistics
from accelsim.ptq.diagnosis import diagnose
from accelsim.ptq.placement import separable_averages
from accelsim.reference import OnnxRunner
from tests.accelsim.ptq.ptq_networks import Net
from tests.naive.network import Codes, Network

SIDE = 4
PLAIN = {"equalize": False, "prune_constants": False, "bias_correction": "none", "rounding": "nearest"}
WINDOW = {"kernel_shape": [SIDE, SIDE], "strides": [1, 1], "pads": [0] * 4}


def classifier(op="GlobalAveragePool", **attributes):
    """A positive layer, the average of its whole image, and a layer that reads it."""
    rng = np.random.default_rng(5)
    net = Net(image=(2, SIDE, SIDE))
    net.add("Conv", "image", "c", [rng.normal(size=(3, 2, 1, 1)), rng.normal(size=3)])
    net.add("Relu", "c", "r")
    net.add(op, "r", "average", **attributes)
    net.add("Flatten", "average", "flat")
    net.add("Gemm", "flat", "y", [rng.normal(size=(3, 3)), rng.normal(size=3)], transB=1)
    return net.graph("y")


def peaked(samples, power=9):
    """Images with few large values, so that their means are small."""
    return np.random.default_rng(3).uniform(-1, 1, (samples, 2, SIDE, SIDE)) ** power * 8


AVERAGES = pytest.mark.parametrize(
    ("op", "attributes"), [("GlobalAveragePool", {}), ("ReduceMean", {"axes": [2, 3]}), ("AveragePool", WINDOW)]
)


@AVERAGES
def test_an_average_far_from_the_greatest_value_has_a_grid_of_its_own(op, attributes):
    graph, images = classifier(op, **attributes), peaked(40)
    quantized = quantize(graph, images, PTQConfig(**PLAIN))
    stored, own = (quantized.activations[name] for name in ("r", "average"))
    assert float(own.scale) < float(stored.scale) / 2
    assert quantized.activations["flat"] == own
    means = OnnxRunner.of_normalised(graph, ["average"]).run({"image": images.astype(np.float32)})["average"]
    low, high = float(means.min()), float(means.max())
    assert float(own.scale) * 255 == pytest.approx(high + (high - low) / 4, rel=1e-5)
    assert any("gave the average 'average' a quantizer of its own" in line for line in quantized.log)


@AVERAGES
def test_an_average_near_the_greatest_value_shares(op, attributes):
    quantized = quantize(classifier(op, **attributes), np.ones((4, 2, SIDE, SIDE)), PTQConfig(**PLAIN))
    assert quantized.activations["r"] == quantized.activations["average"] == quantized.activations["flat"]


def test_the_choice_can_be_made_by_hand():
    graph = classifier()
    shared = quantize(graph, peaked(20), PTQConfig(**PLAIN, average_quantizer="shared"))
    assert shared.activations["average"] == shared.activations["r"]
    even = np.random.default_rng(0).uniform(0, 1, (20, 2, SIDE, SIDE))
    automatic, own = (quantize(graph, even, PTQConfig(**PLAIN, average_quantizer=way)) for way in ("auto", "own"))
    assert automatic.activations["average"] == automatic.activations["r"]
    assert own.activations["average"] != own.activations["r"]


@pytest.mark.parametrize(
    ("op", "attributes"), [("AveragePool", {**WINDOW, "kernel_shape": [2, 2]}), ("MaxPool", WINDOW)]
)
def test_other_pooling_shares(op, attributes):
    net = Net(x=(2, SIDE, SIDE))
    net.add(op, "x", "y", **attributes)
    assert separable_averages(net.graph("y")) == ()


def test_powers_of_two_need_a_count_that_is_one():
    config = PTQConfig(**PLAIN, power_of_two=True)
    quantized = quantize(classifier(), peaked(20), config)
    assert quantized.activations["average"] != quantized.activations["r"]  # of 16 values
    program = ax.lower(quantized, ax.Machine(requantizer="power_of_two"))
    assert [layer.op for layer in program.layers][1] == "GlobalAveragePool"
    net = Net(x=(2, 3, 3))
    net.add("GlobalAveragePool", "x", "y")
    images = np.random.default_rng(3).uniform(0, 1, (20, 2, 3, 3)) ** 9
    nine = quantize(net.graph("y"), images, config)
    assert nine.activations["x"] == nine.activations["y"]
    assert quantize(net.graph("y"), images, PTQConfig(**PLAIN)).activations["y"] != nine.activations["x"]


def test_the_width_of_an_average_is_that_of_its_input():
    config = PTQConfig(**PLAIN, layers={"r": {"activation_bits": 12}})
    quantized = quantize(classifier(), peaked(20), config)
    assert quantized.activations["average"].format.bits == quantized.activations["r"].format.bits == 12
    assert quantized.activations["average"] != quantized.activations["r"]


def test_without_data_an_average_may_be_all_that_its_input_is():
    rng = np.random.default_rng(0)
    net = Net(image=(2, SIDE, SIDE))
    net.add("Conv", "image", "c", [rng.normal(size=(3, 2, 1, 1))])
    net.batch_norm("c", "n", 3, rng)
    net.add("Relu", "n", "r")
    net.add("GlobalAveragePool", "r", "y")
    graph = net.graph("y")
    quantized = quantize(graph, config=PTQConfig(input_range=(-1, 1)))
    assert quantized.activations["r"] == quantized.activations["y"]


def test_a_range_stays_within_what_the_input_can_be():
    shared = QuantizationParameters(np.float32(0.5), np.int64(4), IntegerFormat(4, signed=False))  # -2 .. 5.5
    inside = average_range(TensorStatistics(-1.0, 3.0), shared)
    assert (inside.low, inside.high) == (-2.0, 4.0)
    beyond = average_range(TensorStatistics(-1.75, 5.25), shared)
    assert (beyond.low, beyond.high) == (-2.0, 5.5)


def test_a_diagnosis_looks_at_it_alone():
    graph, images = classifier(), peaked(30)
    quantized = quantize(graph, images, PTQConfig(**PLAIN))
    found = diagnose(graph, images, config=PTQConfig(**PLAIN))
    tensors = {one.tensor for one in found.sensitivities if one.kind == "activation"}
    assert "average" in tensors
    assert tensors == {"image", "r", "average", "y"}
    assert quantized.activations["average"] == found.quantized.activations["average"]


@AVERAGES
@pytest.mark.parametrize("requantizer", ["tflite", "onnxruntime", "float64_half_away"])
def test_integers_equal_the_oracle(op, attributes, requantizer):
    quantized = quantize(classifier(op, **attributes), peaked(20))
    assert quantized.activations["average"] != quantized.activations["r"]
    machine = ax.Machine(rows=2, columns=2, requantizer=requantizer)
    images = peaked(2)
    stored = quantized.activations["image"].quantize(images.astype(np.float32))
    network = Network(quantized, machine)
    tensors = network.run({"image": Codes(stored.shape, stored.reshape(-1).tolist())})
    result = ax.simulate(quantized, images, machine)
    assert result.outputs["y"].reshape(-1).tolist() == tensors["y"].flat
    # And in real numbers within a step of the simulated quantization.
    simulated = OnnxRunner.of_simulated(quantized).run({"image": images.astype(np.float32)})["y"]
    assert np.abs(result.real_outputs["y"] - simulated).max() <= 1.01 * float(quantized.activations["y"].scale)
