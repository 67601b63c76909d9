"""Waveforms, read back by a parser that knows nothing but the file: IEEE 1364 section 18, docs/trace.md section 3."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import accelsim as ax
from accelsim.report.vcd import write_vcd
from tests.accelsim.simulator.gemm_cases import DATAFLOWS, gemms, machines


class Waveform:
    """Signals {scope.name: (bits, {time: value})} of a VCD file, values in two's complement."""

    def __init__(self, text):
        header, _, body = text.partition("$enddefinitions $end")
        self.signals, codes, scopes = {}, {}, []
        words = header.split()
        while words:
            keyword = words.pop(0)
            end = words.index("$end")
            content, words = words[:end], words[end + 1 :]
            if keyword == "$scope":
                scopes.append(content[1])
            elif keyword == "$upscope":
                scopes.pop()
            elif keyword == "$var":
                _, bits, code, name = content
                assert code not in codes
                codes[code] = ".".join([*scopes, name])
                self.signals[codes[code]] = int(bits), {}
        time, self.times = None, []
        for line in body.split("\n"):
            if line.startswith("#"):
                time = int(line[1:])
                self.times.append(time)
            elif line.startswith("b"):
                value, code = line[1:].split()
                self._take(codes[code], time, value)
            elif line and not line.startswith("$"):
                self._take(codes[line[1:]], time, line[0])
        assert self.times == sorted(set(self.times))

    def _take(self, name, time, digits):
        bits, changes = self.signals[name]
        assert len(digits) <= bits
        word = int(digits, 2)
        if bits > 1 and len(digits) == bits and digits[0] == "1":
            word -= 1 << bits
        changes[time] = word

    def at(self, name, time):
        """Value of a signal at a time: that of its last change."""
        _, changes = self.signals[name]
        return changes[max(t for t in changes if t <= time)]


def written(tmp_path_factory, trace, machine):
    path = tmp_path_factory.mktemp("vcd") / "a.vcd"
    write_vcd(path, trace, machine)
    return Waveform(path.read_text())


def expected_signals(trace):
    """{signal: values over the cycles}."""
    rows, columns = trace.accumulators.shape[1:]
    signals = {"grid.fold": trace.fold}
    for i in range(rows):
        row = f"grid.r{trace.first_row + i}"
        for j in range(columns):
            pe = f"{row}.c{trace.first_column + j}"
            signals[f"{pe}.accumulator"] = trace.accumulators[:, i, j]
            signals[f"{pe}.weight"] = trace.weights[:, i, j]
            signals[f"{pe}.activation"] = trace.activations[:, i, j]
            signals[f"{pe}.overflow"] = trace.overflow[:, i, j]
        if trace.row_accumulators is not None:
            signals[f"{row}.accumulator"] = trace.row_accumulators[:, i]
            signals[f"{row}.overflow"] = trace.row_overflow[:, i]
            signals[f"{row}.tree_overflow"] = trace.tree_overflow[:, i]
    if trace.column_accumulators is not None:
        for j in range(columns):
            below = f"grid.below.c{trace.first_column + j}"
            signals[f"{below}.accumulator"] = trace.column_accumulators[:, j]
            signals[f"{below}.overflow"] = trace.column_overflow[:, j]
    return signals


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@given(data=st.data(), gemm=gemms())
def test_a_waveform_holds_the_trace(tmp_path_factory, dataflow, data, gemm):
    machine = data.draw(machines(dataflow))
    arguments, named = gemm.arguments()
    length = ax.matmul(*arguments, machine, **named).cycles.multiply
    begin = data.draw(st.integers(0, length - 1))
    window = (begin, data.draw(st.integers(begin + 1, length)))
    first_row = data.draw(st.integers(0, machine.rows - 1))
    trace = ax.matmul(
        *arguments, machine, **named, engine="stepped", trace=True, trace_cycles=window,
        trace_rows=(first_row, machine.rows),
    ).trace  # fmt: skip
    wave = written(tmp_path_factory, trace, machine)
    signals = expected_signals(trace)
    assert wave.signals.keys() == signals.keys()
    for name, values in signals.items():
        found = [wave.at(name, time) for time in range(*window)]
        bits, _ = wave.signals[name]  # one bit is a flag, or a register that holds 0 and -1
        assert found == [int(value) % 2 if bits == 1 else int(value) for value in values], name
    # The last cycle is shown, too; and nothing is written where nothing changes.
    assert wave.times[-1] == window[1]
    for name, values in signals.items():
        assert len(wave.signals[name][1]) == 1 + np.count_nonzero(np.diff(values.astype(np.int64))), name


@pytest.mark.parametrize(
    ("dataflow", "bits"), [("output_stationary", 18), ("weight_stationary", 14), ("broadcast", 16)]
)
def test_signals_have_the_widths_of_the_registers(tmp_path_factory, dataflow, bits):
    machine = ax.Machine(
        rows=2, columns=2, dataflow=dataflow, accumulator_bits=18, partial_sum_bits=14, weight_bits=8, activation_bits=8
    )
    trace = ax.matmul([[1, -2], [3, 0]], [[1], [2]], machine, engine="stepped", trace=True).trace
    widths = {name: bits for name, (bits, _) in written(tmp_path_factory, trace, machine).signals.items()}
    assert widths["grid.r0.c0.accumulator"] == bits
    assert widths["grid.r1.c1.weight"] == widths["grid.r1.c1.activation"] == 8
    assert widths["grid.r1.c1.overflow"] == 1
    edge = {"weight_stationary": "grid.below.c0.accumulator", "broadcast": "grid.r0.accumulator"}
    if dataflow in edge:
        assert widths[edge[dataflow]] == 18


def test_an_unsigned_operand_gets_the_bit_that_keeps_it_positive(tmp_path_factory):
    machine = ax.Machine(rows=1, columns=1, activation_bits=8)
    trace = ax.matmul([[1, 1]], [[255], [7]], machine, engine="stepped", trace=True).trace
    wave = written(tmp_path_factory, trace, machine)
    assert wave.signals["grid.r0.c0.activation"] == (9, {0: 255, 1: 7})


def test_progress_ends_with_all_cycles(tmp_path):
    trace = ax.matmul([[1] * 600], [[1]] * 600, ax.Machine(rows=1, columns=1), engine="stepped", trace=True).trace
    seen = []
    write_vcd(tmp_path / "a.vcd", trace, ax.Machine(), progress=lambda *step: seen.append(step))
    assert seen == [("VCD", 256, 600), ("VCD", 512, 600), ("VCD", 600, 600)]


def test_a_file_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path):
    trace = ax.matmul([[1]], [[1]], ax.Machine(rows=1, columns=1), engine="stepped", trace=True).trace
    with pytest.raises(ax.DataError, match="cannot be written"):
        write_vcd(tmp_path / "none" / "a.vcd", trace, ax.Machine())
    assert list(tmp_path.iterdir()) == []
