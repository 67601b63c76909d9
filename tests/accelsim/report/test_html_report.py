"""The page as a file: whole, self-contained, escaped, the same for the same results."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import numpy as np
import pytest

import accelsim as ax
from accelsim.explore.sweep_result import SweepPoint, SweepResult
from accelsim.report.html import HtmlReport, html_report
from accelsim.report.html.elements import Column, Tile, facts, paragraph, table, tiles
from accelsim.report.html.figures import figure_html
from accelsim.report.html.page import Section
from accelsim.report.html.provenance import file_facts
from accelsim.simulator.tracing import trace_layer

HOSTILE = "<b onclick='x'>\"&</b></script>"
VOID = {"meta", "link", "input", "br", "img"}


class Page(HTMLParser):
    """Reads a page: every tag that opens closes, texts, attributes, tables."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.addresses, self.cells, self.texts = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.addresses += [value for name, value in attributes if name in ("src", "href", "action", "data", "poster")]
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.cells[-1][-1] += data
        if not {"script", "style"} & set(self.open):
            self.texts.append(data)


@pytest.fixture(scope="module")
def digits():
    from accelsim.data import digits_model_path, load_digits

    images = load_digits()
    graph = ax.load_onnx(digits_model_path())
    quantized = ax.quantize(graph, calibration=images.x_calibration[:32], config=ax.PTQConfig(per_channel=True))
    return quantized, images.x_test[:8], images.y_test[:8]


def test_everything_is_in_the_file():
    gemm = ax.matmul([[3, -2]], [[5], [6]], ax.Machine(rows=2, columns=2), engine="stepped", trace=True)
    text = html_report(gemm, ax.Machine(rows=2, columns=2)).to_html()
    page = Page(text)
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert "http://www.w3.org/2000/svg" in text  # a name, not an address: the only one that looks like one
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text) == []
    assert re.findall(r"@import|url\(", text) == []
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    assert "default-src 'none'" in policy
    script = text[text.rindex("<script>") + len("<script>") : text.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert html_report(gemm, ax.Machine(rows=2, columns=2)).to_html() == text


@pytest.mark.slow
def test_a_run_shows_its_layers(digits, tmp_path):
    quantized, images, labels = digits
    machine = ax.Machine(rows=8, columns=8, accumulator_bits=15, overflow="saturate", vector_lanes=4)
    result = ax.simulate(quantized, images, machine, track="range")
    right = int((result.real_outputs["logits"].argmax(axis=1) == labels).sum())
    traced = trace_layer(quantized, images, "classifier", machine)
    path = tmp_path / "run.html"
    html_report(
        result, machine, network=quantized, traced=[traced], accuracy=right / 8, inputs=[("model", HOSTILE)]
    ).save(path)
    page = Page(path.read_text(encoding="utf-8"))
    words = " ".join(page.texts)
    assert f"{right} of 8" in words
    assert HOSTILE in page.texts
    assert result.overflow_events > 0
    for layer in result.layers:
        rows = [row for row in page.cells if row[0] == layer.name]
        work, numbers, cost = rows
        assert f"{layer.cycles.total:,}" in work
        assert f"{layer.macs:,}" in work
        assert f"{layer.overflow_events:,}" in numbers
        if layer.macs:
            assert f"{layer.range_min:,}" in numbers
            assert str(layer.needed_bits) in numbers
            assert f"{100 * layer.utilisation:.1f} %" in work
        assert f"{layer.operations.total:,}" in cost
        assert f"{layer.memory.dram_bytes:,}" in cost
    for name, value in machine.model_dump(mode="json").items():
        if not isinstance(value, dict | list):
            at = page.texts.index(name)
            assert page.texts[at + 1] == ("not given" if value is None else str(value).lower())
    assert {"requantizer.multiplier_bits", "memory.dram_bytes_per_cycle"} <= set(page.texts)
    assert all(line in page.texts for line in quantized.log)
    assert ax.__version__ in page.texts


@pytest.mark.slow
def test_a_comparison_shows_three_sides(digits):
    quantized, images, labels = digits
    machine = ax.Machine(rows=8, columns=8)
    report = ax.compare(quantized.original, quantized, images, machine, labels=labels)
    page = Page(html_report(report, machine, network=quantized).to_html())
    for kind in ("float", "simulated", "actual"):
        assert f"{100 * report.metrics[kind]['top1']:.2f} %" in page.texts
    for layer in report.layers:
        (row,) = [row for row in page.cells if row[0] == layer.name]
        assert f"{layer.sqnr_actual_db:,.2f}" in row
        assert f"{layer.num_elements:,}" in row
        assert f"{100 * layer.own_differing_share:.4f} %" in row


@pytest.mark.slow
def test_a_width_analysis_shows_its_curve(digits):
    quantized, images, labels = digits
    machine = ax.Machine(rows=8, columns=8, dataflow="weight_stationary")
    report = ax.accumulator_widths(quantized, images, machine, labels, max_loss=0.5)
    text = html_report(report, machine, network=quantized).to_html()
    page = Page(text)
    for layer in report.layers:
        for register, row in zip(layer.registers, [row for row in page.cells if row[0] == layer.name], strict=True):
            assert row[3:5] == ["" if b is None else str(b) for b in (register.proven_bits, register.needed_bits)]
            assert row[7:9] == [str(register.holds_wrap_bits), str(register.holds_saturate_bits)]
    steps = [row for row in page.cells if row[0] in ("wrap", "saturate")]
    assert [row[1] for row in steps] == [str(step.bits) for step in report.curve]
    assert "accumulator width (bits)" in page.texts  # words of the figure are words
    assert html_report(report, machine, network=quantized).to_html() == text


def points(failed):
    found = []
    for bits in (12, 16, 20):
        for overflow in ("wrap", "saturate"):
            settings = {"accumulator_bits": bits, "overflow": overflow, "requantizer": HOSTILE}
            metrics = {
                "accuracy": bits / 32 + (overflow == "saturate") / 64, "agreement": 0.5, "sqnr_db": None,
                "cycles": 1000 * bits, "energy_pj": 1e6 / bits, "overflow_events": 20 - bits, "num_samples": 32,
            }  # fmt: skip
            found.append(SweepPoint(f"{bits}{overflow}", settings, None, None, "done", None, metrics))
    if failed:
        settings = {"accumulator_bits": 24, "overflow": "error", "requantizer": "x"}
        found.append(SweepPoint("24", settings, None, None, "failed", f"it overflowed {HOSTILE}", {}))
    return SweepResult("net", tuple(found))


def test_a_sweep_shows_every_point():
    result = points(failed=True)
    text = html_report(result, inputs=[("sweep", "s.sqlite")]).to_html()
    page = Page(text)
    assert "net: a sweep" in page.texts
    header, *body = [row for row in page.cells if len(row) > 5]
    assert header[:4] == ["accumulator bits", "overflow", "requantizer", "front"]
    front = result.pareto(("accuracy", "energy_pj", "cycles"))
    assert 0 < len(front) < len(result.done)
    for point, row in zip(result.done, body, strict=True):
        assert row[:3] == [str(point.settings["accumulator_bits"]), point.settings["overflow"], HOSTILE]
        assert (row[3] == "★") is (point in front)
        assert f"{100 * point.metrics['accuracy']:.2f} %" in row
        assert f"{point.metrics['cycles']:,}" in row
        assert f"{point.metrics['overflow_events']:,}" in row
    (failure,) = [row for row in page.cells if row[-1].startswith("it overflowed")]
    assert failure == ["24", "error", "x", f"it overflowed {HOSTILE}"]
    assert "accumulator width (bits)" in page.texts
    assert html_report(points(failed=False)).to_html().count("<tbody>") == 1


def test_a_sweep_without_a_finished_point_is_a_list_of_errors():
    failed = points(failed=True).failed
    page = Page(html_report(SweepResult("net", failed)).to_html())
    assert not any(tag == "svg" for tag, _ in page.tags)
    assert any(row[-1].startswith("it overflowed") for row in page.cells)


def test_a_run_needs_its_machine():
    gemm = ax.matmul([[3, -2]], [[5], [6]], ax.Machine(rows=2, columns=2), engine="stepped", trace=True)
    with pytest.raises(ax.DataError, match="a report on a GemmResult needs the machine that it ran on"):
        html_report(gemm)


def test_figures_take_the_colours_of_the_page():
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(3, 2), facecolor="white")
    axes = drawn.subplots()
    axes.plot([1, 2, 3], [3, 1, 2], color="#0072B2", marker="o", label="<one> & more")
    axes.grid(color="#B0B0B0")
    axes.legend()
    first, second = (figure_html(drawn, name, HOSTILE) for name in ("a", "b"))
    page = Page(first + second)
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names)) > 10
    used = re.findall(r'(?:href="|url\()#([^")]+)', first + second)
    assert used
    assert set(used) <= set(names)
    assert "<one> & more" in page.texts
    assert page.texts.count(HOSTILE) == 2
    assert re.search(r"stroke: #0072b2", first, re.IGNORECASE)
    assert not re.search(r"#000000|#ffffff|#b0b0b0", first, re.IGNORECASE)
    assert "currentColor" in first
    assert "http" not in first
    assert figure_html(drawn, "a", HOSTILE) == first
    (svg,) = [attributes for tag, attributes in page.tags if tag == "svg"][:1]
    assert "viewbox" in svg
    assert "width" not in svg
    assert re.fullmatch(r"max-width:\d+px;min-width:min\(\d+px,480px\)", svg["style"])


def test_what_cannot_be_reported_is_named():
    with pytest.raises(ax.DataError, match=r"subject must be a SimulationResult, .* got int"):
        html_report(3, ax.Machine())


def test_elements_escape_what_comes_from_outside():
    columns = (Column(HOSTILE), Column("n", "count", bar=True, alarm=True))
    body = (
        table(columns, [(HOSTILE, 3), ("", None)], HOSTILE)
        + tiles([Tile(HOSTILE, HOSTILE, HOSTILE)])
        + facts([(HOSTILE, [(HOSTILE, HOSTILE)])])
        + paragraph(HOSTILE)
    )
    page = Page(body)
    assert page.texts.count(HOSTILE) == 11
    assert not any(tag in ("b", "script") for tag, _ in page.tags)
    assert all("onclick" not in attributes for _, attributes in page.tags)


def test_cells_show_numbers_by_their_kind():
    columns = (Column("c", "count", bar=True), Column("s", "share", 2), Column("d", "decimal", 3), Column("t"))
    page = Page(table(columns, [(1234567, 0.12345, 1234.5678, "x"), (0, None, "exact", None)], "T", filtered=False))
    assert page.cells[1:] == [["1,234,567", "12.35 %", "1,234.568", "x"], ["0", "", "exact", ""]]
    values = [a.get("data-value") for tag, a in page.tags if tag == "td"]
    assert values == ["1234567", "0.12345", "1234.5678", None, "0", None, None, None]
    bars = [a["style"] for tag, a in page.tags if tag == "td" and "style" in a]
    assert bars == ["--part:1.0000", "--part:0.0000"]
    assert not any(tag == "input" for tag, _ in page.tags)


def test_a_file_is_named_by_its_content(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(range(256)) * 10_000)
    facts_of = dict(file_facts("model", path))
    assert facts_of == {"model": "a.bin", "model, SHA-256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert str(tmp_path) not in str(facts_of)


def test_a_report_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(ax.DataError, match="cannot be written"):
        HtmlReport("t", "s", (Section("a", "A", ""),)).save(tmp_path / "no" / "r.html")
    assert list(tmp_path.iterdir()) == []


def test_a_traced_gemm_has_its_shape_in_the_page():
    machine = ax.Machine(rows=3, columns=5, dataflow="input_stationary")
    gemm = ax.matmul(np.ones((2, 7), int), np.ones((7, 4), int), machine, engine="stepped", trace=True)
    page = Page(html_report(gemm, machine, title="Ours").to_html())
    assert "Ours" in page.texts
    assert any(tag == "script" and a.get("type") == "application/json" for tag, a in page.tags)
