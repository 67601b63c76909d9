"""The examples run, and print what follows from the runs; so does every cell of the notebook."""

import ast
import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))

pytestmark = pytest.mark.slow


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Return a function that runs an example as a script in an empty folder and returns what it printed."""

    def script(name, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return script


def rows(text, first):
    """Return the cells of the rows of a printed table that begin with a word; cells are two spaces apart."""
    return [re.split(r"  +", line.strip()) for line in text.splitlines() if line.strip().startswith(first)]


def test_every_example_is_tested():
    tested = Path(__file__).read_text(encoding="utf-8")
    for script in EXAMPLES.glob("*.py"):
        assert f'run("{script.name}"' in tested
    assert NOTEBOOKS


def test_choose_accumulator_width(run):
    text = run("choose_accumulator_width.py", "--limit", "40", "--max-loss", "3")
    for words, _overflows in (("proven", False), ("needed", False)):
        ((_, _, bits, events, accuracy),) = rows(text, words + ":")
        assert events == "0"
        assert accuracy.endswith("%")
        assert 8 < int(bits) < 32
    less = [int(row[3].replace(",", "")) for row in rows(text, "one bit less")]
    assert len(less) == 4
    assert less[1] > 0  # one bit below what was needed something overflows
    needed, proven = (int(rows(text, words)[0][2]) for words in ("needed:", "proven:"))
    assert needed <= proven
    assert all(int(row[2]) <= needed for row in rows(text, "accuracy holds"))


def test_compare_dataflows(run):
    text = run("compare_dataflows.py", "--images", "2")
    layers = rows(text, "separable1_depthwise_conv")
    assert len(layers[0]) >= 5
    assert "*" in " ".join(layers[0])
    for dataflow in ("broadcast", "output_stationary", "weight_stationary", "input_stationary"):
        ((_, cycles, *_),) = rows(text, dataflow + " ")
        assert int(cycles.replace(",", "")) > 1000
    best = re.search(r"fewest cycles: (\w+);", text).group(1)
    totals = {row[0]: int(row[1].replace(",", "")) for row in (rows(text, d + " ")[0] for d in (
        "broadcast", "output_stationary", "weight_stationary", "input_stationary"))}  # fmt: skip
    assert totals[best] == min(totals.values())


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed (Debian package iverilog)")
def test_verify_rtl_array(run):
    text = run("verify_rtl_array.py", "--layer", "classifier", "--bits", "14")
    sound, faulty = text.splitlines()[1:]
    assert re.fullmatch(r"the array: all [\d,]+ registers agree", sound)
    assert re.search(r"the array with a fault: cycle \d+, PE \(\d, \d\): accumulator is -?\d+, should be -?\d+", faulty)


def test_without_a_verilog_simulator_it_says_so(run, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="iverilog is not installed"):
        run("verify_rtl_array.py")


def cells(notebook, kind):
    return ["".join(c["source"]) for c in json.loads(notebook.read_text("utf-8"))["cells"] if c["cell_type"] == kind]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_its_outputs(notebook):
    book = json.loads(notebook.read_text(encoding="utf-8"))
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            assert max(map(len, "".join(cell["source"]).splitlines())) <= 120


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_something(notebook, monkeypatch, tmp_path, capsys):
    """Run the cells one after the other as Jupyter does: all statements, and the last expression is displayed."""
    monkeypatch.chdir(tmp_path)
    names, shown = {"__name__": "__main__"}, []
    for number, source in enumerate(cells(notebook, "code")):
        tree = ast.parse(source, f"cell {number}")
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"cell {number}", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
            if value is not None:
                shown.append(value)
    assert len(shown) >= 5
    # A figure of matplotlib has a _repr_html_ that gives nothing; ours shows itself as SVG.
    drawings = [value._repr_svg_() for value in shown if hasattr(value, "_repr_svg_")]
    pages = [value._repr_html_() for value in shown if not hasattr(value, "_repr_svg_")]
    assert len(drawings) >= 1
    assert all("<svg" in drawing for drawing in drawings)
    assert len(pages) >= 5
    assert all("</" in page for page in pages)
    # What the notebook says: wide enough as proven, and too narrow below what was needed.
    printed = capsys.readouterr().out
    events = {
        int(bits): int(count.replace(",", "")) for bits, count in re.findall(r"(\d+) bits: +([\d,]+) ov", printed)
    }
    safe, needed = map(int, re.findall(r"(\d+) bits", printed)[:2])
    assert events[safe] == events[needed] == 0
    assert 0 < events[needed - 1] < events[needed - 2] < events[needed - 3]
