"""Fuzz the reader of TFLite models: damaged files must give an AccelsimError, in seconds and in bounded memory.

    python tools/fuzz_tflite.py FOLDER_OF_TFLITE_FILES --minutes 10 [--seed 0] [--findings DIR]

Takes the files of the folder and the small models of the tests as seeds, damages them (bits, numbers of 1, 2, 4 and
8 bytes at any place, cuts, copies of parts) and loads them. What loads is run on one sample. Prints what came out, how
long the slowest took and the peak of memory; exits with status 1 where something else than an AccelsimError was raised,
a file took more than 20 seconds of processor time, or memory passed 1 GiB. Its findings become tests in
tests/accelsim/program/test_tflite_malformed.py.
"""

from __future__ import annotations

import argparse
import random
import resource
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import accelsim as ax  # noqa: E402
from tests.accelsim.program.tflite_cases import SEEDS  # noqa: E402

NUMBERS = (0, 1, 2, 3, 4, 7, 8, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63)
SECONDS, GIBIBYTE = 20, 1 << 30


def damaged(data: bytes, source: random.Random) -> bytes:
    """Return a file with a few places changed."""
    blob = bytearray(data)
    for _ in range(source.choice((1, 1, 1, 2, 3, 8, 32))):
        place = source.randrange(len(blob))
        match source.randrange(8):
            case 0 | 1:
                blob[place] ^= 1 << source.randrange(8)
            case 2:
                blob[place] = source.randrange(256)
            case 3 | 4 | 5:
                width = source.choice((1, 2, 4, 4, 4, 8))
                place -= place % width
                number = source.choice(NUMBERS) if source.random() < 0.6 else source.randrange(len(blob))
                if source.random() < 0.3:
                    number = -number
                blob[place : place + width] = (number % (1 << (8 * width))).to_bytes(width, "little")
            case 6:
                end = min(len(blob), place + source.choice((4, 8, 16, 64)))
                other = source.randrange(len(blob))
                blob[other : other + end - place] = blob[place:end]
            case _:
                if source.random() < 0.2:
                    del blob[max(1, place) :]
    return bytes(blob[: len(data)]) or b"\0"


def attempt(blob: bytes) -> str:
    """Load and run a file; return what happened."""
    program = None
    try:
        program = ax.load_tflite(blob, kernels="litert")
    except ax.AccelsimError as refusal:
        return f"refused: {type(refusal).__name__}"
    elements = sum(int(np.prod(layer.output_shape)) for layer in program.layers)
    if program.macs > 10**8 or elements > 10**7:
        return "loaded, too large to run"
    feeds = {
        tensor.name: np.zeros(tensor.shape, dtype=program.tensors[tensor.name].format.dtype)
        for tensor in program.inputs
    }  # fmt: skip
    try:
        ax.simulate(program, feeds)
    except ax.AccelsimError as refusal:
        return f"loaded, run refused: {type(refusal).__name__}"
    return "loaded and run"


def main() -> int:
    """Fuzz until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", type=Path)
    options = parser.parse_args()
    seeds = [path.read_bytes() for path in sorted(options.folder.glob("*.tflite"))]
    seeds = [data for data in seeds if len(data) < 1 << 17] + list(SEEDS.values())
    source = random.Random(options.seed)
    warnings.simplefilter("error")
    for blob in seeds:  # compile what they need before the clock runs
        attempt(blob)
    signal.signal(signal.SIGPROF, lambda *_: (_ for _ in ()).throw(TimeoutError("too slow")))
    outcomes: Counter[str] = Counter()
    slowest, failures, end = 0.0, 0, time.monotonic() + 60 * options.minutes
    while time.monotonic() < end:
        blob = damaged(source.choice(seeds), source)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of processor time: the machine may be busy
        begin = time.process_time()
        try:
            outcomes[attempt(blob)] += 1
        except BaseException as problem:  # everything that is no AccelsimError is a finding
            if isinstance(problem, KeyboardInterrupt):
                raise
            failures += 1
            outcomes[f"FAILED: {type(problem).__name__}"] += 1
            print(traceback.format_exc(limit=-4), flush=True)
            if options.findings is not None and failures <= 50:
                (options.findings / f"{failures}.tflite").write_bytes(blob)
        signal.setitimer(signal.ITIMER_PROF, 0)
        slowest = max(slowest, time.process_time() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    for outcome, count in outcomes.most_common():
        print(f"{count:>9,}  {outcome}")
    print(f"{sum(outcomes.values()):,} files, slowest {slowest:.2f} s, peak {peak / 2**20:.0f} MiB")
    return int(failures > 0 or peak > GIBIBYTE)


if __name__ == "__main__":
    sys.exit(main())
