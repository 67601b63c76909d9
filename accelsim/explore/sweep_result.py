"""What a sweep found."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from accelsim.errors import DataError
from accelsim.explore.store import PointRow, read_points
from accelsim.files import write_whole
from accelsim.tables import html_table, text_table

MORE_IS_BETTER = {
    "accuracy": True,
    "agreement": True,
    "sqnr_db": True,
    "utilisation": True,
    "cycles": False,
    "operations": False,
    "energy_pj": False,
    "overflow_events": False,
    "partial_overflow_events": False,
    "dram_bytes": False,
}
"""Metrics that can be objectives, and their direction."""

SHOWN = ("accuracy", "agreement", "sqnr_db", "cycles", "operations", "energy_pj", "overflow_events")


@dataclass(frozen=True)
class SweepPoint:
    """One combination of settings.

    Parameters
    ----------
    key : str
        Hash of model, data, configuration and version.
    settings : dict
        The fields that the sweep varies.
    machine, ptq : dict or None
        The whole machine and quantization; None where they are not valid, and ``ptq`` for a network quantized before.
    status : {"done", "failed"}
        Whether there are numbers.
    error : str or None
        Why there are none.
    metrics : dict
        ``accuracy`` (top-1, 0..1; only with labels), ``agreement`` (share of samples with the float network's answer,
        0..1), ``sqnr_db`` (of the first output against float; None where they are equal), ``cycles`` and its parts,
        ``macs``, ``operations``, ``energy_pj``, ``dram_bytes``, ``utilisation``, ``overflow_events``,
        ``partial_overflow_events``, all over all samples; ``num_samples``, and ``num_simulated``: how many of them
        were simulated for it, as the others exceed no register.
    """

    key: str
    settings: dict[str, Any]
    machine: dict[str, Any] | None
    ptq: dict[str, Any] | None
    status: str
    error: str | None
    metrics: dict[str, Any]

    @classmethod
    def of(cls, row: PointRow, settings: Mapping[str, Any] | None = None) -> SweepPoint:
        """Return a stored point, under the settings that were asked for."""
        return cls(**{**vars(row), "settings": dict(row.settings if settings is None else settings)})


@dataclass(frozen=True)
class SweepResult:
    """The points of a sweep, in the order of its grid.

    Parameters
    ----------
    network : str
        Name of the model.
    points : tuple of SweepPoint
        All of them, failed ones too.
    """

    network: str
    points: tuple[SweepPoint, ...]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SweepResult:
        """Read all points of a sweep's file, in the order in which they were finished; the file is not written to.

        Raises
        ------
        DataError
            When the file is missing or something else.
        """
        rows, about = read_points(path)
        return cls(about.get("network", ""), tuple(SweepPoint.of(row) for row in rows))

    @property
    def done(self) -> tuple[SweepPoint, ...]:
        """The points that have numbers."""
        return tuple(point for point in self.points if point.status == "done")

    @property
    def failed(self) -> tuple[SweepPoint, ...]:
        """The points that have an error."""
        return tuple(point for point in self.points if point.status != "done")

    def pareto(self, objectives: Sequence[str] = ("accuracy", "energy_pj")) -> tuple[SweepPoint, ...]:
        """Return the points that no other one beats: as good in all objectives, and better in one.

        Parameters
        ----------
        objectives : sequence of str
            Names of `MORE_IS_BETTER`.

        Raises
        ------
        DataError
            When an objective is unknown or no point has it.
        """
        vectors = {id(point): objective_values(point.metrics, objectives) for point in self.done}
        return tuple(
            point
            for point in self.done
            if not any(_beats(vectors[id(other)], vectors[id(point)]) for other in self.done)
        )

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return the header and one row per point, as text."""
        names = list(dict.fromkeys(name for point in self.points for name in point.settings))
        shown = [name for name in SHOWN if any(name in point.metrics for point in self.points)]
        rows = [
            [
                *(_text(point.settings.get(name)) for name in names),
                *(_text(point.metrics.get(name)) for name in shown),
                point.error or "",
            ]
            for point in self.points
        ]
        return [*names, *shown, "error"], rows

    def records(self) -> list[dict[str, Any]]:
        """Return one flat mapping per point: settings, status, error, metrics, key."""
        names = list(dict.fromkeys(name for point in self.points for name in point.settings))
        metrics = list(dict.fromkeys(name for point in self.points for name in point.metrics))
        return [
            {
                **{name: point.settings.get(name) for name in names},
                "status": point.status,
                "error": point.error,
                **{name: point.metrics.get(name) for name in metrics},
                "key": point.key,
            }
            for point in self.points
        ]

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one row per point as CSV (RFC 4180), whole or not at all; lists as JSON."""
        records = self.records()
        text = io.StringIO()
        writer = csv.writer(text)
        if records:
            writer.writerow(records[0])
        for record in records:
            writer.writerow(["" if value is None else _plain(value) for value in record.values()])
        write_whole(path, text.getvalue().encode("utf-8"))

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write one row per point as Parquet, whole or not at all; settings of mixed types as text.

        Raises
        ------
        DataError
            When pyarrow is not installed.
        """
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise DataError("Parquet needs pyarrow: pip install 'accelsim[explore]'") from None
        records = self.records()
        columns = {name: _column([record[name] for record in records]) for name in (records[0] if records else {})}
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
        write_whole(path, buffer.getvalue())

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return {"network": self.network, "points": [asdict(point) for point in self.points]}

    def to_json(self) -> str:
        """Return `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def __str__(self) -> str:
        return text_table(*self.table())

    def _repr_html_(self) -> str:
        return html_table(*self.table())


def objective_values(metrics: Mapping[str, Any], objectives: Iterable[str]) -> tuple[float, ...]:
    """Return the objectives of a point, each so that more is better.

    Raises
    ------
    DataError
        When an objective is unknown, or the point does not have it.
    """
    values = []
    for name in objectives:
        if name not in MORE_IS_BETTER:
            raise DataError(f"objective {name!r} must be one of {', '.join(MORE_IS_BETTER)}")
        if name not in metrics:
            raise DataError(f"objective {name!r} was not measured" + ("; give labels" if name == "accuracy" else ""))
        value = math.inf if metrics[name] is None else float(metrics[name])  # no noise at all
        values.append(value if MORE_IS_BETTER[name] else -value)
    return tuple(values)


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether a point is as good in everything, and better in something."""
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


def _text(value: Any) -> str:
    """Return a table's cell."""
    match value:
        case None:
            return ""
        case bool() | str():
            return str(value).lower() if isinstance(value, bool) else value
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
        case _:
            return json.dumps(value)


def _plain(value: Any) -> Any:
    """Return a value that CSV can hold."""
    return json.dumps(value) if isinstance(value, (dict, list, tuple, bool)) else value


def _column(values: list[Any]) -> list[Any]:
    """Return values of one type: as they are, or as text."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1 and not kinds & {dict, list, tuple}:
        return values
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in values]
    return [None if value is None else str(_plain(value)) for value in values]
