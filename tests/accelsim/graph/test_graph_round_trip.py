"""Every operator in several opsets: the model as it came and the graph written back give the same numbers."""

import numpy as np
import onnx
import pytest
from onnx_models import NEWEST_OPSET, OPSETS, feeds_of, run
from operator_cases import CASES

from accelsim.graph.reader import load_onnx
from accelsim.graph.writer import to_onnx

PAIRS = [
    pytest.param(name, opset, id=f"{name}-{opset}")
    for name, (_, oldest, newest, _) in CASES.items()
    for opset in OPSETS
    if oldest <= opset <= (newest or NEWEST_OPSET)
]


@pytest.mark.parametrize(("name", "opset"), PAIRS)
def test_round_trip(name, opset):
    build, _, _, operators = CASES[name]
    model = build(opset)
    graph = load_onnx(model)
    assert [node.op for node in graph.nodes] == operators
    feeds = feeds_of(model)
    expected = run(model, feeds)
    written = to_onnx(graph)
    # ONNX's own shape inference below opset 22 keeps a window in the padding that the runtime drops (ceil_mode).
    onnx.checker.check_model(written, full_check="last window" not in name)
    actual = run(written, feeds)
    assert list(actual) == list(expected)
    for output, values in expected.items():
        assert values.shape[1:] == graph.shapes[output][1:]
        assert graph.shapes[output][0] is None
        if name.startswith("average pool") and (opset >= 19) != (written.opset_import[0].version >= 19):
            # From opset 19 on ONNX Runtime has another kernel, which adds in another order: nine values of
            # magnitude below 8 in float32, each addition off by half a unit in the last place at most.
            np.testing.assert_allclose(actual[output], values, rtol=0, atol=9 * 2.0**-22)
        else:
            np.testing.assert_array_equal(actual[output], values)
