"""Running ranges of layers that run channels last: docs/numerics.md, section 3."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import accelsim as ax
from accelsim.program.geometry import Geometry
from accelsim.simulator.engine.layer_blocks import image_of
from accelsim.simulator.engine.layer_ranges import LayerRanges
from accelsim.simulator.engine.safe import SafeLayer
from accelsim_kernels.vectors import window_ranges
from tests.accelsim.simulator.gemm_cases import DATAFLOWS
from tests.accelsim.simulator.test_safe_layers import PATHS, convolutions, mac_layer, path
from tests.kernels.test_vectors import compiled, jit_only
from tests.naive import conv as naive

WIDE = {"accumulator_bits": 60}


def oracle(layer, images, weights, machine):
    """Least and greatest running sum of the layer by the definition."""
    g = layer.geometry
    fed = images.astype(int) - layer.input_offset
    # The oracle folds the zero point, which the layer knows only as what a padded tap holds: take the term (7) back.
    own = weights.reshape(len(weights), -1) - layer.weight_zero_points[:, None]
    bias, zeros = layer.start + layer.pad_value * own.sum(axis=1), layer.weight_zero_points.tolist()
    outputs = naive.conv2d(
        fed.tolist(), weights.tolist(), machine, bias.tolist(), zeros, layer.pad_value, g.strides, g.pads, g.dilations,
        g.groups,
    )  # fmt: skip
    flat = [output for image in outputs for plane in image for row in plane for output in row]
    return min(output.range_min for output in flat), max(output.range_max for output in flat)


@pytest.mark.parametrize("way", PATHS)
@given(
    case=convolutions(), x=st.sampled_from([(4, True), (8, False), (8, True), (11, False), (16, True), (16, False)]),
    spread=st.sampled_from([1, 127, 2**10]), dataflow=st.sampled_from(DATAFLOWS), rows=st.integers(1, 5),
    reduction_order=st.sampled_from(["channel_first", "spatial_first"]), start=st.sampled_from([0, 50, 2**20]),
    images=st.integers(1, 2), seed=st.integers(0, 2**32 - 1), zero_points=st.booleans(),
)  # fmt: skip
@example(
    case=(Geometry((40, 2, 3), (2, 2), (1, 1), (0, 1, 0, 0), (1, 1), (1, 3), 40), 40), x=(16, False), spread=127,
    dataflow="weight_stationary", rows=3, reduction_order="spatial_first", start=50, images=2, seed=1,
    zero_points=False,
)  # fmt: skip
@example(
    case=(Geometry((3, 1, 70), (1, 2), (1, 1), (0, 0, 0, 0), (1, 1), (1, 69), 3), 3), x=(8, False), spread=127,
    dataflow="output_stationary", rows=1, reduction_order="channel_first", start=2**20, images=1, seed=2,
    zero_points=True,
)  # fmt: skip
def test_the_range_of_a_layer_is_that_of_its_outputs(
    way, case, x, spread, dataflow, rows, reduction_order, start, images, seed, zero_points
):
    geometry, channels = case
    rng, x = np.random.default_rng(seed), ax.IntegerFormat(*x)
    weights = rng.integers(-spread, spread + 1, (channels, geometry.group_channels, *geometry.kernel_shape))
    codes = rng.choice([x.minimum, x.maximum, 0, 1, 1], (images, *geometry.input_shape))
    offset, pad = int(rng.choice([0, 0, x.maximum // 3])), int(rng.choice([0, 5]))
    machine = ax.Machine(rows=rows, columns=rows, dataflow=dataflow, reduction_order=reduction_order, **WIDE)
    by_order = weights if reduction_order == "channel_first" else weights.transpose(0, 2, 3, 1)
    starts = rng.integers(-start, start + 1, channels)
    zeros = rng.integers(-spread, spread + 1, channels) if zero_points else np.zeros(channels, dtype=np.int64)
    layer = mac_layer(by_order, starts, geometry, x, (-(2**15), 2**15 - 1), "tflite", offset, pad, zeros=zeros)
    with path(way):
        safe = SafeLayer.of(layer, machine)
        ranges = None if safe is None else LayerRanges.of(safe, machine)
        if ranges is None:  # words of 16 bits and their products
            assert x.bits == 16
            assert spread > 1
            return
        assert LayerRanges.of(safe, machine) is ranges
        found = ranges.run(np.ascontiguousarray(codes.astype(x.dtype).transpose(0, 2, 3, 1)))
    assert found == oracle(layer, codes, weights, machine)


def test_sums_that_leave_32_bits_take_columns():
    geometry, x = Geometry((2, 1, 1), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), (1, 1)), ax.IntegerFormat(8, False)
    for start, fits in ((2**31 - 1 - 510, True), (2**31 - 510, False)):
        layer = mac_layer(np.ones((1, 2)), np.array([start]), geometry, x, (-(2**15), 2**15 - 1), "tflite")
        ranges = LayerRanges.of(SafeLayer.of(layer, ax.Machine()), ax.Machine())
        assert (ranges is not None) == fits
        if ranges is not None:
            assert ranges.run(np.full((1, 1, 1, 2), 255, dtype=np.uint8)) == (start, 2**31 - 1)


def test_an_image_is_its_operands_and_an_offset():
    """Also where the offset alone does not fit the type, but all sums do: codes of 16 bits with their highest bit."""
    for values, dtype, offset in (
        ([0, 255], np.int16, -3), ([-(1 << 15), -5], np.int16, 1 << 15), ([-5, (1 << 15) - 1], np.int32, 1 << 15)
    ):  # fmt: skip
        image = image_of(np.array(values, dtype=np.uint8 if min(values) >= 0 else np.int16), dtype, offset)
        assert image[:-1].tolist() == [value + offset for value in values]
        assert (image.dtype, image.size) == (dtype, 3)
    assert image_of(np.array([3], dtype=np.uint8), np.int16).tolist() == [3, 0]


@jit_only
@pytest.mark.parametrize("step", [window_ranges.window_range_1, window_ranges.window_range_4])
@pytest.mark.parametrize("dtype", [np.int16, np.int32])
@pytest.mark.parametrize("tile", [1, 2, 5, 9])
def test_ranges_of_windows_of_channels_are_their_scalar_loop(step, dtype, tile):
    rng, results = np.random.default_rng(tile), []
    rows = rng.choice([-(1 << 15), (1 << 15) - 1, 1], 300).astype(dtype)
    weights = rng.choice([-(1 << 12), 1 << 12, 3], (7, 70)).astype(np.int16)
    start, segments = rng.integers(-(1 << 29), 1 << 29, 70).astype(np.int32), np.array([0, 9, 3, 100, 50, 51, 200])
    for run in (compiled(step), step.scalar):
        least, most = start.copy(), start.copy()
        least[::3], most[::5] = -(1 << 30), 1 << 30
        run(rows, 4, segments, weights, 5, tile, start, least, most)
        results.append((least, most))
    assert np.array_equal(*results)
    assert (results[0][0][5:21] != start[5:21]).any()
