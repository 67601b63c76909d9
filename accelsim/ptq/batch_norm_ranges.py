"""Ranges of activations from batch norms, without data: white paper section 3.1, equations (18) and (19)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from accelsim.graph.graph import Graph
from accelsim.ptq.channel_statistics import ALPHA, expect_channels
from accelsim.ptq.moments import Moments, propagate_moments


def batch_norm_ranges(
    graph: Graph,
    norms: Mapping[str, Moments],
    inputs: Mapping[str, Moments],
    tensors: Sequence[str],
    alpha: float = ALPHA,
) -> dict[str, tuple[float, float]]:
    """Tell the ranges of activations.

    Parameters
    ----------
    graph : Graph
        The float network with batch norms folded.
    norms : mapping of tensor name to Moments
        What the batch norms tell: `accelsim.ptq.folding.Folded.norms`.
    inputs : mapping of tensor name to Moments
        Of graph inputs, where they are known.
    tensors : sequence of str
        The activations.
    alpha : float
        How many deviations from the mean are covered; Nagel et al. (2019) take 6.

    Returns
    -------
    dict of str to pair of float
        ``min(β − αγ)`` and ``max(β + αγ)`` over the channels, behind the activation function, for the tensors of which
        something is known. For a tensor that no batch norm makes, β and γ are carried there from those that do.
    """
    expected = expect_channels(graph, propagate_moments(graph, norms, inputs), tensors, alpha)
    return {name: (float(found.minimum.min()), float(found.maximum.max())) for name, found in expected.items()}
