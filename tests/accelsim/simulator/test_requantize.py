"""`requantize` against the oracle: docs/numerics.md sections 4 and 5."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import accelsim as ax
from tests.naive import requantize as naive
from tests.naive.rounding import ROUNDS_UP

PRESETS = ax.Requantizer.preset_names()
rules = st.sampled_from(sorted(ROUNDS_UP))
places = st.sampled_from(["outside", "inside"])
widths = st.integers(8, 32)
overflows = st.sampled_from(["saturate", "wrap", "saturate_to_zero", "saturate_symmetric"])

compositions = st.one_of(
    st.builds(
        lambda bits, rounding, place, mantissa, shift, overflow: ax.Requantizer(
            multiplier_bits=bits,
            mantissa=mantissa,
            rounding=rounding,
            zero_point=place,
            pre_shift_bits=shift if len(rounding) == 2 else 0,
            overflow=overflow,
        ),
        widths | st.just(32),
        st.tuples(rules) | st.tuples(rules, rules),
        places,
        st.sampled_from(["nearest", "shortened"]),
        st.integers(0, 30) | st.just(0),
        overflows,
    ),
    st.builds(
        lambda kind, rule, place, overflow: ax.Requantizer(
            multiplier=kind,
            rounding=rule,
            zero_point=place,
            overflow="saturate" if (overflow, kind[:5]) == ("wrap", "float") else overflow,
        ),
        st.sampled_from(["float32", "float64", "power_of_two"]),
        rules,
        places,
        overflows,
    ),
)


def powers(low, high):
    return st.integers(low, high).map(lambda exponent: 2.0**exponent)


def scales(requantizer):
    """Float32 scales; powers of two make exact ties."""
    if requantizer.multiplier == "power_of_two":  # the product of two over a third is 2^16 at most, (24)
        return powers(-8, 4)
    return powers(-12, 6) | st.floats(2.0**-12, 2.0**6, width=32)


def around(centre, most=2**62 - 1):
    return st.integers(centre - 3, centre + 3).map(lambda value: max(-most, min(value, most)))


accumulators = st.one_of(
    st.integers(-300, 300),
    st.integers(-(2**33), 2**33),
    st.integers(-(2**62) + 1, 2**62 - 1),
    st.tuples(st.sampled_from([-1, 1]), st.integers(0, 62)).flatmap(lambda pair: around(pair[0] * 2 ** pair[1])),
    # Odd multiples of powers of two: halves after a shift.
    st.builds(lambda odd, shift: (2 * odd + 1) << shift, st.integers(-(2**20), 2**20), st.integers(0, 30)),
)


@st.composite
def outputs(draw, scale):
    chosen = ax.IntegerFormat(draw(st.integers(1, 16) | st.just(16)), draw(st.booleans()))
    zero_point = draw(st.integers(chosen.minimum, chosen.maximum) | st.sampled_from([chosen.minimum, chosen.maximum]))
    return ax.QuantizationParameters(np.float32(scale), np.int64(zero_point), chosen)


def expected_codes(values, requantizer, s_x, s_w, output, low, high):
    ends, s_y, z = (output.format.minimum, output.format.maximum), float(output.scale), int(output.zero_point)
    return [
        [naive.requantize(a, s_x, channel, s_y, z, low, high, requantizer, ends) for a in row]
        for row, channel in zip(values, s_w, strict=True)
    ]


def check(values, requantizer, s_x, s_w, output, low=None, high=None):
    codes = ax.requantize(
        np.array(values, dtype=np.int64), requantizer, input_scale=s_x, weight_scale=np.array(s_w), output=output,
        minimum=low, maximum=high,
    )  # fmt: skip
    assert codes.dtype == output.format.dtype
    least, greatest = output.format.minimum, output.format.maximum
    low, high = least if low is None else max(low, least), greatest if high is None else min(high, greatest)
    assert codes.tolist() == expected_codes(values, requantizer, s_x, s_w, output, low, high)


def check_drawn(data, requantizer):
    """Draw everything else and compare."""
    scale = scales(requantizer)
    s_x, s_y = data.draw(scale), data.draw(scale)
    num_outputs = data.draw(st.integers(1, 3))
    s_w = data.draw(st.lists(scale, min_size=num_outputs, max_size=num_outputs))
    output = data.draw(outputs(s_y))
    bounds = sorted(data.draw(st.tuples(*[st.integers(output.format.minimum, output.format.maximum)] * 2)))
    low, high = (value if data.draw(st.booleans()) else None for value in bounds)
    size = data.draw(st.integers(1, 6))
    values = [data.draw(st.lists(accumulators, min_size=size, max_size=size)) for _ in range(num_outputs)]
    check(values, requantizer, s_x, s_w, output, low, high)


def output_of(scale, zero_point, bits=16, signed=True):
    return ax.QuantizationParameters(np.float32(scale), np.int64(zero_point), ax.IntegerFormat(bits, signed))


@pytest.mark.parametrize("name", PRESETS)
@given(data=st.data())
def test_presets_equal_the_oracle(name, data):
    check_drawn(data, ax.Requantizer.preset(name))


@given(data=st.data(), requantizer=compositions)
def test_any_composition_equals_the_oracle(data, requantizer):
    check_drawn(data, requantizer)


@pytest.mark.parametrize("place", ["outside", "inside"])
@pytest.mark.parametrize("rule", sorted(ROUNDS_UP))
@pytest.mark.parametrize("kind", ["integer", "integer twice", "float32", "float64", "power_of_two"])
def test_every_rule_on_every_tie(kind, rule, place):
    # Halves, quarters and their neighbours around zero, with even and odd zero points of both signs.
    rounding = (rule, rule) if kind == "integer twice" else (rule,)
    requantizer = ax.Requantizer(multiplier=kind.split()[0], rounding=rounding, zero_point=place)
    values = [list(range(-24, 25))]
    for shift, zero_point in itertools.product((0, 1, 2, 3), (-3, -2, 0, 1, 4)):
        check(values, requantizer, 2.0**-shift, [1.0], output_of(1.0, zero_point))


@pytest.mark.parametrize("bits", range(8, 33))
@pytest.mark.parametrize("rounding", [("half_up",), ("half_up", "half_away"), ("to_odd",), ("floor", "half_even")])
def test_multipliers_of_every_width_at_the_ends_of_their_range(bits, rounding):
    requantizer = ax.Requantizer(multiplier_bits=bits, rounding=rounding)
    ends = [-(2**62) + 1, -(2**32), -(2**31) - 1, -(2**31), -1, 0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62 - 1]
    # Just below a power of two the mantissa rounds up to the next one; tiny multipliers become 0.
    below = float(np.nextafter(np.float32(1), np.float32(0)))
    for scale in (below, 1.0, 0.5, below / 2, 2.0**-bits, 2.0 ** (1 - bits), below * 2.0 ** (1 - bits), 2.0**-100, 3e7):
        check([ends], requantizer, scale, [1.0], output_of(1.0, 7))


def test_a_multiplier_beyond_one_rounding_saturates():
    # (20): e > w - 2 takes the greatest m and the least shift.
    for bits, scale in itertools.product((8, 16, 32), (2.0**31, 2.0**40, 3.0e30)):
        requantizer = ax.Requantizer(multiplier_bits=bits, rounding="half_up")
        check([[-5, -1, 0, 1, 5]], requantizer, scale, [1.0], output_of(1.0, -1))


@pytest.mark.parametrize("place", ["outside", "inside"])
@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_float_multipliers_at_the_ends_of_their_range(kind, place):
    requantizer = ax.Requantizer(multiplier=kind, rounding="half_even", zero_point=place)
    # Integers above 2^24 and 2^53 are rounded on their way into the format, once.
    ends = [2**24 + 1, 2**24 + 3, 2**53 + 1, 2**60 + 2**36 + 1, 2**62 - 1]
    values = [[*ends, 0, *(-value for value in ends)]]
    for scale in (1.0, 2.0**-24, 2.0**-40, 2.0**-53, 2.0**-60, 1e-38, 1e38, 0.1, 1 / 3):
        check(values, requantizer, float(np.float32(scale)), [1.0], output_of(1.0, 3))


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("rule", ["half_up", "half_away", "half_even", "floor", "to_odd"])
def test_a_zero_point_inside_a_float_rounding_is_added_in_that_format(kind, rule):
    # 0.49999997 + 100 is 100.5 in float32: a value that is no tie becomes one.
    requantizer = ax.Requantizer(multiplier=kind, rounding=rule, zero_point="inside")
    below = float(np.nextafter(np.float32(0.5), np.float32(0)))
    check([[1, -1, 3, -3]], requantizer, below, [1.0], output_of(1.0, 100))
    check([[1, -1, 3, -3]], requantizer, below, [1.0], output_of(1.0, -101))


def test_a_product_just_short_of_minus_one_half_is_no_tie():
    # 49 times the float64 number next to 1/98 is the number below 0.5. The distance of its negative from -1 is no
    # float64 number, it becomes 0.5; a rounding that looks at that remainder sees a tie, and half_away returns -1.
    requantizer = ax.Requantizer.preset("float64_half_away")
    assert np.nextafter(0.5, 0.0) == 49 * (1.0 / 98.0)
    check([[-49, 49]], requantizer, 1.0, [1.0], output_of(98.0, 0))
    for rule in sorted(ROUNDS_UP):
        check([[-49, 49]], ax.Requantizer(multiplier="float64", rounding=rule), 1.0, [1.0], output_of(98.0, 3))


@pytest.mark.parametrize("j", range(-16, 63))
def test_every_shift_of_the_power_of_two_requantizer(j):
    ends = [2**62 - 1, 2**61, 2**46 - 1, 2**46, 3 << max(j - 1, 0) if j < 61 else 1, 1, 0]
    values = [[*ends, *(-value for value in ends)]]
    for rule, place in itertools.product(("half_up", "half_even", "toward_zero"), ("outside", "inside")):
        requantizer = ax.Requantizer(multiplier="power_of_two", rounding=rule, zero_point=place)
        check(values, requantizer, 2.0 ** -(j // 2), [2.0 ** -(j - j // 2)], output_of(1.0, -5))


@pytest.mark.parametrize(("scale", "message"), [(0.75, r"needs a multiplier of 2\^-j"), (2.0**17, "shifts right by")])
def test_the_power_of_two_requantizer_refuses_other_multipliers(scale, message):
    with pytest.raises(ax.LoweringError, match=message):
        check([[1]], ax.Requantizer.preset("power_of_two"), scale, [1.0], output_of(1.0, 0))


@given(data=st.data())
@example(data=None)
def test_a_name_stands_for_its_preset(data):
    name, values = ("tflite", [[5, -5]]) if data is None else (
        data.draw(st.sampled_from(PRESETS)), [data.draw(st.lists(accumulators, min_size=1, max_size=4))]
    )  # fmt: skip
    output = output_of(1.0, 0)
    by_name, by_value = (
        ax.requantize(np.array(values), requantizer, input_scale=0.5, weight_scale=0.25, output=output)
        for requantizer in (name, ax.Requantizer.preset(name))
    )
    assert np.array_equal(by_name, by_value)


INT8 = ax.IntegerFormat(8, True)
INTEGERS = {"input_scale": None, "weight_scale": None, "mantissas": 1 << 30, "exponents": 1}


@given(
    data=st.data(),
    requantizer=compositions.filter(lambda parts: parts.multiplier != "power_of_two"),
    exponent=st.integers(-31, 12),
)
def test_integer_multipliers_equal_the_oracle(data, requantizer, exponent):
    mantissa = data.draw(st.integers(2**30, 2**31 - 1) | st.sampled_from([2**30, 2**31 - 1, 0x7FFF0000, 0]))
    values = [data.draw(st.lists(accumulators, min_size=1, max_size=5))]
    output, zero_point = ax.IntegerFormat(16, True), data.draw(st.integers(-(2**15), 2**16))
    codes = ax.requantize(
        np.array(values), requantizer, mantissas=mantissa, exponents=exponent, output=output, zero_point=zero_point
    )
    inside, after = (zero_point, 0) if requantizer.zero_point == "inside" else (0, zero_point)
    bits, rules = requantizer.multiplier_bits, requantizer.rounding
    expected = []
    for a in values[0]:
        if requantizer.multiplier == "integer":
            m = naive.shortened(mantissa, bits)
            if len(rules) == 2:
                value = naive.two_roundings(a, m, exponent, bits, rules, inside, requantizer.pre_shift_bits)
            else:
                value = naive.one_rounding(a, m, exponent, bits, rules[0], inside)
        else:
            to = naive.f32 if requantizer.multiplier == "float32" else naive.f64
            value = naive.float_product(
                to, a, to(Fraction(mantissa, 2**31) * Fraction(2) ** exponent), rules[0], inside
            )
        quantizer = (1.0, zero_point, (output.minimum, output.maximum))
        expected.append(naive.stored(value + after, quantizer, requantizer))
    assert codes.tolist() == [expected]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"accumulators": [[0.5]]}, "accumulators must be an integer array"),
        ({"accumulators": [1]}, "accumulators must have 2 non-empty axes"),
        ({"accumulators": [[2**62]]}, r"accumulators must be within \+-2\^62"),
        ({"weight_scale": [1.0, 1.0]}, "weight_scale must be one number or 1"),
        ({"minimum": 3, "maximum": 2}, "minimum must not be above maximum"),
        ({"output": ax.QuantizationParameters([1.0], [0], ax.IntegerFormat(8, True), axis=0)}, "per tensor"),
        ({"requantizer": "tflight"}, "requantizer preset must be one of"),
        ({"mantissas": 1 << 30}, "multiplier must be given by input_scale and weight_scale, or by mantissas and"),
        ({"weight_scale": None}, "multiplier must be given by input_scale and weight_scale, or by mantissas and"),
        ({**INTEGERS, "mantissas": [1, 2]}, r"mantissas must be one integer or 1, got int64 of shape \(2,\)"),
        ({**INTEGERS, "exponents": 0.5}, "exponents must be one integer or 1, got float64"),
        ({**INTEGERS, "exponents": 31}, r"mantissa must be 0..2\^31-1 and its exponent -31..30, got .* and 31..31"),
        ({**INTEGERS, "mantissas": -1}, "mantissa must be"),
        ({"zero_point": 1}, "zero_point is the output quantizer's, 0; leave it out"),
        ({"output": ax.IntegerFormat(8, True)}, "output must be QuantizationParameters with scales"),
        (
            {**INTEGERS, "output": INT8, "zero_point": 1 << 31},
            r"zero_point must be -2147483647\.\.2147483647, got 2147483648",
        ),
        (
            {**INTEGERS, "output": INT8, "zero_point": 1.9},
            "zero_point must be a whole number, got 1.9",
        ),
        ({"minimum": 1.9}, "minimum must be a whole number, got 1.9"),
        ({"input_scale": 1e-50}, r"input_scale must be positive and finite in float32, got 0.0"),
        ({"input_scale": -1.0, "weight_scale": -1.0}, "weight_scale must be positive and finite in float32, got -1.0"),
        ({"weight_scale": "wide"}, "weight_scale must be numbers, got 'wide'"),
        ({"requantizer": None}, "requantizer must be a Requantizer or the name of a preset, got None"),
        ({"output": "int8"}, "output must be QuantizationParameters or an IntegerFormat, got 'int8'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    valid = {
        "accumulators": [[1]], "requantizer": "tflite", "input_scale": 1.0, "weight_scale": 1.0,
        "output": output_of(1.0, 0),
    }  # fmt: skip
    with pytest.raises(ax.AccelsimError, match=message):
        ax.requantize(**{**valid, **arguments})
