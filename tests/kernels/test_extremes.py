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
def test_a_tile_of_extremes_is_its_scalar_loop(vectors):
    if not has_dot_instructions():
        pytest.skip("this processor has no dot-product instructions")
    step, numbers, counting = getattr(extreme_tiles, f"extreme_{vectors}"), [], set()
    kernel, rows = compiled(step), extreme_tiles.ROWS_OF_TILE[vectors]
    for seed in range(20):
        arguments = tile_arguments(np.random.default_rng(seed), rows, vectors, -100 * (seed % 2))
        sums, found = ran(kernel, rows, vectors, arguments)
        expected = ran(step.scalar, rows, vectors, arguments)
        assert np.array_equal(sums, expected[0])
        assert np.array_equal(found, expected[1])
        assert (sums[[0, -1]] == -7).all()
        assert (sums[:, :16] == -7).all()
        numbers.append(found.sum())
        changed = {name: arguments[name] * 0 + other for name, other in (("taken", 255), ("offset", -50))}
        changed["constants"] = arguments["constants"].copy()
        changed["constants"][:, :, [extreme_tiles.NORM_UP, extreme_tiles.NORM_DOWN]] = 1 << 14
        for name, value in changed.items():
            if (ran(kernel, rows, vectors, {**arguments, name: value})[1] != found).any():
                counting.add(name)
    assert counting == set(changed)  # each has made a difference
    assert any(0 < number < rows for number in numbers)


def tile_arguments(rng, rows, vectors, offset):
    """Of a tile whose first block of channels is not the arrays' first, a few of whose channels have near limits."""
    blocks, places = 1 + vectors, rng.integers(0, 200, 6)
    reach = rng.integers(0, 1 << 15, (2, 40)) * [[1], [1 << 16]]
    constants = np.zeros((3, blocks, extreme_tiles.NUM_CONSTANTS, LANES), dtype=np.int32)
    ups, downs = rng.integers(0, 4, (2, 3, blocks, LANES)), rng.integers(-3, 1, (2, 3, blocks, LANES))
    constants[:, :, extreme_tiles.UP] = ups[0] | ups[1] << 16
    constants[:, :, extreme_tiles.DOWN] = downs[0] & 0xFFFF | downs[1] << 16
    for norm, limit, end in (
        (extreme_tiles.NORM_UP, extreme_tiles.HIGH, 2**31 - 1),
        (extreme_tiles.NORM_DOWN, extreme_tiles.LOW, -(2**31)),
    ):
        constants[:, :, norm] = rng.integers(0, 400, (3, blocks, LANES))
        near = np.sign(end) * rng.integers(60_000, 250_000, (3, blocks, LANES))
        constants[:, :, limit] = np.where(rng.random((3, blocks, LANES)) < 0.5 / (16 * vectors), near, end)
    return {
        "rows": rng.integers(0, 256, 400).astype(np.uint8), "bases": rng.integers(0, 190, rows + 2), "first": 1,
        "places": places, "taken": np.tile([[255] * GROUP_BYTES, [255, 0, 0, 0]], (3, 1)).astype(np.uint8),
        "channels": rng.integers(0, 256, 7 + places.size * GROUP_BYTES * vectors * LANES).astype(np.uint8), "begin": 7,
        "reach": reach.sum(axis=0).astype(np.int32), "corners": rng.integers(0, 35, rows + 2),
        "parts": np.array([3, 0, 5]), "constants": constants, "offset": np.int64(offset),
    }  # fmt: skip


def ran(step, rows, vectors, arguments):
    """The sums and flags that a step leaves."""
    sums, found = np.full((rows + 2, 16 + vectors * LANES), -7, dtype=np.int32), np.zeros(rows + 2, dtype=np.uint8)
    step(*arguments.values(), sums, 16, found)
    return sums, found


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
