"""Functions of one element as tables, and softmax."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from accelsim.program import layers as kinds
from accelsim.simulator.counts import Operation
from accelsim.simulator.engine import codes as engine_codes
from accelsim.simulator.layers.registry import Codes, VectorCount, counts, executes
from accelsim.simulator.operations import WIDE_BITS


@executes(kinds.TableLayer)
def look_up(layer: kinds.TableLayer, inputs: Sequence[Codes]) -> Codes:
    """Look every code up, docs/numerics.md (32)."""
    return engine_codes.look_up(inputs[0], layer.tables, layer.lowest)


@executes(kinds.SoftmaxLayer)
def softmax(layer: kinds.SoftmaxLayer, inputs: Sequence[Codes]) -> Codes:
    """Softmax with an exponential table, docs/numerics.md (33)."""
    last = np.moveaxis(inputs[0], layer.axis, -1)
    return np.moveaxis(engine_codes.softmax(last, layer.exponentials, layer.bits), -1, layer.axis)


@counts(kinds.TableLayer)
def count_look_up(layer: kinds.TableLayer, outputs: int, num_samples: int, bits: Sequence[int]) -> VectorCount:
    """Count the look-ups."""
    return outputs, Counter({Operation("look_up", bits[0], bits[-1]): 1}), outputs


@counts(kinds.SoftmaxLayer)
def count_softmax(layer: kinds.SoftmaxLayer, outputs: int, num_samples: int, bits: Sequence[int]) -> VectorCount:
    """Count a softmax: its peak, differences, look-ups, sum and divisions."""
    each = Counter({Operation("compare", bits[0], bits[0]): 1, Operation("add", bits[0] + 1, bits[0]): 1})
    each += Counter({Operation("look_up", bits[0], 24): 1, Operation("add", WIDE_BITS, 24): 1})
    each[Operation("divide", WIDE_BITS + layer.bits, WIDE_BITS)] += 1
    return outputs, each, outputs
