import numpy as np
import pytest
from ptq_networks import Net, conv_net

from accelsim.errors import CalibrationError
from accelsim.ptq.folding import fold
from accelsim.ptq.placement import place_quantizers

ONES = np.ones((2, 2, 1, 1))
POOL = {"kernel_shape": [2, 2]}

TABLE = [
    # what it shows; nodes as (op, inputs, output, constants, attributes); outputs; calibrated; shared
    ("relu is fused", [("Conv", "x", "c", [ONES], {}), ("Relu", "c", "y", [], {})], "y", ["x", "y"], {}),
    ("clip is fused", [("Conv", "x", "c", [ONES], {}), ("Clip", "c", "y", [0.0, 6.0], {})], "y", ["x", "y"], {}),
    ("so it is after Add", [("Add", ["x", "x"], "s", [], {}), ("Relu", "s", "y", [], {})], "y", ["x", "y"], {}),
    (
        "only the first of two is",
        [("Conv", "x", "c", [ONES], {}), ("Relu", "c", "r", [], {}), ("Clip", "r", "y", [0.0, 6.0], {})],
        "y",
        ["x", "r", "y"],
        {},
    ),
    (
        "not where the layer's output is read twice",
        [("Conv", "x", "c", [ONES], {}), ("Relu", "c", "r", [], {}), ("Add", ["c", "r"], "y", [], {})],
        "y",
        ["x", "c", "r", "y"],
        {},
    ),
    (
        "not where it is a graph output",
        [("Conv", "x", "c", [ONES], {}), ("Relu", "c", "r", [], {})],
        "c r",
        ["x", "c", "r"],
        {},
    ),
    ("a relu alone is a table", [("Relu", "x", "y", [], {})], "y", ["x", "y"], {}),
    *(
        (
            f"{op} is a table",
            [("Conv", "x", "c", [ONES], {}), (op, "c", "y", constants, {})],
            "y",
            ["x", "c", "y"],
            {},
        )
        for op, constants in [
            ("LeakyRelu", []),
            ("PRelu", [np.ones((2, 1, 1))]),
            ("Sigmoid", []),
            ("Tanh", []),
            ("HardSigmoid", []),
            ("HardSwish", []),
        ]
    ),
    (
        "so is Swish",
        [("Conv", "x", "c", [ONES], {}), ("Sigmoid", "c", "g", [], {}), ("Mul", ["c", "g"], "y", [], {})],
        "y",
        ["x", "c", "y"],
        {},
    ),
    ("max pooling keeps the grid", [("MaxPool", "x", "y", [], POOL)], "y", ["x"], {"y": "x"}),
    ("average pooling too", [("AveragePool", "x", "y", [], POOL)], "y", ["x"], {"y": "x"}),
    (
        "through a chain of shapes",
        [
            ("GlobalAveragePool", "x", "p", [], {}),
            ("Flatten", "p", "f", [], {}),
            ("Reshape", "f", "r", [[-1, 2, 1]], {}),
            ("Transpose", "r", "y", [], {"perm": [0, 2, 1]}),
        ],
        "y",
        ["x"],
        {"p": "x", "f": "x", "r": "x", "y": "x"},
    ),
    ("spatial mean too", [("ReduceMean", "x", "y", [], {"axes": [2, 3]})], "y", ["x"], {"y": "x"}),
    (
        "a relu behind a pool is not fused",
        [("Conv", "x", "c", [ONES], {}), ("MaxPool", "c", "p", [], POOL), ("Relu", "p", "y", [], {})],
        "y",
        ["x", "c", "y"],
        {"p": "c"},
    ),
    ("concat has its own", [("Concat", ["x", "x"], "y", [], {"axis": 1})], "y", ["x", "y"], {}),
    ("so has Mul", [("Mul", "x", "y", [np.arange(32).reshape(2, 4, 4)], {})], "y", ["x", "y"], {}),
]


@pytest.mark.parametrize(
    ("nodes", "outputs", "calibrated", "shared"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE]
)
def test_placement_table(nodes, outputs, calibrated, shared):
    net = Net(x=(2, 4, 4))
    for op, inputs, output, constants, attributes in nodes:
        net.add(op, inputs, output, constants, **attributes)
    placement = place_quantizers(net.graph(*outputs.split()))
    assert list(placement.calibrated) == calibrated
    assert dict(placement.shared) == shared
    assert not placement.fixed
    assert not placement.required


def test_softmax_is_fixed_and_what_follows_shares_it():
    net = Net(x=(5,))
    net.add("Softmax", "x", "p", axis=1)
    net.add("Reshape", "p", "y", [[-1, 5, 1]])
    placement = place_quantizers(net.graph("y"))
    assert placement.fixed == ("p",)
    assert dict(placement.shared) == {"y": "p"}


def test_a_padded_value_is_required_of_the_tensor_that_sets_the_range():
    net = Net(x=(2, 4, 4))
    net.add("MaxPool", "x", "p", [], **POOL)
    net.add("Pad", "p", "q", [[0, 0, 1, 1, 0, 0, 1, 1], -3.0])
    net.add("Pad", "q", "y", [[0, 0, 1, 1, 0, 0, 1, 1], 0.0])
    placement = place_quantizers(net.graph("y"))
    assert dict(placement.required) == {"x": (-3.0,)}
    assert dict(placement.shared) == {"p": "x", "q": "x", "y": "x"}


def test_every_graph_output_is_placed():
    folded = fold(conv_net(np.random.default_rng(0))).graph
    placement = place_quantizers(folded)
    assert placement.calibrated == ("image", "r1", "r2", "sum", "logits")
    assert dict(placement.shared) == {"pooled": "sum", "flat": "sum"}


def test_padding_with_infinity_is_refused():
    net = Net(x=(2, 4, 4))
    net.add("Pad", "x", "y", [[0, 0, 1, 1, 0, 0, 1, 1], 0.0])
    graph = net.graph("y")
    (pad,) = graph.nodes
    broken = type(pad)(pad.name, pad.op, pad.inputs, pad.output, {**pad.attributes, "value": float("-inf")})
    with pytest.raises(CalibrationError, match=r"y_node.*-inf"):
        place_quantizers(graph.with_nodes([broken]))
