"""What the pages for users say is what the program has: every field, command, option, snippet and place."""

import re
from pathlib import Path
from typing import get_args, get_origin

import pytest
import typer.main

import accelsim as ax
from accelsim.cli import app
from accelsim.machine import Memory, Requantizer

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("machine", "commands", "reading", "verification")
PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text("utf-8") for name in NAMES}


def rows(page, columns):
    """Return the cells of all rows of tables with so many columns, without their headers."""
    found = []
    for line in PAGES[page].splitlines():
        cells = [cell.strip() for cell in line.strip()[1:-1].split("|")]
        if line.startswith("|") and len(cells) == columns and not set(line) <= set("|-"):
            found.append(cells)
    return found


def fields():
    """Yield the dotted name, the pydantic field and the default of every field of a machine."""
    for prefix, kind in (("", ax.Machine), ("requantizer.", Requantizer), ("memory.", Memory)):
        for name, field in kind.model_fields.items():
            if name not in ("requantizer", "memory"):
                yield prefix + name, field, getattr(kind(), name)


def literals(annotation):
    """Return all words that a field's type allows."""
    if get_origin(annotation) is None:
        return set()
    found = {value for value in get_args(annotation) if isinstance(value, str)}
    return found.union(*(literals(part) for part in get_args(annotation)))


NUMBER = r"\d+(?:\.\d+)?(?:e[-+]?\d+)?"


def bounds(field):
    """Return the least and the greatest value of a field's type, those that it has."""
    metadata = [*field.metadata, *(m for part in get_args(field.annotation) for m in getattr(part, "__metadata__", ()))]
    text = " ".join(map(repr, metadata))
    return {float(limit) for limit in re.findall(rf"\b[gl]e=({NUMBER})", text)}


def test_every_field_of_a_machine_has_a_row():
    shown = {cells[0].strip("`"): cells[1:] for cells in rows("machine", 4) if cells[0].startswith("`")}
    assert list(shown)
    assert set(shown) == {name for name, _, _ in fields()}
    for name, field, default in fields():
        values, spelled, meaning = shown[name]
        assert len(meaning) > 10, name
        if default is None:
            assert spelled == "not given", name
        elif isinstance(default, tuple):
            assert re.findall(r"`(\w+)`", spelled) == list(default), name
        else:
            assert spelled.strip("`") == str(default).lower() if isinstance(default, bool) else str(default), name
        if name != "requantizer.rounding":
            assert set(re.findall(r"`(\w+)`", values)) == literals(field.annotation), name
        written = {float(number) for number in re.findall(NUMBER, values)}
        assert bounds(field) <= written, (name, values)


def test_every_preset_is_named():
    for preset in ax.Requantizer.preset_names():
        assert f"`{preset}`" in PAGES["machine"], preset
    (example,) = re.findall(r"```toml\n(.*?)```", PAGES["machine"], flags=re.DOTALL)
    assert ax.Machine.from_toml(example).requantizer.multiplier_bits == 16


def commands():
    """Yield each command's name and its click command; groups are opened."""

    def walk(command, path):
        if hasattr(command, "commands"):
            for name, inner in command.commands.items():
                yield from walk(inner, [*path, name])
        else:
            yield " ".join(path), command

    yield from walk(typer.main.get_command(app), [])


def test_every_command_is_introduced():
    introduced = set(re.findall(r"\*\*`accelsim ([a-z ]+)`\*\*", PAGES["commands"]))
    assert introduced == {name for name, _ in commands()}


def test_every_option_of_every_command_has_a_row():
    shown = set()
    for option, _, meaning, names in rows("commands", 4):
        for word in re.findall(r"`([^`]+)`", option):
            for name in names.split(", "):
                if word.startswith("--") or word.isupper():
                    assert (word, name) not in shown, f"{word} of {name} has two rows"
                    assert len(meaning) > 5
                    shown.add((word, name))
    known = set()
    for name, command in commands():
        for parameter in command.params:
            if parameter.param_type_name == "argument":
                known.add((parameter.metavar.strip("[]").split("|")[0].split(".")[0], name))
            else:
                known.update((word, name) for word in [*parameter.opts, *parameter.secondary_opts])
    assert shown - known == set(), "rows of options that no command has"
    assert known - shown == set(), "options without a row"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_snippets_run(page, capsys):
    for snippet in re.findall(r"```python\n(.*?)```", PAGES[page], flags=re.DOTALL):
        exec(compile(snippet, f"docs/{page}.md", "exec"), {})
    printed = capsys.readouterr().out
    if page == "reading":
        assert printed.splitlines() == [
            "output_stationary wrap [[100]] [[2]] [[0]] [[200]]",
            "output_stationary saturate [[27]] [[1]] [[0]] [[200]]",
            "broadcast wrap [[100]] [[0]] [[0]] [[100]]",
            "broadcast saturate [[100]] [[0]] [[0]] [[100]]",
        ]


def test_places_of_the_checks_exist():
    named = 0
    for *_, places in rows("verification", 4):
        folder = None
        for place in re.findall(r"`([^`]+)`", places):
            path = ROOT / place if "/" in place else folder / place
            assert path.exists(), place
            folder = path if path.is_dir() else path.parent
            named += 1
    assert named > 20


def test_columns_of_a_run_are_explained():
    run = ax.simulate.__module__ and rows("reading", 2)
    explained = {word for cells in run for word in cells[0].split(", ")}
    from accelsim.simulator.results import SimulationResult

    header, _ = SimulationResult({}, {}, (), 0, {}).table()
    assert set(header) <= explained


def test_the_readme_leads_to_the_pages():
    readme = (ROOT / "README.md").read_text("utf-8")
    for page in PAGES:
        assert f"(docs/{page}.md)" in readme, page
