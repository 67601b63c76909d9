"""Layers with channels at risk of overflow, channels last: docs/numerics.md (103), (104), (106)."""

from math import isqrt

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import accelsim as ax
from accelsim.program.geometry import Geometry
from accelsim.simulator.engine import extreme_proofs, layer_marks, layer_steps, part_proofs, tracked
from accelsim.simulator.engine.layer_risk import LayerAtRisk
from accelsim.simulator.engine.layer_steps import LayerEvents
from accelsim.simulator.engine.safe import SafeLayer
from accelsim_kernels.processor import has_dot_instructions, settings
from tests.accelsim.simulator.gemm_cases import DATAFLOWS
from tests.accelsim.simulator.test_safe_layers import PATHS, convolutions, mac_layer, path, requantized
from tests.naive import conv as naive
from tests.naive.integers import root_rounded_up


def oracle(layer, images, weights, machine):
    """Accumulators (images, channels, rows, columns) and events of the layer by the definition."""
    g = layer.geometry
    fed = images.astype(int) - layer.input_offset
    # The oracle folds the zero point, which the layer knows only as what a padded tap holds: take the term (7) back.
    bias = layer.start + layer.pad_value * weights.reshape(len(weights), -1).sum(axis=1)
    outputs = naive.conv2d(
        fed.tolist(), weights.tolist(), machine, bias.tolist(), None, layer.pad_value, g.strides, g.pads, g.dilations,
        g.groups,
    )  # fmt: skip
    flat = [output for image in outputs for plane in image for row in plane for output in row]
    sums = np.array([output.accumulator for output in flat]).reshape(len(images), len(weights), *g.output_shape)
    return sums, LayerEvents(
        sum(output.events for output in flat), sum(output.events > 0 for output in flat),
        sum(output.partial_events for output in flat),
    )  # fmt: skip


@pytest.mark.parametrize("way", PATHS)
@given(
    case=convolutions(), x=st.sampled_from([(4, True), (8, False), (8, True), (11, False), (16, True)]),
    spread=st.sampled_from([9, 127, 2**10]), dataflow=st.sampled_from(DATAFLOWS),
    overflow=st.sampled_from(["wrap", "saturate"]), rows=st.integers(1, 5), bits=st.integers(4, 24),
    inner=st.none() | st.integers(-3, 6), reduction_order=st.sampled_from(["channel_first", "spatial_first"]),
    start=st.sampled_from([0, 50, 2**10, 2**26]), images=st.integers(1, 2), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
@example(
    case=(Geometry((17, 2, 2), (2, 2), (1, 1), (0, 1, 0, 0), (1, 1), (1, 2), 17), 17), x=(8, True), spread=127,
    dataflow="weight_stationary", overflow="saturate", rows=2, bits=14, inner=-2, reduction_order="spatial_first",
    start=50, images=2, seed=1,
)  # fmt: skip
@example(
    case=(Geometry((8, 1, 2), (1, 2), (1, 1), (0, 0, 0, 0), (1, 1), (1, 1)), 20), x=(4, True), spread=2**10,
    dataflow="output_stationary", overflow="wrap", rows=1, bits=14, inner=None, reduction_order="spatial_first",
    start=0, images=1, seed=1,
)  # fmt: skip
@example(
    case=(Geometry((3, 1, 2), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), (1, 2)), 5), x=(4, True), spread=2**10,
    dataflow="output_stationary", overflow="wrap", rows=1, bits=11, inner=None, reduction_order="channel_first",
    start=0, images=2, seed=4,
)  # fmt: skip
@example(  # of two groups, the first had no block at risk
    case=(Geometry((4, 1, 1), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), (1, 1), 2), 6), x=(4, True), spread=9,
    dataflow="output_stationary", overflow="wrap", rows=1, bits=7, inner=None, reduction_order="channel_first",
    start=0, images=1, seed=70,
)  # fmt: skip
def test_a_layer_at_risk_is_the_oracle(
    way, case, x, spread, dataflow, overflow, rows, bits, inner, reduction_order, start, images, seed
):
    geometry, channels = case
    rng, x = np.random.default_rng(seed), ax.IntegerFormat(*x)
    weights = rng.integers(-spread, spread + 1, (channels, geometry.group_channels, *geometry.kernel_shape))
    codes = rng.choice([x.minimum, x.maximum, 0, 1, 1], (images, *geometry.input_shape))
    offset, pad = int(rng.choice([0, 0, x.maximum // 3])), int(rng.choice([0, 5]))
    # Partial registers from three bits less than a product takes on.
    greatest = max(x.maximum, abs(x.minimum - offset)) * int(np.abs(weights).max())
    partial = None if inner is None else max(4, greatest.bit_length() + 1 + inner)
    machine = ax.Machine(
        rows=rows, columns=rows, dataflow=dataflow, accumulator_bits=bits, overflow=overflow, partial_sum_bits=partial,
        adder_tree_bits=partial, reduction_order=reduction_order,
    )  # fmt: skip
    by_order = weights if reduction_order == "channel_first" else weights.transpose(0, 2, 3, 1)
    starts = rng.integers(-start, start + 1, channels)
    clamp = (-(2**15), 2**15 - 1) if x.bits > 8 else (-128, 127)
    layer = mac_layer(by_order, starts, geometry, x, clamp, "tflite", offset, pad)
    with path(way):
        safe = SafeLayer.of(layer, machine)
        at_risk = None if safe is None else LayerAtRisk.of(safe, machine)
        if at_risk is None:  # words of 16 bits and their products; registers that do not hold a product
            assert x.bits == 16 or spread > 127 or (inner is not None and inner < 0)
            return
        assert LayerAtRisk.of(safe, machine) is at_risk
        stored, events = at_risk.run(np.ascontiguousarray(codes.astype(x.dtype).transpose(0, 2, 3, 1)))
    sums, expected = oracle(layer, codes, weights, machine)
    assert events == expected
    assert np.array_equal(stored.transpose(0, 3, 1, 2), requantized(layer, sums))


operands = st.integers(0, 255) | st.sampled_from([0, 1, 255])


def stepped(layer, machine, column):
    """Whether the layer's one output is stepped."""
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        step = layer_steps.step_blocks
        patch.setattr(layer_steps, "step_blocks", lambda *arguments: seen.append(arguments) or step(*arguments))
        LayerAtRisk.of(SafeLayer.of(layer, machine), machine).run(column)
    return len(seen) == 1


def vectors(row, start, signed):
    """A layer of one output of vectors."""
    geometry = Geometry((len(row), 1, 1), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), (1, 1))
    x, clamp = ax.IntegerFormat(8, signed), (-(2**15), 2**15 - 1)
    return mac_layer(np.array([row]), np.array([start]), geometry, x, clamp, "tflite")


@pytest.mark.parametrize("signed", [False, True])
@given(
    row=st.lists(st.integers(-128, 127) | st.sampled_from([-128, 127]), min_size=1, max_size=40), data=st.data(),
    slack=st.integers(-2, 2), bits=st.integers(4, 30), inner=st.none() | st.integers(16, 24),
    side=st.sampled_from([1, -1]), dataflow=st.sampled_from(DATAFLOWS),
)  # fmt: skip
@example(row=[-128, 127] * 9, data=None, slack=0, bits=24, inner=24, side=1, dataflow="broadcast")
@example(row=[-128] * 3, data=None, slack=0, bits=22, inner=18, side=-1, dataflow="weight_stationary")
@example(row=[-128] * 3, data=None, slack=-1, bits=22, inner=None, side=1, dataflow="input_stationary")
def test_an_output_is_stepped_exactly_when_the_worst_order_does_not_fit(
    signed, row, data, slack, bits, inner, side, dataflow
):
    column = np.full(len(row), 255)
    if data is not None:
        column = np.array(data.draw(st.lists(operands, min_size=len(row), max_size=len(row))))
    column = column - 128 * signed
    products = [w * int(x) for w, x in zip(row, column, strict=True)]
    over, under = sum(m for m in products if m > 0), sum(m for m in products if m < 0)
    # The worst orders add all of one sign first; the start is put beside the value at which that just fits.
    start = 2 ** (bits - 1) - 1 - over + slack if side > 0 else -(2 ** (bits - 1)) - under + slack
    machine = ax.Machine(dataflow=dataflow, accumulator_bits=bits, partial_sum_bits=inner, adder_tree_bits=inner)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    fits = low <= start + under and start + over <= high
    inside = inner is None or dataflow == "output_stationary"
    inside = inside or (-(2 ** (inner - 1)) <= under and over < 2 ** (inner - 1))
    layer, fed = vectors(row, start, signed), column.astype(np.int8 if signed else np.uint8).reshape(1, 1, 1, -1)
    with path("portable"):  # there (106) alone is asked
        assert stepped(layer, machine, fed) == (not (fits and inside))
    if not has_dot_instructions():
        return
    # (107): four parts of the channels, each from the sum of those before it.
    size, before, parts_fit = -(-len(row) // 4), start, True
    for begin in range(0, len(row), size):
        part = products[begin : begin + size]
        parts_fit &= low <= before + sum(m for m in part if m < 0) and before + sum(m for m in part if m > 0) <= high
        before += sum(part)
    if size == len(row):  # a reduction of one term is not cut
        parts_fit = fits
    layer = vectors(row, start, signed)
    assert stepped(layer, machine, fed) == (not (inside and (fits or parts_fit)))


@pytest.mark.parametrize("x", [(8, False), (8, True), (11, False)])
@pytest.mark.parametrize("inner", [False, True])
def test_small_layers_equal_the_oracle_also_by_the_scalar_loops(x, inner, monkeypatch):
    if settings.DISABLE_JIT:  # what the instructions do is then done by the loops that they equal
        for module in (extreme_proofs, layer_marks, tracked):
            monkeypatch.setattr(module, "has_dot_instructions", lambda: True)
    rng, x = np.random.default_rng(7), ax.IntegerFormat(*x)
    geometry = Geometry((5, 2, 4), (2, 2), (1, 1), (0, 0, 0, 0), (1, 1), (1, 3))
    weights, codes = rng.integers(-100, 101, (3, 5, 2, 2)), rng.integers(x.minimum, x.maximum + 1, (2, 5, 2, 4))
    layer = mac_layer(weights, rng.integers(-50, 51, 3), geometry, x, (-(2**15), 2**15 - 1), "tflite")
    product_bits = (100 * max(x.maximum, -x.minimum)).bit_length() + 1
    machine = ax.Machine(
        rows=4, dataflow="weight_stationary", accumulator_bits=18 + x.bits // 11 * 3,
        partial_sum_bits=product_bits if inner else None,
    )  # fmt: skip
    stored, events = LayerAtRisk.of(SafeLayer.of(layer, machine), machine).run(
        np.ascontiguousarray(codes.astype(x.dtype).transpose(0, 2, 3, 1))
    )
    sums, expected = oracle(layer, codes, weights, machine)
    assert events == expected
    assert (events.partial > 0) == inner
    assert np.array_equal(stored.transpose(0, 3, 1, 2), requantized(layer, sums))


@pytest.mark.parametrize("groups", [1, 40])
def test_channels_at_risk_behind_a_block_of_safe_ones(groups):
    # Found by the widths of the digits network: of a depthwise layer, magnitudes of the first block were compared with
    # limits of the second, the only one with a channel at risk.
    geometry = Geometry((40, 2, 2), (2, 2), (1, 1), (0, 0, 0, 0), (1, 1), (1, 1), groups)
    weights = np.ones((40, 40 // groups, 2, 2), dtype=int)
    weights[20] = 100
    codes = np.full((1, 40, 2, 2), 100)
    layer = mac_layer(weights, np.zeros(40, dtype=np.int64), geometry, ax.IntegerFormat(8, False), (0, 200), "tflite")
    machine = ax.Machine(dataflow="weight_stationary", accumulator_bits=15 if groups == 40 else 20, rows=8)
    stored, events = LayerAtRisk.of(SafeLayer.of(layer, machine), machine).run(
        np.ascontiguousarray(codes.astype(np.uint8).transpose(0, 2, 3, 1))
    )
    sums, expected = oracle(layer, codes, weights, machine)
    assert events == expected
    assert events.events > 0
    assert np.array_equal(stored.transpose(0, 3, 1, 2), requantized(layer, sums))


def test_what_does_not_fit_lanes_takes_the_other_path():
    geometry = Geometry((2, 3, 3), (2, 2), (1, 1), (0, 0, 0, 0), (1, 1), (2, 2))
    x, start = ax.IntegerFormat(8, True), np.zeros(3, dtype=np.int64)
    layer = mac_layer(np.ones((3, 2, 2, 2)), start, geometry, x, (-128, 127), "tflite")
    assert LayerAtRisk.of(SafeLayer.of(layer, ax.Machine()), ax.Machine(accumulator_bits=31)) is None
    far = mac_layer(np.ones((3, 2, 2, 2)), start + 2**31, geometry, x, (-128, 127), "tflite")
    assert LayerAtRisk.of(SafeLayer.of(far, ax.Machine()), ax.Machine(accumulator_bits=20)) is None
    words = ax.IntegerFormat(16, True)
    wide = mac_layer(np.full((1, 2, 2, 2), 2**13), start[:1], geometry, words, (-(2**15), 2**15 - 1), "tflite")
    safe = SafeLayer.of(wide, ax.Machine())
    assert safe is None or LayerAtRisk.of(safe, ax.Machine(accumulator_bits=20)) is None


@pytest.mark.parametrize(("bits", "low", "asked"), [(15, 50, [256, 192, 952]), (15, 30, [256, 192]), (14, 50, [256])])
def test_proofs_are_tried_at_some_positions_before_the_others(bits, low, asked, monkeypatch):
    """Products up to 100 * 100 cancel within every part: at most positions, at few, or hardly anywhere."""
    geometry, x = Geometry((8, 1, 1400), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), (1, 1400)), ax.IntegerFormat(8, False)
    weights = np.tile([100, -100], (3, 4)).reshape(3, 8, 1, 1)
    codes = np.random.default_rng(0).choice([low, 99, 100], (1, 8, 1, 1400))
    layer = mac_layer(weights, np.zeros(3, dtype=np.int64), geometry, x, (-(2**15), 2**15 - 1), "tflite")
    machine, met = ax.Machine(dataflow="output_stationary", accumulator_bits=bits, overflow="saturate"), []
    at_risk = LayerAtRisk.of(SafeLayer.of(layer, machine), machine)
    prove = part_proofs.PartProofs.unmark
    monkeypatch.setattr(
        part_proofs.PartProofs, "unmark", lambda *arguments: met.append(arguments[3].size) or prove(*arguments)
    )
    stored, events = at_risk.run(np.ascontiguousarray(codes.astype(np.uint8).transpose(0, 2, 3, 1)))
    sums, expected = oracle(layer, codes, weights, machine)
    assert events == expected
    assert np.array_equal(stored.transpose(0, 3, 1, 2), requantized(layer, sums))
    assert met == (asked if has_dot_instructions() else [])


def left_by_extremes(layer, codes, weights, machine, channels, group):
    """Positions of which neither (114) nor (118) proves every channel of a group safe, with parts of so many inputs."""
    g, low, high = layer.geometry, -(2 ** (machine.accumulator_bits - 1)), 2 ** (machine.accumulator_bits - 1) - 1
    (top, left, bottom, right), (rows, columns), (down, across) = g.pads, g.kernel_shape, g.dilations
    fed = np.pad(
        codes.astype(int) - layer.input_offset, ((0, 0), (0, 0), (top, bottom), (left, right)),
        constant_values=layer.pad_value,
    )  # fmt: skip
    depth, per_group = g.group_channels, layer.num_outputs
    positions = []
    for image in fed[:, group * depth : (group + 1) * depth]:
        for y in range(g.output_shape[0]):
            for x in range(g.output_shape[1]):
                first = y * g.strides[0], x * g.strides[1]
                window = image[:, first[0] :, first[1] :][:, : rows * down : down, : columns * across : across]
                safe = True
                for n in range(group * per_group, (group + 1) * per_group):
                    before = int(layer.start[n])
                    for begin in range(0, depth, channels):
                        most = least = before
                        w, own = (v[begin : begin + channels].reshape(-1).tolist() for v in (weights[n], window))
                        norm = isqrt(sum(v * v for v in own)) + 1
                        sides = [w, w] if layer.input_offset else [[v for v in w if v > 0], [v for v in w if v < 0]]
                        up, down_by = (norm * root_rounded_up(sum(v * v for v in side)) for side in sides)
                        by_norm = low <= before - down_by and before + up <= high
                        apart = max(channels // 2, 1) if layer.input_offset == 0 else channels
                        for some in range(begin, begin + channels, apart):
                            w, own = (v[some : some + apart].reshape(-1).tolist() for v in (weights[n], window))
                            up, down_by = sum(v for v in w if v > 0), sum(v for v in w if v < 0)
                            most += max(0, *own) * up + min(0, *own) * down_by
                            least += max(0, *own) * down_by + min(0, *own) * up
                            before += sum(a * b for a, b in zip(w, own, strict=True))
                        safe &= by_norm or (low <= least and most <= high)
                positions.append(not safe)
    return np.flatnonzero(positions)


@pytest.mark.parametrize(
    ("geometry", "outputs", "bits", "cuts"),
    [
        (Geometry((16, 3, 5), (3, 3), (2, 1), (1, 0, 1, 2), (1, 1), (2, 5)), 7, 15, [16, 8, 4]),
        (Geometry((24, 4, 4), (2, 3), (1, 1), (0, 1, 0, 1), (2, 1), (2, 4), 2), 2 * 49, 14, [4]),
        (Geometry((3, 4, 6), (3, 2), (1, 2), (0, 0, 2, 0), (1, 1), (4, 3)), 17, 13, [1]),
        (Geometry((4, 4, 6), (2, 3), (1, 1), (0, 0, 1, 0), (1, 2), (4, 2), 2), 2 * 9, 12, [1]),
        (Geometry((192, 1, 3), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), (1, 3)), 33, 15, [64, 32]),
    ],
)
@pytest.mark.parametrize("offset", [0, 20])
def test_positions_are_left_exactly_where_neither_extremes_nor_norms_prove_them_safe(
    geometry, outputs, bits, cuts, offset, monkeypatch
):
    if settings.DISABLE_JIT:
        monkeypatch.setattr(extreme_proofs, "has_dot_instructions", lambda: True)
        monkeypatch.setattr(layer_marks, "has_dot_instructions", lambda: True)
    elif not has_dot_instructions():
        pytest.skip("this processor has no dot-product instructions")
    rng, x = np.random.default_rng(3), ax.IntegerFormat(8, False)
    weights = rng.integers(-9, 10, (outputs, geometry.group_channels, *geometry.kernel_shape))
    codes = rng.integers(0, 85, (3, *geometry.input_shape)) * rng.choice([0, 1, 3], (3, 1, *geometry.input_shape[1:]))
    layer = mac_layer(weights, rng.integers(-99, 100, outputs), geometry, x, (-128, 127), "tflite", offset, 5)
    machine = ax.Machine(dataflow="output_stationary", accumulator_bits=bits)
    safe = SafeLayer.of(layer, machine)
    at_risk, rows = LayerAtRisk.of(safe, machine), np.ascontiguousarray(codes.astype(np.uint8).transpose(0, 2, 3, 1))
    sums, expected = oracle(layer, codes, weights, machine)
    seen = []
    for group, proofs in enumerate(at_risk.steps.marks.extremes):
        assert [1 << int(cut.extremes[1]) for cut in proofs.cuts] == cuts
        for cut in proofs.cuts:
            codes_of = np.zeros((3 * geometry.output_shape[0] * geometry.output_shape[1], outputs), dtype=np.int8)
            found = proofs.positions_left(cut, safe.operands(rows), codes_of)
            places = left_by_extremes(layer, codes, weights, machine, 1 << int(cut.extremes[1]), group)
            assert np.array_equal(np.flatnonzero(found), places)
            seen.append(len(places))
            part = slice(group * layer.num_outputs, (group + 1) * layer.num_outputs)
            safe_ones = requantized(layer, sums).transpose(0, 2, 3, 1).reshape(codes_of.shape)[found == 0, part]
            assert np.array_equal(codes_of[found == 0, part], safe_ones)
    assert min(seen) < len(codes_of), seen
    assert max(seen) > 0, seen
    for _ in range(2):  # which cut proved enough is remembered
        stored, events = at_risk.run(rows)
        assert events == expected
        assert np.array_equal(stored.transpose(0, 3, 1, 2), requantized(layer, sums))
