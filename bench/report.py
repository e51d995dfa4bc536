"""From measured rounds to figures: medians with their spread, ratios within a round, tables. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

Cell: TypeAlias = Mapping[str, Any]
"""One variant at one concurrency in one round: `variant`, `concurrency`, `round` and what `bench.load` printed, with
`cpu_ms` per request by process and `others`, the share of all cores that was busy with something else."""

REFERENCES = ("alone", "trivial")
CEILING = "direct"
"""Without any proxy: bounds what the load generator can show, and is compared with nothing."""


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Median, minimum and maximum over the rounds; None without values."""
    if not values:
        return None
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summarise(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """A row for every variant and concurrency, in the order in which they first appear by concurrency.

    `against` compares with each reference round by round: what a shared machine does to one round, it does to both
    sides of the ratio. Rounds that lack one side are left out of it.
    """
    keys = sorted(dict.fromkeys((cell["concurrency"], cell["variant"]) for cell in cells), key=lambda key: key[0])
    return [_row(variant, concurrency, cells) for concurrency, variant in keys]


def _row(variant: str, concurrency: int, cells: Sequence[Cell]) -> dict[str, Any]:
    mine = {cell["round"]: cell for cell in cells if (cell["variant"], cell["concurrency"]) == (variant, concurrency)}
    answered = [cell for cell in mine.values() if cell["ms"]]
    verdicts = _shares([cell["verdicts"] for cell in mine.values()])
    row: dict[str, Any] = {
        "variant": variant,
        "concurrency": concurrency,
        "rounds": len(mine),
        "requests": sum(cell["requests"] for cell in mine.values()),
        "errors": _sums([cell["errors"] for cell in mine.values()]),
        "verdicts": verdicts,
        "p50_ms": spread([cell["ms"]["p50"] for cell in answered]),
        "p99_ms": spread([cell["ms"]["p99"] for cell in answered]),
        "per_second": spread([cell["per_second"] for cell in mine.values()]),
        "decided_per_second": spread(
            [cell["per_second"] * _shares([cell["verdicts"]]).get("decided", 0) for cell in mine.values()]
        ),
        "sizes_p50_ms": {
            size: spread([cell["sizes"][size]["p50"] for cell in answered if size in cell["sizes"]])
            for size in dict.fromkeys(size for cell in answered for size in cell["sizes"])
        },
        "cpu_ms": {
            name: spread([cell["cpu_ms"][name] for cell in answered if name in cell["cpu_ms"]])
            for name in dict.fromkeys(name for cell in answered for name in cell["cpu_ms"])
        },
        "against": {},
    }
    for reference in REFERENCES:
        if variant not in (reference, CEILING):
            others = {
                cell["round"]: cell
                for cell in cells
                if (cell["variant"], cell["concurrency"]) == (reference, concurrency) and cell["ms"]
            }
            pairs = [(cell, others[number]) for number, cell in mine.items() if cell["ms"] and number in others]
            if pairs:
                row["against"][reference] = _against(pairs)
    return row


def _against(pairs: Sequence[tuple[Cell, Cell]]) -> dict[str, Any]:
    def over(value: Callable[[Cell, Cell], float]) -> dict[str, float] | None:
        return spread([value(mine, other) for mine, other in pairs])

    return {
        "p50_ratio": over(lambda mine, other: mine["ms"]["p50"] / other["ms"]["p50"]),
        "p99_ratio": over(lambda mine, other: mine["ms"]["p99"] / other["ms"]["p99"]),
        "throughput_ratio": over(lambda mine, other: mine["per_second"] / other["per_second"]),
        "added_p50_ms": over(lambda mine, other: mine["ms"]["p50"] - other["ms"]["p50"]),
    }


def _sums(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    return {name: sum(c.get(name, 0) for c in counts) for name in sorted({name for c in counts for name in c})}


def _shares(counts: Sequence[Mapping[str, int]]) -> dict[str, float]:
    """Part of all answers that each verdict has."""
    sums = _sums(counts)
    total = sum(sums.values())
    return {name: number / total for name, number in sums.items()} if total else {}


def tables(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows for a terminal: a table for every concurrency, then latency by the prompt's length."""
    parts = []
    for concurrency in dict.fromkeys(row["concurrency"] for row in rows):
        some = [row for row in rows if row["concurrency"] == concurrency]
        header = ("", "p50 ms", "p99 ms", "req/s", "p50 + ms", "p50 x alone", "p50 x trivial", "req/s x trivial")
        lines = [(*header, "cpu ms/req", "decided/s", "decisions", "errors"), *(_cells(row) for row in some)]
        parts.append(f"concurrency {concurrency}\n{_aligned(lines)}")
    one = min(row["concurrency"] for row in rows)
    some = [row for row in rows if row["concurrency"] == one]
    sizes = list(dict.fromkeys(size for row in some for size in row["sizes_p50_ms"]))
    lines_by_size: list[Sequence[str]] = [("", *sizes)]
    lines_by_size += [(row["variant"], *(_range(row["sizes_p50_ms"].get(s), 2) for s in sizes)) for row in some]
    parts.append(f"p50 ms by the prompt's length, concurrency {one}\n{_aligned(lines_by_size)}")
    return "\n\n".join(parts)


def _cells(row: Mapping[str, Any]) -> Sequence[str]:
    alone, trivial = (row["against"].get(reference, {}) for reference in REFERENCES)
    verdicts = " ".join(f"{name} {share:.0%}" for name, share in row["verdicts"].items() if name != "none")
    none = row["verdicts"].get("none", 0)
    if verdicts and none:
        verdicts += f" not asked {none:.1%}"
    return (
        row["variant"],
        _range(row["p50_ms"], 2),
        _median(row["p99_ms"], 1),
        _range(row["per_second"], 0),
        _median(alone.get("added_p50_ms"), 2),
        _range(alone.get("p50_ratio"), 2),
        _range(trivial.get("p50_ratio"), 2),
        _range(trivial.get("throughput_ratio"), 2),
        " ".join(f"{name} {value['median']:.2f}" for name, value in row["cpu_ms"].items()) or "-",
        _median(row["decided_per_second"], 0) if verdicts else "-",
        verdicts or "-",
        " ".join(f"{name}: {number}" for name, number in row["errors"].items()) or "none",
    )


def _range(value: Mapping[str, float] | None, places: int) -> str:
    if value is None:
        return "-"
    return f"{value['median']:.{places}f} [{value['min']:.{places}f}-{value['max']:.{places}f}]"


def _median(value: Mapping[str, float] | None, places: int) -> str:
    return "-" if value is None else f"{value['median']:.{places}f}"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  " + "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
