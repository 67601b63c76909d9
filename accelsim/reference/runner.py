"""Runs of ONNX models in ONNX Runtime, the reference that is somebody else's code."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import DataError, ModelError
from accelsim.graph.graph import Graph
from accelsim.graph.quantized import QuantizedGraph

if TYPE_CHECKING:
    from onnx import ModelProto

Float32 = npt.NDArray[np.float32]

_ERRORS_ONLY = 3  # ONNX Runtime's log severity; its warnings are about its own optimizations


class OnnxRunner:
    """A model in ONNX Runtime, on the CPU, deterministic.

    Parameters
    ----------
    model : bytes or onnx.ModelProto
        The model.
    threads : int
        Threads of one operator. The default of 1 makes a run repeatable bit for bit whatever else the machine does.
    optimize : bool
        Whether ONNX Runtime may fuse operators.
    batch_size : int or None
        The only number of samples that the model takes, None where it takes any. `run` then splits the samples and
        repeats the last one to fill the last batch.

    Raises
    ------
    ModelError
        When ONNX Runtime refuses the model.
    """

    def __init__(
        self,
        model: bytes | ModelProto,
        threads: int = 1,
        optimize: bool = True,
        batch_size: int | None = None,
    ) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        options.use_deterministic_compute = True
        # A pre-allocated arena would keep the largest batch's memory for the life of the session.
        options.enable_cpu_mem_arena = False
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
        serialized = model if isinstance(model, bytes) else model.SerializeToString()
        try:
            self._session = onnxruntime.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])
        except Exception as problem:  # ONNX Runtime's exceptions have no common base
            raise ModelError(f"ONNX Runtime refuses the model: {_first_line(problem)}") from problem
        self.inputs: tuple[str, ...] = tuple(value.name for value in self._session.get_inputs())
        self.outputs: tuple[str, ...] = tuple(output.name for output in self._session.get_outputs())
        self.batch_size = batch_size

    @classmethod
    def of_original(cls, graph: Graph, outputs: Sequence[str] | None = None, threads: int = 1) -> OnnxRunner:
        """Make a runner of the float model as it came; of the normalised graph where there is no such model.

        Parameters
        ----------
        graph : Graph
            The network.
        outputs : sequence of str, optional
            Tensors to return instead of the model's outputs.
        threads : int
            Threads of one operator.
        """
        if graph.source is None:
            return cls.of_normalised(graph, outputs, threads)
        from accelsim.graph.writer import expose_outputs

        names = list(graph.outputs if outputs is None else outputs)
        return cls(expose_outputs(graph.source, names), threads, batch_size=graph.batch_size)

    @classmethod
    def of_normalised(cls, graph: Graph, outputs: Sequence[str] | None = None, threads: int = 1) -> OnnxRunner:
        """Make a runner of a graph as it stands, with any of its tensors as outputs."""
        from accelsim.graph.writer import to_onnx

        return cls(to_onnx(graph, outputs), threads)

    @classmethod
    def of_simulated(
        cls,
        quantized: QuantizedGraph,
        outputs: Sequence[str] | None = None,
        threads: int = 1,
        active: Container[str] | None = None,
    ) -> OnnxRunner:
        """Make a runner of the quantization simulation, with any of the graph's tensors as outputs.

        Parameters
        ----------
        quantized : QuantizedGraph
            The network.
        outputs : sequence of str, optional
            Tensors to return instead of the graph's outputs.
        threads : int
            Threads of one operator.
        active : container of str, optional
            The only tensors and constants that are quantized, see `accelsim.graph.writer.to_fake_quant_onnx`.

        Notes
        -----
        Nothing is optimized: ONNX Runtime would join a quantizer's Div and Mul with neighbouring constants, which
        moves roundings, so that its result were no longer the white paper's figure 4b.
        """
        from accelsim.graph.writer import to_fake_quant_onnx

        return cls(to_fake_quant_onnx(quantized, outputs, active), threads, optimize=False)

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, Float32]:
        """Run the model on some samples.

        Parameters
        ----------
        feeds : mapping of input name to float32 array
            The inputs, samples along axis 0.

        Returns
        -------
        dict of str to float32 array
            Every output by name, samples along axis 0.

        Raises
        ------
        DataError
            When ONNX Runtime refuses the inputs.
        """
        if not self.outputs:
            return {}
        if self.batch_size is None:
            return self._run(feeds)
        num_samples = next(iter(feeds.values())).shape[0]
        parts = []
        for start in range(0, num_samples, self.batch_size):
            chosen = np.minimum(np.arange(start, start + self.batch_size), num_samples - 1)
            parts.append(self._run({name: values[chosen] for name, values in feeds.items()}))
        return {name: np.concatenate([part[name] for part in parts])[:num_samples] for name in self.outputs}

    def _run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, Float32]:
        inputs = {name: np.ascontiguousarray(values, dtype=np.float32) for name, values in feeds.items()}
        try:
            values = self._session.run(list(self.outputs), inputs)
        except Exception as problem:  # ONNX Runtime's exceptions have no common base
            raise DataError(f"ONNX Runtime cannot run the model on these inputs: {_first_line(problem)}") from problem
        return dict(zip(self.outputs, values, strict=True))


def _first_line(problem: Exception) -> str:
    return str(problem).strip().split("\n", 1)[0]
