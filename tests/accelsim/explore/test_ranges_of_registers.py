"""What registers that hold everything hold, output by output: the oracle in Python integers says the same."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from accelsim.explore.observation import needed_bits
from accelsim.simulator.ranges import exact_accumulators, register_ranges
from tests.accelsim.explore.layers_at_random import cases
from tests.naive.widths import register_values, width


@given(cases(), st.randoms(use_true_random=False))
def test_ranges_of_all_registers_are_those_of_the_oracle(case, random):
    codes = [case.format.minimum, case.format.maximum, case.zero_point]
    size = int(np.prod(case.geometry.input_shape))
    images = np.array([random.choice(codes) for _ in range(2 * size)], dtype=np.int32)
    images = images.reshape(2, *case.geometry.input_shape)
    wanted = [list(case.outputs(image.tolist())) for image in images]
    outputs, places = len(case.weights), case.geometry.num_positions
    found = np.zeros((5, outputs, 2 * places), dtype=np.int64)
    for piece in register_ranges(case.layer, images, case.machine):
        at = slice(piece.first_position, piece.first_position + piece.values.range_min.shape[1])
        parts = (piece.values.range_min, piece.values.range_max, piece.partial_least, piece.partial_greatest)
        for i, part in enumerate((*parts, piece.values.accumulators)):
            if part is not None:
                found[i, piece.channels, at] = part
    for i, image in enumerate(wanted):
        for place, (n, *output) in enumerate(image):
            values = register_values(*output, case.machine)
            running = values.pop("accumulator")
            inner = [0, *next(iter(values.values()), [])]
            at = found[:, n, i * places + place % places]
            assert at.tolist() == [min(running), max(running), min(inner), max(inner), running[-1]]
    np.testing.assert_array_equal(exact_accumulators(case.layer, images, case.machine), found[4])


@given(st.lists(st.tuples(*(st.integers(-(2**62), 2**62) | st.integers(-300, 300),) * 2), min_size=1))
def test_needed_bits_is_the_narrowest_width_element_by_element(pairs):
    least, greatest = np.array([sorted(pair) for pair in pairs]).T
    assert needed_bits(least, greatest).tolist() == [width(pair) for pair in pairs]
