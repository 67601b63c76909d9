"""Run the models of a folder in LiteRT and TFLite Micro, for `litert.py`; needs their Python, and nothing of accelsim.

Reads ``NAME.tflite`` with its inputs ``NAME.npz`` and writes ``NAME.litert.npz`` and ``NAME.tflite_micro.npz`` with the
outputs in order; none where the interpreter refuses the model. TFLite Micro may end the process: each of its models
runs in one of its own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np


def litert(model: Path, feeds: dict[str, Any], outputs: int) -> list[Any]:
    """Return the outputs of LiteRT's reference kernels."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(str(model), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    for entry in interpreter.get_input_details():
        interpreter.set_tensor(entry["index"], feeds[entry["name"]])
    interpreter.invoke()
    return [interpreter.get_tensor(entry["index"]) for entry in interpreter.get_output_details()[:outputs]]


def tflite_micro(model: Path, feeds: dict[str, Any], outputs: int) -> list[Any]:
    """Return the outputs of TFLite Micro."""
    from tflite_micro.python.tflite_micro import runtime

    interpreter = runtime.Interpreter.from_file(str(model))
    for position, values in enumerate(feeds.values()):
        interpreter.set_input(values, position)
    interpreter.invoke()
    return [interpreter.get_output(position) for position in range(outputs)]


def main(folder: Path) -> None:
    """Run every model in both."""
    for model in sorted(folder.glob("*.tflite")):
        with np.load(model.with_suffix(".npz")) as archive:
            feeds = {name: archive[name] for name in archive.files}
        outputs = int(feeds.pop("outputs"))
        for run in (litert, tflite_micro):
            child = os.fork() if run is tflite_micro else 0
            if child:
                os.waitpid(child, 0)
                continue
            try:
                made = run(model, feeds, outputs)
                np.savez(model.with_suffix(f".{run.__name__}.npz"), *made)
            except (RuntimeError, ValueError):
                pass
            if run is tflite_micro:
                os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
