"""Samplers, fronts and exports of a sweep, on a network that is small enough for uncompiled kernels."""

import contextlib
import csv
import dataclasses
import json

import numpy as np
import pytest

import accelsim as ax
from accelsim.explore import pool
from accelsim.explore.observation import observe
from accelsim.explore.store import MAX_ATTEMPTS
from accelsim.program.layers import RuntimeMacLayer
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


def test_programs_that_cannot_be_analysed_sample_by_sample_are_refused(tiny):
    program = ax.lower(tiny.quantized, ax.Machine())
    coupled = dataclasses.replace(program, coupled=True)
    computed = dataclasses.replace(
        program, layers=(RuntimeMacLayer.__new__(RuntimeMacLayer), *program.layers)
    )  # fmt: skip
    object.__setattr__(computed.layers[0], "name", "attention")
    for refused, words in ((coupled, "sample by sample"), (computed, "attention")):
        with pytest.raises(ax.OperandError, match=words):
            observe(refused, tiny.images, ax.Machine())


def test_results_read_as_tables_in_a_notebook_and_on_a_terminal(tiny, swept):
    report = ax.accumulator_widths(tiny.quantized, tiny.images, max_loss=0.3)
    for result in (report, swept):
        page, words = result._repr_html_(), str(result)
        assert page.count("<tr>") == len(result.table()[1]) + 1
        assert all(cell in words for row in result.table()[1] for cell in row)
    with pytest.raises(KeyError):
        report.register("adder_tree")
    assert report.layers[0].register("multiplier").bits_for(0.5) is None


def test_a_pool_that_breaks_every_time_is_given_up_and_said(tiny, monkeypatch):
    begun = []

    @contextlib.contextmanager
    def broken(self, shared):
        def work(calls):
            begun.extend(calls)
            raise RuntimeError("a worker was killed")

        yield work

    monkeypatch.setattr(pool.Pool, "_parallel", broken)
    result = ax.sweep(tiny.quantized, tiny.images, None, {"rows": [4, 8]}, workers=2)
    assert all("its worker died 3 times" in point.error for point in result.points)
    assert len(begun) == 2 * MAX_ATTEMPTS  # the float network and the exact run


def test_a_quantization_that_fails_fails_its_points(tiny):
    settings = {"weight_bits": [8], "layers.nothing.weight_bits": [4], "rows": [4, 8]}
    result = ax.sweep(tiny.graph, tiny.images, None, settings, calibration=tiny.images, workers=1)
    assert [point.status for point in result.points] == ["failed"] * 2
    assert all("nothing" in point.error for point in result.points)


def test_lists_and_mixed_types_are_written_as_text(tiny, tmp_path):
    settings = {"requantizer.rounding": [["half_up"], ["half_up", "half_away"]], "double_buffered": [True]}
    result = ax.sweep(tiny.quantized, tiny.images, None, settings, workers=1)
    result.to_csv(tmp_path / "s.csv")
    with (tmp_path / "s.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [json.loads(row["requantizer.rounding"]) for row in rows] == settings["requantizer.rounding"]
    assert {row["double_buffered"] for row in rows} == {"true"}
    parquet = pytest.importorskip("pyarrow.parquet")
    result.to_parquet(tmp_path / "s.parquet")
    table = parquet.read_table(tmp_path / "s.parquet").to_pylist()
    assert [json.loads(row["requantizer.rounding"]) for row in table] == settings["requantizer.rounding"]
    assert [row["double_buffered"] for row in table] == [True, True]


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


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "nothing varies"),
        ((), "nothing varies"),
        ({"rows": "16"}, r"\['16'\]"),
        ({"rows": 4}, r"as in \[4\], got 4"),
        ({4: [4]}, "must be a text, got 4"),
        ("rows", "sequence of Axis, got 'rows'"),
        (["rows"], "sequence of Axis"),
        (4, "sequence of Axis, got 4"),
    ],
)
def test_settings_that_are_none_are_refused(tiny, tmp_path, settings, words):
    with pytest.raises(ax.DataError, match=words):
        ax.sweep(tiny.quantized, tiny.images, None, settings, store=tmp_path / "s.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_values_of_numpy_are_those_of_python(tiny):
    swept = ax.sweep(tiny.quantized, tiny.images, None, {"rows": np.arange(4, 6)}, workers=1)
    assert [point.settings for point in swept.points] == [{"rows": 4}, {"rows": 5}]
    assert json.loads(swept.to_json())["points"][0]["settings"] == {"rows": 4}
    assert not swept.failed


def test_images_that_are_not_finite_are_refused_before_any_point(tiny, tmp_path):
    images = tiny.images.copy()
    images[-1, 0, 0, 0] = np.nan
    with pytest.raises(ax.DataError, match="must be finite"):
        ax.sweep(tiny.quantized, images, None, {"rows": [4]}, store=tmp_path / "s.sqlite")
    assert list(tmp_path.iterdir()) == []
