"""High-bias absorption: white paper section 3.2, equation (24).

What a channel never goes below before its activation function is taken out of its bias and given to the next one. The
activation's range shrinks by it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from accelsim.graph.graph import Graph, Node
from accelsim.graph.operators import CLAMPS, RESHAPES
from accelsim.ptq.moments import linear_map, weights_by_channel
from accelsim.ptq.rewriting import Rewriting, bias_of
from accelsim.ptq.scaling import ScaleGroup, clip_bounds, scale_groups, set_clip_bounds

Float64 = npt.NDArray[np.float64]

DEVIATIONS = 3.0
"""From batch norms, ``c = max(0, β − 3γ)``: what 99.9 % of normal values exceed."""

_SHIFTING = RESHAPES | {"AveragePool", "GlobalAveragePool", "MaxPool", "ReduceMean"}


def absorb_biases(graph: Graph, floors: Mapping[str, Float64]) -> tuple[Graph, dict[str, Float64], tuple[str, ...]]:
    """Move what activations never go below into the next bias.

    Parameters
    ----------
    graph : Graph
        The float network with batch norms folded.
    floors : mapping of tensor name to float64 array, shape (channels,)
        Least value of each channel of what linear layers make, before the activation function: measured, or β − 3γ.

    Returns
    -------
    graph : Graph
        The same function wherever the floors hold. A clip keeps its place: its upper bound is lower by the same amount.
    shifts : dict of tensor name to float64 array
        How much lower the channels of a tensor are now.
    log : tuple of str
        One line per pair of layers that exchanged bias.

    Notes
    -----
    ``b1 ← b1 − c``, ``b2 ← b2 + Σ W2 c``, ``c = max(0, floor)``, docs/ptq.md (87). A reader that pads would see a
    0 where c was taken out, so nothing is absorbed into it.
    """
    shifts: dict[str, Float64] = {}
    log: list[str] = []
    for group in scale_groups(graph):
        clamps = [node for node in group.inner if node.op in CLAMPS]
        if not _absorbs(group, clamps, floors):
            continue
        nodes = {node.name: node for node in graph.nodes}
        (producer,) = group.producers
        low, high = clip_bounds(graph, nodes[clamps[0].name])
        shift = np.maximum(floors[producer.output], 0.0)
        # A channel above its clip throughout is constant, and one whose clip starts above 0 keeps its bias.
        shift = np.where((low <= 0) & (shift < high), shift, 0.0)
        if not shift.any():
            continue
        rewriting = Rewriting(graph)
        rewriting.set_bias(nodes[producer.name], bias_of(graph, nodes[producer.name]) - shift)
        for clamp in clamps:
            if nodes[clamp.name].op != "Relu":
                least, most = clip_bounds(graph, nodes[clamp.name])
                set_clip_bounds(rewriting, nodes[clamp.name], least, most - shift)
        for consumer in group.consumers:
            node = nodes[consumer.name]
            rewriting.set_bias(node, bias_of(graph, node) + linear_map(weights_by_channel(graph, node), shift))
        graph = rewriting.result()
        shifts.update(dict.fromkeys(group.tensors, shift))
        log.append(
            f"absorbed biases of up to {shift.max():.3g} of {np.count_nonzero(shift)} channels of {producer.op} "
            f"{producer.name!r} into {', '.join(repr(node.name) for node in group.consumers)}"
        )
    return graph, shifts, tuple(log)


def _absorbs(group: ScaleGroup, clamps: list[Node], floors: Mapping[str, Float64]) -> bool:
    """Whether a shift of the producer passes through the group unchanged, to readers that do not pad."""
    if len(group.producers) != 1 or group.producers[0].output not in floors or not clamps:
        return False
    if clamps[0].inputs[0] != group.producers[0].output or len(group.tensors) != len(group.inner) + 1:
        return False
    for node in (*group.inner, *group.consumers):
        pads = node.attributes.get("pads", ())
        if isinstance(pads, tuple) and any(pads):
            return False
    return all(node.op in CLAMPS | _SHIFTING for node in group.inner) and _single_path(group)


def _single_path(group: ScaleGroup) -> bool:
    """Whether nothing but the first clamp reads what the producer makes."""
    produced = group.producers[0].output
    readers = [node for node in (*group.inner, *group.consumers) if produced in node.inputs]
    return len(readers) == 1
