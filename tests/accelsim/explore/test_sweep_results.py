"""Samplers, fronts and exports of a sweep, on a network that is small enough for uncompiled kernels."""

import csv
import json

import pytest

import accelsim as ax
from tests.accelsim.explore.tiny import tiny_network

DATAFLOWS = ["output_stationary", "broadcast", "weight_stationary", "input_stationary"]


@pytest.fixture(scope="module")
def tiny():
    return tiny_network()


@pytest.fixture(scope="module")
def swept(tiny):
    settings = {"accumulator_bits": [6, 8, 10, 24], "dataflow": DATAFLOWS, "rows": [2, 8]}
    return ax.sweep(tiny.quantized, tiny.images, tiny.labels, settings, workers=1)


def test_the_pareto_front_is_that_of_comparing_all_with_all(swept):
    def better(a, b):
        pairs = [(a.metrics[n], b.metrics[n]) for n in ("energy_pj", "cycles")]
        costs = [x <= y for x, y in pairs] + [a.metrics["accuracy"] >= b.metrics["accuracy"]]
        strict = [x < y for x, y in pairs] + [a.metrics["accuracy"] > b.metrics["accuracy"]]
        return all(costs) and any(strict)

    wanted = [point for point in swept.points if not any(better(other, point) for other in swept.points)]
    assert list(swept.pareto(("accuracy", "energy_pj", "cycles"))) == wanted
    assert 0 < len(wanted) < len(swept.points)
    with pytest.raises(ax.DataError, match="beauty"):
        swept.pareto(("beauty",))


def test_csv_and_parquet_hold_every_point(swept, tmp_path):
    swept.to_csv(tmp_path / "s.csv")
    with (tmp_path / "s.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, point in zip(rows, swept.points, strict=True):
        assert row["dataflow"] == point.settings["dataflow"]
        assert int(row["cycles"]) == point.metrics["cycles"]
        assert float(row["energy_pj"]) == point.metrics["energy_pj"]
    parquet = pytest.importorskip("pyarrow.parquet")
    swept.to_parquet(tmp_path / "s.parquet")
    table = parquet.read_table(tmp_path / "s.parquet").to_pylist()
    assert table == swept.records()
    assert json.loads(swept.to_json())["points"][3]["metrics"] == swept.points[3].metrics
    header, cells = swept.table()
    assert len(cells) == len(swept.points)
    assert header[:2] == ["accumulator_bits", "dataflow"]


@pytest.mark.parametrize("sampler", ["random", "nsga2", "tpe"])
def test_samplers_take_as_many_points_of_the_grid_as_asked_and_go_on_from_the_store(tiny, tmp_path, sampler):
    if sampler != "random":
        pytest.importorskip("optuna")
    path = tmp_path / "s.sqlite"
    settings = {"accumulator_bits": list(range(20, 28)), "dataflow": DATAFLOWS, "double_buffered": [False, True]}
    arguments = (tiny.quantized, tiny.images[:4], tiny.labels[:4], settings)
    told = []
    few = ax.sweep(*arguments, sampler=sampler, points=6, store=path, workers=1, seed=3)
    more = ax.sweep(
        *arguments, sampler=sampler, points=15, store=path, workers=1, seed=3, progress=lambda *a: told.append(a)
    )
    assert (len(few.points), len(more.points)) == (6, 15)
    assert len({tuple(point.settings.values()) for point in more.points}) == 15
    assert {point.key for point in few.points} <= {point.key for point in more.points}
    assert len(ax.SweepResult.load(path).points) == 15
    assert (told[0], told[-1]) == (("points", 6, 15), ("points", 15, 15))


def test_wrong_options_are_refused_by_name(tiny):
    arguments = (tiny.quantized, tiny.images[:2], None)
    for options, words in [
        ({"sampler": "best"}, "sampler must be one of grid, random, nsga2, tpe"),
        ({"points": 3}, "takes every point"),
        ({"sampler": "random"}, "needs points"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"sampler": "tpe", "points": 2}, "needs labels"),
        ({"sampler": "tpe", "points": 2, "objectives": ["beauty"]}, "beauty"),
        ({"calibration": tiny.images}, "calibration data would do nothing"),
    ]:
        with pytest.raises(ax.AccelsimError, match=words):
            ax.sweep(*arguments, {"rows": [4]}, **options)
    with pytest.raises(ax.DataError, match=r"quantized already, so weight_bits"):
        ax.sweep(*arguments, {"weight_bits": [4]})
    with pytest.raises(ax.DataError, match="needs calibration data"):
        ax.sweep(tiny.graph, tiny.images[:2], None, {"rows": [4]})
