"""The parts of AdaRound: the rectified sigmoid, the annealing, and both gradients against differences."""

import numpy as np
import pytest
from layer_cases import one_layer

from accelsim.graph.graph import Node
from accelsim.ptq.adaround import (
    Annealing,
    Layer,
    _gradient,
    _regularizer_slope,
    adaround,
    inverse_rectified_sigmoid,
    rectified_sigmoid,
)
from accelsim.ptq.slopes import following_activation, function_and_slope

ACTIVATIONS = {
    "Relu": {},
    "Clip": {"min": -0.5, "max": 1.0},
    "LeakyRelu": {"alpha": 0.1},
    "Sigmoid": {},
    "Tanh": {},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "HardSwish": {},
    "Swish": {"alpha": 1.5},
}


def test_the_rectified_sigmoid_reaches_both_ends_and_has_an_inverse():
    V = np.array([-30.0, 0.0, 30.0], dtype=np.float32)
    assert rectified_sigmoid(V).tolist() == [0.0, 0.5, 1.0]
    h = np.linspace(0, 1, 11)
    np.testing.assert_allclose(rectified_sigmoid(inverse_rectified_sigmoid(h)), h, atol=1e-6)


def test_beta_is_off_then_falls():
    annealing = Annealing(iterations=100, warm_up=0.2, first_beta=20.0, last_beta=2.0)
    assert annealing.beta(0) is annealing.beta(19) is None
    assert annealing.beta(20) == 20.0
    assert annealing.beta(60) == 11.0
    assert 2.0 < annealing.beta(99) < 2.3


@pytest.mark.parametrize("beta", [2.0, 7.0, 20.0])
def test_the_regularizer_has_the_slope_of_equation_34(beta):
    V = np.linspace(-2, 2, 9)

    def regularizer(V):
        h = 1 / (1 + np.exp(-V)) * 1.2 - 0.1
        return 1 - np.abs(2 * h - 1) ** beta

    step = 1e-5
    expected = (regularizer(V + step) - regularizer(V - step)) / (2 * step)
    np.testing.assert_allclose(_regularizer_slope(V.astype(np.float32), beta), expected, rtol=2e-3, atol=1e-4)
    assert (_regularizer_slope(np.array([-9.0, 9.0], dtype=np.float32), beta) == 0).all()  # h is clamped there


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("op", ACTIVATIONS)
def test_the_error_has_the_slope_of_equation_35(op, groups):
    """In float64 by central differences, at random points: no corner of a function is hit."""
    rng = np.random.default_rng(5)
    node = Node("f", op, ("y",), "z", ACTIVATIONS[op])
    graph, _ = one_layer("conv", rng)
    function, slope = function_and_slope(graph, node)
    n, k, p = 4, 3, 5
    scale = rng.uniform(0.3, 0.6, size=(n, 1))
    limits = np.full((n, 1), -2), np.full((n, 1), 1)
    layer = Layer(rng.normal(size=(n, k)) * 2, scale, *limits, rng.normal(size=n), function, slope)
    X = rng.normal(size=(groups, k, p)).astype(np.float32)
    wanted = rng.normal(size=(n, p)).astype(np.float32)
    floor, V = np.floor(layer.steps), rng.normal(size=(n, k))

    def error(V):
        h = np.clip(1 / (1 + np.exp(-V)) * 1.2 - 0.1, 0, 1)
        weights = scale * np.clip(floor + h, *limits)
        sums = (weights.reshape(groups, -1, k) @ X.astype(np.float64)).reshape(n, p) + layer.bias[:, None]
        return 3.0 * np.square(function(sums) - wanted).sum() / p

    step, expected = 1e-5, np.zeros_like(V)
    for place in np.ndindex(*V.shape):
        moved = np.zeros_like(V)
        moved[place] = step
        expected[place] = (error(V + moved) - error(V - moved)) / (2 * step)
    found = _gradient(layer, floor.astype(np.float32), V.astype(np.float32), X, wanted, 3.0)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("op", [*ACTIVATIONS, "PRelu", "ChannelClip"])
def test_slopes_are_those_of_the_functions(op):
    rng = np.random.default_rng(6)
    graph, _ = one_layer("conv", rng, channels=4)
    constants = {"slope": np.array([0.1, 0.2, -0.3], np.float32), "low": np.array([-1, -np.inf, 0], np.float32)}
    constants |= {"high": np.array([1, 0.5, np.inf], np.float32)}
    graph = type(graph)(
        graph.name,
        graph.opset,
        graph.inputs,
        graph.outputs,
        graph.nodes,
        {**graph.constants, **constants},
        graph.shapes,
    )
    inputs = {"PRelu": ("y", "slope"), "ChannelClip": ("y", "low", "high")}.get(op, ("y",))
    function, slope = function_and_slope(graph, Node("f", op, inputs, "z", ACTIVATIONS.get(op, {})))
    x, step = rng.normal(size=(3, 40)) * 3, 1e-6
    np.testing.assert_allclose(slope(x), (function(x + step) - function(x - step)) / (2 * step), rtol=1e-5, atol=1e-7)
    identity, one = function_and_slope(graph, None)
    assert identity(x) is x
    assert (one(x) == 1).all()


def test_only_the_one_reader_of_an_output_is_its_activation_function():
    rng = np.random.default_rng(7)
    graph, node = one_layer("conv", rng)
    assert following_activation(graph, node).op == "Relu"
    without, node = one_layer("conv", rng, activation=None)
    assert following_activation(without, node) is None


def test_a_channel_that_does_not_get_better_is_rounded_to_nearest():
    """One position and one input that is not 0: each weight on its own is best rounded to nearest."""
    steps = np.array([[0.2, 0.0], [0.9, 0.0]])
    layer = Layer(
        steps, np.ones((2, 1)), np.full((2, 1), -4), np.full((2, 1), 3), np.zeros(2), lambda y: y, np.ones_like
    )
    X = np.array([[[1.0], [0.0]]], dtype=np.float32)
    calls = []
    codes = adaround(
        layer, X, steps[:, :1].astype(np.float32), 0, Annealing(iterations=100), lambda *call: calls.append(call)
    )
    assert codes.tolist() == [[0, 0], [1, 0]]
    assert calls == [(100, 100)]
