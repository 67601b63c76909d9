"""Post-training quantization: one step of the white paper's section 3 per module, `pipeline` puts them in order."""

from accelsim.ptq.config import PTQConfig
from accelsim.ptq.pipeline import quantize

__all__ = ["PTQConfig", "quantize"]
