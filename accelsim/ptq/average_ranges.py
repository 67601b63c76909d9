"""Ranges of the averages of whole images: when one is worth a quantizer of its own, and how far that reaches.

White paper section 2.3.3 keeps the input's quantizer for pooling because averaging does not change the range much. That
holds for small windows. The mean of a whole image is often far from the image's greatest value, and then the shared
step is the coarsest in the network, right before the classifier.
"""

from __future__ import annotations

from typing import Literal

from accelsim.formats import QuantizationParameters
from accelsim.ptq.calibration import TensorStatistics

MARGIN = 0.25
"""How far a quantizer reaches beyond the calibrated range, as a share of it.

An image has one average per channel, so a calibration set has few, and the next image may be above all of them.
Measured with ResNet8, 8 bits per tensor and per channel, on parts of the 512 calibration images: SQNR of the logits on
256 that were not used, dB, mean of four draws, for margins 0, 1/8, 1/4, 1/2 and 1. Ranges from 32 images: 31.7, 32.3,
32.4, 32.4, 31.6; from 256: 36.0, 35.9, 35.8, 35.4, 34.3.
"""

WORTHWHILE = 0.5
"""An average gets a quantizer of its own where its step is less than this share of its input's."""


def average_range(measured: TensorStatistics, shared: QuantizationParameters) -> TensorStatistics:
    """Return the range of an average on a quantizer of its own: docs/ptq.md (99).

    Parameters
    ----------
    measured : TensorStatistics
        Of the average.
    shared : QuantizationParameters
        Of its input, which no average is outside of.
    """
    margin = MARGIN * (measured.high - measured.low)
    zero, scale = int(shared.zero_point), float(shared.scale)
    least, most = (scale * (code - zero) for code in (shared.format.minimum, shared.format.maximum))
    return TensorStatistics(max(measured.low - margin, least), min(measured.high + margin, most), measured.histogram)


def deserves_own(
    choice: Literal["auto", "own", "shared"], own: QuantizationParameters, shared: QuantizationParameters
) -> bool:
    """Whether an average is stored on a grid of its own."""
    return choice == "own" or (choice == "auto" and float(own.scale) < WORTHWHILE * float(shared.scale))
