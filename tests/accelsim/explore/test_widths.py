"""The three widths of a network: each held to a run that shares nothing."""

import dataclasses
import json

import numpy as np
import pytest

import accelsim as ax
from accelsim.arrays import count_right
from accelsim.explore.adversary import adversary
from accelsim.program.layers import MacLayer
from accelsim.simulator.execute import Execution

MACHINES = {
    "output_stationary": ax.Machine(rows=4, columns=4),
    "broadcast": ax.Machine(rows=4, columns=4, dataflow="broadcast"),
    "weight_stationary": ax.Machine(rows=8, columns=4, dataflow="weight_stationary", zero_point="at_input"),
}
INNER = {"broadcast": "adder_tree_bits", "weight_stationary": "partial_sum_bits"}


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=MACHINES)
def analysed(digits, request):
    machine = MACHINES[request.param]
    report = ax.accumulator_widths(digits.quantized, digits.images, machine, digits.labels, max_loss=0.05)
    return machine, report


def test_proven_is_never_below_needed_and_needed_never_below_what_holds(analysed):
    _, report = analysed
    registers = [register for layer in report.layers for register in layer.registers]
    kinds = 3 if "partial" in str(report) or "adder" in str(report) else 2
    assert len(registers) == kinds * len(report.layers)
    for register in [*registers, *report.network_registers]:
        assert register.proven_bits >= register.needed_bits
        assert register.needed_bits >= max(register.holds_wrap_bits, register.holds_saturate_bits)
        if register.register != "multiplier":
            assert register.proven_low <= register.needed_low <= register.needed_high <= register.proven_high
            assert max(bits for bits, _ in register.distribution) == register.needed_bits


def test_the_distribution_counts_every_output_once(analysed, digits):
    machine, report = analysed
    program = ax.lower(digits.quantized, machine)
    outputs = {layer.name: int(np.prod(layer.output_shape)) for layer in program.layers}
    for layer in report.layers:
        assert sum(count for _, count in layer.registers[0].distribution) == outputs[layer.name] * len(digits.images)


def test_needed_is_what_range_tracking_of_a_run_finds_and_one_bit_less_overflows(analysed, digits):
    machine, report = analysed
    result = ax.simulate(digits.quantized, digits.images, machine, track="range")
    found = {layer.name: layer for layer in result.layers if layer.macs}
    for layer in report.layers:
        needed = layer.register("accumulator")
        assert (needed.needed_low, needed.needed_high) == (found[layer.name].range_min, found[layer.name].range_max)
        assert needed.needed_bits == found[layer.name].needed_bits
    bits = report.register("accumulator").needed_bits
    for width_bits, overflows in ((bits, False), (bits - 1, True)):
        run = ax.simulate(digits.quantized, digits.images, machine.replace(accumulator_bits=width_bits))
        assert (run.overflow_events > 0) == overflows
    if machine.dataflow in INNER:
        field = INNER[machine.dataflow]
        bits = report.register(field.removesuffix("_bits")).needed_bits
        for width_bits, overflows in ((bits, False), (bits - 1, True)):
            run = ax.simulate(digits.quantized, digits.images, machine.replace(**{field: width_bits}))
            assert (sum(layer.partial_overflow_events for layer in run.layers) > 0) == overflows


def test_the_curve_is_that_of_runs_that_share_nothing(analysed, digits):
    machine, report = analysed
    assert {step.overflow for step in report.curve} == {"wrap", "saturate"}
    assert min(step.accuracy for step in report.curve) < 0.5 * report.exact_accuracy
    for step in report.curve:
        target = machine.replace(accumulator_bits=step.bits, overflow=step.overflow)
        run = ax.simulate(digits.quantized, digits.images, target)
        assert step.overflow_events == run.overflow_events
        assert step.accuracy == count_right(next(iter(run.outputs.values())), digits.labels) / len(digits.labels)
        assert (step.num_run == 0) == (run.overflow_events == 0)


def run_with_one_layer_elsewhere(digits, machine, name, other):
    """Run the network layer by layer, one of them on another machine; return the first output's codes."""
    program, elsewhere = ax.lower(digits.quantized, machine), ax.lower(digits.quantized, other)
    alive = {tensor.name: program.store(tensor.name, digits.images) for tensor in program.inputs}
    for layer, moved in zip(program.layers, elsewhere.layers, strict=True):
        chosen, target = (moved, other) if layer.name == name else (layer, machine)
        execution = Execution(
            dataclasses.replace(program, layers=(chosen,)), target, "fast", "none", len(digits.images)
        )
        alive |= execution.run(dict(alive), keep=[layer.output])
    return alive[program.outputs[0]]


def test_a_layer_narrowed_alone_is_run_with_the_others_exact(digits):
    machine = MACHINES["broadcast"]
    report = ax.accumulator_widths(digits.quantized, digits.images, machine, digits.labels, max_loss=0.05, threads=1)
    for layer in (report.layers[1], report.layers[-1]):
        for register in layer.registers:
            for step in register.steps:
                if register.register == "multiplier":
                    requantizer = {**machine.requantizer.model_dump(), "multiplier_bits": step.bits}
                    changed = {"requantizer": ax.Requantizer(**requantizer)}
                else:
                    changed = {f"{register.register}_bits": step.bits, "overflow": step.overflow}
                codes = run_with_one_layer_elsewhere(digits, machine, layer.name, machine.replace(**changed))
                assert step.accuracy == count_right(codes, digits.labels) / len(digits.labels)


def test_the_result_does_not_depend_on_threads_and_labels_may_be_left_out(digits):
    arguments = (digits.quantized, digits.images[:8], MACHINES["broadcast"])
    one, four = (ax.accumulator_widths(*arguments, threads=threads) for threads in (1, 4))
    assert one == four
    assert (one.metric, one.exact_accuracy) == ("agreement", 1.0)
    record = json.loads(one.to_json())
    assert record["layers"][0]["registers"][0]["proven_bits"] == one.layers[0].register("accumulator").proven_bits
    assert len(one.table()[1]) == sum(len(layer.registers) for layer in one.layers) + len(one.network_registers)


def test_fewer_samples_may_be_searched_than_tracked(digits):
    few = ax.accumulator_widths(digits.quantized, digits.images, labels=digits.labels, search_samples=8)
    assert (few.num_samples, few.num_searched) == (12, 8)
    every = ax.accumulator_widths(digits.quantized, digits.images, labels=digits.labels, search_samples=None)
    for a, b in zip(few.layers, every.layers, strict=True):
        assert [r.needed_bits for r in a.registers] == [r.needed_bits for r in b.registers]


@pytest.mark.parametrize("field", ["max_loss", "search_samples", "threads"])
def test_options_out_of_range_are_refused_by_name(digits, field):
    with pytest.raises(ax.OperandError, match=field):
        ax.accumulator_widths(digits.quantized, digits.images[:2], **{field: -1})
    with pytest.raises(ax.DataError, match="labels"):
        ax.accumulator_widths(digits.quantized, digits.images[:2], labels=[1])


def test_a_layer_of_the_network_overflows_a_bit_below_its_proven_width(digits):
    """The adversary of a real layer, through the whole run of a program of that layer alone."""
    machine = MACHINES["weight_stationary"]
    program = ax.lower(digits.quantized, machine)
    report = ax.accumulator_widths(digits.quantized, digits.images[:2], machine)
    for layer in program.layers:
        if isinstance(layer, MacLayer):
            proven = {
                r.register: r.proven_bits for r in next(x for x in report.layers if x.name == layer.name).registers
            }
            for register in ("accumulator", "partial_sum"):
                codes = adversary(layer, machine, register).codes
                for bits, overflows in ((proven[register], False), (proven[register] - 1, True)):
                    target = machine.replace(**{f"{register}_bits": bits})
                    alone = Execution(dataclasses.replace(program, layers=(layer,)), target, "fast", "overflow", 1)
                    alone.run({layer.inputs[0]: codes}, keep=[])
                    tally = alone.grid.tallies[layer.name]
                    assert ((tally.events if register == "accumulator" else tally.partial) > 0) == overflows
