import numpy as np
import pytest
from ptq_networks import Net, conv_net

import accelsim as ax
from accelsim.errors import FormatError
from accelsim.ptq.bit_widths import BitWidths
from accelsim.ptq.config import LayerBits
from accelsim.ptq.folding import fold
from accelsim.ptq.placement import place_quantizers

GRAPH = conv_net(np.random.default_rng(0))
IMAGES = np.random.default_rng(1).normal(size=(8, 3, 6, 6)).astype(np.float32)


def resolve(graph=GRAPH, **layers):
    folded = fold(graph).graph
    return BitWidths.of(folded, place_quantizers(folded), {name: LayerBits(**bits) for name, bits in layers.items()})


@pytest.mark.parametrize(
    ("name", "tensors"),
    [
        ("c1_node", {"n1", "r1"}),  # the convolution makes the folded batch norm's tensor, and stores what is behind
        ("r1_node", {"n1", "r1"}),
        ("n1", {"n1", "r1"}),
        ("image", {"image"}),
        ("pooled", {"sum", "pooled", "flat"}),  # pooling and reshaping keep the quantizer of the sum
        ("sum_node", {"sum", "pooled", "flat"}),
        ("logits_node", {"logits"}),
    ],
)
def test_a_width_reaches_every_tensor_of_one_quantizer(name, tensors):
    assert resolve(**{name: {"activation_bits": 16}}) == BitWidths({}, dict.fromkeys(tensors, 16))


def test_quantizers_have_the_widths_that_were_asked_for():
    layers = {"c2_node": {"weight_bits": 3, "activation_bits": 12}, "image": {"activation_bits": 4}}
    quantized = ax.quantize(GRAPH, IMAGES, ax.PTQConfig(weight_bits=8, activation_bits=8, layers=layers))
    bits = {name: parameters.format.bits for name, parameters in quantized.activations.items()}
    assert bits == {"image": 4, "r1": 8, "r2": 12, "sum": 8, "pooled": 8, "flat": 8, "logits": 8}
    weights = {
        node.name: quantized.weights[node.inputs[1]].parameters.format.bits
        for node in quantized.graph.nodes
        if node.op in ("Conv", "Gemm")
    }
    assert weights == {"c1_node": 8, "c2_node": 3, "logits_node": 8}
    assert "3 bits for the weights of 'c2_node'" in quantized.log
    assert "12 bits for the activation 'r2'" in quantized.log


def test_the_constant_of_an_addition_has_the_width_of_its_layer():
    net = Net(x=(3,))
    net.add("Relu", "x", "r")
    net.add("Add", "r", "y", [[1.0, 2.0, 3.0]])
    quantized = ax.quantize(net.graph("y"), np.ones((2, 3)), ax.PTQConfig(layers={"y_node": {"activation_bits": 16}}))
    (constant,) = quantized.weights.values()
    assert constant.parameters.format.bits == quantized.activations["y"].format.bits == 16


def test_a_softmax_keeps_its_scale_at_any_width():
    net = Net(x=(3,))
    net.add("Softmax", "x", "y", axis=1)
    quantized = ax.quantize(net.graph("y"), np.ones((2, 3)), ax.PTQConfig(layers={"y": {"activation_bits": 10}}))
    assert float(quantized.activations["y"].scale) == 2.0**-10


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            {"c1_nod": {"weight_bits": 8}},
            "ptq.layers: the network has no node or tensor 'c1_nod' (with batch norms folded); did you mean 'c1_node'",
        ),
        (
            {"zzz": {"weight_bits": 8}},
            "no node or tensor 'zzz' (with batch norms folded); there are 'c1_node', 'r1_node'",
        ),
        ({"n1": {"weight_bits": 8}}, "'n1' is a tensor without weights, so weight_bits does nothing; name 'c1_node'"),
        ({"sum_node": {"weight_bits": 8}}, "'sum_node' is a node (Add) without weights"),
        (
            {"sum": {"activation_bits": 8}, "flat": {"activation_bits": 16}},
            "'sum' and 'flat' share the quantizer of tensor 'sum', but ask for 8 and 16 activation_bits; give one",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(layers, message):
    with pytest.raises(FormatError) as caught:
        resolve(**layers)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"a": {"weight_bits": 0}}, "weight_bits must be at least 1, got 0"),
        ({"a": {"bits": 4}}, "bits is not a known key"),
        ({"a": 4}, "ptq.layers"),
    ],
)
def test_wrong_values_are_refused(layers, message):
    with pytest.raises(FormatError, match=message):
        ax.PTQConfig(layers=layers)


def test_a_configuration_is_read_from_toml(tmp_path):
    text = 'weight_bits = 4\nrounding = "adaround"\n[layers."conv/3:0"]\nactivation_bits = 16\n'
    config = ax.PTQConfig(weight_bits=4, rounding="adaround", layers={"conv/3:0": LayerBits(activation_bits=16)})
    assert ax.PTQConfig.from_toml(text) == config
    (tmp_path / "ptq.toml").write_text(text, encoding="utf-8")
    assert ax.PTQConfig.load(tmp_path / "ptq.toml") == config
    assert config.replace(weight_bits=8).layers == config.layers
    with pytest.raises(FormatError, match=r"text is not TOML"):
        ax.PTQConfig.from_toml("weight_bits = ")
    with pytest.raises(FormatError, match=r"missing.toml cannot be read"):
        ax.PTQConfig.load(tmp_path / "missing.toml")
