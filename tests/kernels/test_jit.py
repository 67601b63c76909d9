"""The cache of machine code follows every source, and its absence stops nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import accelsim_kernels
from accelsim_kernels import _jit

SOURCES = Path(accelsim_kernels.__file__).parent
PROGRAM = """
import numpy as np
from accelsim_kernels.integers import wrap32
print(int(wrap32(np.int64(2**31 + 5))))
"""
jit_only = pytest.mark.skipif(
    os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="nothing is compiled or cached with the JIT off"
)


def run(folder: Path, cache: Path, **more: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder), "ACCELSIM_CACHE_DIR": str(cache), **more}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.strip()


@jit_only
def test_edited_helper_changes_the_result_of_its_cached_caller(tmp_path: Path) -> None:
    # wrap32 calls bring_in, which stands in the same package; the edit is made in bring_in alone
    folder, cache = tmp_path / "sources", tmp_path / "cache"
    shutil.copytree(SOURCES, folder / "accelsim_kernels", ignore=shutil.ignore_patterns("__pycache__"))
    helper = folder / "accelsim_kernels" / "helper_of_integers.py"
    integers = folder / "accelsim_kernels" / "integers.py"
    helper.write_text(
        "from accelsim_kernels._jit import kernel\n\n\n@kernel\ndef offset(value):\n    return value + 1000\n"
    )
    integers.write_text(
        "from accelsim_kernels._jit import kernel\nfrom accelsim_kernels.helper_of_integers import offset\n\n\n"
        "@kernel\ndef wrap32(value):\n    return offset(value)\n"
    )
    assert run(folder, cache) == str(2**31 + 1005)
    assert run(folder, cache) == str(2**31 + 1005)
    assert any(cache.rglob("*.nbi")), "the second run should have found machine code of the first"
    helper.write_text(helper.read_text().replace("1000", "2000"))
    assert run(folder, cache) == str(2**31 + 2005)


@jit_only
def test_machine_code_is_kept_in_a_folder_named_after_the_sources(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert run(SOURCES.parent, cache) == str(-(2**31) + 5)
    folders = [entry.name for entry in cache.iterdir()]
    assert folders == [f"kernels-{_jit.fingerprint(SOURCES)}"]


@jit_only
def test_bounds_checked_code_has_a_folder_of_its_own(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    run(SOURCES.parent, cache, NUMBA_BOUNDSCHECK="0")
    run(SOURCES.parent, cache, NUMBA_BOUNDSCHECK="1")
    assert len(list(cache.iterdir())) == 2


@jit_only
def test_processes_that_compile_at_the_same_time_do_not_take_each_others_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """numba's own names are numbers: the second process's index named the file that the first one wrote last."""
    monkeypatch.setattr(_jit, "FOLDER", tmp_path)

    def function(values: Any) -> Any:
        return values[0]

    first, second = (_jit.kernel(function)._cache._cache_file for _ in range(2))  # type: ignore[attr-defined]
    write = first._save_data
    second._load_index = dict  # it has read the index before the first one wrote it

    def write_late(name: str, code: str) -> None:
        second.save("int16", "code for int16")
        write(name, code)

    first._save_data = write_late
    first.save("int8", "code for int8")
    del second._load_index
    assert second.load("int16") == "code for int16"
    assert second.load("int8") is None  # its entry was overwritten: compiled again
    second.save("int8", "code for int8")
    assert {key: first.load(key) for key in ("int8", "int16")} == {"int8": "code for int8", "int16": "code for int16"}


@jit_only
def test_callee_gets_an_entrance_once_python_calls_it() -> None:
    callee = _jit.callee(lambda values, factor: values.sum() * factor)
    twice = _jit.kernel(lambda values: callee(values, 2))
    assert twice(np.arange(4)) == 12
    assert callee.entrance is None  # type: ignore[attr-defined]
    assert callee(np.arange(4), 3) == 18
    assert len(callee.entrance.signatures) == 1  # type: ignore[attr-defined]


@jit_only
def test_another_process_links_a_callee_from_the_cache(tmp_path: Path) -> None:
    script = tmp_path / "kernels.py"
    script.write_text(
        "import sys\n\nimport numpy as np\n\nfrom accelsim_kernels._jit import callee, kernel\n\n\n"
        "@callee\ndef element(values, place):\n    return values[place]\n\n\n"
        "@kernel\ndef middle(values):\n    return element(values, values.size // 2)\n\n\n"
        "@kernel\ndef last(values):\n    return element(values, values.size - 1)\n\n\n"
        "print(globals()[sys.argv[1]](np.arange(5)), *element._compiled.stats.cache_hits.values())\n"
        "for variant in element._compiled.overloads.values():\n"
        "    print(variant.target_context.codegen()._engine.is_symbol_defined(variant.fndesc.llvm_func_name))\n"
    )
    environment = {**os.environ, "ACCELSIM_CACHE_DIR": str(tmp_path / "cache")}
    said = [
        subprocess.run(
            [sys.executable, str(script), kernel],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout.split()
        for kernel in ("middle", "last", "last")
    ]
    # The second finds the callee, without machine code that would be run instead of what is linked; the third its own
    assert said == [["2", "False"], ["4", "1", "False"], ["4"]]


def test_unwritable_cache_compiles_in_memory(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder is asked for")
    assert run(SOURCES.parent, blocked / "cache") == str(-(2**31) + 5)
    assert blocked.read_text() == "a file where a folder is asked for"


def test_cache_folder_is_none_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv(_jit.CACHE_VARIABLE, str(blocked))
    assert _jit.cache_folder(SOURCES) is None


def test_cache_folder_falls_back_to_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(_jit.CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert _jit.cache_folder(SOURCES) == tmp_path / "accelsim" / f"kernels-{_jit.fingerprint(SOURCES)}"


def test_fingerprint_sees_contents_and_names(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one")
    first = _jit.fingerprint(tmp_path)
    (tmp_path / "a.py").write_text("two")
    second = _jit.fingerprint(tmp_path)
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    third = _jit.fingerprint(tmp_path)
    assert len({first, second, third}) == 3
