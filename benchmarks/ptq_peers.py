"""Post-training quantization against ONNX Runtime's static quantization and AIMET, same networks, images and widths.

    python -m venv peer && peer/bin/pip install 'torch==2.14.1' 'torchvision==0.29.1' 'aimet-onnx==2.42.0'
    python benchmarks/ptq_peers.py peer/bin/python NETWORK.onnx IMAGES.npz --adaround 10000

IMAGES.npz holds ``calibration`` and ``test`` as the network is fed, and ``labels``. Everybody calibrates on all of
``calibration``; each peer runs its own quantized model, accelsim the integers of `accelsim.simulate`. CPU seconds are
those of the quantization alone, without loading libraries. ``--adaround 0`` leaves AdaRound out; with a negative number
AIMET's is run for so many steps a layer to take their time, and its accuracy is left out. A peer's row ends in the
images that only accelsim's defaults get right, those that only the peer does, and the probability of at least such a
difference by chance (McNemar's exact test). The exit status is 1 where a peer's accuracy is above accelsim's in a cell.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import accelsim as ax
from accelsim.reference import OnnxRunner
from accelsim.tables import text_table

PEERS: dict[str, dict[str, Any]] = {
    "onnxruntime": {"tool": "onnxruntime"},
    "aimet": {"tool": "aimet", "equalize": False, "iterations": 0, "scheme": "tf_enhanced"},
    "aimet, CLE": {"tool": "aimet", "equalize": True, "iterations": 0, "scheme": "tf_enhanced"},
}
ADAROUND = {"tool": "aimet", "equalize": False, "scheme": "tf_enhanced"}
OURS: dict[str, dict[str, Any]] = {"accelsim": {}, "accelsim, adaround": {"rounding": "adaround"}}
CELLS = [(bits, per_channel) for bits in (8, 4) for per_channel in (False, True)]


def peer(python: str, job: dict[str, Any]) -> tuple[Any, dict[str, float]]:
    """Run a job in the peer's environment; return logits and CPU seconds."""
    script = str(Path(__file__).with_name("ptq_peer.py"))
    with tempfile.TemporaryDirectory() as folder:
        logits = Path(folder) / "logits.npy"
        finished = subprocess.run(
            [python, script],
            input=json.dumps({**job, "logits": str(logits)}),
            capture_output=True,
            text=True,
            check=False,
        )
        if finished.returncode != 0:
            raise SystemExit(f"{job['tool']} failed: {finished.stderr.strip().splitlines()[-1]}")
        return np.load(logits), json.loads(finished.stdout.splitlines()[-1])


def ours(graph: Any, data: Any, **options: Any) -> tuple[Any, float]:
    """Quantize with accelsim and run the integers; return logits and the CPU seconds of the quantization."""
    config = ax.PTQConfig(**options)
    ax.quantize(graph, data["calibration"][:2], config.replace(adaround_iterations=1))  # compile and load everything
    start = time.process_time()
    quantized = ax.quantize(graph, data["calibration"], config)
    seconds = time.process_time() - start
    result = ax.simulate(quantized, data["test"], track="none")
    return next(iter(result.real_outputs.values())), seconds


def discordant(ours: Any, peers: Any) -> tuple[int, int, float]:
    """Return how many images only we have right, how many only they, and the two-sided exact binomial probability."""
    only_ours, only_peers = int((ours & ~peers).sum()), int((peers & ~ours).sum())
    total, fewer = only_ours + only_peers, min(only_ours, only_peers)
    tail = sum(math.comb(total, count) for count in range(fewer + 1)) / 2**total
    return only_ours, only_peers, min(1.0, 2 * tail)


def main() -> int:
    """Print a row for each tool and cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", help="interpreter of the peers' environment")
    parser.add_argument("model")
    parser.add_argument("images")
    parser.add_argument("--adaround", type=int, default=10_000, help="steps of AIMET's AdaRound for each layer")
    arguments = parser.parse_args()
    with np.load(arguments.images, allow_pickle=False) as arrays:
        data = {name: arrays[name] for name in ("calibration", "test", "labels")}
    graph = ax.load_onnx(arguments.model)
    name = graph.inputs[0].name
    real = next(iter(OnnxRunner.of_original(graph).run({name: data["test"]}).values()))
    rows, beaten = [], False
    correct: dict[tuple[int, bool], Any] = {}  # of accelsim's defaults

    def show(tool: str, bits: int, per_channel: bool, logits: Any, seconds: str) -> float:
        hits = logits.argmax(axis=1) == data["labels"]
        right = 100 * float(hits.mean())
        first = correct.setdefault((bits, per_channel), hits)
        against = "" if first is hits else "{} : {}, p {:.2f}".format(*discordant(first, hits))
        same = 100 * float((logits.argmax(axis=1) == real.argmax(axis=1)).mean())
        noise = 10 * np.log10(np.square(real).sum() / np.square(logits - real).sum())
        granularity = "channel" if per_channel else "tensor"
        row = [f"W{bits}A8 per {granularity}", tool, f"{right:.1f}", f"{same:.1f}", f"{noise:.1f}", seconds, against]
        rows.append(row)
        print("  ".join(row), flush=True)
        return right

    print(f"float {100 * float((real.argmax(axis=1) == data['labels']).mean()):.1f}", flush=True)
    common = {"model": str(Path(arguments.model).resolve()), "data": str(Path(arguments.images).resolve())}
    for bits, per_channel in CELLS:
        cell = {**common, "weight_bits": bits, "per_channel": per_channel}
        best_peer, best_ours = 0.0, 0.0
        for tool, options in OURS.items():
            if not options or (bits == 4 and arguments.adaround):
                logits, used = ours(graph, data, weight_bits=bits, per_channel=per_channel, **options)
                best_ours = max(best_ours, show(tool, bits, per_channel, logits, f"{used:.1f}"))
        for tool, options in PEERS.items():
            logits, seconds = peer(arguments.python, {**cell, **options})
            best_peer = max(best_peer, show(tool, bits, per_channel, logits, f"{seconds['total']:.1f}"))
        if bits == 4 and arguments.adaround:
            steps = abs(arguments.adaround)
            logits, seconds = peer(arguments.python, {**cell, **ADAROUND, "iterations": steps})
            tool = f"aimet, AdaRound {steps}"
            if arguments.adaround > 0:
                best_peer = max(best_peer, show(tool, bits, per_channel, logits, f"{seconds['total']:.1f}"))
            else:
                print(f"{tool}: {seconds['adaround']:.1f} CPU s", flush=True)
        beaten |= best_peer > best_ours
    print("\n" + text_table(["cell", "tool", "top-1 %", "agreement %", "SQNR dB", "CPU s", "only ours : theirs"], rows))
    return int(beaten)


if __name__ == "__main__":
    raise SystemExit(main())
