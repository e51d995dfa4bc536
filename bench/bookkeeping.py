"""What keeping count costs a request: on the event loop, and on the threads beside it."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from router_extproc.bookkeeping import served_by
from router_extproc.config.loader import parse
from router_extproc.decision_log import DecisionLog
from router_extproc.domain import Band, Decision, LlmRequest, Outcome, Plan, SignalSet, SignalValue, Usage
from router_extproc.ledger import Ledger
from router_extproc.telemetry.metrics import Metrics
from router_extproc.telemetry.recorder import Decided, Recorder

REQUESTS = 20_000

CONFIG = b"""
models:
  small: {url: "http://127.0.0.1:1", price: {input: 0.1, output: 0.3}}
  premium: {url: "http://127.0.0.1:2", price: {input: 3, output: 15}}
default: premium
"""


def main() -> None:
    logging.getLogger("router_extproc.exchange").setLevel(logging.WARNING)
    config = parse(CONFIG, Path("router.yaml")).config
    scores = {f"label_{number}": 0.05 for number in range(20)}
    signals = SignalSet(
        {name: SignalValue("label_1", 0.93, 0.0, scores) for name in ("intent", "domain", "complexity")}
    )
    request = LlmRequest("chat_completions", "auto", (1, 7), "hello", tokens=100)
    decision = Decision("talk", Band.RECOMMENDED, 0.93, ("small",), "intent=chat 0.93 > 0.90")
    stages = (("body", 0.001), ("classify", 0.002), ("signals", 0.0001), ("policy", 0.0001))
    made = Decided("", request, signals, decision, Plan(("small", "premium")), 0.002, 1, stages, "acme", time.time())
    ended = Outcome("", "chat_completions", 200, "small", 1, 0.8, 0.2, Usage(900, 80), route="talk", stream=True)
    decisions = [replace(made, decision_id=str(number)) for number in range(REQUESTS)]
    outcomes = [replace(ended, decision_id=str(number)) for number in range(REQUESTS)]
    served = served_by(config)
    with TemporaryDirectory() as directory:
        recorder = Recorder(Metrics())
        recorder.served = lambda: served
        ledger = Ledger(lambda: config, Path(directory), on_entry=recorder.priced)
        log = DecisionLog(lambda: config, Path(directory))
        recorder.listeners.append(lambda outcome, _: ledger.outcome(outcome) if outcome is not None else None)
        recorder.listeners.append(log.record)
        on_loop = 0.0
        ledger.start()
        log.start()
        began = time.perf_counter()
        for decided, outcome in zip(decisions, outcomes, strict=True):
            before = time.thread_time()
            recorder.decided(decided)
            recorder.outcome(outcome)
            on_loop += time.thread_time() - before
        ledger.close()
        log.close()
        everything = time.perf_counter() - began
        print(f"on the event loop  {on_loop / REQUESTS * 1e6:6.1f} us a request")
        print(f"with both threads  {everything / REQUESTS * 1e6:6.1f} us a request, wall clock, until all is on disk")
        print(f"dropped            {ledger.dropped + log.dropped}")


if __name__ == "__main__":
    main()
