"""A figure that a notebook shows; apart from `accelsim.report.plots`, as it loads matplotlib."""

from __future__ import annotations

import io

import matplotlib as mpl
from matplotlib.figure import Figure


class ShownFigure(Figure):
    """A `matplotlib.figure.Figure` that shows itself as SVG: pyplot, which notebooks look to, knows nothing of it."""

    def _repr_svg_(self) -> str:
        buffer = io.StringIO()
        with mpl.rc_context({"svg.hashsalt": "accelsim"}):
            self.savefig(buffer, format="svg", metadata={"Date": None})
        return buffer.getvalue()
