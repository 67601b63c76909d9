"""Requantization by a shift against ap_fixed of Vitis HLS, code by code.

    pip download --no-deps hls4ml==1.3.0 && unzip -q hls4ml-1.3.0-py3-none-any.whl
    python benchmarks/ap_fixed.py hls4ml/templates/vivado/ap_types

The headers are those that hls4ml brings; a C++ compiler is needed. Numbers with 0 to 6 fractional bits are assigned to
signed and unsigned formats of 2, 4 and 8 bits in all seven quantization modes and four overflow modes: every number of
up to twice the format's range and random ones far beyond it. The exit status is 1 where a code differs.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import accelsim as ax

ROUNDINGS = {
    "AP_TRN": "floor", "AP_TRN_ZERO": "toward_zero", "AP_RND": "half_up", "AP_RND_INF": "half_away",
    "AP_RND_ZERO": "half_toward_zero", "AP_RND_MIN_INF": "half_down", "AP_RND_CONV": "half_even",
}  # fmt: skip
OVERFLOWS = {
    "AP_SAT": "saturate", "AP_WRAP": "wrap", "AP_SAT_ZERO": "saturate_to_zero", "AP_SAT_SYM": "saturate_symmetric",
}  # fmt: skip
SOURCE_BITS = 24
BITS, FRACTIONS = (2, 4, 8), (0, 1, 3, 6)

PROGRAM = """
#include "ap_fixed.h"
#include <cstdio>
#include <vector>
template <int J, int W, bool S, ap_q_mode Q, ap_o_mode O> void convert(const std::vector<int> &values) {
    for (int value : values) {
        ap_fixed_base<%(source)d, %(source)d - J, true> from;
        from.range(%(source)d - 1, 0) = ap_int<%(source)d>(value);
        ap_fixed_base<W, W, S, Q, O> to = from;
        std::printf("%%d\\n", to.to_int());
    }
}
int main() {
    std::vector<int> values;
    for (int value; std::scanf("%%d", &value) == 1;) values.push_back(value);
%(calls)s
}
"""


def peer_codes(include: Path, values: list[int]) -> np.ndarray:
    """Return the peer's codes, one row for each combination of `combinations`."""
    calls = "\n".join(
        f"    convert<{fraction}, {bits}, {str(signed).lower()}, {rounding}, {overflow}>(values);"
        for fraction, bits, signed, rounding, overflow in combinations()
    )
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder, "peer.cpp"), Path(folder, "peer")
        source.write_text(PROGRAM % {"source": SOURCE_BITS, "calls": calls})
        subprocess.run(["c++", "-std=c++14", "-w", f"-I{include}", str(source), "-o", str(binary)], check=True)
        text = subprocess.run([binary], input=" ".join(map(str, values)), capture_output=True, check=True, text=True)
    return np.array(text.stdout.split(), dtype=np.int64).reshape(-1, len(values))


def combinations() -> list[tuple[int, int, bool, str, str]]:
    """Return (fractional bits, bits, signed, quantization mode, overflow mode) of every conversion."""
    return list(itertools.product(FRACTIONS, BITS, (True, False), ROUNDINGS, OVERFLOWS))


def main() -> int:
    """Compare and print how many codes differ in each overflow mode."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("include", type=Path, help="folder that holds ap_fixed.h")
    options = parser.parse_args()
    far = np.random.default_rng(1).integers(-(1 << (SOURCE_BITS - 1)), 1 << (SOURCE_BITS - 1), 2000).tolist()
    values = [*range(-1200, 1200), *far]
    codes = peer_codes(options.include, values)
    compared, different = dict.fromkeys(OVERFLOWS, 0), dict.fromkeys(OVERFLOWS, 0)
    for row, (fraction, bits, signed, rounding, overflow) in zip(codes, combinations(), strict=True):
        requantizer = ax.Requantizer(
            multiplier="power_of_two", rounding=ROUNDINGS[rounding], overflow=OVERFLOWS[overflow]
        )
        stored = ax.requantize(
            np.array([values]), requantizer, input_scale=2.0**-fraction, weight_scale=1.0,
            output=ax.QuantizationParameters(1.0, 0, ax.IntegerFormat(bits, signed)),
        )  # fmt: skip
        compared[overflow] += row.size
        different[overflow] += int(np.count_nonzero(stored[0] != row))
    for overflow in OVERFLOWS:
        print(f"{overflow}: {different[overflow]} of {compared[overflow]} codes differ")
    return int(any(different.values()))


if __name__ == "__main__":
    raise SystemExit(main())
