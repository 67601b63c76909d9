"""Inputs that are quantized by a kernel get the codes of `QuantizationParameters.quantize`."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import accelsim as ax
from accelsim.simulator.engine.inputs import quantize_images
from tests.naive.quantizer import quantize


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5)),
    bits=st.integers(1, 16), signed=st.booleans(), scale=st.floats(2.0**-126, 2.0**126, width=32),
    channels_last=st.booleans(), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
@example(shape=(1, 3, 1, 4100), bits=8, signed=True, scale=0.5, channels_last=True, seed=0)
@example(shape=(1, 1, 1, 3), bits=16, signed=False, scale=2.0**-126, channels_last=False, seed=1)
def test_codes_are_those_of_the_definition(shape, bits, signed, scale, channels_last, seed):
    rng, stored = np.random.default_rng(seed), ax.IntegerFormat(bits, signed)
    zero_point = int(rng.integers(stored.minimum, stored.maximum + 1))
    values = (rng.integers(-300, 300, shape) / 2).astype(np.float32)  # ties
    with np.errstate(over="ignore"):
        values *= np.float32(scale)
    values = np.clip(values, np.finfo(np.float32).min, np.finfo(np.float32).max)
    values.reshape(-1)[0] = rng.choice(np.float32([3.4e38, -3.4e38, 0.0, -0.0]))
    parameters = ax.QuantizationParameters(np.float32(scale), np.int64(zero_point), stored)
    codes = quantize_images(parameters, values, channels_last)
    assert codes.shape == values.shape
    assert codes.dtype == stored.dtype
    assert np.array_equal(codes, parameters.quantize(values))
    some = rng.integers(0, values.size, 20)
    wanted = [quantize(float(x), float(np.float32(scale)), zero_point, stored.minimum, stored.maximum)
              for x in values.reshape(-1)[some]]  # fmt: skip
    assert codes.reshape(-1)[some].tolist() == wanted
    if channels_last:
        assert codes.transpose(0, 2, 3, 1).flags.c_contiguous


def test_images_of_a_read_only_array_are_taken():
    values = np.ones((1, 2, 2, 2), dtype=np.float32)
    values.setflags(write=False)
    parameters = ax.QuantizationParameters(np.float32(0.5), np.int64(0), ax.IntegerFormat(8, True))
    assert (quantize_images(parameters, values, True) == 2).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_before(value):
    from tests.accelsim.simulator.layer_cases import one_layer

    parameters = ax.QuantizationParameters(np.float32(0.5), np.int64(0), ax.IntegerFormat(8, True))
    network = one_layer([("Sigmoid", ("a",), "y", {})], {"a": ((2,), parameters)}, ("y", (2,), parameters))
    with pytest.raises(ax.DataError, match="must be finite"):
        ax.simulate(network, np.array([[1, value]], np.float32), ax.Machine())
