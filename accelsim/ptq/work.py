"""The working state that the steps of the pipeline hand on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from accelsim.formats import IntegerFormat, QuantizationParameters
from accelsim.graph.feeds import Feeds
from accelsim.graph.graph import Graph, Node
from accelsim.graph.quantized import QuantizedGraph, QuantizedWeights
from accelsim.ptq.bit_widths import BitWidths
from accelsim.ptq.channel_statistics import ChannelStatistics
from accelsim.ptq.config import PTQConfig
from accelsim.ptq.input_statistics import InputStatistics
from accelsim.ptq.moments import Moments
from accelsim.ptq.placement import Placement, place_quantizers
from accelsim.reference.batches import Progress


@dataclass
class Work:
    """A network on its way from float to integers.

    Parameters
    ----------
    original : Graph
        The network as it was read.
    config : PTQConfig
        What was asked for.
    feeds : Feeds or None
        Calibration data; None for a data-free run.
    progress : callable or None
        Told how far a long step is.
    graph : Graph
        The float network as the steps so far have rewritten it.
    norms : mapping of tensor name to Moments
        Mean and deviation per channel of the tensors that batch norms made, kept up to date by every rewriting.
    inputs : dict of tensor name to InputStatistics
        What is known of the graph's inputs without calibration data.
    statistics : dict of tensor name to ChannelStatistics
        What the channels of tensors do, measured or expected, kept up to date by every rewriting.
    activations : dict of tensor name to QuantizationParameters
        Quantizers chosen so far.
    weights : dict of constant name to QuantizedWeights
        Integers chosen so far.
    biases : dict of node name to float64 array
        Biases corrected so far.
    widths : BitWidths
        Layers and tensors with a width of their own.
    separate : tuple of str
        Averages with a quantizer of their own.
    log : list of str
        What each step did to each layer.
    """

    original: Graph
    config: PTQConfig
    feeds: Feeds | None
    progress: Progress | None = None
    graph: Graph = field(init=False)
    norms: Mapping[str, Moments] = field(default_factory=dict)
    inputs: dict[str, InputStatistics] = field(default_factory=dict)
    statistics: dict[str, ChannelStatistics] = field(default_factory=dict)
    activations: dict[str, QuantizationParameters] = field(default_factory=dict)
    weights: dict[str, QuantizedWeights] = field(default_factory=dict)
    biases: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    widths: BitWidths = field(default_factory=BitWidths)
    separate: tuple[str, ...] = ()
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.graph = self.original

    @property
    def placement(self) -> Placement:
        """Where activations of the network as it stands are quantized."""
        return place_quantizers(self.graph, self.separate)

    @property
    def corrects_empirically(self) -> bool:
        """Whether biases are corrected on calibration data."""
        return self.feeds is not None and self.config.bias_correction in ("auto", "empirical")

    @property
    def absorbs_biases(self) -> bool:
        """Whether high biases are absorbed; measured, it helps an equalized network whose biases are not corrected."""
        choice = self.config.absorb_biases
        return choice == "always" or (
            choice == "auto" and self.config.equalize and self.config.bias_correction == "none"
        )

    def weight_format(self, node: Node) -> IntegerFormat:
        """Return the format of a layer's weights."""
        return IntegerFormat(self.widths.weights.get(node.name, self.config.weight_bits), signed=True)

    def activation_format(self, tensor: str, minimum: float) -> IntegerFormat:
        """Return the format of a stored tensor whose least value is ``minimum``."""
        format = self.config.activation_format(minimum)
        return IntegerFormat(self.widths.activations.get(tensor, format.bits), format.signed)

    def quantized(self) -> QuantizedGraph:
        """Return the network with the quantizers and integers chosen so far."""
        return QuantizedGraph(self.graph, self.activations, self.weights, self.original, tuple(self.log), self.biases)
