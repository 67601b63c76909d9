"""The demonstration: the shipped network quantized, run on two machines, held against floating point.

Every figure of the report comes from a run; nothing is written down beforehand.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from accelsim.arrays import count_right
from accelsim.data import Digits, digits_model_path, load_digits
from accelsim.graph.graph import Graph
from accelsim.graph.quantized import QuantizedGraph
from accelsim.graph.reader import load_onnx
from accelsim.machine import Machine
from accelsim.machine.machine import MIN_REGISTER_BITS
from accelsim.program.lowering import lower
from accelsim.ptq import PTQConfig, quantize
from accelsim.reference import OnnxRunner, compare
from accelsim.simulator.run import simulate
from accelsim.tables import text_table

Step = Callable[[str], None]
"""Called with one line on what begins now."""

MACHINES = ("paper_4x4", "edge_16x16")
WIDTHS = ((8, 8, False), (8, 8, True), (4, 8, False), (4, 8, True))
"""Bits of weights, bits of activations, and whether weights are scaled per channel."""
RECIPES = (*WIDTHS, (3, 8, False), (3, 8, True))
"""Widths at which plain quantization and the pipeline are held against each other."""
PLAIN = {
    "prune_constants": False, "equalize": False, "bias_correction": "none", "rounding": "nearest",
    "weight_range": "min_max", "activation_range": "min_max",
}  # fmt: skip
"""Quantization with the range of all values, and none of the steps that repair what it does."""
RECIPE_MACHINE = "edge_16x16"
NARROWED = (8, 8, True)
NARROWED_MACHINE = "edge_16x16"
MODES = ("wrap", "saturate")
COLLAPSED = 0.5
"""Narrowing ends where both modes give less than this share of the right answers that the widest accumulator gives."""


@dataclass(frozen=True)
class DemoRun:
    """One quantization on one machine, over all held-back images.

    Parameters
    ----------
    weight_bits, activation_bits : int
        Widths in bits.
    per_channel : bool
        Whether every output channel has a weight scale of its own.
    machine : str
        Preset.
    float_accuracy, simulated_accuracy, integer_accuracy : float
        Share of images that are classified right, 0..1, by the float network and the simulated quantization in ONNX
        Runtime and by the machine's integers.
    cycles, macs, operations : int
        Totals over all images.
    overflow_events : int
        Accumulator overflows.
    largest_difference : int
        Largest difference between a code of the simulated quantization and of the integers, over all layers.
    largest_own_difference : int
        The same where each layer is simulated on the integers' own inputs: what no layer inherits from those before it.
    differing_share : float
        Share of codes that differ between the two, 0..1, over all layers.
    """

    weight_bits: int
    activation_bits: int
    per_channel: bool
    machine: str
    float_accuracy: float
    simulated_accuracy: float
    integer_accuracy: float
    cycles: int
    macs: int
    operations: int
    overflow_events: int
    largest_difference: int
    largest_own_difference: int
    differing_share: float


@dataclass(frozen=True)
class RecipeRun:
    """Plain quantization and the pipeline at one pair of widths, integers on one machine.

    Parameters
    ----------
    weight_bits, activation_bits : int
        Widths in bits.
    per_channel : bool
        Whether every output channel has a weight scale of its own.
    float_accuracy : float
        Share of images that the float network classifies right, 0..1.
    plain_accuracy, pipeline_accuracy, data_free_accuracy : float
        The same of the machine's integers: with min-max ranges and nothing else, with the pipeline's defaults, and with
        these where no calibration data is given.
    """

    weight_bits: int
    activation_bits: int
    per_channel: bool
    float_accuracy: float
    plain_accuracy: float
    pipeline_accuracy: float
    data_free_accuracy: float


@dataclass(frozen=True)
class NarrowedRun:
    """One accumulator width under one overflow mode.

    Parameters
    ----------
    accumulator_bits : int
        Width in bits.
    overflow : str
        ``wrap`` or ``saturate``.
    accuracy : float
        Share of images that are classified right, 0..1.
    overflow_events : int
        Accumulator overflows over all images.
    """

    accumulator_bits: int
    overflow: str
    accuracy: float
    overflow_events: int


@dataclass(frozen=True)
class DemoReport:
    """What the demonstration found.

    Parameters
    ----------
    network : str
        Name of the shipped network.
    num_images, num_calibration_images : int
        Held-back images that were run, and images that the ranges were calibrated on.
    macs_per_image : int
        Multiply-accumulates of one image.
    runs : tuple of DemoRun
        Each quantization on each machine.
    narrowed_machine : str
        The machine whose accumulator is narrowed.
    safe_bits : int
        Narrowest accumulator that holds every running sum of these images.
    narrowed : tuple of NarrowedRun
        From ``safe_bits`` down, each width under each mode.
    recipes : tuple of RecipeRun
        Plain quantization and the pipeline.
    """

    network: str
    num_images: int
    num_calibration_images: int
    macs_per_image: int
    runs: tuple[DemoRun, ...]
    narrowed_machine: str
    safe_bits: int
    narrowed: tuple[NarrowedRun, ...]
    recipes: tuple[RecipeRun, ...] = ()

    def narrowest_without_loss(self, overflow: str) -> int:
        """Return the narrowest width down to which no width has fewer right answers than the widest one.

        Parameters
        ----------
        overflow : {"wrap", "saturate"}
            The mode.

        Returns
        -------
        int
            Bits of the accumulator.
        """
        runs = [run for run in self.narrowed if run.overflow == overflow]
        narrowest = runs[0]
        for run in runs:
            if run.accuracy < runs[0].accuracy:
                break
            narrowest = run
        return narrowest.accumulator_bits

    def runs_table(self) -> str:
        """Return the runs as a table; ``apart`` and ``own`` are the two largest differences of `DemoRun`."""
        header = [
            "bits", "weight scales", "machine", "FP32 %", "simulated %", "integers %", "cycles", "MACs", "operations",
            "overflows", "apart", "own",
        ]  # fmt: skip
        rows = [
            [
                f"W{run.weight_bits}A{run.activation_bits}",
                "per channel" if run.per_channel else "per tensor",
                run.machine,
                f"{100 * run.float_accuracy:.1f}",
                f"{100 * run.simulated_accuracy:.1f}",
                f"{100 * run.integer_accuracy:.1f}",
                f"{run.cycles:,}",
                f"{run.macs:,}",
                f"{run.operations:,}",
                f"{run.overflow_events:,}",
                str(run.largest_difference),
                str(run.largest_own_difference),
            ]
            for run in self.runs
        ]
        return text_table(header, rows)

    def narrowed_table(self) -> str:
        """Return the narrowed accumulators as a table, one row per width."""
        header = ["accumulator bits", *(f"{mode}: {what}" for mode in MODES for what in ("accuracy %", "overflows"))]
        rows = []
        for bits in dict.fromkeys(run.accumulator_bits for run in self.narrowed):
            at_width = {run.overflow: run for run in self.narrowed if run.accumulator_bits == bits}
            cells = ((f"{100 * at_width[mode].accuracy:.1f}", f"{at_width[mode].overflow_events:,}") for mode in MODES)
            rows.append([str(bits), *(cell for pair in cells for cell in pair)])
        return text_table(header, rows)

    def recipes_table(self) -> str:
        """Return plain quantization and the pipeline as a table."""
        header = ["bits", "weight scales", "FP32 %", "plain min-max %", "pipeline %", "pipeline without data %"]
        rows = [
            [
                f"W{run.weight_bits}A{run.activation_bits}",
                "per channel" if run.per_channel else "per tensor",
                *(
                    f"{100 * share:.1f}"
                    for share in (
                        run.float_accuracy, run.plain_accuracy, run.pipeline_accuracy, run.data_free_accuracy,
                    )
                ),
            ]
            for run in self.recipes
        ]  # fmt: skip
        return text_table(header, rows)

    def conclusion(self) -> str:
        """Say in one sentence how narrow the accumulator may be."""
        wrap, saturate = (self.narrowest_without_loss(mode) for mode in MODES)
        return (
            f"The narrowest accumulator of {self.narrowed_machine} without loss of accuracy has {wrap} bits where it "
            f"wraps and {saturate} bits where it saturates; with {self.safe_bits} bits nothing overflows on these "
            "images."
        )

    def to_json(self) -> str:
        """Return the report as JSON."""
        report = asdict(self)
        report["narrowest_without_loss"] = {mode: self.narrowest_without_loss(mode) for mode in MODES}
        report["conclusion"] = self.conclusion()
        return json.dumps(report, indent=2, allow_nan=False)

    def __str__(self) -> str:
        tables = [self.runs_table(), self.recipes_table(), self.narrowed_table(), self.conclusion()]
        return "\n\n".join(tables)


def run_demo(step: Step | None = None, num_images: int | None = None) -> DemoReport:
    """Quantize the shipped network, run it on two machines and narrow the accumulator of one of them.

    Parameters
    ----------
    step : callable, optional
        Called with one line on each step when it begins.
    num_images : int, optional
        How many of the held-back images are run; all of them if left out.

    Returns
    -------
    DemoReport
        Accuracy, cycles, operations, overflow events and differences, all of them measured now.

    Notes
    -----
    The network is quantized to the widths of the white paper's tables, W8A8 and W4A8, with one weight scale per tensor
    and per channel (section 2.4.2). The narrowed accumulator starts at the width that holds the running sums of all
    images, as a run that records their range finds it, and loses a bit at a time.
    """
    say = step or _silent
    graph, digits = load_onnx(digits_model_path()), load_digits()
    digits = replace(digits, x_test=digits.x_test[:num_images], y_test=digits.y_test[:num_images])
    num_images, num_calibration = len(digits.x_test), len(digits.x_calibration)
    runs: list[DemoRun] = []
    networks: dict[tuple[int, int, bool], QuantizedGraph] = {}
    for widths in WIDTHS:
        weight_bits, activation_bits, per_channel = widths
        name = f"W{weight_bits}A{activation_bits} per {'channel' if per_channel else 'tensor'}"
        say(f"{name}: quantizing on {num_calibration} calibration images")
        config = PTQConfig(weight_bits=weight_bits, activation_bits=activation_bits, per_channel=per_channel)
        quantized = networks[widths] = quantize(graph, digits.x_calibration, config)
        for machine in MACHINES:
            say(f"{name}: running {num_images} held-back images on {machine}, and in ONNX Runtime")
            runs.append(_measure(graph, quantized, digits, machine, config))
    recipes = tuple(_compare_recipes(graph, digits, widths, networks.get(widths), say) for widths in RECIPES)
    narrowed_network = networks[NARROWED]
    macs = lower(narrowed_network, Machine.preset(NARROWED_MACHINE)).macs
    safe_bits, narrowed = _narrow(narrowed_network, digits, say)
    return DemoReport(
        graph.name,
        num_images,
        num_calibration,
        macs,
        tuple(runs),
        NARROWED_MACHINE,
        safe_bits,
        tuple(narrowed),
        recipes,
    )


def _compare_recipes(
    graph: Graph, digits: Digits, widths: tuple[int, int, bool], pipeline: QuantizedGraph | None, say: Step
) -> RecipeRun:
    """Hold plain quantization against the pipeline, which may have run for these widths already."""
    weight_bits, activation_bits, per_channel = widths
    say(f"W{weight_bits}A{activation_bits} per {'channel' if per_channel else 'tensor'}: plain, and without data")
    config = PTQConfig(weight_bits=weight_bits, activation_bits=activation_bits, per_channel=per_channel)
    ends = float(digits.x_calibration.min()), float(digits.x_calibration.max())
    machine = Machine.preset(RECIPE_MACHINE)

    def accuracy(quantized: QuantizedGraph) -> float:
        result = simulate(quantized, digits.x_test, machine, track="none")
        return count_right(result.real_outputs[quantized.graph.outputs[0]], digits.y_test) / len(digits.y_test)

    runner = OnnxRunner.of_original(graph)
    real = runner.run({graph.inputs[0].name: digits.x_test})[graph.outputs[0]]
    return RecipeRun(
        *widths,
        float_accuracy=count_right(real, digits.y_test) / len(digits.y_test),
        plain_accuracy=accuracy(quantize(graph, digits.x_calibration, config.replace(**PLAIN))),
        pipeline_accuracy=accuracy(pipeline or quantize(graph, digits.x_calibration, config)),
        data_free_accuracy=accuracy(quantize(graph, None, config.replace(input_range=ends))),
    )


def _measure(graph: Graph, quantized: QuantizedGraph, digits: Digits, preset: str, config: PTQConfig) -> DemoRun:
    """Run one quantization on one machine, and hold it against the other two sides."""
    machine = Machine.preset(preset)
    report = compare(graph, quantized, digits.x_test, machine, digits.y_test)
    result = simulate(quantized, digits.x_test, machine)
    if report.metrics is None or result.overflow_events is None:
        raise AssertionError("labels and tracking were asked for")
    elements = sum(layer.num_elements for layer in report.layers)
    return DemoRun(
        weight_bits=config.weight_bits,
        activation_bits=config.activation_bits,
        per_channel=config.per_channel,
        machine=preset,
        float_accuracy=report.metrics["float"]["top1"],
        simulated_accuracy=report.metrics["simulated"]["top1"],
        integer_accuracy=report.metrics["actual"]["top1"],
        cycles=result.cycles.total,
        macs=sum(layer.macs for layer in result.layers),
        operations=result.operations.total,
        overflow_events=result.overflow_events,
        largest_difference=max(layer.largest_difference for layer in report.layers),
        largest_own_difference=max(layer.own_difference for layer in report.layers),
        differing_share=sum(layer.differing_share * layer.num_elements for layer in report.layers) / elements,
    )


def _narrow(quantized: QuantizedGraph, digits: Digits, say: Step) -> tuple[int, list[NarrowedRun]]:
    """Return the width that holds every running sum, and the runs from there down to the collapse."""
    machine = Machine.preset(NARROWED_MACHINE)
    say(f"{NARROWED_MACHINE}: recording the range of all running sums")
    ranged = simulate(quantized, digits.x_test, machine, track="range")
    bits = [layer.needed_bits for layer in ranged.layers if layer.needed_bits is not None]
    safe_bits = max(MIN_REGISTER_BITS, *bits)
    runs: list[NarrowedRun] = []
    for width in range(safe_bits, MIN_REGISTER_BITS - 1, -1):
        say(f"{NARROWED_MACHINE}: narrowing the accumulator to {width} bits")
        for mode in MODES:
            runs.append(_narrowed_run(quantized, digits, machine.replace(accumulator_bits=width, overflow=mode)))
        if all(run.accuracy < COLLAPSED * runs[0].accuracy for run in runs[-len(MODES) :]):
            break
    return safe_bits, runs


def _narrowed_run(quantized: QuantizedGraph, digits: Digits, machine: Machine) -> NarrowedRun:
    """Run all held-back images with one accumulator."""
    result = simulate(quantized, digits.x_test, machine)
    right = count_right(result.real_outputs[quantized.graph.outputs[0]], digits.y_test)
    events = result.overflow_events
    if events is None:
        raise AssertionError("overflows were tracked")
    return NarrowedRun(machine.accumulator_bits, machine.overflow, right / len(digits.y_test), events)


def _silent(_: str) -> None:
    """Say nothing."""
