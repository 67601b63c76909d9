"""Figures of the documents are what their scripts draw."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_figure_of_the_tie_rules_is_drawn_from_the_oracle():
    spec = importlib.util.spec_from_file_location("draw_tie_rules", ROOT / "tools" / "draw_tie_rules.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert (ROOT / "docs" / "figures" / "tie_rules.svg").read_text(encoding="utf-8") == script.figure()
