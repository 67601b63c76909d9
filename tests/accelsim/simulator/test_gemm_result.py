"""`matmul` of operands in narrow types, which takes shorter ways, and the counts that are made when they are read."""

import numpy as np
import pytest
from hypothesis import example, given

import accelsim as ax
from accelsim.simulator.engine.bounds import safe_by_type
from accelsim.simulator.operands import operand
from tests.accelsim.simulator.gemm_cases import DATAFLOWS, Gemm, assert_equal, gemms, machines
from tests.accelsim.simulator.test_safe_layers import PATHS, path
from tests.naive import gemm as naive

COUNTS = ("cycles", "operations", "zero_operands")
ENDS = Gemm([[-128, 127, -1]] * 2, [[-128, 127], [127, 0], [0, -128]], [2**60, -(2**60)], [0, 0], 0)
UNSIGNED = Gemm([[-128, 127, -1]] * 2, [[255, 0], [255, 255], [0, 0]], [0, 0], [0, 0], 128)
WORDS = Gemm([[-(2**15), 2**15 - 1]] * 7, [[2**16 - 1], [0]], [0] * 7, [0] * 7, 3)


@pytest.mark.parametrize("way", PATHS)
@given(gemm=gemms(), machine=machines())
@example(gemm=ENDS, machine=ax.Machine(accumulator_bits=64))
@example(gemm=ENDS, machine=ax.Machine(accumulator_bits=16))
@example(gemm=UNSIGNED, machine=ax.Machine(accumulator_bits=24, dataflow="broadcast", adder_tree_bits=20))
@example(gemm=UNSIGNED, machine=ax.Machine(accumulator_bits=24, zero_point="at_input"))
@example(gemm=WORDS, machine=ax.Machine(accumulator_bits=40))
def test_the_type_of_the_operands_changes_nothing(way, gemm, machine):
    (weights, activations), named = gemm.arguments()
    with path(way):
        narrow = ax.matmul(*gemm.in_few_bits(), machine, **named)
    assert_equal(narrow, naive.gemm(gemm.weights, gemm.activations, machine, **gemm.oracle_arguments()), "overflow")
    stepped = ax.matmul(weights, activations, machine, **named, engine="stepped")
    for name in COUNTS:
        assert getattr(narrow, name) == getattr(stepped, name)
    assert narrow.operations.by_width == stepped.operations.by_width


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_registers_that_just_hold_every_product_of_a_type_are_safe(dataflow):
    # 3 * 128 * 255 = 97920; with 33151 in the accumulator 2**17 - 1, which 18 bits just hold.
    weights = np.zeros((2, 3), dtype=np.int8)
    for most, bits, inner, safe in (
        (33151, 18, 18, True), (33152, 18, 18, False), (33151, 18, 17, dataflow == "output_stationary"),
    ):  # fmt: skip
        machine = ax.Machine(
            rows=3, columns=3, dataflow=dataflow, accumulator_bits=bits, partial_sum_bits=inner, adder_tree_bits=inner
        )
        assert safe_by_type(weights, most, machine, 0, 255) == safe
        for sign in (-1, 1):  # and so the whole way
            extreme = np.full((2, 3), -128 if sign < 0 else 127, dtype=np.int8), np.full((3, 1), 255, dtype=np.uint8)
            named = {"bias": [0, sign * most], "weight_zero_point": 0}
            fast, stepped = (ax.matmul(*extreme, machine, **named, engine=engine) for engine in ("fast", "stepped"))
            assert fast.accumulators.tolist() == stepped.accumulators.tolist()
            assert fast.overflow_events.tolist() == stepped.overflow_events.tolist()
            assert fast.partial_overflow_events.tolist() == stepped.partial_overflow_events.tolist()
    assert not safe_by_type(weights, 0, ax.Machine(product_shift_bits=1), 0, 255)


@pytest.mark.parametrize(
    ("values", "kept", "kind"),
    [
        ([-128, 127], "bh", np.int8), ([-129, 0], "bh", np.int16), ([0, 128], "bh", np.int16),
        ([0, 2**15], "bh", np.int32), ([0, 255], "BbhH", np.uint8), ([-1, 127], "BbhH", np.int8),
        ([-1, 128], "BbhH", np.int16), ([0, 256], "BbhH", np.int16), ([0, 2**15], "BbhH", np.uint16),
    ],
)  # fmt: skip
def test_operands_whose_values_are_looked_at_are_brought_to_the_narrowest_type(values, kept, kind):
    for dtype in (np.int64, ">i4"):
        narrowed = operand("weights", np.array([values, values], dtype=dtype)[:, ::-1], None, kept)
        assert narrowed.dtype == np.dtype(kind)
        assert narrowed.flags.carray
        assert narrowed.tolist() == [values[::-1]] * 2


@pytest.mark.parametrize("engine", ["fast", "stepped"])
def test_counts_are_of_the_operands_as_they_were(engine):
    # They are made when they are read; by then a caller may have filled its arrays with something else.
    rng = np.random.default_rng(0)
    operands = rng.integers(-3, 4, (5, 6), dtype=np.int8), rng.integers(0, 3, (6, 7), dtype=np.uint8)
    asked, unasked = (ax.matmul(*operands, engine=engine) for _ in range(2))
    before = [getattr(asked, name) for name in COUNTS]
    weights, activations = (array.copy() for array in operands)
    for array in operands:
        array[:] = 0
    assert [getattr(unasked, name) for name in COUNTS] == before
    either = sum(w == 0 or x == 0 for row in weights for x_p in activations.T for w, x in zip(row, x_p, strict=True))
    assert unasked.zero_operands.either == either


def test_what_cannot_happen_takes_no_memory_and_cannot_be_written():
    result = ax.matmul(np.ones((3, 4), np.int8), np.ones((4, 5), np.uint8))
    for array, value in (
        (result.overflow_events, 0), (result.first_overflow, -1), (result.partial_overflow_events, 0),
    ):  # fmt: skip
        assert array.dtype == np.int64
        assert array.shape == (3, 5)
        assert (array == value).all()
        assert not array.flags.writeable
    assert result.accumulators.tolist() == [[4] * 5] * 3
    assert result.accumulators.flags.writeable


@pytest.mark.parametrize("overflow", ["wrap", "error"])
def test_events_of_few_outputs_become_arrays_when_they_are_read(overflow):
    # The first output overflows at its second addition, the other three never.
    weights, activations = np.array([[100, 100, -90], [1, 1, 1]], np.int8), np.array([[1, 0], [1, 0], [1, 0]], np.uint8)
    machine = ax.Machine(accumulator_bits=8, dataflow="output_stationary", overflow=overflow)
    if overflow == "error":
        with pytest.raises(ax.AccumulatorOverflowError, match=r"2 .*in 1 outputs.* channel 0, position 0, addition 1"):
            ax.matmul(weights, activations, machine)
        return
    result = ax.matmul(weights, activations, machine)
    assert result.events.totals() == (2, 1, 0)
    assert result.overflow_events.tolist() == [[2, 0], [0, 0]]
    assert result.first_overflow.tolist() == [[1, -1], [-1, -1]]
    assert result.partial_overflow_events.tolist() == [[0, 0], [0, 0]]
    assert result.accumulators.tolist() == [[110, 0], [3, 0]]
    for name in ("overflow_events", "first_overflow", "partial_overflow_events"):
        assert getattr(result, name) is getattr(result, name)
        assert getattr(result, name).dtype == np.int64
        with pytest.raises(AttributeError):
            setattr(result, name, None)
    untracked = ax.matmul(weights, activations, machine, track="none")
    assert untracked.overflow_events is untracked.first_overflow is untracked.partial_overflow_events is None
    assert "overflow events: 2" in result._repr_html_()
