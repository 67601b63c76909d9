"""Figures hold the numbers of the results that they are drawn from."""

import sys

import numpy as np
import pytest

import accelsim as ax
from accelsim.report.plots import COLOURS, accuracy_by_width, save_figure
from accelsim.report.plots_distributions import distributions
from accelsim.report.plots_layers import layer_costs, layer_ranges
from accelsim.report.plots_sweep import pareto_fronts, sweep_by_width
from tests.accelsim.explore.tiny import tiny_network

NUM_IMAGES = 8


@pytest.fixture(scope="module")
def network():
    tiny = tiny_network()
    return tiny.quantized, tiny.images, tiny.labels


@pytest.fixture(scope="module")
def widths(network):
    return ax.accumulator_widths(*network[:2], labels=network[2])


@pytest.fixture(scope="module")
def swept(network):
    settings = {"accumulator_bits": [6, 9, 20], "overflow": ["wrap", "saturate"], "rows": [4, 16], "columns": [8]}
    return ax.sweep(*network, settings, workers=1)


@pytest.fixture(scope="module")
def run(network):
    return ax.simulate(*network[:2], ax.Machine(vector_lanes=4), track="range")


def lines(axes):
    return {
        line.get_label(): [tuple(map(float, pair)) for pair in zip(*line.get_data(), strict=True)]
        for line in axes.lines
    }


def test_the_curve_has_every_step_and_goes_on_flat_to_the_proven_width(widths):
    (axes,) = accuracy_by_width(widths).axes
    register = widths.register("accumulator")
    for mode, label in (("wrap", "wraps"), ("saturate", "saturates")):
        steps = sorted((step.bits, 100 * step.accuracy) for step in widths.curve if step.overflow == mode)
        assert lines(axes)[label] == [*steps, (register.proven_bits, steps[-1][1])]
    assert "bits" in axes.get_xlabel()
    assert "%" in axes.get_ylabel()


def test_a_sweeps_curves_are_its_points_and_equal_panels_are_one(swept):
    panels = [axes for axes in accuracy_by_width(swept).axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels] == ["rows 4, columns 8\nrows 16, columns 8"]
    for mode in ("wrap", "saturate"):
        points = [p for p in swept.points if p.settings["overflow"] == mode and p.settings["rows"] == 4]
        assert lines(panels[0])[mode] == [(p.settings["accumulator_bits"], 100 * p.metrics["accuracy"]) for p in points]
    with pytest.raises(ax.DataError, match="partial_sum_bits"):
        sweep_by_width(swept, "partial_sum_bits")


def test_the_front_is_the_results_and_everything_else_is_grey(swept):
    figure = pareto_fronts(swept)
    for axes, cost, unit in zip(figure.axes, ("energy_pj", "cycles"), (1e-6, 1), strict=True):
        drawn = lines(axes)
        assert len(drawn["a point"]) == len(swept.points)
        front = {
            (p.metrics[cost] / NUM_IMAGES * unit, 100 * p.metrics["accuracy"]) for p in swept.pareto(("accuracy", cost))
        }
        assert {tuple(np.round(pair, 6)) for pair in drawn["none is better"]} == {tuple(np.round(p, 6)) for p in front}
    with pytest.raises(ax.DataError, match="beauty"):
        pareto_fronts(swept, "beauty")


def test_bars_of_a_layer_add_up_to_its_counts(run):
    cycles, utilisation, operations, traffic = layer_costs(run).axes
    layers = [layer for layer in run.layers if layer.cycles.total or layer.operations.total]
    for axes, wanted in (
        (cycles, [layer.cycles.total / NUM_IMAGES for layer in layers]),
        (utilisation, [100 * layer.utilisation for layer in layers]),
        (operations, [layer.operations.total / NUM_IMAGES for layer in layers]),
        (traffic, [(layer.accesses.bits("sram") + layer.accesses.bits("dram")) / (8 * NUM_IMAGES) for layer in layers]),
    ):
        ends = np.zeros(len(layers))
        for bar in axes.patches:
            ends[round(bar.get_y() + bar.get_height() / 2)] += bar.get_width()
        np.testing.assert_allclose(ends, wanted)
    assert cycles.yaxis_inverted()


def test_ranges_are_drawn_with_the_limits_of_the_accumulator(widths, run):
    (axes,) = layer_ranges(widths, 15).axes
    limits = sorted(line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1)
    assert limits == [-(2**14), 2**14 - 1]
    spans = {tuple(path.vertices[:, 0]) for part in axes.collections for path in part.get_paths() if len(path.vertices)}
    for layer in widths.layers:
        register = layer.register("accumulator")
        assert {(register.needed_low, register.needed_high), (register.proven_low, register.proven_high)} <= spans
    assert len(layer_ranges(run).axes) == 1
    with pytest.raises(ax.DataError, match="track"):
        layer_ranges(ax.SimulationResult({}, {}, (), 1, {}))


def test_distributions_show_the_grid(network):
    quantized, images, _ = network
    weights, activations = distributions(quantized, images, "classifier").axes
    parameters = quantized.weights[
        next(n for n in quantized.graph.nodes if n.name == "classifier").inputs[1]
    ].parameters
    grid = parameters.dequantize(np.arange(-8, 8))
    drawn = sorted(path.vertices[0, 0] for part in weights.collections for path in part.get_paths())
    assert set(np.round(drawn, 5)) <= set(np.round(grid.astype(float), 5))
    assert len(drawn) > 8
    assert "uint8" in activations.get_title(loc="left")
    for axes in (weights, activations):
        assert sum(bar.get_height() for bar in axes.patches if bar.get_height() != 1) == pytest.approx(100)
    with pytest.raises(ax.DataError, match="no_layer"):
        distributions(quantized, layer="no_layer")


@pytest.mark.parametrize("ending", ["svg", "pdf", "png"])
def test_a_figure_is_the_same_file_each_time(widths, tmp_path, ending):
    files = [tmp_path / f"{name}.{ending}" for name in "ab"]
    for file in files:
        save_figure(accuracy_by_width(widths), file)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_colours_differ_for_readers_who_see_no_colour():
    """Grey levels of neighbours differ, too, and all are dark enough on white (contrast of WCAG for graphics, 3:1)."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return np.dot(linear, [0.2126, 0.7152, 0.0722])

    assert all(1.05 / (luminance(colour) + 0.05) > 3 for colour in COLOURS[:2])
    assert abs(luminance(COLOURS[0]) - luminance(COLOURS[1])) > 0.03
