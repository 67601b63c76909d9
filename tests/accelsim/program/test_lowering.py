"""From a quantized graph to an integer program: what each layer holds, and what has no integer form."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import accelsim as ax
from accelsim.program import layers as kinds
from tests.accelsim.run.networks import CONFIGS, NETWORKS, images_of, quantized_network
from tests.accelsim.simulator.layer_cases import one_layer, quantized_weights, quantizers, triple
from tests.naive import gemm
from tests.naive.conv import taps
from tests.naive.quantizer import quantize

POWERS = ax.PTQConfig(power_of_two=True)


def stored(scale, zero_point=0, bits=8, signed=True):
    return ax.QuantizationParameters(np.float32(scale), np.int64(zero_point), ax.IntegerFormat(bits, signed))


def dense(x=None, y=None, w=None, bias=None, op="Gemm"):
    """A network of one matrix product with 3 inputs and 2 outputs."""
    integers = [[1, -2, 3], [4, 5, -6]]
    weights = {"w": quantized_weights(integers if op == "Gemm" else np.array(integers).T, w or stored(0.25))}
    sources, constants = ("x", "w"), {}
    if bias is not None:
        sources, constants = ("x", "w", "b"), {"b": np.array(bias, dtype=np.float32)}
    return one_layer(
        [(op, sources, "y", {})],
        {"x": ((3,), x or stored(0.5, 3))},
        ("y", (2,), y or stored(1.0)),
        constants=constants,
        weights=weights,
    )


def refused(network, message, machine=None):
    with pytest.raises(ax.LoweringError, match=message) as refusal:
        ax.lower(network, machine or ax.Machine())
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("zero_point", ["folded", "at_input"])
@pytest.mark.parametrize("order", ["channel_first", "spatial_first"])
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", NETWORKS)
def test_weights_and_start_values_are_those_of_the_contract(name, config, order, zero_point):
    quantized = quantized_network(name, config)
    machine = ax.Machine(reduction_order=order, zero_point=zero_point)
    program = ax.lower(quantized, machine)
    nodes = {node.name: node for node in quantized.graph.nodes}
    found = 0
    for layer in program.layers:
        if not isinstance(layer, kinds.MacLayer):
            continue
        found += 1
        node = nodes[layer.name]
        held = quantized.weights[node.inputs[1]]
        rows = held.integers.T if node.op == "MatMul" else held.integers
        z_x, z_w = (
            triple(quantized.activations[node.inputs[0]])[1],
            np.broadcast_to(held.parameters.zero_point, len(rows)),
        )
        for n, kernel in enumerate(rows.tolist()):
            flat = kernel
            if node.op == "Conv":
                planes = kernel if rows.ndim == 4 else [[row] for row in kernel]  # 1-D: a height of 1
                order_of_taps = taps(len(planes), len(planes[0]), len(planes[0][0]), order)
                flat = [planes[c][u][v] for c, u, v in order_of_taps]
            bias = 0
            real = quantized.biases.get(node.name)
            if real is None and len(node.inputs) == 3:
                real = quantized.graph.constants[node.inputs[2]]
            if real is not None:
                scale = np.broadcast_to(held.parameters.scale, len(rows))[n]
                bias = round(float(real[n]) / (float(quantized.activations[node.inputs[0]].scale) * float(scale)))
            z = int(z_w[n])
            _, start, last = gemm.terms(flat, [0] * len(flat), bias, z, z_x, zero_point)
            assert int(layer.start[n]) == start
            assert layer.weights[n].tolist() == [w - (z if zero_point == "at_input" else 0) for w in flat]
            assert int(layer.weight_zero_points[n]) == (0 if last is None else z)
        assert (layer.input_offset, layer.pad_value) == ((z_x, 0) if zero_point == "at_input" else (0, z_x))
    assert found == sum(node.op in ("Conv", "Gemm", "MatMul") for node in nodes.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_every_stored_tensor_is_made_by_one_layer(name):
    quantized = quantized_network(name)
    program = ax.lower(quantized, ax.Machine())
    inputs = [tensor.name for tensor in quantized.graph.inputs]
    assert inputs + [layer.output for layer in program.layers] == [
        *inputs,
        *(node.output for node in quantized.graph.nodes if node.output in quantized.activations),
    ]
    for layer in program.layers:
        assert layer.output_shape == quantized.graph.shapes[layer.output][1:]
        assert {*layer.inputs} <= {*program.tensors, *program.constants}
    assert program.tensors == quantized.activations
    for constant, codes in program.constants.items():
        assert codes.tolist() == quantized.weights[constant].integers.tolist()


def test_a_fused_function_narrows_the_clamp_and_lends_its_name():
    program = ax.lower(quantized_network("convolutions", "plain"), ax.Machine())
    found = {layer.name: (layer.op, layer.clamp) for layer in program.layers if isinstance(layer, kinds.MacLayer)}
    assert [op for op, _ in found.values()] == ["Conv+Relu", "Conv+Clip", "Conv", "Gemm"]
    for layer in program.layers:
        scale, zero_point, (low, high) = triple(program.tensors[layer.output])
        if layer.op == "Conv+Clip":
            bounds = [quantize(bound, scale, zero_point, low, high) for bound in (0.0, 1.5)]
            assert found[layer.name][1] == tuple(bounds)
        elif layer.op in ("Conv", "Gemm"):
            assert found[layer.name][1] == (low, high)


def test_rescaled_channels_have_clamps_of_their_own():
    """ReLU6 and its like become min(x, 6 / s), per channel: docs/ptq.md (88)."""
    quantized = quantized_network("convolutions")
    (clip,) = [node for node in quantized.graph.nodes if node.op == "ChannelClip"]
    (layer,) = [layer for layer in ax.lower(quantized, ax.Machine()).layers if layer.op == "Conv+ChannelClip"]
    scale, zero_point, (low, high) = triple(quantized.activations[layer.output])
    bounds = [quantized.graph.constants[name].tolist() for name in clip.inputs[1:]]
    codes = [[quantize(bound, scale, zero_point, low, high) for bound in row] for row in bounds]
    assert len(set(codes[1])) > 1
    assert layer.channel_clamps.tolist() == codes
    assert layer.clamp == (min(codes[0]), max(codes[1]))


@given(
    quantizers(),
    st.lists(st.none() | st.tuples(st.floats(-9, 9, width=32), st.floats(-9, 9, width=32)), min_size=1, max_size=3),
)
def test_a_chain_of_fused_functions_is_their_composition(y, bounds):
    """Clamping codes to the codes of the bounds equals quantizing the clamped real number, also for crossed bounds."""
    nodes, inner = [("Add", ("a", "b"), "t0", {})], {}
    for number, pair in enumerate(bounds):
        inner[f"t{number}"] = (1,)
        target = "y" if number == len(bounds) - 1 else f"t{number + 1}"
        attributes = {} if pair is None else {"min": pair[0], "max": pair[1]}
        nodes.append(("Relu" if pair is None else "Clip", (f"t{number}",), target, attributes))
    network = one_layer(nodes, {"a": ((1,), y), "b": ((1,), y)}, ("y", (1,), y), inner=inner)
    (layer,) = ax.lower(network, ax.Machine(requantizer="onnxruntime")).layers
    scale, zero_point, limits = triple(y)

    def composed(x):
        for pair in bounds:
            low, high = (0.0, float("inf")) if pair is None else pair
            x = min(max(x, low), high)  # ONNX's Clip
        return quantize(x, scale, zero_point, *limits)

    low, high = layer.clamp
    for x in (-1000.0, -3.25, -0.5, 0.0, 0.75, 4.0, 1000.0):
        assert min(max(quantize(x, scale, zero_point, *limits), low), high) == composed(x)


@pytest.mark.parametrize("bits", [4, 7])
def test_operands_wider_than_the_pes_are_refused_with_the_remedy(bits):
    network = dense()
    refused(
        network,
        rf"'node 0': weights are int8, .*take {bits}-bit weights.*raise weight_bits",
        ax.Machine(weight_bits=bits),
    )
    refused(
        network,
        rf"'node 0': activations are int8, .*take {bits}-bit .*raise activation_bits",
        ax.Machine(activation_bits=bits),
    )
    narrow = dense(x=stored(0.5, 3, bits), w=stored(0.25, 0, bits, True))
    ax.lower(narrow, ax.Machine(weight_bits=bits, activation_bits=bits))
    ax.lower(network, ax.Machine(weight_bits=8, activation_bits=8))


def test_the_paper_machine_takes_8_bits_and_no_more():
    machine = ax.Machine.preset("paper_4x4")
    ax.lower(quantized_network("convolutions"), machine)
    for config in ("16 bits", "3 and 12 bits"):
        refused(quantized_network("convolutions", config), "'c1_node'.*8-bit", machine)


def test_arbitrary_scales_are_no_shifts_and_the_remedy_is_named():
    machine = ax.Machine(requantizer="power_of_two")
    refused(quantized_network("convolutions"), r"layer 'c1_node': .*PTQConfig\(power_of_two=True\)", machine)
    program = ax.lower(quantized_network("convolutions", power_of_two=True), machine)
    for layer in program.layers:
        if isinstance(layer, kinds.MacLayer):
            assert (layer.rescale.reals == layer.rescale.mantissas * 2.0**-layer.rescale.exponents).all()
    # Other requantizers take such scales as well.
    ax.lower(quantized_network("convolutions", power_of_two=True), ax.Machine())


def test_a_bias_beyond_the_accumulator_contract_is_refused():
    tiny = stored(2.0**-60)
    ax.lower(dense(x=stored(1.0), w=tiny, bias=[1.0, 0.0]), ax.Machine(requantizer="float64_half_away"))
    refused(
        dense(x=stored(1.0), w=tiny, bias=[1.0, 4.0]), r"'node 0': the bias of channel 1 .*beyond 2\^61",
        ax.Machine(requantizer="float64_half_away"),
    )  # fmt: skip


def test_half_of_an_accumulator_unit_goes_to_even():
    network = dense(x=stored(0.5), w=stored(0.25), bias=[2.5 * 0.125, -3.5 * 0.125])
    (layer,) = ax.lower(network, ax.Machine()).layers
    assert layer.start.tolist() == [2, -4]


def without(network, *tensors, weights=True):
    """The network with some quantizers taken away."""
    kept = {name: value for name, value in network.activations.items() if name not in tensors}
    return type(network)(network.graph, kept, network.weights if weights else {}, network.original)


def test_what_is_not_quantized_is_refused():
    refused(without(dense(), weights=False), "layer 'node 0': its weights 'w' are not quantized")
    constant = one_layer(
        [("Add", ("x", "c"), "y", {})], {"x": ((2,), stored(0.5))}, ("y", (2,), stored(0.5)),
        weights={"c": quantized_weights([1, 2], stored(0.5))},
    )  # fmt: skip
    refused(without(constant, weights=False), "layer 'node 0': its constant 'c' is not quantized")
    chain = one_layer(
        [("Sigmoid", ("x",), "z", {}), ("Tanh", ("z",), "y", {})], {"x": ((2,), stored(0.5))},
        ("y", (2,), stored(0.5)), inner={"z": (2,)},
    )  # fmt: skip
    refused(chain, r"'node 0' \(Sigmoid\): its output 'z' has no quantizer")


@pytest.mark.parametrize("follower", ["Sigmoid", "LeakyRelu", "MaxPool"])
def test_only_relu_and_clip_are_fused(follower):
    network = one_layer(
        [("Add", ("a", "b"), "z", {}), (follower, ("z",), "y", {"alpha": 0.5})],
        {"a": ((2,), stored(0.5)), "b": ((2,), stored(0.5))},
        ("y", (2,), stored(0.5)),
        inner={"z": (2,)},
    )
    refused(network, r"'node 0' \(Add\): its output 'z' has no quantizer and is not followed by one Relu or Clip")


MOVES = {
    "MaxPool": {"kernel_shape": (1, 1), "strides": (1, 1), "pads": (0,) * 4, "dilations": (1, 1)},
    "AveragePool": {
        "kernel_shape": (1, 1), "strides": (1, 1), "pads": (0,) * 4, "dilations": (1, 1), "count_include_pad": 0},
    "Reshape": {},
    "Transpose": {"perm": (0, 1, 2, 3)},
    "Pad": {"pads": (0,) * 8, "value": 0.0},
}  # fmt: skip


@pytest.mark.parametrize("op", MOVES)
@pytest.mark.parametrize("other", [stored(0.25), stored(0.5, 1), stored(0.5, 0, 7)])
def test_layers_that_move_codes_need_one_quantizer(op, other):
    def network(target):
        shape = (2, 1, 3)
        return one_layer([(op, ("x",), "y", MOVES[op])], {"x": (shape, stored(0.5))}, ("y", shape, target))

    ax.lower(network(stored(0.5)), ax.Machine())
    refused(network(other), rf"'node 0' \({op}\): input 'x' and output 'y' must have the same quantizer")


WHOLE = {"kernel_shape": (2, 3), "strides": (1, 1), "pads": (0,) * 4, "dilations": (1, 1), "ceil_mode": 0}


def one_average(op, attributes, source, target):
    shape = (2,) if attributes.get("keepdims") == 0 else (2, 1, 1)
    return one_layer([(op, ("x",), "y", attributes)], {"x": ((2, 2, 3), source)}, ("y", shape, target))


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("GlobalAveragePool", {}),
        ("ReduceMean", {"axes": (2, 3), "keepdims": 0}),
        ("ReduceMean", {"axes": (2, 3), "keepdims": 1}),
        ("AveragePool", {**WHOLE, "count_include_pad": 0}),
        ("AveragePool", {**WHOLE, "count_include_pad": 1}),
    ],
)
def test_the_average_of_a_whole_image_may_have_a_quantizer_of_its_own(op, attributes):
    source, target = stored(0.5, 3), stored(0.1, -7, 6)
    program = ax.lower(one_average(op, attributes, source, target), ax.Machine(requantizer="float64_half_away"))
    (layer,) = program.layers
    assert isinstance(layer, kinds.MeanLayer)
    assert (layer.axes, layer.count, layer.source_zero_point, layer.zero_point) == ((2, 3), 6, 3, -7)
    assert layer.clamp == (-32, 31)
    assert layer.rescale.reals.tolist() == [np.float64(np.float32(0.5)) / (np.float64(np.float32(0.1)) * 6)]
    (layer,) = ax.lower(one_average(op, attributes, source, source), ax.Machine()).layers
    assert isinstance(layer, kinds.AveragePoolLayer)


def test_a_shift_brings_only_an_average_of_a_power_of_two_onto_another_grid():
    machine = ax.Machine(requantizer="power_of_two")
    refused(one_average("GlobalAveragePool", {}, stored(0.5), stored(0.25)), r"needs a multiplier of 2\^-j", machine)


@pytest.mark.parametrize("target", [stored(2.0**-7, 0, 8, False), stored(2.0**-8), stored(2.0**-8, 1, 8, False)])
def test_softmax_is_stored_on_the_grid_of_shares(target):
    def network(quantizer):
        return one_layer([("Softmax", ("x",), "y", {"axis": 1})], {"x": ((3,), stored(0.5))}, ("y", (3,), quantizer))

    (layer,) = ax.lower(network(stored(2.0**-8, 0, 8, False)), ax.Machine()).layers
    assert (layer.bits, layer.axis, len(layer.exponentials), layer.exponentials[0]) == (8, 1, 256, 2**23)
    refused(network(target), r"'node 0': Softmax is stored unsigned with scale 2\^-bits and zero point 0")


def test_an_operator_without_integer_form_is_refused():
    ones = np.ones(2, dtype=np.float32)
    network = one_layer(
        [("BatchNormalization", ("x", "s", "b", "m", "v"), "y", {"epsilon": 1e-5})],
        {"x": ((2, 1, 1), stored(0.5))},
        ("y", (2, 1, 1), stored(0.5)),
        constants=dict.fromkeys("sbmv", ones),
    )
    refused(network, r"'node 0' \(BatchNormalization\) has no integer form; fold it before lowering")


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_summary_shows_every_layer(name, config):
    machine = ax.Machine(requantizer="ruy_x86", reduction_order="spatial_first")
    program = ax.lower(quantized_network(name, config), machine)
    head, _, *lines = program.summary().splitlines()
    for part in (program.name, f"{len(program.layers)} layers", "ruy_x86", "folded", "spatial_first"):
        assert part in head
    assert f"{program.macs:,} MACs" in head
    rows = {layer.name: line for layer in program.layers for line in lines if line.startswith(f"{layer.name} ")}
    assert len(rows) == len(program.layers)
    for layer in program.layers:
        row, shown = rows[layer.name], program.tensors[layer.output]
        assert layer.op in row
        assert f"{'x'.join(map(str, layer.output_shape))} {shown.format}" in row
        if isinstance(layer, kinds.MacLayer):
            assert f"{layer.groups}x{layer.num_outputs}x{layer.reduction}" in row
            assert str(layer.weight_format) in row
            assert f"{layer.start.min()}..{layer.start.max()}" in row
            assert f"{layer.clamp[0]}..{layer.clamp[1]}" in row
            several = layer.num_outputs * layer.groups > 1  # one channel is a tensor
            assert ("per channel" in row) == (several and CONFIGS[config].get("per_channel", False))


@pytest.mark.parametrize("preset", ax.Requantizer.preset_names())
def test_the_summary_shows_multipliers_that_mean_what_the_scales_say(preset):
    requantizer = ax.Requantizer.preset(preset)
    quantized = quantized_network("tokens", power_of_two=requantizer.multiplier == "power_of_two")
    program = ax.lower(quantized, ax.Machine(requantizer=preset))
    lines = {line.split()[0]: line for line in program.summary().splitlines()[2:]}
    checked = 0
    for layer in program.layers:
        if not isinstance(layer, kinds.MacLayer):
            continue
        checked += 1
        cells = lines[layer.name].split()
        if "/" in cells:
            place = cells.index("/")
            assert cells[place + 1].startswith("2^")
            shown = Fraction(int(cells[place - 1])) / Fraction(2) ** int(cells[place + 1].removeprefix("2^"))
        else:
            shown = Fraction(cells[-2])
        node = next(node for node in quantized.graph.nodes if node.name == layer.name)
        s_x, s_w = quantized.activations[node.inputs[0]].scale, quantized.weights[node.inputs[1]].parameters.scale
        real = Fraction(float(s_x)) * Fraction(float(s_w)) / Fraction(float(quantized.activations[layer.output].scale))
        assert abs(shown / real - 1) < Fraction(1, min(10**6, 2 ** (requantizer.multiplier_bits - 2)))
    assert checked == 3


def test_macs_of_a_program_are_those_of_its_run():
    quantized, machine = quantized_network("convolutions"), ax.Machine()
    result = ax.simulate(quantized, images_of("convolutions", 3), machine)
    assert 3 * ax.lower(quantized, machine).macs == sum(layer.macs for layer in result.layers) > 0
