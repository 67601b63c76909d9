"""The search kernels of weight rounding against fractions. All values are small integers, so floats are exact, too."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim_kernels.binary_quadratic import descend, round_sequentially
from tests.naive import qubo

NO_SLACK = np.float64(0.0)


@st.composite
def problems(draw, largest=6):
    """G = AᵀA + I and t of small integers; two neighbouring integers, or one, for each weight; a start among them."""
    size = draw(st.integers(1, largest))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    factor = rng.integers(-3, 4, size=(size, size))
    gram = (factor.T @ factor + np.eye(size)).astype(np.float64)
    channels = draw(st.integers(1, 3))
    low = rng.integers(-4, 4, size=(channels, size))
    high = low + rng.integers(0, 4, size=low.shape).clip(0, 1)
    linear = (rng.normal(size=(channels, size)) * 2 + (low + 0.5) @ gram).round(1)
    linear = np.round(linear * 8) / 8
    start = np.where(rng.integers(0, 2, size=low.shape) == 1, high, low)
    return gram, linear, low, high, start


@given(problems())
def test_no_flip_of_one_or_two_weights_is_left(problem):
    gram, linear, low, high, start = problem
    codes = start.copy()
    flips = descend(gram, linear, low, high, codes, NO_SLACK, True)
    assert ((codes == low) | (codes == high)).all()
    assert (flips == 0) == np.array_equal(codes, start)
    for n in range(len(codes)):
        row = (gram.tolist(), linear[n].tolist(), low[n].tolist(), high[n].tolist(), codes[n].tolist())
        assert qubo.greatest_gain(*row, flips=1) == 0
        assert qubo.greatest_gain(*row, flips=2) == 0
        assert qubo.objective(*row[:2], row[4]) <= qubo.objective(*row[:2], start[n].tolist())


@given(problems())
def test_without_pairs_no_flip_of_one_weight_is_left(problem):
    gram, linear, low, high, start = problem
    codes = start.copy()
    descend(gram, linear, low, high, codes, NO_SLACK, False)
    for n in range(len(codes)):
        row = (gram.tolist(), linear[n].tolist(), low[n].tolist(), high[n].tolist(), codes[n].tolist())
        assert qubo.greatest_gain(*row, flips=1) == 0


@given(problems(), st.integers(1, 2))
def test_the_optimum_is_found_where_at_most_two_weights_depend_on_each_other(problem, block):
    """Then f is a sum of terms of one or two weights, so a rounding that no flip of two improves is the best of all."""
    gram, linear, low, high, start = problem
    number = np.arange(len(gram)) // block
    gram = np.where(number[:, None] == number[None, :], gram, 0.0)
    codes = start.copy()
    descend(gram, linear, low, high, codes, NO_SLACK, block == 2)
    for n in range(len(codes)):
        row = (gram.tolist(), linear[n].tolist())
        assert qubo.objective(*row, codes[n].tolist()) == qubo.least(*row, low[n].tolist(), high[n].tolist())


@given(problems(), st.randoms(use_true_random=False))
def test_sequential_rounding_moves_the_rest_to_where_the_objective_is_least(problem, random):
    gram, linear, low, high, _ = problem
    order = list(range(len(gram)))
    random.shuffle(order)
    inverse = np.linalg.inv(gram)
    factor = np.linalg.cholesky(inverse[np.ix_(order, order)]).T.copy()
    # A value half way between two integers may fall to either side in floats: move every t off that by a part of 2^-20.
    linear = linear + (gram @ np.full(len(gram), 2.0**-20)) * np.arange(1, len(linear) + 1)[:, None]
    solutions = (linear @ inverse)[:, order].copy()
    codes = np.full_like(low, 99)
    round_sequentially(solutions, factor, low, high, np.array(order), codes)
    for n in range(len(codes)):
        expected = qubo.sequential(gram.tolist(), linear[n].tolist(), low[n].tolist(), high[n].tolist(), order)
        assert codes[n].tolist() == expected


@pytest.mark.parametrize(("value", "expected"), [(0.49, 0), (0.5, 0), (0.51, 1), (-7.0, 0), (9.0, 1)])
def test_one_weight_goes_to_the_nearer_integer_and_a_tie_down(value, expected):
    low, high, codes = np.array([[0]]), np.array([[1]]), np.array([[5]])
    round_sequentially(np.array([[value]]), np.array([[0.5]]), low, high, np.array([0]), codes)
    assert codes[0, 0] == expected
    descend(np.array([[1.0]]), np.array([[value]]), low, high, codes, NO_SLACK, True)
    assert codes[0, 0] == expected
