"""Random TFLite models against the interpreters of LiteRT and of TFLite Micro, element by element.

    python -m venv peer && peer/bin/pip install ai-edge-litert==2.3.0 tflite-micro
    python benchmarks/litert.py peer/bin/python --models 2000

Every model has one operator, drawn by `tests/accelsim/program/tflite_random.py`: int8 and int16 activations, int8 and
int4 weights, dilation, groups, depth multipliers, broadcasting, fused activation functions, powers of two as scales.
LiteRT runs with its reference kernels (BUILTIN_REF). The exit status is 1 where an element differs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import accelsim as ax  # noqa: E402
from accelsim.tables import text_table  # noqa: E402
from tests.accelsim.program.tflite_random import Models  # noqa: E402

STACKS = ("litert", "tflite_micro")


def write_models(folder: Path, count: int, seed: int) -> dict[str, str]:
    """Write models with their inputs; return the operator of each."""
    models, random, ops = Models(seed), np.random.default_rng(seed), {}
    for number in range(count):
        op, data, outputs = models.draw(number)
        name = f"{number:06d}"
        ops[name] = op
        (folder / f"{name}.tflite").write_bytes(data)
        feeds = {}
        for tensor in ax.load_tflite(data).inputs:
            dtype = ax.load_tflite(data).tensors[tensor.name].format.dtype
            limits = np.iinfo(dtype)
            feeds[tensor.name] = random.integers(limits.min, limits.max, tensor.shape, dtype, endpoint=True)
        np.savez(folder / f"{name}.npz", **feeds, outputs=np.array(outputs))
    return ops


def main() -> int:
    """Compare and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", help="Python of an environment with both interpreters")
    parser.add_argument("--models", type=int, default=900)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    equal, refused, different, elements = Counter[tuple[str, str]](), Counter[str](), Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ops = write_models(folder, options.models, options.seed)
        peer = ROOT / "benchmarks" / "litert_peer.py"
        subprocess.run([options.peer, str(peer), name], check=True, capture_output=True)
        for model, op in ops.items():
            with np.load(folder / f"{model}.npz") as archive:
                feeds = {key: archive[key] for key in archive.files if key != "outputs"}
            for stack in STACKS:
                path = folder / f"{model}.{stack}.npz"
                if not path.exists():
                    refused[stack] += 1
                    continue
                program = ax.load_tflite(folder / f"{model}.tflite", kernels=stack)
                ours = list(ax.simulate(program, feeds).outputs.values())
                with np.load(path) as archive:
                    theirs = [archive[key] for key in archive.files]
                wrong = sum(int((a != b).sum()) for a, b in zip(ours, theirs, strict=True))
                elements[stack] += sum(a.size for a in ours)
                different[stack] += wrong
                equal[op, stack] += wrong == 0
                if wrong:
                    print(f"{model} {op} on {stack}: {wrong} elements differ")
    rows = [[op, *(str(equal[op, stack]) for stack in STACKS)] for op in sorted(set(ops.values()))]
    print(text_table(["equal models", *STACKS], rows))
    for stack in STACKS:
        print(f"{stack}: {different[stack]} of {elements[stack]:,} elements differ; {refused[stack]} models it refuses")
    return int(any(different.values()))


if __name__ == "__main__":
    sys.exit(main())
