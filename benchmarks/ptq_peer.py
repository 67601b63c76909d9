"""One quantization by a peer, in the peer's own environment; `ptq_peers.py` calls it.

Reads a job in JSON from stdin, writes the logits of the test images to ``job["logits"]``, prints CPU seconds in JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx

BATCH = 32


def run_onnxruntime(job: dict[str, Any], calibration: Any, test: Any) -> tuple[Any, dict[str, float]]:
    """Quantize statically with ONNX Runtime (preprocessing, QDQ), which runs the quantized model itself."""
    import onnxruntime as ort
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self, name: str) -> None:
            self._batches = iter({name: calibration[i : i + BATCH]} for i in range(0, len(calibration), BATCH))

        def get_next(self) -> Any:
            return next(self._batches, None)

    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        prepared, made = Path(folder) / "prepared.onnx", Path(folder) / "made.onnx"
        quant_pre_process(job["model"], prepared)
        name = onnx.load(prepared).graph.input[0].name
        quantize_static(
            prepared,
            made,
            Reader(name),
            quant_format=QuantFormat.QDQ,
            per_channel=job["per_channel"],
            weight_type=QuantType.QInt4 if job["weight_bits"] == 4 else QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            calibrate_method=getattr(CalibrationMethod, job.get("calibrate", "MinMax")),
            extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
        )
        seconds = time.process_time() - start
        session = ort.InferenceSession(str(made), providers=["CPUExecutionProvider"])
    logits = [session.run(None, {name: test[i : i + BATCH]})[0] for i in range(0, len(test), BATCH)]
    return np.concatenate(logits), {"total": seconds}


def run_aimet(job: dict[str, Any], calibration: Any, test: Any) -> tuple[Any, dict[str, float]]:
    """Fold batch norms, equalize and run AdaRound if asked for, and simulate, all of it by AIMET."""
    import aimet_onnx
    from aimet_onnx import QuantizationSimModel
    from aimet_onnx.batch_norm_fold import fold_all_batch_norms_to_weight
    from aimet_onnx.common.quantsim_config import __file__ as configurations
    from aimet_onnx.cross_layer_equalization import equalize_model

    model = onnx.load(job["model"])
    name = model.graph.input[0].name
    batches = [{name: calibration[i : i + BATCH]} for i in range(0, len(calibration), BATCH)]
    seconds: dict[str, float] = {}
    start = time.process_time()
    if job["equalize"]:
        equalize_model(model)
    else:
        fold_all_batch_norms_to_weight(model)
    settings = "default_config_per_channel.json" if job["per_channel"] else "default_config.json"
    sim = QuantizationSimModel(
        model,
        param_type=aimet_onnx.int4 if job["weight_bits"] == 4 else aimet_onnx.int8,
        activation_type=aimet_onnx.int8,
        quant_scheme=job["scheme"],
        config_file=str(Path(configurations).with_name(settings)),
        dummy_input={name: calibration[:1]},
    )
    if job["iterations"]:
        before = time.process_time()
        aimet_onnx.apply_adaround(sim, batches, job["iterations"])
        seconds["adaround"] = time.process_time() - before
    sim.compute_encodings(batches)
    seconds["total"] = time.process_time() - start
    logits = [sim.session.run(None, {name: test[i : i + BATCH]})[0] for i in range(0, len(test), BATCH)]
    return np.concatenate(logits), seconds


def main() -> None:
    """Do the job on stdin."""
    job = json.load(sys.stdin)
    with np.load(job["data"], allow_pickle=False) as data:
        calibration, test = data["calibration"], data["test"]
    tool = {"aimet": run_aimet, "onnxruntime": run_onnxruntime}[job["tool"]]
    logits, seconds = tool(job, calibration, test)
    np.save(job["logits"], logits)
    print("\n" + json.dumps(seconds))


if __name__ == "__main__":
    main()
