"""Proofs by the extremes of windows: docs/numerics.md (114)."""

import numpy as np
import pytest

from accelsim_kernels.extremes import reach_of_windows
from accelsim_kernels.processor import has_dot_instructions
from accelsim_kernels.vectors import extreme_tiles
from accelsim_kernels.vectors.code import GROUP_BYTES, LANES
from tests.kernels.test_vectors import compiled, jit_only


@jit_only
@pytest.mark.parametrize("vectors", [1, 2, 4])
@pytest.mark.parametrize("offset", [0, -100])
def test_a_tile_of_extremes_is_its_scalar_loop(vectors, offset):
    if not has_dot_instructions():
        pytest.skip("this processor has no dot-product instructions")
    step, rng = getattr(extreme_tiles, f"extreme_{vectors}"), np.random.default_rng(0)
    kernel, rows, blocks = compiled(step), extreme_tiles.ROWS_OF_TILE[vectors], 1 + vectors
    places, parts = rng.integers(0, 200, 6), np.array([3, 0, 5])
    taken = np.repeat([[255] * GROUP_BYTES, [255, 255, 255, 0]], 3, axis=0).astype(np.uint8)
    weights = rng.integers(0, 256, 7 + places.size * GROUP_BYTES * vectors * LANES).astype(np.uint8)
    pairs = rng.integers(0, 2**15, (2, 40))
    reach = (pairs[0] | rng.choice([0, 1], 40) * pairs[1] << 16).astype(np.int32)
    shape = 3, blocks, LANES
    limits = [
        rng.choice([end, near, 0], shape, p=[0.8, 0.199, 0.001])
        for end, near in ((-(2**31), -400000), (2**31 - 1, 400000))
    ]
    marks = set()
    for scale in (1, 4, 200):  # of the reach: rows with few marks and with many
        constants = np.zeros((3, blocks, extreme_tiles.NUM_CONSTANTS, LANES), dtype=np.int32)
        ups, downs = rng.integers(0, scale, (2, *shape)), rng.integers(-scale, 1, (2, *shape))
        constants[:, :, extreme_tiles.UP] = ups[0] | ups[1] << 16
        constants[:, :, extreme_tiles.DOWN] = downs[0] & 0xFFFF | downs[1] << 16
        for kind in (extreme_tiles.NORM_UP, extreme_tiles.NORM_DOWN):
            constants[:, :, kind] = rng.integers(0, 50 * scale, shape)
        constants[:, :, extreme_tiles.LOW], constants[:, :, extreme_tiles.HIGH] = limits
        arguments = (
            rng.integers(0, 256, 400).astype(np.uint8), rng.integers(0, 190, rows + 2), 1, places, taken, weights, 7,
            reach, rng.integers(0, 35, rows + 2), parts, constants, offset,
        )  # fmt: skip
        results = []
        for run in (kernel, step.scalar):
            sums, found = np.full((rows + 2, blocks * LANES), -7, dtype=np.int32), np.zeros(rows + 2, dtype=np.uint8)
            run(*arguments, sums, 16, found)
            results.append((sums, found))
        for vector, scalar in zip(*results, strict=True):
            assert np.array_equal(vector, scalar)
        assert (results[0][0][[0, -1]] == -7).all()
        assert (results[0][0][:, :16] == -7).all()
        marks |= set(results[0][1][1:-1])
    assert marks == {0, 1}


@pytest.mark.parametrize("offset", [0, -100])
@pytest.mark.parametrize(("depth", "halvings"), [(3, 0), (8, 2), (8, 3), (32, 5)])
@pytest.mark.parametrize(("kernel_shape", "dilations"), [((1, 1), (1, 1)), ((3, 2), (1, 3)), ((1, 4), (1, 1))])
def test_activations_lie_within_the_reach_of_their_window(offset, depth, halvings, kernel_shape, dilations):
    rng, channels = np.random.default_rng(1), 1 << halvings
    images = rng.integers(0, 256, (2, 5, 7, depth)).astype(np.uint8)
    size, per_pixel, halves = images.size >> halvings, depth >> halvings, offset == 0 and halvings > 0
    (rows, columns), (down, across) = kernel_shape, dilations
    items = depth >> (halvings - halves)
    steps = np.array([(columns, across * items), (rows, down * 7 * items)])
    span = int(((steps[:, 0] - 1) * steps[:, 1]).sum())
    near, far = (np.full((images.size >> min(halvings, 1)) + span, 255, dtype=np.uint8) for _ in range(2))
    reach = np.full(size, 7, dtype=np.int32)
    reach_of_windows(images.reshape(-1), np.int64(offset), np.int64(halvings), steps, near, far, reach)
    fed, pairs = images.astype(int) + offset, reach.reshape(2, 5, 7, per_pixel)
    for row in range(5 - (rows - 1) * down):
        for column in range(7 - (columns - 1) * across):
            window = fed[:, row : row + rows * down : down, column : column + columns * across : across]
            for part in range(per_pixel):
                own = window[..., part * channels : (part + 1) * channels]
                for image in range(2):
                    pair, each = int(pairs[image, row, column, part]), own[image].reshape(-1, channels)
                    first, second = (each[:, half].reshape(-1).tolist() for half in np.array_split(range(channels), 2))
                    ends = max(0, *first, *second), -min(0, *first, *second)
                    assert (pair & 0xFFFF, pair >> 16) == ((max(first), max(second)) if halves else ends)
