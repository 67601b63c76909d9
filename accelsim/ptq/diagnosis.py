"""Why a quantized network is worse than its float original: the debugging flow of the white paper's figure 9."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from accelsim.errors import DataError
from accelsim.graph.feeds import Feeds, Images
from accelsim.graph.graph import Graph
from accelsim.graph.operators import LINEAR
from accelsim.graph.quantized import QuantizedGraph
from accelsim.ptq.channel_ranges import activation_ranges, weight_ranges
from accelsim.ptq.config import PTQConfig
from accelsim.ptq.evaluation import Evaluation, Metric, Score
from accelsim.ptq.findings import Finding, Sensitivity, layer_finding, whole_findings, wider
from accelsim.ptq.pipeline import quantize
from accelsim.ptq.placement import place_quantizers, separable_averages
from accelsim.reference.batches import Progress
from accelsim.tables import text_table

EQUAL_DB = 60.0
"""With all quantizers bypassed the outputs must have at least this SQNR: folding and rescaling in float32 leave 100 dB
and more, an approximation or a mistake far less."""

_SHOWN = 10
_NAMED = 3  # layers that are named where none alone costs more than the tolerance


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found.

    Parameters
    ----------
    metric : str
        Name of the metric.
    num_samples : int
        Images that it was taken on.
    tolerance : float
        Loss of the metric that is taken.
    scores : mapping of str to Score
        ``float``: the model as it came; ``fp32``: all quantizers bypassed; ``activations``, ``weights``: only these
        quantized, all of them; ``all``: everything.
    sensitivities : tuple of Sensitivity
        Each tensor quantized alone, the one that costs most first.
    findings : tuple of Finding
        Conclusions in the order of figure 9, with a recommendation each.
    proposal : mapping of str to mapping
        ``PTQConfig.layers`` with more bits for the fewest layers, from the top of the list, that bring the loss within
        the tolerance as far as bypassing their quantizers shows; empty where nothing is to be done.
    config : PTQConfig
        What was diagnosed.
    quantized : QuantizedGraph
        The network.
    """

    metric: str
    num_samples: int
    tolerance: float
    scores: Mapping[str, Score]
    sensitivities: tuple[Sensitivity, ...]
    findings: tuple[Finding, ...]
    proposal: dict[str, dict[str, int]]
    config: PTQConfig
    quantized: QuantizedGraph

    def loss(self, which: str = "all") -> float:
        """Return the float network's score less one of ``scores``."""
        return self.scores["float"].value - self.scores[which].value

    @property
    def ok(self) -> bool:
        """Whether the bypassed network is the float network, and the quantized one within the tolerance."""
        return self.scores["fp32"].sqnr_db >= EQUAL_DB and self.loss() <= self.tolerance

    def proposed_config(self) -> PTQConfig:
        """Return the configuration with the proposed layers added."""
        layers = {name: bits.model_dump(exclude_none=True) for name, bits in self.config.layers.items()}
        for name, bits in self.proposal.items():
            layers[name] = {**layers.get(name, {}), **bits}
        return self.config.replace(layers=layers)

    def table(self) -> str:
        """Return scores, the most sensitive tensors and the findings as text."""
        names = {
            "float": "float model",
            "fp32": "all quantizers bypassed",
            "activations": "only activations quantized",
            "weights": "only weights quantized",
            "all": "everything quantized",
        }
        scores = text_table(
            ["", self.metric, "loss", "SQNR dB"],
            [
                [names[key], f"{score.value:.4g}", f"{self.loss(key):.4g}", _decibels(score.sqnr_db)]
                for key, score in self.scores.items()
            ],
        )
        layers = text_table(
            ["quantized alone", "of layer", "bits", "loss", "SQNR dB", "widest/median channel", "clipped"],
            [
                [
                    one.kind,
                    one.layer,
                    str(one.bits),
                    f"{one.loss:.4g}",
                    _decibels(one.sqnr_db),
                    f"{one.ranges.spread:.3g}",
                    f"{one.ranges.clipped:.2%}",
                ]
                for one in self.sensitivities[:_SHOWN]
            ],
        )
        lines = [f"- {finding}" for finding in self.findings] or ["- nothing to repair"]
        if self.proposal:
            lines.append(f"- proposal: layers={self.proposal}")
        return f"{scores}\n\n{layers}\n\n" + "\n".join(lines)

    def to_json(self) -> str:
        """Return everything but the networks and the ranges of single channels as JSON; an infinite SQNR is null."""
        record = {
            "metric": self.metric,
            "num_samples": self.num_samples,
            "tolerance": self.tolerance,
            "ok": self.ok,
            "scores": {
                name: {"score": score.value, "loss": self.loss(name), "sqnr_db": _finite(score.sqnr_db)}
                for name, score in self.scores.items()
            },
            "sensitivities": [
                {
                    "kind": one.kind,
                    "layer": one.layer,
                    "tensor": one.tensor,
                    "bits": one.bits,
                    "score": one.score,
                    "loss": one.loss,
                    "sqnr_db": _finite(one.sqnr_db),
                    "spread": one.ranges.spread,
                    "clipped": one.ranges.clipped,
                }
                for one in self.sensitivities
            ],
            "findings": [vars(finding) for finding in self.findings],
            "proposal": self.proposal,
        }
        return json.dumps(record, indent=2, allow_nan=False)

    def __str__(self) -> str:
        return self.table()


def diagnose(
    graph: Graph,
    calibration: Images | None = None,
    config: PTQConfig | None = None,
    images: Images | None = None,
    labels: Any = None,
    metric: Metric | None = None,
    tolerance: float = 0.01,
    progress: Progress | None = None,
) -> Diagnosis:
    """Find out which tensors make a quantized network worse, and what to try.

    Parameters
    ----------
    graph : Graph
        The float network.
    calibration : array or mapping of input name to array, optional
        As `accelsim.quantize` takes it.
    config : PTQConfig, optional
        As `accelsim.quantize` takes it.
    images : array or mapping of input name to array, optional
        What the metric is taken on; the calibration data if left out.
    labels : optional
        The class of each image, or whatever the metric takes.
    metric : callable, optional
        ``metric(outputs, labels) -> float``, greater is better; see `accelsim.ptq.evaluation.Metric`. If left out,
        top-1 accuracy, or without labels the share of images with the float network's answer; both 0..1.
    tolerance : float
        Loss of the metric that is taken.
    progress : callable, optional
        Called as ``progress(step, done, total)``.

    Returns
    -------
    Diagnosis
        Scores, sensitivities, findings with recommendations, and a proposal of layers with more bits.

    Raises
    ------
    CalibrationError, ModelError, FormatError
        As `accelsim.quantize` does.
    DataError
        When images or labels do not fit, there are no images at all, or the tolerance is negative.

    Notes
    -----
    Simulated quantization in ONNX Runtime, one pass over the images for each quantizer. A corrected bias counts where
    its layer's weights are quantized.
    """
    if not (tolerance >= 0 and math.isfinite(tolerance)):
        raise DataError(f"tolerance must be a finite number of at least 0, got {tolerance}")
    shown = calibration if images is None else images
    if shown is None:
        raise DataError("diagnosis needs images: give images=, or calibration data, which then serves as images, too")
    config = config or PTQConfig()
    feeds = Feeds(graph, shown)
    quantized = quantize(graph, calibration, config, progress)
    evaluation = Evaluation(quantized, feeds, labels, metric)
    weights = tuple(quantized.weights)
    owned, owners = _owned(quantized)
    jobs = _Jobs(evaluation, progress, total=len(weights) + len(owned) + 4)
    scores = {
        "float": evaluation.reference,
        "fp32": jobs.score(()),
        "activations": jobs.score(quantized.activations),
        "weights": jobs.score(weights),
        "all": jobs.score(None),
    }
    sensitivities = _sensitivities(quantized, feeds, owned, owners, jobs, evaluation.reference.value)
    losses = {name: evaluation.reference.value - score.value for name, score in scores.items()}
    findings = whole_findings(losses, tolerance, config, scores["fp32"].sqnr_db >= EQUAL_DB)
    proposal: dict[str, dict[str, int]] = {}
    if losses["all"] > tolerance:
        chosen = _fewest(evaluation, sensitivities, owners, tolerance)
        costly = [one for one in sensitivities if one.loss > tolerance]
        findings += [layer_finding(one, config) for one in costly or chosen[:_NAMED]]
        for one in chosen:
            if wider(one.bits) > one.bits:
                field = "weight_bits" if one.kind == "weights" else "activation_bits"
                proposal.setdefault(one.layer, {})[field] = wider(one.bits)
    return Diagnosis(
        evaluation.metric_name, feeds.num_samples, tolerance, scores, sensitivities, tuple(findings), proposal, config,
        quantized,
    )  # fmt: skip


class _Jobs:
    """Counts the evaluations."""

    def __init__(self, evaluation: Evaluation, progress: Progress | None, total: int) -> None:
        self._evaluation, self._progress, self._total = evaluation, progress, total
        self._done = 0

    def score(self, active: Any) -> Score:
        found = self._evaluation.score(active)
        self._done += 1
        if self._progress is not None:
            self._progress("diagnosis", self._done, self._total)
        return found


def _owned(quantized: QuantizedGraph) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Return the layer of each tensor with a quantizer of its own, and all tensors that share each of them."""
    graph, stored = quantized.graph, quantized.activations
    averages = [graph.producer(name) for name in separable_averages(graph)]
    separate = {node.output for node in averages if node and stored[node.output] != stored[node.inputs[0]]}
    placement = place_quantizers(graph, separate)
    layers = {tensor.name: tensor.name for tensor in graph.inputs}
    for node in graph.nodes:
        if node.output not in quantized.activations:
            (follower,) = graph.consumers(node.output)
            layers[follower.output] = node.name
        layers.setdefault(node.output, node.name)
    owned = {name: layers[name] for name in (*placement.calibrated, *placement.fixed)}
    sharing = {name: tuple(other for other, owner in placement.shared.items() if owner == name) for name in owned}
    return owned, {name: (name, *others) for name, others in sharing.items()}


def _sensitivities(
    quantized: QuantizedGraph,
    feeds: Feeds,
    owned: Mapping[str, str],
    owners: Mapping[str, tuple[str, ...]],
    jobs: _Jobs,
    reference: float,
) -> tuple[Sensitivity, ...]:
    """Quantize each tensor alone; the one that costs most comes first, of equal ones the noisier."""
    found = []
    of_weights = weight_ranges(quantized)
    for node in quantized.graph.nodes:
        if node.op in LINEAR:
            name = node.inputs[1]
            score, bits = jobs.score((name,)), quantized.weights[name].parameters.format.bits
            loss = reference - score.value
            found.append(
                Sensitivity("weights", node.name, name, bits, score.value, loss, score.sqnr_db, of_weights[name])
            )
    of_activations = activation_ranges(quantized, feeds, tuple(owned))
    for name, layer in owned.items():
        score, bits = jobs.score(owners[name]), quantized.activations[name].format.bits
        loss = reference - score.value
        found.append(
            Sensitivity("activation", layer, name, bits, score.value, loss, score.sqnr_db, of_activations[name])
        )
    return tuple(sorted(found, key=lambda one: (-one.loss, one.sqnr_db)))


def _fewest(
    evaluation: Evaluation,
    sensitivities: tuple[Sensitivity, ...],
    owners: Mapping[str, tuple[str, ...]],
    tolerance: float,
) -> tuple[Sensitivity, ...]:
    """Return the top of the list, by noise, without which the loss is within the tolerance; found by bisection."""
    ranked = sorted(sensitivities, key=lambda one: one.sqnr_db)
    everything = {*evaluation.quantized.activations, *evaluation.quantized.weights}

    def enough(count: int) -> bool:
        dropped = {name for one in ranked[:count] for name in owners.get(one.tensor, (one.tensor,))}
        score = evaluation.score(everything - dropped)
        return evaluation.reference.value - score.value <= tolerance

    low, high = 0, len(ranked)  # low is not enough; all of them are
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return tuple(ranked[:high])


def _decibels(value: float) -> str:
    return "exact" if value == math.inf else f"{value:.1f}"


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
