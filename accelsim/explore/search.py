"""Narrow one register until the accuracy no longer holds: docs/widths.md section 4."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelsim.arrays import count_right
from accelsim.explore.multiplier import with_multiplier_bits
from accelsim.explore.observation import LayerSeen
from accelsim.explore.replay import Replay, Replayed
from accelsim.explore.width_report import SearchStep
from accelsim.machine import Machine
from accelsim.program.layers import MacLayer

MODES = ("wrap", "saturate")
COLLAPSED = 0.5
"""The curve of the whole network ends where less than this share of the exact integers' right answers is left."""

FIELDS = {"accumulator": "accumulator_bits", "partial_sum": "partial_sum_bits", "adder_tree": "adder_tree_bits"}
"""Which field of a machine a register's width is."""

Run = Callable[[int], Replayed]


@dataclass(frozen=True, eq=False)
class Judge:
    """What counts as right.

    Parameters
    ----------
    labels : int64 array or None
        Class of each searched sample; None takes the exact integers' answers.
    exact : array, shape (samples, ...)
        Codes of the exact run.
    max_loss : float
        Accuracy holds where it is at most this much lower, 0..1.
    """

    labels: npt.NDArray[np.int64] | None
    exact: npt.NDArray[np.generic]
    max_loss: float

    def right(self, outputs: npt.NDArray[np.generic]) -> int:
        """Count the right answers."""
        classes = self.exact.reshape(len(self.exact), -1).argmax(axis=1) if self.labels is None else self.labels
        return count_right(outputs, classes.astype(np.int64))

    def holds(self, right: int) -> bool:
        """Whether so many right answers are enough."""
        lost = self.right(self.exact) - right
        return lost <= self.max_loss * len(self.exact) + 1e-9


@dataclass(frozen=True)
class Found:
    """Where a search ended."""

    bits: int
    steps: tuple[SearchStep, ...]


def narrow(run: Run, enough: int, narrowest: int, overflow: str, judge: Judge, to_collapse: bool = False) -> Found:
    """Take a bit away at a time until the accuracy no longer holds.

    Parameters
    ----------
    run : callable
        Takes a width and returns the network's output.
    enough : int
        Width at which nothing changes; it is not run.
    narrowest : int
        Where the search ends.
    overflow : str
        Named in the steps.
    judge : Judge
        Decides.
    to_collapse : bool
        Go on until `COLLAPSED`, for a curve.

    Returns
    -------
    Found
        The narrowest width such that the accuracy holds at every width from it on.
    """
    samples, exact = len(judge.exact), judge.right(judge.exact)
    steps = [SearchStep(overflow, enough, exact / samples, 0, 0)]
    holds, failed = enough, False
    for bits in range(enough - 1, narrowest - 1, -1):
        replayed = run(bits)
        right = judge.right(replayed.outputs)
        events = replayed.events + replayed.partial_events
        steps.append(SearchStep(overflow, bits, right / samples, events, replayed.num_run))
        failed = failed or not judge.holds(right)
        if not failed:
            holds = bits
        elif not to_collapse or right < COLLAPSED * exact:
            break
    return Found(holds, tuple(steps))


def register_run(replay: Replay, layer: MacLayer, machine: Machine, register: str, mode: str, seen: LayerSeen) -> Run:
    """Return a run with one register of one layer narrowed."""
    held = seen.accumulator if register == "accumulator" else seen.partial
    if held is None:
        raise AssertionError("the grid has this register")
    sample_bits = held.sample_bits[: replay.num_samples]

    def run(bits: int) -> Replayed:
        narrowed = replay.machine.replace(**{FIELDS[register]: bits, "overflow": mode})
        return replay.one_layer(layer, narrowed, np.flatnonzero(sample_bits > bits))

    return run


def multiplier_run(replay: Replay, layer: MacLayer) -> Run:
    """Return a run with the multipliers of one layer narrowed."""

    def run(bits: int) -> Replayed:
        return replay.one_requantizer(with_multiplier_bits(layer, bits))

    return run


def network_run(replay: Replay, machine: Machine, register: str, mode: str) -> Run:
    """Return a run with a register of all layers narrowed."""
    names = list(replay.observation.layers)
    places = np.array([replay.places[name] for name in names])

    def run(bits: int) -> Replayed:
        narrowed = replay.machine.replace(**{FIELDS[register]: bits, "overflow": mode})
        exceeding = replay.observation.exceeding(narrowed)[:, : replay.num_samples]
        none = len(replay.program.layers)
        first = np.where(exceeding, places[:, None], none).min(axis=0, initial=none)
        return replay.all_layers(narrowed, first)

    return run
