"""Rewritings of the float network: what they leave unchanged, and what they are for."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ptq_networks import Net, run_float

from accelsim.graph.feeds import Feeds
from accelsim.ptq.absorption import absorb_biases
from accelsim.ptq.channel_statistics import measure_channels
from accelsim.ptq.constant_channels import prune_constants
from accelsim.ptq.equalization import equalize
from accelsim.ptq.folding import fold
from accelsim.ptq.moments import weights_by_channel
from accelsim.ptq.noise_scaling import Widths, _Problem, minimise_noise
from accelsim.ptq.placement import place_quantizers
from accelsim.ptq.scaling import scale_groups


def statistics_of(graph, images):
    tensors = [name for name, shape in graph.shapes.items() if len(shape) > 1]
    return measure_channels(graph, tensors, Feeds(graph, images))


def widths_of(graph, bits=8, per_channel=False):
    linear = {node.name: bits for node in graph.nodes if node.op in ("Conv", "Gemm", "MatMul")}
    return Widths(linear, dict.fromkeys(place_quantizers(graph).calibrated, 8), per_channel)


@st.composite
def networks(draw):
    """Random convolutional networks: depthwise layers, every homogeneous function, clips, branches, pooling, Gemm."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    channels = draw(st.integers(1, 4))
    net = Net(x=(channels, 6, 6))
    tensor, kept = "x", None
    activations = st.sampled_from(["Relu", "Clip", "LeakyRelu", "PRelu", "Sigmoid", "none", "two clips"])
    for number in range(draw(st.integers(1, 5))):
        out = f"c{number}"
        kind = draw(st.sampled_from(["dense", "depthwise", "pointwise"]))
        made = channels if kind == "depthwise" else draw(st.integers(1, 5))
        spread = np.exp(rng.normal(size=made))  # channels of different size, as batch norms leave them
        window = (1, 1) if kind == "pointwise" else (3, 3)
        weights = rng.normal(size=(made, 1 if kind == "depthwise" else channels, *window))
        operands = [weights * spread[:, None, None, None]]
        if draw(st.booleans()):
            operands.append(rng.normal(size=made))
        pads = [0] * 4 if kind == "pointwise" else [1] * 4
        net.add("Conv", tensor, out, operands, pads=pads, group=channels if kind == "depthwise" else 1)
        tensor, channels = out, made
        match draw(activations):
            case "Relu":
                tensor = net.add("Relu", tensor, f"a{number}")
            case "Clip":
                tensor = net.add("Clip", tensor, f"a{number}", [0.0, 2.0])
            case "two clips":
                net.add("Relu", tensor, f"a{number}")
                tensor = net.add("Clip", f"a{number}", f"b{number}", [-1.0, 3.0])
            case "LeakyRelu":
                tensor = net.add("LeakyRelu", tensor, f"a{number}", alpha=0.1)
            case "PRelu":
                tensor = net.add("PRelu", tensor, f"a{number}", [rng.uniform(0, 1, size=(channels, 1, 1))])
            case "Sigmoid":
                tensor = net.add("Sigmoid", tensor, f"a{number}")
        match draw(st.sampled_from(["", "max", "average", "residual", "branch"])):
            case "max":
                tensor = net.add("MaxPool", tensor, f"p{number}", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
            case "average":
                tensor = net.add("AveragePool", tensor, f"p{number}", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
            case "residual" if kept is not None and kept[1] == channels:
                tensor = net.add("Add", [tensor, kept[0]], f"s{number}")
        kept = (tensor, channels)
    net.add("GlobalAveragePool", tensor, "pooled")
    net.add("Flatten", "pooled", "flat")
    net.add("Gemm", "flat", "y", [rng.normal(size=(3, channels)), rng.normal(size=3)], transB=1)
    outputs = ["y", tensor] if draw(st.booleans()) and tensor != "x" else ["y"]
    images = rng.normal(size=(3, *net.inputs["x"])).astype(np.float32)
    return fold(net.graph(*outputs)).graph, images


def assert_same_function(graph, other, images, tolerance=2e-5):
    """Equal but for float32 rounding: every weight is rounded once more, and sums have other intermediate values."""
    before, after = run_float(graph, images), run_float(other, images)
    for name, value in before.items():
        assert np.abs(value - after[name]).max() <= tolerance * max(1e-3, np.abs(value).max())


@settings(max_examples=60)
@given(networks(), st.integers(1, 20), st.sampled_from([1.5, 10.0]))
def test_equalization_leaves_the_function_unchanged(case, sweeps, largest):
    graph, images = case
    found, scales, log = equalize(graph, sweeps, largest)
    assert_same_function(graph, found, images)
    assert all(1 / largest <= scale.min() <= scale.max() <= largest for scale in scales.values())
    assert len(log) == sum(group.chain for group in scale_groups(graph))
    assert not set(scales) & {"x", *graph.outputs}


@settings(max_examples=40)
@given(networks(), st.booleans())
def test_least_noise_leaves_the_function_unchanged(case, per_channel):
    graph, images = case
    found, scales, _ = minimise_noise(graph, statistics_of(graph, images), widths_of(graph, per_channel=per_channel))
    assert_same_function(graph, found, images)
    assert not set(scales) & {"x", *graph.outputs}


def chain(rng, function="Relu", spread=3.0):
    """Pointwise, depthwise, pointwise: the block of a MobileNet, with channels of very different size."""
    net = Net(x=(3, 8, 8))
    sizes = np.exp(rng.uniform(-spread, spread, size=6))
    net.add("Conv", "x", "c1", [rng.normal(size=(6, 3, 1, 1)) * sizes[:, None, None, None], rng.normal(size=6) * sizes])
    bounds = [[0.0, 6.0]] if function == "Clip" else [[]]
    net.add(function, "c1", "a1", *bounds)
    net.add("Conv", "a1", "c2", [rng.normal(size=(6, 1, 3, 3)) / sizes[:, None, None, None]], pads=[1] * 4, group=6)
    net.add(function, "c2", "a2", *bounds)
    net.add("Conv", "a2", "y", [rng.normal(size=(4, 6, 1, 1))])
    return net.graph("y")


def test_a_pair_has_equal_ranges_after_one_sweep():
    """s = sqrt(r1 / r2), by hand: docs/ptq.md (80)."""
    net = Net(x=(2, 3, 3))
    net.add("Conv", "x", "c", [np.array([[2.0, -8.0], [0.5, 0.25]]).reshape(2, 2, 1, 1), [4.0, 1.0]])
    net.add("Relu", "c", "r")
    net.add("Conv", "r", "y", [np.array([[2.0, 1.0], [-1.0, 8.0]]).reshape(2, 2, 1, 1)])
    found, scales, _ = equalize(net.graph("y"), 1)
    first, last = (node for node in found.nodes if node.op == "Conv")
    np.testing.assert_allclose(scales["r"], [2.0, 0.25])
    np.testing.assert_array_equal(found.constants[first.inputs[1]].reshape(2, 2), [[1, -4], [2, 1]])
    np.testing.assert_array_equal(found.constants[first.inputs[2]], [2, 4])
    np.testing.assert_array_equal(found.constants[last.inputs[1]].reshape(2, 2), [[4, 0.25], [-2, 2]])


def test_sweeps_even_out_a_chain_through_a_depthwise_layer():
    graph = chain(np.random.default_rng(1))
    found, _, _ = equalize(graph, 50, largest_scale=1e4)
    convolutions = [node for node in found.nodes if node.op == "Conv"]
    peaks = [np.abs(weights_by_channel(found, node)).max(axis=3) for node in convolutions]
    for (before, after), axis in zip(itertools.pairwise(peaks), (2, 2), strict=True):
        made = before.max(axis=axis).reshape(-1)
        read = after.max(axis=1).reshape(-1)
        np.testing.assert_allclose(made, read, rtol=1e-3)


def test_relu6_gets_a_bound_per_channel():
    graph = chain(np.random.default_rng(2), "Clip")
    found, scales, _ = equalize(graph, 3)
    clips = [node for node in found.nodes if node.op == "ChannelClip"]
    assert [node.output for node in clips] == ["a1", "a2"]
    for clip in clips:
        np.testing.assert_allclose(found.constants[clip.inputs[2]], 6 / scales[clip.output], rtol=1e-6)
        assert not found.constants[clip.inputs[1]].any()


def test_branches_and_functions_that_are_not_homogeneous_end_a_chain():
    net = Net(x=(2, 4, 4))
    ones = np.ones((2, 2, 1, 1))
    net.add("Conv", "x", "c1", [ones])
    net.add("Relu", "c1", "r1")
    net.add("Conv", "r1", "c2", [ones])
    net.add("Sigmoid", "c2", "s2")
    net.add("Conv", "s2", "c3", [ones])
    net.add("Add", ["r1", "c3"], "sum")
    net.add("Conv", "sum", "c4", [ones])
    net.add("Relu", "c4", "r4")
    net.add("Conv", "r4", "y", [ones])
    groups = scale_groups(net.graph("y"))
    assert [(group.tensors, group.chain) for group in groups] == [
        (("c1", "r1", "c3", "sum"), False),
        (("c4", "r4"), True),
    ]


def test_a_nearly_dead_channel_is_not_blown_up():
    """max|w| of 1e-30 of the layer's would become an activation of 1e14 times the others'."""
    rng = np.random.default_rng(3)
    net = Net(x=(3, 4, 4))
    weights = rng.normal(size=(4, 3, 1, 1))
    weights[1] *= 1e-30
    net.add("Conv", "x", "c", [weights, np.array([0.1, 0.5, 0.1, 0.1])])
    net.add("Relu", "c", "r")
    net.add("Conv", "r", "y", [rng.normal(size=(2, 4, 1, 1))])
    graph, images = net.graph("y"), rng.normal(size=(5, 3, 4, 4)).astype(np.float32)
    for found in (
        equalize(graph, 20)[0],
        minimise_noise(graph, statistics_of(graph, images), widths_of(graph))[0],
    ):
        assert_same_function(graph, found, images)
        before, after = (run_float(g, images, ["r"])["r"].max() for g in (graph, found))
        assert after < 20 * before


@pytest.mark.parametrize("per_channel", [False, True])
def test_the_predicted_noise_has_the_slope_that_it_claims(per_channel):
    graph = chain(np.random.default_rng(4), "Clip", spread=1.0)
    images = np.random.default_rng(5).normal(size=(4, 3, 8, 8)).astype(np.float32)
    problem = _Problem(graph, statistics_of(graph, images), widths_of(graph, 5, per_channel), scale_groups(graph))
    point = np.random.default_rng(6).normal(size=problem.size) / 3
    _, slope = problem.value(point, 8.0)
    for index in range(problem.size):
        step = np.zeros(problem.size)
        step[index] = 1e-5
        rise = (problem.value(point + step, 8.0)[0] - problem.value(point - step, 8.0)[0]) / 2e-5
        assert slope[index] == pytest.approx(rise, abs=1e-6)


def test_the_predicted_noise_is_that_of_its_formula():
    """docs/ptq.md (82) and (83) for one pair of layers, element by element, with the exact maximum."""
    rng = np.random.default_rng(7)
    net = Net(x=(2,))
    net.add("Gemm", "x", "c", [rng.normal(size=(3, 2)), rng.normal(size=3)], transB=1)
    net.add("Relu", "c", "r")
    net.add("Gemm", "r", "y", [rng.normal(size=(2, 3)), rng.normal(size=2)], transB=1)
    graph, images = net.graph("y"), rng.normal(size=(50, 2)).astype(np.float32)
    found = run_float(graph, images, ["c", "r", "y"])
    first, last = (graph.constants[node.inputs[1]] for node in graph.nodes if node.op == "Gemm")
    scale = np.array([0.5, 2.0, 3.0])
    counts_y = np.full(2, 1 / found["y"].var(axis=0).mean())
    counts_r = (last**2).T.astype(np.float64) @ counts_y
    active = (found["c"] > 0).mean(axis=0)
    total = 0.0
    for weights, variance, counts, read, made in (
        (first, images.var(axis=0), counts_r * active, np.ones(2), scale),
        (last, found["r"].var(axis=0), counts_y, scale, np.ones(2)),
    ):
        step = max(abs(weights[o, i]) * read[i] / made[o] for o in range(len(made)) for i in range(len(read))) / 127
        total += (
            step**2
            / 12
            * sum(
                counts[o] * variance[i] * (made[o] / read[i]) ** 2 for o in range(len(made)) for i in range(len(read))
            )
        )
    spans = {
        "x": (images, np.zeros(2), ((first**2).T @ (counts_r * active)), np.ones(2)),
        "r": (found["r"] / scale, scale, counts_r, active),
        "y": (found["y"], np.zeros(2), counts_y, np.ones(2)),
    }
    for name, (values, _, counts, share) in spans.items():
        step = (max(values.max(), 0) - min(values.min(), 0)) / 255
        units = scale if name == "r" else np.ones(2)
        total += step**2 / 12 * sum(counts * share * units**2)
    problem = _Problem(graph, statistics_of(graph, images), widths_of(graph), scale_groups(graph))
    assert problem.value(np.log(scale), 500.0)[0] == pytest.approx(np.log(total), abs=2e-3)  # 500 is nearly a maximum


def test_least_noise_is_a_minimum():
    graph = chain(np.random.default_rng(8))
    images = np.random.default_rng(9).normal(size=(4, 3, 8, 8)).astype(np.float32)
    statistics, widths = statistics_of(graph, images), widths_of(graph)
    _, scales, log = minimise_noise(graph, statistics, widths)
    problem = _Problem(graph, statistics, widths, scale_groups(graph))
    point = np.concatenate([np.log(scales[group.tensors[0]]) for group in scale_groups(graph)])
    least = problem.value(point, 64.0)[0]
    rng = np.random.default_rng(10)
    for size in (0.02, 0.2, 1.0):
        for _ in range(20):
            assert problem.value(point + size * rng.normal(size=problem.size), 64.0)[0] > least - 0.01
    assert "dB less" in log[0]


def dead_net(rng, padded):
    """Channel 1 is dead, channel 2 constant at 1.5; the reader pads or does not."""
    net = Net(x=(3, 5, 5))
    weights = rng.normal(size=(4, 3, 1, 1))
    weights[2] = 0
    net.add("Conv", "x", "c", [weights, np.array([0.1, -50.0, 1.5, 0.2])])
    net.add("Clip", "c", "r", [0.0, 6.0])
    last = rng.normal(size=(2, 4, 3, 3) if padded else (2, 4, 1, 1))
    last[:, 1] *= 1000  # the filter of a dead channel is the layer's outlier
    net.add("Conv", "r", "y", [last], pads=[1] * 4 if padded else [0] * 4)
    return net.graph("y")


@pytest.mark.parametrize("padded", [False, True])
def test_constant_channels_are_pruned(padded):
    rng = np.random.default_rng(11)
    graph, images = dead_net(rng, padded), rng.normal(size=(6, 3, 5, 5)).astype(np.float32)
    found, pruned, log = prune_constants(graph, statistics_of(graph, images))
    assert_same_function(graph, found, images)
    gone = [False, True, not padded, False]  # a constant other than 0 is not constant at a padded border
    assert pruned["r"].tolist() == gone
    first, last = (node for node in found.nodes if node.op == "Conv")
    assert (np.abs(found.constants[first.inputs[1]]).max(axis=(1, 2, 3)) == 0).tolist() == [False, True, True, False]
    assert (np.abs(found.constants[last.inputs[1]]).max(axis=(0, 2, 3)) == 0).tolist() == gone
    assert (found.constants[first.inputs[2]] == 0).tolist() == gone
    assert log == (f"pruned {sum(gone)} of 4 channels of Conv 'c_node', which are constant",)


@settings(max_examples=30)
@given(networks())
def test_pruning_leaves_the_function_unchanged(case):
    graph, images = case
    found, _, _ = prune_constants(graph, statistics_of(graph, images))
    assert_same_function(graph, found, images)


def test_high_biases_are_absorbed_exactly():
    """Where the floor holds, the function is the same, the clip moves along, and the range shrinks."""
    rng = np.random.default_rng(12)
    net = Net(x=(3, 4, 4))
    net.add("Conv", "x", "c", [rng.uniform(-0.2, 0.2, size=(4, 3, 1, 1)), np.array([3.0, 0.1, 4.0, 1.0])])
    net.add("Clip", "c", "r", [0.0, 4.1])
    net.add("GlobalAveragePool", "r", "p")
    net.add("Conv", "p", "y", [rng.normal(size=(2, 4, 1, 1))])
    graph, images = net.graph("y"), rng.uniform(-1, 1, size=(8, 3, 4, 4)).astype(np.float32)
    floors = {name: found.minimum for name, found in statistics_of(graph, images).items()}
    found, shifts, log = absorb_biases(graph, floors)
    assert_same_function(graph, found, images)
    before, after = (run_float(g, images, ["r"])["r"] for g in (graph, found))
    np.testing.assert_allclose(before - after, np.broadcast_to(shifts["r"][:, None, None], before.shape), atol=1e-6)
    assert shifts["r"][0] == pytest.approx(floors["c"][0])
    assert shifts["r"][1] == 0
    assert len(log) == 1


def test_nothing_is_absorbed_into_a_layer_that_pads():
    graph = chain(np.random.default_rng(13))
    floors = {"c1": np.full(6, 1.0), "c2": np.full(6, 1.0)}
    _, shifts, _ = absorb_biases(graph, floors)
    assert set(shifts) == {"c2", "a2"}
