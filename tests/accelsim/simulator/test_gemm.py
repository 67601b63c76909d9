"""`matmul` against the oracle, the engines against each other: docs/numerics.md sections 2 and 3."""

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

import accelsim as ax
from tests.accelsim.simulator.gemm_cases import DATAFLOWS, Gemm, assert_equal, codes, flatten, gemms, lists, machines
from tests.naive import gemm as naive
from tests.naive import timing
from tests.naive.integers import fits, wrap

LOW16, HIGH16, TOP16 = -(2**15), 2**15 - 1, 2**16 - 1
WIDEST = Gemm([[LOW16] * 9], [[LOW16]] * 9, [2**60], [0], 0)
UNSIGNED = Gemm([[TOP16] * 7, [0] * 7], [[TOP16, 0]] * 7, [-(2**60), 2**60], [TOP16, 1], TOP16)
ONE_BIT = Gemm([[-1, 0, -1]], [[1], [1], [0]], [7], [-1], 1)


def run(gemm, machine, engine, track):
    positional, named = gemm.arguments()
    return ax.matmul(*positional, machine, **named, engine=engine, track=track)


@pytest.mark.parametrize("track", ["none", "overflow", "range"])
@pytest.mark.parametrize("dataflow", DATAFLOWS)
@given(data=st.data(), gemm=gemms())
@example(data=None, gemm=WIDEST)
@example(data=None, gemm=UNSIGNED)
@example(data=None, gemm=ONE_BIT)
def test_stepped_and_fast_equal_the_oracle(dataflow, track, data, gemm):
    if data is not None:
        chosen = [data.draw(machines(dataflow))]
    else:  # an explicit example: the ends of every range
        chosen = [
            ax.Machine(
                rows=2, columns=3, dataflow=dataflow, accumulator_bits=bits, partial_sum_bits=inner,
                adder_tree_bits=inner, overflow=overflow, zero_point=zero_point,
            )
            for bits, inner in ((4, 4), (64, None), (63, 64), (64, 4))
            for overflow in ("wrap", "saturate")
            for zero_point in ("folded", "at_input")
        ]  # fmt: skip
    for machine in chosen:
        expected = naive.gemm(gemm.weights, gemm.activations, machine, **gemm.oracle_arguments())
        for engine in ("stepped", "fast"):
            result = run(gemm, machine, engine, track)
            assert_equal(result, expected, track)
            assert result.trace is None


@pytest.mark.parametrize("engine", ["stepped", "fast"])
@given(gemm=gemms(), machine=machines(overflow="error"))
@example(gemm=WIDEST, machine=ax.Machine(accumulator_bits=62, overflow="error"))
@example(gemm=WIDEST, machine=ax.Machine(accumulator_bits=61, overflow="error"))
def test_mode_error_refuses_the_run_exactly_when_an_event_was_counted(engine, gemm, machine):
    expected = naive.gemm(gemm.weights, gemm.activations, machine, **gemm.oracle_arguments())
    for track in ("none", "overflow", "range"):
        if any(output.events or output.partial_events for output in flatten(expected)):
            with pytest.raises(ax.AccumulatorOverflowError, match="matmul"):
                run(gemm, machine, engine, track)
        else:
            assert_equal(run(gemm, machine, engine, track), expected, track)


@pytest.mark.parametrize("engine", ["stepped", "fast"])
@given(
    gemm=gemms(),
    machine=machines(accumulator_bits=64, partial_sum_bits=None, adder_tree_bits=None, product_shift_bits=0),
)
@example(gemm=WIDEST, machine=ax.Machine(accumulator_bits=64))
@example(gemm=UNSIGNED, machine=ax.Machine(accumulator_bits=64, zero_point="at_input"))
def test_a_64_bit_accumulator_holds_the_exact_product(engine, gemm, machine):
    result = run(gemm, machine, engine, "overflow")
    z_x = gemm.activation_zero_point
    exact = [
        [
            b + sum((w - z_w) * (x[p] - z_x) for w, x in zip(row, gemm.activations, strict=True))
            for p in range(len(gemm.activations[0]))
        ]
        for row, b, z_w in zip(gemm.weights, gemm.bias, gemm.weight_zero_points, strict=True)
    ]
    assert result.accumulators.tolist() == exact
    assert not result.overflow_events.any()
    assert (result.first_overflow == -1).all()


@pytest.mark.parametrize("engine", ["stepped", "fast"])
@given(gemm=gemms(), machine=machines(overflow="wrap", partial_sum_bits=None, adder_tree_bits=None))
@example(gemm=WIDEST, machine=ax.Machine(accumulator_bits=4, overflow="wrap"))
@example(gemm=UNSIGNED, machine=ax.Machine(accumulator_bits=63, overflow="wrap"))
def test_wrapping_is_arithmetic_modulo_2_to_the_bits(engine, gemm, machine):
    exact = run(gemm, machine.replace(accumulator_bits=64), "fast", "none").accumulators
    bits = machine.accumulator_bits
    expected = [[wrap(value, bits) for value in row] for row in exact.tolist()]
    assert run(gemm, machine, engine, "overflow").accumulators.tolist() == expected


@st.composite
def bounded_gemms(draw):
    """A GEMM and the range that its activations come from."""
    gemm = draw(gemms())
    lowest, highest = draw(st.tuples(codes(8, True), codes(8, True)).map(sorted))
    shape = len(gemm.activations), len(gemm.activations[0])
    activations = draw(lists(st.integers(lowest, highest) | st.sampled_from([lowest, highest]), *shape))
    return Gemm(gemm.weights, activations, gemm.bias, gemm.weight_zero_points, gemm.activation_zero_point), (
        lowest,
        highest,
    )


def narrowest(low, high):
    """The narrowest register that holds both."""
    return next(bits for bits in range(4, 65) if fits(low, bits) and fits(high, bits))


@pytest.mark.parametrize("engine", ["stepped", "fast"])
@pytest.mark.parametrize("dataflow", DATAFLOWS)
@given(case=bounded_gemms(), data=st.data())
def test_what_the_bound_calls_safe_never_overflows(engine, dataflow, case, data):
    gemm, (lowest, highest) = case
    machine = data.draw(machines(dataflow))
    z_x, starts = gemm.activation_zero_point, []
    bounds, inner_bounds = [], []
    for row, b, z_w in zip(gemm.weights, gemm.bias, gemm.weight_zero_points, strict=True):
        if machine.zero_point == "at_input":
            shifted, ends = [w - z_w for w in row], (lowest - z_x, highest - z_x)
            start, z_last = b, 0
        else:
            shifted, ends, z_last = row, (lowest, highest), z_w
            start = b - z_x * sum(row) + len(row) * z_w * z_x
        starts.append(start)
        bounds.append(naive.bounds(shifted, *ends, start, z_last, machine))
        inner_bounds.append(naive.bounds(shifted, *ends, 0, 0, machine))
    bits = narrowest(min(low for low, _ in bounds), max(high for _, high in bounds))
    inner_bits = narrowest(min(low for low, _ in inner_bounds), max(high for _, high in inner_bounds))
    safe = machine.replace(accumulator_bits=bits, partial_sum_bits=inner_bits, adder_tree_bits=inner_bits)
    result = run(gemm, safe, engine, "range")
    exact = run(gemm, safe.replace(accumulator_bits=64, partial_sum_bits=None, adder_tree_bits=None), engine, "none")
    assert not result.overflow_events.any()
    assert not result.partial_overflow_events.any()
    assert np.array_equal(result.accumulators, exact.accumulators)
    for n, (low, high) in enumerate(bounds):
        assert low <= result.range_min[n].min()
        assert result.range_max[n].max() <= high


@pytest.mark.parametrize("engine", ["stepped", "fast"])
@given(gemm=gemms(), machine=machines())
@example(gemm=UNSIGNED, machine=ax.Machine(accumulator_bits=62))
def test_a_register_that_holds_the_range_would_have_been_wide_enough(engine, gemm, machine):
    wide = machine.replace(partial_sum_bits=None, adder_tree_bits=None)
    result = run(gemm, wide, engine, "range")
    bits = narrowest(int(result.range_min.min()), int(result.range_max.max()))
    assert not run(gemm, wide.replace(accumulator_bits=bits), engine, "overflow").overflow_events.any()
    if bits > 4:
        assert run(gemm, wide.replace(accumulator_bits=bits - 1), engine, "overflow").overflow_events.any()


@pytest.mark.parametrize("engine", ["stepped", "fast"])
@given(gemm=gemms(), machine=machines(product_shift_bits=0))
@example(gemm=UNSIGNED, machine=ax.Machine(accumulator_bits=64))
@example(gemm=ONE_BIT, machine=ax.Machine(accumulator_bits=5, dataflow="broadcast", adder_tree_bits=4))
def test_both_zero_point_modes_agree_where_nothing_overflows(engine, gemm, machine):
    folded = run(gemm, machine.replace(zero_point="folded"), engine, "overflow")
    at_input = run(gemm, machine.replace(zero_point="at_input"), engine, "overflow")
    quiet = (folded.overflow_events + at_input.overflow_events) == 0
    quiet &= (folded.partial_overflow_events + at_input.partial_overflow_events) == 0
    assert np.array_equal(folded.accumulators[quiet], at_input.accumulators[quiet])
    assert folded.cycles == at_input.cycles


@given(gemm=gemms(), machine=machines())
def test_a_run_costs_the_cycles_of_its_shape_and_its_products(gemm, machine):
    sizes = len(gemm.weights), len(gemm.activations), len(gemm.activations[0])
    expected = timing.count(*sizes, machine)
    asymmetric = sum(z != 0 for z in gemm.weight_zero_points) if machine.zero_point == "folded" else 0
    num_outputs, reduction, num_positions = sizes
    for engine in ("stepped", "fast"):
        result = run(gemm, machine, engine, "none")
        cycles = result.cycles
        assert (cycles.load, cycles.multiply, cycles.drain) == (expected.load, expected.multiply, expected.drain)
        assert cycles.stall == 0
        assert cycles.total == expected.total
        assert result.operations.multiplications == num_outputs * reduction * num_positions
        # (8): each row sum has K terms, and each channel with a zero point one product and one addition per position.
        sums = reduction * num_positions if asymmetric else 0
        assert result.operations.row_sum_additions == sums + asymmetric * num_positions
        assert result.operations.row_sum_multiplications == asymmetric * num_positions


def test_one_bias_and_zero_point_for_all_is_the_same_as_one_for_each():
    random = np.random.default_rng(1)
    weights, activations = random.integers(0, 256, (5, 7)), random.integers(0, 256, (7, 3))
    machine = ax.Machine(rows=2, columns=2, accumulator_bits=16)
    single = ax.matmul(weights, activations, machine, weight_zero_point=3, activation_zero_point=9)
    each = ax.matmul(
        weights, activations, machine, bias=np.zeros(5, int), weight_zero_point=np.full(5, 3), activation_zero_point=9
    )
    assert np.array_equal(single.accumulators, each.accumulators)
    assert np.array_equal(single.overflow_events, each.overflow_events)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.int64, np.uint32])
@pytest.mark.parametrize("engine", ["stepped", "fast"])
def test_any_integer_type_and_memory_layout_is_taken(dtype, engine):
    random = np.random.default_rng(2)
    weights = random.integers(0, 128, (4, 6)).astype(dtype)
    activations = random.integers(0, 128, (5, 6)).astype(dtype).T
    expected = weights.astype(object) @ activations.astype(object)
    result = ax.matmul(weights[::-1, ::2], activations[::2], ax.Machine(rows=3, columns=2), engine=engine)
    assert np.array_equal(result.accumulators, weights[::-1, ::2].astype(object) @ activations[::2].astype(object))
    assert np.array_equal(ax.matmul(weights, activations, engine=engine).accumulators, expected)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
def test_engines_agree_on_a_gemm_larger_than_any_block(dataflow, overflow):
    # The fast kernels work on blocks of positions; this GEMM has more positions than a few hundred, and ragged ends.
    random = np.random.default_rng(3)
    weights, activations = random.integers(-128, 128, (3, 37)), random.integers(0, 256, (37, 1101))
    machine = ax.Machine(
        rows=16, columns=8, dataflow=dataflow, accumulator_bits=17, partial_sum_bits=17, adder_tree_bits=17,
        overflow=overflow,
    )  # fmt: skip
    bias, zeros = np.array([0, 50000, -60000]), np.array([0, 3, -7])
    stepped, fast = (
        ax.matmul(
            weights, activations, machine, bias=bias, weight_zero_point=zeros, activation_zero_point=7, engine=engine,
            track="range",
        )
        for engine in ("stepped", "fast")
    )  # fmt: skip
    assert stepped.overflow_events.any()
    for name in (
        "accumulators",
        "overflow_events",
        "first_overflow",
        "partial_overflow_events",
        "range_min",
        "range_max",
    ):
        assert np.array_equal(getattr(stepped, name), getattr(fast, name)), name
    columns = [0, 1, 511, 512, 1023, 1024, 1100]
    expected = naive.gemm(weights.tolist(), activations[:, columns].tolist(), machine, bias.tolist(), zeros.tolist(), 7)
    assert fast.accumulators[:, columns].tolist() == [[output.accumulator for output in row] for row in expected]
    assert fast.overflow_events[:, columns].tolist() == [[output.events for output in row] for row in expected]


def test_matmul_of_the_same_values_is_the_same_whatever_ran_before():
    gemm = Gemm([[3, -2], [1, 7]], [[5, 1], [2, -9]], [1, -1], [1, 0], 2)
    machine = ax.Machine(rows=1, columns=2, accumulator_bits=5, overflow="saturate")
    results = [run(gemm, machine, engine, "range") for engine in ("fast", "stepped", "fast")]
    for result in results[1:]:
        assert np.array_equal(result.accumulators, results[0].accumulators)
        assert np.array_equal(result.range_max, results[0].range_max)


@given(gemm=gemms(), machine=machines(dataflow="output_stationary", accumulator_bits=4, overflow="saturate"))
def test_operands_are_left_as_they_were(gemm, machine):
    (weights, activations), named = gemm.arguments()
    assume(weights.size > 1)
    before = weights.copy(), activations.copy(), named["bias"].copy()
    for engine in ("stepped", "fast"):
        ax.matmul(weights, activations, machine, **named, engine=engine)
    for array, kept in zip((weights, activations, named["bias"]), before, strict=True):
        assert np.array_equal(array, kept)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": [[0.5]]}, "weights must be an integer array"),
        ({"weights": [1]}, "weights must have 2 non-empty axes"),
        ({"activations": np.zeros((1, 0), int)}, "activations must have 2 non-empty axes"),
        ({"activations": [[1], [2]]}, "must share k"),
        ({"weights": [[65536]]}, "weights must fit"),
        ({"weights": [[-1, 65535]], "activations": [[1], [1]]}, "weights must fit"),
        ({"activations": [[-32769]]}, "activations must fit"),
        ({"bias": [1, 2]}, "bias must have one value per output channel"),
        ({"bias": [0.5]}, "bias must be an integer array"),
        ({"bias": [2**60 + 1]}, r"bias must be within \+-2\^60"),
        ({"bias": [-(2**63)]}, r"bias must be within \+-2\^60, got -9223372036854775808"),
        ({"bias": np.array([2**64 - 1], dtype=np.uint64)}, r"bias must be within \+-2\^60, got 18446744073709551615"),
        ({"weight_zero_point": [1, 2]}, "weight_zero_point must be an integer or 1 of them"),
        ({"weight_zero_point": 65536}, "weight_zero_point must be a code"),
        ({"activation_zero_point": -32769}, "activation_zero_point must be a code"),
        ({"engine": "quick"}, "engine"),
        ({"track": "all"}, "track"),
        ({"trace": True}, "trace=True needs engine='stepped'"),
        ({"machine": ax.Machine(weight_bits=4), "weights": [[16]]}, "weights must fit"),
        ({"machine": ax.Machine(activation_bits=4), "activations": [[-9]]}, "activations must fit"),
    ],
)
def test_wrong_operands_are_refused(arguments, message):
    with pytest.raises(ax.OperandError, match=message):
        ax.matmul(**{"weights": [[1]], "activations": [[1]], **arguments})
