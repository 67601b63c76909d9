"""Post-training quantization: one step of the white paper's section 3 per module, `pipeline` puts them in order.

Loaded when first used, so that a `PTQConfig` can be made without scipy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from accelsim.ptq.config import PTQConfig

if TYPE_CHECKING:
    from accelsim.ptq.pipeline import quantize

__all__ = ["PTQConfig", "quantize"]


def __getattr__(name: str) -> Any:
    if name != "quantize":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from accelsim.ptq.pipeline import quantize

    return quantize
