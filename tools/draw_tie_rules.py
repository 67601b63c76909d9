"""Draw the eight tie rules of docs/numerics.md section 4 as docs/figures/tie_rules.svg.

The steps are not drawn by hand: each panel samples the oracle of the tests on exact fractions. It needs nothing else.

    python tools/draw_tie_rules.py
"""

from __future__ import annotations

import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.naive.rounding import rnd  # noqa: E402  the path is set first

RULES = ("floor", "toward_zero", "half_up", "half_down", "half_away", "half_toward_zero", "half_even", "to_odd")
REACH, UNIT, GAP, TOP = Fraction(5, 2), 30, 34, 36
EPSILON = Fraction(1, 1000)


def panel(rule: str, left: float, top: float) -> list[str]:
    """Return one rule's panel: a step for every stretch, a filled dot where an end belongs to it, a ring where not."""
    side = float(2 * REACH) * UNIT

    def x(value: Fraction) -> str:
        return f"{left + float(value + REACH) * UNIT:.1f}"

    def y(value: int) -> str:
        return f"{top + TOP + float(REACH - value) * UNIT * 0.8:.1f}"

    lines = [f'<text class="name" x="{left + side / 2:.1f}" y="{top + 12:.1f}">{rule}</text>']
    for tick in range(-2, 3):
        lines.append(f'<line class="grid" x1="{x(Fraction(tick))}" x2="{x(Fraction(tick))}" y1="{y(3)}" y2="{y(-3)}"/>')
        lines.append(f'<line class="grid" x1="{x(-REACH)}" x2="{x(REACH)}" y1="{y(tick)}" y2="{y(tick)}"/>')
        lines.append(f'<text class="tick" x="{x(Fraction(tick))}" y="{float(y(-3)) + 11:.1f}">{tick}</text>')
    lines.append(
        f'<line class="ideal" x1="{x(-REACH)}" x2="{x(REACH)}" y1="{_real(y, -REACH)}" y2="{_real(y, REACH)}"/>'
    )
    halves = [Fraction(number, 2) for number in range(int(-2 * REACH), int(2 * REACH) + 1)]
    for low, high in pairwise(halves):
        value = rnd((low + high) / 2, rule)
        lines.append(f'<line class="step" x1="{x(low)}" x2="{x(high)}" y1="{y(value)}" y2="{y(value)}"/>')
    for at in halves:
        here = rnd(at, rule)
        sides = {rnd(at + shift, rule) for shift in (-EPSILON, EPSILON)}
        if sides != {here}:
            lines += [f'<circle class="out" cx="{x(at)}" cy="{y(value)}" r="2.6"/>' for value in sides - {here}]
            lines.append(f'<circle class="in" cx="{x(at)}" cy="{y(here)}" r="2.6"/>')
    return lines


def _real(y: object, value: Fraction) -> str:
    """Place a value that is no whole number on the vertical axis."""
    below, above = float(y(int(value // 1))), float(y(int(value // 1) + 1))  # type: ignore[operator]
    return f"{below + (above - below) * float(value % 1):.1f}"


def figure() -> str:
    """Return the whole figure."""
    side = float(2 * REACH) * UNIT
    height = TOP + float(2 * REACH) * UNIT * 0.8 + 44
    parts = []
    for index, rule in enumerate(RULES):
        parts += panel(rule, 10 + (index % 4) * (side + GAP), 8 + (index // 4) * height)
    width, total = 4 * side + 3 * GAP + 20, 2 * height + 8
    style = (
        "text{font-family:sans-serif;text-anchor:middle;fill:#000}.name{font-size:13px}.tick{font-size:9px}"
        ".grid{stroke:#ccc;stroke-width:.5}.ideal{stroke:#888;stroke-dasharray:3 3}"
        ".step{stroke:#0072b2;stroke-width:2}.in{fill:#0072b2;stroke:#0072b2}.out{fill:#fff;stroke:#0072b2}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {total:.0f}" role="img">\n'
        f"<title>The eight tie rules: the value that is rounded to the right, the result upwards</title>\n"
        f'<style>{style}</style>\n<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


if __name__ == "__main__":
    (ROOT / "docs" / "figures" / "tie_rules.svg").write_text(figure(), encoding="utf-8")
