"""What the README shows really runs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_python_snippet_runs(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(SNIPPETS[number], f"README.md snippet {number}", "exec"), {})
    assert capsys.readouterr().out.strip() or any(tmp_path.iterdir())


def test_there_are_ten_lines_of_python() -> None:
    assert len(SNIPPETS) >= 2
    assert len(SNIPPETS[0].strip().splitlines()) == 10


def test_readme_has_the_two_commands_word_for_word() -> None:
    lines = README.splitlines()
    assert "pip install . && accelsim demo" in lines
    assert "pip install -e '.[test]' && pytest" in lines


def test_links_of_the_documents_lead_somewhere() -> None:
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_commands_of_the_readme_exist() -> None:
    import typer.main

    from accelsim.cli import app

    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    named = set(re.findall(r"`accelsim ([a-z]+)", README))
    assert named
    assert named <= known


def test_version_is_said_once() -> None:
    import accelsim

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == accelsim.__version__
