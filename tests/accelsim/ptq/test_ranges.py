import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from accelsim.errors import FormatError
from accelsim.formats import IntegerFormat, QuantizationParameters
from accelsim.ptq.calibration import HISTOGRAM_BINS, _Counter
from accelsim.ptq.mse_range import COARSE_STEPS
from accelsim.ptq.ranges import Distribution, per_tensor, set_range, weight_range

FORMATS = st.builds(IntegerFormat, st.integers(1, 16), st.booleans())
SCHEMES = st.sampled_from(["affine", "symmetric"])
VALUES = hnp.arrays(
    np.float32,
    st.integers(1, 40),
    elements=st.floats(-1000, 1000, width=32, allow_subnormal=False),
)


def squared_error(values, parameters):
    """Sum of squared errors through the public quantizer, one value at a time."""
    total = 0.0
    for value in np.asarray(values, dtype=np.float32).ravel():
        total += (float(value) - float(parameters.dequantize(parameters.quantize(value)))) ** 2
    return total


@settings(max_examples=60)
@given(VALUES, FORMATS, SCHEMES, st.booleans())
@example(np.zeros(3, np.float32), IntegerFormat(8, True), "affine", False)
@example(np.array([-1000, 1000], np.float32), IntegerFormat(1, False), "symmetric", True)
def test_mse_is_never_worse_than_min_max(values, format, scheme, power_of_two):
    found = weight_range(values, format, scheme, "mse", power_of_two)
    whole = weight_range(values, format, scheme, "min_max", power_of_two)
    assert squared_error(values, found) <= squared_error(values, whole) * (1 + 1e-5)  # the search sums float32 errors
    assert found.is_power_of_two or not power_of_two
    assert (scheme == "affine") or not found.zero_point.any()


@settings(max_examples=25)
@given(VALUES, st.integers(2, 6))
def test_symmetric_mse_is_the_best_of_the_documented_grid(values, bits):
    format = IntegerFormat(bits, True)
    found = squared_error(values, weight_range(values, format, "symmetric", "mse"))
    low, high = float(values.min()), float(values.max())
    rounding = values.size * (2.0**-23 * max(-low, high)) ** 2  # both are exact but for float32's own rounding
    for step in range(1, COARSE_STEPS + 1):
        fraction = step / COARSE_STEPS
        tried = QuantizationParameters.from_range(low * fraction, high * fraction, format, "symmetric")
        assert found <= squared_error(values, tried) * (1 + 1e-5) + rounding  # the search sums float32 errors


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("shape", ["normal", "relu", "outlier", "skewed"])
def test_affine_search_comes_near_the_best_of_every_scale_and_zero_point(bits, shape):
    """All zero points x 200 scales, by brute force, find at most 2 % less error than the search."""
    rng = np.random.default_rng(bits)
    values = rng.normal(size=400).astype(np.float32)
    if shape == "relu":
        values = np.maximum(values, 0)
    elif shape == "outlier":
        values[0] = 12
    elif shape == "skewed":
        values = np.exp(values) - np.float32(0.5)
    format = IntegerFormat(bits, False)
    found = squared_error(values, weight_range(values, format, "affine", "mse"))
    widest = float(np.ptp(np.append(values, 0))) / format.maximum
    best = np.inf
    for scale in np.linspace(widest / 50, widest, 200):
        for zero_point in range(format.maximum + 1):
            codes = np.clip(np.rint(values / scale) + zero_point, 0, format.maximum)
            best = min(best, float(((values - scale * (codes - zero_point)) ** 2).sum()))
    assert found <= 1.02 * best


@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
def test_power_of_two_search_finds_the_best_scale(scheme):
    values = np.random.default_rng(3).normal(size=300).astype(np.float32)
    values[0] = 40
    format = IntegerFormat(4, scheme == "symmetric")
    found = weight_range(values, format, scheme, "mse", power_of_two=True)
    errors = {}
    for exponent in range(-8, 6):
        for zero_point in [0] if scheme == "symmetric" else range(16):
            parameters = QuantizationParameters(np.float32(2.0**exponent), np.int64(zero_point), format)
            errors[exponent, zero_point] = squared_error(values, parameters)
    assert found.is_power_of_two
    assert squared_error(values, found) == pytest.approx(min(errors.values()), rel=1e-5)


@pytest.mark.parametrize("method", ["mse", "min_max"])
@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
def test_each_channel_is_searched_as_if_alone(method, scheme):
    weights = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)
    weights *= np.array([1, 10, 0.1, 3, 1e-3], np.float32)[:, None, None]
    weights = np.moveaxis(weights, 0, 1)
    format = IntegerFormat(4, True)
    found = weight_range(weights, format, scheme, method, axis=1)
    assert found.axis == 1
    for channel in range(5):
        alone = weight_range(weights[:, channel], format, scheme, method)
        assert found.scale[channel] == alone.scale
        assert found.zero_point[channel] == alone.zero_point


def test_a_channel_of_zeros_takes_the_largest_scale_of_the_others():
    weights = np.array([[0, 0], [1, -1], [8, 2], [0, 0]], np.float32)
    found = weight_range(weights, IntegerFormat(8, True), "symmetric", "min_max", axis=0)
    assert found.scale[0] == found.scale[3] == found.scale.max() == found.scale[2]
    assert (weight_range(np.zeros((2, 2)), IntegerFormat(8, True), "symmetric", "mse", axis=0).scale == 1).all()


def test_no_value_is_refused():
    with pytest.raises(FormatError, match="at least one value"):
        weight_range(np.zeros((0, 3)), IntegerFormat(8, True), "symmetric", "mse")


@settings(max_examples=60)
@given(VALUES, FORMATS, SCHEMES, st.booleans(), st.sampled_from(["mse", "min_max"]))
def test_real_zero_is_exact_and_codes_are_in_range(values, format, scheme, power_of_two, method):
    found = weight_range(values, format, scheme, method, power_of_two)
    codes = found.quantize(np.append(values, 0)).astype(np.int64)
    assert format.minimum <= codes.min()
    assert codes.max() <= format.maximum
    assert found.dequantize(codes[-1]) == 0


def test_a_large_array_in_blocks_equals_one_block(monkeypatch):
    values = np.random.default_rng(0).normal(size=(3, 1000)).astype(np.float32)
    parameters = weight_range(values, IntegerFormat(3, True), "symmetric", "min_max", axis=0)
    whole = Distribution.of(values, 0).error(parameters)
    monkeypatch.setattr("accelsim.ptq.distribution._BLOCK_VALUES", 100)
    np.testing.assert_allclose(Distribution.of(values, 0).error(parameters), whole, rtol=1e-13)


def histogram_of(values, parts=3):
    counter = _Counter(float(values.min()), float(values.max()))
    for part in np.array_split(values, parts):
        counter.visit(part)
    return counter.distribution()


def test_histogram_keeps_counts_means_and_variances():
    values = np.random.default_rng(1).normal(size=50_000).astype(np.float32)
    values[:20_000] = 0
    histogram = histogram_of(values)
    others = values[values != 0].astype(np.float64)
    means = histogram.values[0].astype(np.float64)
    assert histogram.values.shape[1] <= HISTOGRAM_BINS
    assert histogram.counts.sum() == others.size == 30_000
    assert (histogram.counts * means).sum() == pytest.approx(others.sum(), rel=1e-6)
    energy = (histogram.counts * (means**2 + histogram.variances)).sum()
    assert energy == pytest.approx((others**2).sum(), rel=1e-6)


def test_histogram_of_few_different_values_gives_the_exact_error():
    """Pixels 0..255 fall in bins of their own, and so their error is known exactly: scale 1 has none."""
    pixels = np.random.default_rng(2).integers(0, 256, 10_000).astype(np.float32)
    pixels[:2] = 0, 255
    histogram = histogram_of(pixels)
    found = per_tensor(set_range(histogram, IntegerFormat(8, False), "affine", "mse"))
    assert (found.scale, found.zero_point) == (1, 0)
    for bits in (2, 4):
        parameters = weight_range(pixels, IntegerFormat(bits, False), "affine", "min_max")
        row = QuantizationParameters(parameters.scale[None], parameters.zero_point[None], parameters.format, 0)
        assert histogram.error(row)[0] == pytest.approx(squared_error(pixels, parameters), rel=1e-5)


@pytest.mark.parametrize("bits", [3, 4, 8, 12, 16])
@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
def test_a_range_found_on_the_histogram_is_as_good_as_one_found_on_the_values(bits, scheme):
    rng = np.random.default_rng(bits)
    values = np.maximum(rng.standard_t(4, size=40_000), -0.3).astype(np.float32)
    format = IntegerFormat(bits, scheme == "symmetric")
    found = per_tensor(set_range(histogram_of(values), format, scheme, "mse"))
    exact = weight_range(values, format, scheme, "mse")

    def error(parameters):
        row = QuantizationParameters(parameters.scale[None], parameters.zero_point[None], format, 0)
        return Distribution.of(values).error(row)[0]

    # The bins cost at most 3 % of the error (at 16 bits 32 steps of the grid lie in a bin).
    assert error(found) <= 1.03 * error(exact)
