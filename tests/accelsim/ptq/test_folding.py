import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ptq_networks import Net, conv_net, linear_chains, run_float

from accelsim.errors import ModelError
from accelsim.ptq.folding import fold
from accelsim.reference import OnnxRunner


@settings(max_examples=60)
@given(linear_chains(), st.integers(0, 1000))
def test_folded_network_computes_the_same_function(graph, seed):
    folded = fold(graph).graph
    assert not any(node.op == "BatchNormalization" for node in folded.nodes)
    shape = (3, *graph.inputs[0].shape[1:])
    images = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    names = [name for name in folded.shapes if name in graph.shapes and name != "x"]
    assert set(graph.outputs) <= set(names)
    before = OnnxRunner.of_original(graph, names).run({"x": images})
    after = run_float(folded, images, names)
    for name in names:
        # Folding rounds each weight once more, and a chain of up to 7 maps may cancel: 1e-4 of the largest value.
        scale = max(1.0, float(np.abs(before[name]).max()))
        assert np.abs(before[name] - after[name]).max() <= 1e-4 * scale


def test_the_folded_layer_makes_the_tensor_of_the_batch_norm():
    graph = conv_net(np.random.default_rng(0))
    result = fold(graph)
    folded, log = result.graph, result.log
    assert [node.op for node in folded.nodes] == [
        "Conv",
        "Relu",
        "Conv",
        "Clip",
        "Add",
        "GlobalAveragePool",
        "Flatten",
        "Gemm",
    ]
    assert [node.output for node in folded.nodes][:3] == ["n1", "r1", "n2"]
    assert len(log) == 2
    assert "n1_node" in log[0]
    assert "c1_node" in log[0]
    assert folded.source is None


def test_the_folded_values_are_those_of_the_equations():
    """W~ = gamma W / sqrt(var + eps), b~ = beta + gamma (b - mu) / sqrt(var + eps), in float64, rounded once."""
    rng = np.random.default_rng(1)
    net = Net(x=(2, 4))
    weights, bias = rng.normal(size=(3, 2, 1)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    gamma, beta, mean, variance = (rng.uniform(0.5, 2, 3).astype(np.float32) for _ in range(4))
    net.add("Conv", "x", "c", [weights, bias])
    net.add("BatchNormalization", "c", "n", [gamma, beta, mean, variance], epsilon=0.25)
    net.add("Mul", "n", "y", [np.float32(3)])
    folded = fold(net.graph("y")).graph
    (node,) = folded.nodes
    assert node.output == "y"
    g, b, m, v = (value.astype(np.float64) for value in (gamma, beta, mean, variance))
    factor = g / np.sqrt(v + 0.25)
    expected = 3 * (weights.astype(np.float64) * factor[:, None, None])
    np.testing.assert_array_equal(folded.constants[node.inputs[1]], expected.astype(np.float32))
    expected_bias = 3 * (bias.astype(np.float64) * factor + (b - factor * m))
    np.testing.assert_allclose(folded.constants[node.inputs[2]], expected_bias.astype(np.float32), rtol=1.2e-7)


def test_matmul_takes_the_added_vector_as_its_bias():
    net = Net(x=(5, 3))
    net.add("MatMul", "x", "m", [np.arange(6).reshape(3, 2)])
    net.add("Add", "m", "y", [[10.0, 20.0]])
    folded = fold(net.graph("y")).graph
    (node,) = folded.nodes
    assert (node.op, node.output) == ("MatMul", "y")
    np.testing.assert_array_equal(folded.constants[node.inputs[2]], [10, 20])
    images = np.random.default_rng(0).integers(-5, 5, (2, 5, 3)).astype(np.float32)
    expected = images @ np.arange(6, dtype=np.float32).reshape(3, 2) + np.array([10, 20], np.float32)
    np.testing.assert_array_equal(run_float(folded, images)["y"], expected)


@pytest.mark.parametrize("reason", ["second reader", "graph output", "no linear layer"])
@pytest.mark.parametrize(("shape", "replacement"), [((3,), ["Mul", "Add"]), ((3, 4), ["Conv"]), ((3, 4, 4), ["Conv"])])
def test_a_batch_norm_without_a_layer_to_itself_becomes_a_layer(reason, shape, replacement):
    rng = np.random.default_rng(0)
    net = Net(x=shape)
    tensor, outputs = "x", ["n"]
    if reason != "no linear layer":
        if len(shape) == 1:
            tensor = net.add("Gemm", "x", "c", [rng.normal(size=(3, 3))])
        else:
            tensor = net.add("Conv", "x", "c", [rng.normal(size=(3, 3, *[1] * (len(shape) - 1)))])
        if reason == "graph output":
            outputs.append("c")
        else:
            outputs.append(net.add("Relu", "c", "other"))
    net.batch_norm(tensor, "n", 3, rng)
    graph = net.graph(*outputs)
    result = fold(graph)
    folded, log = result.graph, result.log
    made = [node.op for node in folded.nodes if node.output.startswith("n")]
    assert made == replacement
    assert "replaced BatchNormalization 'n_node'" in log[0]
    images = rng.normal(size=(2, *shape)).astype(np.float32)
    before, after = OnnxRunner.of_original(graph).run({"x": images}), run_float(folded, images)
    for name in outputs:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-5, atol=1e-5)  # another order of float32 steps


def test_a_constant_that_is_no_map_per_channel_stays():
    net = Net(x=(2, 4, 4))
    net.add("Conv", "x", "c", [np.ones((2, 2, 1, 1))])
    net.add("Add", "c", "y", [np.arange(16).reshape(4, 4)])
    result = fold(net.graph("y"))
    folded, log = result.graph, result.log
    assert [node.op for node in folded.nodes] == ["Conv", "Add"]
    assert log == ()


def test_each_layer_has_weights_of_its_own():
    """Two layers that share a constant see inputs of other scales, so their quantizers differ."""
    net = Net(x=(3, 4, 4))
    net.constants["shared"] = np.random.default_rng(0).normal(size=(3, 3, 1, 1)).astype(np.float32)
    net.add("Conv", ["x", "shared"], "a")
    net.add("Relu", "a", "r")
    net.add("Conv", ["r", "shared"], "b")
    folded = fold(net.graph("b")).graph
    first, second = (node.inputs[1] for node in folded.nodes if node.op == "Conv")
    assert first != second
    np.testing.assert_array_equal(folded.constants[first], folded.constants[second])


def test_a_fold_that_is_not_finite_names_the_layer():
    net = Net(x=(1, 4))
    net.add("Conv", "x", "c", [np.full((1, 1, 1), 1e30)])
    net.add("BatchNormalization", "c", "n", [[1e30], [0.0], [0.0], [1.0]], epsilon=0.0)
    with pytest.raises(ModelError, match=r"c_node.*not finite"):
        fold(net.graph("n"))
