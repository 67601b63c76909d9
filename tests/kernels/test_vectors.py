"""Steps in vector registers equal the scalar loops above them, which Python runs as they stand."""

import os

import numba
import numpy as np
import pytest

from accelsim_kernels.vectors import code, dots, requantization, scattered, steps, windows
from accelsim_kernels.vectors.code import GROUP_BYTES, LANES

jit_only = pytest.mark.skipif(
    os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="with the JIT off the scalar loops themselves run"
)
DOTS = ["dot_s8u8_4", "dot_u8s8_4", "dot_u8s8_2", "dot_u8s8_1", "dot_s16s16_4", "dot_s16s16_1"]
NUM_GROUPS = 3


def compiled(step):
    """A kernel that does nothing but the step."""
    names = ", ".join(list(step.scalar.__code__.co_varnames)[: step.scalar.__code__.co_argcount])
    namespace = {"step": step}
    exec(f"def kernel({names}):\n    step({names})", namespace)
    return numba.njit(namespace["kernel"])


@jit_only
@pytest.mark.parametrize("name", DOTS)
def test_a_tile_of_dot_products_is_its_scalar_loop(name):
    if not code.has_dot_instructions():
        pytest.skip("this processor has no dot-product instructions")
    step = getattr(dots, name)
    num_vectors, rng = int(name[-1]), np.random.default_rng(0)
    kernel, channels = compiled(step), num_vectors * LANES
    segments = np.array([5, 40])
    size = segments.size * NUM_GROUPS * GROUP_BYTES * channels
    for rows, packed in (
        (rng.integers(0, 256, 400), rng.integers(0, 256, size + 7)),
        (np.full(400, 255), np.full(size + 7, 127)),
        (np.full(400, 255), np.full(size + 7, 128)),  # -128 as 8 bits
        (np.tile([0, 128], 200), np.tile([0, 128], size // 2 + 4)),  # -2**15 as 16 bits: (-2**15)**2 twice is 2**31
    ):
        arguments = (
            rows.astype(np.uint8), rng.integers(0, 300, 14), 2, segments, NUM_GROUPS, packed.astype(np.uint8), 6,
        )  # fmt: skip
        sums = [np.full((15, channels + 16), -7, dtype=np.int32) for _ in range(2)]
        kernel(*arguments, sums[0], 16)
        step.scalar(*arguments, sums[1], 16)
        assert np.array_equal(*sums)
        assert (sums[0][:2] == -7).all()
        assert (sums[0][:, :16] == -7).all()


@jit_only
@pytest.mark.parametrize("name", ["window_4", "window_1"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_a_window_of_a_depthwise_convolution_is_its_scalar_loop(name, dtype):
    step, rng = getattr(windows, name), np.random.default_rng(1)
    kernel, outputs = compiled(step), int(name[-1]) * LANES
    limits = np.iinfo(dtype)
    segments = np.array([0, 3, 17, 60])
    for rows in (rng.integers(limits.min, limits.max + 1, 200), np.full(200, limits.max), np.full(200, limits.min)):
        for weights in (rng.integers(-(2**15), 2**15, (4, 80)), np.full((4, 80), -(2**15))):
            arguments = (rows.astype(dtype), 9, segments, weights.astype(np.int16), 11)
            sums = [np.full(outputs + 8, -7, dtype=np.int32) for _ in range(2)]
            kernel(*arguments, sums[0], 5)
            step.scalar(*arguments, sums[1], 5)
            assert np.array_equal(*sums)
            assert (sums[0][:5] == -7).all()
            assert (sums[0][outputs + 5 :] == -7).all()


@jit_only
@pytest.mark.parametrize("name", ["two_roundings", "one_rounding"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("valid", [1, 7, 16, 40])
def test_requantization_in_lanes_is_its_scalar_loop(name, dtype, valid):
    step, rng, width = getattr(requantization, name), np.random.default_rng(3), 32
    shifts = rng.integers(0, 32, width)
    constants = np.zeros((9, width), dtype=np.int32)
    constants[requantization.START] = rng.integers(-(2**31), 2**31, width)
    constants[requantization.MANTISSA] = rng.choice([0, 1, 2**30, 2**31 - 1], width)
    constants[requantization.PRODUCT_SHIFT] = 31 if name == "two_roundings" else rng.integers(31, 63, width)
    constants[requantization.SHIFT] = shifts
    constants[requantization.NUDGE] = (1 << shifts) >> 1
    constants[requantization.AWAY] = rng.choice([0, -1], width) * (shifts > 0)
    constants[requantization.ZERO_POINT], constants[requantization.LOW], constants[requantization.HIGH] = 3, -90, 100
    values = rng.choice([-(2**30) + 1, 2**30 - 1, 2**29, -1, 0, 77], (5, width))
    sums = ((values - constants[0] + 2**31) % 2**32 - 2**31).astype(np.int32).reshape(-1)
    codes = [np.full(200, 7, dtype) for _ in range(2)]
    arguments = (sums, 16, width, 5, constants, 16)
    compiled(step)(*arguments, codes[0], 4, 21, valid)
    step.scalar(*arguments, codes[1], 4, 21, valid)
    assert np.array_equal(*codes)
    assert (codes[0] == 7).sum() >= 200 - 5 * min(valid, 16)


def stepped_operands(dtype, reduction, ends):
    """Operands at their ends and between, as the steps take them, with seven channels of which one is left out."""
    rng = np.random.default_rng(2)
    memory = rng.choice([*ends, 1, 0], 7 * reduction + 1).astype(dtype)
    columns = rng.choice([*ends, -1, 2], (2, reduction, LANES)).astype(dtype)
    return memory[:-1].reshape(7, reduction), columns, np.array([0, 1, 3, 4, 5, 6, 6, 6, 6, 6, 6, 6])


def outputs(count, low, high):
    rng = np.random.default_rng(3)
    arrays = [rng.integers(low, high + 1, (7, 2 * LANES)), np.zeros((7, 2 * LANES), np.int64)]
    arrays += [np.full((7, 2 * LANES), -1), np.zeros((7, 2 * LANES), np.int64)]
    return arrays[:count]


def both_ways(step, operands, *arguments, count, low=-128, high=127):
    if operands[0].dtype == np.int16 and not code.has_dot_instructions():
        pytest.skip("this processor has no dot-product instructions")
    kernel = compiled(step)
    results = [outputs(count, low, high) for _ in range(2)]
    for first, block in ((0, 0), (6, 1)):
        kernel(*operands, first, block, *arguments, *results[0])
        step.scalar(*operands, first, block, *arguments, *results[1])
    for vector, scalar in zip(*results, strict=True):
        assert np.array_equal(vector, scalar)
    return results[0]


@jit_only
@pytest.mark.parametrize("dtype", [np.int32, np.int16])
@pytest.mark.parametrize("name", ["saturating_products", "wrapping_products"])
@pytest.mark.parametrize("noting", ["", "_noting"])
@pytest.mark.parametrize(("bits", "ends"), [(4, (-128, 255)), (8, (-3, 5)), (29, (-(2**14), 2**14))])
def test_steps_of_products_are_their_scalar_loop(dtype, name, noting, bits, ends):
    limits = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    operands = stepped_operands(dtype, 37, ends)
    _, events, first = both_ways(
        getattr(steps, name + noting), operands, *limits, count=3, low=limits[0], high=limits[1]
    )
    assert events.any()
    assert (events[2] == 0).all()
    assert (first >= 0).any() == bool(noting)


@jit_only
@pytest.mark.parametrize("dtype", [np.int32, np.int16])
@pytest.mark.parametrize("mode", ["saturating", "wrapping"])
@pytest.mark.parametrize("kind", ["chains", "trees"])
@pytest.mark.parametrize("tile", [1, 8, 64])
def test_steps_of_tiles_are_their_scalar_loop(dtype, mode, kind, tile):
    operands = stepped_operands(dtype, 37, (-9, 11))
    limits, inner = (-128, 127), (-64, 63)
    results = both_ways(getattr(steps, f"{mode}_{kind}"), operands, tile, *limits, *inner, count=4)
    assert results[1].any()
    assert results[3].any()


@jit_only
@pytest.mark.parametrize("dtype", [np.int32, np.int16])
@pytest.mark.parametrize(("name", "tile"), [("range_of_products", 1), ("range_of_tiles", 8), ("range_of_tiles", 64)])
def test_steps_of_running_ranges_are_their_scalar_loop(dtype, name, tile):
    operands = stepped_operands(dtype, 37, (-128, 255))
    both_ways(getattr(steps, name), operands, tile, count=3)


@jit_only
@pytest.mark.parametrize("kinds", [(np.int8, np.uint8), (np.int16, np.int16)])
@pytest.mark.parametrize("mode", ["saturating", "wrapping"])
@pytest.mark.parametrize("kind", ["", "_trees", "_chains"])
def test_scattered_outputs_are_their_scalar_loop(kinds, mode, kind):
    rng, step = np.random.default_rng(4), getattr(scattered, f"{mode}_scattered{kind}")
    kernel, per_group = compiled(step), GROUP_BYTES // np.dtype(kinds[0]).itemsize
    for bits, ends in ((4, (-8, 7)), (9, (-99, 99)), (28, (-(2**14), 2**14))):
        weights, rows = (
            rng.choice(np.clip([*ends, 1, 0], np.iinfo(dtype).min, np.iinfo(dtype).max), 400).astype(dtype)
            for dtype in kinds
        )
        limits = [end for width in (bits, bits - 1) for end in (-(2 ** (width - 1)), 2 ** (width - 1) - 1)]
        for tile in (1, 5, 64):
            places = rng.integers(0, 40, (2, 40)).astype(np.int32)
            sums = rng.integers(limits[0], limits[1] + 1, 40).astype(np.int32)
            state = [sums, np.zeros(40, np.int32), np.full(40, -1, np.int32), np.zeros(40, np.int32)]
            results = [[array.copy() for array in state] for _ in range(2)]
            arguments = (weights, rows, *places, per_group + 3, 19, 16, *limits[:2], tile, *limits[2:])
            kernel(*arguments, *results[0])
            step.scalar(*arguments, *results[1])
            for vector, by_loop, before in zip(*results, state, strict=True):
                assert np.array_equal(vector, by_loop)
                assert np.array_equal(np.delete(vector, range(16, 32)), np.delete(before, range(16, 32)))
            assert results[0][1].any() or bits > 9


@jit_only
@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_positions_are_interleaved_by_groups(dtype):
    columns = np.arange(6 * 70).reshape(6, 70).astype(dtype)
    packed = [np.full(300, 7, dtype) for _ in range(2)]
    compiled(dots.interleave_positions)(columns, 2, 5, packed[0], 3)
    dots.interleave_positions.scalar(columns, 2, 5, packed[1], 3)
    assert np.array_equal(*packed)


def test_the_processors_instructions_can_be_switched_off(monkeypatch):
    monkeypatch.setenv(code.PORTABLE_VARIABLE, "1")
    code.has_dot_instructions.cache_clear()
    try:
        assert not code.has_dot_instructions()
    finally:
        monkeypatch.undo()
        code.has_dot_instructions.cache_clear()
