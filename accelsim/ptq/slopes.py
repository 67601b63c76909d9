"""Activation functions and their derivatives, for the gradient descent of AdaRound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from accelsim.graph.graph import Graph, Node
from accelsim.graph.operators import ACTIVATIONS
from accelsim.program.activations import activation_function

Real = npt.NDArray[Any]
Function = Callable[[Real], Real]


def following_activation(graph: Graph, node: Node) -> Node | None:
    """Return the activation function that alone reads a node's output, None where something else does."""
    consumers = graph.consumers(node.output)
    if node.output in graph.outputs or len(consumers) != 1 or consumers[0].op not in ACTIVATIONS:
        return None
    return consumers[0]


def function_and_slope(graph: Graph, node: Node | None) -> tuple[Function, Function]:
    """Return an activation function and its derivative, both on arrays of shape (channels, positions).

    Parameters
    ----------
    graph : Graph
        Holds the constants of the node.
    node : Node or None
        An activation; None stands for the identity.

    Returns
    -------
    function, slope : callable
        Where the function has a corner, the slope is that of one of its sides.
    """
    if node is None:
        return lambda x: x, np.ones_like
    function, _ = activation_function(node, graph)
    return function, _slope(graph, node)


def _slope(graph: Graph, node: Node) -> Function:
    attributes: dict[str, Any] = dict(node.attributes)
    match node.op:
        case "Relu":
            return lambda x: (x > 0).astype(x.dtype)
        case "Clip":
            return lambda x: ((x > attributes["min"]) & (x < attributes["max"])).astype(x.dtype)
        case "ChannelClip":
            low, high = (graph.constants[name].reshape(-1, 1) for name in node.inputs[1:])
            return lambda x: ((x > low) & (x < high)).astype(x.dtype)
        case "LeakyRelu":
            return lambda x: np.where(x < 0, attributes["alpha"], 1.0)
        case "PRelu":
            slopes = graph.constants[node.inputs[1]].reshape(-1, 1)
            return lambda x: np.where(x < 0, slopes, 1.0)
        case "Sigmoid":
            return lambda x: expit(x) * expit(-x)
        case "Tanh":
            return lambda x: 1.0 - np.tanh(x) ** 2
        case "HardSigmoid":
            alpha, beta = attributes["alpha"], attributes["beta"]
            return lambda x: alpha * ((alpha * x + beta > 0) & (alpha * x + beta < 1))
        case "HardSwish":
            return lambda x: np.clip(x / 6.0 + 0.5, 0.0, 1.0) + x / 6.0 * (np.abs(x) < 3)
        case "Swish":
            alpha = attributes["alpha"]
            return lambda x: expit(alpha * x) * (1.0 + alpha * x * expit(-alpha * x))
        case _:
            raise AssertionError(f"{node.op} is no activation function")
