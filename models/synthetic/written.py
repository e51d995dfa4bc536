"""Prompts written one by one for this project, in the words of many kinds of people: `written/*.jsonl`.

Each line has a `text` and the labels that are beyond doubt for it (`domain`, `intent`, `guard`). They are composed, not
collected: training reads them as `synthetic` rows, and no headline figure rests on them.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "written"
HEADS = ("domain", "intent", "guard")
KEPT_BACK = 10
"""Of a hundred texts this many, chosen by their hash, are never trained on: `make evaluate` can look at them."""


def kept_back(text: str) -> bool:
    """Whether a text is for looking, not for training."""
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % 100 < KEPT_BACK


@cache
def written(training: bool = True) -> tuple[dict[str, str], ...]:
    """All lines in file order, those for training or those kept back: `text` and labels by head."""
    rows = [
        json.loads(line)
        for path in sorted(FOLDER.glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    return tuple(row for row in rows if kept_back(row["text"]) != training)


@cache
def written_for(head: str) -> tuple[tuple[dict[str, str], ...], ...]:
    """Training lines that carry a label of `head`, grouped by it, in the order of the labels' names."""
    labels = sorted({row[head] for row in written() if head in row})
    return tuple(tuple(row for row in written() if row.get(head) == label) for label in labels)


def main() -> None:
    """Writes the lines that are kept back as a folder of evaluation data."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for head, name in (("domain", "domain"), ("intent", "intent"), ("guard", "jailbreak")):
        with gzip.open(args.out / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            for row in written(training=False):
                if head in row:
                    line = {"text": row["text"], "label": row[head], "source": "written", "split": "test"}
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
