"""Trace a layer of a network: its operands on one sample, stepped through the grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from accelsim.errors import OperandError
from accelsim.formats import QuantizationParameters
from accelsim.graph.feeds import Feeds, Images
from accelsim.graph.quantized import QuantizedGraph
from accelsim.machine import Machine
from accelsim.program.layers import MacLayer
from accelsim.program.program import IntegerProgram
from accelsim.program.storage import PlainTensor
from accelsim.simulator.engine.convolution import convolution_columns
from accelsim.simulator.engine.gemm_operands import GemmOperands
from accelsim.simulator.engine.trace import DEFAULT_LIMIT_BYTES, Range, TraceWindow
from accelsim.simulator.gemm import run_operands
from accelsim.simulator.gemm_result import GemmResult
from accelsim.simulator.layers.grid import images_of
from accelsim.simulator.run import placed, simulate


@dataclass(frozen=True, eq=False)
class TracedLayer:
    """A group of a layer, stepped through the grid on one sample.

    Parameters
    ----------
    layer : MacLayer
        The layer of the integer program.
    group : int
        Which of its groups.
    operands : GemmOperands
        What the PEs multiply and the accumulators start with.
    result : GemmResult
        Arrays of shape (n, p), with the trace.
    machine : Machine
        What it ran on.
    output : QuantizationParameters or PlainTensor
        How the layer's output is stored.
    """

    layer: MacLayer
    group: int
    operands: GemmOperands
    result: GemmResult
    machine: Machine
    output: QuantizationParameters | PlainTensor

    @property
    def channels(self) -> slice:
        """The layer's output channels that the group computes."""
        return slice(self.group * self.layer.num_outputs, (self.group + 1) * self.layer.num_outputs)


def trace_layer(
    network: QuantizedGraph | IntegerProgram,
    images: Images,
    layer: str,
    machine: Machine | None = None,
    *,
    sample: int = 0,
    group: int = 0,
    trace_cycles: Range | None = None,
    trace_rows: Range | None = None,
    trace_columns: Range | None = None,
    trace_limit_bytes: int = DEFAULT_LIMIT_BYTES,
) -> TracedLayer:
    """Run a network up to its end on one sample and trace a layer of it.

    Parameters
    ----------
    network : QuantizedGraph or IntegerProgram
        A quantized graph is lowered for the machine first.
    images : array or mapping of input name to array
        Real inputs, samples along axis 0.
    layer : str
        Name of a convolution or matrix product.
    machine : Machine, optional
        ``edge_16x16`` when left out; for a program, the machine that it was lowered for.
    sample, group : int
        Which sample, and which of the layer's groups, which run one after the other.
    trace_cycles, trace_rows, trace_columns, trace_limit_bytes
        As in `accelsim.matmul`; cycles count from the first one of the group.

    Returns
    -------
    TracedLayer
        Operands, result and trace.

    Raises
    ------
    OperandError
        When there is no such layer, sample or group, or the trace would take too much memory.
    DataError, LoweringError, AccumulatorOverflowError
        As `accelsim.simulate`.
    """
    program, machine = placed(network, machine, "stepped", "overflow")
    found = _layer(program, layer)
    if not 0 <= group < found.groups:
        raise OperandError(f"group must be one of the {found.groups} of layer {layer!r}, 0 the first, got {group}")
    # Before the network runs: a trace that does not fit should be refused at once.
    shape = (found.num_outputs, found.reduction, found.num_positions)
    window = TraceWindow.of(shape, machine, trace_cycles, trace_rows, trace_columns, trace_limit_bytes)
    tensors = simulate(
        program, _sample(program, images, sample), machine, track="none", keep_intermediates=True
    ).tensors
    operands = _operands(found, group, tensors[found.inputs[0]].astype(np.int32), machine)
    result = run_operands(operands, machine, "stepped", "overflow", window, f"layer {layer!r}")
    return TracedLayer(found, group, operands, result, machine, program.tensors[found.output])


def traceable_layers(program: IntegerProgram) -> dict[str, tuple[int, int, int]]:
    """Return the layers that `trace_layer` takes, with N, K and P of one group of each."""
    return {
        layer.name: (layer.num_outputs, layer.reduction, layer.num_positions)
        for layer in program.layers
        if isinstance(layer, MacLayer)
    }


def _layer(program: IntegerProgram, name: str) -> MacLayer:
    """Return a layer that runs on the grid; raise OperandError where there is none of the name."""
    on_grid = {layer.name: layer for layer in program.layers if isinstance(layer, MacLayer)}
    if name not in on_grid:
        raise OperandError(
            f"layer must be a convolution or matrix product of the network, one of {', '.join(on_grid)}; got {name!r}"
        )
    return on_grid[name]


def _sample(program: IntegerProgram, images: Images, sample: int) -> dict[str, Any]:
    """Return the inputs of one sample; raise OperandError where there is none of the number."""
    feeds = Feeds(program, images, program.whole)
    if not 0 <= sample < feeds.num_samples:
        raise OperandError(f"sample must be one of the {feeds.num_samples} in the images, 0 the first, got {sample}")
    taken = feeds.slice(sample, sample + 1)
    return {name: values[0] for name, values in taken.items()} if program.whole else dict(taken)


def _operands(layer: MacLayer, group: int, codes: Any, machine: Machine) -> GemmOperands:
    """Return the GEMM of one group over the codes (1, ...) that the layer reads."""
    part = slice(group * layer.num_outputs, (group + 1) * layer.num_outputs)
    fed = codes - np.int32(layer.input_offset)
    if layer.geometry is None:
        columns = np.ascontiguousarray(fed.reshape(-1, layer.reduction).T)
    else:
        planes = images_of(layer, fed)
        columns = convolution_columns(planes, layer.geometry, group, 0, layer.num_positions, layer.pad_value, machine)
    return GemmOperands(layer.weights[part], columns, layer.start[part], layer.weight_zero_points[part])
