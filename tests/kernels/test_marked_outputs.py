"""Marked outputs of a product: how they are stepped is chosen by counting, and operands lie as steps read them."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from accelsim_kernels.integers import num_bits
from accelsim_kernels.listed_proofs import lay_groups, unmark_listed
from accelsim_kernels.marked_outputs import ALONE, THIN, choose_ways, unmark_beyond, with_room
from accelsim_kernels.panel_marks import (
    TIMES,
    find_norms,
    find_panel_norms,
    groups_of_part,
    root_above,
    shift_of_norms,
    sum_and_mark,
)
from accelsim_kernels.processor import has_dot_instructions, settings, takes_bytes
from accelsim_kernels.term_layout import lay_block, lay_channels, lay_position, lay_terms
from accelsim_kernels.vectors.code import LANES
from accelsim_kernels.vectors.columns import POSITIONS
from tests.naive.integers import root_rounded_up

# Operands of 8 bits are made wider before they come here where a processor does not take them.
WIDTHS = [(np.int8, np.uint8)] * (takes_bytes() or bool(settings.DISABLE_JIT)) + [(np.int16, np.int16)]
ENDS = {np.int8: (-128, 127), np.uint8: (0, 255), np.int16: (-(2**15), 2**15 - 1)}


def words_of(terms, tile, shift, halves):
    """Terms two by two, from every tile's first on: numbers of 32 bits whose halves are terms of 16."""
    words = []
    for begin in range(0, len(terms), tile):
        some = [int(term) << shift for term in terms[begin : begin + tile]]
        some += [0] * (len(some) % 2)
        for low, high in zip(some[::2], some[1::2], strict=True):
            pair = [(low, 0), (0, high)] if halves else [(low, high)]
            for lower, upper in pair:
                word = lower % 2**16 + 2**16 * (upper % 2**16)
                words.append(word - 2**32 if word >= 2**31 else word)
    return words


@given(data=st.data(), kind=st.sampled_from(list(ENDS)), num_terms=st.integers(1, 25), halves=st.booleans())
@example(data=None, kind=np.int8, num_terms=9, halves=True)
@example(data=None, kind=np.int16, num_terms=10, halves=False)
def test_terms_are_laid_out_in_pairs_of_their_tile(data, kind, num_terms, halves):
    least, greatest = ENDS[kind]
    terms, tile, shift = [least, greatest] * (num_terms // 2) + [least] * (num_terms % 2), num_terms, 0
    if data is not None:
        terms = data.draw(st.lists(st.integers(least, greatest), min_size=num_terms, max_size=num_terms))
        tile, shift = data.draw(st.integers(1, num_terms)), data.draw(st.integers(0, 0 if kind == np.int16 else 7))
    wanted = words_of(terms, tile, shift, halves)
    numbers = np.full(len(wanted), -7, dtype=np.int32)
    lay_terms(np.array(terms, dtype=kind), np.int64(num_terms), np.int64(tile), np.int64(shift), True, halves, numbers)
    assert numbers.tolist() == wanted


@pytest.mark.parametrize(("kind", "unsigned"), WIDTHS)
@pytest.mark.parametrize("tile", [3, 4, 11])
def test_channels_and_positions_are_lanes_and_rows(kind, unsigned, tile):
    rng, per_group = np.random.default_rng(tile), 4 // np.dtype(kind).itemsize
    groups = -(-11 // per_group)
    weights = np.zeros((18, groups * per_group), dtype=kind)
    weights[:, :11] = rng.integers(*ENDS[kind], (18, 11))
    form = (np.int64(tile), np.int64(0), np.int64(0), np.int64(0), True, np.int64(0), (np.int64(0),) * 6)
    pairs = len(words_of(weights[0, :11], tile, 0, False))
    lanes, rows = np.zeros((2, pairs * LANES), np.int32), np.zeros((18, 2 * pairs), np.int32)
    lay_channels(weights, np.int64(11), form, lanes, True, True)
    lay_channels(weights, np.int64(11), form, rows, False, True)
    for n in range(18):
        assert lanes[n // LANES].reshape(pairs, LANES)[:, n % LANES].tolist() == words_of(
            weights[n, :11], tile, 0, False
        )
        assert rows[n].tolist() == words_of(weights[n, :11], tile, 0, True)
    assert not lanes[1].reshape(pairs, LANES)[:, 2:].any()
    # Two panels: by group, position, term of the group.
    panels = rng.integers(*ENDS[unsigned], (2, groups, POSITIONS, per_group)).astype(unsigned)
    panels[:, -1, :, 11 - (groups - 1) * per_group :] = 0
    line, numbers = np.empty(groups * per_group, dtype=unsigned), np.zeros(2 * pairs, dtype=np.int32)
    for position in (0, 63, 64, 100):
        lay_position(panels.reshape(-1), np.int64(position), np.int64(11), form, True, line, numbers)
        terms = panels[position // POSITIONS, :, position % POSITIONS].reshape(-1)[:11]
        assert numbers.tolist() == words_of(terms, tile, 0, True)
    words = np.zeros((pairs, LANES), dtype=np.int32)
    for first in (0, 48, 80):
        lay_block(panels.reshape(-1), np.int64(first), np.int64(11), form, True, line, words.reshape(-1))
        for lane in range(LANES):
            terms = panels[(first + lane) // POSITIONS, :, (first + lane) % POSITIONS].reshape(-1)[:11]
            assert words[:, lane].tolist() == words_of(terms, tile, 0, False)


@given(data=st.data(), thin=st.sampled_from([THIN, ALONE]))
@example(data=None, thin=THIN)
@example(data=None, thin=ALONE)
def test_the_way_of_a_square_is_the_one_with_the_fewest_steps(data, thin):
    masks = np.zeros((20, 5), dtype=np.int32)
    if data is None:
        masks[3], masks[:16, 3] = 0xFFFF, 1 << 7  # a channel everywhere; a position of all channels of a block
        masks[3, 3], masks[17, 4] = 0xFFFF, 0xFFFF  # both
    else:
        for _ in range(data.draw(st.integers(0, 30))):
            n, v = data.draw(st.integers(0, 19)), data.draw(st.integers(0, 4))
            masks[n, v] = data.draw(st.sampled_from([0xFFFF, 1, 0x8000]) | st.integers(0, 0xFFFF))
    ways = np.full((3, 2, 4), -7, dtype=np.int32)
    counted = choose_ways(masks, np.int64(1), np.int64(thin), ways)
    expected_rows = expected_marks = expected_alone = 0
    for b in range(2):
        for v in range(4):
            square = [
                (n, p) for n in range(16 * b, min(16 * b + 16, 20)) for p in range(16) if masks[n, v + 1] >> p & 1
            ]
            positions, channels = {p for _, p in square}, {n - 16 * b for n, _ in square}
            per_channel = {c: {p for n, p in square if n - 16 * b == c} for c in channels}
            heavy = {c for c, own in per_channel.items() if len(own) > 8}
            rest = set().union(*(own for c, own in per_channel.items() if c not in heavy))
            ways_to_do = [(positions, set()), (set(), channels), (rest, heavy)]
            fewest = min(len(first) + len(second) for first, second in ways_to_do)
            expected_marks += len(square)
            if len(square) < thin * fewest:
                assert ways[:, b, v].tolist() == [0, 0, 1]
                expected_alone += len(square)
                continue
            expected_rows += fewest
            chosen = next(way for way in ways_to_do if len(way[0]) + len(way[1]) == fewest)
            assert ways[:, b, v].tolist() == [*(sum(1 << i for i in some) for some in chosen), 0]
    assert counted == (expected_rows, expected_marks, expected_alone)


@pytest.mark.parametrize(("kind", "unsigned"), WIDTHS)
def test_marks_are_taken_off_where_the_running_sum_stays_inside(kind, unsigned):
    if not has_dot_instructions() and not settings.DISABLE_JIT:
        pytest.skip("this processor has no dot-product instructions")
    rng, per_group = np.random.default_rng(3), 4 // np.dtype(kind).itemsize
    weights = rng.integers(-9, 10, (70, 3 * per_group)).astype(kind)  # of the second sixty-four channels only six
    panels = rng.integers(0 if kind == np.int8 else -9, 10, (2, 3, POSITIONS, per_group)).astype(unsigned)
    low, high = rng.integers(-200, 0, 70).astype(np.int32), rng.integers(0, 200, 70).astype(np.int32)
    masks = rng.integers(0, 1 << 16, (70, 11)).astype(np.int32) & rng.integers(0, 1 << 16, (70, 11)).astype(np.int32)
    ways = np.ones((5, 8), dtype=np.int32)
    ways[2, 3] = 0
    groups = np.full((2, 3, 64), -7, dtype=np.int32)
    lay_groups(weights, groups)
    before = masks.copy()
    tried, taken_off = unmark_listed(groups, panels.reshape(-1), np.int64(2 * LANES), low, high, ways, masks)
    looked_at = safe = 0
    for n in range(70):
        for p in range(2 * POSITIONS):
            block, bit = 2 + p // LANES, 1 << p % LANES
            if not before[n, block] & bit or not ways[n // LANES, p // LANES]:
                continue
            looked_at += 1
            column = panels[p // POSITIONS, :, p % POSITIONS].reshape(-1).tolist()
            products, total, met = [w * x for w, x in zip(weights[n].tolist(), column, strict=True)], 0, [0]
            for begin in range(0, len(products), 4 if kind == np.int8 else 1):
                some = products[begin : begin + (4 if kind == np.int8 else 1)]
                met += [total + sum(v for v in some if v < 0), total + sum(v for v in some if v > 0)]
                total += sum(some)
            if low[n] <= min(met) and max(met) <= high[n]:
                safe += 1
                before[n, block] &= ~bit
    assert np.array_equal(masks, before)
    assert (tried, taken_off) == (looked_at, safe)
    assert 0 < safe < looked_at


@pytest.mark.parametrize("length", range(len(TIMES)))
@pytest.mark.parametrize(("kind", "unsigned", "scale"), [*((*width, 1) for width in WIDTHS), (np.int16, np.int16, 90)])
def test_sums_of_panels_are_marked_where_a_part_may_pass_a_limit(kind, unsigned, length, scale):
    if not has_dot_instructions() and not settings.DISABLE_JIT:
        pytest.skip("this processor has no dot-product instructions")
    words = kind == np.int16
    rng, per_group = np.random.default_rng(5), 4 // np.dtype(kind).itemsize
    weights = rng.integers(-9, 10, (7, 23 * per_group)).astype(kind) * kind(scale)  # more than a tile, ragged parts
    panels = rng.integers(-9 if words else 0, 10, (2, 23, POSITIONS, per_group)).astype(unsigned) * unsigned(3 * scale)
    values = panels.transpose(0, 2, 1, 3).reshape(2 * POSITIONS, -1).tolist()
    shifts = [int(shift_of_norms(np.int64(most))) for most in (9 * scale, 27 * scale)]
    assert shifts == ([0, 0] if scale == 1 else [0, 2])
    reach = 9 * 27 * scale**2 * 5 * per_group
    most = (np.array([reach, reach, reach // 2, reach // 3, 2 * reach, -1, 2**29 - 1]) >> sum(shifts)).astype(np.int32)
    start, rows = rng.integers(-(2**40), 2**40, 7), np.minimum(np.arange(14), 6)
    origin, masks = rng.integers(-reach // 4, reach // 4, 7).astype(np.int32), np.full((7, 9), -7, dtype=np.int32)
    accumulators = np.full((7, 16 + 2 * POSITIONS - 3), -7, dtype=np.int64)
    part_groups = int(groups_of_part(np.int64(length), weights))
    assert part_groups == [6, 2, 1][length]
    count, size = -(-23 // part_groups), part_groups * per_group
    own, others = np.full((7, count), -7, dtype=np.int32), np.full((2, count, POSITIONS), -7, dtype=np.int32)
    find_norms(weights, np.int64(part_groups), words, np.int64(shifts[0]), own)
    packed = panels.reshape(-1).view(np.uint8)
    find_panel_norms(
        packed, weights, np.int64(2), np.int64(part_groups), not words, np.int64(shifts[1]), others
    )  # fmt: skip
    sum_and_mark(
        weights, packed, np.int64(16), np.int64(2), start, rows, np.int64(part_groups), own, others,
        np.int64(sum(shifts)), origin, most, accumulators, masks,
    )  # fmt: skip
    marks = 0
    for n, row in enumerate(weights.tolist()):
        parts = [row[begin : begin + size] for begin in range(0, len(row), size)]
        for part, norm in zip(parts, own[n].tolist(), strict=True):
            up, down = (sum(w * w for w in part if w * side > 0) for side in (1, -1))
            assert norm == root_rounded_up(up + down if words else max(up, down))  # weights are not shifted here
        for p, column in enumerate(values):
            products, worst = [w * x for w, x in zip(row, column, strict=True)], 0
            for part, begin in enumerate(range(0, len(row), size)):
                norm = int(others[p // POSITIONS, part, p % POSITIONS])
                squares = sum(x * x for x in column[begin : begin + size])
                assert norm << shifts[1] >= root_rounded_up(squares)
                assert shifts[1] or norm == root_rounded_up(squares)
                before = abs(int(origin[n]) + sum(products[:begin])) >> sum(shifts)
                worst = max(worst, before + norm * int(own[n, part]))
            assert masks[n, 1 + p // LANES] >> p % LANES & 1 == (worst > most[n])
            marks += worst > most[n]
            if p < 2 * POSITIONS - 3:
                assert accumulators[n, 16 + p] == start[n] + origin[n] + sum(products)
    assert 2 * POSITIONS < marks < 12 * POSITIONS
    assert (masks[:, 0] == -7).all()
    assert (accumulators[:, :16] == -7).all()


@pytest.mark.parametrize("number", [0, 1, 2, 4, 5, 2**26, 2**26 + 1, 2**28 - 1])
def test_roots_are_rounded_up(number):
    assert root_above(np.int64(number)) == root_rounded_up(number)


def test_bits_are_counted_and_those_beyond_the_end_taken_away():
    for mask in (0, 1, 0x8000, 0xFFFF, 0x5A3C):
        assert num_bits(np.int64(mask)) == mask.bit_count()
    for end in (1, 16, 17, 64, 65):
        masks = np.full((2, 8), 0xFFFF, dtype=np.int32)
        unmark_beyond(masks, np.int64(end))
        assert [sum(int(mask).bit_count() for mask in row) for row in masks] == [end, end]


def test_a_list_grows_and_keeps_what_it_has():
    listed = with_room(np.empty((4, 0), dtype=np.int64), np.int64(0), np.int64(3))
    listed[:] = np.arange(12).reshape(4, 3)
    larger = with_room(listed, np.int64(2), np.int64(4))
    assert larger.shape[1] >= 4
    assert np.array_equal(larger[:, :2], listed[:, :2])
    enough = with_room(larger, np.int64(4), np.int64(4))
    enough[0, 0] = 99
    assert larger[0, 0] == 99
