"""`accelsim run` of ONNX models that another tool quantized."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import accelsim as ax
from tests.accelsim.report.test_vectors import read

from .conftest import assert_refused


@pytest.fixture(scope="module")
def integer(tmp_path_factory):
    """Paths of a model of one QLinearConv and of its images, channels first and last."""
    folder, random = tmp_path_factory.mktemp("integer"), np.random.default_rng(5)
    constants = {
        "x_scale": np.float32(0.05), "x_zero": np.uint8(120), "w_scale": np.float32(0.02), "w_zero": np.int8(0),
        "y_scale": np.float32(0.1), "y_zero": np.uint8(128), "w": random.integers(-127, 128, (4, 3, 3, 3), np.int8),
    }  # fmt: skip
    node = helper.make_node(
        "QLinearConv", ["x", "x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero"], ["y"], name="conv"
    )
    graph = helper.make_graph(
        [node],
        "integer",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["N", 3, 5, 6])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, ["N", 4, 3, 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "net.onnx")
    images = random.integers(0, 256, (7, 3, 5, 6), np.uint8)
    np.savez(folder / "data.npz", first=images, last=np.moveaxis(images, 1, -1))
    return folder


@pytest.mark.parametrize(("array", "layout"), [("first", "channels-first"), ("last", "channels-last")])
def test_the_codes_are_those_of_simulate(accelsim, integer, tmp_path, array, layout):
    result = accelsim(
        "run", integer / "net.onnx", "--images", f"{integer / 'data.npz'}:{array}", "--layout", layout, "--output",
        tmp_path / "y.npz", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["machine"]["requantizer"]["multiplier"] == "float32"
    program = ax.load_integer_onnx(integer / "net.onnx")
    expected = ax.simulate(program, np.load(integer / "data.npz")["first"]).outputs["y"]
    assert np.array_equal(np.load(tmp_path / "y.npz")["y"], expected)


def test_another_machine_and_options_that_would_do_nothing(accelsim, integer):
    images = ["--images", f"{integer / 'data.npz'}:first"]
    narrow = ["--machine", "paper_4x4", "--set", "accumulator_bits=10", "--set", "overflow=saturate", "--json"]
    result = accelsim("run", integer / "net.onnx", *images, *narrow)
    assert json.loads(result.stdout)["overflow_events"] > 0
    assert_refused(accelsim("run", integer / "net.onnx", *images, "--weight-bits", 4), "--weight-bits would do nothing")


@pytest.mark.parametrize("command", ["compare", "quantize"])
def test_commands_that_need_a_float_network_say_so(accelsim, integer, tmp_path, command):
    data = f"{integer / 'data.npz'}:first"
    last = ["--output", tmp_path / "net.npz"] if command == "quantize" else ["--images", data]
    result = accelsim(command, integer / "net.onnx", "--calibration", data, *last)
    assert_refused(result, "has quantized operators; give it to `accelsim run`")


def test_a_layer_is_traced_to_the_codes_of_simulate(accelsim, integer, tmp_path):
    arguments = ["trace", integer / "net.onnx", "--layer", "conv", "--images", f"{integer / 'data.npz'}:first"]
    result = accelsim(*arguments, "--sample", 2, "--vectors", tmp_path / "v")
    assert result.exit_code == 0, result.output
    program = ax.load_integer_onnx(integer / "net.onnx")
    expected = ax.simulate(program, np.load(integer / "data.npz")["first"]).outputs["y"][2]
    assert read(tmp_path / "v", "outputs.hex").tolist() == expected.reshape(4, -1).tolist()
    assert f"{program.machine.accumulator_bits}-bit accumulators" in result.stdout
