"""Golden section, closed form, percentile, batch norms and cross-entropy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ptq_networks import Net, conv_net, run_float
from scipy import stats
from scipy.integrate import quad

from accelsim.formats import IntegerFormat, QuantizationParameters
from accelsim.graph.feeds import Feeds
from accelsim.ptq import PTQConfig, percentile, quantize
from accelsim.ptq.batch_norm_ranges import batch_norm_ranges
from accelsim.ptq.closed_form_range import laplace_clip, normal_clip
from accelsim.ptq.cross_entropy import cross_entropy_range
from accelsim.ptq.folding import fold
from accelsim.ptq.moments import Moments, clipped_normal, propagate_moments
from accelsim.ptq.ranges import Distribution, weight_range


def squared_error(values, parameters):
    return float(((values - parameters.dequantize(parameters.quantize(values))).astype(np.float64) ** 2).sum())


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
@pytest.mark.parametrize("axis", [None, 0])
def test_golden_section_comes_near_the_grid_search(bits, scheme, axis):
    values = np.random.default_rng(bits).laplace(size=(3, 2000)).astype(np.float32)
    values[1] += 1.5
    format = IntegerFormat(bits, signed=True)
    errors = {
        method: squared_error(values, weight_range(values, format, scheme, method, axis=axis))
        for method in ("golden_section", "mse", "min_max")
    }
    assert errors["golden_section"] <= errors["min_max"] * (1 + 1e-6)
    assert errors["golden_section"] <= errors["mse"] * 1.05  # beside the least minimum, or between the places


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_closed_forms_are_the_minima_of_their_integrals(bits):
    """Clipping and rounding error of the distribution itself, integrated numerically: docs/ptq.md (90)."""
    for clip, distribution in ((laplace_clip(bits), stats.laplace()), (normal_clip(bits), stats.norm())):

        def error(limit, distribution=distribution):
            tail = quad(lambda x: 2 * (x - limit) ** 2 * distribution.pdf(x), limit, limit + 60)[0]
            return tail + (2 * limit / 2**bits) ** 2 / 12

        assert error(clip) < min(error(clip * 0.99), error(clip * 1.01))


def test_closed_form_knows_published_clips():
    """Banner et al. 2019: 2.83, 3.89, 5.03 for Laplace, 1.71, 2.15, 2.55 for normal values at 2, 3 and 4 bits."""
    assert [laplace_clip(bits) for bits in (2, 3, 4)] == pytest.approx([2.83, 3.89, 5.03], abs=0.01)
    assert [normal_clip(bits) for bits in (2, 3, 4)] == pytest.approx([1.71, 2.15, 2.55], abs=0.01)


@pytest.mark.parametrize("kind", ["laplace", "normal", "half normal"])
@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
def test_closed_form_comes_near_the_grid_search_on_its_distributions(kind, scheme):
    rng = np.random.default_rng(0)
    values = rng.laplace(size=20000) if kind == "laplace" else rng.normal(size=20000)
    values = (np.abs(values) if kind == "half normal" else values).astype(np.float32)
    format = IntegerFormat(4, signed=kind != "half normal")
    closed, grid, whole = (
        squared_error(values, weight_range(values, format, scheme, method))
        for method in ("closed_form", "mse", "min_max")
    )
    assert closed < 0.8 * whole
    assert closed < 1.1 * grid


@pytest.mark.parametrize("share", [50.0, 90.0, 99.0, 99.99, 100.0])
def test_percentiles_are_those_of_numpy(share):
    values = np.random.default_rng(1).normal(size=(4, 999)).astype(np.float32)
    values[:, ::3] = 0  # zeros count, too
    format = IntegerFormat(8, signed=True)
    found = weight_range(values, format, "affine", "percentile", axis=0, percentile=share)
    low, high = np.percentile(values.astype(np.float64), [100 - share, share], axis=1)
    assert found == QuantizationParameters.from_range(low, high, format, axis=0)
    found = weight_range(values, format, "symmetric", "percentile", percentile=share)
    reach = np.percentile(np.abs(values.astype(np.float64)), share)
    reach = min(reach, values.max()), min(reach, -values.min())
    assert found == QuantizationParameters.from_range(-reach[1], reach[0], format, "symmetric")


@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
@pytest.mark.parametrize("share", [60.0, 99.0, 99.9, 100.0])
def test_percentiles_of_activations_are_exact(share, scheme, monkeypatch):
    graph = fold(conv_net(np.random.default_rng(0))).graph
    images = np.random.default_rng(2).normal(size=(23, 3, 6, 6)).astype(np.float32)
    monkeypatch.setattr(percentile, "samples_per_batch", lambda graph: 5)
    found = percentile.measure_percentiles(graph, ["image", "r1", "logits"], Feeds(graph, images), share, scheme)
    values = {"image": images, **run_float(graph, images, ["r1", "logits"])}
    for name, ends in found.items():
        everything = values[name].astype(np.float64)
        if scheme == "symmetric":
            wanted = np.percentile(np.abs(everything), share) * np.array([-1, 1])
        else:
            wanted = np.percentile(everything, [100 - share, share])
        np.testing.assert_allclose(ends, wanted, rtol=2e-5, atol=1e-6)  # another batch size, other last bits


def test_percentiles_take_bounded_memory(monkeypatch):
    """Few samples are looked at where the tails of all would not fit."""
    graph = fold(conv_net(np.random.default_rng(0))).graph
    monkeypatch.setattr(percentile, "TAIL_BYTES", 4 * 2 * (108 * 0.5 + 2) * 10)
    images = np.arange(40, dtype=np.float32)[:, None, None, None] * np.ones((1, 3, 6, 6), np.float32)
    seen = []
    percentile.measure_percentiles(
        graph, ["image"], Feeds(graph, images), 50.0, "affine", lambda _, done, total: seen.append((done, total))
    )
    assert seen[-1] == (10, 10)


def test_cross_entropy_keeps_the_large_logits():
    """Many small negative logits, few large ones: MSE cuts the large ones off, cross-entropy does not."""
    rng = np.random.default_rng(3)
    logits = rng.normal(-6, 1, size=(80, 400)).astype(np.float32)
    logits[np.arange(80), rng.integers(0, 400, 80)] = rng.uniform(8, 12, 80)
    format = IntegerFormat(4, signed=False)
    by_entropy = cross_entropy_range(logits, format, "affine")
    by_mse = weight_range(logits, format, "affine", "mse")

    def entropy(parameters):
        made = parameters.dequantize(parameters.quantize(logits)).reshape(logits.shape).astype(np.float64)
        shifted = made - made.max(axis=1, keepdims=True)
        probabilities = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        return -(probabilities * (shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))).sum(axis=1).mean()

    as_tensor = QuantizationParameters(by_entropy.scale[0], by_entropy.zero_point[0], format)
    assert entropy(as_tensor) < 0.9 * entropy(by_mse)
    assert entropy(as_tensor) <= entropy(weight_range(logits, format, "affine", "min_max"))


@settings(max_examples=40)
@given(
    st.floats(-5, 5), st.floats(0.01, 5), st.floats(-6, 3), st.floats(0, 8),
    st.sampled_from([(True, True), (True, False), (False, True)]),
)  # fmt: skip
def test_moments_of_a_clipped_normal(mean, deviation, low, width, bounded):
    """Against numerical integration: docs/ptq.md (85), (86)."""
    least = low if bounded[0] else -np.inf
    most = low + width if bounded[1] else np.inf
    found = clipped_normal(Moments(np.array([mean]), np.array([deviation])), least, most)
    points = np.linspace(-9, 9, 200001)
    density = np.exp(-(points**2) / 2)
    density /= density.sum()
    values = np.clip(mean + deviation * points, least, most)
    expected = float((values * density).sum())
    assert found.mean[0] == pytest.approx(expected, abs=1e-4 * deviation)
    assert found.deviation[0] == pytest.approx(
        np.sqrt(((values - expected) ** 2 * density).sum()), abs=2e-3 * deviation
    )


def test_the_mean_behind_relu_is_the_papers():
    beta, gamma = np.array([-1.0, 0.0, 2.0]), np.array([0.5, 1.0, 3.0])
    found = clipped_normal(Moments(beta, gamma), 0.0, np.inf)
    wanted = gamma * stats.norm.pdf(-beta / gamma) + beta * (1 - stats.norm.cdf(-beta / gamma))
    np.testing.assert_allclose(found.mean, wanted, rtol=1e-12)


def test_moments_go_through_a_network():
    """Normal inputs, measured against what is told: layers, every activation function, pooling, sums, concatenation."""
    rng = np.random.default_rng(4)
    net = Net(x=(16, 1, 1))
    net.add("Conv", "x", "c", [rng.normal(size=(6, 16, 1, 1)) / 4, rng.normal(size=6)])
    for op, attributes in (("Relu", {}), ("HardSwish", {}), ("LeakyRelu", {"alpha": 0.2}), ("Sigmoid", {})):
        net.add(op, "c", op, **attributes)
    net.add("Clip", "c", "Clip", [-0.5, 1.0])
    net.add("Concat", ["Relu", "HardSwish", "LeakyRelu", "Sigmoid", "Clip"], "all", axis=1)
    net.add("Mul", "all", "twice", [np.float32(2)])
    net.add("Add", "twice", "more", [rng.normal(size=(30, 1, 1))])
    net.add("Flatten", "more", "y")
    graph = net.graph("y")
    images = rng.normal(0.3, 0.8, size=(20000, 16, 1, 1)).astype(np.float32)
    known = propagate_moments(graph, {}, {"x": Moments(np.full(16, 0.3), np.full(16, 0.8))})
    found = run_float(graph, images, ["c", "all", "y"])
    for name in ("c", "all", "y"):
        values = found[name].reshape(len(images), -1).astype(np.float64)
        np.testing.assert_allclose(known[name].mean, values.mean(axis=0), atol=0.04)
        np.testing.assert_allclose(known[name].deviation, values.std(axis=0), atol=0.04)


def test_batch_norm_ranges_are_the_papers():
    """(18), (19): min(β − αγ), max(β + αγ) over the channels, behind the activation function."""
    rng = np.random.default_rng(5)
    net = Net(x=(3, 4, 4))
    net.add("Conv", "x", "c", [rng.normal(size=(2, 3, 1, 1))])
    net.add("BatchNormalization", "c", "n", [[1.0, -2.0], [0.5, -1.0], [0, 0], [1, 1]], epsilon=0.0)
    net.add("Relu", "n", "r")
    folded = fold(net.graph("n", "r"))
    found = batch_norm_ranges(folded.graph, folded.norms, {}, ["n", "r", "x"], alpha=3.0)
    assert found == {"n": (-7.0, 5.0), "r": (0.0, 5.0)}


@pytest.mark.parametrize("method", ["golden_section", "closed_form", "percentile", "batch_norm", "mse", "min_max"])
@pytest.mark.parametrize("power_of_two", [False, True])
def test_every_method_goes_through_the_pipeline(method, power_of_two):
    graph = conv_net(np.random.default_rng(0))
    images = np.random.default_rng(6).normal(size=(30, 3, 6, 6)).astype(np.float32)
    config = PTQConfig(
        activation_range=method, weight_range="auto" if method == "batch_norm" else method, percentile=99.9,
        power_of_two=power_of_two, per_channel=True, output_range="cross_entropy",
    )  # fmt: skip
    quantized = quantize(graph, images, config)
    assert all(parameters.is_power_of_two or not power_of_two for parameters in quantized.activations.values())
    from accelsim.reference import OnnxRunner

    real, simulated = run_float(graph, images)["logits"], OnnxRunner.of_simulated(quantized).run({"image": images})
    noise = ((real - simulated["logits"]) ** 2).sum() / (real**2).sum()
    assert noise < (0.02 if not power_of_two else 0.05)


def test_histograms_have_the_percentiles_of_no_one():
    """A percentile needs exact values; a distribution of weights has them."""
    distribution = Distribution.of(np.arange(5, dtype=np.float32))
    low, high = percentile.percentile_range(distribution, 75.0, "affine")
    assert (low[0], high[0]) == (1.0, 3.0)


def test_a_range_serves_the_weights_that_count():
    """An outlier that no input excites is cut off; where it alone counts, the range keeps it."""
    weights = np.concatenate([np.linspace(-1, 1, 50), [9.0]]).astype(np.float32).reshape(1, -1)
    format = IntegerFormat(4, signed=True)
    dead, alone = np.ones(51), np.zeros(51)
    dead[-1], alone[-1] = 0, 1
    for method in ("mse", "golden_section"):
        without = weight_range(weights, format, "symmetric", method, importance=dead.reshape(1, -1))
        only = weight_range(weights, format, "symmetric", method, importance=alone.reshape(1, -1))
        assert float(without.grid_limits[1]) < 1.2
        assert float(only.grid_limits[1]) == pytest.approx(9.0, rel=0.1)
    unknown = weight_range(weights, format, "symmetric", "mse", importance=np.zeros((1, 51)))
    assert unknown == weight_range(weights, format, "symmetric", "mse")
