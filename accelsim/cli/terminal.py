"""Words to the user: results on stdout, complaints and progress on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from accelsim.errors import AccelsimError

Progress = Callable[[str, int, int], None]


class BoundMissedError(AccelsimError):
    """The run went through, and its result is not what was asked for: exit status 1."""


def echo(text: str) -> None:
    """Print text to stdout, control characters of names that come from files escaped."""
    print("\n".join(map(_printable, text.split("\n"))), flush=True)


def complain(message: str) -> None:
    """Print one line to stderr, whatever is in the message."""
    print(_printable(f"accelsim: {' '.join(message.split())}"), file=sys.stderr, flush=True)


@contextmanager
def progress_bar() -> Iterator[Progress | None]:
    """Give a progress callback that draws a bar on stderr; None where stderr is no terminal.

    Yields
    ------
    callable or None
        Takes ``(what, done, of how many)``.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)

        yield show


@contextmanager
def step_lines(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Give a callback that prints one line per step, with a spinner on stderr while it lasts if that is a terminal.

    Parameters
    ----------
    quiet : bool
        Print no lines; the spinner stays.

    Yields
    ------
    callable
        Takes the line.
    """
    if not sys.stderr.isatty():
        yield (lambda line: None) if quiet else echo
        return
    from rich.console import Console

    spinner = Console(stderr=True).status("", spinner="dots")

    def show(line: str) -> None:
        spinner.stop()
        if not quiet:
            echo(line)
        spinner.update(line if quiet else "working")
        spinner.start()

    try:
        yield show
    finally:
        spinner.stop()


def _printable(line: str) -> str:
    """Escape what is not printable: a name in a model file may hold a terminal's control sequences."""
    return line if line.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
