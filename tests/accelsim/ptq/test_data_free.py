"""Quantization without calibration data, and what it tells of the inputs."""

import numpy as np
import pytest
from ptq_networks import Net, run_float

from accelsim.errors import CalibrationError, ModelError
from accelsim.graph.quantized import QuantizedGraph
from accelsim.ptq import PTQConfig, quantize
from accelsim.ptq.input_statistics import CONVENTIONS, estimate_input
from accelsim.reference import OnnxRunner


def normed_net(images, seed=0):
    """A block of a MobileNet whose batch norms hold what the layers make of some images, as training leaves them."""
    rng = np.random.default_rng(seed)
    made = []

    def build(stages):
        net, tensor, channels = Net(x=images.shape[1:]), "x", images.shape[1]
        shapes = [(8, channels, 3, 3), (8, 1, 3, 3), (6, 8, 1, 1)]
        source = np.random.default_rng(seed)
        for index, shape in enumerate(shapes[:stages]):
            weights = source.normal(size=shape) * np.exp(source.normal(size=(shape[0], 1, 1, 1)))
            groups = 8 if shape[1] == 1 and shape[0] == 8 and index else 1
            net.add("Conv", tensor, f"c{index}", [weights], pads=[1 if shape[2] == 3 else 0] * 4, group=groups)
            tensor = f"c{index}"
            if index < len(made):
                net.add("BatchNormalization", tensor, f"n{index}", made[index], epsilon=1e-3)
                tensor = net.add("Clip", f"n{index}", f"r{index}", [0.0, 6.0])
        return net, tensor

    for stages in (1, 2, 3):
        net, tensor = build(stages)
        values = run_float(net.graph(tensor), images)[tensor]
        mean, variance = values.mean(axis=(0, 2, 3)), values.var(axis=(0, 2, 3))
        made.append((rng.uniform(0.5, 2, len(mean)), rng.uniform(-0.5, 2.5, len(mean)), mean, variance))
    net, tensor = build(3)
    net.add("GlobalAveragePool", tensor, "p")
    net.add("Flatten", "p", "f")
    net.add("Gemm", "f", "y", [rng.normal(size=(5, 6)), rng.normal(size=5)], transB=1)
    return net.graph("y")


def photographs(low, high, count=40, side=12):
    """Smooth images with one light for all channels, in a range."""
    rng = np.random.default_rng(1)
    coarse = rng.uniform(0, 1, size=(count, 1, side // 4, side // 4)).repeat(4, axis=2).repeat(4, axis=3)
    mixed = np.clip(0.85 * coarse + rng.normal(0.03, 0.05, size=(count, 3, side, side)), 0, 1)
    return (low + (high - low) * mixed).astype(np.float32)


@pytest.mark.parametrize("label", ["0 .. 1", "-1 .. 1", "0 .. 255", "-128 .. 127"])
def test_the_first_batch_norm_tells_the_range_of_the_inputs(label):
    images = photographs(*CONVENTIONS[label])
    found = estimate_input(normed_net(images), "x")
    assert found is not None
    assert (found.low, found.high) == CONVENTIONS[label]
    assert label in found.source
    spread = images.std()
    np.testing.assert_allclose(found.moments.mean, images.mean(axis=(0, 2, 3)), atol=0.3 * spread)
    assert 0.4 * spread < found.moments.deviation[0] < 2.5 * spread


def test_inputs_of_no_usual_scaling_lie_within_three_deviations():
    found = estimate_input(normed_net(photographs(-20.0, 40.0)), "x")
    assert found is not None
    centre, deviation = found.moments.mean.mean(), found.moments.deviation[0]
    assert (found.low, found.high) == pytest.approx((centre - 3 * deviation, centre + 3 * deviation))
    assert "from the batch norm of 'c0_node'" in found.source


def test_without_a_batch_norm_nothing_is_told():
    net = Net(x=(2, 4, 4))
    net.add("Conv", "x", "y", [np.ones((2, 2, 1, 1))])
    graph = net.graph("y")
    assert estimate_input(graph, "x") is None
    with pytest.raises(CalibrationError, match=r"input 'x'.*give calibration data, or input_range"):
        quantize(graph)
    quantized = quantize(graph, config=PTQConfig(input_range=(-1, 3)))
    low, high = quantized.activations["x"].grid_limits
    assert (low, high) == (pytest.approx(-1, abs=0.02), pytest.approx(3, abs=0.02))


@pytest.mark.parametrize("equalization", ["noise", "cross_layer"])
@pytest.mark.parametrize("absorb", ["auto", "always"])
def test_a_network_is_quantized_from_its_batch_norms(equalization, absorb):
    images = photographs(0.0, 1.0)
    graph = normed_net(images)
    config = PTQConfig(equalization=equalization, absorb_biases=absorb)
    whole = quantize(graph, config=config)
    assert whole.log == quantize(graph, config=config).log
    real = run_float(graph, images)["y"]
    made = OnnxRunner.of_simulated(whole).run({"x": images})["y"]
    assert np.square(real - made).sum() < 0.02 * np.square(real).sum()
    text = "\n".join(whole.log)
    assert "from batch norms, within 6 deviations" in text
    assert "corrected the bias of Gemm" in text
    assert ("rescaled" if equalization == "noise" else "equalized") in text


def test_corrected_biases_are_checked():
    graph = normed_net(photographs(0.0, 1.0))
    quantized = quantize(graph)
    (name, bias), *_ = quantized.biases.items()
    fields = (quantized.graph, quantized.activations, quantized.weights, graph)
    for biases, message in (
        ({"nothing": bias}, "no Conv, Gemm or MatMul of this name"),
        ({name: bias[1:]}, "finite numbers"),
        ({name: np.full(bias.shape, np.nan)}, "finite numbers"),
    ):
        with pytest.raises(ModelError, match=message):
            QuantizedGraph(*fields, biases=biases)
