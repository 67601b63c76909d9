"""Steps in vector registers equal the scalar loops above them, which Python runs as they stand."""

import os
from functools import cache

import numba
import numpy as np
import pytest

from accelsim_kernels import exact
from accelsim_kernels.processor import has_dot_instructions, settings
from accelsim_kernels.vectors import columns as columns_of
from accelsim_kernels.vectors import (
    dots,
    listed_ranges,
    marks,
    norms,
    part_tiles,
    requantization,
    row_sums,
    scattered,
    trees,
    windows,
)
from accelsim_kernels.vectors.code import GROUP_BYTES, LANES

jit_only = pytest.mark.skipif(
    os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="with the JIT off the scalar loops themselves run"
)
DOTS = ["dot_u8s8_4", "dot_u8s8_2", "dot_u8s8_1", "dot_s16s16_4", "dot_s16s16_1"]
NUM_GROUPS = 3


@cache
def compiled(step):
    """A kernel that does nothing but the step."""
    names = ", ".join(list(step.scalar.__code__.co_varnames)[: step.scalar.__code__.co_argcount])
    namespace = {"step": step}
    exec(f"def kernel({names}):\n    step({names})", namespace)
    return numba.njit(namespace["kernel"])


@jit_only
@pytest.mark.parametrize("name", DOTS)
def test_a_tile_of_dot_products_is_its_scalar_loop(name):
    if not has_dot_instructions():
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
    places = np.array([0, 3, 17, 60])
    for rows in (rng.integers(limits.min, limits.max + 1, 200), np.full(200, limits.max), np.full(200, limits.min)):
        for weights in (rng.integers(-(2**15), 2**15, (4, 80)), np.full((4, 80), -(2**15))):
            for segments in (places, places[1:]):
                arguments = (rows.astype(dtype), 9, segments, weights.astype(np.int16), 11)
                sums = [np.full(outputs + 8, -7, dtype=np.int32) for _ in range(2)]
                kernel(*arguments, sums[0], 5)
                step.scalar(*arguments, sums[1], 5)
                assert np.array_equal(*sums)
                assert (sums[0][:5] == -7).all()
                assert (sums[0][outputs + 5 :] == -7).all()


@jit_only
def test_a_window_of_several_taps_at_a_time_is_its_scalar_loop():
    if not has_dot_instructions():
        pytest.skip("this processor has no dot-product instructions")
    step, rng = windows.window_dots, np.random.default_rng(1)
    segments = np.array([0, 3, 17, 60, 61, 2, 2, 2])
    for rows, weights in (
        (rng.integers(0, 256, 200), rng.integers(0, 256, 1100)), (np.full(200, 255), np.full(1100, 128)),
        (np.full(200, 255), np.full(1100, 127)),
    ):  # fmt: skip
        arguments = (rows.astype(np.uint8), 9, segments, weights.astype(np.uint8), 11)
        sums = [np.full(4 * LANES + 8, -7, dtype=np.int32) for _ in range(2)]
        compiled(step)(*arguments, sums[0], 5)
        step.scalar(*arguments, sums[1], 5)
        assert np.array_equal(*sums)
        assert (sums[0][:5] == -7).all()


@jit_only
def test_the_sum_of_a_window_is_its_scalar_loop():
    if not has_dot_instructions():
        pytest.skip("this processor has no dot-product instructions")
    step, rng = row_sums.add_row_sum, np.random.default_rng(1)
    ones = np.repeat(np.array([1, 0], dtype=np.uint8), [70, 58])
    for rows in (rng.integers(0, 256, 400), np.full(400, 255)):
        for lost in (rng.integers(-128, 128, 48), np.full(48, -(2**31))):
            arguments = (rows.astype(np.uint8), 9, np.array([0, 3, 200]), ones, lost.astype(np.int32))
            sums = [np.full((3, 48), 2**31 - 1, dtype=np.int32) for _ in range(2)]
            compiled(step)(*arguments, sums[0], 1)
            step.scalar(*arguments, sums[1], 1)
            assert np.array_equal(*sums)
            assert (sums[0][::2] == 2**31 - 1).all()


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
@pytest.mark.parametrize("part_groups", [1, 2, 4, 11, 12])
@pytest.mark.parametrize("name", ["part_tile_u8", "part_tile_s16"])
@pytest.mark.parametrize("position", [0, 64])
def test_a_tile_of_parts_is_its_scalar_loop(name, position, part_groups):
    if not has_dot_instructions():
        pytest.skip("this processor has no dot-product instructions")
    step, rng = getattr(part_tiles, name), np.random.default_rng(6)
    kernel, rows, num_groups = compiled(step), np.array([9, 0, 3, 3, 1, 7, 2, 2]), 11
    shift, size = (0, 3000) if name == "part_tile_u8" else (4, 10**6)
    start, origin = rng.integers(-(2**40), 2**40, 10), rng.integers(-size, size, 10).astype(np.int32)
    most = rng.choice([2**29 - 1, size, size // 8, -1], 10).astype(np.int32)
    most[[3, 2]] = size, size // 2
    own, others = (rng.integers(0, 9, shape).astype(np.int32) for shape in ((10, 12), (3, 12, 64)))
    own[0], others[1, :, 5] = 2**14 - 1, 2**14 - 1
    weights = rng.integers(0, 256, (10, num_groups * GROUP_BYTES)).astype(np.uint8)
    packed = rng.integers(0, 8, num_groups * GROUP_BYTES * 64 + 9).astype(np.uint8)
    results = []
    for run in (kernel, step.scalar):
        sums, masks = np.full((10, 77), -7), np.full((10, 9), -7, dtype=np.int32)
        run(
            weights, 1, packed, 4, start, rows, position, sums, part_groups, own, others, 1, shift, origin, most,
            masks,
        )  # fmt: skip
        results.append((sums, masks))
    for vector, scalar in zip(*results, strict=True):
        assert np.array_equal(vector, scalar)
    assert 0 < np.unpackbits(np.maximum(results[0][1], 0).view(np.uint8)).sum() < 5 * 64
    assert (results[0][0][[4, 5, 6, 8, 9]] == -7).all()


@jit_only
@pytest.mark.parametrize("part_groups", [1, 3, 7, 24])
@pytest.mark.parametrize("name", ["norms_u8", "norms_of_bytes", "norms_s16"])
def test_norms_of_parts_are_their_scalar_loop(name, part_groups):
    if not has_dot_instructions():
        pytest.skip("this processor has no dot-product instructions")
    step, rng = getattr(norms, name), np.random.default_rng(9)
    kernel, num_groups, parts = compiled(step), 7, 9
    size, greatest = num_groups * GROUP_BYTES * 64, 256
    values = rng.integers(0, greatest, size)
    values[: size // 2] //= 100  # sums of squares that are squares, or one more
    shifts = [0]
    if name == "norms_of_bytes":
        values[1::2] = 0
    if name == "norms_s16":
        shifts = [3, 6]
    for some in (values, values * 0, values * 0 + values.max(), np.tile([0, 128], size // 2)):
        if name == "norms_of_bytes" and some[1]:
            continue
        packed = np.concatenate([[7, 7], some, [7]]).astype(np.uint8)
        for shift in shifts:
            results = [np.full((3, parts, 64), -7, dtype=np.int32) for _ in range(2)]
            for run, result in zip((kernel, step.scalar), results, strict=True):
                run(packed, 2, num_groups, part_groups, shift, result, 1)
            assert np.array_equal(*results)
            count = -(-num_groups // part_groups)
            assert (results[0][1, :count] >= 0).all()
            assert (results[0][1, count:] == -7).all()
            assert (results[0][[0, 2]] == -7).all()


@jit_only
@pytest.mark.parametrize("name", ["listed_ranges_u8", "listed_ranges_s16"])
def test_ranges_of_listed_outputs_are_their_scalar_loop(name):
    if not has_dot_instructions():
        pytest.skip("this processor has no dot-product instructions")
    step, rng = getattr(listed_ranges, name), np.random.default_rng(7)
    kernel, size, count = compiled(step), NUM_GROUPS * GROUP_BYTES * 64, listed_ranges.LISTED
    channels, positions = (rng.integers(0, 64, count + 5).astype(np.int32) for _ in range(2))
    for weights, packed in (
        (rng.integers(0, 256, size + 9), rng.integers(0, 256, size + 5)),
        (np.full(size + 9, 128), np.full(size + 5, 255)),  # the least products of 8 bits
        (np.tile([0, 128], size // 2 + 5)[1:], np.tile([0, 128], size // 2 + 3)[1:]),  # and the greatest of 16
        (np.full(size + 9, 127), np.full(size + 5, 255)),
    ):
        operands = (weights.astype(np.uint8), 8, packed.astype(np.uint8), 4, channels, positions, 2, NUM_GROUPS)
        results = [np.full((2, count + 5), -7, dtype=np.int32) for _ in range(2)]
        for run, result in zip((kernel, step.scalar), results, strict=True):
            run(*operands, *result)
        assert np.array_equal(*results)
        assert (results[0][:, [0, 1, -1]] == -7).all()
        assert (results[0][0, 2:-3] <= 0).all()
        assert (results[0][1, 2:-3] >= 0).all()


@jit_only
@pytest.mark.parametrize("sign", [1, -1])
def test_marks_of_sixteen_outputs_are_their_scalar_loop(sign):
    rng, kernel = np.random.default_rng(5), compiled(marks.mark_sixteen)
    ends = [-(2**30), 2**30 - 2, 0, 1]
    values, magnitudes = (rng.choice(array, (9, 40)).astype(np.int32) for array in (ends, [2**30, 0, 1]))
    low, high = (rng.choice([-(2**31), 2**31 - 1, *ends], 40).astype(np.int32) for _ in range(2))
    masks = [np.full((9, 3), -7, dtype=np.int32) for _ in range(2)]
    for step, target in zip((kernel, marks.mark_sixteen.scalar), masks, strict=True):
        step(values, 7, sign * magnitudes, 16, sign, low, high, target, 1)
    assert np.array_equal(*masks)
    assert len(np.unique(masks[0][:, 1])) > 3
    assert (masks[0][:, [0, 2]] == -7).all()


@jit_only
@pytest.mark.parametrize(("dtype", "wide"), [(np.uint8, np.int8), (np.uint8, np.int16), (np.uint16, np.int16)])
@pytest.mark.parametrize("flipped", [0, 1])
@pytest.mark.parametrize(("k", "begin"), [(0, 0), (4, 5), (0, 60), (4, 69), (6, 60)])
def test_positions_are_packed_by_groups(dtype, wide, flipped, k, begin):
    # 7 terms, so that the second group is ragged, and 70 positions, so that a panel from 60 or 69 on is.
    limits, size = np.iinfo(dtype), np.dtype(dtype).itemsize
    kind = np.uint8 if size == 1 else np.int16
    columns = np.random.default_rng(4).choice([0, 1, limits.max // 2, limits.max // 2 + 1, limits.max], (7, 70))
    untouched = np.repeat([np.iinfo(kind).max, np.iinfo(kind).min], columns_of.POSITIONS).astype(kind).view(np.uint8)
    results = []
    for step in (compiled(columns_of.pack_positions), columns_of.pack_positions.scalar):
        packed, counts, ends = np.full(300, 7, wide), np.arange(10), untouched.copy()
        flips = flipped * (limits.max // 2 + 1)
        step(columns.astype(dtype), k, begin, flips, packed, 3, counts, ends)
        results.append((packed, counts, ends))
    for vector, scalar in zip(*results, strict=True):
        assert np.array_equal(vector, scalar)


@jit_only
@pytest.mark.parametrize("name", ["panel_u8_4", "panel_u8_1", "panel_s16_4", "panel_s16_1"])
@pytest.mark.parametrize("position", [0, 64])
def test_a_tile_of_a_panel_is_its_scalar_loop(name, position):
    if not has_dot_instructions():
        pytest.skip("this processor has no dot-product instructions")
    step, rng = getattr(columns_of, name), np.random.default_rng(5)
    kernel, panel = compiled(step), NUM_GROUPS * GROUP_BYTES * columns_of.POSITIONS
    rows = np.array([9, 0, 3, 3, 1, 7, 2, 2])
    start = rng.choice([-(2**61), 0, 2**61], 10)
    for weights, packed in (
        (rng.integers(0, 256, (10, 12)), rng.integers(0, 256, panel + 9)),
        (np.full((10, 12), 128), np.full(panel + 9, 255)),  # -128 as 8 bits
        (np.tile([0, 128], (10, 6)), np.tile([128, 0], panel // 2 + 5)[:-1]),  # -2**15 twice is 2**31, or nothing
    ):
        sums = [np.full((10, 77), -7) for _ in range(2)]  # from position 64 on 13 are left
        for run, output in ((kernel, sums[0]), (step.scalar, sums[1])):
            run(weights.astype(np.uint8), 1, packed.astype(np.uint8), 9, start, rows, position, output)
        assert np.array_equal(*sums)
        assert (sums[0][[9, 4, 5, 6, 8]] == -7).all()
        assert (sums[0][0, position : position + 13] != -7).any()


@pytest.mark.parametrize(
    ("dtype", "signed"), [(np.int8, np.int8), (np.uint8, np.int8), (np.uint8, np.int16), (np.int16, np.int16),
    (np.uint16, np.int16)],
)  # fmt: skip
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 5, 83), (13, 4, 64)])
def test_products_of_columns_are_sums_of_products(dtype, signed, shape):
    # With the JIT off the scalar loops of the steps run.
    if not (has_dot_instructions() or settings.DISABLE_JIT):
        pytest.skip("this processor has no dot-product instructions")
    num_outputs, reduction, num_positions = shape
    limits, rng = np.iinfo(dtype), np.random.default_rng(6)
    words = limits.bits == 16
    per_group, most = GROUP_BYTES // np.dtype(signed).itemsize, 3 if words else 127
    weights = np.full((num_outputs, -(-reduction // per_group) * per_group), 99, dtype=signed)  # filled up with 99
    weights[:, :reduction] = rng.integers(-most, most + 1, (num_outputs, reduction))
    columns = rng.choice([limits.min, -1 if limits.min else 1, 0, limits.max], (reduction, num_positions)).astype(dtype)
    flipped = 1 << (limits.bits - 1) if (limits.min < 0) != words else 0
    rows, start = np.arange(0, num_outputs, 2), rng.integers(-(2**60), 2**60, num_outputs)
    nonzero, sums = np.zeros(weights.shape[1], np.int64), np.full((num_outputs, num_positions), -7)
    ends = exact.dot_columns(weights, columns.view(f"uint{limits.bits}"), flipped, start, rows, nonzero, sums)
    away = (flipped if limits.min < 0 else -flipped) if flipped else 0
    x = [[int(value) + away for value in line] for line in columns]
    for n in range(num_outputs):
        for p in range(num_positions):
            total = int(start[n]) + sum(int(weights[n, k]) * x[k][p] for k in range(reduction))
            assert sums[n, p] == (-7 if n % 2 else total)
    assert ends == (min(map(min, x)), max(map(max, x)))
    assert nonzero[:reduction].tolist() == [sum(value != 0 for value in line) for line in columns.tolist()]


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
def test_sums_by_sign_are_sums_of_one_sign(dtype):
    limits = np.iinfo(dtype)
    weights = np.random.default_rng(7).choice([limits.min, -1, 0, 1, limits.max], (5, 83)).astype(dtype)
    weights[0], weights[1] = limits.min, limits.max
    positive, negative = np.full(5, -7), np.full(5, -7)
    exact.sums_by_sign(weights, positive, negative)
    rows = [[int(w) for w in row] for row in weights]
    assert positive.tolist() == [sum(w for w in row if w > 0) for row in rows]
    assert negative.tolist() == [sum(w for w in row if w < 0) for row in rows]


@jit_only
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_sums_of_sixteen_trees_are_their_scalar_loop(dtype):
    rng = np.random.default_rng(7)
    ends = (-(2**15), 2**15 - 1) if dtype == np.int32 else (-(2**29), 2**29)
    for held, operands in (
        (rng.integers(*ends, 200), rng.integers(-3, 4, 40)), (np.full(200, ends[0]), np.full(40, -3)),
    ):  # fmt: skip
        results = [np.full(30, -7, dtype) for _ in range(2)]
        for run, sums in zip((compiled(trees.sixteen_trees), trees.sixteen_trees.scalar), results, strict=True):
            run(held.astype(dtype), 5, 19, operands.astype(dtype), 2, 9, sums, 4)
        assert np.array_equal(*results)
        assert (results[0][:4] == -7).all()
        assert (results[0][20:] == -7).all()
