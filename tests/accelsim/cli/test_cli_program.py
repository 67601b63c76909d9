"""What holds for the program as a whole: help, exit statuses, signals, closed pipes, terminals."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import accelsim as ax
from accelsim.cli import main, terminal

from .conftest import assert_refused

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = [sys.executable, "-c", "from accelsim.cli import main; main()"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"}
COMMANDS = ("demo", "quantize", "run", "compare", "trace", "machines")


def _run(*arguments, **options):
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)], env=ENVIRONMENT, capture_output=True, text=True, timeout=120, **options
    )


def test_the_version_is_that_of_the_package(accelsim):
    result = accelsim("--version")
    assert (result.exit_code, result.stdout) == (0, f"accelsim {ax.__version__}\n")


def test_the_help_names_every_command(accelsim):
    result = accelsim("--help")
    assert result.exit_code == 0
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", result.stdout, re.MULTILINE)
    assert "Examples:\n    accelsim demo\n" in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples_that_parse(accelsim, command, monkeypatch, tmp_path):
    """An example whose options do not exist would end with its usage instead of a line on a missing file."""
    monkeypatch.chdir(tmp_path)
    result = accelsim(command, "--help")
    assert result.exit_code == 0
    _, _, rest = result.stdout.partition("Examples:\n")
    examples = re.split(r"\n\s*accelsim ", "\n" + rest.partition("\n\n")[0].replace("\\\n", ""))[1:]
    assert examples
    for example in examples:
        words = example.partition(">")[0].split()
        assert words[0] == command
        if command not in ("demo", "machines"):
            assert_refused(accelsim(*words))


@pytest.mark.parametrize("arguments", [["nothing"], ["run"], ["--nothing"], ["machines", "a", "b"]])
def test_wrong_usage_has_status_2(accelsim, arguments):
    result = accelsim(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: " in result.stderr


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (KeyboardInterrupt(), 130, ""),
        (MemoryError(), 2, "accelsim: error: memory does not suffice; --limit takes fewer samples\n"),
        (MemoryError("9 TiB"), 2, "accelsim: error: memory does not suffice (9 TiB); --limit takes fewer samples\n"),
        (OSError(28, "No space left on device", "a/b"), 2, "accelsim: error: file 'a/b': No space left on device\n"),
        (OSError("nothing more known"), 2, "accelsim: error: nothing more known\n"),
        (ax.DataError("two\nlines \x1b[31m"), 2, "accelsim: error: two lines \\x1b[31m\n"),
        (ax.AccumulatorOverflowError("layer 'a'"), 1, "accelsim: failed: layer 'a'\n"),
    ],
)
def test_every_expected_error_has_its_status_and_one_line(accelsim, monkeypatch, error, status, line):
    def fail():
        raise error

    monkeypatch.setattr("accelsim.machine.Machine.preset_names", fail)
    result = accelsim("machines")
    assert (result.exit_code, result.stderr, result.stdout) == (status, line, "")


def test_a_defect_of_the_program_is_not_hidden(accelsim, monkeypatch):
    monkeypatch.setattr("accelsim.machine.Machine.preset_names", lambda: 1 / 0)
    assert isinstance(accelsim("machines").exception, ZeroDivisionError)


def test_a_process_ends_with_the_status_and_one_line(tmp_path):
    result = _run("run", tmp_path / "none.onnx", "--images", "x.npy", "--calibration", "x.npy")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("accelsim: error: ")
    assert result.stderr.count("\n") == 1


def test_json_of_a_process_parses_and_stderr_stays_empty():
    result = _run("machines", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    assert set(json.loads(result.stdout)) == set(ax.Machine.preset_names())


def test_an_interrupt_is_quiet(tmp_path):
    """The program reads a model from a pipe that never ends, until Ctrl-C."""
    os.mkfifo(tmp_path / "machine.toml")
    process = subprocess.Popen(
        [*PROGRAM, "machines", str(tmp_path / "machine.toml")],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with (tmp_path / "machine.toml").open("w"):  # opens when the program reads
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "")


@pytest.mark.parametrize("arguments", [["--help"], ["machines"], ["machines", "--json"], ["run", "--help"]])
def test_a_closed_output_is_quiet(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        result = subprocess.run(
            [*PROGRAM, *arguments], env=ENVIRONMENT, stdout=closed, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert result.stderr == ""
    assert result.returncode in (1, 141)  # typer's own status where it prints help


def test_a_name_that_the_terminal_cannot_show_is_escaped(tmp_path):
    path = tmp_path / "größe.toml"
    path.write_text("rows = 0\n")
    result = subprocess.run(
        [*PROGRAM, "machines", str(path)],
        env={**ENVIRONMENT, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=60,
    )
    assert result.returncode == 2
    assert b"gr\\xf6\\xdfe.toml" in result.stderr


def test_control_characters_in_results_are_escaped(capsys):
    terminal.echo("conv\x1b[2J\nnext \u00e9")
    assert capsys.readouterr().out == "conv\\x1b[2J\nnext \u00e9\n"


def test_the_entry_point_ends_the_process_with_a_status(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["accelsim", "machines", "edge_16x16"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert ax.Machine.from_toml(capsys.readouterr().out) == ax.Machine.preset("edge_16x16")


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_drawn_on_a_terminal_only(monkeypatch):
    with terminal.progress_bar() as progress:
        assert progress is None
    screen = _Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with terminal.progress_bar() as progress:
        progress("calibration", 1, 4)
        progress("calibration", 4, 4)
        progress("samples", 1, 2)
    assert "calibration" in screen.getvalue()
    assert "4/4" in screen.getvalue()


@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize("on_terminal", [False, True])
def test_steps_are_lines_on_stdout_unless_json_is_asked_for(monkeypatch, capsys, quiet, on_terminal):
    screen = _Terminal()
    if on_terminal:
        monkeypatch.setattr(sys, "stderr", screen)
    with terminal.step_lines(quiet) as step:
        step("first")
        step("second")
    assert capsys.readouterr().out == ("" if quiet else "first\nsecond\n")
    assert ("second" in screen.getvalue()) == (quiet and on_terminal)
