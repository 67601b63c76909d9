"""Requantization in lanes of 32 bits is the requantization, up to the bounds of docs/numerics.md (110) and (111)."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

import accelsim as ax
from accelsim.program.geometry import Geometry
from accelsim.program.rescale import Rescale
from accelsim.simulator.engine.lanes import LaneConstants
from accelsim_kernels.layer_rows import requantize_lanes
from tests.accelsim.simulator.layer_cases import requantizers
from tests.accelsim.simulator.test_safe_layers import mac_layer
from tests.naive import requantize as naive

MOST = 2**30 - 1
FORMAT = ax.IntegerFormat(8, True)


def layer_with(requantizer, scales, zero_point, clamp):
    """A layer that is nothing but its requantization."""
    rescale = Rescale.of(requantizer, [np.float32(1), np.array(scales, np.float32)], np.float32(1), "test")
    geometry = Geometry((1, 1, 1), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), (1, 1))
    weights, start = np.ones((len(scales), 1, 1, 1)), np.zeros(len(scales), dtype=np.int64)
    layer = mac_layer(weights, start, geometry, FORMAT, clamp, "tflite")
    return replace(layer, rescale=rescale, zero_point=zero_point)


def stored(lanes, accumulators, start):
    """Codes of accumulators (positions, channels) by the kernel, which is given sums without their start."""
    count, valid = accumulators.shape
    width = -(-valid // 16) * 16
    padded = lanes.padded(slice(None), width)
    sums = np.zeros((count, width), dtype=np.int32)
    sums[:, :valid] = (accumulators - start + 2**31) % 2**32 - 2**31
    codes = np.full(count * valid + 16, 99, dtype=np.uint8)
    requantize_lanes(
        sums.reshape(-1), np.int64(count), np.int64(valid), padded.constants, padded.two, codes, np.int64(0),
        np.int64(valid),
    )  # fmt: skip
    assert (codes[count * valid :] == 99).all()
    return codes[: count * valid].view(np.int8).reshape(count, valid)


@given(
    requantizer=requantizers, scales=st.lists(st.integers(-30, 0), min_size=1, max_size=18), data=st.data(),
    zero_point=st.sampled_from([0, -3, 100, -128]), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
@example(requantizer=ax.Requantizer.preset("tflite"), scales=[0], data=None, zero_point=-128, seed=0)
@example(requantizer=ax.Requantizer.preset("tflite"), scales=[-30, -1], data=None, zero_point=5, seed=0)
@example(requantizer=ax.Requantizer.preset("ruy_x86"), scales=[-1, -2, -3], data=None, zero_point=5, seed=0)
@example(requantizer=ax.Requantizer.preset("tflite_int16"), scales=[-1, -2, -3], data=None, zero_point=5, seed=0)
@example(requantizer=ax.Requantizer.preset("riscv_rnu"), scales=[-1, -2, -3], data=None, zero_point=5, seed=0)
@example(requantizer=ax.Requantizer.preset("pulp_rounded"), scales=[-7], data=None, zero_point=5, seed=0)
def test_lanes_store_what_the_requantizer_does(requantizer, scales, data, zero_point, seed):
    assume(requantizer.overflow == "saturate")
    rng = np.random.default_rng(seed)
    factors = [0.99999994 if data is None else data.draw(st.sampled_from([0.5, 0.75, 0.99999994])) for _ in scales]
    if requantizer.multiplier == "power_of_two":
        factors = [0.5] * len(scales)
    real = [float(np.float32(factor * 2.0**scale)) for factor, scale in zip(factors, scales, strict=True)]
    if min(real) < 2.0**-30:
        real = [max(value, 2.0**-30) for value in real]
    layer = layer_with(requantizer, real, zero_point, (-128, 127))
    start = rng.integers(-(2**40), 2**40, len(real))
    lanes = LaneConstants.of(layer, start, (-MOST, MOST))
    if lanes is None:
        straight = requantizer.multiplier in ("integer", "power_of_two") and set(requantizer.rounding) == {"half_up"}
        assert requantizer.pre_shift_bits or not straight or max(real) >= 0.5
        return
    near = rng.integers(-300, 300, (6, len(real))) / np.array(real)  # around ties of the result
    wild = rng.choice([-MOST, MOST, MOST - 1, -1, 0, 1], (4, len(real)))
    accumulators = np.concatenate([np.clip(near.astype(np.int64), -MOST, MOST), wild])
    wanted = [
        [naive.requantize(int(a), 1.0, scale, 1.0, zero_point, -128, 127, requantizer)
         for a, scale in zip(row, real, strict=True)] for row in accumulators
    ]  # fmt: skip
    assert stored(lanes, accumulators, start).tolist() == wanted


@pytest.mark.parametrize("ends", [(-MOST - 1, 0), (0, MOST + 1)])
def test_larger_accumulators_have_no_such_form(ends):
    layer = layer_with(ax.Requantizer.preset("tflite"), [0.25], 0, (-128, 127))
    assert LaneConstants.of(layer, np.zeros(1, dtype=np.int64), (-MOST, MOST)) is not None
    assert LaneConstants.of(layer, np.zeros(1, dtype=np.int64), ends) is None


@pytest.mark.parametrize("preset", ["onnxruntime", "float64_half_away", "gemmlowp_legacy", "ap_rnd_conv"])
def test_other_arithmetics_have_no_such_form(preset):
    layer = layer_with(ax.Requantizer.preset(preset), [0.25], 0, (-128, 127))
    assert LaneConstants.of(layer, np.zeros(1, dtype=np.int64), (-9, 9)) is None
