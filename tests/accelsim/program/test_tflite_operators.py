"""TFLite's operators, through `load_tflite` and `simulate`, against the oracle: docs/numerics.md section 7."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import accelsim as ax
from tests.accelsim.program.tflite_models import DTYPES, T, indices, one_op
from tests.accelsim.simulator.layer_cases import RULES
from tests.naive import tflite as naive
from tests.naive.network import Codes

FUSED = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6")
LIMITS = {"INT4": (-8, 7), "INT8": (-128, 127), "INT16": (-(2**15), 2**15 - 1)}

others = st.one_of(
    st.builds(
        lambda bits, rounding, place, overflow: ax.Requantizer(
            multiplier_bits=bits, rounding=rounding, zero_point=place, overflow=overflow
        ),
        st.integers(8, 32),
        st.tuples(st.sampled_from(RULES)) | st.tuples(st.sampled_from(RULES), st.sampled_from(RULES)),
        st.sampled_from(["outside", "inside"]),
        st.sampled_from(["saturate", "saturate", "wrap", "saturate_to_zero", "saturate_symmetric"]),
    ),
    st.builds(
        lambda kind, rule, place: ax.Requantizer(multiplier=kind, rounding=rule, zero_point=place),
        st.sampled_from(["float32", "float64"]),
        st.sampled_from(RULES),
        st.sampled_from(["outside", "inside"]),
    ),
).filter(lambda requantizer: requantizer != ax.Requantizer())
requantizers = st.none() | st.none() | others
stacks = st.sampled_from(["litert", "tflite_micro"])
types = st.sampled_from(["INT8", "INT8", "INT16"])
lengths = st.integers(1, 4)


@st.composite
def quantizers(draw, dtype, low=-5, high=2):
    """A triple as the oracles take it; powers of two make ties."""
    scale = draw(st.integers(low, high).map(lambda power: 2.0**power) | st.floats(2.0**low, 2.0**high, width=32))
    return scale, draw(st.integers(*LIMITS[dtype])) if dtype == "INT8" else 0, LIMITS[dtype]


@st.composite
def codes(draw, shape, limits):
    """A tensor with ends and zero often."""
    low, high = limits
    size = math.prod(shape)
    value = st.integers(low, high) | st.sampled_from([low, high, 0]) | st.integers(max(low, -8), min(high, 8))
    return Codes(tuple(shape), draw(st.lists(value, min_size=size, max_size=size)))


def array(tensor, dtype):
    return np.array(tensor.flat, dtype=DTYPES[dtype]).reshape(tensor.shape)


def stored(name, shape, dtype, quantizer):
    return T(name, tuple(shape), dtype, quantizer[0], quantizer[1])


def run(model, feeds, stack, requantizer):
    """Run a model and return its outputs as flat lists; other requantizers take the place of the stack's."""
    program = ax.load_tflite(model, kernels=stack)
    machine = program.machine if requantizer is None else program.machine.replace(requantizer=requantizer)
    result = ax.simulate(program, feeds, machine)
    return [values.reshape(-1).tolist() for values in result.outputs.values()]


def scale_of_output(draw, source, weight_scale, reduction):
    """A scale for which not all outputs clamp, a power of two at times."""
    scale = source[0] * weight_scale * draw(st.integers(1, 64)) * math.sqrt(reduction)
    return draw(st.sampled_from([float(np.float32(scale)), 2.0 ** round(math.log2(scale))]))


@pytest.mark.slow
@pytest.mark.parametrize("op", ["CONV_2D", "DEPTHWISE_CONV_2D"])
@given(data=st.data(), requantizer=requantizers, dtype=types)
def test_convolutions_equal_the_oracle(op, data, requantizer, dtype):
    draw = data.draw
    strides, dilations, same = draw(st.tuples(lengths, lengths)), (1, 1), draw(st.booleans())
    if draw(st.booleans()):
        strides, dilations = (1, 1), draw(st.tuples(lengths, lengths))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    least = [1 if same else (size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    space = [draw(st.integers(low, low + 4)) for low in least]
    groups, depth, per_group = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    if op == "CONV_2D":
        channels, num_outputs, axis = groups * depth, groups * per_group, 0
        shape, reduction = (num_outputs, *kernel, depth), math.prod(kernel) * depth
    else:
        channels, num_outputs, axis = depth, depth * per_group, 3
        shape, reduction = (1, *kernel, num_outputs), math.prod(kernel)
    source, weight_type = draw(quantizers(dtype)), draw(st.sampled_from(["INT8", "INT4"]))
    x = draw(codes((draw(st.integers(1, 2)), *space, channels), LIMITS[dtype]))
    weights = draw(codes(shape, LIMITS[weight_type]))
    scales = draw(st.lists(st.floats(2.0**-8, 2.0**-4, width=32), min_size=num_outputs, max_size=num_outputs))
    known = ["INT64"] if op == "DEPTHWISE_CONV_2D" else ["INT32", "INT64"]
    bias_type = draw(st.sampled_from(["INT32"] if dtype == "INT8" else known))
    bias = draw(st.none() | st.lists(st.integers(-(2**20), 2**20), min_size=num_outputs, max_size=num_outputs))
    kind = draw(st.sampled_from(FUSED))
    target = (scale_of_output(draw, source, scales[0], reduction), draw(quantizers(dtype))[1], LIMITS[dtype])
    options = {
        "Padding": 0 if same else 1, "StrideH": strides[0], "StrideW": strides[1], "DilationHFactor": dilations[0],
        "DilationWFactor": dilations[1], "FusedActivationFunction": FUSED.index(kind),
    }  # fmt: skip
    # Without a bias a convolution says which one it would have; depthwise ones then add in 64 bits.
    wide = dtype == "INT16" and (bias_type == "INT64" or (bias is None and op != "CONV_2D"))
    if op == "CONV_2D":
        options["QuantizedBiasType"] = 2 if bias_type == "INT32" else 4
    else:
        options["DepthMultiplier"] = per_group
    places = [naive.padding(space[i], kernel[i], strides[i], dilations[i], same)[0] for i in range(2)]
    tensors = [
        stored("x", x.shape, dtype, source),
        T("w", shape, weight_type, scales, [0] * num_outputs, axis, np.array(weights.flat).reshape(shape)),
        stored("y", (x.shape[0], *places, num_outputs), dtype, target),
    ]
    if bias is not None:
        tensors.append(T("b", (num_outputs,), bias_type, 1.0, data=bias))
    model = one_op(op, tensors, ["x", "w", "b" if bias is not None else None], ["y"], options)
    oracle = naive.conv_2d if op == "CONV_2D" else naive.depthwise_conv_2d
    expected = oracle(
        x, source, weights, scales, bias or [0] * num_outputs, naive.fused(target, kind), strides, dilations, same,
        wide, requantizer,
    )  # fmt: skip
    assert run(model, array(x, dtype), "litert", requantizer) == [expected]


@given(data=st.data(), requantizer=requantizers, dtype=types, stack=stacks)
def test_fully_connected_equals_the_oracle(data, requantizer, dtype, stack):
    draw = data.draw
    lead, reduction, num_outputs = (
        draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)),
        draw(lengths),
        draw(lengths),
    )
    keep, per_channel = draw(st.booleans()), draw(st.booleans())
    source, kind = draw(quantizers(dtype)), draw(st.sampled_from(FUSED))
    weight_type = draw(st.sampled_from(["INT8", "INT4"]))
    count = num_outputs if per_channel else 1
    scales = draw(st.lists(st.floats(2.0**-8, 2.0**-4, width=32), min_size=count, max_size=count))
    weight_zero = 0 if count > 1 else draw(st.integers(*LIMITS[weight_type]))
    x = draw(codes((*lead, reduction), LIMITS[dtype]))
    weights = draw(codes((num_outputs, reduction), LIMITS[weight_type]))
    bias = draw(st.none() | st.lists(st.integers(-(2**16), 2**16), min_size=num_outputs, max_size=num_outputs))
    bias_type = draw(st.sampled_from(["INT32"] if dtype == "INT8" else ["INT32", "INT64"]))
    wide = dtype == "INT16" and bias_type == "INT64"
    target = (scale_of_output(draw, source, scales[0], reduction), draw(quantizers(dtype))[1], LIMITS[dtype])
    shape = (*lead, num_outputs) if keep else (math.prod(lead), num_outputs)
    tensors = [
        stored("x", x.shape, dtype, source),
        T("w", weights.shape, weight_type, scales, weight_zero, 0, np.array(weights.flat).reshape(weights.shape)),
        stored("y", shape, dtype, target),
    ]
    if bias is not None:
        tensors.append(T("b", (num_outputs,), bias_type, 1.0, data=bias))
    options = {
        "FusedActivationFunction": FUSED.index(kind), "KeepNumDims": keep,
        "QuantizedBiasType": 2 if bias_type == "INT32" else 4,
    }  # fmt: skip
    model = one_op("FULLY_CONNECTED", tensors, ["x", "w", "b" if bias is not None else None], ["y"], options)
    expected = naive.fully_connected(
        x, source, weights, scales, weight_zero, bias or [0] * num_outputs, naive.fused(target, kind), wide,
        stack == "tflite_micro", requantizer,
    )  # fmt: skip
    assert run(model, array(x, dtype), stack, requantizer) == [expected]


@pytest.mark.parametrize("op", ["MAX_POOL_2D", "AVERAGE_POOL_2D"])
@given(data=st.data(), requantizer=requantizers, dtype=types)
def test_pooling_equals_the_oracle(op, data, requantizer, dtype):
    draw = data.draw
    same, kernel, strides = draw(st.booleans()), draw(st.tuples(lengths, lengths)), draw(st.tuples(lengths, lengths))
    space = [draw(st.integers(1 if same else size, size + 3)) for size in kernel]
    x = draw(codes((draw(st.integers(1, 2)), *space, draw(st.integers(1, 2))), LIMITS[dtype]))
    target, kind = draw(quantizers(dtype)), draw(st.sampled_from(FUSED))
    places = [naive.padding(space[i], kernel[i], strides[i], 1, same)[0] for i in range(2)]
    tensors = [
        stored("x", x.shape, dtype, target),
        stored("y", (x.shape[0], *places, x.shape[3]), dtype, target),
    ]
    options = {
        "Padding": 0 if same else 1, "StrideH": strides[0], "StrideW": strides[1], "FilterHeight": kernel[0],
        "FilterWidth": kernel[1], "FusedActivationFunction": FUSED.index(kind),
    }  # fmt: skip
    model = one_op(op, tensors, ["x"], ["y"], options)
    expected = naive.pool(x, naive.fused(target, kind), kernel, strides, same, op == "MAX_POOL_2D", requantizer)
    assert run(model, array(x, dtype), "litert", requantizer) == [expected]


@given(data=st.data(), requantizer=requantizers, dtype=types)
@example(data=None, requantizer=None, dtype="INT8")
def test_means_equal_the_oracle(data, requantizer, dtype):
    if data is None:  # (45): 0.25 and its kin become 1 and 0
        x, axes, keep = Codes((3, 4), [1, 0, 0, 0, -1, 0, 0, 0, 3, 3, 2, 2]), [1], False
        source = target = (1.0, 0, LIMITS[dtype])
    else:
        draw = data.draw
        shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
        axes = draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, max_size=3))
        keep = draw(st.booleans())
        x, source, target = draw(codes(shape, LIMITS[dtype])), draw(quantizers(dtype)), draw(quantizers(dtype))
        if draw(st.booleans()):
            axes = [axis - len(shape) for axis in axes]
    counted = {axis % len(x.shape) for axis in axes}
    kept = [1 if axis in counted else length for axis, length in enumerate(x.shape)]
    shape = kept if keep else [length for axis, length in enumerate(x.shape) if axis not in counted]
    tensors = [
        stored("x", x.shape, dtype, source), indices("axes", axes), stored("y", shape, dtype, target)
    ]  # fmt: skip
    model = one_op("MEAN", tensors, ["x", "axes"], ["y"], {"KeepDims": keep})
    assert run(model, array(x, dtype), "litert", requantizer) == [naive.mean(x, source, target, counted, requantizer)]


@st.composite
def two_shapes(draw):
    """Two shapes and the one that they make together."""
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    pair = [[draw(st.sampled_from([1, length])) for length in shape] for _ in range(2)]
    for axis, length in enumerate(shape):
        if all(one[axis] != length for one in pair):
            pair[draw(st.integers(0, 1))][axis] = length
    pair[1] = pair[1][draw(st.integers(0, len(shape) - 1)) :]
    return tuple(pair[0]), tuple(pair[1]), tuple(np.broadcast_shapes(*map(tuple, pair)))


@pytest.mark.parametrize("op", ["ADD", "SUB", "MUL"])
@given(data=st.data(), requantizer=requantizers, dtype=types)
def test_elementwise_operators_equal_the_oracle(op, data, requantizer, dtype):
    draw = data.draw
    shape_a, shape_b, shape = draw(two_shapes())
    a, b = draw(codes(shape_a, LIMITS[dtype])), draw(codes(shape_b, LIMITS[dtype]))
    grids = [draw(quantizers(dtype)) for _ in range(3)]
    kind, is_constant = draw(st.sampled_from(FUSED)), draw(st.booleans())
    targets = [*grids[:2], naive.fused(grids[2], kind)]
    tensors = [
        stored(name, at, dtype, grid) for name, at, grid in zip("aby", (shape_a, shape_b, shape), grids, strict=True)
    ]
    feeds = {"a": array(a, dtype), "b": array(b, dtype)}
    if is_constant:
        tensors[1] = T("b", shape_b, dtype, *grids[1][:2], data=feeds.pop("b"))
    options = {"FusedActivationFunction": FUSED.index(kind)}
    if op != "MUL":
        options["PotScaleInt16"] = False
    model = one_op(op, tensors, ["a", "b"], ["y"], options)
    if op == "MUL":
        expected = naive.mul(a, b, targets, shape, requantizer)
    else:
        left_shift = 20 if dtype == "INT8" else 15
        expected = naive.add(a, b, targets, 1 if op == "ADD" else -1, left_shift, shape, requantizer)
    assert run(model, feeds, "litert", requantizer) == [expected]


@pytest.mark.parametrize("op", ["ADD", "SUB"])
@given(data=st.data(), shifts=st.tuples(st.just(0), st.integers(0, 12)), swap=st.booleans())
def test_additions_of_int16_on_power_of_two_grids_shift_one_input(op, data, shifts, swap):
    shifts = shifts[::-1] if swap else shifts
    grids = [(2.0**-shift, 0, LIMITS["INT16"]) for shift in (*shifts, 0)]
    a, b = (data.draw(codes((6,), LIMITS["INT16"])) for _ in range(2))
    tensors = [stored(name, (6,), "INT16", grid) for name, grid in zip("aby", grids, strict=True)]
    options = {"FusedActivationFunction": 0, "PotScaleInt16": True}
    model, feeds = one_op(op, tensors, ["a", "b"], ["y"], options), {"a": array(a, "INT16"), "b": array(b, "INT16")}
    sign = 1 if op == "ADD" else -1
    assert run(model, feeds, "litert", None) == [naive.add_shifted(a, b, grids, sign, (6,))]
    assert run(model, feeds, "tflite_micro", None) == [naive.add(a, b, grids, sign, 15, (6,), None)]


@given(data=st.data(), requantizer=requantizers, dtype=types, stack=stacks, alpha=st.floats(0, 2, width=32))
def test_leaky_relu_equals_the_oracle(data, requantizer, dtype, stack, alpha):
    x, source, target = data.draw(codes((9,), LIMITS[dtype])), *(data.draw(quantizers(dtype)) for _ in range(2))
    tensors = [stored("x", (9,), dtype, source), stored("y", (9,), dtype, target)]
    model = one_op("LEAKY_RELU", tensors, ["x"], ["y"], {"Alpha": alpha})
    expected = naive.leaky_relu(x, source, target, alpha, stack == "tflite_micro", requantizer)
    assert run(model, array(x, dtype), stack, requantizer) == [expected]


@pytest.mark.parametrize("op", ["QUANTIZE", "RELU", "RELU6", "RELU_N1_TO_1"])
@given(data=st.data(), requantizer=requantizers, dtype=types, made=types)
def test_rescaling_equals_the_oracle(op, data, requantizer, dtype, made):
    made = made if op == "QUANTIZE" else dtype
    x, source, target = data.draw(codes((9,), LIMITS[dtype])), data.draw(quantizers(dtype)), data.draw(quantizers(made))
    model = one_op(op, [stored("x", (9,), dtype, source), stored("y", (9,), made, target)], ["x"], ["y"])
    bounds = target if op == "QUANTIZE" else naive.fused(target, op)
    expected = naive.rescaled(x, source, bounds, op != "QUANTIZE", requantizer)
    assert run(model, array(x, dtype), "litert", requantizer) == [expected]


@given(
    data=st.data(),
    row=st.lists(st.integers(-128, 127) | st.sampled_from([-128, 127]), min_size=1, max_size=12),
    beta=st.just(1.0) | st.floats(0.125, 4, width=32),
    dtype=st.sampled_from(["INT8", "INT16"]),
)
@example(data=None, row=[0] * 300, beta=1.0, dtype="INT8")
@example(data=None, row=[127, -128], beta=1.0, dtype="INT8")
def test_softmax_equals_the_oracle(data, row, beta, dtype):
    scale = 0.5 if data is None else data.draw(quantizers("INT8", -7, 1))[0]
    bits, shape = (8 if dtype == "INT8" else 16), (2, 1, len(row))
    x = Codes(shape, row + row[::-1])
    tensors = [T("x", shape, scale=scale, zero=5), T("y", shape, dtype, 2.0**-bits, LIMITS[dtype][0])]
    model = one_op("SOFTMAX", tensors, ["x"], ["y"], {"Beta": beta})
    expected = [code for vector in naive.rows(x) for code in naive.softmax(vector, scale, beta, bits)]
    assert run(model, array(x, "INT8"), "litert", None) == [expected]


@given(
    row=st.lists(st.integers(-(2**15), 2**15 - 1) | st.integers(-40, 40), min_size=1, max_size=9),
    scale=st.integers(-15, 0).map(lambda power: 2.0**power) | st.floats(2.0**-15, 1, width=32),
    beta=st.just(1.0) | st.floats(0.125, 1.5, width=32),
)
@example(row=[5] * 300, scale=0.001, beta=1.0)
@example(row=[2**15 - 1, -(2**15)], scale=2.0**-15, beta=1.0)
@example(row=[2**15 - 1, -(2**15)], scale=1.0, beta=1.75)
def test_int16_softmax_equals_the_oracle(row, scale, beta):
    x = Codes((2, 1, len(row)), row + row[::-1])
    tensors = [T("x", x.shape, "INT16", scale=scale), T("y", x.shape, "INT16", 2.0**-15)]
    model = one_op("SOFTMAX", tensors, ["x"], ["y"], {"Beta": beta})
    expected = [code for vector in naive.rows(x) for code in naive.wide_softmax(vector, scale, beta)]
    assert run(model, array(x, "INT16"), "litert", None) == [expected]


@given(
    values=st.lists(st.floats(-300, 300, width=32) | st.sampled_from([0.5, -0.5, 1.5, 2.25]), min_size=1),
    data=st.data(),
)
@example(values=[0.5, -0.5, 1.5, -1.5, 2.5, 0.49999997, -0.49999997, 1e38, -1e38], data=None)
def test_real_numbers_are_quantized_half_away_and_come_back(values, data):
    target = (1.0, 3, LIMITS["INT8"]) if data is None else data.draw(quantizers("INT8"))
    shape = (len(values),)
    tensors = [T("x", shape, "FLOAT32", None), stored("y", shape, "INT8", target), T("z", shape, "FLOAT32", None)]
    quantized = one_op("QUANTIZE", tensors[:2], ["x"], ["y"])
    x = np.array(values, dtype=np.float32)
    (stored_codes,) = run(quantized, x, "litert", None)
    assert stored_codes == naive.quantize([Fraction(float(value)) for value in x], target)
    program = ax.load_tflite(one_op("DEQUANTIZE", tensors[1:], ["y"], ["z"]))
    result = ax.simulate(program, np.array(stored_codes, dtype=np.int8))
    assert result.outputs["z"].dtype == np.float32
    assert result.outputs["z"].tolist() == [
        float(naive.f32(Fraction(target[0]) * (q - target[1]))) for q in stored_codes
    ]
