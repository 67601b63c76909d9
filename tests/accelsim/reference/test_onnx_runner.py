from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from accelsim.errors import DataError, ModelError
from accelsim.graph.reader import load_onnx
from accelsim.ptq import PTQConfig, quantize
from accelsim.reference import OnnxRunner

WEIGHTS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
IMAGES = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)


def model(batch="N"):
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["g"], name="gemm", transB=1),
        helper.make_node("Relu", ["g"], ["y"], name="relu"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


EXPECTED = np.maximum(IMAGES @ WEIGHTS.T, 0)


@pytest.mark.parametrize("form", ["proto", "bytes"])
def test_a_model_runs(form):
    runner = OnnxRunner(model() if form == "proto" else model().SerializeToString())
    assert (runner.inputs, runner.outputs) == (("x",), ("y",))
    # Three products summed in another order than numpy's: 4 last bits.
    np.testing.assert_allclose(runner.run({"x": IMAGES})["y"], EXPECTED, rtol=5e-7, atol=5e-7)


@pytest.mark.parametrize("batch", [1, 2, 5, 8])
def test_a_model_of_fixed_batch_is_split_and_filled_up(batch):
    graph = load_onnx(model(batch))
    assert graph.batch_size == batch
    returned = OnnxRunner.of_original(graph, ["y", "g"]).run({"x": IMAGES})
    assert returned["y"].shape == (5, 4)
    np.testing.assert_allclose(returned["y"], EXPECTED, rtol=5e-7, atol=5e-7)  # as above
    np.testing.assert_array_equal(np.maximum(returned["g"], 0), returned["y"])


def test_a_graph_without_source_runs_as_it_stands():
    graph = load_onnx(model())
    found = OnnxRunner.of_original(replace(graph, source=None), ["g"]).run({"x": IMAGES})
    np.testing.assert_allclose(found["g"], IMAGES @ WEIGHTS.T, rtol=5e-7, atol=5e-7)  # as above


def test_simulation_is_the_formula_of_the_quantizers():
    graph = load_onnx(model())
    quantized = quantize(graph, IMAGES, PTQConfig(weight_bits=3, activation_bits=4, bias_correction="none"))
    found = OnnxRunner.of_simulated(quantized, ["y"]).run({"x": IMAGES})["y"]
    x, y = quantized.activations["x"], quantized.activations["y"]
    (gemm, _) = quantized.graph.nodes
    products = x.dequantize(x.quantize(IMAGES)).astype(np.float64) @ quantized.weights[gemm.inputs[1]].dequantize().T
    codes = y.quantize(np.maximum(products, 0))
    np.testing.assert_array_equal(found, y.dequantize(codes))


def test_a_broken_model_is_a_model_error():
    with pytest.raises(ModelError, match="ONNX Runtime refuses the model"):
        OnnxRunner(b"no protobuf at all")


def test_wrong_inputs_are_a_data_error():
    with pytest.raises(DataError, match="ONNX Runtime cannot run the model on these inputs"):
        OnnxRunner(model()).run({"x": np.zeros((2, 7), np.float32)})
