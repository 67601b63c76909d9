"""The quantized graph that `accelsim.graph.qdq` wrote as a QDQ model, from its description and its constants."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from accelsim.errors import AccelsimError, ModelError
from accelsim.graph.archive import graph_of, parameters_of
from accelsim.graph.limits import num_elements
from accelsim.graph.operators import LINEAR
from accelsim.graph.qdq import DESCRIPTION, VERSION, digest
from accelsim.graph.quantized import QuantizedGraph, QuantizedWeights
from accelsim.machine import Machine
from accelsim.program.lowering import lower
from accelsim.program.onnx.tensors import constant_array
from accelsim.program.program import IntegerProgram

Array = npt.NDArray[Any]


def described_graph(model: ModelProto) -> QuantizedGraph | None:
    """Return the quantized graph that a model says it is.

    Parameters
    ----------
    model : ModelProto
        Any model.

    Returns
    -------
    QuantizedGraph or None
        None where the model has no description, or was changed after it was written.

    Raises
    ------
    ModelError
        When the description is damaged.
    """
    text = next((entry.value for entry in model.metadata_props if entry.key == DESCRIPTION), None)
    if text is None:
        return None
    try:
        record = json.loads(text)
        if record["version"] != VERSION or record["digest"] != digest(model):
            return None
        return _quantized(record, model)
    except AccelsimError as error:
        raise ModelError(f"the model's description of its quantized graph is not valid: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        reason = f"{type(error).__name__} {' '.join(str(error).split())[:200]}"
        raise ModelError(f"the model's description of its quantized graph is damaged: {reason}") from None


@dataclass(frozen=True)
class DescribedModel:
    """A QDQ model that says which quantized graph it is; programs are those of the graph.

    Parameters
    ----------
    quantized : QuantizedGraph
        The graph.
    data : bytes
        The model's file.
    """

    quantized: QuantizedGraph
    data: bytes
    form: ClassVar[str] = "onnx"

    def lower(self, machine: Machine) -> IntegerProgram:
        """Return the program for a machine; raise LoweringError where there is none."""
        return replace(lower(self.quantized, machine), source=self)


class _Constants:
    """Arrays of a graph by the key in its description."""

    def __init__(self, arrays: dict[str, Array]) -> None:
        self._arrays = arrays

    def array(self, name: str) -> Array:
        """Return an array."""
        return self._arrays[name]

    def source(self, name: str | None) -> bytes | None:
        """Return nothing: the float model is not in the file."""
        return None


def _quantized(record: Any, model: ModelProto) -> QuantizedGraph:
    """Build the quantized graph; its own checks are the last ones."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}

    def array(name: str) -> Array:
        return constant_array(stored[name], f"constant {name!r}")

    weights = {
        name: QuantizedWeights(array(entry["integers"]), parameters_of(entry["parameters"]))
        for name, entry in record["weights"].items()
    }
    constants: dict[str, Array] = {}
    for name, entry in record["graph"]["constants"].items():
        shape = [int(length) for length in entry["shape"]]
        num_elements(f"constant {name!r}", shape)
        if name in weights:
            constants[name] = weights[name].dequantize()
        elif entry["initializer"] is not None:
            constants[name] = array(entry["initializer"]).reshape(shape)
        else:  # a bias: what takes its place is below
            constants[name] = np.zeros(shape, dtype=np.float32)
    record["graph"]["constants"] = {name: name for name in constants}
    graph = graph_of(record["graph"], _Constants(constants))
    activations = {name: parameters_of(entry) for name, entry in record["activations"].items()}
    bare = QuantizedGraph(graph, activations, weights, graph)
    biases = {}
    for node in graph.nodes:
        if node.op in LINEAR and node.name in record["biases"]:
            values = array(record["biases"][node.name])
            biases[node.name] = values.astype(np.float64)
            if values.dtype.kind == "i":
                biases[node.name] *= bare.bias_scale(node)
    return QuantizedGraph(graph, activations, weights, graph, biases=biases)
