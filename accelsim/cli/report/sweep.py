"""``accelsim report sweep``: what a sweep has found so far, from its file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from accelsim.cli import options
from accelsim.cli.inputs import check_outputs
from accelsim.cli.report.choice import Output, Title, save

NAME = "sweep"
HELP = """Report the points of a sweep: the front that none beats, accuracy against width, every point in a table.

The file is that of `accelsim sweep --store`; it may belong to a sweep that was interrupted, or still runs.

\b
Examples:
  accelsim report sweep sweep.sqlite --output sweep.html
"""


def command(
    store: Annotated[Path, typer.Argument(metavar="FILE.sqlite", help="The file of `accelsim sweep --store`.")],
    output: Output,
    title: Title = None,
    as_json: options.Json = False,
) -> None:
    """Report a sweep; see HELP."""
    from accelsim.explore import SweepResult
    from accelsim.explore.store import read_points
    from accelsim.report.html import html_report

    check_outputs([output], store, [])
    result = SweepResult.load(store)
    about = read_points(store)[1]
    # No hash of the file: it changes while a sweep runs. The points' own keys are hashes of all that went into them.
    inputs = [("sweep", store.name), *sorted(about.items())]
    page = html_report(result, title=title, inputs=inputs)
    save(page, output, as_json, {"points": len(result.points), "failed": len(result.failed)})
