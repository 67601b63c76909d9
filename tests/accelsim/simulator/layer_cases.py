"""Networks of one layer with hand-made quantizers, run on stored integers."""

import numpy as np
from hypothesis import strategies as st

import accelsim as ax
from accelsim.graph.graph import Graph, Node, Tensor
from accelsim.graph.quantized import QuantizedGraph, QuantizedWeights

RULES = ("floor", "toward_zero", "half_up", "half_down", "half_away", "half_toward_zero", "half_even", "to_odd")

OVERFLOWS = ("saturate", "wrap", "saturate_to_zero", "saturate_symmetric")

requantizers = st.one_of(
    st.sampled_from(ax.Requantizer.preset_names()).map(ax.Requantizer.preset),
    st.builds(
        lambda bits, rounding, place, overflow: ax.Requantizer(
            multiplier_bits=bits, rounding=rounding, zero_point=place, overflow=overflow
        ),
        st.integers(8, 32),
        st.tuples(st.sampled_from(RULES)) | st.tuples(st.sampled_from(RULES), st.sampled_from(RULES)),
        st.sampled_from(["outside", "inside"]),
        st.sampled_from(OVERFLOWS),
    ),
    st.builds(
        lambda kind, rule, place, overflow: ax.Requantizer(
            multiplier=kind,
            rounding=rule,
            zero_point=place,
            overflow="saturate" if (overflow, kind[:5]) == ("wrap", "float") else overflow,
        ),
        st.sampled_from(["float32", "float64", "power_of_two"]),
        st.sampled_from(RULES),
        st.sampled_from(["outside", "inside"]),
        st.sampled_from(OVERFLOWS),
    ),
)


@st.composite
def quantizers(draw, powers_only=False, most_bits=16):
    """Quantizers whose scales are close enough to each other for every multiplier; powers of two make ties."""
    chosen = ax.IntegerFormat(
        draw(st.integers(1, most_bits) | st.sampled_from([min(8, most_bits)])), draw(st.booleans())
    )
    exponent = st.integers(-6, 3).map(lambda power: 2.0**power)
    scale = draw(exponent if powers_only else exponent | st.floats(2.0**-6, 8, width=32))
    zero_point = draw(st.integers(chosen.minimum, chosen.maximum))
    return ax.QuantizationParameters(np.float32(scale), np.int64(zero_point), chosen)


def triple(parameters):
    """A quantizer in the form in which the oracles take it."""
    limits = parameters.format.minimum, parameters.format.maximum
    return float(parameters.scale), int(parameters.zero_point), limits


def codes_of(parameters):
    low, high = parameters.format.minimum, parameters.format.maximum
    return st.integers(low, high) | st.sampled_from([low, high])


def one_layer(nodes, inputs, output, constants=None, weights=None, inner=()):
    """Make a network of one layer.

    ``nodes`` are (op, inputs, output, attributes); ``inputs`` {name: (shape without batch, quantizer)}; ``output``
    (name, shape, quantizer); ``weights`` {constant: QuantizedWeights}; ``inner`` {tensor: shape} of those that are not
    stored.
    """
    name, shape, stored = output
    weights = weights or {}
    graph = Graph(
        name="one layer",
        opset=17,
        inputs=tuple(Tensor(tensor, (None, *given)) for tensor, (given, _) in inputs.items()),
        outputs=(name,),
        nodes=tuple(
            Node(f"node {index}", op, tuple(sources), target, attributes)
            for index, (op, sources, target, attributes) in enumerate(nodes)
        ),
        constants={**(constants or {}), **{key: value.dequantize() for key, value in weights.items()}},
        shapes={
            **{tensor: (None, *given) for tensor, (given, _) in inputs.items()},
            **{tensor: (None, *given) for tensor, given in dict(inner).items()},
            name: (None, *shape),
        },
    )
    activations = {tensor: quantizer for tensor, (_, quantizer) in inputs.items()} | {name: stored}
    return QuantizedGraph(graph=graph, activations=activations, weights=weights, original=graph)


def run(network, codes, machine, **options):
    """Feed stored integers {input: array} and return the stored integers of the one output."""
    images = {name: network.activations[name].dequantize(array) for name, array in codes.items()}
    for name, array in codes.items():
        assert np.array_equal(network.activations[name].quantize(images[name]), array)
    result = ax.simulate(network, images, machine, **options)
    (stored,) = result.outputs.values()
    return stored


def quantized_weights(integers, parameters):
    return QuantizedWeights(np.array(integers, dtype=np.int64), parameters)
