"""What is no TFLite model, or a damaged one, or one without an integer form, is a ModelError of one line."""

import random
from contextlib import suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import accelsim as ax
from accelsim.program.tflite import flatbuffer
from tests.accelsim.program import tflite_models
from tests.accelsim.program.tflite_cases import DILATION, IMAGE, SEEDS, WINDOW, bias, filters, moved, unary
from tests.accelsim.program.tflite_models import T, indices, one_op, write

CONV = {**WINDOW, **DILATION}


def refusal(model):
    """Return the message with which a model is refused."""
    with pytest.raises(ax.ModelError) as refused:
        ax.load_tflite(model)
    message = str(refused.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("data", [b"", b"TFL3", b"PK\x03\x04 something", bytes(100)])
def test_other_files_are_refused(data):
    assert "is not a TFLite model: it must have the identifier 'TFL3' at byte 4" in refusal(data)


def test_a_file_that_is_not_there_or_too_large_is_refused(tmp_path, monkeypatch):
    assert "cannot be read: No such file" in refusal(tmp_path / "none.tflite")
    assert "cannot be read: Is a directory" in refusal(tmp_path)
    (tmp_path / "a.tflite").write_bytes(SEEDS["conv"])
    assert ax.load_tflite(str(tmp_path / "a.tflite")).name == "a"
    for module in ("flatbuffer", "loading"):
        monkeypatch.setattr(f"accelsim.program.tflite.{module}.MAX_FILE_BYTES", 100)
    assert "is larger than 100 bytes" in refusal(tmp_path / "a.tflite")
    assert "at most 100 are read" in refusal(SEEDS["conv"])


def test_unknown_kernels_are_refused():
    with pytest.raises(ax.ModelError, match="kernels must be one of litert, tflite_micro, got 'xnnpack'"):
        ax.load_tflite(SEEDS["conv"], kernels="xnnpack")


@pytest.mark.parametrize("name", ["conv", "network"])
def test_a_model_that_is_cut_anywhere_is_refused_or_complete(name):
    whole = SEEDS[name]
    for length in range(8, len(whole), 5):
        with suppress(ax.ModelError):
            ax.load_tflite(whole[:length])


def damage():
    """The damage that the fuzzer does."""
    path = Path(__file__).resolve().parents[3] / "tools" / "fuzz_tflite.py"
    spec = spec_from_file_location("fuzz_tflite", path)
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


SCRIPT = damage()


@given(name=st.sampled_from(sorted(SEEDS)), seed=st.integers(0, 2**32))
def test_damaged_models_are_refused_or_run(name, seed):
    source = random.Random(seed)
    for _ in range(4):
        SCRIPT.attempt(SCRIPT.damaged(SEEDS[name], source))


def numbers(*values):
    return np.array(values, dtype=np.int32).tobytes()


def test_shapes_that_do_not_fit_the_memory_are_refused():
    model = one_op("RELU", [T("x", (7, 11, 13)), T("y", (7, 11, 13))], ["x"], ["y"])
    place = model.index(numbers(7, 11, 13))
    for shape in ((0, 11, 13), (-7, 11, 13), (2**30, 2**30, 13), (2**13, 2**13, 2)):
        assert "its shape must have" in refusal(model[:place] + numbers(*shape) + model[place + 12 :])
    big = T("x", (2**13, 2**12)), T("y", (2**13, 2**12)), T("z", (2**13, 2**12))
    chain = write(list(big), [("RELU", ["x"], ["y"], {}), ("RELU", ["y"], ["z"], {})], ["x"], ["z"])
    assert "elements together" in refusal(chain)
    assert "at most 8 axes" in refusal(one_op("RELU", [T("x", (1,) * 9), T("y", (1,) * 9)], ["x"], ["y"]))


def test_a_small_file_cannot_unfold_to_a_huge_model():
    # Every entry of the vector of tensors points to one tensor with a long vector of scales.
    builder = flatbuffers.Builder(0)
    count = 20000
    scale = builder.CreateNumpyVector(np.ones(count, dtype=np.float32))
    quantization = tflite_models._table(builder, "QuantizationParameters", {"Scale": scale})
    shape = builder.CreateNumpyVector(np.array([count], dtype=np.int32))
    tensor = tflite_models._table(builder, "Tensor", {"Shape": shape, "Type": 9, "Quantization": quantization})
    buffer = tflite_models._table(builder, "Buffer", {})
    tensors = tflite_models._tables(builder, [tensor] * 60000)
    graph = tflite_models._table(builder, "SubGraph", {"Tensors": tensors})
    fields = {"Subgraphs": tflite_models._tables(builder, [graph]), "Buffers": tflite_models._tables(builder, [buffer])}
    builder.Finish(tflite_models._table(builder, "Model", fields), b"TFL3")
    assert "unfold to far more than the file holds" in refusal(bytes(builder.Output()))


def test_more_tables_than_any_model_has_are_refused(monkeypatch):
    monkeypatch.setattr(flatbuffer, "_MOST_ENTRIES", 3)
    assert "it claims 5 buffers" in refusal(SEEDS["conv"])


def test_operators_that_share_a_constant_are_limited(monkeypatch):
    monkeypatch.setattr("accelsim.program.tflite.context.MAX_WEIGHT_ELEMENTS", 53)
    assert "more than 53 weights together" in refusal(SEEDS["conv"])


def test_the_first_subgraph_counts_and_one_is_needed():
    builder = flatbuffers.Builder(0)
    builder.Finish(tflite_models._table(builder, "Model", {}), b"TFL3")
    assert "has no subgraph" in refusal(bytes(builder.Output()))
    assert "at least one input and one output" in refusal(write([T("x", (1,))], [], [], ["x"]))


def test_constants_must_fill_their_shape():
    weights = filters("w", (3, 3, 3, 2), 0)
    tensors = [T("x", IMAGE), T("w", (3, 3, 3, 2), "INT8", weights.scale, weights.zero, 0, np.ones((3, 3, 3, 1)))]
    model = one_op("CONV_2D", [*tensors, T("y", (1, 4, 4, 3))], ["x", "w"], ["y"], CONV)
    assert "INT8 of shape (3, 3, 3, 2) needs 54 bytes, its buffer has 27" in refusal(model)


def pool(**changes):
    tensors = [T("x", IMAGE), T("y", IMAGE)]
    options = {**WINDOW, "FilterHeight": 3, "FilterWidth": 3, **changes}
    return one_op("MAX_POOL_2D", tensors, ["x"], ["y"], options)


def conv(x=None, w=None, y=None, b=None, names=("x", "w", "b"), op="CONV_2D", **changes):
    """A convolution with some of its parts exchanged."""
    tensors = [
        x or T("x", IMAGE), w or filters("w", (3, 3, 3, 2), 0), b or bias(3), y or T("y", (1, 4, 4, 3))
    ]  # fmt: skip
    return one_op(op, tensors, list(names), ["y"], {**CONV, **changes}, feeds=["x"])


def dense(w=None, y=None, **changes):
    tensors = [T("x", (2, 4)), w or T("w", (5, 4), data=np.ones((5, 4))), y or T("y", (2, 5))]
    return one_op("FULLY_CONNECTED", tensors, ["x", "w"], ["y"], {"FusedActivationFunction": 0, **changes})


REFUSALS = {
    "unknown operator": (unary("FLOOR"), "operator 'y' (FLOOR): the operator has no integer form here; known are ADD,"),
    "float convolution": (conv(x=T("x", IMAGE, "FLOAT32", None)), "must all be INT8 or all INT16, got FLOAT32, INT8"),
    "mixed types": (conv(x=T("x", IMAGE, "INT16")), "must all be INT8 or all INT16, got INT16, INT8"),
    "uint8": (unary("RELU", dtype="UINT8"), "must all be INT8 or all INT16, got UINT8"),
    "no scale": (unary("RELU", output=T("y", IMAGE, scale=None)), "must have one scale and zero point, got 0"),
    "several scales": (
        unary("RELU", output=T("y", IMAGE, scale=[1.0, 2.0], axis=3)),
        "one scale and zero point, got 2",
    ),
    "scale 0": (unary("RELU", output=T("y", IMAGE, scale=0.0)), "scales must be positive numbers, got 0.0..0.0"),
    "scale nan": (unary("RELU", output=T("y", IMAGE, scale=float("nan"))), "scales must be positive numbers"),
    "zero point": (unary("RELU", output=T("y", IMAGE, zero=128)), "zero_point must be"),
    "int16 zero point": (
        unary("QUANTIZE", output=T("y", IMAGE, "INT16", zero=1)),
        "zero point of INT16 must be 0, got 1",
    ),
    "scales of two channels": (conv(w=filters("w", (3, 3, 3, 2), 0, channels=2)), "one for each of 3 channels, got 2"),
    "computed weights": (
        one_op("CONV_2D", [T("x", IMAGE), T("w", (3, 3, 3, 2)), T("y", (1, 4, 4, 3))], ["x", "w"], ["y"], CONV),
        "tensor 'w' is computed, it must be a constant",
    ),
    "constant input": (conv(x=T("x", IMAGE, data=np.ones(IMAGE))), "the model's input: tensor 'x' is a constant"),
    "missing weights": (conv(names=("x", None)), "input 1 is missing"),
    "weights of int16": (
        conv(w=T("w", (3, 3, 3, 2), "INT16", data=np.ones((3, 3, 3, 2)))),
        "must be INT8 or INT4, got INT16",
    ),
    "weights with 2 axes": (conv(w=T("w", (3, 2), data=np.ones((3, 2)))), "weights must have 4 axes, got shape (3, 2)"),
    "channels": (conv(w=filters("w", (3, 3, 3, 4), 0)), "weights of shape (3, 3, 3, 4) do not fit 2 channels"),
    "groups": (conv(w=filters("w", (3, 3, 3, 1), 0)), "weights of shape (3, 3, 3, 1) do not fit 2 channels"),
    "depthwise channels": (
        conv(w=filters("w", (1, 3, 3, 3), 3), op="DEPTHWISE_CONV_2D"),
        "must be (1, rows, columns, a multiple of 2)",
    ),
    "output shape": (conv(y=T("y", (1, 4, 5, 3))), "the output must have shape (1, 4, 4, 3), got (1, 4, 5, 3)"),
    "batch": (conv(y=T("y", (2, 4, 4, 3))), "the output must have shape (1, 4, 4, 3), got (2, 4, 4, 3)"),
    "image axes": (conv(x=T("x", (4, 4, 2))), "tensor 'x' must have 4 axes, got shape (4, 4, 2)"),
    "stride 0": (conv(StrideH=0), "strides, dilations and filter must be 1..1048576, got (0, 1)"),
    "padding": (conv(Padding=7), "padding must be SAME or VALID, got number 7"),
    "fused tanh": (conv(FusedActivationFunction=4), "fused activation function 4 has no integer form"),
    "short bias": (conv(b=bias(2)), "the bias must be a constant of 3 INT32, got INT32 of shape (2,)"),
    "bias of int64": (conv(b=bias(3, "INT64")), "the bias must be a constant of 3 INT32, got INT64"),
    "depthwise bias of int32": (
        conv(
            T("x", IMAGE, "INT16"),
            filters("w", (1, 3, 3, 2), 3),
            T("y", IMAGE, "INT16"),
            bias(2),
            op="DEPTHWISE_CONV_2D",
        ),
        "the bias must be a constant of 2 INT64, got INT32",
    ),
    "huge bias": (
        conv(T("x", IMAGE, "INT16"), y=T("y", (1, 4, 4, 3), "INT16"), b=T("b", (3,), "INT64", data=[2**62, 0, 0])),
        "a bias is beyond +-2^60",
    ),
    "window beyond the image": (
        conv(x=T("x", (1, 2, 4, 2)), Padding=1),
        "the output must have shape (1, 0, 2, 3), got (1, 4, 4, 3)",
    ),
    "dense shapes": (dense(w=T("w", (5, 3), data=np.ones((5, 3)))), "weights (5, 3) and output (2, 5) do not fit"),
    "dense output": (dense(y=T("y", (5, 2))), "the output's last length must be 5, got shape (5, 2)"),
    "shuffled weights": (dense(WeightsFormat=1), "shuffled weights are not supported"),
    "dense zero point": (dense(w=T("w", (5, 4), zero=200, data=np.ones((5, 4)))), "zero point 200 is outside int8"),
    "pool filter": (pool(FilterHeight=0), "strides, dilations and filter must be"),
    "pool grids": (
        one_op(
            "MAX_POOL_2D",
            [T("x", IMAGE), T("y", IMAGE, zero=1)],
            ["x"],
            ["y"],
            {**WINDOW, "FilterHeight": 1, "FilterWidth": 1},
        ),
        "input and output must have one quantizer",
    ),
    "add shapes": (
        one_op("ADD", [T("a", IMAGE), T("b", (3,)), T("y", IMAGE)], ["a", "b"], ["y"], {"FusedActivationFunction": 0}),
        "inputs (1, 4, 4, 2) and (3,) do not make an output of shape (1, 4, 4, 2)",
    ),
    "add of two constants": (
        one_op(
            "ADD",
            [T("a", (1,), data=[1]), T("b", (1,), data=[1]), T("y", (1,)), T("x", (1,))],
            ["a", "b"],
            ["y"],
            {"FusedActivationFunction": 0},
            feeds=["x"],
        ),
        "both inputs are constants",
    ),
    "add of an int32 constant": (
        one_op(
            "ADD",
            [T("a", (1,)), T("b", (1,), "INT32", data=[1]), T("y", (1,))],
            ["a", "b"],
            ["y"],
            {"FusedActivationFunction": 0},
        ),
        "constant tensor 'b' must be INT8 or INT16, got INT32",
    ),
    "alpha": (unary("LEAKY_RELU", {"Alpha": -1.0}), "alpha must be a number of at least 0, got -1.0"),
    "mean axes": (
        one_op("MEAN", [T("x", IMAGE), indices("a", [4]), T("y", (1,))], ["x", "a"], ["y"], {}),
        "axes must be within -4..3, got (4,)",
    ),
    "mean shape": (
        one_op("MEAN", [T("x", IMAGE), indices("a", [1]), T("y", (1,))], ["x", "a"], ["y"], {}),
        "the output must have shape (1, 4, 2), got (1,)",
    ),
    "softmax grid": (
        unary("SOFTMAX", {"Beta": 1.0}, output=T("y", IMAGE, scale=2.0**-8)),
        "INT8 or INT16 with zero point -128",
    ),
    "softmax scale": (
        unary("SOFTMAX", {"Beta": 1.0}, output=T("y", IMAGE, scale=0.1, zero=-128)),
        "must be 2^-8, got 0.1",
    ),
    "softmax of int16": (
        unary("SOFTMAX", {"Beta": 1.0}, "INT16", T("y", IMAGE, scale=2.0**-8, zero=-128)),
        "the output must be INT16 with zero point 0 and scale 2^-15",
    ),
    "softmax of a steep int16": (
        unary("SOFTMAX", {"Beta": 3e7}, "INT16", T("y", IMAGE, "INT16", scale=2.0**-15)),
        "beta times the input's scale must be 2^-44 to 2",
    ),
    "beta": (
        unary("SOFTMAX", {"Beta": 0.0}, output=T("y", IMAGE, scale=2.0**-8, zero=-128)),
        "beta must be a positive",
    ),
    "logistic of int16": (
        unary("LOGISTIC", dtype="INT16", output=T("y", IMAGE, "INT16")),
        "only LiteRT's table of INT8",
    ),
    "quantize shape": (unary("QUANTIZE", output=T("y", (1,))), "the output must have shape (1, 4, 4, 2), got (1,)"),
    "dequantize": (unary("DEQUANTIZE"), "the output must be FLOAT32, got INT8"),
    "reshape": (moved("RESHAPE", (5,)), "(1, 4, 4, 2) cannot become (5,)"),
    "reshape of other codes": (
        one_op("RESHAPE", [T("x", IMAGE), T("y", (32,), zero=1)], ["x"], ["y"]),
        "must have one quantizer",
    ),
    "transpose": (
        moved("TRANSPOSE", IMAGE, [indices("p", [0, 1, 1, 3])]),
        "must permute the axes 0..3, got (0, 1, 1, 3)",
    ),
    "transpose shape": (moved("TRANSPOSE", IMAGE, [indices("p", [3, 1, 2, 0])]), "permuted by (3, 1, 2, 0) is not"),
    "computed permutation": (
        one_op("TRANSPOSE", [T("x", IMAGE), T("p", (4,)), T("y", IMAGE)], ["x", "p"], ["y"]),
        "'p' is computed",
    ),
    "permutation of int8": (
        one_op("TRANSPOSE", [T("x", IMAGE), T("p", (4,), data=[0, 1, 2, 3]), T("y", IMAGE)], ["x", "p"], ["y"]),
        "must be a constant of INT32 or INT64 indices, got INT8",
    ),
    "pad": (
        moved("PAD", IMAGE, [indices("p", [[0, 0], [1, 0], [0, 0], [0, 0]])]),
        "padded by (0, 0, 1, 0, 0, 0, 0, 0) is not",
    ),
    "negative pad": (moved("PAD", IMAGE, [indices("p", [[0, 0], [1, -1], [0, 0], [0, 0]])]), "padded by"),
    "slice": (moved("SLICE", IMAGE, [indices("b", [0, 1, 0, 0]), indices("z", [1, 4, 4, 2])]), "are not (1, 4, 4, 2)"),
    "ellipsis": (
        moved("STRIDED_SLICE", IMAGE, [indices(name, [1] * 4) for name in "bes"], {"EllipsisMask": 1}),
        "ellipses",
    ),
    "strides": (
        moved("STRIDED_SLICE", IMAGE, [indices(name, [0] * 4) for name in "bes"]),
        "strides (not 0) must have 4",
    ),
    "split": (
        one_op(
            "SPLIT",
            [T("a", (), "INT32", None, data=1), T("x", IMAGE), *(T(n, IMAGE) for n in "yzw")],
            ["a", "x"],
            list("yzw"),
            {},
        ),
        "cannot be split along axis (1,) evenly",
    ),
    "concatenation axis": (
        one_op("CONCATENATION", [T("a", (2,)), T("y", (2,))], ["a"], ["y"], {"Axis": 1}),
        "axis must be within -1..0, got 1",
    ),
    "concatenation shape": (
        one_op("CONCATENATION", [T("a", (2,)), T("b", (3,)), T("y", (4,))], ["a", "b"], ["y"], {"Axis": 0}),
        "do not make (4,)",
    ),
    "concatenation with an activation": (
        one_op("CONCATENATION", [T("a", (2,)), T("y", (2,))], ["a"], ["y"], {"Axis": 0, "FusedActivationFunction": 1}),
        "must have no fused activation function",
    ),
    "pack": (
        one_op("PACK", [T("a", (2,)), T("b", (3,)), T("y", (2, 2))], ["a", "b"], ["y"], {"Axis": 0}),
        "input 1 of shape (3,) does not fit (2, 2)",
    ),
    "order": (
        write(
            [T("x", (1,)), T("y", (1,)), T("z", (1,))],
            [("RELU", ["y"], ["z"], {}), ("RELU", ["x"], ["y"], {})],
            ["x"],
            ["z"],
        ),
        "tensor 'y' is read before it is computed",
    ),
    "made twice": (
        write([T("x", (1,)), T("y", (1,))], [("RELU", ["x"], ["y"], {}), ("RELU", ["x"], ["y"], {})], ["x"], ["y"]),
        "tensor 'y' is made twice, or is a constant",
    ),
    "output of nothing": (
        write([T("x", (1,)), T("y", (1,)), T("z", (1,))], [("RELU", ["x"], ["y"], {})], ["x"], ["z"]),
        "the model's output 'z' is made by no operator",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_has_no_integer_form_is_refused_with_the_reason(case):
    model, message = REFUSALS[case]
    assert message in refusal(model)


@pytest.mark.parametrize(
    ("kind", "message"), [(None, "an operator MUL has no options"), ("SoftmaxOptions", "another kind")]
)
def test_options_must_be_those_of_the_operator(monkeypatch, kind, message):
    if kind is None:
        monkeypatch.delitem(tflite_models.OPTIONS, "MUL")
    else:
        monkeypatch.setitem(tflite_models.OPTIONS, "MUL", kind)
    tensors = [T("a", (1,)), T("b", (1,)), T("y", (1,))]
    assert message in refusal(one_op("MUL", tensors, ["a", "b"], ["y"]))


def test_tflite_micro_has_no_relu6_between_grids():
    with pytest.raises(ax.ModelError, match="TFLite Micro clamps codes only"):
        ax.load_tflite(SEEDS["relu6"], kernels="tflite_micro")


def test_operands_wider_than_the_machine_are_refused():
    program = ax.load_tflite(SEEDS["conv int16"])
    images = np.zeros(IMAGE, dtype=np.int16)
    with pytest.raises(
        ax.LoweringError, match=r"operator 'y' \(CONV_2D\): activations are int16, .* 8-bit activations"
    ):
        ax.simulate(program, images, program.machine.replace(activation_bits=8))


def test_inputs_that_do_not_fit_are_refused():
    program = ax.load_tflite(SEEDS["conv"])
    for images, message in (
        (np.zeros((1, 4, 4), np.int8), r"must have shape \(a multiple of 1, 4, 4, 2\), got \(1, 4, 4\)"),
        (np.full(IMAGE, 128), r"is stored as int8 \(-128..127\), got 128..128"),
        (np.full(IMAGE, np.nan), "must be finite"),
    ):
        with pytest.raises(ax.DataError, match=message):
            ax.simulate(program, images)


def test_addition_of_shapes_that_cannot_meet_and_a_scalar_output():
    # Found by fuzzing: the shape of what cannot be broadcast was taken for that of a scalar.
    tensors = [T("a", (1, 16)), T("b", (1, 80)), T("y", ())]
    model = one_op("ADD", tensors, ["a", "b"], ["y"], {"FusedActivationFunction": 0})
    assert "do not make an output of shape ()" in refusal(model)


def test_scales_at_the_ends_of_float32_warn_of_nothing():
    # Found by fuzzing: quotients of scales beyond float32 raised numpy's warning.
    for op in ("RELU", "LEAKY_RELU"):
        tensors = [T("x", (1,), scale=3e38), T("y", (1,), scale=1e-38)]
        with pytest.raises((ax.ModelError, ax.LoweringError)):
            ax.load_tflite(one_op(op, tensors, ["x"], ["y"], {"Alpha": 0.5} if op == "LEAKY_RELU" else {}))
    tensors = [T("a", (1,), scale=3e38), T("b", (1,), scale=3e38), T("y", (1,), scale=3e38)]
    for op in ("ADD", "MUL"):
        with pytest.raises((ax.ModelError, ax.LoweringError)):
            ax.load_tflite(one_op(op, tensors, ["a", "b"], ["y"], {"FusedActivationFunction": 0}))


def test_scales_are_those_of_the_output_channels_whatever_axis_the_file_names():
    # Old files name axis 0 for depthwise weights, whose channels are the last axis.
    outputs = []
    for axis in (3, 0):
        weights = T("w", (1, 3, 3, 2), "INT8", [0.01, 0.05], [0, 0], axis, np.arange(18).reshape(1, 3, 3, 2))
        model = conv(w=weights, y=T("y", IMAGE), b=bias(2), op="DEPTHWISE_CONV_2D")
        outputs.append(ax.simulate(ax.load_tflite(model), np.arange(32, dtype=np.int8).reshape(IMAGE)).outputs["y"])
    assert np.array_equal(*outputs)
    assert len(np.unique(outputs[0])) > 4
