"""Columns of a convolution: docs/numerics.md section 2."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from accelsim_kernels.lowering import columns_of
from tests.naive import conv as naive


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
