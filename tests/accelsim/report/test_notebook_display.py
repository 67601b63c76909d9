"""What a notebook shows of machines and results: well-formed, escaped, the numbers of the objects."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

import accelsim as ax
from accelsim import validation
from accelsim.data import digits_model_path, load_digits
from accelsim.report.html import html_report
from accelsim.tables import MOST_SHOWN, html_array, html_table
from tests.accelsim.simulator.gemm_cases import DATAFLOWS


def read(shown):
    """Read HTML as XML: every element closed, every attribute quoted; `html_table` and `grid_svg` write both."""
    return ElementTree.fromstring(f"<all>{shown}</all>")


def cells(tree, table=0):
    """Return the rows of a table as text, its header first."""
    return [["".join(cell.itertext()) for cell in row] for row in list(tree.iter("table"))[table].iter("tr")]


def display(thing):
    return read(thing._repr_html_())


def test_tables_escape_and_align():
    tree = read(html_table(["<a>", "n"], [["<b>&", "1,234"], ['"', "-5 "]], "<c>"))
    assert cells(tree) == [["<a>", "n"], ["<b>&", "1,234"], ['"', "-5 "]]
    assert tree.find("table/caption").text == "<c>"
    tree = read(html_table(["words", "numbers"], [["a", "1,234"], ["b", "0.5"]]))
    assert [cell.get("style").split(";")[0] for cell in tree.iter("td")] == ["text-align:left", "text-align:right"] * 2


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (5, 4), (128, 6)])
def test_a_machine_is_a_picture_and_its_fields(dataflow, rows, columns):
    machine = ax.Machine(rows=rows, columns=columns, dataflow=dataflow, accumulator_bits=19, overflow="saturate")
    tree = display(machine)
    svg = tree.find("svg")
    assert svg.get("aria-label") == f"{rows} x {columns} PEs, {dataflow.replace('_', ' ')}"
    # Every PE up to five, else three, a gap, the last.
    pes = [count if count <= 5 else 4 for count in (rows, columns)]
    assert len(svg.findall("rect")) == pes[0] * pes[1]
    words = " ".join(svg.itertext())
    assert "19-bit accumulators, saturate" in words
    assert ("partial sums" in words) is (dataflow in ("weight_stationary", "input_stationary"))
    width, height = map(float, svg.get("viewBox").split()[2:])
    for text in svg.iter("text"):
        assert 0 <= float(text.get("x")) <= width
        assert 0 <= float(text.get("y")) <= height
    shown = {name: value for name, value, _ in cells(tree)[1:]}
    fields = machine.model_dump()
    assert shown["rows"] == str(rows)
    assert shown["memory.dram_bytes_per_cycle"] == "not given"
    assert shown["requantizer.rounding"] == ", ".join(machine.requantizer.rounding)
    assert {name.split(".")[0] for name in shown} == set(fields)
    assert all(meaning for _, _, meaning in cells(tree)[1:])


@pytest.mark.parametrize("failure", [OSError("could not get source code"), TypeError("is a built-in class")])
def test_without_its_source_a_configuration_shows_values_alone(monkeypatch, failure):
    def missing(_):
        raise failure

    monkeypatch.setattr(validation.inspect, "getsource", missing)
    monkeypatch.setattr(validation, "_meanings", validation._meanings.__wrapped__)  # what is remembered has its source
    assert ["rows", "3", ""] in cells(display(ax.Machine(rows=3)))


def test_configurations():
    shown = {name: value for name, value, _ in cells(display(ax.PTQConfig(weight_bits=4, per_channel=True)))[1:]}
    assert shown["weight_bits"] == "4"
    assert shown["per_channel"] == "true"
    assert dict(row[:2] for row in cells(display(ax.EnergyTable())))["name"] == "horowitz_45nm"


def test_a_gemm_shows_cycles_and_accumulators():
    machine = ax.Machine(rows=2, columns=2, accumulator_bits=8, overflow="saturate")
    gemm = ax.matmul([[100, 100, -100], [1, 2, 3]], [[1, 0], [1, 0], [1, 0]], machine)
    tree = display(gemm)
    assert cells(tree, 0)[1][-1] == str(gemm.cycles.total)
    assert cells(tree, 1)[1:] == [["27!", "0"], ["6", "0"]]
    assert "overflow events: 1" in tree.findall("table")[1].find("caption").text
    convolved = ax.conv2d(np.ones((2, 1, 3, 3), int), np.ones((1, 1, 2, 2), int), machine, track="none")
    tree = display(convolved)
    assert cells(tree, 1)[1:] == [["4", "4"], ["4", "4"]]
    assert "not tracked" in tree.findall("table")[1].find("caption").text


def test_large_arrays_show_their_corner():
    tree = read(html_array(np.arange(600).reshape(20, 30).tolist(), None, "a"))
    assert len(cells(tree)) == MOST_SHOWN + 1
    assert len(cells(tree)[1]) == MOST_SHOWN
    assert tree.find("table/caption").text == f"a; the first {MOST_SHOWN} x {MOST_SHOWN} are shown"


def test_counts():
    cycles = ax.gemm_cycles(num_outputs=20, reduction=30, num_positions=40, machine=ax.Machine())
    assert dict(zip(*cells(display(cycles)), strict=True)) == {k: f"{v:,}" for k, v in cycles.to_dict().items()}
    operations = ax.matmul([[1, 2]], [[3], [4]], ax.Machine(rows=1, columns=1)).operations
    tree = display(operations)
    assert dict(zip(*cells(tree), strict=True))["total"] == str(operations.total)
    assert [row[2] for row in cells(tree, 1)[1:]] == [f"{count:,}" for _, count in operations.widths]


@pytest.mark.slow
def test_a_network_from_reading_to_comparison():
    digits = load_digits()
    graph = ax.load_onnx(digits_model_path())
    assert [row[0] for row in cells(display(graph))[1:]] == [node.name for node in graph.nodes]
    quantized = ax.quantize(graph, calibration=digits.x_calibration[:32], config=ax.PTQConfig(per_channel=True))
    shown = {row[0]: row for row in cells(display(quantized))[1:]}
    assert "int8 per channel" in shown["stem_conv"]
    stored = quantized.activations["logits"]
    assert shown["classifier"][4:] == [str(stored.format), f"{float(stored.scale):.6g}", str(int(stored.zero_point))]
    machine = ax.Machine(rows=8, columns=8, accumulator_bits=14)
    program = ax.lower(quantized, machine)
    assert [row[0] for row in cells(display(program))[1:]] == [layer.name for layer in program.layers]
    result = ax.simulate(program, digits.x_test[:4], machine)
    tree = display(result)
    assert cells(tree) == [result.table()[0], *result.table()[1]]
    assert f"overflow events: {result.overflow_events:,}" in tree.find("table/caption").text
    assert "energy" in display(result.energy).find("table/caption").text
    report = ax.compare(graph, quantized, digits.x_test[:4], machine, labels=digits.y_test[:4])
    tree = display(report)
    assert [row[0] for row in cells(tree, 0)[1:]] == ["float", "simulated", "actual"]
    assert [row[0] for row in cells(tree, 1)[1:]] == [layer.name for layer in report.layers]
    assert any("warning" in (p.text or "") for p in tree.findall("p"))


def test_a_report_shows_itself_in_a_frame():
    machine = ax.Machine(rows=2, columns=2)
    gemm = ax.matmul([[3, -2]], [[5], [6]], machine, engine="stepped", trace=True)
    assert html_report(gemm, machine)._repr_html_().startswith("<iframe ")


@pytest.mark.slow
def test_plain_representations_are_one_line():
    digits = load_digits()
    graph = ax.load_onnx(digits_model_path())
    quantized = ax.quantize(graph, calibration=digits.x_calibration[:16])
    machine = ax.Machine(rows=4, columns=4)
    program = ax.lower(quantized, machine)
    result = ax.simulate(program, digits.x_test[:2])
    for thing in (graph, quantized, program, result, html_report(result, machine)):
        assert len(repr(thing)) < 200, type(thing)
        assert "digits" in repr(thing) or "2 samples" in repr(thing) or "4x4" in repr(thing)


def test_a_figure_shows_itself_as_a_drawing():
    from accelsim.report.plots import figure

    with figure(3, 2) as (drawn, axes):
        axes.plot([1, 2], [2, 1])
    assert ElementTree.fromstring(drawn._repr_svg_()).tag.endswith("}svg")
