"""Steps in vector registers equal the scalar loops above them, which Python runs as they stand."""

import os

import numba
import numpy as np
import pytest

from accelsim_kernels import vectors
from accelsim_kernels.vectors import GROUP_BYTES, LANES

jit_only = pytest.mark.skipif(
    os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="with the JIT off the scalar loops themselves run"
)
DOTS = ["dot_u8s8_4", "dot_u8s8_2", "dot_u8s8_1", "dot_s16s16_4", "dot_s16s16_1"]
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
    if not vectors.has_dot_instructions():
        pytest.skip("this processor has no dot-product instructions")
    step = getattr(vectors, name)
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
    step, rng = getattr(vectors, name), np.random.default_rng(1)
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


def test_the_processors_instructions_can_be_switched_off(monkeypatch):
    monkeypatch.setenv(vectors.PORTABLE_VARIABLE, "1")
    vectors.has_dot_instructions.cache_clear()
    try:
        assert not vectors.has_dot_instructions()
    finally:
        monkeypatch.undo()
        vectors.has_dot_instructions.cache_clear()
