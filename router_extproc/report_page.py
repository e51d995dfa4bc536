"""The report as one HTML file: no script, nothing from elsewhere, plots drawn as SVG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from router_extproc.ledger import Sum
from router_extproc.prices import dollars
from router_extproc.report import TOP, Point, Report

WIDTH, HEIGHT, EDGE = 640, 240, 44
MAX_STEP = 110

_STYLE = """
:root { color-scheme: light dark;
  --ground: #fbfaf8; --text: #1d2126; --soft: #5d6670; --line: #dfe2e5; --accent: #0b6e4f; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14171a; --text: #e7eaed; --soft: #9aa4ae; --line: #30363c; --accent: #4cc38a; }
}
body { margin: 0 auto; max-width: 60rem; padding: 1rem; background: var(--ground); color: var(--text);
  font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.lead { font-size: 1.6rem; color: var(--accent); font-weight: 650; margin: 0; }
.note { color: var(--soft); margin-top: 0; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th { color: var(--soft); font-size: .85rem; } .n { text-align: right; font-variant-numeric: tabular-nums; }
svg { width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 11px; }
.fill { fill: var(--accent); } .axis { stroke: var(--line); } .dot { fill: var(--soft); } .here { fill: var(--accent); }
"""


def report_page(report: Report) -> str:
    """The whole file."""
    total = report.totals.all
    percent = f", {float(total.saved / total.baseline):.1%} of the baseline's cost" if total.baseline else ""
    parts = [
        "<h1>What routing saved</h1>",
        f'<p class="lead">{dollars(total.saved)}{percent}</p>',
        f'<p class="note">{total.requests:,} requests, {total.answered:,} answered, {total.estimated:,} with estimated '
        f"tokens. Cost {dollars(total.cost)}, router {dollars(total.router)}, baseline {dollars(total.baseline)}: the "
        "baseline model is assumed to have read and written the same number of tokens.</p>",
    ]
    if report.days:
        parts += ["<h2>Saved per day, US dollars</h2>", _columns({d: float(v.saved) for d, v in report.days.items()})]
    parts += ["<h2>Per model</h2>", _sums(report.totals.by["model"], total)]
    parts += ["<h2>Per route</h2>", _sums(report.totals.by["route"], total)]
    bands = {name: float(value.requests) for name, value in report.totals.by["band"].items()}
    parts += ["<h2>Confidence bands, requests</h2>", _columns(bands)]
    if report.latency_ms:
        rows = [(f"p{number}", f"{value:.2f} ms") for number, value in report.latency_ms.items()]
        parts += ["<h2>Time to decide</h2>", _table(("", ""), rows)]
    if report.unreadable:
        parts.append(f'<p class="note">{report.unreadable:,} lines of the decision log cannot be read.</p>')
    if report.fallbacks:
        rows3 = [(picked, by, f"{n:,}") for (picked, by), n in report.fallbacks.most_common()]
        parts += ["<h2>Fallbacks</h2>", _table(("picked", "answered", "requests"), rows3)]
    if report.accuracy:
        judged = [(r, f"{good:,} of {n:,}", f"{good / n:.1%}") for r, (good, n) in report.accuracy.items()]
        parts += ["<h2>Feedback</h2>", _table(("route", "good", ""), judged)]
    if report.misrouted:
        rows3 = [(route, wanted or "elsewhere", f"{n:,}") for (route, wanted), n in report.misrouted.most_common(TOP)]
        parts += ["<h2>Misrouted</h2>", _table(("route", "wanted", "requests"), rows3)]
    if report.guards:
        acted = [(name, f"{watch.acted:,}", f"{watch.false_alarms:,}") for name, watch in report.guards.items()]
        parts += ["<h2>Guards</h2>", _table(("guard", "acted", "false alarms"), acted)]
    if report.frontier:
        parts += ["<h2>Cost and quality</h2>", _scatter(report.frontier)]
    if report.suspects:
        head = ("decision", "route", "model", "confidence", "why")
        suspects = [
            (s.id, s.route, s.model, f"{s.confidence:.3f}", ("bad feedback; " if s.bad else "") + s.reason)
            for s in report.suspects
        ]
        parts += ["<h2>Worth a look</h2>", _table(head, suspects)]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Routing report</title><style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>"
    )


def _sums(table: dict[str, Sum], total: Sum) -> str:
    rows = [
        (
            name,
            f"{value.requests:,}",
            f"{value.requests / total.requests:.1%}" if total.requests else "",
            dollars(value.cost),
            dollars(value.saved),
        )
        for name, value in sorted(table.items(), key=lambda item: -item[1].requests)
    ]
    return _table(("", "requests", "share", "cost", "saved"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rows = list(rows)
    first = rows[0] if rows else head
    kinds = ["" if index == 0 else ' class="n"' if _is_number(cell) else "" for index, cell in enumerate(first)]

    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in zip(kinds, row, strict=True))

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f"<table><thead><tr>{cells(head, 'th')}</tr></thead><tbody>{body}</tbody></table>"


def _is_number(text: str) -> bool:
    return text[:1] in "$-0123456789" and text != ""


def _columns(values: dict[str, float]) -> str:
    """Bars over a baseline of zero; negative ones hang from it."""
    highest, lowest = max([0.0, *values.values()]), min([0.0, *values.values()])
    span = (highest - lowest) or 1.0
    step = min(MAX_STEP, (WIDTH - 2 * EDGE) / max(1, len(values)))
    inner = HEIGHT - 2 * EDGE
    zero = EDGE + inner * highest / span
    every = max(1, len(values) // 8)
    parts = [f'<line class="axis" x1="{EDGE}" x2="{WIDTH - EDGE}" y1="{zero:.1f}" y2="{zero:.1f}"/>']
    for index, (name, value) in enumerate(values.items()):
        x, size = EDGE + index * step, abs(value) / span * inner
        y = zero - size if value >= 0 else zero
        box = f'x="{x + step * 0.1:.1f}" y="{y:.1f}" width="{step * 0.8:.1f}" height="{size:.1f}"'
        parts.append(f'<rect class="fill" {box}><title>{escape(name)}: {value:,.6g}</title></rect>')
        if index % every == 0:
            middle = x + step / 2
            parts.append(f'<text x="{middle:.1f}" y="{HEIGHT - 16}" text-anchor="middle">{escape(name[:18])}</text>')
    parts.append(f'<text x="{EDGE}" y="{EDGE - 8}">{highest:,.6g}</text>')
    return _svg(parts)


def _scatter(points: Sequence[Point]) -> str:
    """Left is cheaper, up is better."""
    dearest = max(point.cost for point in points) or 1.0
    best, worst = max(point.quality for point in points), min(point.quality for point in points)
    span = (best - worst) or 1.0
    axis = HEIGHT - EDGE
    parts = [
        f'<line class="axis" x1="{EDGE}" x2="{WIDTH - EDGE}" y1="{axis}" y2="{axis}"/>',
        f'<line class="axis" x1="{EDGE}" x2="{EDGE}" y1="{EDGE}" y2="{axis}"/>',
        f'<text x="{WIDTH - EDGE}" y="{HEIGHT - 14}" text-anchor="end">USD per request, up to {dearest:.6g}</text>',
        f'<text x="{EDGE}" y="{EDGE - 14}">quality, {worst:.3f} to {best:.3f}</text>',
    ]
    for point in points:
        x = EDGE + (WIDTH - 2 * EDGE - 90) * point.cost / dearest
        y = axis - 12 - (axis - EDGE - 20) * (point.quality - worst) / span
        kind = "here" if point.name == "mixture" else "dot"
        title = f"{escape(point.name)}: ${point.cost:.6f}, {point.quality:.3f}"
        parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{title}</title></circle>')
        parts.append(f'<text x="{x + 9:.1f}" y="{y + 4:.1f}">{escape(point.name[:24])}</text>')
    return _svg(parts)


def _svg(parts: Iterable[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'
