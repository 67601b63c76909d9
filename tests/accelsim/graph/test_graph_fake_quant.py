"""The fake-quant model in ONNX Runtime against the quantizer's own formulas, bit for bit."""

import numpy as np
import onnx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import helper
from onnx_models import make_model, random_array, run, small_network

from accelsim.errors import DataError, ModelError
from accelsim.formats import IntegerFormat, QuantizationParameters
from accelsim.graph.quantized import QuantizedGraph, QuantizedWeights
from accelsim.graph.reader import load_onnx
from accelsim.graph.writer import save_quantized_onnx, to_fake_quant_onnx


def parameters(low, high, bits=8, signed=False, axis=None):
    return QuantizationParameters.from_range(low, high, IntegerFormat(bits, signed), axis=axis)


def symmetric(weights, bits, axis=None):
    others = tuple(place for place in range(weights.ndim) if place != axis) if axis is not None else None
    limit = np.abs(weights).max(axis=others)
    chosen = QuantizationParameters.from_range(-limit, limit, IntegerFormat(bits, True), "symmetric", axis=axis)
    return QuantizedWeights(chosen.quantize(weights), chosen)


def quantized(graph, activations, weights=None):
    return QuantizedGraph(graph, activations, weights or {}, graph)


def fake(parameters, values):
    """Return what quantizer and dequantizer make of real values."""
    return parameters.dequantize(parameters.quantize(values))


def linear_graph(op, bias=True):
    """Build a graph of one layer whose products and sums are exact in float32, in whatever order."""
    constants = {
        "Conv": {"w": random_array((4, 3, 3, 3), 1)},
        "Gemm": {"w": random_array((4, 6), 1)},
        "MatMul": {"w": random_array((6, 4), 1)},
    }[op]
    operands = ["x", "w"]
    if bias and op != "MatMul":
        constants["b"] = random_array(4, 2)
        operands.append("b")
    shape = ["N", 3, 5, 5] if op == "Conv" else ["N", 6]
    attributes = {"transB": 1} if op == "Gemm" else {}
    return load_onnx(make_model([helper.make_node(op, operands, ["y"], **attributes)], {"x": shape}, ["y"], constants))


def apply_linear(op, x, weights, bias):
    """Compute a layer in float64."""
    x, weights = x.astype(np.float64), weights.astype(np.float64)
    if op == "Gemm":
        return x @ weights.T + bias
    if op == "MatMul":
        return x @ weights + bias
    windows = np.lib.stride_tricks.sliding_window_view(x, weights.shape[2:], axis=(2, 3))
    return np.einsum("nchwij,ocij->nohw", windows, weights) + bias[:, None, None]


@pytest.mark.parametrize("op", ["Conv", "Gemm", "MatMul"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_one_layer_equals_the_formula(op, per_channel):
    graph = linear_graph(op)
    axis = (1 if op == "MatMul" else 0) if per_channel else None
    # Scales are powers of two and codes are short, so that float32 sums are exact and rounding happens in the
    # quantizers only.
    x_parameters = QuantizationParameters(np.float32(2**-5), np.int64(130), IntegerFormat(8, False))
    y_parameters = QuantizationParameters(np.float32(2**-4), np.int64(3), IntegerFormat(8, True))
    exponents = np.array([-5, -6, -4, -5], dtype=np.float32) if per_channel else np.float32(-5)
    w_parameters = QuantizationParameters(
        np.exp2(exponents), np.zeros_like(exponents, np.int64), IntegerFormat(7, True), axis
    )
    weights = QuantizedWeights(w_parameters.quantize(graph.constants["w"]), w_parameters)
    network = quantized(graph, {"x": x_parameters, "y": y_parameters}, {"w": weights})
    model = to_fake_quant_onnx(network, ["y", "y.unquantized", "x.quantized", "x"])
    onnx.checker.check_model(model, full_check=True)
    x = random_array((20, *graph.inputs[0].shape[1:]), 7, scale=3.0)
    results = run(model, {"x": x})

    real_x = fake(x_parameters, x)
    node = graph.nodes[0]
    bias = network.bias_integers(node) * network.bias_scale(node)
    real_y = apply_linear(op, real_x, weights.dequantize(), bias).astype(np.float32)
    np.testing.assert_array_equal(results["x"], x)
    np.testing.assert_array_equal(results["x.quantized"], real_x)
    np.testing.assert_array_equal(results["y.unquantized"], real_y)
    np.testing.assert_array_equal(results["y"], fake(y_parameters, real_y))
    assert np.unique(y_parameters.quantize(real_y)).size > 20


@given(
    bits=st.integers(1, 16),
    signed=st.booleans(),
    scale=st.floats(2.0**-20, 2.0**10, width=32),
    place=st.floats(0, 1),
    values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=30),
)
@example(bits=16, signed=False, scale=1.0, place=1.0, values=[0.5, 1.5, -0.5, -1.5, 65534.5, 3.4e38, -3.4e38])
@example(bits=1, signed=True, scale=0.1, place=0.0, values=[0.0, -0.0, 0.05, 1e-45])
def test_quantizer_block_equals_the_quantizer(bits, signed, scale, place, values):
    """Any width, zero point and value, ties and the ends of float32 included."""
    kind = IntegerFormat(bits, signed)
    zero = kind.minimum + round(place * (kind.maximum - kind.minimum))
    chosen = QuantizationParameters(np.float32(scale), np.int64(zero), kind)
    graph = load_onnx(make_model([helper.make_node("Flatten", ["x"], ["y"])], {"x": ["N", 1]}, ["y"]))
    model = to_fake_quant_onnx(quantized(graph, {"x": chosen, "y": chosen}))
    # Ties between two codes as well as the values drawn.
    with np.errstate(over="ignore"):
        ties = (np.arange(-3, 4) + 0.5).astype(np.float32) * np.float32(scale)
    x = np.concatenate([np.array(values, np.float32), ties])[:, None]
    np.testing.assert_array_equal(run(model, {"x": x})["y"], fake(chosen, x))


def small_quantized(bits=6):
    graph = load_onnx(small_network())
    ranges = {"x": (-3, 3), "n1": None, "a1": (0, 6), "c2": (-9, 9), "a2": (0, 12), "p": (0, 12), "f": (0, 12)}
    activations = {name: parameters(*limits, bits) for name, limits in ranges.items() if limits is not None}
    activations["y"] = parameters(-10, 10, bits, signed=True)
    weights = {name: symmetric(graph.constants[name], bits, axis=0) for name in ("w1", "w2", "w3")}
    return quantized(graph, activations, weights)


def test_network_tensor_by_tensor():
    """Each stored tensor is on its grid; consumers and outputs see quantized values, tensors without entry raw ones."""
    network = small_quantized()
    names = ["c1", "n1", "a1", "c2", "r", "a2", "p", "f", "y"]
    model = to_fake_quant_onnx(network, [*names, "a1.unquantized", "c2.unquantized", "f.unquantized"])
    onnx.checker.check_model(model, full_check=True)
    feeds = {"x": random_array((4, 2, 6, 6), 11)}
    results = run(model, feeds)
    for name, chosen in network.activations.items():
        if name in results:
            np.testing.assert_array_equal(results[name], fake(chosen, results[name]))
    np.testing.assert_array_equal(results["a1.unquantized"], np.clip(results["n1"], 0, 6))
    np.testing.assert_array_equal(results["a1"], fake(network.activations["a1"], results["a1.unquantized"]))
    np.testing.assert_array_equal(results["r"], results["a1"] + results["c2"])
    assert not np.array_equal(results["c2"], results["c2.unquantized"])
    # c1 and r have no quantizer: they keep values between two codes.
    assert np.unique(results["c1"]).size > 200
    # Flatten only moves values that are on the grid of "p" already, so it has no block of its own.
    np.testing.assert_array_equal(results["f"], results["f.unquantized"])
    np.testing.assert_array_equal(results["f"], results["p"].reshape(4, 4))
    rounds = [node for node in model.graph.node if node.op_type == "Round"]
    assert len(rounds) == len(network.activations) - 1


def test_moving_to_another_grid_is_quantized():
    network = small_quantized()
    other = dict(network.activations) | {"f": parameters(0, 5, 4)}
    network = quantized(network.graph, other, network.weights)
    results = run(to_fake_quant_onnx(network, ["p", "f"]), {"x": random_array((4, 2, 6, 6), 11)})
    np.testing.assert_array_equal(results["f"], fake(other["f"], results["p"].reshape(4, 4)))


def test_weights_and_biases_are_dequantized():
    network = small_quantized()
    model = to_fake_quant_onnx(network)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name in ("w1", "w2", "w3"):
        np.testing.assert_array_equal(stored[name], network.weights[name].dequantize())
    dense = network.graph.nodes[-1]
    expected = (network.bias_integers(dense) * network.bias_scale(dense)).astype(np.float32)
    np.testing.assert_array_equal(stored["b3.quantized"], expected)
    # Half a unit of the accumulator at most, and the rounding to float32.
    limit = 0.5 * network.bias_scale(dense) + np.abs(expected) * 2.0**-24
    assert (np.abs(expected.astype(np.float64) - network.graph.constants["b3"]) <= limit).all()
    assert stored["scale"].dtype == np.float32


def test_bias_shared_by_two_layers_has_two_values():
    constants = {"w1": random_array((4, 6), 1), "w2": random_array((4, 6), 2, scale=9.0), "b": random_array(4, 3)}
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b"], ["u"], transB=1),
        helper.make_node("Gemm", ["x", "w2", "b"], ["v"], transB=1),
    ]
    graph = load_onnx(make_model(nodes, {"x": ["N", 6]}, ["u", "v"], constants))
    ranges = {"x": parameters(-2, 2), "u": parameters(-9, 9), "v": parameters(-50, 50)}
    network = quantized(graph, ranges, {name: symmetric(constants[name], 5) for name in ("w1", "w2")})
    model = to_fake_quant_onnx(network, ["u.unquantized", "v.unquantized"])
    results = run(model, {"x": np.zeros((1, 6), np.float32)})
    for node, name in zip(graph.nodes, ("u.unquantized", "v.unquantized"), strict=True):
        expected = (network.bias_integers(node) * network.bias_scale(node)).astype(np.float32)
        np.testing.assert_array_equal(results[name][0], expected)
    assert not np.array_equal(results["u.unquantized"], results["v.unquantized"])


def test_names_that_are_taken_already():
    """A network that calls its own tensors ``y.unquantized`` and ``x.quantized`` is still written correctly."""
    nodes = [helper.make_node("Relu", ["x"], ["x.quantized"]), helper.make_node("Tanh", ["x.quantized"], ["y"]),
             helper.make_node("Sigmoid", ["y"], ["y.unquantized"])]  # fmt: skip
    graph = load_onnx(make_model(nodes, {"x": ["N", 6]}, ["y.unquantized"]))
    ranges = {name: parameters(-1, 1, 4, signed=True) for name in graph.shapes}
    x = random_array((2, 6))
    results = run(to_fake_quant_onnx(quantized(graph, ranges), ["x.quantized", "y", "y.unquantized"]), {"x": x})
    chosen = ranges["x"]
    relu = fake(chosen, np.maximum(fake(chosen, x), 0))
    np.testing.assert_array_equal(results["x.quantized"], relu)
    # Tanh and Sigmoid are the runtime's own; four bits leave no doubt about the code.
    np.testing.assert_array_equal(results["y"], fake(chosen, np.tanh(relu)))
    np.testing.assert_array_equal(results["y.unquantized"], fake(chosen, 1 / (1 + np.exp(-results["y"]))))


def test_saving(tmp_path):
    network = small_quantized()
    path = tmp_path / "fake.onnx"
    network.to_onnx(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["fake.onnx"]
    feeds = {"x": random_array((1, 2, 6, 6))}
    np.testing.assert_array_equal(run(path.read_bytes(), feeds)["y"], run(to_fake_quant_onnx(network), feeds)["y"])
    with pytest.raises(DataError, match="style must be one of fake_quant, qdq, got 'int3'"):
        save_quantized_onnx(network, path, "int3")
    with pytest.raises(DataError, match="cannot be written"):
        save_quantized_onnx(network, tmp_path / "no" / "such" / "folder.onnx")
    with pytest.raises(DataError, match="cannot be written"):
        save_quantized_onnx(network, tmp_path)
    with pytest.raises(ModelError, match="'nothing' is not in the graph"):
        to_fake_quant_onnx(network, ["nothing"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["fake.onnx"]


def test_matmul_with_a_bias():
    """Folding may give MatMul a bias; the file spells it MatMul and Add."""
    graph = linear_graph("MatMul")
    node = graph.nodes[0]
    bias = random_array(4, 5)
    graph = graph.with_nodes([type(node)(node.name, "MatMul", ("x", "w", "bias"), "y")], {"bias": bias})
    ranges = {"x": parameters(-2, 2), "y": parameters(-9, 9)}
    network = quantized(graph, ranges, {"w": symmetric(graph.constants["w"], 8, axis=1)})
    model = to_fake_quant_onnx(network, ["y.unquantized"])
    onnx.checker.check_model(model, full_check=True)
    expected = (network.bias_integers(graph.nodes[0]) * network.bias_scale(graph.nodes[0])).astype(np.float32)
    zeros = np.zeros((1, 6), np.float32)
    np.testing.assert_array_equal(run(model, {"x": zeros})["y.unquantized"][0], expected)
