"""Activation functions in float64, and their tables over stored integers: docs/numerics.md (32)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from accelsim.formats import QuantizationParameters
from accelsim.graph.graph import Graph, Node

Float64 = npt.NDArray[np.float64]


def activation_function(node: Node, graph: Graph) -> tuple[Callable[[Float64], Float64], int]:
    """Return the function of an activation node, and how many channels it has tables for.

    Parameters
    ----------
    node : Node
        One of the activation operators.
    graph : Graph
        Holds a PRelu's slopes.

    Returns
    -------
    tuple
        A function of a float64 array of shape (1 or channels, codes), and 1 or channels.
    """
    attributes: dict[str, Any] = dict(node.attributes)
    match node.op:
        case "Relu":
            return lambda x: np.maximum(x, 0.0), 1
        case "Clip":
            return lambda x: np.clip(x, attributes["min"], attributes["max"]), 1
        case "ChannelClip":
            low, high = (graph.constants[name].astype(np.float64).reshape(-1, 1) for name in node.inputs[1:])
            return lambda x: np.minimum(np.maximum(x, low), high), low.shape[0]
        case "LeakyRelu":
            return lambda x: np.where(x < 0, attributes["alpha"] * x, x), 1
        case "PRelu":
            slopes = graph.constants[node.inputs[1]].astype(np.float64).reshape(-1, 1)
            return lambda x: np.where(x < 0, slopes * x, x), slopes.shape[0]
        case "Sigmoid":
            return lambda x: np.asarray(expit(x)), 1
        case "Tanh":
            return lambda x: np.asarray(np.tanh(x)), 1
        case "HardSigmoid":
            return lambda x: np.clip(attributes["alpha"] * x + attributes["beta"], 0.0, 1.0), 1
        case "HardSwish":
            return lambda x: x * np.clip(x / 6.0 + 0.5, 0.0, 1.0), 1
        case "Swish":
            return lambda x: x * expit(attributes["alpha"] * x), 1
        case _:
            raise AssertionError(f"{node.op} is no activation function")


def activation_tables(
    node: Node, graph: Graph, source: QuantizationParameters, target: QuantizationParameters
) -> npt.NDArray[np.int32]:
    """Return the table(s) of an activation function: int32 (1 or channels, entries).

    Parameters
    ----------
    node, graph
        As in `activation_function`.
    source, target : QuantizationParameters
        Of the stored input and output.
    """
    function, channels = activation_function(node, graph)
    codes = np.arange(source.format.minimum, source.format.maximum + 1)
    real = np.broadcast_to(source.dequantize(codes).astype(np.float64), (channels, codes.size))
    return target.quantize(function(real).astype(np.float32)).astype(np.int32)


@dataclass(frozen=True, eq=False)
class FusedBounds:
    """The clamp of a layer with fused activation functions: docs/numerics.md section 5.

    Parameters
    ----------
    clamp : pair of int
        Codes inside the format.
    channel_clamps : int32 array, shape (2, channels), or None
        Codes of each channel where a function has bounds per channel; ``clamp`` spans them all then.
    """

    clamp: tuple[int, int]
    channel_clamps: npt.NDArray[np.int32] | None

    @classmethod
    def of(cls, nodes: list[Node], graph: Graph, stored: QuantizationParameters) -> FusedBounds:
        """Return the clamp of some fused nodes.

        Parameters
        ----------
        nodes : list of Node
            Relu, Clip and ChannelClip nodes, in order.
        graph : Graph
            Holds the bounds of a ChannelClip.
        stored : QuantizationParameters
            Of the layer's output.

        Notes
        -----
        Quantization is monotone, so clamping codes to the codes of the bounds is quantizing the clamped real number.
        """
        low, high = np.array(-np.inf), np.array(np.inf)
        for node in nodes:
            if node.op == "ChannelClip":
                least, most = (graph.constants[name].astype(np.float64) for name in node.inputs[1:])
            else:
                attributes: dict[str, Any] = {"min": 0.0, "max": np.inf, **node.attributes}
                least, most = np.array(float(attributes["min"])), np.array(float(attributes["max"]))
            # ONNX's Clip is min(max(x, least), most): where least > most, the result is most
            low, high = (np.minimum(np.maximum(bound, least), most) for bound in (low, high))
        bounds = np.stack(np.broadcast_arrays(low, high)).astype(np.float32)
        codes = stored.quantize(bounds).astype(np.int32)
        clamp = int(codes[0].min()), int(codes[1].max())
        return cls(clamp, codes if codes.ndim == 2 else None)

    def fields(self) -> dict[str, Any]:
        """Return the fields of a layer."""
        return {"clamp": self.clamp, "channel_clamps": self.channel_clamps}
