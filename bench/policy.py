"""What the policy adds to a decision: routes, guards, preferences, filters, selection. In microseconds."""

from __future__ import annotations

import argparse
import json
import statistics
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router_extproc.config.schema import RouterConfig
from router_extproc.domain import LlmRequest, SignalSet, SignalValue
from router_extproc.guards import Guards
from router_extproc.policy import Policy
from router_extproc.preferences import Preferences
from router_extproc.router import Router
from router_extproc.selection.observed import Observed
from router_extproc.selection.table import build_selections
from router_extproc.signals.base import Signal, SignalInputs
from router_extproc.validation import validate

ROUNDS = 3000


@dataclass(frozen=True)
class Known:
    """A signal with known labels; the benchmark brings the values itself."""

    labels: tuple[str, ...] | None
    classifier: str | None

    def evaluate(self, inputs: SignalInputs) -> SignalValue | None:
        return None


RULES = {
    "by label": '{signal}.label == "label{label}" && request.tokens > 100',
    "evaluated": "{signal}.confidence > 0.96 && request.tokens > 100",
}
"""Conditions of the routes. The first kind is told by the label alone; the other has to be evaluated each time."""


def configured(routes: int, models: int, signals: int, rule: str) -> tuple[RouterConfig, dict[str, Signal]]:
    """A policy in which no route but the last matches, the longest way, with 4 guards, 50 users and 4 schedules."""
    names = [f"s{index}" for index in range(signals)]
    labels = tuple(f"label{index}" for index in range(18))
    config = validate(
        RouterConfig,
        {
            "models": {f"m{index}": {"url": "http://h", "price": {"input": 1, "output": 2}} for index in range(models)},
            "signals": {name: {"type": "tokens"} for name in names},
            "routes": [
                {
                    "name": f"r{index}",
                    "when": rule.format(signal=names[index % signals], label=index % 17 + 1)
                    if index < routes - 1
                    else "true",
                    "models": [f"m{(index + offset) % models}" for offset in range(min(4, models))],
                    "selection": "cheapest",
                }
                for index in range(routes)
            ],
            "default": ["m0"],
            "guards": [
                {"name": f"g{index}", "when": rule.format(signal=names[index], label=9), "action": "tag"}
                for index in range(4)
            ],
            "preferences": {
                "header": "x-tenant",
                "users": {f"u{index}": {"favourite": "m1", "prefer": "cheap"} for index in range(50)},
                "everyone": {"forbidden": f"m{models - 1}"} if models > 2 else {},
            },
            "schedules": [
                {"name": f"t{index}", "timezone": "Europe/Paris", "from": "22:00", "to": "06:00", "favourite": "m0"}
                for index in range(4)
            ],
        },
    )
    return config, {name: Known(labels, "shipped") for name in names}


def measured(routes: int, models: int, kind: str, signals: int = 12) -> dict[str, Any]:
    """Microseconds per decision, and bytes that one needs at its peak."""
    config, known = configured(routes, models, signals, RULES[kind])
    policy, guards = Policy.compile(config, known), Guards.compile(config, known)
    preferences = Preferences(config)
    selections, _ = build_selections(config, Observed())
    scores = {f"label{index}": 1 / 18 for index in range(18)}
    values = SignalSet({f"s{index}": SignalValue("label0", 0.95, 0.0, scores) for index in range(signals)})
    request = LlmRequest("chat_completions", "auto", None, "hello", tokens=500)
    headers = {"x-tenant": "u1"}
    router = Router(config, policy, guards, preferences, known, selections, {})

    def decide() -> None:
        router.plan_for(request, values, headers)

    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter_ns()
        decide()
        times.append((time.perf_counter_ns() - start) / 1000)
    times.sort()
    tracemalloc.start()
    for _ in range(1000):
        decide()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    decide()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {
        "rules": kind,
        "routes": routes,
        "models": models,
        "signals": signals,
        "p50_us": round(statistics.median(times), 1),
        "p99_us": round(times[int(0.99 * len(times))], 1),
        "kept_bytes": kept,
        "peak_bytes": peak - kept,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to write the figures as JSON")
    out = parser.parse_args().out
    sizes = ((1, 2), (10, 10), (50, 100), (200, 400))
    rows = [measured(routes, models, kind) for kind in RULES for routes, models in sizes]
    print(f"{'rules':>10}{'routes':>8}{'models':>8}{'p50 us':>10}{'p99 us':>10}{'bytes per decision':>20}")
    for row in rows:
        print(
            f"{row['rules']:>10}{row['routes']:>8}{row['models']:>8}{row['p50_us']:>10}{row['p99_us']:>10}{row['peak_bytes']:>20}",
        )
    if out is not None:
        out.write_text(json.dumps({"benchmark": "policy", "target_p50_us": 300, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
