"""Products of 8-bit operands that their types and shapes prove safe: as those that everything is asked of."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import accelsim as ax
from accelsim.errors import OperandError
from accelsim.simulator import gemm, plain_products
from accelsim_kernels.processor import has_dot_instructions
from tests.accelsim.simulator.gemm_cases import DATAFLOWS

MACHINES = [
    *({"dataflow": dataflow} for dataflow in DATAFLOWS),
    {"accumulator_bits": 16}, {"overflow": "error"}, {"product_shift_bits": 3},
    {"dataflow": "broadcast", "adder_tree_bits": 16}, {"dataflow": "weight_stationary", "partial_sum_bits": 17},
    {"weight_bits": 8, "activation_bits": 8}, {"weight_bits": 4}, {"zero_point": "at_input"},
]  # fmt: skip


def outcome(weights, activations, machine, track):
    """Everything that a product leaves, or what it raises."""
    try:
        result = ax.matmul(weights, activations, machine, track=track)
    except ax.AccelsimError as error:
        return type(error), str(error)
    arrays = result.accumulators, result.overflow_events, result.first_overflow, result.partial_overflow_events
    seen = result.account.activation_ends, result.cycles, result.operations, result.zero_operands, repr(result)
    return [None if array is None else (array.dtype, array.tolist()) for array in arrays], seen


@given(
    shape=st.tuples(*[st.integers(0, 9)] * 3), types=st.tuples(*[st.sampled_from(["i1", "u1", "i2", "f4"])] * 2),
    machine=st.sampled_from(MACHINES), track=st.sampled_from(["none", "overflow", "range"]),
    form=st.sampled_from(["array", "transposed", "read-only", "list", "longer"]), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_a_plain_product_is_one_that_everything_is_asked_of(shape, types, machine, track, form, seed):
    rng, (n, k, p) = np.random.default_rng(seed), shape
    weights = rng.integers(-128, 128, (n, k)).astype(types[0])
    activations = rng.choice([0, 1, 255], (k + (form == "longer"), p)).astype(types[1])
    if form == "transposed":
        activations = np.asfortranarray(activations)
    elif form == "read-only":
        weights.flags.writeable = False
    operands = [weights.tolist(), activations.tolist()] if form == "list" else [weights, activations]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gemm, "plain_product", lambda *arguments: None)
        expected = outcome(*operands, ax.Machine(**machine), track)
    for _ in range(2):  # the first of its kind and the next
        assert outcome(*operands, ax.Machine(**machine), track) == expected


def test_a_kind_is_asked_once_and_keeps_nothing_of_its_products(monkeypatch):
    asked, kind = [], plain_products._kind
    monkeypatch.setattr(plain_products, "_kind", lambda *arguments: asked.append(arguments) or kind(*arguments))
    plain_products._KINDS.clear()
    weights, activations = np.full((2, 3), -3, dtype=np.int8), np.full((3, 4), 5, dtype=np.uint8)
    first = ax.matmul(weights, activations)
    first.account.weight_zero_points[:] = 7  # which nobody should
    weights[:] = 0
    second = ax.matmul(weights, activations)
    assert len(asked) == 1
    assert first.accumulators.tolist() == [[-45] * 4] * 2
    assert second.accumulators.tolist() == [[0] * 4] * 2
    assert (first.zero_operands.weight, second.zero_operands.weight) == (0, 24)
    narrow = ax.matmul(weights - 100, activations, ax.Machine(accumulator_bits=11, overflow="saturate"))
    assert len(asked) == 2
    assert narrow.accumulators.tolist() == [[-1024] * 4] * 2
    for length in range(1, 2 * plain_products._MOST_KINDS):
        ax.matmul(weights[:, :1], np.zeros((1, length), dtype=np.uint8), track="none")
    assert len(plain_products._KINDS) <= plain_products._MOST_KINDS


def test_the_way_is_taken_where_there_are_instructions():
    product = plain_products.plain_product(np.ones((1, 2), dtype="i1"), np.ones((2, 1), dtype="u1"), ax.Machine(), True)
    assert (product is not None) == has_dot_instructions()


def test_errors_are_those_of_every_product():
    weights = np.ones((2, 3), dtype=np.int8)
    with pytest.raises(OperandError, match=r"must share k, got \(2, 3\) and \(4, 1\)"):
        ax.matmul(weights, np.ones((4, 1), dtype=np.uint8))
    with pytest.raises(OperandError, match="2 non-empty axes"):
        ax.matmul(weights, np.ones(3, dtype=np.uint8))
