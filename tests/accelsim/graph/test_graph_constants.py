"""Arithmetic and reshaping of constants, done at reading: the same values as ONNX Runtime's."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_models import feeds_of, make_model, random_array, run

from accelsim.errors import ModelError
from accelsim.graph.reader import load_onnx


def ints(*values):
    return np.array(values, dtype=np.int64)


A = random_array((2, 1, 3, 4), 1)
CASES = {
    "add": (("Add", ["a", "b"], {}), {"b": random_array((3, 1), 2)}, (2, 1, 3, 4)),
    "sub": (("Sub", ["b", "a"], {}), {"b": random_array((5, 1, 1), 2)}, (2, 5, 3, 4)),
    "mul": (("Mul", ["a", "b"], {}), {"b": np.float32(0.7)}, (2, 1, 3, 4)),
    "identity": (("Identity", ["a"], {}), {}, (2, 1, 3, 4)),
    "transpose": (("Transpose", ["a"], {}), {}, (4, 3, 1, 2)),
    "transpose perm": (("Transpose", ["a"], {"perm": [1, 3, 0, 2]}), {}, (1, 4, 2, 3)),
    "reshape": (("Reshape", ["a", "s"], {}), {"s": ints(0, -1, 6)}, (2, 2, 6)),
    "reshape allowzero": (("Reshape", ["a", "s"], {"allowzero": 1}), {"s": ints(-1, 8)}, (3, 8)),
    "flatten": (("Flatten", ["a"], {}), {}, (2, 12)),
    "flatten 0": (("Flatten", ["a"], {"axis": 0}), {}, (1, 24)),
    "flatten all": (("Flatten", ["a"], {"axis": 4}), {}, (24, 1)),
    "flatten from the end": (("Flatten", ["a"], {"axis": -1}), {}, (6, 4)),
    "squeeze": (("Squeeze", ["a"], {}), {}, (2, 3, 4)),
    "squeeze axes": (("Squeeze", ["a", "s"], {}), {"s": ints(-3)}, (2, 3, 4)),
    "unsqueeze": (("Unsqueeze", ["a", "s"], {}), {"s": ints(-1, 1)}, (2, 1, 1, 3, 4, 1)),
}


@pytest.mark.parametrize("name", CASES)
def test_folded_constant(name):
    (op, operands, attributes), constants, shape = CASES[name]
    nodes = [helper.make_node(op, operands, ["c"], **attributes), helper.make_node("Add", ["x", "c"], ["y"])]
    model = make_model(nodes, {"x": ["N", *shape]}, ["y"], {"a": A, **constants})
    graph = load_onnx(model)
    assert [node.op for node in graph.nodes] == ["Add"]
    (value,) = graph.constants.values()
    assert value.shape == shape
    feeds = {"x": np.zeros((1, *shape), np.float32)}
    np.testing.assert_array_equal(value[None], run(model, feeds)["y"])
    assert feeds_of(model)["x"].shape == (3, *shape)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"value_float": 0.1}, np.float32(0.1)),
        ({"value_floats": [0.1, 2.0]}, np.float32([0.1, 2.0])),
        ({"value": helper.make_tensor("t", TensorProto.FLOAT, (2, 1), [1.5, -3.0])}, np.float32([[1.5], [-3.0]])),
    ],
)
def test_constant_nodes(attributes, expected):
    nodes = [helper.make_node("Constant", [], ["c"], **attributes), helper.make_node("Mul", ["x", "c"], ["y"])]
    graph = load_onnx(make_model(nodes, {"x": ["N", 2, 2]}, ["y"]))
    assert graph.constants["c"].dtype == np.float32
    np.testing.assert_array_equal(graph.constants["c"], expected)


@pytest.mark.parametrize("data_type", [TensorProto.INT64, TensorProto.INT32])
def test_integers_in_typed_fields(data_type):
    """ONNX has a field of its own for 64-bit integers; shorter ones share another."""
    shape = helper.make_tensor("s", data_type, (2,), [0, -1])
    assert not shape.HasField("raw_data")
    model = make_model([helper.make_node("Reshape", ["x", "s"], ["y"])], {"x": ["N", 2, 3]}, ["y"], {})
    model.graph.initializer.append(shape)
    assert load_onnx(model).shapes["y"] == (None, 6)


def test_shapes_may_be_computed_from_constants():
    """Integer constants add up as well, and feed a Reshape."""
    nodes = [
        helper.make_node("Constant", [], ["one"], value_ints=[0, 1]),
        helper.make_node("Add", ["s", "one"], ["t"]),
        helper.make_node("Reshape", ["x", "t"], ["y"]),
    ]
    graph = load_onnx(make_model(nodes, {"x": ["N", 2, 3]}, ["y"], {"s": ints(0, 5)}))
    assert graph.shapes["y"] == (None, 6)
    assert not graph.constants


@pytest.mark.parametrize(
    ("op", "operands", "attributes", "constants", "fragment"),
    [
        ("Transpose", ["a"], {"perm": [0, 1]}, {}, "perm (0, 1)"),
        ("Flatten", ["a"], {"axis": 5}, {}, "axis 5"),
        ("Unsqueeze", ["a", "s"], {}, {"s": ints(0, 0)}, "repeat"),
        ("Unsqueeze", ["a", "s"], {}, {"s": ints(9)}, "axis 9"),
        ("Unsqueeze", ["a", "s"], {}, {"s": ints(*range(9))}, "13 axes"),
        ("Squeeze", ["a", "s"], {}, {"s": ints(0)}, "length 1"),
        ("Squeeze", ["a", "s"], {}, {"s": ints(4)}, "axis 4"),
        ("Reshape", ["a", "s"], {}, {"s": ints(2, 1, 3, 4, 0)}, "copies an axis"),
        ("Reshape", ["a", "s"], {}, {"s": ints(-1, -1)}, "(-1, -1)"),
        ("Reshape", ["a", "s"], {}, {"s": ints(5, 5)}, "(5, 5)"),
        ("Reshape", ["a", "s"], {}, {"s": ints(2**40, 2**40)}, "elements"),
        ("Reshape", ["a", "s"], {}, {"s": ints(-2, 12)}, "negative"),
        ("Relu", ["a"], {}, {}, "must not be a constant"),
    ],
)
def test_constant_expressions_that_are_refused(op, operands, attributes, constants, fragment):
    nodes = [
        helper.make_node(op, operands, ["c"], name="here", **attributes),
        helper.make_node("Add", ["x", "c"], ["y"]),
    ]
    with pytest.raises(ModelError) as caught:
        load_onnx(make_model(nodes, {"x": ["N", 2, 3, 3, 4]}, ["y"], {"a": A, **constants}))
    assert fragment in str(caught.value)
    assert f"'here' ({op}, opset 17)" in str(caught.value)
