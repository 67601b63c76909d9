"""Quantizers, docs/numerics.md (1) to (5), against exact fractions and against ONNX Runtime's QuantizeLinear."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from accelsim.errors import FormatError
from accelsim.formats import IntegerFormat, QuantizationParameters
from tests.naive import quantizer as naive
from tests.naive.binary import f32
from tests.naive.rounding import rnd

TINY, HUGE = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)

formats = st.builds(IntegerFormat, st.integers(1, 16), st.booleans())
scales = st.floats(TINY, 2.0**100, width=32)
reals = st.floats(width=32, allow_nan=False, allow_infinity=False)
bounds = st.floats(-1e30, 1e30)


@st.composite
def quantizers(draw):
    chosen = draw(formats)
    return QuantizationParameters(draw(scales), draw(st.integers(chosen.minimum, chosen.maximum)), chosen)


def parameters(scale, zero_point, bits, signed):
    return QuantizationParameters(np.float32(scale), np.int64(zero_point), IntegerFormat(bits, signed))


@pytest.mark.parametrize("bits", range(1, 17))
@pytest.mark.parametrize("signed", [True, False])
def test_a_format_has_the_range_of_its_width(bits, signed):
    chosen = IntegerFormat(bits, signed)
    assert (chosen.minimum, chosen.maximum) == naive.code_limits(bits, signed)
    limits = np.iinfo(chosen.dtype)
    assert limits.min <= chosen.minimum <= chosen.maximum <= limits.max
    assert limits.bits == (8 if bits <= 8 else 16)
    assert str(chosen) == f"{'int' if signed else 'uint'}{bits}"


@pytest.mark.parametrize("bits", [0, 17, -1, 8.0, "8", True, None])
def test_a_width_outside_1_to_16_is_refused(bits):
    with pytest.raises(FormatError, match="bits must be a whole number from 1 to 16"):
        IntegerFormat(bits, True)


@given(quantizer=quantizers(), values=st.lists(reals, min_size=1, max_size=20))
@example(quantizer=parameters(1, 1, 8, True), values=[0.5, 1.5, 2.5, -0.5, -1.5, -2.5])
@example(quantizer=parameters(TINY, 0, 16, False), values=[HUGE, -HUGE, 0.0, -0.0, TINY, TINY / 2])
@example(quantizer=parameters(1, -1, 1, True), values=[-1.0, 0.0, 0.5, 1.0])
@example(quantizer=parameters(0.1, 0, 8, True), values=[0.05, 0.15, 0.25, 0.35])  # ties only after the division rounds
def test_quantize_equals_the_exact_rule(quantizer, values):
    scale, zero_point = float(quantizer.scale), int(quantizer.zero_point)
    expected = [
        naive.quantize(x, scale, zero_point, quantizer.format.minimum, quantizer.format.maximum)
        for x in np.array(values, dtype=np.float32).tolist()
    ]
    codes = quantizer.quantize(np.array(values, dtype=np.float32))
    assert codes.dtype == quantizer.format.dtype
    assert codes.tolist() == expected


@given(quantizer=quantizers(), steps=st.lists(st.integers(-70000, 70000), min_size=1, max_size=20))
def test_quantize_on_exact_ties(quantizer, steps):
    with np.errstate(over="ignore"):
        values = np.array([(2 * step + 1) / 2 for step in steps], dtype=np.float32) * quantizer.scale
    expected = [
        naive.quantize(
            x, float(quantizer.scale), int(quantizer.zero_point), quantizer.format.minimum, quantizer.format.maximum
        )
        for x in values.tolist()
    ]
    assert quantizer.quantize(values).tolist() == expected


@given(quantizer=quantizers())
@example(quantizer=parameters(2.0**100, 32767, 16, True))
@example(quantizer=parameters(TINY, -1, 1, True))
def test_dequantize_equals_the_exact_product(quantizer):
    low, high, zero_point = quantizer.format.minimum, quantizer.format.maximum, int(quantizer.zero_point)
    codes = sorted({low, low + 1, zero_point, high - 1, high} & set(range(low, high + 1)))
    expected = [float(naive.dequantize(q, float(quantizer.scale), zero_point)) for q in codes]
    real = quantizer.dequantize(np.array(codes))
    assert real.dtype == np.float32
    assert real.tolist() == expected


@given(quantizer=quantizers())
def test_real_zero_is_the_zero_point_exactly(quantizer):
    assert quantizer.quantize(0.0) == quantizer.zero_point
    assert quantizer.quantize(-0.0) == quantizer.zero_point
    assert quantizer.dequantize(quantizer.zero_point) == 0.0


@given(quantizer=quantizers())
@example(quantizer=parameters(0.1, -32768, 16, True))
def test_every_code_survives_a_round_trip(quantizer):
    codes = np.arange(quantizer.format.minimum, quantizer.format.maximum + 1)
    assert np.array_equal(quantizer.quantize(quantizer.dequantize(codes)), codes)


@given(quantizer=quantizers())
def test_infinities_and_grid_limits_are_the_ends_of_the_format(quantizer):
    low, high = quantizer.format.minimum, quantizer.format.maximum
    assert quantizer.quantize([-np.inf, np.inf]).tolist() == [low, high]
    scale, zero_point = Fraction(float(quantizer.scale)), int(quantizer.zero_point)
    assert tuple(map(Fraction, map(float, quantizer.grid_limits))) == (
        scale * (low - zero_point),
        scale * (high - zero_point),
    )


def test_quantize_refuses_nan():
    with pytest.raises(FormatError, match="must not be NaN"):
        parameters(1, 0, 8, True).quantize([0.0, np.nan])


@pytest.mark.parametrize("width", [8, 16])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("scale", [0.1, 1.0, 0.0078125, 1 / 3, 3.7e-30, 2.5e20])
def test_quantize_equals_onnx_runtime(width, signed, scale):
    onnxruntime = pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    chosen = IntegerFormat(width, signed)
    code_type = getattr(TensorProto, f"{'' if signed else 'U'}INT{width}")
    zero_point = chosen.minimum + (chosen.maximum - chosen.minimum) // 3
    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])],
        "quantize",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", code_type, ["n"])],
        [helper.make_tensor("s", TensorProto.FLOAT, [], [scale]), helper.make_tensor("z", code_type, [], [zero_point])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    halves = np.arange(-140000, 140000, dtype=np.float64) / 2
    around = np.concatenate(
        [halves * np.float32(scale), random.normal(size=5000) * scale * chosen.maximum, [0.0, -0.0]]
    )
    values = around.astype(np.float32)
    values = np.concatenate([values, np.nextafter(values, np.float32(0)), np.nextafter(values, np.float32(np.inf))])
    expected = session.run(None, {"x": values})[0]
    assert np.array_equal(parameters(scale, zero_point, width, signed).quantize(values), expected)


@given(low=bounds, high=bounds, chosen=formats)
@example(low=-1.0, high=1.0, chosen=IntegerFormat(8, True))
@example(low=0.0, high=6.0, chosen=IntegerFormat(8, False))
@example(low=5.0, high=6.0, chosen=IntegerFormat(16, False))  # widened to contain zero
@example(low=-6.0, high=-5.0, chosen=IntegerFormat(1, False))
@example(low=-1.0, high=1.0, chosen=IntegerFormat(1, True))
@example(low=0.0, high=0.0, chosen=IntegerFormat(4, True))
@example(low=-0.4, high=3.1, chosen=IntegerFormat(16, True))
def test_an_affine_quantizer_is_the_finest_that_covers_the_range(low, high, chosen):
    assume(low <= high and (low == high == 0 or high - low > 1e-25))
    made = QuantizationParameters.from_range(low, high, chosen)
    exact = naive.finest_scale(low, high, chosen.minimum, chosen.maximum, "affine")
    # The float64 quotient that is rounded to float32 is within one part in 2^52 of the exact one.
    scale = Fraction(float(made.scale))
    assert f32(exact * (1 - Fraction(1, 2**51))) <= scale <= f32(exact * (1 + Fraction(1, 2**51)))
    # z by (3), in float64 as the documents have all real numbers that are not float32.
    wanted = rnd(Fraction(chosen.minimum - min(low, 0.0) / float(made.scale)), "half_even")
    assert made.zero_point == naive.clamp(wanted, chosen.minimum, chosen.maximum)
    # Rounding z moves the grid by half a step at most, rounding s by one part in 2^24 per step.
    slack = scale * (Fraction(1, 2) + Fraction(1, 2**24) * (chosen.maximum - chosen.minimum))
    grid_low, grid_high = (Fraction(float(limit)) for limit in made.grid_limits)
    assert grid_low <= Fraction(min(low, 0.0)) + slack
    assert grid_high >= Fraction(max(high, 0.0)) - slack


@given(low=bounds, high=bounds, chosen=formats)
@example(low=-1.0, high=0.5, chosen=IntegerFormat(8, True))
@example(low=-1.0, high=1.0, chosen=IntegerFormat(8, False))  # unsigned: no codes below zero
@example(low=-1.0, high=2.0, chosen=IntegerFormat(1, True))  # one bit: no codes above zero
@example(low=0.0, high=2.0, chosen=IntegerFormat(1, True))  # ... and none for any of this range
@example(low=0.0, high=0.0, chosen=IntegerFormat(16, True))
def test_a_symmetric_quantizer_has_zero_point_0_and_covers_the_range(low, high, chosen):
    assume(low <= high and (low == high == 0 or high - low > 1e-25))
    made = QuantizationParameters.from_range(low, high, chosen, scheme="symmetric")
    assert made.zero_point == 0
    exact = naive.finest_scale(low, high, chosen.minimum, chosen.maximum, "symmetric")
    assume(exact > 1e-30)
    scale = Fraction(float(made.scale))
    assert f32(exact * (1 - Fraction(1, 2**51))) <= scale <= f32(exact * (1 + Fraction(1, 2**51)))


@given(
    exponent=st.integers(-100, 90),
    mantissa=st.floats(0.5, 1.0),
    chosen=formats,
    scheme=st.sampled_from(["affine", "symmetric"]),
)
@example(exponent=0, mantissa=1.0, chosen=IntegerFormat(8, False), scheme="affine")
@example(exponent=11, mantissa=0.5, chosen=IntegerFormat(1, False), scheme="symmetric")
@example(exponent=3, mantissa=float(np.nextafter(1.0, 0.0)), chosen=IntegerFormat(1, False), scheme="affine")
@example(exponent=11, mantissa=float(np.nextafter(0.5, 1.0)), chosen=IntegerFormat(1, False), scheme="symmetric")
def test_a_power_of_two_scale_is_the_next_one_up(exponent, mantissa, chosen, scheme):
    high = mantissa * 2.0**exponent
    made = QuantizationParameters.from_range(0.0, high, chosen, scheme=scheme, power_of_two=True)
    assert made.is_power_of_two
    exact = naive.finest_scale(0.0, high, chosen.minimum, chosen.maximum, scheme)
    # The scale is a float64 number before it is rounded up.
    assert Fraction(float(made.scale)) == naive.next_power_of_two(Fraction(float(exact)))
    assert made.scale.dtype == np.float32


def test_a_scale_that_is_no_power_of_two_says_so():
    assert not parameters(0.75, 0, 8, True).is_power_of_two
    assert parameters(0.25, 0, 8, True).is_power_of_two


@given(data=st.data(), chosen=formats, channels=st.integers(1, 4), axis=st.integers(-3, 2))
def test_each_channel_is_quantized_by_its_own_parameters(data, chosen, channels, axis):
    per_channel = lambda values: st.lists(values, min_size=channels, max_size=channels)  # noqa: E731
    scale = data.draw(per_channel(scales))
    zero_point = data.draw(per_channel(st.integers(chosen.minimum, chosen.maximum)))
    whole = QuantizationParameters(np.array(scale), np.array(zero_point), chosen, axis=axis)
    assert whole.per_channel
    shape = [2, 2, 2]
    shape[axis] = channels
    values = np.array(data.draw(st.lists(reals, min_size=4 * channels, max_size=4 * channels)), np.float32).reshape(
        shape
    )
    codes, real = whole.quantize(values), whole.dequantize(whole.quantize(values))
    for channel in range(channels):
        single = QuantizationParameters(scale[channel], zero_point[channel], chosen)
        assert np.array_equal(codes.take(channel, axis), single.quantize(values.take(channel, axis)))
        assert np.array_equal(real.take(channel, axis), single.dequantize(codes.take(channel, axis)))


def test_ranges_per_channel_are_the_single_ranges():
    low, high = np.array([-1.0, 0.0, -3.0]), np.array([1.0, 0.0, 0.25])
    for scheme in ("affine", "symmetric"):
        for power_of_two in (False, True):
            whole = QuantizationParameters.from_range(low, high, IntegerFormat(5, True), scheme, power_of_two, axis=0)
            for channel in range(3):
                single = QuantizationParameters.from_range(
                    low[channel], high[channel], IntegerFormat(5, True), scheme, power_of_two
                )
                assert whole.scale[channel] == single.scale
                assert whole.zero_point[channel] == single.zero_point


def test_parameters_that_are_equal_have_the_same_hash():
    first, second = parameters(0.5, 3, 8, True), parameters(0.5, 3, 8, True)
    assert first == second
    assert hash(first) == hash(second)
    assert first != parameters(0.5, 2, 8, True)
    assert first != parameters(0.25, 3, 8, True)
    assert first != parameters(0.5, 3, 7, True)
    assert first != "first"


def test_parameters_cannot_be_changed_afterwards():
    source = np.array([1.0, 2.0], dtype=np.float32)
    made = QuantizationParameters(source, np.array([0, 0]), IntegerFormat(8, True), axis=0)
    source[0] = 5
    assert made.scale.tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="read-only"):
        made.scale[0] = 5


@pytest.mark.parametrize(
    ("scale", "zero_point", "axis", "message"),
    [
        (0.0, 0, None, "scale must be finite and above 0"),
        (-1.0, 0, None, "scale must be finite and above 0"),
        (np.inf, 0, None, "scale must be finite and above 0"),
        (np.nan, 0, None, "scale must be finite and above 0"),
        (1e-60, 0, None, "scale must be finite and above 0"),
        (1.0, 128, None, r"zero_point must be a code of int8 \(-128..127\)"),
        (1.0, -129, None, r"zero_point must be a code of int8 \(-128..127\)"),
        ([1.0, 1.0], [0], 0, "must be scalars or one value per channel"),
        ([[1.0]], [[0]], 0, "must be scalars or one value per channel"),
        ([], [], 0, "must be scalars or one value per channel"),
        ([1.0, 1.0], [0, 0], None, "axis must name the channel axis"),
        (1.0, 0, 0, "axis must name the channel axis"),
    ],
)
def test_wrong_parameters_are_refused(scale, zero_point, axis, message):
    with pytest.raises(FormatError, match=message):
        QuantizationParameters(scale, zero_point, IntegerFormat(8, True), axis)


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.0), (-np.inf, 0.0), (0.0, np.nan)])
def test_a_range_that_is_none_is_refused(low, high):
    with pytest.raises(FormatError, match="range must be finite with minimum <= maximum"):
        QuantizationParameters.from_range(low, high, IntegerFormat(8, True))


def test_a_tensor_with_other_channels_is_refused():
    made = QuantizationParameters([1.0, 2.0], [0, 0], IntegerFormat(8, True), axis=1)
    with pytest.raises(FormatError, match="2 channels on axis 1"):
        made.quantize(np.zeros((2, 3)))
    with pytest.raises(FormatError, match="2 channels on axis 1"):
        made.dequantize(np.zeros(2, dtype=int))
