"""Single nodes of a model run as the model says, by ONNX Runtime with nothing optimized.

The float parts of a quantized model have no arithmetic of a machine: their results are defined by float32, and ONNX
Runtime is whose float32 the model was made for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper

from accelsim.errors import ModelError
from accelsim.program.onnx.tensors import TensorType

_FATAL_ONLY = 4  # errors are raised, and told in our own words


class NodeRunner:
    """A node as a model of its own.

    Parameters
    ----------
    node : NodeProto
        Of the standard operator set.
    opset : int
        Version of that set.
    types : mapping of str to TensorType
        Of its inputs and outputs.
    label : str
        What messages call it.

    Raises
    ------
    ModelError
        When ONNX Runtime refuses it.
    """

    def __init__(self, node: NodeProto, opset: int, types: Mapping[str, TensorType], label: str) -> None:
        self._label = label
        self._names = tuple(dict.fromkeys(filter(None, node.input)))
        self._dtypes = {name: types[name].dtype for name in self._names}
        outputs = [name for name in node.output if name]
        graph = helper.make_graph(
            [node],
            "node",
            [_declared(name, types[name]) for name in self._names],
            [_declared(name, types[name]) for name in outputs],
        )
        self._model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        if opset >= 21:
            self._model.ir_version = 10
        self._session: Any = None

    def run(self, values: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Return the outputs for the values of the distinct inputs, in the node's order."""
        feeds = {  # asarray keeps a scalar a scalar, which ascontiguousarray does not
            name: np.asarray(value, dtype=self._dtypes[name], order="C")
            for name, value in zip(self._names, values, strict=True)
        }
        try:
            found: list[npt.NDArray[Any]] = self._opened().run(None, feeds)
        except ModelError:
            raise
        except Exception as problem:  # ONNX Runtime's exceptions have no common base
            reason = str(problem).strip().split("\n", 1)[0]
            raise ModelError(f"{self._label}: ONNX Runtime refuses to run it: {reason}") from None
        return found

    def _opened(self) -> Any:
        if self._session is None:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            options.log_severity_level = _FATAL_ONLY
            options.use_deterministic_compute = True
            options.enable_cpu_mem_arena = False
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            serialized = self._model.SerializeToString()
            self._session = onnxruntime.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])
        return self._session


def _declared(name: str, tensor: TensorType) -> Any:
    return helper.make_tensor_value_info(name, tensor.type, tensor.shape)


def float_type(shape: tuple[int, ...]) -> TensorType:
    """Return the type of a float32 tensor."""
    return TensorType(TensorProto.FLOAT, shape)
