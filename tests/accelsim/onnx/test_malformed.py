"""Changed and damaged models are refused in one line: what `tools/fuzz_onnx.py` found, and some rounds of it."""

import random
from contextlib import suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import accelsim as ax
from tests.accelsim.onnx.models import Model
from tests.accelsim.onnx.seeds import seed_models

ROOT = Path(__file__).resolve().parents[3]


def refusal(model):
    with pytest.raises(ax.AccelsimError) as refused:
        ax.load_integer_onnx(model)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def convolution(weights=(4, 3, 3, 3), bias=None, scales=4, **attributes):
    """A convolution between quantizers, with a bias behind a DequantizeLinear."""
    m = Model()
    x = m.dequantized(m.input(m.codes("uint8", 1, 3, 6, 6)), "uint8")
    scale = m.constant(np.full(scales, 0.01, np.float32))
    operands = [x, m.node("DequantizeLinear", [m.constant(m.codes("int8", *weights)), scale], axis=0)]
    if bias is not None:
        stored = [m.constant(bias), m.constant(np.float32(1e-9)), m.constant(np.int32(0))]
        operands.append(m.node("DequantizeLinear", stored))
    return m, m.node("Conv", operands, **attributes)


def test_a_bias_of_another_length():
    m, real = convolution(bias=np.zeros(72, np.int32))
    assert "its bias" in refusal(m.model(m.quantized(real, "uint8")))


def test_a_bias_that_is_not_finite():
    m = Model()
    x = m.dequantized(m.input(m.codes("uint8", 2, 5)), "uint8")
    weights = m.node("DequantizeLinear", [m.constant(m.codes("int8", 5, 3)), m.constant(np.float32(0.1))])
    real = m.node("Gemm", [x, weights, m.constant(np.array([1, np.nan, 2], np.float32))])
    assert "not one finite constant per output channel" in refusal(m.model(m.quantized(real, "uint8")))


def test_as_many_scales_as_there_are_weights():
    m, real = convolution(scales=5)
    assert "do not fit axis 0" in refusal(m.model(real))
    m = Model()
    operands = [m.input(m.codes("uint8", 3, 5)), *m.quantizer("uint8"), m.constant(m.codes("uint8", 5, 4))]
    operands += [m.constant(np.ones(100, np.float32)), m.constant(np.uint8(0))]
    assert "100 scales for 4 output channels" in refusal(m.model(m.contrib("QGemm", operands)))


def test_padding_beyond_all_memory():
    m, real = convolution(pads=[1 << 40, 0, 0, 0], strides=[1 << 41, 1])
    assert "the padded input of" in refusal(m.model(m.quantized(real, "uint8")))


def test_a_pool_with_padding_beyond_all_memory():
    m = Model()
    operands = [m.input(m.codes("uint8", 1, 2, 6, 6)), *m.quantizer("uint8"), *m.quantizer("uint8")]
    window = {"kernel_shape": [2, 2], "pads": [1 << 40, 0, 0, 0], "strides": [1 << 41, 1]}
    assert "the padded input of" in refusal(m.model(m.contrib("QLinearAveragePool", operands, **window)))


@pytest.mark.parametrize("field", ["strides", "dilations"])
def test_steps_beyond_any_image(field):
    """Found by fuzzing: distances between windows left 64 bits."""
    shape = (1, 1) if field == "dilations" else (3, 3)
    m = Model()
    operands = [m.input(m.codes("uint8", 1, 2, 6, 6)), *m.quantizer("uint8"), m.constant(m.codes("int8", 3, 2, *shape))]
    operands += [m.constant(np.float32(0.1)), m.constant(np.int8(0)), *m.quantizer("uint8")]
    model = m.model(m.node("QLinearConv", operands, **{field: [1 << 60, 1]}))
    assert "strides and dilations must be at most 16777216, got 1152921504606846976" in refusal(model)


def test_a_pool_without_strides():
    """Found by fuzzing: onnx's helper makes no attribute of an empty list."""
    m = Model()
    operands = [m.input(m.codes("uint8", 1, 2, 6, 6)), *m.quantizer("uint8"), *m.quantizer("uint8")]
    model = m.model(m.contrib("QLinearAveragePool", operands, kernel_shape=[2, 2], strides=[1, 1]))
    attribute = next(a for a in model.graph.node[0].attribute if a.name == "strides")
    del attribute.ints[:]
    assert "does not fit its input" in refusal(model)


@pytest.mark.parametrize("place", [1, 2])
def test_a_pool_with_an_empty_quantizer(place):
    """Found by fuzzing."""
    m = Model()
    operands = [m.input(m.codes("uint8", 1, 2, 6, 6)), *m.quantizer("uint8"), *m.quantizer("uint8")]
    operands[place] = m.constant(np.zeros(0, np.float32 if place == 1 else np.uint8))
    model = m.model(m.contrib("QLinearAveragePool", operands, kernel_shape=[2, 2]))
    assert "must not be empty" in refusal(model)


def test_a_transposition_of_fewer_axes():
    """Found by fuzzing: onnx infers a shape from them all the same."""
    m = Model()
    x = m.dequantized(m.input(m.codes("uint8", 2, 3, 6, 8)), "uint8")
    model = m.model(m.quantized(m.node("Transpose", [x], perm=[0, 2, 1]), "uint8"))
    assert "perm (0, 2, 1) is no order of the 4 axes of its input" in refusal(model)


def test_a_convolution_of_a_constant():
    """Found by fuzzing: the model of a run's memory knew no constants."""
    m = Model()
    m.input(m.codes("uint8", 1, 2))
    x = m.dequantized(m.constant(m.codes("uint8", 1, 2, 6, 6)), "uint8")
    weights = m.node("DequantizeLinear", [m.constant(m.codes("int8", 3, 2, 3, 3)), m.constant(np.float32(0.1))])
    program = ax.load_integer_onnx(m.model(m.quantized(m.node("Conv", [x, weights]), "uint8")))
    stepped, fast = (ax.simulate(program, m.feeds, engine=engine).outputs for engine in ("stepped", "fast"))
    (name,) = fast
    assert np.array_equal(stepped[name], fast[name])
    assert fast[name].shape == (1, 3, 4, 4)


def test_scales_of_a_float_result_beyond_float32():
    """Found by fuzzing: numpy warned where ONNX Runtime makes an infinity."""
    m = Model()
    operands = [m.input(m.codes("uint8", 3, 4)), m.constant(np.float32(3e38)), m.constant(np.uint8(0))]
    operands += [m.constant(m.codes("uint8", 4, 5)), m.constant(np.float32(3e38)), m.constant(np.uint8(0))]
    program = ax.load_integer_onnx(m.model(m.contrib("QGemm", operands)))
    assert not np.isfinite(next(iter(ax.simulate(program, m.feeds).outputs.values()))).all()


def test_a_shape_that_holds_another_number_of_elements():
    m = Model()
    x = m.dequantized(m.input(m.codes("uint8", 2, 6)), "uint8")
    real = m.node("Reshape", [x, m.constant(np.array([2, 7]))])
    message = refusal(m.model(m.quantized(real, "uint8")))
    assert "Reshape" in message


def test_a_pad_of_some_axes_runs_as_the_model_says():
    m = Model()
    x = m.dequantized(m.input(m.codes("uint8", 2, 6)), "uint8")
    operands = [x, m.constant(np.array([1, 2])), m.constant(np.float32(0)), m.constant(np.array([1]))]
    model = m.model(m.quantized(m.node("Pad", operands), "uint8"))
    assert ax.simulate(ax.load_integer_onnx(model), m.feeds).outputs["y2"].shape == (2, 9)


def test_an_output_scale_with_a_zero_point_that_is_no_code():
    m = Model()
    operands = [m.input(m.codes("uint8", 3, 5)), *m.quantizer("uint8"), m.constant(m.codes("uint8", 5, 4))]
    operands += [*m.quantizer("uint8"), "", m.constant(np.float32(1)), m.constant(np.int32(0))]
    assert "must hold codes of at most 16 bits" in refusal(m.model(m.contrib("QGemm", operands)))


@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
def test_scales_beyond_float32_clamp(op):
    m = Model()
    huge = m.constant(np.float32(3e38))
    operands = [m.input(m.codes("uint8", 4)), huge, m.constant(np.uint8(3))] * 2
    model = m.model(m.contrib(op, [*operands, m.constant(np.float32(1e-38)), m.constant(np.uint8(0))]))
    codes = ax.simulate(ax.load_integer_onnx(model), m.feeds).outputs["y0"]
    assert set(codes.tolist()) <= {0, 255}


def test_a_sum_beyond_float32_clamps():
    """The ratio of the scales is a float32 number, what it makes of a code is infinity; once it was a warning."""
    m = Model()
    x, other = m.input(m.codes("uint8", 4)), m.input(np.array([0, 2, 200, 255], np.uint8))
    large, one, zero = m.constant(np.float32(3e38)), m.constant(np.float32(1)), m.constant(np.uint8(0))
    model = m.model(m.contrib("QLinearAdd", [x, one, zero, other, large, zero, one, zero]))
    codes = ax.simulate(ax.load_integer_onnx(model), m.feeds).outputs["y0"]
    assert set(codes.tolist()[1:]) <= {0, 255}
    assert codes[0] == next(iter(m.feeds.values()))[0]


def test_inputs_without_a_shape_or_of_no_length():
    m = Model()
    model = m.model(m.quantized(m.node("Relu", [m.input(np.ones((1, 2), np.float32))]), "uint8"))
    model.graph.input[0].type.tensor_type.ClearField("shape")
    assert "declared shape" in refusal(model)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x0", TensorProto.FLOAT, [1, 0]))
    assert "lengths must be at least 1" in refusal(model)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x0", TensorProto.FLOAT, [1, "n"]))
    assert "only axis 0 may be dynamic" in refusal(model)


@pytest.mark.parametrize("name", ["between_quantizers 0", "functions 1"])
def test_a_model_that_is_cut_anywhere(name):
    whole = seed_models()[name]
    for length in range(0, len(whole), 97):
        with suppress(ax.AccelsimError):
            ax.load_integer_onnx(whole[:length])


def test_some_rounds_of_the_fuzzer():
    spec = spec_from_file_location("fuzz_onnx", ROOT / "tools" / "fuzz_onnx.py")
    fuzzer = module_from_spec(spec)
    spec.loader.exec_module(fuzzer)
    source, seeds = random.Random(1), list(seed_models().values())
    outcomes = {fuzzer.attempt(fuzzer.changed(source.choice(seeds), source)) for _ in range(150)}
    assert {"loaded and run", "refused: ModelError"} <= outcomes


def test_a_factor_of_zero():
    m = Model()
    x = m.dequantized(m.input(m.codes("uint8", 2, 5)), "uint8")
    weights = m.node("DequantizeLinear", [m.constant(m.codes("int8", 5, 3)), m.constant(np.float32(0.1))])
    real = m.node("Gemm", [x, weights, m.constant(np.ones(3, np.float32))], alpha=0.0)
    assert "times alpha are not finite and above 0" in refusal(m.model(m.quantized(real, "uint8")))


def test_scales_of_a_float_result_in_a_matrix():
    m = Model()
    operands = [m.input(m.codes("uint8", 3, 20)), *m.quantizer("uint8"), m.constant(m.codes("uint8", 20, 5))]
    operands += [m.constant(np.ones((5, 20), np.float32)), m.constant(np.uint8(0))]
    assert "100 scales for 5 output channels" in refusal(m.model(m.contrib("QGemm", operands)))


def test_zero_points_of_a_product_that_are_no_integers():
    m = Model()
    operands = [m.input(m.codes("uint8", 3, 20)), *m.quantizer("uint8"), m.constant(m.codes("uint8", 20, 5))]
    operands += [m.constant(np.float32(1)), m.constant(np.float32(np.nan)), "", *m.quantizer("uint8")]
    assert "must be integers" in refusal(m.model(m.contrib("QGemm", operands)))


def test_a_shape_that_onnx_runtime_does_not_make(monkeypatch):
    from accelsim.program.onnx.nodes import NodeRunner

    m = Model()
    x = m.dequantized(m.input(m.codes("uint8", 2, 6)), "uint8")
    program = ax.load_integer_onnx(m.model(m.quantized(m.node("Softmax", [x]), "uint8")))
    monkeypatch.setattr(NodeRunner, "run", lambda self, values: [np.zeros((3, 4), np.float32)])
    with pytest.raises(ax.ModelError, match=r"makes a tensor of shape \(3, 4\), ONNX says \(2, 6\)"):
        ax.simulate(program, m.feeds)


def test_onnx_runtime_adds_nothing_to_an_error(capfd):
    m = Model()
    x = m.dequantized(m.input(m.codes("uint8", 2, 6)), "uint8")
    bounds = [m.constant(np.zeros(3, np.float32)), m.constant(np.float32(1))]
    real = m.node("Clip", [m.node("Softmax", [x]), *bounds])
    program = ax.load_integer_onnx(m.model(m.quantized(real, "uint8")))
    with pytest.raises(ax.ModelError, match="ONNX Runtime refuses to run it"):
        ax.simulate(program, m.feeds)
    assert capfd.readouterr() == ("", "")


def test_a_quantized_operator_of_constants():
    """ONNX Runtime aborted the process on one of its own operators without an input."""
    m = Model()
    x = m.contrib("QLinearLeakyRelu", [m.constant(np.uint8([1, 2])), *m.quantizer("uint8"), *m.quantizer("uint8")])
    total = m.contrib("QLinearAdd", [x, *m.quantizer("uint8"), m.input(m.codes("uint8", 2)), *m.quantizer("uint8") * 2])
    assert "computes a constant" in refusal(m.model(total))
