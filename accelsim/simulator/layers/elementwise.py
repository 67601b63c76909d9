"""Element-wise layers of two inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np

from accelsim.program import layers as kinds
from accelsim.simulator.counts import Operation
from accelsim.simulator.engine import codes as engine_codes
from accelsim.simulator.engine.steps import Bound
from accelsim.simulator.layers.registry import Codes, VectorCount, binds, counts, executes, wide
from accelsim.simulator.operations import FLOAT_BITS, WIDE_BITS, ending, rescaling

_PAIRS = 1 << 16
"""Pairs of codes of 8 bits."""

_MANY = 1 << 10
"""Pairs of a batch from which on a table is made at once where there will be more such batches."""

_TABLES: WeakKeyDictionary[kinds.AddLayer, dict[str, Codes]] = WeakKeyDictionary()
"""What the layers that ran before store for every pair of codes, by the types of the two."""

_ADDED: WeakKeyDictionary[kinds.AddLayer, int] = WeakKeyDictionary()
"""Pairs that layers without a table have added so far."""


@executes(kinds.AddLayer, as_stored=True)
def add(layer: kinds.AddLayer, inputs: Sequence[Codes]) -> Codes:
    """Add or subtract, docs/numerics.md (25) to (27): each pair of codes once, where there have been more."""
    a, b, channels_last = _pairs(inputs)
    narrow = (
        _sums_by_table(layer, a, b) if a.itemsize == b.itemsize == 1 and _pays(layer, a.size) else _sums(layer, a, b)
    )
    return _clamped(narrow.transpose(0, 3, 1, 2) if channels_last else narrow, layer)


@binds(kinds.AddLayer)
def bind_add(layer: kinds.AddLayer, inputs: Sequence[Codes]) -> Bound | None:
    """Bind an addition of many codes of 8 bits, or of few that go by a table already, to the table.

    Channels that are clamped differently, or codes that are copied first, are not bound.
    """
    a, b, channels_last = _pairs(inputs)
    by_table = a.itemsize == b.itemsize == 1 and (a.size >= _MANY or _pays(layer, 0))
    copied = not (np.may_share_memory(a, inputs[0]) and np.may_share_memory(b, inputs[1]))
    if not by_table or copied or layer.channel_clamps is not None:
        return None
    bound = engine_codes.bind_pairs(a, b, _table(layer, a, b))
    return bound._replace(codes=bound.codes.transpose(0, 3, 1, 2)) if channels_last else bound


def _pairs(inputs: Sequence[Codes]) -> tuple[Codes, Codes, bool]:
    """Return what is added, of one shape and contiguous, and whether axis 1 of images is at its end."""
    a, b = inputs
    if a.shape != b.shape:
        shape = np.broadcast_shapes(a.shape, b.shape)
        a, b = np.broadcast_to(a, shape), np.broadcast_to(b, shape)
    channels_last = a.ndim == 4 and not inputs[0].flags.c_contiguous  # as convolutions leave their images
    return _in_memory(a, channels_last), _in_memory(b, channels_last), channels_last


def _sums(layer: kinds.AddLayer, a: Codes, b: Codes) -> Codes:
    """Return the codes of contiguous arrays of one shape, before the clamp of each channel."""
    (zero_a, zero_b), (rescale_a, rescale_b) = layer.zero_points, layer.rescales
    stored = engine_codes.add(
        wide(a), zero_a, rescale_a, wide(b), zero_b, rescale_b, layer.sign, layer.left_shift, layer.rescale,
        layer.zero_point, layer.clamp, layer.output_format,
    )  # fmt: skip
    return stored.astype(engine_codes.narrowest_type(*layer.clamp))


def _pays(layer: kinds.AddLayer, size: int) -> bool:
    """Whether a layer has added, with what it adds now, as many pairs as a table has."""
    added = _ADDED.get(layer, 0)
    if added < _PAIRS:
        added = _ADDED[layer] = added + size
    return added >= _PAIRS


def _sums_by_table(layer: kinds.AddLayer, a: Codes, b: Codes) -> Codes:
    """Do the work of `_sums` for codes of 8 bits by looking every pair up."""
    return engine_codes.look_pairs_up(a, b, _table(layer, a, b))


def _table(layer: kinds.AddLayer, a: Codes, b: Codes) -> Codes:
    """Return what a layer stores for every pair of codes of the types of these; made once."""
    tables = _TABLES.setdefault(layer, {})
    which = a.dtype.char + b.dtype.char
    if which not in tables:
        bits = np.arange(_PAIRS // 256, dtype=np.uint8)
        pairs = np.broadcast_arrays(bits.view(a.dtype)[:, np.newaxis], bits.view(b.dtype))
        tables[which] = _sums(layer, *pairs).reshape(-1)
    return tables[which]


def _in_memory(codes: Codes, channels_last: bool) -> Codes:
    """Return codes as a contiguous array, with axis 1 at the end where images lie in memory like that."""
    return np.ascontiguousarray(codes.transpose(0, 2, 3, 1) if channels_last else codes)


@executes(kinds.MultiplyLayer)
def multiply(layer: kinds.MultiplyLayer, inputs: Sequence[Codes]) -> Codes:
    """Multiply, docs/numerics.md (28)."""
    shape = np.broadcast_shapes(*(array.shape for array in inputs))
    a, b = (np.broadcast_to(array, shape) for array in inputs)
    zero_a, zero_b = layer.zero_points
    codes = engine_codes.multiply(
        a, zero_a, b, zero_b, layer.rescale, layer.zero_point, layer.clamp, layer.output_format
    )  # fmt: skip
    return _clamped(codes, layer)


def _clamped(codes: Codes, layer: kinds.AddLayer | kinds.MultiplyLayer) -> Codes:
    """Clamp each channel to bounds of its own, where a fused function has them."""
    if layer.channel_clamps is None:
        return codes
    low, high = layer.channel_clamps.astype(codes.dtype).reshape(2, -1, *(1,) * (codes.ndim - 2))
    return np.clip(codes, low, high)


@counts(kinds.AddLayer)
def count_add(layer: kinds.AddLayer, outputs: int, num_samples: int, bits: Sequence[int]) -> VectorCount:
    """Count an addition."""
    return 2 * outputs, _addition(layer, bits), outputs


@counts(kinds.MultiplyLayer)
def count_multiply(layer: kinds.MultiplyLayer, outputs: int, num_samples: int, bits: Sequence[int]) -> VectorCount:
    """Count a multiplication."""
    each = Counter(Operation("add", width + 1, width) for width in bits[:2])
    each += Counter({Operation("multiply", bits[0] + 1, bits[1] + 1): 1})
    each += rescaling(layer.rescale.requantizer, WIDE_BITS) + ending(WIDE_BITS, bits[-1])
    return outputs, each, outputs


def _addition(layer: kinds.AddLayer, bits: Sequence[int]) -> Counter[Operation]:
    """Return the elementary operations of one output of docs/numerics.md (25) to (27)."""
    requantizer, wide = layer.rescales[0].requantizer, WIDE_BITS
    each = Counter(Operation("add", width + 1, width) for width in bits[:2])
    match requantizer.multiplier:
        case "integer":
            for width in bits[:2]:
                each += rescaling(requantizer, width + 1 + layer.left_shift)
            each[Operation("add", wide, wide)] += 1
            each += rescaling(requantizer, wide)
        case "power_of_two":
            each[Operation("shift", wide, wide)] += 2
            each[Operation("add", wide, wide)] += 1
            each += rescaling(requantizer, wide)
        case kind:
            width = FLOAT_BITS[kind]
            each[Operation("float_multiply", width, width)] += 2
            each[Operation("float_add", width, width)] += 2
    return each + ending(wide, bits[-1])
