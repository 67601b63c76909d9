"""Layers of a network, on stored integers, against the oracles: docs/numerics.md sections 5 and 6."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

import accelsim as ax
from accelsim.program.lowering import lower
from tests.accelsim.simulator.gemm_cases import lists
from tests.accelsim.simulator.layer_cases import (
    RULES,
    codes_of,
    one_layer,
    quantized_weights,
    quantizers,
    requantizers,
    run,
    triple,
)
from tests.naive import conv, gemm, vector
from tests.naive.quantizer import Fused, clamp, quantize
from tests.naive.requantize import requantize
from tests.naive.rounding import rnd


def machine_with(requantizer, **fields):
    return ax.Machine(rows=3, columns=2, requantizer=requantizer, **fields)


def only_powers(requantizer):
    return requantizer.multiplier == "power_of_two"


def stored(scale, zero_point, bits=8, signed=True):
    return ax.QuantizationParameters(np.float32(scale), np.int64(zero_point), ax.IntegerFormat(bits, signed))


INT8 = stored(0.5, 0)
TFLITE = ax.Requantizer.preset("tflite")


def pairs_of_codes(a, b):
    """All pairs of the ends, the zero points and their neighbours of two formats."""
    interesting = [
        sorted(
            {low, high, *(clamp(z + step, low, high) for step in (-3, -2, -1, 0, 1, 2, 3))}
        )
        for low, high, z in ((p.format.minimum, p.format.maximum, int(p.zero_point)) for p in (a, b))
    ]  # fmt: skip
    return list(itertools.product(*interesting))


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul"])
@given(data=st.data(), requantizer=requantizers)
@example(data=None, requantizer=TFLITE)
@example(data=None, requantizer=ax.Requantizer.preset("onnxruntime"))
def test_elementwise_layers_equal_the_oracle(op, data, requantizer):
    if data is None:
        a, b, y = stored(0.03, 3), stored(0.011, -5), stored(0.02, 7)
        bounds = None
    else:
        a, b, y = (data.draw(quantizers(only_powers(requantizer))) for _ in range(3))
        bounds = data.draw(st.none() | st.tuples(st.floats(-4, 4, width=32), st.floats(-4, 4, width=32)).map(sorted))
    pairs = pairs_of_codes(a, b)
    shape = (len(pairs),)
    nodes, inner, target = [(op, ("a", "b"), "y", {})], {}, triple(y)
    if bounds is not None:  # a fused Clip narrows the clamp to the codes of its bounds
        nodes = [(op, ("a", "b"), "sum", {}), ("Clip", ("sum",), "y", {"min": bounds[0], "max": bounds[1]})]
        inner = {"sum": shape}
        scale, zero_point, ends = target
        target = Fused(scale, zero_point, (quantize(bound, scale, zero_point, *ends) for bound in bounds), ends)
    network = one_layer(nodes, {"a": (shape, a), "b": (shape, b)}, ("y", shape, y), inner=inner)
    arrays = {"a": np.array([[p for p, _ in pairs]]), "b": np.array([[q for _, q in pairs]])}
    codes = run(network, arrays, machine_with(requantizer))
    if op == "Mul":
        expected = [vector.multiply(p, q, triple(a), triple(b), target, requantizer) for p, q in pairs]
    else:
        shift = 20 if max(a.format.bits, b.format.bits) <= 8 else 15
        sign = 1 if op == "Add" else -1
        expected = [
            vector.add(p, q, triple(a), triple(b), target, requantizer, sign, shift) for p, q in pairs
        ]  # fmt: skip
    assert codes.dtype == y.format.dtype
    assert codes[0].tolist() == expected


@pytest.mark.parametrize("requantizer", ["tflite", "onnxruntime"])
@pytest.mark.parametrize(("bits_a", "bits_b", "bits_y"), [(8, 8, 8), (8, 7, 11), (8, 9, 8)])
def test_many_additions_store_what_few_do(requantizer, bits_a, bits_b, bits_y):
    # A layer's additions of codes of 8 bits go by a table of all pairs from the 65,536th on; wider ones do not.
    chosen, rng = ax.Requantizer.preset(requantizer), np.random.default_rng(6)
    a = ax.QuantizationParameters(np.float32(0.03), np.int64(3), ax.IntegerFormat(bits_a, True))
    b = ax.QuantizationParameters(np.float32(0.011), np.int64(5), ax.IntegerFormat(bits_b, False))
    y = ax.QuantizationParameters(np.float32(0.02), np.int64(7), ax.IntegerFormat(bits_y, True))
    network = one_layer([("Sub", ("a", "b"), "y", {})], {"a": ((256,), a), "b": ((256,), b)}, ("y", (256,), y))
    ends = [(p.format.minimum, p.format.maximum) for p in (a, b)]
    left, right = (np.resize(np.arange(low, high + 1), 256) for low, high in ends)
    pairs = {"a": np.repeat(left[:, np.newaxis], 256, axis=1), "b": np.tile(right, (256, 1))}
    many = run(network, pairs, machine_with(chosen))
    few = [run(network, {name: codes[i : i + 128] for name, codes in pairs.items()}, machine_with(chosen))
           for i in (0, 128)]  # fmt: skip
    assert np.array_equal(many, np.concatenate(few))
    images = {name: network.activations[name].dequantize(codes[:128]) for name, codes in pairs.items()}
    program = lower(network, machine_with(chosen))
    for _ in range(3):  # the table is made in the second run
        (stored,) = ax.simulate(program, images).outputs.values()
        assert np.array_equal(stored, few[0])
    shift = 20 if max(bits_a, bits_b) <= 8 else 15
    for i, j in rng.integers(0, 256, (300, 2)):
        wanted = vector.add(int(left[i]), int(right[j]), triple(a), triple(b), triple(y), chosen, -1, shift)
        assert many[i, j] == wanted


@given(data=st.data(), requantizer=requantizers)
@example(data=None, requantizer=TFLITE)
def test_addition_of_a_constant_equals_the_oracle(data, requantizer):
    if data is None:
        a, b, y, constant = stored(0.25, 0), stored(0.5, 0), stored(1.0, 0), [127, -128]
    else:
        a, b, y = (data.draw(quantizers(only_powers(requantizer))) for _ in range(3))
        constant = data.draw(lists(codes_of(b), 2))
    low, high = a.format.minimum, a.format.maximum
    column = sorted({low, high, (low + high) // 2})
    network = one_layer(
        [("Add", ("a", "c"), "y", {})], {"a": ((2,), a)}, ("y", (2,), y), weights={"c": quantized_weights(constant, b)}
    )
    codes = run(network, {"a": np.array([[p, p] for p in column])}, machine_with(requantizer))
    shift = 20 if max(a.format.bits, b.format.bits) <= 8 else 15
    assert codes.tolist() == [
        [vector.add(p, q, triple(a), triple(b), triple(y), requantizer, 1, shift) for q in constant] for p in column
    ]


@given(data=st.data(), requantizer=requantizers)
@example(data=None, requantizer=TFLITE)
def test_concatenation_rescales_what_has_other_parameters_and_copies_the_rest(data, requantizer):
    if data is None:
        a, y = stored(0.5, -128), stored(1.0, 3)
    else:
        a, y = data.draw(quantizers(only_powers(requantizer))), data.draw(quantizers(only_powers(requantizer)))
    codes = [sorted({p.format.minimum, p.format.maximum, int(p.zero_point)}) for p in (a, y)]
    (first, second) = codes
    network = one_layer(
        [("Concat", ("a", "b"), "y", {"axis": 1})],
        {"a": ((len(first),), a), "b": ((len(second),), y)},
        ("y", (len(first) + len(second),), y),
    )
    joined = run(network, {"a": np.array([first]), "b": np.array([second])}, machine_with(requantizer))
    moved = first if a == y else [vector.rescale(q, triple(a), triple(y), requantizer) for q in first]
    assert joined[0].tolist() == [*moved, *second]


@st.composite
def pools(draw):
    kernel, strides, dilations = (tuple(draw(lists(st.integers(1, most), 2))) for most in (3, 3, 2))
    pads = tuple(draw(lists(st.integers(0, 1), 4)))
    # ONNX refuses windows that lie in the padding alone: less padding than the reach of a kernel.
    reach = [dilations[axis] * (kernel[axis] - 1) + 1 for axis in range(2)]
    pads = tuple(min(pad, kernel[index % 2] - 1) for index, pad in enumerate(pads))
    image = [draw(st.integers(max(1, reach[axis]), reach[axis] + 3)) for axis in range(2)]
    return kernel, strides, pads, dilations, image


def pooled_shape(kernel, strides, pads, dilations, image):
    return tuple(
        conv.output_size(image[axis], kernel[axis], strides[axis], pads[axis], pads[axis + 2], dilations[axis])
        for axis in range(2)
    )


def pool_network(op, pool, quantizer, count_include_pad=0):
    kernel, strides, pads, dilations, image = pool
    attributes = {
        "kernel_shape": kernel, "strides": strides, "pads": pads, "dilations": dilations, "ceil_mode": 0,
        "count_include_pad": count_include_pad,
    }  # fmt: skip
    shape = pooled_shape(*pool)
    return one_layer(
        [(op, ("x",), "y", attributes)], {"x": ((1, *image), quantizer)}, ("y", (1, *shape), quantizer)
    )  # fmt: skip


@given(data=st.data(), pool=pools(), quantizer=quantizers())
def test_max_pooling_equals_the_oracle(data, pool, quantizer):
    kernel, strides, pads, dilations, image = pool
    plane = data.draw(lists(codes_of(quantizer), *image))
    shape = pooled_shape(*pool)
    codes = run(pool_network("MaxPool", pool, quantizer), {"x": np.array([[plane]])}, machine_with(TFLITE))
    taps = vector.windows(plane, kernel, strides, pads, dilations, shape)
    assert codes.reshape(-1).tolist() == [vector.max_pool(window) for window in taps]


@pytest.mark.parametrize("count_include_pad", [0, 1])
@given(data=st.data(), pool=pools(), quantizer=quantizers(), requantizer=requantizers)
def test_average_pooling_equals_the_oracle(count_include_pad, data, pool, quantizer, requantizer):
    kernel, strides, pads, dilations, image = pool
    plane = data.draw(lists(codes_of(quantizer), *image))
    shape = pooled_shape(*pool)
    network = pool_network("AveragePool", pool, quantizer, count_include_pad)
    codes = run(network, {"x": np.array([[plane]])}, machine_with(requantizer))
    zero_point = int(quantizer.zero_point)
    assert codes.reshape(-1).tolist() == [
        vector.average_pool(window, zero_point, requantizer, bool(count_include_pad))
        for window in vector.windows(plane, kernel, strides, pads, dilations, shape)
    ]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["integer", "float32", "float64", "power_of_two"])
@pytest.mark.parametrize("zero_point", [0, 1])
@pytest.mark.parametrize("op", ["GlobalAveragePool", "ReduceMean"])
def test_averages_on_every_tie(rule, kind, zero_point, op):
    # Four taps, so that sums of -12 .. 12 give every quarter around zero.
    requantizer = ax.Requantizer(multiplier=kind, rounding=rule)
    sums = range(-12, 13)
    planes = [[[total // 4, (total + 1) // 4], [(total + 2) // 4, (total + 3) // 4]] for total in sums]
    assert [sum(map(sum, plane)) for plane in planes] == list(sums)
    attributes, shape = ({}, (1, 1, 1)) if op == "GlobalAveragePool" else ({"axes": (2, 3), "keepdims": 0}, (1,))
    quantizer = stored(0.5, zero_point)
    network = one_layer([(op, ("x",), "y", attributes)], {"x": ((1, 2, 2), quantizer)}, ("y", shape, quantizer))
    codes = run(network, {"x": np.array([[plane] for plane in planes])}, machine_with(requantizer))
    expected = [rnd(Fraction(total, 4), rule) for total in sums]
    if kind == "float32":
        expected = [rnd(Fraction(total - 4 * zero_point, 4), rule) + zero_point for total in sums]
    assert codes.reshape(-1).tolist() == expected


@pytest.mark.parametrize("op", ["GlobalAveragePool", "ReduceMean", "AveragePool"])
@given(data=st.data(), requantizer=requantizers)
@example(data=None, requantizer=TFLITE)
@example(data=None, requantizer=ax.Requantizer.preset("onnxruntime"))
def test_averages_onto_a_grid_of_their_own_equal_the_oracle(op, data, requantizer):
    if data is None:
        source, target, height, width = stored(0.3, -128), stored(0.07, 3), 3, 7
        planes = [[[(5 * i + 3 * j + k) % 256 - 128 for j in range(7)] for i in range(3)] for k in range(40)]
    else:
        source, target = (data.draw(quantizers(only_powers(requantizer))) for _ in range(2))
        sides = st.sampled_from([1, 2, 4]) if only_powers(requantizer) else st.integers(1, 7)
        height, width = data.draw(sides), data.draw(sides)
        planes = [data.draw(lists(codes_of(source), height, width)) for _ in range(3)]
    assume(source != target)
    attributes = {
        "GlobalAveragePool": {},
        "ReduceMean": {"axes": (2, 3), "keepdims": 1},
        "AveragePool": {
            "kernel_shape": (height, width), "strides": (1, 1), "pads": (0,) * 4, "dilations": (1, 1), "ceil_mode": 0,
            "count_include_pad": 1,
        },
    }[op]  # fmt: skip
    shape = (len(planes), height, width)
    network = one_layer([(op, ("x",), "y", attributes)], {"x": (shape, source)}, ("y", (len(planes), 1, 1), target))
    codes = run(network, {"x": np.array([planes])}, machine_with(requantizer))
    assert codes.reshape(-1).tolist() == [
        vector.mean([q for row in plane for q in row], triple(source), triple(target), requantizer) for plane in planes
    ]


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


FUNCTIONS = {
    "Relu": ({}, lambda x: max(x, 0.0)),
    "Clip": ({"min": -1.5, "max": 2.25}, lambda x: min(max(x, -1.5), 2.25)),
    "LeakyRelu": ({"alpha": 0.125}, lambda x: x if x >= 0 else 0.125 * x),
    "Sigmoid": ({}, sigmoid),
    "Tanh": ({}, math.tanh),
    "HardSigmoid": ({"alpha": 0.25, "beta": 0.5}, lambda x: min(max(0.25 * x + 0.5, 0.0), 1.0)),
    "HardSwish": ({}, lambda x: x * min(max(x / 6 + 0.5, 0.0), 1.0)),
    "Swish": ({"alpha": 1.0}, lambda x: x * sigmoid(x)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@given(x=quantizers(most_bits=10), y=quantizers())
@example(x=stored(0.125, -3), y=stored(2.0**-8, 0, 8, False))
@example(x=stored(0.125, 200, 8, False), y=stored(2.0**-15, -7, 16))
def test_activation_functions_are_tables_of_the_oracle(name, x, y):
    attributes, function = FUNCTIONS[name]
    low, high = x.format.minimum, x.format.maximum
    shape = (high - low + 1,)
    network = one_layer([(name, ("x",), "y", attributes)], {"x": (shape, x)}, ("y", shape, y))
    codes = run(network, {"x": np.arange(low, high + 1)[None]}, machine_with(TFLITE))
    assert codes[0].tolist() == vector.table(function, triple(x), triple(y))


@pytest.mark.parametrize("name", ["Sigmoid", "Swish"])
def test_the_tail_of_a_sigmoid_keeps_the_precision_of_float64(name):
    # Far below zero the function is tiny; a formula that passes through numbers close to 1 loses its digits there.
    attributes, function = FUNCTIONS[name]
    x, y = stored(0.25, 127), stored(2.0**-60, 0, 16)
    network = one_layer([(name, ("x",), "y", attributes)], {"x": ((256,), x)}, ("y", (256,), y))
    codes = run(network, {"x": np.arange(-128, 128)[None]}, machine_with(TFLITE))
    assert codes[0].tolist() == vector.table(function, triple(x), triple(y))


def test_a_prelu_has_a_table_for_each_channel():
    slopes = np.array([0.5, -1.0, 0.0], dtype=np.float32)
    x, y = stored(0.25, 3), stored(0.125, -1)
    network = one_layer(
        [("PRelu", ("x", "slope"), "y", {})], {"x": ((3, 256), x)}, ("y", (3, 256), y), constants={"slope": slopes}
    )
    codes = run(network, {"x": np.tile(np.arange(-128, 128), (1, 3, 1))}, machine_with(TFLITE))
    for channel, slope in enumerate(slopes.tolist()):
        expected = vector.table(lambda v, slope=slope: v if v >= 0 else slope * v, triple(x), triple(y))
        assert codes[0, channel].tolist() == expected


@given(data=st.data(), bits=st.integers(1, 16), scale=st.floats(2.0**-10, 4, width=32), signed=st.booleans())
@example(data=None, bits=8, scale=0.1, signed=True)
@example(data=None, bits=16, scale=2.0**-10, signed=False)
def test_softmax_equals_the_oracle(data, bits, scale, signed):
    x = stored(scale, 0, 8, signed)
    codes = [x.format.minimum, x.format.maximum, 0] if data is None else data.draw(lists(codes_of(x), 5))
    y = stored(2.0**-bits, 0, bits, False)
    shape = (len(codes),)
    network = one_layer([("Softmax", ("x",), "y", {"axis": 1})], {"x": (shape, x)}, ("y", shape, y))
    assert run(network, {"x": np.array([codes])}, machine_with(TFLITE))[0].tolist() == vector.softmax(
        codes, float(x.scale), bits
    )


def test_data_movement_moves_codes():
    x = stored(0.3, 5)
    codes = np.arange(-12, 12).reshape(2, 3, 4)
    zeros = np.pad(codes, [(0, 0), (1, 0), (0, 2)], constant_values=5)
    threes = np.pad(codes, [(0, 0), (0, 0), (1, 0)], constant_values=8)  # 0.9 is three steps above the zero point
    for op, attributes, shape, expected in (
        ("Transpose", {"perm": (0, 2, 1)}, (4, 3), codes.transpose(0, 2, 1)),
        ("Reshape", {}, (2, 6), codes.reshape(2, 2, 6)),
        ("Flatten", {}, (12,), codes.reshape(2, 12)),
        ("Pad", {"pads": (0, 1, 0, 0, 0, 2), "value": 0.0}, (4, 6), zeros),
        ("Pad", {"pads": (0, 0, 1, 0, 0, 0), "value": 0.9}, (3, 5), threes),
    ):
        network = one_layer([(op, ("x",), "y", attributes)], {"x": ((3, 4), x)}, ("y", shape, x))
        assert np.array_equal(run(network, {"x": codes}, machine_with(TFLITE)), expected), op


@st.composite
def weight_layers(draw, powers_only):
    """A convolution with everything that its codes depend on."""
    groups, group_channels, group_outputs = (draw(st.integers(1, most)) for most in (3, 2, 2))
    kernel, strides = (tuple(draw(lists(st.integers(1, most), 2))) for most in (3, 2))
    pads = tuple(draw(lists(st.integers(0, 1), 4)))
    image = [draw(st.integers(kernel[axis], kernel[axis] + 2)) for axis in range(2)]
    num_outputs = groups * group_outputs
    bits, signed = draw(st.integers(2, 8)), draw(st.booleans())
    chosen = ax.IntegerFormat(bits, signed)
    exponent = st.integers(-6, 0).map(lambda power: 2.0**power)
    scale = exponent if powers_only else exponent | st.floats(2.0**-6, 1, width=32)
    per_channel = draw(st.booleans())
    zero = st.integers(chosen.minimum, chosen.maximum) if draw(st.booleans()) else st.just(0)
    if per_channel:
        parameters = ax.QuantizationParameters(
            np.array(draw(lists(scale, num_outputs)), dtype=np.float32),
            np.array(draw(lists(zero, num_outputs))),
            chosen,
            axis=0,
        )
    else:
        parameters = ax.QuantizationParameters(np.float32(draw(scale)), np.int64(draw(zero)), chosen)
    code = st.integers(chosen.minimum, chosen.maximum) | st.sampled_from([chosen.minimum, chosen.maximum])
    integers = draw(lists(code, num_outputs, group_channels, *kernel))
    bias = draw(st.none() | lists(st.floats(-50, 50, width=32), num_outputs))
    x, y = draw(quantizers(powers_only, most_bits=8)), draw(quantizers(powers_only, most_bits=8))
    activations = draw(lists(codes_of(x), 2, groups * group_channels, *image))
    return parameters, integers, bias, x, y, activations, strides, pads, groups


@pytest.mark.parametrize("engine", ["stepped", "fast"])
@given(
    data=st.data(), requantizer=requantizers, zero_point=st.sampled_from(["folded", "at_input"]),
    order=st.sampled_from(["channel_first", "spatial_first"]), bits=st.integers(8, 20) | st.just(32),
    overflow=st.sampled_from(["wrap", "saturate"]), relu=st.booleans(),
    dataflow=st.sampled_from(["output_stationary", "broadcast", "weight_stationary", "input_stationary"]),
    inner_bits=st.none() | st.integers(6, 16), shift=st.just(0) | st.integers(0, 6), rule=st.sampled_from(RULES),
)  # fmt: skip
def test_a_convolution_layer_is_conv_then_requantization(
    engine, data, requantizer, zero_point, order, bits, overflow, relu, dataflow, inner_bits, shift, rule
):
    parameters, integers, bias, x, y, activations, strides, pads, groups = data.draw(
        weight_layers(only_powers(requantizer))
    )
    machine = machine_with(
        requantizer, zero_point=zero_point, reduction_order=order, accumulator_bits=bits, overflow=overflow,
        dataflow=dataflow, partial_sum_bits=inner_bits, adder_tree_bits=inner_bits, product_shift_bits=shift,
        product_rounding=rule,
    )  # fmt: skip
    num_outputs, kernel = len(integers), (len(integers[0][0]), len(integers[0][0][0]))
    image = np.array(activations).shape[1:]
    s_w = np.broadcast_to(parameters.scale, (num_outputs,)).tolist()
    z_w = np.broadcast_to(parameters.zero_point, (num_outputs,)).tolist()
    s_x, s_y = float(x.scale), float(y.scale)
    # (6), in float64; Python's float is binary64 and its round is half to even.
    start = None if bias is None else [round(b / (s_x * scale)) for b, scale in zip(bias, s_w, strict=True)]
    if start is not None:
        assume(max(map(abs, start)) < 2**60)
    outputs = conv.conv2d(
        activations, integers, machine, start, z_w, int(x.zero_point), strides, pads, (1, 1), groups
    )  # fmt: skip
    unit = [scale * 2**shift for scale in s_w]  # the accumulator counts in units of 2^h, (13a)
    low, high = ends = y.format.minimum, y.format.maximum
    if relu:
        low = quantize(0.0, s_y, int(y.zero_point), low, high)
    expected = [
        [
            [
                [
                    requantize(out.accumulator, s_x, unit[n], s_y, int(y.zero_point), low, high, requantizer, ends)
                    for out in row
                ]
                for row in plane
            ]
            for n, plane in enumerate(planes)
        ]
        for planes in outputs
    ]
    shape = np.array(expected).shape[1:]
    attributes = {"strides": strides, "pads": pads, "dilations": (1, 1), "group": groups}
    sources = ("x", "w") if bias is None else ("x", "w", "b")
    nodes = [("Conv", sources, "z" if relu else "y", attributes)] + ([("Relu", ("z",), "y", {})] if relu else [])
    network = one_layer(
        nodes,
        {"x": (image, x)},
        ("y", shape, y),
        constants={} if bias is None else {"b": np.array(bias, dtype=np.float32)},
        weights={"w": quantized_weights(integers, parameters)},
        inner={"z": shape} if relu else {},
    )
    assert kernel == network.graph.constants["w"].shape[2:]
    for track in ("none", "overflow", "range"):
        images = {"x": x.dequantize(np.array(activations))}
        result = ax.simulate(network, images, machine, engine=engine, track=track)
        assert result.outputs["y"].tolist() == expected
        (record,) = result.layers
        leaves = [out for planes in outputs for plane in planes for row in plane for out in row]
        if track == "none":
            assert record.overflow_events is None
        else:
            assert record.overflow_events == sum(out.events for out in leaves)
            assert record.overflowed_outputs == sum(out.events > 0 for out in leaves)
            assert record.partial_overflow_events == sum(out.partial_events for out in leaves)
        if track == "range":
            assert record.range_min == min(out.range_min for out in leaves)
            assert record.range_max == max(out.range_max for out in leaves)


@pytest.mark.parametrize("op", ["Gemm", "MatMul"])
@given(data=st.data(), requantizer=requantizers, bits=st.integers(6, 20))
def test_a_matrix_layer_is_matmul_then_requantization(op, data, requantizer, bits):
    powers = only_powers(requantizer)
    num_outputs, reduction, num_samples = (data.draw(st.integers(1, most)) for most in (4, 6, 3))
    x, y, w = (data.draw(quantizers(powers, most_bits=8)) for _ in range(3))
    integers = data.draw(lists(codes_of(w), num_outputs, reduction))
    samples = data.draw(lists(codes_of(x), num_samples, reduction))
    machine = machine_with(requantizer, accumulator_bits=bits, overflow="saturate")
    columns = [list(column) for column in zip(*samples, strict=True)]
    outputs = gemm.gemm(
        integers, columns, machine, weight_zero_points=[int(w.zero_point)] * num_outputs,
        activation_zero_point=int(x.zero_point),
    )  # fmt: skip
    target = float(y.scale), int(y.zero_point), y.format.minimum, y.format.maximum
    expected = [
        [requantize(row[p].accumulator, float(x.scale), float(w.scale), *target, requantizer) for row in outputs]
        for p in range(num_samples)
    ]
    network = one_layer(
        [(op, ("x", "w"), "y", {})],
        {"x": ((reduction,), x)},
        ("y", (num_outputs,), y),
        weights={"w": quantized_weights(integers if op == "Gemm" else np.array(integers).T, w)},
    )
    for engine in ("stepped", "fast"):
        assert run(network, {"x": np.array(samples)}, machine, engine=engine).tolist() == expected


def test_a_sixteen_bit_multiplier_adds():
    # Its second multiplier, M / (2^20 s_y), is far below 2^-15, which (19) once took for 0: every sum was z_y.
    requantizer = ax.Requantizer.preset("nvdla_sdp")
    a, b, y = stored(0.5, 0), stored(0.25, 3), stored(1.0, -2)
    network = one_layer([("Add", ("a", "b"), "y", {})], {"a": ((3,), a), "b": ((3,), b)}, ("y", (3,), y))
    codes = run(network, {"a": np.array([[10, -7, 3]]), "b": np.array([[5, 3, -9]])}, machine_with(requantizer))
    expected = [
        vector.add(p, q, triple(a), triple(b), triple(y), requantizer) for p, q in ((10, 5), (-7, 3), (3, -9))
    ]  # fmt: skip
    assert codes.tolist() == [expected]
    assert len(set(expected)) == 3
