"""How many samples go through a network at a time, so that memory is bounded whatever the number of samples."""

from __future__ import annotations

import math
from collections.abc import Callable

from accelsim.graph.graph import Graph

Progress = Callable[[str, int, int], None]
"""Called with the name of a step, how many units of it are done, and how many there are."""

BATCH_BYTES = 64 << 20
"""All activations of a batch together, as float32, stay under this where more than one sample does."""

LARGEST_BATCH = 128
"""More samples at a time would not be faster."""


def samples_per_batch(graph: Graph, budget: int = BATCH_BYTES) -> int:
    """Return how many samples go through a network at a time.

    Parameters
    ----------
    graph : Graph
        The network.
    budget : int
        Bytes that all activations of a batch may take together.

    Returns
    -------
    int
        From 1 (a single sample may exceed the budget) to ``LARGEST_BATCH``.
    """
    sample_bytes = sum(4 * math.prod(length or 1 for length in shape[1:]) for shape in graph.shapes.values())
    return max(1, min(LARGEST_BATCH, budget // max(1, sample_bytes)))
