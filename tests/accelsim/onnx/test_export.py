"""Quantized graphs written as QDQ models: they load in ONNX Runtime, and are read back to the same integers."""

import numpy as np
import onnx
import onnxruntime
import pytest

import accelsim as ax
from accelsim.data import digits_model_path, load_digits
from tests.accelsim.onnx.models import by_onnxruntime
from tests.accelsim.run.networks import NETWORKS, graph_of, images_of

WIDTHS = [(4, 4), (8, 8), (16, 16), (4, 8), (5, 11)]


def named(images, program):
    feeds = images if isinstance(images, dict) else {program.inputs[0].name: images}
    return {name: np.asarray(values, dtype=np.float32) for name, values in feeds.items()}


def written(quantized, path):
    quantized.to_onnx(path, style="qdq")
    onnx.checker.check_model(onnx.load(path), full_check=True)
    onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])  # with everything optimized
    return ax.load_integer_onnx(path)


def assert_same(result, wanted):
    assert list(result.outputs) == list(wanted.outputs)
    for name, codes in wanted.outputs.items():
        assert result.outputs[name].dtype == codes.dtype
        np.testing.assert_array_equal(result.outputs[name], codes, err_msg=name)
        np.testing.assert_array_equal(result.real_outputs[name], wanted.real_outputs[name])


@pytest.mark.parametrize("widths", WIDTHS, ids=lambda widths: f"W{widths[0]}A{widths[1]}")
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_read_back_to_the_same_integers(name, widths, tmp_path):
    config = ax.PTQConfig(
        weight_bits=widths[0], activation_bits=widths[1], per_channel=widths[0] != 16, rounding="nearest",
        weight_scheme="affine" if widths == (4, 8) else "symmetric",
    )  # fmt: skip
    quantized = ax.quantize(graph_of(name), images_of(name, 12, seed=0), config)
    program = written(quantized, tmp_path / "model.onnx")
    images = images_of(name)
    assert program.machine.requantizer.name == "onnxruntime"
    assert_same(ax.simulate(program, images), ax.simulate(quantized, images, program.machine))
    other = ax.Machine(rows=3, columns=5, requantizer="tflite", zero_point="at_input", accumulator_bits=24)
    assert_same(ax.simulate(program, images, other), ax.simulate(quantized, images, other))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_nodes_alone_mean_what_onnx_runtime_computes(name, tmp_path):
    quantized = ax.quantize(graph_of(name), images_of(name, 12, seed=0), ax.PTQConfig(per_channel=True))
    quantized.to_onnx(tmp_path / "model.onnx", style="qdq")
    model = onnx.load(tmp_path / "model.onnx")
    del model.metadata_props[:]
    program = ax.load_integer_onnx(model)
    assert program.whole
    feeds = named(images_of(name), program)
    result = ax.simulate(program, feeds)
    for values, wanted in zip(result.outputs.values(), by_onnxruntime(model, feeds), strict=True):
        np.testing.assert_array_equal(values, wanted)


@pytest.mark.slow  # 120 images through three networks
def test_the_shipped_digits_network(tmp_path):
    digits = load_digits()
    graph = ax.load_onnx(digits_model_path())
    for bits in (4, 8, 16):
        config = ax.PTQConfig(weight_bits=bits, activation_bits=bits, per_channel=True, rounding="nearest")
        quantized = ax.quantize(graph, calibration=digits.x_calibration[:64], config=config)
        program = written(quantized, tmp_path / f"{bits}.onnx")
        images = digits.x_test[:40]
        assert_same(ax.simulate(program, images), ax.simulate(quantized, images, program.machine))


def test_a_changed_model_is_read_by_its_nodes(tmp_path):
    quantized = ax.quantize(graph_of("classifier"), images_of("classifier", 12, seed=0), ax.PTQConfig(per_channel=True))
    quantized.to_onnx(tmp_path / "model.onnx", style="qdq")
    model = onnx.load(tmp_path / "model.onnx")
    assert not ax.load_integer_onnx(model).whole
    integers = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("integers"))
    values = onnx.numpy_helper.to_array(integers).copy()
    values.reshape(-1)[0] ^= 1
    integers.CopyFrom(onnx.numpy_helper.from_array(values, integers.name))
    program = ax.load_integer_onnx(model)
    assert program.whole
    feeds = named(images_of("classifier"), program)
    result = ax.simulate(program, feeds)
    for made, wanted in zip(result.outputs.values(), by_onnxruntime(model, feeds), strict=True):
        np.testing.assert_array_equal(made, wanted)


@pytest.mark.parametrize("damage", ["{", "[]", '{"version": 1}', '{"version": 1, "digest": 0}'])
def test_a_damaged_description(damage, tmp_path):
    quantized = ax.quantize(graph_of("classifier"), images_of("classifier", 12, seed=0), ax.PTQConfig())
    quantized.to_onnx(tmp_path / "model.onnx", style="qdq")
    model = onnx.load(tmp_path / "model.onnx")
    model.metadata_props[0].value = damage
    if "digest" in damage:
        assert ax.load_integer_onnx(model).whole
        return
    with pytest.raises(ax.ModelError, match="description of its quantized graph is damaged"):
        ax.load_integer_onnx(model)


def test_an_unknown_style_is_refused(tmp_path):
    quantized = ax.quantize(graph_of("classifier"), images_of("classifier", 12, seed=0), ax.PTQConfig())
    with pytest.raises(ax.DataError, match="style must be one of fake_quant, qdq"):
        quantized.to_onnx(tmp_path / "model.onnx", style="qlinear")
