"""The page in headless Chromium: what is seen is what the trace holds."""

import json
from html import unescape

import numpy as np
import pytest

import accelsim as ax
from accelsim.report.folds import MULTIPLYING, states
from accelsim.report.html import CycleView, html_report
from accelsim.report.html.page import HtmlReport, Section, cycles_section
from tests.accelsim.report.browser import Browser, chromium
from tests.accelsim.simulator.gemm_cases import DATAFLOWS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="no Chromium is installed: the HTML report is not opened"),
]

SHAPE = (6, 9, 6)
CELLS = """[...document.querySelectorAll('.cell[data-i]')].map(c => [
    c.querySelector('.o').textContent, c.querySelector('.p').textContent, c.querySelector('.r').textContent,
    c.classList.contains('use'), c.classList.contains('over')])"""
EDGES = """[...document.querySelectorAll('.cell.edge')].map(c => [
    c.querySelector('.r').textContent, c.classList.contains('over')])"""
READY = "document.querySelector('.viewer').dataset.ready !== undefined"
NOW = "document.querySelector('.now').textContent"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def run(machine, shape=SHAPE, bias=None):
    n, k, p = shape
    random = np.random.default_rng(3)
    weights, activations = random.integers(-128, 128, (n, k)), random.integers(0, 256, (k, p))
    return ax.matmul(weights, activations, machine, bias=bias, engine="stepped", trace=True)


def machine_of(dataflow, **fields):
    return ax.Machine(
        **{"rows": 4, "columns": 4, "dataflow": dataflow, "accumulator_bits": 16, "partial_sum_bits": 15, **fields}
    )


def seen_cells(trace, shape, machine, t):
    """Return what the cells should show, from the trace."""
    working = (states(trace, shape, machine)[t] & MULTIPLYING) == MULTIPLYING
    found = []
    for (i, j), works in np.ndenumerate(working):
        w, x = int(trace.weights[t, i, j]), int(trace.activations[t, i, j])
        operands = f"{w}×{x}" if works else None
        found.append((operands, str(trace.accumulators[t, i, j]), bool(works), bool(trace.overflow[t, i, j])))
    return found


def quiet(browser, path):
    assert browser.console == []
    assert browser.requests == [path.resolve().as_uri()]


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_every_step_shows_the_values_of_the_trace(browser, tmp_path, dataflow):
    machine = machine_of(dataflow)
    gemm = run(machine)
    trace = gemm.trace
    assert trace.num_overflows > 0
    path = tmp_path / "page.html"
    html_report(gemm, machine).save(path)
    browser.open(path, 1600)
    browser.wait(READY)
    browser.evaluate("document.querySelector('.cycle').focus()")
    edges = trace.row_accumulators if dataflow == "broadcast" else trace.column_accumulators
    marks = trace.row_overflow if dataflow == "broadcast" else trace.column_overflow
    texts = []
    for t in range(len(trace.fold)):
        if t:
            browser.press("ArrowRight", 39)
        now = browser.evaluate(NOW)
        texts.append(now)
        assert now.startswith(f"Cycle {t + 1} of {len(trace.fold)} (index {t}), fold {trace.fold[t] + 1} of ")
        seen = browser.evaluate(CELLS)
        for (operands, register, works, over), (o, p, r, use, marked) in zip(
            seen_cells(trace, SHAPE, machine, t), seen, strict=True
        ):
            assert r == register
            assert (use, marked) == (works, over)
            if works:
                w, x = map(int, operands.split("×"))
                assert o == operands
                assert p == ("" if dataflow == "broadcast" else f"={w * x}")
        if edges is not None:
            below = browser.evaluate(EDGES)
            assert [over for _, over in below] == [
                bool(a or b)
                for a, b in zip(marks[t], trace.tree_overflow[t] if dataflow == "broadcast" else marks[t], strict=True)
            ]
            for (text, _), value in zip(below, edges[t].tolist(), strict=True):
                assert text in (str(value), "" if value == 0 else str(value))
        working = sum(works for _, _, works, _ in seen_cells(trace, SHAPE, machine, t))
        assert f": {working} of 16 PEs multiply" in now
    assert len(set(texts)) == len(texts)
    quiet(browser, path)


@pytest.mark.parametrize("width", [390, 1600])
@pytest.mark.parametrize("dark", [False, True])
def test_a_report_fits_its_window(browser, tmp_path, width, dark):
    machine = ax.Machine(rows=16, columns=16, accumulator_bits=16)
    path = tmp_path / "page.html"
    html_report(run(machine, (20, 9, 20)), machine).save(path)
    browser.open(path, width, dark=dark)
    browser.wait(READY)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(json.loads(ground.replace("rgb(", "[").replace(")", "]"))) < 100) is dark
    # Where there is no room for numbers the colours alone are shown, and the chosen PE's numbers below.
    assert browser.evaluate("document.querySelector('.viewer').classList.contains('colours')") is (width == 390)
    grid = browser.evaluate("document.querySelector('.grid').getBoundingClientRect().width")
    assert 0 < grid <= width
    browser.click('[data-i="2"][data-j="1"]')
    assert browser.evaluate("document.querySelector('.history h3').textContent") == "PE in row 2, column 1"
    assert browser.evaluate("document.querySelector('.history').getBoundingClientRect().width") <= width
    quiet(browser, path)


def test_keys(browser, tmp_path):
    machine = machine_of("output_stationary")
    gemm = run(machine)
    trace = gemm.trace
    path = tmp_path / "page.html"
    html_report(gemm, machine).save(path)
    browser.open(path, 1600)
    browser.wait(READY)

    def at():
        return int(browser.evaluate(NOW).split("(index ")[1].split(")")[0])

    browser.click(".now")
    starts = [int(np.flatnonzero(trace.fold == fold)[0]) for fold in range(4)]
    overflowed = np.flatnonzero(trace.overflowed()).tolist()
    last = len(trace.fold) - 1
    for key, code, wanted in [
        (".", 190, 1), ("ArrowRight", 39, 2), ("ArrowLeft", 37, 1), (",", 188, 0), (",", 188, 0),
        ("PageDown", 34, starts[1]), ("PageDown", 34, starts[2]), (".", 190, starts[2] + 1), ("PageUp", 33, starts[2]),
        ("PageUp", 33, starts[1]), ("End", 35, last), ("ArrowRight", 39, last), ("Home", 36, 0),
        ("o", 79, overflowed[0]), ("o", 79, overflowed[1]),
    ]:  # fmt: skip
        browser.press(key, code)
        assert at() == wanted, key
    # Numbers that were not drawn while only colours were shown are those of the cycle when they come back.
    colours = "document.querySelector('.viewer').classList.contains('colours')"
    browser.press("v", 86)
    assert browser.evaluate(colours)
    browser.press(".", 190)
    browser.press("v", 86)
    assert not browser.evaluate(colours)
    registers = [cell[2] for cell in browser.evaluate(CELLS)]
    assert registers == [str(value) for value in trace.accumulators[at()].reshape(-1)]
    browser.press(",", 188)
    # In the grid the arrows go from PE to PE and the cycle stays.
    browser.click('[data-i="1"][data-j="1"]')
    for key, code, wanted in [
        ("ArrowDown", 40, (2, 1)), ("ArrowRight", 39, (2, 2)), ("ArrowUp", 38, (1, 2)), ("ArrowLeft", 37, (1, 1)),
    ]:  # fmt: skip
        browser.press(key, code)
        assert browser.evaluate("[document.activeElement.dataset.i, document.activeElement.dataset.j]") == list(
            map(str, wanted)
        )
    assert at() == overflowed[1]
    label = browser.evaluate("document.activeElement.getAttribute('aria-label')")
    assert label.startswith("row 1, column 1: ")
    assert str(trace.accumulators[overflowed[1], 1, 1]) in label
    # The history of the PE holds the registers of the cycles around this one.
    rows = browser.evaluate(
        "[...document.querySelectorAll('.history tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
    )
    assert len(rows) >= 10
    for cycle, _, _, _, register in rows:
        assert register.removesuffix(" !") == str(trace.accumulators[int(cycle) - 1, 1, 1])
        assert register.endswith(" !") is bool(trace.overflow[int(cycle) - 1, 1, 1])
    quiet(browser, path)


def test_accumulators_beyond_the_floating_point_of_the_browser(browser, tmp_path):
    machine = machine_of("output_stationary", accumulator_bits=64)
    gemm = run(machine, bias=[2**60 - 1] * 6)
    path = tmp_path / "page.html"
    html_report(gemm, machine).save(path)
    browser.open(path, 1600)
    browser.wait(READY)
    browser.click('[data-go="fold-on"]')
    browser.click('[data-go="back"]')
    seen = browser.evaluate(CELLS)
    t = int(np.flatnonzero(gemm.trace.fold == 0)[-1])
    assert [cell[2] for cell in seen] == [str(value) for value in gemm.trace.accumulators[t].reshape(-1)]
    assert max(map(int, (cell[2] for cell in seen))) > 2**59
    quiet(browser, path)


def test_several_traces_and_a_pipelined_grid(browser, tmp_path):
    first, second = machine_of("weight_stationary"), machine_of("input_stationary", pe_latency_cycles=3)
    views = [CycleView.of(run(first), first, "one"), CycleView.of(run(second), second, "two")]
    path = tmp_path / "page.html"
    HtmlReport("two grids", "", (cycles_section(views),)).save(path)
    browser.open(path, 1600)
    browser.wait(READY)
    browser.evaluate(
        "(() => { const s = document.querySelector('.trace-choice'); s.value = '1'; "
        "s.dispatchEvent(new Event('change')); })()"
    )
    browser.wait("document.querySelector('.viewer').dataset.ready === '1'")
    assert "input stationary" in browser.evaluate("document.querySelector('.flow').textContent")
    assert browser.evaluate("document.querySelectorAll('.cell.adding').length") == 0
    trace = views[1].trace
    for _ in range(3):
        browser.click('[data-go="forward"]')
    seen = browser.evaluate(CELLS)
    assert [cell[2] for cell in seen] == [str(value) for value in trace.accumulators[3].reshape(-1)]
    quiet(browser, path)


def test_tables_sort_and_filter(browser, tmp_path):
    from accelsim.report.html.elements import Column, table

    columns = (
        Column("layer"),
        Column("cycles", "count", bar=True),
        Column("PEs in use", "share"),
        Column("bits", "count"),
    )
    rows = [("b", 1200, 0.5, None), ("a", 30, 0.25, 7), ("conv 10", 500, 1.0, 12), ("conv 9", 4, 0.0, 3)]
    path = tmp_path / "page.html"
    HtmlReport("tables", "", (Section("one", "One", table(columns, rows, "Layers")),)).save(path)
    browser.open(path, 390)
    names = "[...document.querySelectorAll('tbody tr')].filter(r => !r.hidden).map(r => r.cells[0].textContent)"
    sorts = "[...document.querySelectorAll('th')].map(h => h.getAttribute('aria-sort'))"
    assert browser.evaluate(names) == ["b", "a", "conv 10", "conv 9"]
    for column, wanted in [
        (1, ["a", "b", "conv 9", "conv 10"]), (1, ["conv 10", "conv 9", "b", "a"]),
        (2, ["b", "conv 10", "a", "conv 9"]), (2, ["conv 9", "a", "conv 10", "b"]),
        (4, ["conv 10", "a", "conv 9", "b"]), (4, ["conv 9", "a", "conv 10", "b"]),
    ]:  # fmt: skip
        browser.click(f"th:nth-child({column}) button")
        assert browser.evaluate(names) == wanted
    assert browser.evaluate(sorts) == ["none", "none", "none", "ascending"]
    for text, wanted in [
        ("conv", ["conv 9", "conv 10"]), ("cycles>100", ["conv 10", "b"]), ("CONV cycles>100", ["conv 10"]),
        ("pesinuse>=25%", ["a", "conv 10", "b"]), ("bits<100", ["conv 9", "a", "conv 10"]),
        ("", ["conv 9", "a", "conv 10", "b"]),
    ]:  # fmt: skip
        browser.evaluate(
            f"(() => {{ const f = document.querySelector('input[type=search]'); f.value = {json.dumps(text)}; "
            "f.dispatchEvent(new Event('input')); })()"
        )
        assert browser.evaluate(names) == wanted, text
        shown = browser.evaluate("document.querySelector('output').textContent")
        assert shown == (f"{len(wanted)} of 4" if text else "")
    quiet(browser, path)


def test_theme_button(browser, tmp_path):
    path = tmp_path / "page.html"
    HtmlReport("theme", "", ()).save(path)
    browser.open(path, 1600, dark=True)
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = browser.evaluate(ground)
    browser.click("#theme")
    light = browser.evaluate(ground)
    assert browser.evaluate("document.querySelector('#theme').textContent") == "Theme: light"
    assert light != dark
    browser.click("#theme")
    assert browser.evaluate(ground) == dark
    quiet(browser, path)


def test_a_hostile_name_stays_a_name(browser, tmp_path):
    name = "</script><script>document.title='taken'</script><img src='http://localhost:9/x' onerror='alert(1)'>\"'&<!--"
    machine = machine_of("output_stationary")
    view = CycleView.of(run(machine), machine, name)
    path = tmp_path / "page.html"
    HtmlReport(name, name, (cycles_section([view, view]),)).save(path)
    browser.open(path, 390)
    browser.wait(READY)
    assert browser.evaluate("document.title") == name
    assert browser.evaluate("document.querySelector('h1').textContent") == name
    assert browser.evaluate("document.querySelector('.trace-choice option').textContent") == name
    assert browser.evaluate("document.querySelectorAll('img').length") == 0
    quiet(browser, path)


def test_a_notebook_shows_the_page_in_a_frame(browser, tmp_path):
    machine = machine_of("broadcast")
    page = html_report(run(machine), machine)
    frame = page._repr_html_()
    assert unescape(frame.split('srcdoc="')[1].split('" style=')[0]) == page.to_html()
    path = tmp_path / "notebook.html"
    path.write_text(f"<!doctype html><link rel=icon href='data:,'><body>{frame}</body>")
    browser.open(path, 1600)
    assert browser.evaluate("document.querySelector('iframe').getBoundingClientRect().height") > 500
    assert browser.console == []
