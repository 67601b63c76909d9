"""Hold float, simulated quantization and actual integers against each other, tensor by tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import DataError, ModelError
from accelsim.formats import QuantizationParameters
from accelsim.graph.feeds import Feeds, Images
from accelsim.graph.graph import Graph, Node
from accelsim.graph.quantized import QuantizedGraph
from accelsim.reference.batches import Progress, samples_per_batch
from accelsim.reference.layerwise import cut_at_stored_tensors, own_name
from accelsim.reference.report import KINDS, ComparisonReport, LayerComparison
from accelsim.reference.runner import OnnxRunner

if TYPE_CHECKING:
    from accelsim.machine import Machine
    from accelsim.simulator.engine.gemm import EngineName

TOP = 5
"""The wider of the two task metrics counts a label among so many greatest outputs."""


def compare(
    graph: Graph,
    quantized: QuantizedGraph,
    images: Images,
    machine: Machine | None = None,
    labels: npt.ArrayLike | None = None,
    *,
    engine: EngineName = "fast",
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> ComparisonReport:
    """Run a network in float, in simulated quantization and in the machine's integers, and compare.

    Parameters
    ----------
    graph : Graph
        The float network as it was read.
    quantized : QuantizedGraph
        The network quantized.
    images : array or mapping of input name to array
        Inputs, samples along axis 0.
    machine : Machine, optional
        The accelerator; left out, what `accelsim.simulate` takes then.
    labels : integer array, shape (samples,), optional
        Class of each sample, for the task metric on the first output.
    engine : {"fast", "stepped"}
        How the integers are computed; the result is the same.
    batch_size : int, optional
        Samples at a time; by default so many that memory stays bounded.
    progress : callable, optional
        Told ``("comparison", samples done, samples in all)``.

    Returns
    -------
    ComparisonReport
        Levels and differences of every stored tensor, and the task metric.

    Raises
    ------
    DataError
        When images or labels do not fit the network.

    Notes
    -----
    Float is the model as it came, run by ONNX Runtime. Inner tensors are those of the float network that was quantized,
    in which channels may have been rescaled, also run by ONNX Runtime.
    Simulated is the white paper's figure 4b, run by ONNX Runtime. Two equal greatest outputs, which stored integers
    often have, count for the first of them.
    """
    from accelsim.program.lowering import lower
    from accelsim.simulator.execute import Execution
    from accelsim.simulator.gemm import checked_machine
    from accelsim.simulator.run import simulate

    if not isinstance(graph, Graph):
        raise ModelError(f"graph must be the float Graph, got {type(graph).__name__}; load_onnx reads one")
    machine = checked_machine(machine, engine, "overflow")
    program = lower(quantized, machine)
    feeds = Feeds(graph, images)
    classes = None if labels is None else _check_labels(labels, feeds.num_samples)
    stored = [node for node in quantized.graph.nodes if node.output in quantized.activations]
    runs = _Runs(graph, quantized, [node.output for node in stored])
    differences = {node.output: _Difference(quantized.activations[node.output]) for node in stored}
    score = _Score()
    size = batch_size or samples_per_batch(quantized.graph)
    overflow_events = 0
    for start in range(0, feeds.num_samples, size):
        stop = min(start + size, feeds.num_samples)
        batch = feeds.slice(start, stop)
        real, simulated = runs.run(batch)
        actual = simulate(program, batch, engine=engine, track="overflow", keep_intermediates=True)
        own = runs.run_layers(actual.tensors)
        for name, difference in differences.items():
            difference.add(real[name], simulated[name], own[name], actual.tensors[name])
        if classes is not None:
            output = quantized.graph.outputs[0]
            answers = (real[output], simulated[output], actual.real_outputs[output])
            score.add(classes[start:stop], dict(zip(KINDS, answers, strict=True)))
        overflow_events += actual.overflow_events or 0
        if progress is not None:
            progress("comparison", stop, feeds.num_samples)
    # Cycles of batches do not add up to those of all samples, whose positions fill the grid without a break.
    cycles = sum(
        record.cycles.total for record in Execution(program, machine, engine, "none", feeds.num_samples).records()
    )
    layers = tuple(differences[node.output].of(node) for node in stored)
    metrics = None if classes is None else score.metrics()
    return ComparisonReport(layers, metrics, feeds.num_samples, cycles, overflow_events, size)


class _Runs:
    """Float and simulated runs that expose the stored tensors."""

    def __init__(self, graph: Graph, quantized: QuantizedGraph, stored: list[str]) -> None:
        self._stored = stored
        self._original = OnnxRunner.of_original(graph, list(graph.outputs))
        inner = [name for name in stored if name not in graph.outputs]
        self._inner = OnnxRunner.of_normalised(quantized.graph, inner) if inner else None
        self._simulated = OnnxRunner.of_simulated(quantized, stored)
        self._layers = OnnxRunner.of_simulated(cut_at_stored_tensors(quantized))
        self._quantized = quantized

    def run(self, batch: Mapping[str, npt.NDArray[np.float32]]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the stored tensors in float and in simulated quantization."""
        real = self._original.run(batch)
        if self._inner is not None:
            real |= self._inner.run(batch)
        return real, self._simulated.run(batch)

    def run_layers(self, stored: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
        """Return each stored tensor as simulation makes it of the integers' stored tensors."""
        parameters = self._quantized.activations
        made = self._layers.run({name: parameters[name].dequantize(stored[name]) for name in self._layers.inputs})
        return {name: made[own_name(self._quantized, name)] for name in self._stored}


def _check_labels(labels: npt.ArrayLike, num_samples: int) -> npt.NDArray[np.int64]:
    array = np.asarray(labels)
    if array.shape != (num_samples,) or array.dtype.kind not in "iu":
        raise DataError(
            f"labels must be {num_samples} whole numbers, one per sample, got shape {array.shape} of {array.dtype}"
        )
    return array.astype(np.int64)


class _Difference:
    """Running sums over one stored tensor."""

    def __init__(self, parameters: QuantizationParameters) -> None:
        self._parameters = parameters
        self._signal = self._noise_simulated = self._noise_actual = 0.0
        self._elements = self._differing = self._largest = self._own_differing = self._own_largest = 0

    def add(
        self,
        real: npt.NDArray[Any],
        simulated: npt.NDArray[Any],
        own: npt.NDArray[Any],
        codes: npt.NDArray[Any],
    ) -> None:
        """Count in some samples: float values, simulated ones, simulated ones of stored inputs, the integers' codes."""
        self._elements += codes.size
        distance = self._distance(simulated, codes)
        self._differing += int(np.count_nonzero(distance))
        self._largest = max(self._largest, int(distance.max(initial=0)))
        distance = self._distance(own, codes)
        self._own_differing += int(np.count_nonzero(distance))
        self._own_largest = max(self._own_largest, int(distance.max(initial=0)))
        self._signal += _energy(real)
        self._noise_simulated += _energy(real.astype(np.float64) - simulated)
        self._noise_actual += _energy(real.astype(np.float64) - self._parameters.dequantize(codes))

    def _distance(self, values: npt.NDArray[Any], codes: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        distance: npt.NDArray[np.int64] = np.abs(self._parameters.quantize(values).astype(np.int64) - codes)
        return distance

    def of(self, node: Node) -> LayerComparison:
        """Return what was counted."""
        return LayerComparison(
            name=node.output,
            node=node.name,
            op=node.op,
            num_elements=self._elements,
            sqnr_simulated_db=_decibel(self._signal, self._noise_simulated),
            sqnr_actual_db=_decibel(self._signal, self._noise_actual),
            largest_difference=self._largest,
            differing_share=self._differing / self._elements,
            own_difference=self._own_largest,
            own_differing_share=self._own_differing / self._elements,
        )


def _energy(values: npt.NDArray[Any]) -> float:
    """Return the sum of squares in float64."""
    flat = values.reshape(-1).astype(np.float64)
    return float(np.einsum("i,i", flat, flat))  # one thread, whatever the BLAS would take


def _decibel(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


@dataclass
class _Score:
    """Running counts of right answers, for each side of the comparison."""

    num_samples: int = 0
    num_classes: int = 0

    def __post_init__(self) -> None:
        self._counts = {kind: {"top1": 0, "top5": 0, "agreement": 0} for kind in KINDS}

    def add(self, labels: npt.NDArray[np.int64], outputs: Mapping[str, npt.NDArray[Any]]) -> None:
        """Count in some samples, given the first output of each side."""
        ranked = {}
        for kind, values in outputs.items():
            flat = values.reshape(values.shape[0], -1)
            self.num_classes = flat.shape[1]
            # Stable: of equal outputs the first comes first, as argmax has it.
            ranked[kind] = np.argsort(-flat.astype(np.float64), axis=1, kind="stable")[:, :TOP]
        if labels.min() < 0 or labels.max() >= self.num_classes:
            raise DataError(
                f"labels must be classes 0..{self.num_classes - 1} of the first output, "
                f"got {labels.min()}..{labels.max()}"
            )
        self.num_samples += labels.size
        for kind, counts in self._counts.items():
            counts["top1"] += int((ranked[kind][:, 0] == labels).sum())
            counts["top5"] += int((ranked[kind] == labels[:, np.newaxis]).any(axis=1).sum())
            counts["agreement"] += int((ranked[kind][:, 0] == ranked["float"][:, 0]).sum())

    def metrics(self) -> dict[str, dict[str, float]]:
        """Return the shares; the wider one only where it can miss."""
        names = [name for name in ("top1", "top5", "agreement") if name != "top5" or self.num_classes > TOP]
        return {
            kind: {name: counts[name] / self.num_samples for name in names} for kind, counts in self._counts.items()
        }
