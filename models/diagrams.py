"""Draws the reliability diagrams of an evaluation as one SVG.

python -m models.diagrams --evaluation eval.json --out models/figures/reliability.svg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

SIDE, GAP = 180, 50


def panel(title: str, bins: list[dict[str, float]], x0: int) -> str:
    """One diagram: share that is right over confidence, dot area by rows, diagonal = perfect."""
    y0 = 40
    total = sum(b["n"] for b in bins) or 1

    def at(confidence: float, right: float) -> tuple[float, float]:
        return x0 + confidence * SIDE, y0 + (1 - right) * SIDE

    error = sum(b["n"] * abs(b["confidence"] - b["right"]) for b in bins) / total
    parts = [
        f'<rect x="{x0}" y="{y0}" width="{SIDE}" height="{SIDE}" fill="#fafafa" stroke="#999"/>',
        f'<line x1="{x0}" y1="{y0 + SIDE}" x2="{x0 + SIDE}" y2="{y0}" stroke="#bbb" stroke-dasharray="4"/>',
        f'<text x="{x0}" y="{y0 - 20}" font-weight="bold">{title}</text>',
        f'<text x="{x0}" y="{y0 - 6}">n = {int(total)}, ECE = {error:.3f}</text>',
        f'<text x="{x0}" y="{y0 + SIDE + 14}">0</text>',
        f'<text x="{x0 + SIDE - 78}" y="{y0 + SIDE + 14}">confidence 1</text>',
    ]
    points = [at(b["confidence"], b["right"]) for b in bins]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    parts.append(f'<polyline points="{line}" fill="none" stroke="#1763b6"/>')
    for (x, y), b in zip(points, bins, strict=True):
        radius = 2 + 9 * (b["n"] / total) ** 0.5
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="#1763b6" fill-opacity=".45"/>')
    return "\n".join(parts)


def draw(tasks: dict[str, Any]) -> str:
    """All heads that have a reliability table, side by side."""
    tables = {name: t["overall"]["reliability"] for name, t in tasks.items() if "reliability" in t["overall"]}
    width = len(tables) * (SIDE + GAP) + 10
    panels = [panel(name, bins, 30 + i * (SIDE + GAP)) for i, (name, bins) in enumerate(tables.items())]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{SIDE + 70}" '
        'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(panels)
        + "\n</svg>\n"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evaluation", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    result = json.loads(args.evaluation.read_text(encoding="utf-8"))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(draw(result["tasks"]), encoding="utf-8")
