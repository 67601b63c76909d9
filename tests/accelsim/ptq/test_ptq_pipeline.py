import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ptq_networks import Net, conv_net, linear_chains

from accelsim.data import digits_model_path
from accelsim.errors import CalibrationError, LoweringError, ModelError
from accelsim.graph.reader import load_onnx
from accelsim.machine import Machine
from accelsim.program.lowering import lower
from accelsim.ptq import PTQConfig, quantize
from accelsim.ptq.folding import weight_axis
from accelsim.reference import OnnxRunner
from accelsim.simulator.run import simulate

CONFIGS = st.builds(
    PTQConfig,
    weight_bits=st.integers(1, 16),
    activation_bits=st.integers(1, 16),
    per_channel=st.booleans(),
    weight_scheme=st.sampled_from(["symmetric", "affine"]),
    activation_scheme=st.sampled_from(["symmetric", "affine"]),
    activation_signed=st.booleans(),
    power_of_two=st.booleans(),
    weight_range=st.sampled_from(["auto", "mse", "min_max"]),
    activation_range=st.sampled_from(["mse", "min_max"]),
    bias_bits=st.integers(4, 64),
    prune_constants=st.booleans(),
    equalize=st.booleans(),
    equalization=st.sampled_from(["noise", "cross_layer"]),
    absorb_biases=st.sampled_from(["auto", "always", "never"]),
    bias_correction=st.sampled_from(["auto", "analytic", "none"]),
)


@settings(max_examples=60)
@given(linear_chains(), CONFIGS, st.integers(0, 1000))
def test_whatever_is_asked_for_holds(graph, config, seed):
    images = np.random.default_rng(seed).normal(size=(5, *graph.inputs[0].shape[1:])).astype(np.float32)
    quantized = quantize(graph, images, config)
    assert quantized.original is graph
    for parameters in quantized.activations.values():
        assert parameters.format.bits == config.activation_bits
        assert parameters.dequantize(parameters.quantize(0.0)) == 0
        assert parameters.is_power_of_two or not config.power_of_two
        assert config.activation_scheme == "affine" or parameters.zero_point == 0
    for node in quantized.graph.nodes:
        if node.op not in ("Conv", "Gemm", "MatMul"):
            continue
        weights = quantized.weights[node.inputs[1]]
        assert weights.parameters.format == config.weight_format
        assert weights.parameters.axis == (weight_axis(node) if config.per_channel else None)
        assert weights.parameters.is_power_of_two or not config.power_of_two
        assert config.weight_scheme == "affine" or not weights.parameters.zero_point.any()
        low, high = config.weight_format.minimum, config.weight_format.maximum
        assert low <= weights.integers.min() <= weights.integers.max() <= high
        assert (np.abs(quantized.bias_integers(node)) <= 2.0 ** (config.bias_bits - 2)).all()
    constants = {name for node in quantized.graph.nodes for name in node.inputs if name in quantized.graph.constants}
    biases = {node.inputs[2] for node in quantized.graph.nodes if len(node.inputs) == 3}
    assert set(quantized.weights) == constants - biases


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
def test_sixteen_bits_are_almost_float(per_channel, power_of_two, scheme):
    graph = conv_net(np.random.default_rng(0))
    images = np.random.default_rng(1).normal(size=(50, 3, 6, 6)).astype(np.float32)
    config = PTQConfig(
        weight_bits=16, activation_bits=16, per_channel=per_channel, power_of_two=power_of_two,
        weight_scheme=scheme, activation_scheme=scheme, bias_bits=48,
    )  # fmt: skip
    quantized = quantize(graph, images, config)
    real = OnnxRunner.of_original(graph).run({"image": images})["logits"]
    simulated = OnnxRunner.of_simulated(quantized).run({"image": images})["logits"]
    sqnr_db = 10 * np.log10((real**2).sum() / ((real - simulated) ** 2).sum())
    assert sqnr_db > 60


def test_a_nearly_dead_channel_keeps_its_bias():
    """Its own scale would put the bias at 1e30 steps; the scale is raised until the bias fits, and is then exact."""
    net = Net(x=(2, 4, 4))
    weights = np.ones((3, 2, 1, 1), np.float32)
    weights[1] = 1e-30
    net.add("Conv", "x", "y", [weights, [0.5, 0.75, -0.5]])
    graph = net.graph("y")
    images = np.random.default_rng(0).uniform(-1, 1, (4, 2, 4, 4))
    quantized = quantize(graph, images, PTQConfig(per_channel=True))
    (node,) = quantized.graph.nodes
    integers, unit = quantized.bias_integers(node), quantized.bias_scale(node)
    assert abs(integers[1]) <= 2**30
    assert abs(integers[1] * unit[1] - 0.75) <= unit[1] / 2
    assert not quantized.weights[node.inputs[1]].integers[1].any()
    assert any("raised 1 weight scales of Conv 'y_node'" in line for line in quantized.log)
    per_tensor = quantize(graph, images, PTQConfig(bias_bits=4))
    assert (np.abs(per_tensor.bias_integers(node)) <= 4).all()


def test_constant_operands_are_stored_as_integers():
    net = Net(x=(2, 4, 4))
    net.add("Mul", "x", "m", [np.linspace(-1, 3, 32).reshape(2, 4, 4)])
    net.add("Add", "m", "y", [np.float32(0.25)])
    graph = net.graph("y")
    quantized = quantize(graph, np.ones((2, 2, 4, 4)), PTQConfig(activation_bits=6, weight_bits=3))
    factor, offset = (quantized.weights[node.inputs[1]] for node in quantized.graph.nodes)
    assert factor.parameters.format.bits == offset.parameters.format.bits == 6
    assert factor.parameters.axis is None
    assert np.abs(factor.dequantize() - graph.constants["m_c0"]).max() <= 4 / 63 / 2 * 1.0001  # half a step
    assert offset.dequantize() == pytest.approx(0.25, rel=1e-6)


def test_softmax_has_a_fixed_grid():
    net = Net(x=(5,))
    net.add("Softmax", "x", "y", axis=1)
    parameters = quantize(net.graph("y"), np.ones((2, 5)), PTQConfig(activation_signed=True)).activations["y"]
    assert (parameters.scale, parameters.zero_point, str(parameters.format)) == (1 / 256, 0, "uint8")


def test_a_padded_value_is_on_the_grid_of_its_input():
    net = Net(x=(1, 4, 4))
    net.add("Pad", "x", "y", [[0, 0, 1, 1, 0, 0, 1, 1], -3.0])
    images = np.random.default_rng(0).uniform(0, 1, (3, 1, 4, 4))
    quantized = quantize(net.graph("y"), images)
    parameters = quantized.activations["x"]
    assert parameters == quantized.activations["y"]
    assert parameters.dequantize(parameters.quantize(-3.0)) == pytest.approx(-3, abs=float(parameters.scale) / 2)


def test_pooling_has_the_quantizer_of_its_input():
    graph = conv_net(np.random.default_rng(0))
    config = PTQConfig(average_quantizer="shared")
    quantized = quantize(graph, np.random.default_rng(1).normal(size=(9, 3, 6, 6)), config)
    assert quantized.activations["sum"] == quantized.activations["pooled"] == quantized.activations["flat"]
    assert "n1" not in quantized.activations
    assert "quantized 3 constants: 8 bits, symmetric, per tensor, min_max" in quantized.log


@pytest.mark.parametrize(
    ("images", "fragment"),
    [
        (np.zeros((0, 3, 6, 6)), "at least one sample"),
        (np.zeros((4, 6, 6, 3)), "channels last"),
        (np.full((4, 3, 6, 6), np.inf), "must be finite"),
        (np.array(["a"]), "numeric"),
        ({"picture": np.zeros((4, 3, 6, 6))}, "inputs image, got picture"),
    ],
)
def test_calibration_data_that_does_not_fit_is_refused(images, fragment):
    with pytest.raises(CalibrationError, match=r"^calibration data: ") as caught:
        quantize(conv_net(np.random.default_rng(0)), images)
    assert fragment in str(caught.value)


def test_what_is_no_network_is_refused_with_what_to_do():
    with pytest.raises(ModelError, match="graph must be a Graph, got str; load_onnx reads one"):
        quantize("net.onnx", np.zeros((1, 1)))
    graph = load_onnx(digits_model_path())
    with pytest.raises(CalibrationError, match=r"config must be a PTQConfig, got \{'weight_bits': 4\}"):
        quantize(graph, None, {"weight_bits": 4})
    with pytest.raises(LoweringError, match="only a QuantizedGraph is lowered, got Graph"):
        lower(graph, Machine())
    with pytest.raises(ModelError, match="network must be a QuantizedGraph or an IntegerProgram, got Graph"):
        simulate(graph, np.zeros((1, 1)))
