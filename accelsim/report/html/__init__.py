"""Reports as one HTML file that needs no network: tables, figures, and a viewer that steps through cycles."""

from accelsim.report.html.cycles import CycleView
from accelsim.report.html.page import HtmlReport
from accelsim.report.html.report import html_report

__all__ = ["CycleView", "HtmlReport", "html_report"]
