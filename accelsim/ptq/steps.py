"""The steps of the pipeline that rewrite the float network before anything is quantized."""

from __future__ import annotations

import numpy as np

from accelsim.errors import CalibrationError
from accelsim.graph.operators import LINEAR
from accelsim.ptq.absorption import DEVIATIONS, absorb_biases
from accelsim.ptq.bit_widths import BitWidths
from accelsim.ptq.channel_statistics import expect_channels, measure_channels
from accelsim.ptq.constant_channels import prune_constants
from accelsim.ptq.equalization import equalize
from accelsim.ptq.folding import fold
from accelsim.ptq.input_statistics import estimate_input, given_input
from accelsim.ptq.moments import propagate_moments
from accelsim.ptq.noise_scaling import Widths, minimise_noise
from accelsim.ptq.scaling import rescale_moments
from accelsim.ptq.work import Work


def fold_norms(work: Work) -> None:
    """Fold batch norms into linear layers, and keep what they tell of their tensors."""
    folded = fold(work.graph)
    work.graph, work.norms = folded.graph, folded.norms
    work.log += folded.log


def assign_widths(work: Work) -> None:
    """Find the layers and tensors that have a width of their own."""
    placement = work.placement
    work.widths = BitWidths.of(work.graph, placement, work.config.layers)
    work.log += [f"{bits} bits for the weights of {name!r}" for name, bits in work.widths.weights.items()]
    work.log += [
        f"{work.widths.activations[name]} bits for the activation {name!r}"
        for name in (*placement.calibrated, *placement.fixed)
        if name in work.widths.activations
    ]


def observe_channels(work: Work) -> None:
    """Measure what every channel does, or tell it from batch norms where there is no data."""
    graph, config = work.graph, work.config
    if work.feeds is None:
        _observe_inputs(work)
        moments = propagate_moments(graph, work.norms, {name: found.moments for name, found in work.inputs.items()})
        work.statistics = expect_channels(graph, moments, list(graph.shapes), config.batch_norm_alpha)
        work.log.append(f"told what {len(work.statistics)} of {len(graph.shapes)} tensors do from batch norms")
    elif config.prune_constants or config.equalize or work.absorbs_biases:
        tensors = [name for name, shape in graph.shapes.items() if len(shape) > 1]
        work.statistics = measure_channels(graph, tensors, work.feeds, work.progress)
        work.log.append(f"measured the channels of {len(tensors)} tensors on {work.feeds.num_samples} samples")


def _observe_inputs(work: Work) -> None:
    """Find out what the inputs are without seeing any."""
    for tensor in work.original.inputs:
        given = work.config.input_range
        if given is not None:
            found = given_input(work.graph.channels(tensor.name), *given)
        else:
            estimate = estimate_input(work.original, tensor.name)
            if estimate is None:
                raise CalibrationError(
                    f"input {tensor.name!r}: no batch norm behind the first layer tells its range; give calibration "
                    "data, or input_range"
                )
            found = estimate
        work.inputs[tensor.name] = found
        work.log.append(f"range of input {tensor.name!r}: {found.source}")


def prune(work: Work) -> None:
    """Take constant channels out."""
    if not work.config.prune_constants:
        return
    work.graph, pruned, log = prune_constants(work.graph, work.statistics)
    work.statistics |= {
        name: work.statistics[name].without(channels) for name, channels in pruned.items() if name in work.statistics
    }
    work.log += log


def equalize_ranges(work: Work) -> None:
    """Rescale channels, by predicted noise or by cross-layer equalization."""
    config = work.config
    if not config.equalize:
        return
    if config.equalization == "noise":
        work.graph, scales, log = minimise_noise(work.graph, work.statistics, _widths(work))
    else:
        work.graph, scales, log = equalize(work.graph, config.equalization_sweeps)
    work.statistics = {
        name: found.divided(scales[name]) if name in scales else found for name, found in work.statistics.items()
    }
    work.norms = rescale_moments(work.norms, scales)
    work.log += log


def _widths(work: Work) -> Widths:
    """Return the bits of everything that is rounded."""
    return Widths(
        {node.name: work.weight_format(node).bits for node in work.graph.nodes if node.op in LINEAR},
        {name: work.activation_format(name, 0.0).bits for name in work.placement.calibrated},
        work.config.per_channel,
    )


def absorb(work: Work) -> None:
    """Move what activations never go below into the next bias."""
    if not work.absorbs_biases:
        return
    if work.feeds is None:
        floors = {name: norm.mean - DEVIATIONS * norm.deviation for name, norm in work.norms.items()}
    else:
        floors = {name: found.minimum for name, found in work.statistics.items()}
    work.graph, shifts, log = absorb_biases(work.graph, floors)
    for name, shift in shifts.items():
        if name in work.statistics:
            work.statistics[name] = work.statistics[name].lowered(shift)
    work.norms = {
        name: norm.mapped(np.ones_like(norm.mean), -shifts[name]) if name in shifts else norm
        for name, norm in work.norms.items()
    }
    work.log += log
