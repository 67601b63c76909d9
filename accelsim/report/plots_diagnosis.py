"""Figures of a diagnosis: what each tensor costs alone, and the ranges of its channels."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from accelsim.errors import DataError
from accelsim.report.plots import COLOURS, figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from accelsim.ptq.diagnosis import Diagnosis
    from accelsim.ptq.findings import Sensitivity

_MOST_BARS = 30


def sensitivity_bars(diagnosis: Diagnosis, most: int = _MOST_BARS) -> Figure:
    """Draw the SQNR of the outputs with one tensor quantized at a time, the noisiest first.

    Parameters
    ----------
    diagnosis : Diagnosis
        What was found.
    most : int
        Bars at most.

    Returns
    -------
    matplotlib.figure.Figure
        Bars of weights and activations in two colours; a tensor whose quantization changes nothing has none.
    """
    ranked = sorted(diagnosis.sensitivities, key=lambda one: one.sqnr_db)
    shown = [one for one in ranked if np.isfinite(one.sqnr_db)][:most]
    with figure(6.5, 1.0 + 0.2 * max(1, len(shown))) as (drawn, axes):
        for number, (kind, colour) in enumerate(zip(("weights", "activation"), COLOURS, strict=False)):
            places = [place for place, one in enumerate(shown) if one.kind == kind]
            axes.barh(
                places, [shown[place].sqnr_db for place in places], color=colour, label=kind, hatch=("", "//")[number]
            )
        axes.set_yticks(range(len(shown)), [f"{one.layer} ({one.bits} bits)" for one in shown])
        axes.invert_yaxis()
        axes.set_xlabel("SQNR of the outputs with this tensor alone quantized, dB")
        axes.legend(loc="lower right")
    return drawn


def channel_ranges(sensitivity: Sensitivity) -> Figure:
    """Draw least and greatest value of each channel of a tensor, against the limits of its quantizer.

    Parameters
    ----------
    sensitivity : Sensitivity
        One of ``Diagnosis.sensitivities``.

    Returns
    -------
    matplotlib.figure.Figure
        One bar per channel; the grid's limits are lines, per channel where the scales are.
    """
    ranges = sensitivity.ranges
    channels = np.arange(ranges.low.size)
    with figure(6.5, 2.6) as (drawn, axes):
        axes.bar(channels, ranges.high - ranges.low, bottom=ranges.low, width=0.8, color=COLOURS[0], label="values")
        for number, limit in enumerate((ranges.grid_low, ranges.grid_high)):
            axes.step(
                channels, limit, where="mid", color=COLOURS[1], linewidth=1.0,
                label="limits of the quantizer" if number == 0 else None,
            )  # fmt: skip
        axes.set_xlabel("output channel" if sensitivity.kind == "weights" else "channel")
        axes.set_ylabel("real value")
        what = "weights of" if sensitivity.kind == "weights" else "output of"
        axes.set_title(
            f"{what} {sensitivity.layer}, {sensitivity.bits} bits: widest channel {ranges.spread:.3g} times the median "
            f"one, {ranges.clipped:.2%} clipped"
        )
        axes.legend(loc="best")
    return drawn


def save_diagnosis_figures(
    diagnosis: Diagnosis, folder: str | PathLike[str], most: int = 4, ending: str = ".png"
) -> list[Path]:
    """Write the figures of a diagnosis.

    Parameters
    ----------
    diagnosis : Diagnosis
        What was found.
    folder : path
        Where to; it is made if it does not exist, and files of the same names are replaced.
    most : int
        How many of the worst tensors get a figure of their channels.
    ending : {".png", ".svg", ".pdf"}
        Format.

    Returns
    -------
    list of Path
        ``sensitivity``, then ``1_weights_<layer>`` and so on.

    Raises
    ------
    DataError
        When the folder or a file cannot be written, or the ending is another one.
    """
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise DataError(f"folder {str(place)!r} cannot be made: {failure.strerror}; name another place") from None
    made = [place / f"sensitivity{ending}"]
    save_figure(sensitivity_bars(diagnosis), made[0])
    for number, one in enumerate(diagnosis.sensitivities[:most]):
        name = re.sub(r"[^A-Za-z0-9_.-]+", "_", one.layer)
        made.append(place / f"{number + 1}_{one.kind}_{name}{ending}")
        save_figure(channel_ranges(one), made[-1])
    return made
