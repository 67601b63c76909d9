"""What the processor multiplies and adds in one instruction, which decides about the code of kernels."""

from __future__ import annotations

import os
from enum import IntEnum
from functools import cache
from typing import Any

from numba.core import codegen as _numba_codegen
from numba.core import config as _numba_config

settings: Any = _numba_config
"""numba's settings; they are made from the environment, so a type checker cannot know them."""

INSTRUCTIONS_VARIABLE = "ACCELSIM_INSTRUCTIONS"
"""Set it to a lesser set of instructions than the processor's, by `Instructions`'s names, as to compare the paths."""


class Instructions(IntEnum):
    """Sets of instructions, each better than those before it."""

    NONE = 0
    """Generic vectors and floating-point products."""
    AVX2 = 1
    """Products of two pairs of 16 bits, added, in 256 bits."""
    VNNI = 2
    """Products of four pairs of 8 or two of 16 bits, added to a total, in 512 bits."""


_FEATURES = {
    Instructions.VNNI: ("avx512f", "avx512bw", "avx512vl", "avx512vnni"),
    Instructions.AVX2: ("avx2",),
}


@cache
def instructions() -> Instructions:
    """Return the best instructions that this processor has and that kernels may use.

    Raises
    ------
    ValueError
        `INSTRUCTIONS_VARIABLE` names no set.

    Notes
    -----
    numba's own ``NUMBA_CPU_FEATURES`` is respected: LLVM ends the process that asks for an instruction without its
    feature.
    """
    wanted = os.environ.get(INSTRUCTIONS_VARIABLE, Instructions.VNNI.name).upper()
    names = [one.name for one in Instructions]
    if wanted not in names:
        known = ", ".join(name.lower() for name in names)
        raise ValueError(f"{INSTRUCTIONS_VARIABLE} must be one of {known}, not {wanted.lower()!r}; or leave it unset")
    if settings.DISABLE_JIT:
        return Instructions.NONE
    codegen: Any = _numba_codegen
    features = settings.CPU_FEATURES
    present = set((codegen.get_host_cpu_features() if features is None else features).split(","))
    for one, needed in _FEATURES.items():
        if one <= Instructions[wanted] and all(f"+{name}" in present for name in needed):
            return one
    return Instructions.NONE


def takes_bytes() -> bool:
    """Whether products of 8 bits are cheaper than those of 16: else it pays to make them wider where that is cheap."""
    return instructions() is Instructions.VNNI


def has_dot_instructions() -> bool:
    """Whether products of integers are multiplied and added by instructions, and kernels with them may be called."""
    return instructions() > Instructions.NONE
