"""Columns of a convolution and the convolution without them: docs/numerics.md section 2."""

from types import SimpleNamespace

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from accelsim_kernels.depthwise import exact_depthwise
from accelsim_kernels.lowering import columns_of
from tests.naive import conv as naive

EXACT = SimpleNamespace(
    dataflow="output_stationary", accumulator_bits=64, partial_sum_bits=None, adder_tree_bits=None, overflow="wrap",
    zero_point="folded", reduction_order="channel_first", product_shift_bits=0, product_rounding="floor",
)  # fmt: skip


def pair(values):
    return np.int64(values[0]), np.int64(values[1])


@st.composite
def windows(draw):
    """Return (images, image shape, kernel, strides, pads, dilations, output shape)."""
    kernel, strides, dilations = (tuple(draw(st.integers(1, most)) for _ in range(2)) for most in (3, 3, 2))
    pads = tuple(draw(st.integers(0, 2)) for _ in range(4))
    reach = [dilations[axis] * (kernel[axis] - 1) + 1 for axis in range(2)]
    shape = tuple(draw(st.integers(max(1, reach[a] - pads[a] - pads[a + 2]), reach[a] + 3)) for a in range(2))
    output = tuple(
        naive.output_size(shape[a], kernel[a], strides[a], pads[a], pads[a + 2], dilations[a]) for a in range(2)
    )
    return draw(st.integers(1, 2)), shape, kernel, strides, pads, dilations, output


ONE = (1, (1, 1), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), (1, 1))
ALL_PADDING = (1, (1, 1), (2, 2), (1, 1), (2, 2, 2, 2), (1, 1), (4, 4))


@given(window=windows(), groups=st.integers(1, 2), group_channels=st.integers(1, 3), data=st.data())
@example(window=ONE, groups=1, group_channels=1, data=None)
@example(window=ALL_PADDING, groups=2, group_channels=2, data=None)
def test_columns_hold_the_taps_in_the_order_of_the_reduction(window, groups, group_channels, data):
    batch, shape, kernel, strides, pads, dilations, output = window
    num_positions = batch * output[0] * output[1]
    bounds = (0, num_positions)
    if data is not None:
        bounds = sorted((data.draw(st.integers(0, num_positions)), data.draw(st.integers(0, num_positions))))
    begin, end = bounds
    channels = groups * group_channels
    activations = np.arange(batch * channels * shape[0] * shape[1], dtype=np.int32).reshape(batch, channels, *shape)
    for group in range(groups):
        for order in ("channel_first", "spatial_first"):
            columns = np.full((group_channels * kernel[0] * kernel[1], end - begin), -7, dtype=np.int32)
            columns_of(
                activations, np.int64(group * group_channels), np.int64(group_channels), pair(kernel), pair(strides),
                pair(pads), pair(dilations), pair(output), np.int64(-1), order == "spatial_first", np.int64(begin),
                np.int64(end), columns,
            )  # fmt: skip
            taps = naive.taps(group_channels, *kernel, order)
            for position in range(begin, end):
                image, pixel = divmod(position, output[0] * output[1])
                row, column = divmod(pixel, output[1])
                for k, (c, u, v) in enumerate(taps):
                    i = row * strides[0] - pads[0] + u * dilations[0]
                    j = column * strides[1] - pads[1] + v * dilations[1]
                    inside = 0 <= i < shape[0] and 0 <= j < shape[1]
                    wanted = activations[image, group * group_channels + c, i, j] if inside else -1
                    assert columns[k, position - begin] == wanted


@given(window=windows(), channels=st.integers(1, 3), multiplier=st.integers(1, 2), seed=st.integers(0, 2**32 - 1))
@example(window=ONE, channels=1, multiplier=1, seed=0)
@example(window=ALL_PADDING, channels=2, multiplier=2, seed=1)
def test_depthwise_is_the_convolution_by_its_definition(window, channels, multiplier, seed):
    batch, shape, kernel, strides, pads, dilations, output = window
    random = np.random.default_rng(seed)
    ends = np.array([-(2**15), 2**16 - 1])
    activations = random.choice(ends, (batch, channels, *shape)).astype(np.int32)
    weights = random.choice(ends, (channels * multiplier, 1, *kernel)).astype(np.int32)
    start = random.integers(-(2**60), 2**60, channels * multiplier)
    pad_value = int(random.choice(ends))
    outputs = naive.conv2d(
        activations.tolist(), weights.tolist(), EXACT, [0] * len(start), None, pad_value, strides, pads, dilations,
        channels,
    )  # fmt: skip
    # The oracle folds the zero point, which the kernel knows only as what a padded tap holds: take the term (7) back.
    sums = weights.reshape(len(weights), -1).sum(axis=1, dtype=np.int64) * pad_value
    rows = np.arange(0, len(start), 2)
    accumulators = np.full((len(start), batch, *output), -7, dtype=np.int64)
    exact_depthwise(
        activations, weights.reshape(len(weights), -1), start, rows, pair(kernel), pair(strides), pair(pads),
        pair(dilations), np.int64(pad_value), accumulators,
    )  # fmt: skip
    for n in range(len(start)):
        for image in range(batch):
            plane = [[out.accumulator + int(start[n]) + int(sums[n]) for out in row] for row in outputs[image][n]]
            untouched = np.full(output, -7).tolist()
            assert accumulators[n, image].tolist() == (plane if n % 2 == 0 else untouched)
