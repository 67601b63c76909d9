"""Whole networks on the simulator against the interpreter in Python integers: every operator, requantizer and mode."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import accelsim as ax
from accelsim.graph.operators import LINEAR, OPERATORS
from accelsim.ptq.folding import fold
from tests.accelsim.run.agreement import assert_equals_the_interpreter, varied_machine
from tests.accelsim.run.networks import CONFIGS, NETWORKS, graph_of, images_of, quantized_network
from tests.accelsim.simulator.gemm_cases import DATAFLOWS, machines
from tests.accelsim.simulator.layer_cases import requantizers

PRESETS = ("tflite", "tflite_single_rounding", "ruy_x86", "onnxruntime", "float64_half_away", "power_of_two")


def test_the_networks_use_every_operator():
    used = {node.op for name in NETWORKS for node in graph_of(name).nodes}
    used |= {node.op for node in quantized_network("convolutions").graph.nodes}  # where channels are rescaled
    assert used == set(OPERATORS)
    assert set(PRESETS) < set(ax.Requantizer.preset_names())


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_equals_the_interpreter(name, config, preset):
    quantized = quantized_network(name, config, power_of_two=preset == "power_of_two")
    machine = varied_machine(f"{name} {config} {preset}", requantizer=preset)
    assert_equals_the_interpreter(quantized, images_of(name), machine, track="range")


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
@pytest.mark.parametrize("zero_point", ["folded", "at_input"])
@pytest.mark.parametrize("order", ["channel_first", "spatial_first"])
@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_every_mode_with_narrow_registers(dataflow, order, zero_point, overflow, preset):
    # Asymmetric weights per channel: every term of the zero points is there, and every register overflows somewhere.
    power_of_two = preset == "power_of_two"
    quantized = quantized_network("convolutions", "asymmetric weights per channel", power_of_two)
    machine = ax.Machine(
        rows=3, columns=4, dataflow=dataflow, reduction_order=order, zero_point=zero_point, overflow=overflow,
        accumulator_bits=14, partial_sum_bits=12, adder_tree_bits=12, requantizer=preset,
    )  # fmt: skip
    result, _ = assert_equals_the_interpreter(quantized, images_of("convolutions"), machine)
    assert result.overflow_events > 0
    inner = sum(record.partial_overflow_events for record in result.layers)
    assert (inner == 0) == (dataflow == "output_stationary")


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_with_widths_of_their_own(name):
    """Every second layer stores 16 bits (12 the others), every third one has weights of 3 bits; the rest is W6A5."""
    graph = graph_of(name)
    layers = {graph.inputs[0].name: {"activation_bits": 9}}
    for number, node in enumerate(fold(graph).graph.nodes):
        if node.op in LINEAR:
            layers[node.name] = {"weight_bits": (3, 8, 6)[number % 3], "activation_bits": (16, 12)[number % 2]}
    quantized = ax.quantize(
        graph, images_of(name, 12, seed=0), ax.PTQConfig(weight_bits=6, activation_bits=5, layers=layers)
    )
    assert quantized.activations[graph.inputs[0].name].format.bits == 9
    widths = {
        quantized.weights[node.inputs[1]].parameters.format.bits for node in quantized.graph.nodes if node.op in LINEAR
    }
    assert widths <= {3, 6, 8}
    machine = varied_machine(f"{name} of several widths", requantizer=("tflite", "onnxruntime")[len(name) % 2])
    assert_equals_the_interpreter(quantized, images_of(name), machine)


@pytest.mark.parametrize("bits", range(2, 17))
def test_every_width_of_operands(bits):
    # Unusual pairs, as each width of weights meets another width of activations.
    quantized = ax.quantize(
        graph_of("residuals"),
        images_of("residuals", 12, seed=0),
        ax.PTQConfig(weight_bits=bits, activation_bits=18 - bits, weight_scheme=("affine", "symmetric")[bits % 2]),
    )
    machine = varied_machine(f"{bits} bits", requantizer=PRESETS[bits % 5], accumulator_bits=8 + bits)
    result, _ = assert_equals_the_interpreter(quantized, images_of("residuals"), machine)
    stored = {codes.dtype for codes in result.tensors.values()}
    assert stored == {np.dtype(np.uint8 if 18 - bits <= 8 else np.uint16)}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("name", ["convolutions", "signals", "tokens"])
def test_the_stepped_engine_runs_whole_networks(name, dataflow, preset):
    config = ("8 bits", "asymmetric weights")[preset in ("tflite", "onnxruntime")]
    quantized = quantized_network(name, config, power_of_two=preset == "power_of_two")
    machine = varied_machine(f"{name} {preset}", dataflow=dataflow, requantizer=preset, accumulator_bits=13)
    assert_equals_the_interpreter(quantized, images_of(name, 1), machine, engine="stepped", track="range")


@st.composite
def any_machine(draw):
    # A larger shift of the products takes multipliers out of the range of (19) and (24).
    shift = draw(st.just(0) | st.integers(1, 8))
    lanes = draw(st.none() | st.integers(1, 20))
    return draw(machines(requantizer=draw(requantizers), product_shift_bits=shift, vector_lanes=lanes))


@given(
    name=st.sampled_from(list(NETWORKS)),
    config=st.sampled_from(list(CONFIGS)),
    machine=any_machine(),
    samples=st.integers(1, 2),
    seed=st.integers(2, 5),
    track=st.sampled_from(["none", "overflow", "range"]),
    engine=st.sampled_from(["fast", "fast", "fast", "stepped"]),
)
def test_any_network_on_any_machine_equals_the_interpreter(name, config, machine, samples, seed, track, engine):
    quantized = quantized_network(name, config, power_of_two=machine.requantizer.multiplier == "power_of_two")
    assert_equals_the_interpreter(quantized, images_of(name, samples, seed), machine, engine, track)


def test_the_networks_copy_and_rescale_inputs_of_concatenations():
    """Without such a case the count of rescaled elements, and the copying of codes, would go unseen."""
    quantized = quantized_network("movements", "8 bits per channel")
    (joined,) = [node for node in quantized.graph.nodes if node.output == "joined"]
    copied = [quantized.activations[name] == quantized.activations["joined"] for name in joined.inputs]
    assert copied == [True, False, True]
