"""Sweeps and widths of models that another tool quantized: each point held to a run alone."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import accelsim as ax
from accelsim.arrays import count_right
from tests.accelsim.cli.test_cli_tflite import model_bytes
from tests.accelsim.explore.tiny import tiny_network

SETTINGS = {
    "accumulator_bits": [10, 13, 32],
    "dataflow": ["output_stationary", "weight_stationary"],
    "overflow": ["wrap", "saturate"],
    "requantizer": ["tflite", "onnxruntime"],
}


def qlinear_model(batch):
    """A quantized convolution and a matrix product; the batch is open, or several samples a run."""
    random = np.random.default_rng(8)
    constants = {
        "x_s": np.float32(0.02), "x_z": np.int8(3), "w": random.integers(-127, 128, (4, 2, 3, 3)).astype(np.int8),
        "w_s": np.float32(0.01), "w_z": np.int8(0), "b": random.integers(-99, 99, 4).astype(np.int32),
        "h_s": np.float32(0.05), "h_z": np.int8(-7), "m": random.integers(-127, 128, (36, 5)).astype(np.int8),
        "y_s": np.float32(0.2), "y_z": np.int8(0), "shape": np.array([-1, 36]),
    }  # fmt: skip
    nodes = [
        helper.make_node("QLinearConv", ["x", "x_s", "x_z", "w", "w_s", "w_z", "h_s", "h_z", "b"], ["h"], pads=[1] * 4),
        helper.make_node("Reshape", ["h", "shape"], ["f"]),
        helper.make_node("QLinearMatMul", ["f", "h_s", "h_z", "m", "w_s", "w_z", "y_s", "y_z"], ["y"]),
        helper.make_node("DequantizeLinear", ["y", "y_s", "y_z"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "qlinear",
        [helper.make_tensor_value_info("x", TensorProto.INT8, [batch, 2, 3, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 5])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def tflite(folder):
    images = np.random.default_rng(4).integers(-128, 128, (6, 6, 5, 3)).astype(np.int8)
    return ax.load_tflite(model_bytes(), kernels="tflite_micro"), images


def integer_onnx(folder, batch="N"):
    images = np.random.default_rng(4).integers(-128, 128, (6, 2, 3, 3)).astype(np.int8)
    return ax.load_integer_onnx(qlinear_model(batch)), images


def written_qdq(folder):
    tiny = tiny_network()
    tiny.quantized.to_onnx(folder / "tiny.onnx", style="qdq")
    return ax.load_integer_onnx(folder / "tiny.onnx"), tiny.images


MODELS = {
    "tflite": tflite,
    "integer onnx": integer_onnx,
    "three samples a run": lambda folder: integer_onnx(folder, 3),
    "qdq": written_qdq,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_point_is_that_of_a_run_alone(name, tmp_path):
    program, images = MODELS[name](tmp_path)
    own = ax.simulate(program, images)
    reference = next(iter(own.real_outputs.values()))
    labels = (reference.argmax(axis=1) + (np.arange(len(reference)) % 3 == 0)) % reference.shape[1]
    result = ax.sweep(program, images, labels, SETTINGS, machine=ax.Machine(rows=4, columns=4), workers=1)
    assert len(result.done) == 24
    for point in result.points:
        run = ax.simulate(program, images, ax.Machine(**point.machine))
        real = next(iter(run.real_outputs.values()))
        wanted = {
            "accuracy": count_right(real, labels) / len(real),
            "agreement": count_right(real, reference.argmax(axis=1)) / len(real),
            "overflow_events": run.overflow_events,
            "partial_overflow_events": sum(layer.partial_overflow_events for layer in run.layers),
            "cycles": run.cycles.total,
            "operations": run.operations.total,
        }
        assert {key: point.metrics[key] for key in wanted} == wanted
        assert point.ptq is None
    widest = [point for point in result.points if point.settings["accumulator_bits"] == 32]
    native = program.machine.requantizer.name
    assert [p.metrics["agreement"] for p in widest if p.settings["requantizer"] == native] == [1.0] * 4
    assert any(point.metrics["overflow_events"] for point in result.points)


def test_the_machine_is_the_models_own_where_none_is_given(tmp_path):
    program, images = tflite(tmp_path)
    (point,) = ax.sweep(program, images, None, {"double_buffered": [True]}, workers=1).points
    assert ax.Machine(**point.machine) == program.machine.replace(double_buffered=True)
    assert (point.metrics["agreement"], point.metrics["sqnr_db"]) == (1.0, None)


def test_what_an_imported_model_cannot_have_is_refused(tmp_path):
    program, images = tflite(tmp_path)
    with pytest.raises(ax.DataError, match="weight_bits would do nothing; give the float network"):
        ax.sweep(program, images, None, {"weight_bits": [4, 8]}, workers=1)
    with pytest.raises(ax.DataError, match="calibration data would do nothing"):
        ax.sweep(program, images, None, {"rows": [4]}, calibration=images, workers=1)
    with pytest.raises(ax.DataError, match="labels must be 6 whole numbers"):
        ax.sweep(program, images, np.zeros(5, dtype=int), {"rows": [4]}, workers=1)
    tiny = tiny_network()
    bound = ax.lower(tiny.quantized, ax.Machine())
    with pytest.raises(ax.ModelError, match="must come from load_tflite or load_integer_onnx"):
        ax.sweep(bound, tiny.images, None, {"rows": [4]}, workers=1)
