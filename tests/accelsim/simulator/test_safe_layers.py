"""Layers without risk of overflow, by all ways that compute them: docs/numerics.md (100) and (101)."""

from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import accelsim as ax
from accelsim.program.geometry import Geometry
from accelsim.program.layers import MacLayer
from accelsim.program.rescale import Rescale
from accelsim.simulator.engine import dots, exact, tap_weights
from accelsim.simulator.engine import safe as safe_layers
from accelsim.simulator.engine.bounds import ChannelBounds
from accelsim.simulator.engine.digits import Digits
from accelsim.simulator.engine.dots import PackedWeights, exact_float
from accelsim.simulator.engine.exact import exact_sums
from accelsim.simulator.engine.layer_risk import LayerAtRisk
from accelsim.simulator.engine.nonzero_weights import NonzeroWeights
from accelsim.simulator.engine.safe import SafeLayer
from accelsim.simulator.engine.zeros import ZeroCounter
from accelsim_kernels import processor
from accelsim_kernels.processor import Instructions, has_dot_instructions, settings
from tests.naive import conv as naive
from tests.naive.gemm import gemm as naive_gemm

PATHS = ["instructions", "portable"]
EXACT = SimpleNamespace(
    dataflow="output_stationary", accumulator_bits=64, partial_sum_bits=None, adder_tree_bits=None, overflow="wrap",
    zero_point="folded", reduction_order="channel_first", product_shift_bits=0, product_rounding="floor",
)  # fmt: skip


@contextmanager
def path(name):
    """Compute dot products in one of two ways; what kernels are compiled for stays as it is."""
    with pytest.MonkeyPatch.context() as patch:
        if name == "portable":
            patch.setattr(processor, "instructions", lambda: Instructions.NONE)
        yield


def mac_layer(
    weights, start, geometry, x, clamp, requantizer, input_offset=0, pad_value=0, overflow="saturate", zeros=None
):
    arithmetic = ax.Requantizer.preset(requantizer).model_copy(update={"overflow": overflow})
    rescale = Rescale.of(arithmetic, [np.float32(0.5), np.float32(0.5)], np.float32(64), "test")
    return MacLayer(
        name="layer", op="Conv", inputs=("x",), output="y", output_shape=(len(weights), *geometry.output_shape),
        weights=weights.reshape(len(weights), -1).astype(np.int32), start=start, input_offset=input_offset,
        weight_zero_points=np.zeros(len(weights), dtype=np.int64) if zeros is None else zeros, pad_value=pad_value,
        geometry=geometry,
        weight_format=ax.IntegerFormat(8, True), input_format=x, rescale=rescale, zero_point=3, clamp=clamp,
        output_format=ax.IntegerFormat(16, clamp[0] < 0),
    )  # fmt: skip


def expected_codes(layer, images, weights):
    """The layer by the definition of the convolution, then by the public requantization, whose oracle is its own."""
    g = layer.geometry
    fed, zeros = images.astype(int) - layer.input_offset, layer.weight_zero_points
    outputs = naive.conv2d(
        fed.tolist(), weights.tolist(), EXACT, [0] * len(weights), zeros.tolist(), layer.pad_value, g.strides, g.pads,
        g.dilations, g.groups,
    )  # fmt: skip
    sums = np.array([[[[o.accumulator for o in row] for row in plane] for plane in image] for image in outputs])
    # The oracle folds the zero point, which the layer knows only as what a padded tap holds: take the term (7) back.
    own = weights.reshape(len(weights), -1) - zeros[:, None]
    sums += layer.pad_value * own.sum(axis=1)[:, None, None]
    sums += layer.start[:, None, None]
    return requantized(layer, sums)


def requantized(layer, sums):
    """The public requantization of accumulators (images, channels, rows, columns)."""
    low, high = layer.clamp
    wide = ax.QuantizationParameters(64.0, layer.zero_point, ax.IntegerFormat(16, low < 0))
    codes = ax.requantize(
        sums.reshape(1, -1), layer.rescale.requantizer, input_scale=0.5, weight_scale=0.5, output=wide, minimum=low,
        maximum=high,
    )  # fmt: skip
    return codes.reshape(sums.shape)


@st.composite
def convolutions(draw):
    shapes = [(1, 3, 5), (1, 8, 20), (3, 1, 1), (17, 1, 1), (2, 2, 3), (3, 1, 2), (9, 1, 4)]
    groups, group_channels, per_group = draw(st.sampled_from(shapes))
    kernel, strides, dilations = (tuple(draw(st.integers(1, most)) for _ in range(2)) for most in (3, 2, 2))
    pads = tuple(draw(st.integers(0, 2)) for _ in range(4))
    reach = [dilations[axis] * (kernel[axis] - 1) + 1 for axis in range(2)]
    shape = tuple(draw(st.integers(max(1, reach[a] - pads[a] - pads[a + 2]), reach[a] + 3)) for a in range(2))
    output = tuple(
        naive.output_size(shape[a], kernel[a], strides[a], pads[a], pads[a + 2], dilations[a]) for a in range(2)
    )
    geometry = Geometry((groups * group_channels, *shape), kernel, strides, pads, dilations, output, groups)
    return geometry, groups * per_group


@pytest.mark.parametrize("way", PATHS)
@given(
    case=convolutions(), bits=st.sampled_from([4, 8, 11, 16]), signed=st.booleans(),
    weight_bits=st.sampled_from([8, 16]),
    requantizer=st.sampled_from(["tflite", "tflite_single_rounding", "tflite_int16", "ruy_x86", "onnxruntime",
                                 "float64_half_away", "power_of_two"]),
    images=st.integers(1, 2), near=st.sampled_from([2**9, 2**33]), seed=st.integers(0, 2**32 - 1),
    overflow=st.sampled_from(["saturate", "saturate_symmetric"]),
    zero_points=st.sampled_from(["none", "signed", "unsigned"]),
)  # fmt: skip
@example(
    case=(Geometry((1, 1, 1), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), (1, 1)), 1), bits=16, signed=False, weight_bits=16,
    requantizer="tflite", images=1, near=2**33, seed=0, overflow="saturate", zero_points="none",
)  # fmt: skip
@example(  # bounds in 32-bit lanes were not narrowed
    case=(Geometry((3, 2, 2), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), (2, 2)), 5), bits=11, signed=True, weight_bits=16,
    requantizer="tflite", images=2, near=2**9, seed=1, overflow="saturate_symmetric", zero_points="none",
)  # fmt: skip
@example(  # weights from -255 to 0 once their zero point is taken off, and windows of more than 64 operands
    case=(Geometry((8, 5, 4), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), (5, 4)), 20), bits=8, signed=True, weight_bits=8,
    requantizer="tflite", images=2, near=2**9, seed=1, overflow="saturate", zero_points="unsigned",
)  # fmt: skip
def test_a_safe_layer_is_the_convolution_by_its_definition(
    way, case, bits, signed, weight_bits, requantizer, images, near, seed, overflow, zero_points
):
    geometry, channels = case
    rng, x = np.random.default_rng(seed), ax.IntegerFormat(bits, signed)
    shape = (channels, geometry.group_channels, *geometry.kernel_shape)
    ends = [-(2 ** (weight_bits - 1)), 2 ** (weight_bits - 1) - 1]
    weights = np.where(rng.random(shape) < 0.3, rng.choice(ends, shape), rng.integers(-9, 10, shape))
    zeros = np.zeros(channels, dtype=np.int64)
    if zero_points != "none":
        zeros = rng.choice([*ends, 0, 3], channels)
    if zero_points == "unsigned":
        weights, zeros = weights - ends[0], zeros - ends[0]
    codes = rng.choice([x.minimum, x.maximum, 0, 1], (images, *geometry.input_shape))
    start = rng.integers(-near, near, channels)
    pad = int(rng.choice([0, 5]))
    offset = int(rng.integers(x.minimum, x.maximum + 1 - pad))  # a padded tap holds a code of the format, too
    clamp = (-(2**15), 2**15 - 1) if bits > 8 else (0, 200)
    layer = mac_layer(weights, start, geometry, x, clamp, requantizer, offset, pad, overflow, zeros)
    with path(way):
        safe = SafeLayer.of(layer, ax.Machine(accumulator_bits=64))
        if safe is None:  # 17 bits
            assert weight_bits == 16
            assert zero_points != "none"
            return
        rows = np.ascontiguousarray(codes.astype(x.dtype).transpose(0, 2, 3, 1))
        counter, by_tap = (ZeroCounter(NonzeroWeights.of_layer(layer)) for _ in range(2))
        stored = safe.run(rows, counter.by_place(images, geometry, pad)).transpose(0, 3, 1, 2)
    assert np.array_equal(stored, expected_codes(layer, codes, weights))
    by_tap.add_images((codes - offset).astype(np.int32), geometry, pad)
    assert counter.zero_operands() == by_tap.zero_operands()


@pytest.mark.parametrize(("per_channel", "zero_point"), [(False, 0), (False, 9), (True, 0)])
def test_kernels_of_instructions_do_the_same_by_their_scalar_loops(per_channel, zero_point, monkeypatch):
    # With the JIT off the steps are Python loops, which need no instructions.
    if not settings.DISABLE_JIT and not has_dot_instructions():
        pytest.skip("this processor has no dot-product instructions")
    for module in (dots, safe_layers, tap_weights):
        monkeypatch.setattr(module, "has_dot_instructions", lambda: True)
    channels = 68 if per_channel else 3
    geometry = Geometry((channels, 3, 2), (2, 2), (1, 1), (1, 0, 0, 1), (1, 1), (3, 2), channels if per_channel else 1)
    rng, x = np.random.default_rng(0), ax.IntegerFormat(8, True)
    weights = rng.integers(-9, 10, (channels if per_channel else 5, geometry.group_channels, 2, 2))
    codes = rng.integers(-128, 128, (1, *geometry.input_shape))
    start = rng.integers(-500, 500, len(weights))
    if zero_point:
        weights[:, 0, 0, 0] = 150  # and no weight has 8 bits once its zero point is taken off
    zeros = np.full(len(weights), zero_point)
    layer = mac_layer(weights, start, geometry, x, (0, 200), "tflite", 3, 5, zeros=zeros)
    rows = np.ascontiguousarray(codes.astype(np.int8).transpose(0, 2, 3, 1))
    by_place = ZeroCounter(NonzeroWeights.of_layer(layer)).by_place(1, geometry, 5)
    stored = SafeLayer.of(layer, ax.Machine(accumulator_bits=64)).run(rows, by_place).transpose(0, 3, 1, 2)
    assert np.array_equal(stored, expected_codes(layer, codes, weights))


@given(
    weight_bits=st.integers(1, 16), terms=st.sampled_from([1, 2, 3, 40, 600, 3000]), data=st.data(),
    ends=st.sampled_from([(0, 255), (-(2**15), 2**15 - 1), (-3, 0)]),
)  # fmt: skip
@example(weight_bits=16, terms=3000, data=None, ends=(-(2**15), 2**15 - 1))
def test_digits_are_the_weights_and_their_sums_fit(weight_bits, terms, data, ends):
    half = 2 ** (weight_bits - 1)
    of_weights = st.lists(st.integers(-half, half - 1) | st.sampled_from([-half, half - 1]), min_size=1, max_size=4)
    some = [-half, half - 1] if data is None else data.draw(of_weights)
    weights = np.tile(np.array([some], dtype=np.int32), (1, terms))
    digits = Digits.of(weights, *ends)
    if digits is None:
        assert weight_bits * terms > 10_000
        return
    cut = [digit[0].tolist() for digit in digits.cut(weights)]
    assert len(cut) == digits.count
    for place, weight in enumerate(weights[0].tolist()):
        assert sum(digit[place] << digits.bits * (digits.count - 1 - i) for i, digit in enumerate(cut)) == weight
    for digit in cut:
        for sign in (1, -1):
            reach = sum(max(0, sign * d * ends[0], sign * d * ends[1]) for d in digit)
            assert reach < 2**31 + (sign < 0)
    if digits.count > 1:
        assert max(sum(max(0, s * w * ends[0], s * w * ends[1]) for w in weights[0].tolist()) for s in (1, -1)) >= 2**31


@pytest.mark.parametrize("way", PATHS)
@pytest.mark.parametrize("words", [False, True])
def test_sums_are_exact_up_to_the_bound_and_not_beyond_it(way, words):
    # Operands of one sign and their greatest magnitudes: sums of 2**31 - 1 at most are exact, the next product wraps.
    kind, x, w = (np.int16, 32767, 32767) if words else (np.uint8, 255, 127)
    length = (2**31 - 1) // (x * w)
    for terms in (length, length + 1):
        weights = np.full((1, 1, terms), w)
        packed, operands = PackedWeights(weights, words), np.full(terms + 64, x, dtype=kind)
        with path(way):
            if terms > length and not has_dot_instructions():
                continue  # the conversion from floating point is not defined there
            sums = packed.sums(operands, np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64), packed.room_for(1))
        assert (int(sums[0, 0]) == terms * x * w) == (terms == length)


@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from([np.float32, np.float64]), data=st.data())
def test_floating_point_products_are_exact_up_to_their_bound(seed, kind, data):
    # Σ|w| * greatest is the bound itself: the last weight takes what is left of it. Products in random order.
    rng = np.random.default_rng(seed)
    most = 2**24 if kind is np.float32 else 2**53
    greatest = data.draw(st.sampled_from([1, 255, 65535, 131071]))
    budget = most // greatest
    weights = rng.integers(-(budget // 50), budget // 50 + 1, 40)
    weights[-1] = budget - int(np.abs(weights[:-1]).sum())
    assert exact_float(weights[None], greatest) is kind
    wider = weights.copy()
    wider[-1] += 1 if greatest > 1 or most == 2**24 else 0
    if wider[-1] != weights[-1] and budget * greatest + greatest > most:
        assert exact_float(wider[None], greatest) is not kind
    activations = rng.choice([-greatest, greatest, greatest - 1, 0], (40, 3))
    product = weights[None].astype(kind) @ activations.astype(kind)
    expected = [[sum(int(w) * int(x) for w, x in zip(weights, column, strict=True)) for column in activations.T]]
    assert [[Fraction(float(value)) for value in row] for row in product] == expected


@pytest.mark.parametrize("way", PATHS)
def test_sums_beyond_53_bits_are_exact_in_parts(way):
    # 300 products of up to 2**47: more than one float64 matrix product holds.
    rng = np.random.default_rng(5)
    weights = rng.choice([-(2**30), 2**30 - 1], (4, 300)).astype(np.int32)
    columns = rng.choice([2**17 - 1, 2**17 - 2, 0], (300, 5)).astype(np.int32)
    bounds = ChannelBounds(weights, np.array([3, -(2**61), 0, 2**61]), np.zeros(4, dtype=np.int64))
    accumulators = np.full((4, 5), -7)
    with path(way):
        exact_sums(bounds, columns, 0, 2**17 - 1, np.array([0, 1, 3]), accumulators)
    expected = weights.astype(object) @ columns.astype(object) + bounds.start.astype(object)[:, None]
    assert accumulators[[0, 1, 3]].tolist() == expected[[0, 1, 3]].tolist()
    assert (accumulators[2] == -7).all()


@pytest.mark.parametrize("way", PATHS)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 30), st.integers(1, 140)),
    ends=st.sampled_from([(-128, 127), (0, 255), (-300, -50), (-(2**15), 2**15 - 1), (0, 2**16 - 1), (-(2**16), 5)]),
    weight_bits=st.sampled_from([4, 8, 16, 17]), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_exact_sums_are_the_sums(way, shape, ends, weight_bits, seed):
    num_outputs, reduction, num_positions = shape
    rng, half = np.random.default_rng(seed), 2 ** (weight_bits - 1)
    weights = rng.choice([-half, half - 1, 1], (num_outputs, reduction)).astype(np.int32)
    columns = rng.choice([*ends, ends[0] + 1], (reduction, num_positions)).astype(np.int32)
    start = rng.integers(-(2**60), 2**60, num_outputs)
    bounds = ChannelBounds(weights, start, np.zeros_like(start))
    accumulators = np.empty((num_outputs, num_positions), dtype=np.int64)
    with path(way):
        exact_sums(bounds, columns, ends[0], max(ends[1], ends[0] + 1), np.arange(num_outputs), accumulators)
    assert np.array_equal(accumulators, weights.astype(np.int64) @ columns.astype(np.int64) + start[:, None])


@pytest.mark.parametrize("way", PATHS)
@pytest.mark.parametrize("activation", [np.int8, np.uint8, np.int16, np.uint16])
@pytest.mark.parametrize("weight", [np.int8, np.int16])
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 30), st.integers(1, 140)), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
@example(shape=(3, 5, 1200), seed=0)  # more panels than are packed at a time
def test_operands_of_few_bits_are_multiplied_as_they_are(way, activation, weight, shape, seed):
    num_outputs, reduction, num_positions = shape
    rng, limits = np.random.default_rng(seed), np.iinfo(activation)
    ends = int(limits.min), int(limits.max)
    most = min(int(np.iinfo(weight).max), (2**31 - 1) // (reduction * 2**17))
    weights = rng.choice([-most, most, 1], (num_outputs, reduction)).astype(weight)
    columns = rng.choice([*ends, 0], (reduction, num_positions)).astype(activation)
    rows, start = np.flatnonzero(rng.integers(0, 2, num_outputs)), rng.integers(-(2**60), 2**60, num_outputs)
    accumulators = np.full((num_outputs, num_positions), -7)
    if not rows.size:
        return
    with path(way):
        bounds = ChannelBounds(weights, start, np.zeros_like(start))
        survey = exact_sums(bounds, columns, *ends, rows, accumulators)
        assert (survey is not None) == has_dot_instructions()
    expected = weights.astype(np.int64) @ columns.astype(np.int64) + start[:, None]
    assert np.array_equal(accumulators[rows], expected[rows])
    assert (np.delete(accumulators, rows, axis=0) == -7).all()
    if survey is not None:
        assert survey.nonzero.tolist() == [sum(x != 0 for x in line) for line in columns.tolist()]
        assert (survey.least, survey.greatest) == (columns.min(), columns.max())


@pytest.mark.parametrize(
    ("dtype", "ends", "surveyed"),
    [
        (np.uint8, (0, 255), True), (np.int8, (-128, 127), True), (np.uint16, (0, 65535), True),
        (np.int16, (-32768, 32767), True), (np.int32, (0, 200), True), (np.int32, (-300, -50), False),
        (np.int32, (-70000, -5000), False), (np.int16, (-3, 252), False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("weight", [np.int8, np.int16, np.int32])
def test_every_form_of_operands_is_brought_to_the_instructions(monkeypatch, dtype, ends, surveyed, weight):
    # With the JIT off by the scalar loops of the kernel's steps.
    if not (has_dot_instructions() or settings.DISABLE_JIT):
        pytest.skip("this processor has no dot-product instructions")
    monkeypatch.setattr(exact, "has_dot_instructions", lambda: True)
    rng = np.random.default_rng(8)
    most = 300 if weight == np.int16 else 127
    weights = rng.choice([-most, 0, most], (2, 5)).astype(weight)
    columns = rng.choice([*ends, ends[0] + 1], (5, 9)).astype(dtype)
    bounds = ChannelBounds(weights, np.array([2**60, -3]), np.zeros(2, dtype=np.int64))
    accumulators = np.empty((2, 9), dtype=np.int64)
    survey = exact_sums(bounds, columns, *ends, np.arange(2), accumulators)
    products = [
        [sum(int(w) * int(x) for w, x in zip(row, column, strict=True)) for column in columns.T] for row in weights
    ]
    assert accumulators.tolist() == [
        [start + p for p in line] for start, line in zip((2**60, -3), products, strict=True)
    ]
    fits = weight == np.int16 and ends[0] >= -(2**15) and ends[1] < 2**15
    assert (survey is not None) == (surveyed or fits)  # activations that are shifted cannot be surveyed
    if survey is not None:
        assert survey.nonzero.tolist() == [int((line != 0).sum()) for line in columns]
        assert (survey.least, survey.greatest) == (columns.min(), columns.max())


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("shape", [(2, 5, 9), (7, 8, 70)])
def test_whole_products_of_8_bits_need_no_bounds(monkeypatch, dtype, shape):
    # With the JIT off by the scalar loops of the kernel's steps.
    if not (has_dot_instructions() or settings.DISABLE_JIT):
        pytest.skip("this processor has no dot-product instructions")
    monkeypatch.setattr(exact, "has_dot_instructions", lambda: True)
    (num_outputs, reduction, num_positions), limits = shape, np.iinfo(dtype)
    rng = np.random.default_rng(4)
    weights = rng.choice([-128, 0, 127], (num_outputs, reduction)).astype(np.int8)
    columns = rng.choice([limits.min, 0, limits.max], (reduction, num_positions)).astype(dtype)
    start = rng.integers(-(2**61), 2**61, num_outputs)
    accumulators, survey = exact.exact_product(weights, columns, start)
    assert accumulators.tolist() == [
        [int(b) + sum(int(w) * int(x) for w, x in zip(row, column, strict=True)) for column in columns.T]
        for b, row in zip(start, weights, strict=True)
    ]
    assert survey.nonzero.tolist() == [sum(x != 0 for x in line) for line in columns.tolist()]
    assert (survey.least, survey.greatest) == (columns.min(), columns.max())
    assert exact.exact_product(weights.astype(np.int16), columns, start) is None
    assert exact.exact_product(weights, columns.astype(np.int16), start) is None


@pytest.mark.parametrize("beyond", [0, 1])
def test_the_longest_reduction_of_8_bits_that_32_bits_hold_whatever_is_multiplied(beyond):
    # -128 * 255 * 65793 = -2147483520 is the last that fits; one more goes another way, and is right as well.
    reduction = 65793 + beyond
    weights, columns = np.full((2, reduction), -128, np.int8), np.full((reduction, 1), 255, np.uint8)
    assert (reduction * 128 * 255 < 2**31) == (not beyond)
    bounds = ChannelBounds(weights, np.array([0, 2**61]), np.zeros(2, dtype=np.int64))
    accumulators = np.empty((2, 1), dtype=np.int64)
    product = exact.exact_product(weights, columns, bounds.start)
    assert product is None or product[0].tolist() == [[-128 * 255 * reduction], [2**61 - 128 * 255 * reduction]]
    assert (product is None) == (bool(beyond) or not has_dot_instructions())
    survey = exact_sums(bounds, columns, 0, 255, np.arange(2), accumulators)
    assert accumulators[:, 0].tolist() == [-128 * 255 * reduction, 2**61 - 128 * 255 * reduction]
    assert (survey is None) == (bool(beyond) or not has_dot_instructions())


def test_one_beyond_the_bound_of_float32_can_be_wrong():
    # 2**24 + 1 is no float32 number: the bound cannot be raised.
    assert exact_float(np.array([[2**24 - 1, 1]]), 1) is np.float32
    assert exact_float(np.array([[2**24, 1]]), 1) is np.float64
    assert int((np.array([[2**24, 1]], np.float32) @ np.ones((2, 1), np.float32))[0, 0]) == 2**24


def test_what_has_no_safe_form_takes_the_other_path():
    geometry = Geometry((2, 3, 3), (2, 2), (1, 1), (0, 0, 0, 0), (1, 1), (2, 2))
    weights, start = np.ones((3, 2, 2, 2)), np.zeros(3, dtype=np.int64)
    x = ax.IntegerFormat(8, True)
    layer = mac_layer(weights, start, geometry, x, (-128, 127), "tflite")
    machine = ax.Machine()
    assert SafeLayer.of(layer, machine) is SafeLayer.of(layer, machine)
    assert SafeLayer.of(layer, ax.Machine(product_shift_bits=1)) is None
    with_zero_points = replace(layer, weight_zero_points=np.array([0, 1, 0]))
    asymmetric = SafeLayer.of(with_zero_points, machine)
    assert LayerAtRisk.of(asymmetric, ax.Machine(accumulator_bits=8)) is None
    assert SafeLayer.of(replace(layer, weights=layer.weights * 40000), machine) is None
    safe = SafeLayer.of(layer, machine)
    codes = np.full((1, 3, 3, 2), 3, dtype=np.int8)
    assert safe.is_safe(ax.Machine(accumulator_bits=12), codes)  # 8 products of at most 128
    assert safe.is_safe(ax.Machine(accumulator_bits=6), codes)  # 8 products of 3, as these codes are
    assert not safe.is_safe(ax.Machine(accumulator_bits=5), codes)
    assert naive_gemm([[1] * 8], [[3]] * 8, SimpleNamespace(**{**vars(EXACT), "accumulator_bits": 5}))[0][0].events


def test_layers_that_ran_are_forgotten_with_their_program():
    # Fuzzing a reader ran half a million programs and found their weights still in memory: what was made of a layer
    # held the layer, and the table of what was made is keyed by it.
    import gc
    import weakref

    from tests.accelsim.program.tflite_cases import IMAGE, SEEDS

    program = ax.load_tflite(SEEDS["conv"])
    ax.simulate(program, np.zeros(IMAGE, dtype=np.int8))
    layer = weakref.ref(program.layers[0])
    del program
    gc.collect()
    assert layer() is None
