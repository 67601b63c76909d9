"""Which instructions kernels use, by the processor, by numba's settings and by choice."""

import pytest

from accelsim_kernels import _jit, processor
from accelsim_kernels.processor import INSTRUCTIONS_VARIABLE, Instructions, instructions

VNNI = "+avx,+avx2,+avx512f,+avx512bw,+avx512vl,+avx512vnni,-amx-int8"


@pytest.fixture
def chosen(monkeypatch):
    """Return what is chosen of numba's features, and by name."""

    def choose(features, name=None):
        monkeypatch.setattr(processor.settings, "DISABLE_JIT", 0)
        monkeypatch.setattr(processor.settings, "CPU_FEATURES", features)
        monkeypatch.delenv(INSTRUCTIONS_VARIABLE, raising=False)
        if name is not None:
            monkeypatch.setenv(INSTRUCTIONS_VARIABLE, name)
        instructions.cache_clear()
        return instructions()

    yield choose
    monkeypatch.undo()
    instructions.cache_clear()


@pytest.mark.parametrize(
    ("features", "name", "expected"),
    [
        (VNNI, None, Instructions.VNNI),
        (VNNI, "avx2", Instructions.AVX2),
        (VNNI, "NONE", Instructions.NONE),
        (VNNI.replace("+avx512vnni", "-avx512vnni"), None, Instructions.AVX2),
        (VNNI.replace("+avx512vnni", "-avx512vnni"), "vnni", Instructions.AVX2),
        ("+sse2,-avx2", None, Instructions.NONE),
        ("", "avx2", Instructions.NONE),
    ],
)
def test_the_best_instructions_are_taken_that_numba_may_use_and_nobody_ruled_out(chosen, features, name, expected):
    assert chosen(features, name) is expected


def test_without_the_jit_there_are_no_instructions(chosen, monkeypatch):
    chosen(VNNI)
    monkeypatch.setattr(processor.settings, "DISABLE_JIT", 1)
    instructions.cache_clear()
    assert instructions() is Instructions.NONE


def test_an_unknown_name_is_refused(chosen):
    with pytest.raises(ValueError, match=f"{INSTRUCTIONS_VARIABLE} must be one of none, avx2, vnni, not 'sse'"):
        chosen(VNNI, "sse")


def test_machine_code_of_other_instructions_is_not_taken(chosen, tmp_path):
    (tmp_path / "kernel.py").write_text("code")
    names = []
    for name in ("none", "avx2", "vnni"):
        chosen(VNNI, name)
        names.append(_jit.fingerprint(tmp_path))
    assert len(set(names)) == 3
