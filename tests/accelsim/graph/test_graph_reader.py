"""What a Graph is made of after reading: names, batch, constants, source; the networks that come with the project."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import NEWEST_OPSET, feeds_of, make_model, random_array, run, small_network, tensor_info

from accelsim.errors import ModelError
from accelsim.graph.operators import OPERATORS
from accelsim.graph.reader import load_onnx
from accelsim.graph.writer import expose_outputs, to_onnx


def node(op, sources, target, **attributes):
    return helper.make_node(op, sources, [target], **attributes)


def test_same_graph_from_path_bytes_and_proto(tmp_path):
    model = small_network()
    path = tmp_path / "small.onnx"
    path.write_bytes(model.SerializeToString())
    graphs = [load_onnx(path), load_onnx(str(path)), load_onnx(path.read_bytes()), load_onnx(model)]
    for graph in graphs:
        assert graph.name == "tiny"
        assert graph.opset == 17
        assert graph.source == path.read_bytes()
        assert [(tensor.name, tensor.shape) for tensor in graph.inputs] == [("x", (None, 2, 6, 6))]
        assert graph.outputs == ("y",)
        assert graph.batch_size is None
        assert [node.name for node in graph.nodes] == [node.name for node in model.graph.node]


def test_unnamed_graph_takes_the_name_of_its_file(tmp_path):
    model = small_network()
    model.graph.ClearField("name")
    path = tmp_path / "edge_net.onnx"
    path.write_bytes(model.SerializeToString())
    assert load_onnx(path).name == "edge_net"
    assert load_onnx(model).name == "model"


def test_every_node_has_exactly_the_attributes_of_its_operator():
    for graph in (load_onnx(small_network()),):
        for entry in graph.nodes:
            assert set(entry.attributes) == set(OPERATORS[entry.op].attributes)


def test_constants_keep_their_names_unless_they_change():
    graph = load_onnx(small_network())
    assert set(graph.constants) == {"w1", "b1", "scale", "shift", "mean", "var", "w2", "w3", "b3"}
    weights = random_array((6, 5))
    graph = load_onnx(make_model([node("Gemm", ["x", "w"], "y")], {"x": ["N", 6]}, ["y"], {"w": weights}))
    (name,) = graph.constants
    assert name == "w.normalised"
    np.testing.assert_array_equal(graph.constants[name], weights.T)


def test_gemm_factors_are_rounded_once():
    weights, bias = random_array((5, 6), 1), random_array(5, 2)
    model = make_model(
        [node("Gemm", ["x", "w", "b"], "y", alpha=0.3, beta=-1.7, transB=1)],
        {"x": ["N", 6]}, ["y"], {"w": weights, "b": bias},
    )  # fmt: skip
    graph = load_onnx(model)
    alpha, beta = float(np.float32(0.3)), float(np.float32(-1.7))
    new_weights, new_bias = (graph.constants[name] for name in graph.nodes[0].inputs[1:])
    np.testing.assert_array_equal(new_weights, (weights.astype(np.float64) * alpha).astype(np.float32))
    np.testing.assert_array_equal(new_bias, (bias.astype(np.float64) * beta).astype(np.float32))
    feeds = feeds_of(model)
    # The product is scaled after the sum there and before it here: a few units in the last place of values below 8.
    np.testing.assert_allclose(run(to_onnx(graph), feeds)["y"], run(model, feeds)["y"], rtol=0, atol=8 * 2.0**-21)


@pytest.mark.skipif(NEWEST_OPSET < 24, reason="the installed onnx has no Swish operator")
@pytest.mark.parametrize("alpha", [1.0, 1.7])
def test_swish_operator(alpha):
    model = make_model([node("Swish", ["x"], "y", alpha=alpha)], {"x": ["N", 50]}, ["y"], opset=24)
    graph = load_onnx(model)
    assert [entry.op for entry in graph.nodes] == ["Swish"]
    feeds = feeds_of(model)
    x = feeds["x"].astype(np.float64)
    expected = x / (1 + np.exp(-float(np.float32(alpha)) * x))
    # Sigmoid in float32 is a polynomial of the runtime's own, good to about 2**-22.
    np.testing.assert_allclose(run(to_onnx(graph), feeds)["y"], expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(run(model, feeds)["y"], expected, rtol=1e-6, atol=1e-6)


def test_gate_that_is_used_twice_or_returned_stays():
    nodes = [node("Sigmoid", ["x"], "g"), node("Mul", ["x", "g"], "m"), node("Add", ["m", "g"], "y")]
    used_twice = load_onnx(make_model(nodes, {"x": ["N", 4]}, ["y"]))
    assert [entry.op for entry in used_twice.nodes] == ["Sigmoid", "Mul", "Add"]
    returned = load_onnx(make_model(nodes[:2], {"x": ["N", 4]}, ["m", "g"]))
    assert [entry.op for entry in returned.nodes] == ["Sigmoid", "Mul"]
    other = [node("Sigmoid", ["z"], "g"), node("Mul", ["x", "g"], "y")]
    assert [entry.op for entry in load_onnx(make_model(other, {"x": ["N", 4], "z": ["N", 4]}, ["y"])).nodes] == [
        "Sigmoid",
        "Mul",
    ]


def test_names_are_made_unique():
    nodes = [
        node("Relu", ["x"], "a", name="same"),
        node("Relu", ["a"], "b", name="same"),
        node("Relu", ["b"], "same_1"),
        node("Relu", ["same_1"], "y", name="same"),
    ]
    graph = load_onnx(make_model(nodes, {"x": ["N", 4]}, ["y"]))
    assert [entry.name for entry in graph.nodes] == ["same", "same_1", "same_1_1", "same_2"]
    assert [entry.output for entry in graph.nodes] == ["a", "b", "same_1", "y"]


def test_nodes_out_of_order_are_sorted_and_dead_ones_dropped():
    nodes = [node("Relu", ["b"], "y"), node("Tanh", ["x"], "b"), node("Selu", ["x"], "unused")]
    graph = load_onnx(make_model(nodes, {"x": ["N", 4]}, ["y"]))
    assert [entry.op for entry in graph.nodes] == ["Tanh", "Relu"]


def test_fixed_batch():
    model = make_model([node("Relu", ["x"], "y")], {"x": [4, 3]}, ["y"])
    graph = load_onnx(model)
    assert graph.batch_size == 4
    assert graph.inputs[0].shape == (None, 3)
    # Written back, the batch is open.
    assert run(to_onnx(graph), {"x": np.ones((7, 3), np.float32)})["y"].shape == (7, 3)


@pytest.mark.parametrize("first", [None, "N", ""])
def test_symbolic_or_missing_batch(first):
    model = make_model([node("Relu", ["x"], "y")], {"x": [first, 3]}, ["y"])
    assert load_onnx(model).batch_size is None


def test_one_fixed_input_fixes_the_batch():
    model = make_model([node("Add", ["x", "z"], "y")], {"x": ["N", 3], "z": [5, 3]}, ["y"])
    assert load_onnx(model).batch_size == 5


def test_initializers_listed_as_inputs_are_constants():
    """Up to IR version 3 every initializer had to be an input as well."""
    graph = helper.make_graph(
        [node("MatMul", ["x", "w"], "y")], "old",
        [tensor_info("x", ["N", 3]), tensor_info("w", [3, 2])], [tensor_info("y", ["N", 2])],
        initializer=[numpy_helper.from_array(random_array((3, 2)), "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=3)
    read = load_onnx(model)
    assert [tensor.name for tensor in read.inputs] == ["x"]
    assert list(read.constants) == ["w"]


def test_weights_in_every_storage():
    """Raw bytes, typed fields and Constant nodes of each kind hold the same numbers."""
    values = random_array((3, 2))
    raw = numpy_helper.from_array(values, "w")
    typed = helper.make_tensor("w", TensorProto.FLOAT, (3, 2), values.reshape(-1).tolist())
    assert raw.HasField("raw_data")
    assert not typed.HasField("raw_data")
    models = []
    for tensor in (raw, typed):
        models.append(make_model([node("MatMul", ["x", "w"], "y")], {"x": ["N", 3]}, ["y"]))
        models[-1].graph.initializer.append(tensor)
    nodes = [node("Constant", [], "w", value=raw), node("MatMul", ["x", "w"], "y")]
    models.append(make_model(nodes, {"x": ["N", 3]}, ["y"]))
    nodes = [
        node("Constant", [], "flat", value_floats=values.reshape(-1).tolist()),
        node("Constant", [], "rows", value_int=3),
        node("Constant", [], "shape", value_ints=[-1, 2]),
        node("Reshape", ["flat", "shape"], "w"),
        node("MatMul", ["x", "w"], "y"),
    ]
    models.append(make_model(nodes, {"x": ["N", 3]}, ["y"]))
    for model in models:
        graph = load_onnx(model)
        assert list(graph.constants) == ["w"]
        np.testing.assert_array_equal(graph.constants["w"], values)


def test_inner_alias_of_an_input_reads_the_input():
    nodes = [node("Identity", ["x"], "i"), node("Dropout", ["i"], "d"), node("Relu", ["d"], "y")]
    graph = load_onnx(make_model(nodes, {"x": ["N", 3]}, ["y"], opset=11))
    assert [(entry.op, entry.inputs, entry.output) for entry in graph.nodes] == [("Relu", ("x",), "y")]


def test_output_behind_an_alias_keeps_its_name_for_all_consumers():
    nodes = [node("Relu", ["x"], "r"), node("Identity", ["r"], "y"), node("Tanh", ["r"], "t")]
    graph = load_onnx(make_model(nodes, {"x": ["N", 3]}, ["t", "y"]))
    assert [(entry.op, entry.inputs, entry.output) for entry in graph.nodes] == [
        ("Relu", ("x",), "y"), ("Tanh", ("y",), "t")]  # fmt: skip
    assert set(graph.shapes) == {"x", "y", "t"}


def test_expose_outputs():
    model = small_network()
    feeds = feeds_of(model)
    graph = load_onnx(model)
    names = ["n1", "y", "x", "p"]
    inner = run(expose_outputs(graph.source, names), feeds)
    written = run(to_onnx(graph, names), feeds)
    assert list(inner) == names
    assert list(written) == names
    np.testing.assert_array_equal(inner["x"], feeds["x"])
    np.testing.assert_array_equal(inner["y"], run(model, feeds)["y"])
    for name in names:
        np.testing.assert_array_equal(inner[name], written[name])
    with pytest.raises(ModelError, match="no tensor 'w9'"):
        expose_outputs(graph.source, ["w9"])
    with pytest.raises(ModelError, match="'w1' is not in the graph"):
        to_onnx(graph, ["w1"])
    with pytest.raises(ModelError, match="twice"):
        to_onnx(graph, ["y", "y"])


def test_only_needed_nodes_are_written():
    graph = load_onnx(small_network())
    assert [entry.op_type for entry in to_onnx(graph, ["n1"]).graph.node] == ["Conv", "BatchNormalization"]


@pytest.mark.parametrize(("file", "num_nodes"), [("resnet8_cifar10.onnx", 29), ("mobilenetv1_025_imagenet.onnx", 86)])
def test_trained_networks(file, num_nodes, shared):
    path = shared / "models" / file
    graph = load_onnx(path)
    assert len(graph.nodes) == num_nodes
    assert graph.source == path.read_bytes()
    feeds = {"input": random_array((2, *graph.inputs[0].shape[1:]), scale=1.0)}
    names = [entry.output for entry in graph.nodes]
    expected = run(expose_outputs(graph.source, names), feeds)
    actual = run(to_onnx(graph, names), feeds)
    for name in names:
        assert expected[name].shape == (2, *graph.shapes[name][1:])
        np.testing.assert_array_equal(actual[name], expected[name])
