"""Second moments told from batch norms: docs/ptq.md (120) to (122), each sum spelt out."""

import math
from itertools import product

import numpy as np
import pytest
from scipy.integrate import quad

from accelsim.ptq import PTQConfig, quantize
from accelsim.ptq.covariances import expected_second_moments, propagate_covariances
from accelsim.ptq.moments import Moments, propagate_moments
from tests.accelsim.ptq.ptq_networks import Net

INPUT = Moments(np.array([0.3, -0.2, 0.5, 0.1]), np.array([0.5, 1.5, 1.0, 0.25]))


def colours(deviation):
    size = len(deviation)
    return [[deviation[i] * deviation[j] * (1.0 if i == j else 0.9) for j in range(size)] for i in range(size)]


def layer(groups, kernel=(2, 3), dilations=(1, 1), outputs=4):
    rng = np.random.default_rng(groups)
    net = Net(x=(4, 9, 9))
    weights = rng.normal(size=(outputs, 4 // groups, *kernel))
    net.add("Conv", "x", "c", [weights], group=groups, dilations=list(dilations))
    net.add("Relu", "c", "y")
    return net.graph("y"), weights.astype(np.float32).astype(float)


def gram_of(source, group, inputs, kernel, dilations):
    """(120), (121): entry by entry."""
    places = [(i, row, column) for i, row, column in product(range(inputs), *map(range, kernel))]
    return [
        [
            source[group * inputs + i][group * inputs + j]
            * 0.8 ** (dilations[0] * abs(r - s) + dilations[1] * abs(c - d))
            for j, s, d in places
        ]
        for i, r, c in places
    ]


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("dilations", [(1, 1), (2, 3)])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_second_moments_of_a_window(groups, dilations, centred):
    graph, weights = layer(groups, dilations=dilations)
    node, inputs = graph.nodes[0], 4 // groups
    source = np.array(colours(INPUT.deviation))
    found = expected_second_moments(graph, node, INPUT, source, centred)
    for group in range(groups):
        wanted = np.array(gram_of(source, group, inputs, (2, 3), dilations))
        if not centred:
            mean = [INPUT.mean[group * inputs + i] for i in range(inputs) for _ in range(6)]
            wanted += [[a * b for b in mean] for a in mean]
        np.testing.assert_allclose(found.gram[group], wanted, rtol=1e-12)
        for n in range(group * 4 // groups, (group + 1) * 4 // groups):
            row = weights[n].reshape(-1)
            np.testing.assert_allclose(found.cross[n], [sum(row * column) for column in wanted.T], rtol=1e-9)
            assert found.power[n] == pytest.approx(row @ wanted @ row)
            # What is written as the weights themselves makes no error.
            assert found.error(weights.reshape(4, -1))[n] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_covariance_behind_a_layer_and_a_relu(groups):
    graph, weights = layer(groups)
    moments = propagate_moments(graph, {}, {"x": INPUT})
    found = propagate_covariances(graph, moments)
    source = colours(INPUT.deviation)
    np.testing.assert_allclose(found["x"], source)
    inputs, made = 4 // groups, np.zeros((4, 4))
    for o, p in product(range(4), range(4)):
        first, second = (channel // (4 // groups) for channel in (o, p))
        if first != second and inputs > 1:
            continue
        for (i, j), r, c, s, d in product(product(range(inputs), repeat=2), range(2), range(3), range(2), range(3)):
            near = 0.8 ** (abs(r - s) + abs(c - d))
            here = source[first * inputs + i][second * inputs + j]
            made[o, p] += weights[o, i, r, c] * weights[p, j, s, d] * near * here
    share = moments["c"].deviation / np.sqrt(np.diagonal(made))
    np.testing.assert_allclose(found["c"], made * np.outer(share, share), rtol=1e-9)
    np.testing.assert_allclose(np.diagonal(found["y"]), moments["y"].deviation ** 2)
    active = [0.5 * (1 + math.erf(m / s / math.sqrt(2))) for m, s in zip(*vars(moments["c"]).values(), strict=True)]
    for o, p in product(range(4), range(4)):
        if o != p:
            assert found["y"][o, p] == pytest.approx(active[o] * active[p] * found["c"][o, p])
    assert (np.linalg.eigvalsh(found["y"]) > -1e-9).all()


@pytest.mark.parametrize(("op", "function"), [("Tanh", math.tanh), ("Sigmoid", lambda x: 1 / (1 + math.exp(-x)))])
def test_any_activation_function_has_a_mean_slope(op, function):
    net = Net(x=(4, 2, 2))
    net.add(op, "x", "y")
    graph = net.graph("y")
    moments = propagate_moments(graph, {}, {"x": INPUT})
    found = propagate_covariances(graph, moments)["y"]

    def slope(mean, deviation):
        def integrand(z):
            return function(mean + deviation * z) * z * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

        return quad(integrand, -12, 12)[0] / deviation

    slopes = [slope(m, s) for m, s in zip(INPUT.mean, INPUT.deviation, strict=True)]
    for i, j in product(range(4), range(4)):
        if i != j:
            assert found[i, j] == pytest.approx(slopes[i] * slopes[j] * colours(INPUT.deviation)[i][j], rel=1e-6)


def test_sums_add_what_is_known_and_the_unknown_begins_anew():
    net = Net(x=(4, 2, 2))
    net.add("Relu", "x", "r")
    net.add("Add", ["x", "r"], "s")
    net.add("GlobalAveragePool", "s", "p")
    net.add("Mul", "p", "m", [np.full((4, 1, 1), 2.0)])
    net.add("Flatten", "m", "f")
    net.add("MatMul", "f", "y", [np.eye(4)])
    graph = net.graph("y")
    moments = propagate_moments(graph, {}, {"x": INPUT})
    found = propagate_covariances(graph, moments)
    off = ~np.eye(4, dtype=bool)
    np.testing.assert_allclose(found["s"][off], (found["x"] + found["r"])[off])
    np.testing.assert_allclose(found["p"], found["s"])
    np.testing.assert_allclose(found["m"], np.diag(moments["m"].deviation ** 2))
    np.testing.assert_allclose(found["y"], found["m"], rtol=1e-6)


def test_too_long_reductions_are_left_alone(monkeypatch):
    monkeypatch.setattr("accelsim.ptq.covariances.LONGEST_REDUCTION", 20)
    quantized = quantize(network(), config=PTQConfig(weight_bits=4, input_range=(-1, 1)))
    assert not any("without data" in line for line in quantized.log)  # 27 and 72 weights to an output
    graph, _ = layer(1)
    moments = propagate_moments(graph, {}, {"x": INPUT})
    monkeypatch.setattr("accelsim.ptq.covariances.LONGEST_REDUCTION", 3)
    assert propagate_covariances(graph, moments) == {}


def network():
    rng = np.random.default_rng(0)
    net = Net(image=(3, 8, 8))
    tensor = "image"
    for name, inputs in (("a", 3), ("b", 8), ("d", 8)):
        net.add("Conv", tensor, f"{name}c", [rng.normal(size=(8, inputs, 3, 3))], pads=[1] * 4)
        net.batch_norm(f"{name}c", f"{name}n", 8, rng)
        tensor = net.add("Relu", f"{name}n", f"{name}r")
    return net.graph(tensor)


def test_rounding_without_data_lowers_the_expected_error_of_every_layer():
    config = PTQConfig(weight_bits=4, per_channel=True, input_range=(-1, 1))
    quantized = quantize(network(), config=config)
    lines = [line for line in quantized.log if "by qubo without data" in line]
    assert len(lines) == 3
    for line in lines:
        before, after = (
            float(part.split(" %")[0].split()[-1]) for part in line.split("output error")[1].split(",")[:2]
        )
        assert after < before
    again = quantize(network(), config=config)
    nearest = quantize(network(), config=config.replace(rounding="nearest"))
    for name, weights in quantized.weights.items():
        assert (weights.integers == again.weights[name].integers).all()
        assert (weights.integers != nearest.weights[name].integers).any()
        assert weights.parameters == nearest.weights[name].parameters
    assert not any("without data" in line for line in nearest.log)
    stand_in = quantize(network(), config=config.replace(rounding="adaround"))
    assert all((stand_in.weights[name].integers == quantized.weights[name].integers).all() for name in stand_in.weights)
