"""Graph, QuantizedGraph and Feeds: valid from birth, read-only, and clear about what is wrong."""

import numpy as np
import pytest
from onnx_models import random_array, small_network

from accelsim.errors import DataError, ModelError
from accelsim.formats import IntegerFormat, QuantizationParameters
from accelsim.graph.feeds import Feeds
from accelsim.graph.graph import Graph, Node, Tensor
from accelsim.graph.quantized import QuantizedGraph, QuantizedWeights
from accelsim.graph.reader import load_onnx

UINT8 = IntegerFormat(8, False)
INT4 = IntegerFormat(4, True)


def graph_of(nodes, shapes, outputs=("y",), constants=None):
    return Graph("g", 17, (Tensor("x", (None, 3)),), outputs, tuple(nodes), constants or {}, shapes)


SHAPES = {"x": (None, 3), "y": (None, 3), "z": (None, 3)}


@pytest.mark.parametrize(
    ("nodes", "shapes", "outputs", "fragment"),
    [
        ([Node("n", "Relu", ("z",), "y")], SHAPES, ("y",), "uses tensor 'z' before any node makes it"),
        ([Node("n", "Relu", ("x",), "x")], SHAPES, ("x",), "'x' is made twice"),
        ([Node("n", "Relu", ("x",), "y"), Node("n", "Relu", ("x",), "z")], SHAPES, ("y",), "two nodes are named 'n'"),
        ([Node("n", "Relu", ("x",), "w")], SHAPES, ("w",), "'w' of node 'n' (Relu) has no shape"),
        ([Node("n", "Relu", ("x",), "y")], SHAPES, ("q",), "graph output 'q' is made by no node"),
    ],
)
def test_graph_is_valid_from_birth(nodes, shapes, outputs, fragment):
    with pytest.raises(ModelError) as caught:
        graph_of(nodes, shapes, outputs)
    assert fragment in str(caught.value)


def test_graph_is_read_only():
    graph = load_onnx(small_network())
    with pytest.raises(ValueError, match="read-only"):
        graph.constants["w1"][0] = 0
    with pytest.raises(TypeError):
        graph.constants["w1"] = None
    with pytest.raises(TypeError):
        graph.shapes["x"] = ()
    with pytest.raises(TypeError):
        graph.nodes[0].attributes["group"] = 2


def test_who_makes_and_reads_a_tensor():
    graph = load_onnx(small_network())
    assert graph.producer("a1").name == "relu6"
    assert graph.producer("x") is None
    assert graph.producer("w1") is None
    assert [node.name for node in graph.consumers("a1")] == ["depthwise", "residual"]
    assert graph.consumers("y") == ()
    assert graph.channels("a1") == 4
    broken = graph_of([Node("n", "Relu", ("x",), "y")], {"x": (None, 3), "y": (None, None)})
    with pytest.raises(ModelError, match="'y' has no fixed number of channels"):
        broken.channels("y")


def test_changed_copy_drops_what_is_no_longer_used():
    graph = load_onnx(small_network())
    conv, norm, clip, *rest = graph.nodes
    folded = Node(conv.name, "Conv", ("x", "w1", "new"), norm.output, conv.attributes)
    changed = graph.with_nodes([folded, clip, *rest], {"new": np.ones(4, np.float32)})
    assert set(changed.constants) == {"w1", "new", "w2", "w3", "b3"}
    assert "c1" not in changed.shapes
    assert "n1" in changed.shapes
    assert "b1" in graph.constants


def parameters(low=-1.0, high=1.0, kind=UINT8, axis=None):
    return QuantizationParameters.from_range(low, high, kind, axis=axis)


def test_quantized_weights_are_codes_of_their_format():
    weights = QuantizedWeights(np.array([-8, 7]), parameters(kind=INT4))
    assert weights.integers.dtype == np.int8
    np.testing.assert_array_equal(weights.dequantize(), parameters(kind=INT4).dequantize([-8, 7]))
    with pytest.raises(ModelError, match=r"codes of int4 \(-8..7\), got -8..8"):
        QuantizedWeights(np.array([-8, 8]), parameters(kind=INT4))
    with pytest.raises(ModelError, match="must be integers, got float32"):
        QuantizedWeights(np.zeros(3, np.float32), parameters(kind=INT4))
    with pytest.raises(ValueError, match="read-only"):
        weights.integers[0] = 1


@pytest.mark.parametrize(
    ("activations", "weights", "fragment"),
    [
        ({"x": parameters()}, {}, "'y' has no quantizer"),
        ({"x": parameters(), "y": parameters(), "q": parameters()}, {}, "quantizer of 'q'"),
        ({"x": parameters(), "y": parameters([-1, -1], [1, 1], axis=1)}, {}, "quantized per tensor"),
        ({"x": parameters(), "y": parameters()}, {"q": QuantizedWeights(np.zeros(3, int), parameters())}, "'q'"),
        (
            {"x": parameters(), "y": parameters()},
            {"w3": QuantizedWeights(np.zeros(3, int), parameters())},
            "'w3' must have shape (3, 4), got (3,)",
        ),
    ],
)
def test_quantized_graph_is_valid_from_birth(activations, weights, fragment):
    graph = load_onnx(small_network())
    with pytest.raises(ModelError) as caught:
        QuantizedGraph(graph, activations, weights, graph)
    assert fragment in str(caught.value)


def test_bias_in_accumulator_units():
    graph = load_onnx(small_network())
    chosen = QuantizationParameters(np.float32(0.25), np.int64(3), UINT8)
    scales = QuantizationParameters(np.float32([0.5, 0.25, 1.0]), np.int64([0, 0, 0]), INT4, axis=0)
    weights = {
        "w3": QuantizedWeights(np.zeros((3, 4), int), scales),
        "w2": QuantizedWeights(np.zeros((4, 1, 3, 3), int), parameters(kind=INT4)),
    }
    names = ("x", "a1", "f", "y")
    network = QuantizedGraph(graph, dict.fromkeys(names, chosen), weights, graph)
    dense, depthwise = graph.producer("y"), graph.producer("c2")
    np.testing.assert_array_equal(network.bias_scale(dense), [0.125, 0.0625, 0.25])
    bias = graph.constants["b3"].astype(np.float64)
    np.testing.assert_array_equal(network.bias_integers(dense), np.rint(bias / [0.125, 0.0625, 0.25]))
    np.testing.assert_array_equal(network.bias_integers(depthwise), np.zeros(4, np.int64))


FEED_GRAPH = load_onnx(small_network())


def test_feeds_cut_data_into_batches():
    images = random_array((7, 2, 6, 6)).astype(np.float64)
    feeds = Feeds(FEED_GRAPH, images)
    assert feeds.num_samples == 7
    parts = list(feeds.batches(3))
    assert [part["x"].shape[0] for part in parts] == [3, 3, 1]
    assert all(part["x"].dtype == np.float32 for part in parts)
    np.testing.assert_array_equal(np.concatenate([part["x"] for part in parts]), images.astype(np.float32))
    np.testing.assert_array_equal(Feeds(FEED_GRAPH, {"x": images}).slice(2, 4)["x"], images[2:4].astype(np.float32))
    pixels = np.full((1, 2, 6, 6), 255, np.uint8)
    np.testing.assert_array_equal(Feeds(FEED_GRAPH, pixels).slice(0, 1)["x"], pixels.astype(np.float32))


@pytest.mark.parametrize(
    ("images", "fragment"),
    [
        (np.zeros((3, 2, 6, 7)), "must have shape (samples, 2, 6, 6), got (3, 2, 6, 7)"),
        (np.zeros((3, 6, 6, 2)), "channels last"),
        (np.zeros((2, 6, 6)), "leading axis"),
        (np.zeros((0, 2, 6, 6)), "at least one sample"),
        (np.array([["a"]]), "numeric"),
        ({"z": np.zeros((3, 2, 6, 6))}, "the inputs x, got z"),
        ({}, "got none"),
    ],
)
def test_feeds_that_do_not_fit(images, fragment):
    with pytest.raises(DataError) as caught:
        Feeds(FEED_GRAPH, images)
    assert fragment in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_feeds_must_be_finite(value):
    images = np.zeros((3, 2, 6, 6))
    images[1, 0, 0, 0] = value
    feeds = Feeds(FEED_GRAPH, images)
    assert feeds.slice(0, 1)["x"].shape == (1, 2, 6, 6)
    with pytest.raises(DataError, match=r"'x' must be finite, but samples 0\.\.2"):
        feeds.slice(0, 3)


def test_feeds_of_two_inputs():
    inputs = (Tensor("a", (None, 2)), Tensor("b", (None, 3)))
    graph = Graph("two", 17, inputs, ("a",), (), {}, {"a": (None, 2), "b": (None, 3)})
    with pytest.raises(DataError, match="the inputs a, b; pass a mapping"):
        Feeds(graph, np.zeros((1, 2)))
    with pytest.raises(DataError, match="same number of samples"):
        Feeds(graph, {"a": np.zeros((1, 2)), "b": np.zeros((2, 3))})
    assert Feeds(graph, {"b": np.zeros((2, 3)), "a": np.zeros((2, 2))}).num_samples == 2
