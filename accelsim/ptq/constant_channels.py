"""Channels that never change are folded into the next bias, and their filters zeroed.

A dead channel's filters take part in the ranges of both layers for nothing, and equalization would blow them up.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from accelsim.graph.graph import Graph, Node
from accelsim.ptq.channel_statistics import ChannelStatistics
from accelsim.ptq.moments import linear_map, weights_by_channel
from accelsim.ptq.rewriting import Rewriting, bias_of
from accelsim.ptq.scaling import ScaleGroup, scale_groups

Float64 = npt.NDArray[np.float64]

NEGLIGIBLE = 2.0**-20
"""A channel is constant whose values stay within this share of the tensor's range: far below one step of 16 bits."""


def prune_constants(
    graph: Graph, statistics: Mapping[str, ChannelStatistics]
) -> tuple[Graph, dict[str, npt.NDArray[np.bool_]], tuple[str, ...]]:
    """Take constant channels out of the network.

    Parameters
    ----------
    graph : Graph
        The float network with batch norms folded.
    statistics : mapping of tensor name to ChannelStatistics
        Of what layers read; a layer whose input is not in it is left alone.

    Returns
    -------
    graph : Graph
        The same function where the constant channels are constant. Their filters, in the layer that makes them and in
        the layers that read them, and their own bias are zero; what they contributed is in the bias of the readers.
    pruned : dict of tensor name to bool array, shape (channels,)
        Which channels of a tensor nothing reads any more.
    log : tuple of str
        One line per group of layers that lost a channel.

    Notes
    -----
    ``b ← b + Σ W c``, docs/ptq.md (81). A constant other than 0 is not the same at a padded border, where a 0 is
    read in its place; so it stays where a reader pads.
    """
    log: list[str] = []
    pruned: dict[str, npt.NDArray[np.bool_]] = {}
    for group in scale_groups(graph):
        if any(node.op in ("Add", "Sub", "Pad") for node in group.inner) or len(group.producers) != 1:
            continue
        nodes = {node.name: node for node in graph.nodes}
        consumers = [nodes[node.name] for node in group.consumers]
        (producer,) = (nodes[node.name] for node in group.producers)
        constant, values = _constant_channels(graph, group, consumers, statistics)
        weights = weights_by_channel(graph, producer)
        alive = np.abs(weights).reshape(len(constant), -1).max(axis=1) > 0
        read = np.zeros(len(constant), dtype=bool)
        for consumer in consumers:
            read |= np.abs(weights_by_channel(graph, consumer)).max(axis=(1, 3)).reshape(-1) > 0
        constant &= alive | read
        if not constant.any():
            continue
        rewriting = Rewriting(graph)
        for consumer in consumers:
            taken = weights_by_channel(graph, consumer)
            contribution = linear_map(taken, np.where(constant, values[consumer.name], 0.0))
            if contribution.any():
                rewriting.set_bias(consumer, bias_of(graph, consumer) + contribution)
            rewriting.set_weights(consumer, _without_inputs(graph, consumer, constant))
        graph = rewriting.result()
        producer = next(node for node in graph.nodes if node.name == producer.name)
        rewriting = Rewriting(graph)
        rewriting.set_weights(producer, _without_outputs(graph, producer, constant))
        if len(producer.inputs) > 2:
            rewriting.set_bias(producer, np.where(constant, 0.0, bias_of(graph, producer)))
        graph = rewriting.result()
        pruned.update(dict.fromkeys(group.tensors, constant))
        log.append(
            f"pruned {np.count_nonzero(constant)} of {len(constant)} channels of {producer.op} {producer.name!r}, "
            "which are constant"
        )
    return graph, pruned, tuple(log)


def _constant_channels(
    graph: Graph, group: ScaleGroup, consumers: list[Node], statistics: Mapping[str, ChannelStatistics]
) -> tuple[npt.NDArray[np.bool_], dict[str, Float64]]:
    """Return which channels can be taken out, and by consumer what they are."""
    constant = np.ones(group.channels, dtype=bool)
    values: dict[str, Float64] = {}
    for consumer in consumers:
        if consumer.inputs[0] not in statistics:
            return np.zeros(group.channels, dtype=bool), values
        found = statistics[consumer.inputs[0]]
        reach = max(float(np.abs(found.maximum).max()), float(np.abs(found.minimum).max()))
        still = found.maximum - found.minimum <= NEGLIGIBLE * reach
        zero = np.maximum(np.abs(found.maximum), np.abs(found.minimum)) <= NEGLIGIBLE * reach
        pads = consumer.attributes.get("pads", ())
        padded = isinstance(pads, tuple) and any(pads)
        constant &= zero if padded else still
        values[consumer.name] = np.where(zero, 0.0, found.mean)
    return constant, values


def _without_inputs(graph: Graph, node: Node, channels: npt.NDArray[np.bool_]) -> Float64:
    """Return a layer's weights with those of some input channels zero."""
    weights = graph.constants[node.inputs[1]].astype(np.float64)
    by_output = weights.T if node.op == "MatMul" else weights
    groups = node.attributes["group"] if node.op == "Conv" else 1
    assert isinstance(groups, int)
    outputs, taken = by_output.shape[:2]
    gone = np.repeat(channels.reshape(groups, taken), outputs // groups, axis=0)
    kept = np.where(gone.reshape(outputs, taken, *(1,) * (by_output.ndim - 2)), 0.0, by_output)
    return kept.T if node.op == "MatMul" else kept


def _without_outputs(graph: Graph, node: Node, channels: npt.NDArray[np.bool_]) -> Float64:
    """Return a layer's weights with those of some output channels zero."""
    weights = graph.constants[node.inputs[1]].astype(np.float64)
    by_output = weights.T if node.op == "MatMul" else weights
    kept = np.where(channels.reshape(-1, *(1,) * (by_output.ndim - 1)), 0.0, by_output)
    return kept.T if node.op == "MatMul" else kept
