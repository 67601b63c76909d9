"""Optuna's multi-objective samplers over the points of a grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from accelsim.errors import DataError
from accelsim.explore.points import Evaluation
from accelsim.explore.space import Axis, Space
from accelsim.explore.store import PointRow
from accelsim.explore.sweep_result import objective_values

BATCH = 8
"""Points that are asked for at a time."""


def run_sampler(
    evaluation: Evaluation,
    sampler: str,
    number: int,
    seed: int,
    objectives: Sequence[str],
    told: Callable[[int], None],
) -> list[dict[str, Any]]:
    """Let a sampler choose points, and bring them to numbers.

    Parameters
    ----------
    evaluation : Evaluation
        Brings points to numbers.
    sampler : {"nsga2", "tpe"}
        Optuna's NSGA-II, or its tree-structured Parzen estimator.
    number : int
        Different points.
    seed : int
        Of the sampler.
    objectives : sequence of str
        What is looked for.
    told : callable
        Called with the number of points that are there.

    Returns
    -------
    list of dict
        Settings in the order in which they were asked for, those first that the store had already.

    Raises
    ------
    DataError
        When Optuna is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise DataError(f"sampler {sampler!r} needs Optuna: pip install 'accelsim[explore]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = evaluation.space
    made = optuna.samplers.NSGAIISampler(seed=seed) if sampler == "nsga2" else optuna.samplers.TPESampler(seed=seed)
    study = optuna.create_study(directions=["maximize"] * len(objectives), sampler=made)
    distributions = {axis.name: _distribution(axis) for axis in space.axes}
    chosen: dict[str, dict[str, Any]] = {}
    known = {row.key: row for row in evaluation.store.points()}
    for row in known.values():  # a sweep that was interrupted goes on with what it learnt
        if set(row.settings) == set(distributions) and row.key not in chosen and len(chosen) < number:
            values = _indices(space, row.settings)
            if values is not None and evaluation.key(row.settings) == row.key:
                chosen[row.key] = row.settings
                _add(study, values, distributions, row, objectives)
    told(len(chosen))
    idle = 0
    while len(chosen) < number and idle < number:
        trials = [study.ask(distributions) for _ in range(min(BATCH, number - len(chosen)))]
        asked = [_settings(space, trial.params) for trial in trials]
        keys = [evaluation.key(settings) for settings in asked]
        new = {key: settings for key, settings in zip(keys, asked, strict=True) if key not in chosen}
        idle = 0 if new else idle + 1  # a sampler may ask for the same points again and again
        evaluation.run(new.values())
        chosen |= new
        known = {row.key: row for row in evaluation.store.points()}
        for trial, key in zip(trials, keys, strict=True):
            if known[key].status == "done":
                study.tell(trial, list(objective_values(known[key].metrics, objectives)))
            else:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
        told(len(chosen))
    return list(chosen.values())


def _distribution(axis: Axis) -> Any:
    """Return the distribution of the index of a value: ordered where the values are numbers."""
    import optuna

    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in axis.values):
        return optuna.distributions.IntDistribution(0, len(axis.values) - 1)
    return optuna.distributions.CategoricalDistribution(list(range(len(axis.values))))


def _settings(space: Space, indices: dict[str, int]) -> dict[str, Any]:
    """Return the settings of indices of values."""
    return {axis.name: axis.values[indices[axis.name]] for axis in space.axes}


def _indices(space: Space, settings: dict[str, Any]) -> dict[str, int] | None:
    """Return the indices of values; None where one is not on its axis."""
    try:
        return {axis.name: axis.values.index(settings[axis.name]) for axis in space.axes}
    except ValueError:
        return None


def _add(study: Any, indices: dict[str, int], distributions: Any, row: PointRow, objectives: Sequence[str]) -> None:
    """Tell a study of a point that is there already."""
    import optuna

    if row.status == "done":
        values = list(objective_values(row.metrics, objectives))
        study.add_trial(optuna.trial.create_trial(params=indices, distributions=distributions, values=values))
