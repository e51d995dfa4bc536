"""Writes the labels of the shipped classifier's heads, which rules are written with, into docs/classifiers.md.

python -m models.labels           writes the table between its two marks
python -m models.labels --check   says when it is not in step; exit 1
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from models.marked import marked
from router_extproc.app import SHIPPED_MODEL
from router_extproc.inference import artifact

PAGE = Path(__file__).parents[1] / "docs" / "classifiers.md"
BEGIN, END = "<!-- labels: models/labels.py -->", "<!-- end of labels -->"
SAYS = {
    "domain": "what it is about",
    "intent": "what is asked for; `cs_*` is customer support",
    "guard": "whether it attacks or asks for harm",
    "language": "ISO 639-1; the signal `type: language` reads it",
    "win": "in `scores`: how likely this reference model answers well (`like` of a model)",
    "pii": "personal data: the kind it is surest of; `NRP` is nationality, religion or political group",
    "complexity": "how much a strong model is needed, 0 to 1 in `value`; the signal `type: complexity` adds `medium`",
}


def table(directory: Path = SHIPPED_MODEL) -> str:
    """Every head of a classifier with what it says and its labels, as Markdown."""
    rows = ["| head | what it says of a text | labels |", "|---|---|---|"]
    for head, labels in artifact.read(directory).labels.items():
        rows.append(f"| `{head}` | {SAYS.get(head, '')} | {', '.join(f'`{label}`' for label in labels)} |")
    return "\n".join(rows)


def page() -> str:
    """The page with the table of today's classifier."""
    return marked(PAGE.read_text(encoding="utf-8"), BEGIN, END, table())


def main() -> int:
    """0 when it is written, or in step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    wanted = page()
    if not parser.parse_args().check:
        PAGE.write_text(wanted, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != wanted:
        print(f"{PAGE.name} is not in step: run `make generated`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
