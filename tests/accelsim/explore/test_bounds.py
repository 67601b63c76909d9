"""The proven width: no input overflows at it, and one bit less is too few for some input."""

from itertools import product

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import accelsim as ax
from accelsim.explore.adversary import adversary
from accelsim.explore.bounds import accumulator_bounds, partial_bounds, register_bits
from tests.accelsim.explore.layers_at_random import cases
from tests.naive.widths import register_values, width

INNER = {"broadcast": "adder_tree", "weight_stationary": "partial_sum", "input_stationary": "partial_sum"}
FIELDS = {"accumulator": "accumulator_bits", "partial_sum": "partial_sum_bits", "adder_tree": "adder_tree_bits"}


def bounds_of(case):
    """Return the bounds by register."""
    inner = partial_bounds(case.layer, case.machine)
    assert (inner is None) == (case.machine.dataflow == "output_stationary")
    return {"accumulator": accumulator_bounds(case.layer, case.machine)} | (
        {} if inner is None else {INNER[case.machine.dataflow]: inner}
    )


def all_images(case, most=256):
    """Return every image of the format, or None where there are too many."""
    c, h, w = case.geometry.input_shape
    codes = range(case.format.minimum, case.format.maximum + 1)
    if len(codes) ** (c * h * w) > most:
        return None
    return [np.array(values).reshape(c, h, w).tolist() for values in product(codes, repeat=c * h * w)]


@given(cases(largest=2, most_bits=1))
def test_bounds_are_those_of_trying_every_input(case):
    """Not an inequality: where a bound calls itself tight, some input reaches it, channel by channel."""
    images = all_images(case)
    assume(images is not None)
    seen = {name: {} for name in bounds_of(case)}
    for image in images:
        for n, *output in case.outputs(image):
            for name, values in register_values(*output, case.machine).items():
                seen[name].setdefault(n, {0} if name != "accumulator" else set()).update(values)
    for name, bounds in bounds_of(case).items():
        for n, values in seen[name].items():
            if bounds.tight:
                assert (bounds.low[n], bounds.high[n]) == (min(values), max(values))
            else:
                assert bounds.low[n] <= min(values) <= max(values) <= bounds.high[n]
        if bounds.tight:
            assert bounds.bits == width([value for values in seen[name].values() for value in values])


def events(case, image, name, bits):
    """Return the overflow events of a register on one image, with one register of that width and the others wide."""
    machine = case.machine.replace(**{FIELDS[name]: bits})
    result = ax.conv2d(np.asarray(image), machine=machine, **case.arguments())
    counted = result.overflow_events if name == "accumulator" else result.partial_overflow_events
    return int(counted.sum())


@given(cases(), st.sampled_from(["accumulator", "inner"]), st.randoms(use_true_random=False))
def test_no_input_overflows_the_proven_width_and_one_does_a_bit_less(case, register, random):
    """The input that does is built from the weights' signs; the oracle in Python integers agrees with the engine."""
    name = INNER.get(case.machine.dataflow) if register == "inner" else "accumulator"
    assume(name is not None)
    bounds = bounds_of(case)[name]
    shape = (1, *case.geometry.input_shape)
    ends = [case.format.minimum, case.format.maximum]
    images = [np.array([random.choice(ends) for _ in range(int(np.prod(shape)))]).reshape(shape) for _ in range(3)]
    if bounds.tight:
        found = adversary(case.layer, case.machine, name)
        assert case.format.minimum <= found.codes.min() <= found.codes.max() <= case.format.maximum
        given_values = [
            value
            for n, *output in case.outputs(found.codes[0].tolist())
            for value in register_values(*output, case.machine)[name]
            if n == found.channel
        ]
        assert found.value in [*given_values, *([] if name == "accumulator" else [0])]
        assert width([found.value]) == bounds.bits
        images.append(found.codes)
        if bounds.bits > 4:
            assert events(case, found.codes, name, bounds.bits - 1) > 0
    for image in images:
        assert events(case, image, name, bounds.bits) == 0


@st.composite
def solid_models(draw):
    """A quantized convolution in three dimensions, as a model, with the shape of its image."""
    channels, outputs = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    kernel, strides, dilations = (draw(st.tuples(*[st.integers(1, most)] * 3)) for most in (3, 2, 2))
    reach = [(length - 1) * step + 1 for length, step in zip(kernel, dilations, strict=True)]
    pads = [draw(st.integers(0, length - 1)) for length in reach * 2]
    image = [max(1, reach[i] - pads[i] - pads[3 + i]) + draw(st.integers(0, 2)) for i in range(3)]
    signed = draw(st.booleans())
    kind, values = (np.int8, st.integers(-128, 127)) if signed else (np.uint8, st.integers(0, 255))
    shape = (outputs, channels, *kernel)
    weights = draw(st.lists(st.integers(-127, 127), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    bias = draw(st.lists(st.integers(-(2**14), 2**14), min_size=outputs, max_size=outputs))
    constants = {
        "s": np.float32(0.5), "z": kind(draw(values)), "w": np.array(weights, np.int8).reshape(shape),
        "ws": np.float32(1), "wz": np.int8(0), "b": np.array(bias, np.int32),
    }  # fmt: skip
    node = helper.make_node(
        "QLinearConv", ["x", "s", "z", "w", "ws", "wz", "s", "z", "b"], ["y"], pads=pads, strides=strides,
        dilations=dilations, kernel_shape=kernel,
    )  # fmt: skip
    integers = TensorProto.INT8 if signed else TensorProto.UINT8
    graph = helper.make_graph(
        [node],
        "solid",
        [helper.make_tensor_value_info("x", integers, [1, channels, *image])],
        [helper.make_tensor_value_info("y", integers, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model, np.iinfo(kind), (1, channels, *image)


@settings(max_examples=20)
@given(solid_models(), st.sampled_from(["output_stationary", "weight_stationary"]), st.randoms(use_true_random=False))
def test_a_convolution_in_three_dimensions_needs_its_proven_width_and_no_more(solid, dataflow, random):
    model, ends, shape = solid
    machine = ax.Machine(rows=3, columns=2, dataflow=dataflow, accumulator_bits=64, requantizer="onnxruntime")
    program = ax.load_integer_onnx(model)
    (layer,) = program.source.lower(machine).layers
    assert layer.input_elements == np.prod(shape)
    bounds = accumulator_bounds(layer, machine)

    def count(codes, bits):
        return ax.simulate(program, codes, machine.replace(accumulator_bits=bits)).overflow_events

    corners = np.array([random.choice([ends.min, ends.max]) for _ in range(int(np.prod(shape)))])
    corners = corners.astype(ends.dtype).reshape(shape)
    assert count(corners, bounds.bits) == 0
    assert bounds.tight
    found = adversary(layer, machine, "accumulator").codes.astype(ends.dtype)
    assert count(found, bounds.bits) == 0
    assert bounds.bits == 4 or count(found, bounds.bits - 1) > 0


@given(st.integers(-(2**40), 2**40), st.integers(-(2**40), 2**40))
@example(-8, 7)
@example(-9, 0)
@example(0, 8)
@example(-(2**62), 2**62)
def test_register_bits_is_the_narrowest_that_holds_both(low, high):
    low, high = sorted((low, high))
    assert register_bits(low, high) == width([low, high])


def test_the_bound_counts_a_padded_tap_with_its_code_and_not_with_an_extreme():
    """A 3x3 kernel on one pixel: eight taps are padding, and no input moves them."""
    from accelsim.formats import IntegerFormat
    from accelsim.program.geometry import Geometry
    from tests.accelsim.explore.layers_at_random import Case

    geometry = Geometry((1, 1, 1), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), (1, 1))
    case = Case([[[[7] * 3] * 3]], [0], [0], 0, geometry, IntegerFormat(8, signed=False), ax.Machine())
    bounds = accumulator_bounds(case.layer, case.machine)
    assert (bounds.low.tolist(), bounds.high.tolist(), bounds.bits) == ([0], [7 * 255], 12)


def test_a_register_that_the_grid_has_not_is_refused():
    from accelsim.formats import IntegerFormat
    from accelsim.program.geometry import Geometry
    from tests.accelsim.explore.layers_at_random import Case

    geometry = Geometry((1, 1, 1), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), (1, 1))
    case = Case([[[[7]]]], [0], [0], 0, geometry, IntegerFormat(8, signed=False), ax.Machine(dataflow="broadcast"))
    with pytest.raises(ax.OperandError, match=r"partial_sum.*broadcast"):
        adversary(case.layer, case.machine, "partial_sum")
