"""Lanes of 32 bits are taken only where nothing leaves them: docs/numerics.md (34), (35). Moving windows are shifts."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import accelsim as ax
from accelsim_kernels.grid.lanes import feed_rows, int32_suffices, skew_right, skewed_stride
from tests.naive.gemm import gemm

MOST = 2**31 - 1


def asked(weights, columns, starts, bits, with_range):
    register = np.int64(-(2 ** (bits - 1))), np.int64(2 ** (bits - 1) - 1), False
    return int32_suffices(
        np.array(weights, np.int32), np.array(columns, np.int32), np.array(starts, np.int64), register, with_range
    )


operands = st.integers(-(2**16), 2**16) | st.sampled_from([-(2**16), 2**16, 2**15, -(2**15), 46340, 46341, 1])


@given(
    row=st.lists(operands, min_size=1, max_size=6),
    column=st.data(),
    start=st.integers(-(2**32), 2**32) | st.sampled_from([0, MOST, -MOST, 2**30]),
    bits=st.integers(4, 64) | st.integers(29, 34),
    with_range=st.booleans(),
    saturate=st.booleans(),
)
@example(row=[46340], column=[46340], start=0, bits=32, with_range=False, saturate=False)
@example(row=[46341], column=[46341], start=0, bits=20, with_range=False, saturate=True)
@example(row=[2**15, 2**15], column=[2**15, 2**15], start=0, bits=31, with_range=True, saturate=False)
@example(row=[1], column=[1], start=MOST - 1, bits=64, with_range=True, saturate=False)
@example(row=[1], column=[1], start=MOST, bits=64, with_range=True, saturate=False)
@example(row=[2**15], column=[2**15 - 1], start=0, bits=31, with_range=False, saturate=False)
def test_where_32_bits_are_said_to_suffice_they_do(row, column, start, bits, with_range, saturate):
    if not isinstance(column, list):
        column = column.draw(st.lists(operands, min_size=len(row), max_size=len(row)))
    suffices = asked([row], [[x] for x in column], [start], bits, with_range)
    if not suffices:
        return
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def ov(value):
        return min(max(value, low), high) if saturate else (value - low) % 2**bits + low

    held, unbounded, seen = ov(start), start, [ov(start)]
    for w, x in zip(row, column, strict=True):
        seen += [w * x, held + w * x]
        held = ov(held + w * x)
        unbounded += w * x
        seen += [unbounded] if with_range else []
    assert min(seen) >= -(2**31)
    assert max(seen) <= MOST


@pytest.mark.parametrize(
    ("row", "column", "start", "bits", "with_range", "answer"),
    [
        # Four terms of 8 bits in 32: sums of at most 2^17 never get near the register's ends.
        ([-128] * 4, [255] * 4, 0, 32, True, True),
        # Overflows of a register of 20 bits: what is added leaves it by less than 2^15.
        ([-128] * 999, [255] * 999, 0, 20, False, True),
        # The same with the unbounded sums, which stay under 2^25.
        ([-128] * 999, [255] * 999, 0, 20, True, True),
        # 2^31 is one too many, in an unbounded sum, in a register of 64 bits, in a product.
        ([2**15] * 2, [2**15] * 2, 0, 20, True, False),
        ([2**15] * 2, [2**15] * 2, 0, 20, False, True),
        ([2**15] * 2, [2**15] * 2, 0, 64, False, False),
        ([2**15] * 2, [2**15] * 2, -1, 31, False, False),
        ([2**15], [2**16], 0, 4, False, False),
        ([1], [1], MOST, 64, False, False),
        ([1], [1], MOST - 1, 64, False, True),
    ],
)
def test_by_hand(row, column, start, bits, with_range, answer):
    assert asked([row], [[x] for x in column], [start], bits, with_range) == answer
    # One channel that needs more decides for all.
    small = [0] * len(row)
    assert asked([small, row, small], [[x, 0] for x in column], [0, start, 0], bits, with_range) == answer


@pytest.mark.parametrize("dataflow", ["output_stationary", "weight_stationary", "input_stationary"])
@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
@pytest.mark.parametrize("bits", [29, 30, 31, 32, 33])
def test_sums_around_the_end_of_32_bits(dataflow, overflow, bits):
    """The stepped grid against the oracle where lanes change from 32 to 64 bits."""
    machine = ax.Machine(
        rows=3, columns=2, dataflow=dataflow, accumulator_bits=bits, partial_sum_bits=bits, overflow=overflow
    )
    rng = np.random.default_rng(bits)
    for most in (127, 2**14, 2**15 - 1):
        weights = rng.choice([-most, most, most // 2, 1], size=(3, 7))
        activations = rng.choice([-most - 1, most, most // 3], size=(7, 4))
        bias = rng.choice([2**31 - 1, -(2**31), 2**30, 0], size=3)
        result = ax.matmul(weights, activations, machine, bias=bias, engine="stepped", track="range")
        wanted = gemm(weights.tolist(), activations.tolist(), machine, bias.tolist())
        for name, field in (
            ("accumulators", "accumulator"), ("overflow_events", "events"), ("first_overflow", "first_overflow"),
            ("partial_overflow_events", "partial_events"), ("range_min", "range_min"), ("range_max", "range_max"),
        ):  # fmt: skip
            assert getattr(result, name).tolist() == [[getattr(output, field) for output in row] for row in wanted]


@given(
    rows=st.integers(1, 4), columns=st.integers(1, 4), length=st.integers(1, 6), first=st.integers(0, 2),
    by_rows=st.booleans(), used=st.integers(1, 4),
)  # fmt: skip
def test_a_window_that_moves_is_a_shift_register(rows, columns, length, first, by_rows, used):
    used = min(used, rows)
    operands = np.arange(1, (first + used) * length + 1, dtype=np.int32).reshape(first + used, length)
    cycles = length + rows + columns
    stride = skewed_stride(np.int64(cycles))
    assert stride >= cycles
    entering = np.full(rows * stride, 99, dtype=np.int32)
    skew_right(operands if by_rows else operands.T.copy(), by_rows, np.int64(first), used, stride, entering)
    buffer = np.zeros(cycles + rows * columns, dtype=np.int32)
    registers = [[0] * columns for _ in range(rows)]
    for t in range(cycles):
        window = buffer[cycles - 1 - t : cycles - 1 - t + rows * columns]
        feed_rows(window, columns, entering, stride, rows, t)
        for i in range(rows):
            fed = int(operands[first + i, t - i]) if i < used and 0 <= t - i < length else 0
            registers[i] = [fed, *registers[i][:-1]]
        assert window.reshape(rows, columns).tolist() == registers
