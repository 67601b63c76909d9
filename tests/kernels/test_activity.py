"""Counting bits and zeros."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from accelsim_kernels.activity import (
    count_nonzero_columns,
    count_nonzero_taps,
    count_unequal_rows,
    kept_toggles,
    num_ones,
    successive_toggles,
)

int64 = st.integers(-(2**63), 2**63 - 1)


@given(value=int64)
@example(value=-1)
@example(value=-(2**63))
@example(value=2**63 - 1)
@example(value=2**32)
@example(value=2**31)
@example(value=0)
def test_ones_are_those_of_the_64_bit_pattern(value):
    assert num_ones(np.int64(value)) == (value % 2**64).bit_count()


@given(
    values=st.lists(st.lists(st.integers(-(2**17), 2**17), min_size=3, max_size=3), min_size=1, max_size=8),
    distance=st.integers(1, 3),
    bits=st.integers(1, 63),
)
def test_successive_toggles_are_changing_bits(values, distance, bits):
    mask = 2**bits - 1
    wanted = sum(
        ((a ^ b) & mask).bit_count()
        for now, before in zip(values[distance:], values, strict=False)
        for a, b in zip(now, before, strict=True)
    )
    counted = successive_toggles(np.array(values, dtype=np.int32), np.int64(distance), np.int64(mask))
    assert counted == wanted


def test_kept_operands_replace_each_other_in_the_order_of_the_folds():
    held = np.zeros((2, 2), dtype=np.int64)
    # Column 1 keeps vectors 0 and 2, column 0 vector 1; each passes twice: terms 0, 1, then term 2 with an empty row.
    values = np.array([[1, 1, 3], [7, 0, 7], [0, 1, 0]], dtype=np.int32)
    toggles = kept_toggles(values, np.int64(1), np.int64(7), held)
    # (0, 1): 0 1 3 0 0, (1, 1): 0 1 0 1 0, (0, 0): 0 7 7, (1, 0): 0 0 0
    assert toggles == (1 + 1 + 2 + 0) + (1 + 1 + 1 + 1) + (3 + 0) + 0
    assert held.tolist() == [[7, 0], [0, 0]]


def test_rows_of_each_kind_are_counted_beyond_what_8_bits_hold():
    kinds, places, value = np.array([0, 1, 1]), 5000, np.int64(65535)
    values = np.zeros((3 * 200, places), dtype=np.uint16)
    values[::7, ::3] = value
    counts = np.full((2, places), 9, dtype=np.int32)
    count_unequal_rows(values.reshape(-1)[:-4500], value, kinds, counts)
    unequal = (values != value).astype(np.int32)
    unequal[-1, 500:] = 0
    by_row = unequal.reshape(200, 3, places).sum(axis=0)
    assert np.array_equal(counts, [9 + by_row[0], 9 + by_row[1] + by_row[2]])


def test_columns_are_counted_on_top_of_what_was_there():
    counts = np.array([5, 0, 1], dtype=np.int64)
    count_nonzero_columns(np.array([[1, 0, -1], [0, 0, 2]], dtype=np.int32), counts)
    assert counts.tolist() == [6, 0, 3]


@given(data=st.data())
def test_taps_meet_the_elements_that_they_multiply(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    kernel, stride, dilation, image = (rng.integers(1, most, 2) for most in (4, 4, 3, 7))
    pad, output = rng.integers(0, 4, 2), rng.integers(1, 6, 2)  # some outputs may lie in the padding alone
    X = rng.integers(-1, 2, (2, 2, *image), dtype=np.int32)
    counts = np.zeros((2, *kernel), dtype=np.int64)
    pairs = [(int(pair[0]), int(pair[1])) for pair in (kernel, stride, pad, dilation, output)]
    count_nonzero_taps(X, *pairs, counts)
    wanted = np.zeros_like(counts)
    for b, c, i, j, r, s in np.ndindex(2, 2, *kernel, *output):
        row, column = (np.array([r, s]) * stride + np.array([i, j]) * dilation - pad).tolist()
        if 0 <= row < image[0] and 0 <= column < image[1]:
            wanted[c, i, j] += X[b, c, row, column] != 0
    assert counts.tolist() == wanted.tolist()
