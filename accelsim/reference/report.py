"""What a comparison of float, simulated and actual quantization found."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from accelsim.tables import html_table, text_table

KINDS = ("float", "simulated", "actual")
"""The three sides of a comparison, in the order in which they are shown."""

_COLUMNS = (
    "tensor",
    "op",
    "elements",
    "SQNR simulated dB",
    "SQNR actual dB",
    "largest difference",
    "differing %",
    "own difference",
    "own differing %",
)


@dataclass(frozen=True)
class LayerComparison:
    """One stored tensor on all three sides.

    Parameters
    ----------
    name : str
        The tensor.
    node : str
        The node that makes it.
    op : str
        That node's operator.
    num_elements : int
        Values compared, over all samples.
    sqnr_simulated_db, sqnr_actual_db : float
        ``10 log10(sum x**2 / sum (x - x^)**2)`` of float against simulated quantization and against the integers;
        infinite where nothing differs, minus infinite where the float tensor is zero and the other is not.
    largest_difference : int
        Largest ``|code|`` difference between simulated quantization and the integers.
    differing_share : float
        Share of codes that differ between the two, 0..1.
    own_difference : int
        Largest ``|code|`` difference where the layer is simulated on the integers' own stored inputs: what this layer
        adds, without what it inherits. One code is a tie or a requantizer's multiplier; more is another arithmetic.
    own_differing_share : float
        Share of codes that differ so, 0..1.
    """

    name: str
    node: str
    op: str
    num_elements: int
    sqnr_simulated_db: float
    sqnr_actual_db: float
    largest_difference: int
    differing_share: float
    own_difference: int
    own_differing_share: float


@dataclass(frozen=True)
class ComparisonReport:
    """Float, simulated quantization and actual integers side by side.

    Parameters
    ----------
    layers : tuple of LayerComparison
        One per stored tensor that a node makes, in graph order.
    metrics : mapping or None
        For each of ``float``, ``simulated`` and ``actual``: ``top1`` (share of samples whose greatest output is the
        label's), ``top5`` where there are more than five classes, ``agreement`` (share of samples with the float
        network's answer). None without labels.
    num_samples : int
        Samples compared.
    cycles : int
        Cycles of the machine for all samples, as `accelsim.simulate` has them.
    overflow_events : int
        Accumulator overflows of all layers and samples.
    batch_size : int
        Samples that ran at a time; nothing else depends on it.
    """

    layers: tuple[LayerComparison, ...]
    metrics: Mapping[str, Mapping[str, float]] | None
    num_samples: int
    cycles: int
    overflow_events: int
    batch_size: int

    @property
    def worst_layers(self) -> tuple[LayerComparison, ...]:
        """Layers in which simulation and integers differ by more than one code, in graph order."""
        return tuple(layer for layer in self.layers if layer.largest_difference > 1)

    def to_json(self) -> str:
        """Return the report as JSON; a level that is infinite is null."""
        layers = [
            {
                key: None if isinstance(value, float) and not math.isfinite(value) else value
                for key, value in row.items()
            }
            for row in map(asdict, self.layers)
        ]
        return json.dumps(
            {
                "num_samples": self.num_samples,
                "batch_size": self.batch_size,
                "cycles": self.cycles,
                "overflow_events": self.overflow_events,
                "metrics": None if self.metrics is None else {kind: dict(self.metrics[kind]) for kind in KINDS},
                "worst_layers": [layer.name for layer in self.worst_layers],
                "layers": layers,
            },
            indent=2,
            allow_nan=False,
        )

    def table(self) -> str:
        """Return the report as plain text, with a warning that names layers more than one code apart."""
        return "\n".join([self._headline(), *self._metric_lines(), "", self._layer_table(), *self.warnings()])

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        header, *rows = self._rows()
        metrics = "" if self.metrics is None else html_table(*self._metric_rows(self.metrics))
        text = "".join(f"<p>{html.escape(line)}</p>" for line in [self._headline(), *self.warnings()])
        return f"{text}{metrics}{html_table(header, rows)}"

    def _headline(self) -> str:
        return f"{self.num_samples} samples, {self.cycles:,} cycles, {self.overflow_events:,} overflow events"

    def _metric_lines(self) -> list[str]:
        return [] if self.metrics is None else text_table(*self._metric_rows(self.metrics)).splitlines()

    @staticmethod
    def _metric_rows(metrics: Mapping[str, Mapping[str, float]]) -> tuple[list[str], list[list[str]]]:
        names = list(metrics["float"])
        return ["", *names], [[kind, *(f"{metrics[kind][name]:.2%}" for name in names)] for kind in KINDS]

    def _layer_table(self) -> str:
        header, *rows = self._rows()
        return text_table(header, rows)

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            _COLUMNS,
            *(
                (
                    layer.name,
                    layer.op,
                    str(layer.num_elements),
                    f"{layer.sqnr_simulated_db:.2f}",
                    f"{layer.sqnr_actual_db:.2f}",
                    str(layer.largest_difference),
                    f"{100 * layer.differing_share:.4f}",
                    str(layer.own_difference),
                    f"{100 * layer.own_differing_share:.4f}",
                )
                for layer in self.layers
            ),
        ]

    def warnings(self) -> list[str]:
        """Return a line that names the layers more than one code apart, and nothing where there are none."""
        if not self.worst_layers:
            return []
        named = ", ".join(f"{layer.name} ({layer.largest_difference} codes)" for layer in self.worst_layers)
        own = ", ".join(
            f"{layer.name} ({layer.own_difference} codes)" for layer in self.layers if layer.own_difference > 1
        )
        cause = f"by itself, on the same inputs, in: {own}" if own else "no layer does by itself, on the same inputs"
        return [f"warning: simulation and integers differ by more than one code in: {named}; {cause}"]
