"""What recent outcomes tell of each model. Forgets within minutes, so that a model that was slow is tried again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from router_extproc.domain import Outcome

HALF_LIFE_SECONDS = 30.0
FORGOTTEN = 0.05
"""Below this remaining weight (one sample of about two minutes ago) nothing is known any more."""
FAILURE_FACTOR = 9.0
"""A model that fails always looks this many times slower, on top of its latency: retries and angry users cost time."""
FAILED_SECONDS = 5.0
"""What a failure counts as when no success gave a latency."""


@dataclass(slots=True)
class _Mean:
    """An average in which a sample's weight halves every half-life."""

    weight: float = 0.0
    total: float = 0.0
    at: float = 0.0

    def fade(self, now: float) -> None:
        factor = 0.5 ** (max(0.0, now - self.at) / HALF_LIFE_SECONDS)
        self.weight *= factor
        self.total *= factor
        self.at = now

    def add(self, value: float, now: float) -> None:
        self.fade(now)
        self.weight += 1.0
        self.total += value


class Observed:
    """Recent latency, failures and picks per catalogue model. On the event loop; outlives config generations."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._latency: dict[str, _Mean] = {}
        self._failures: dict[str, _Mean] = {}
        self._picks: dict[str, _Mean] = {}

    def picked(self, model: str) -> None:
        """A plan begins with `model`."""
        self._picks.setdefault(model, _Mean()).add(1.0, self._clock())

    def record(self, outcome: Outcome) -> None:
        """Learns from an outcome. One with several attempts, or that the client broke off, tells nothing of latency.

        The attempts before the last one failed, of the plan's models those before the one that answered.
        """
        if outcome.model is None or outcome.status == 0:
            return
        now = self._clock()
        self._failures.setdefault(outcome.model, _Mean()).add(float(outcome.failed), now)
        for name in _given_up(outcome):
            self._failures.setdefault(name, _Mean()).add(1.0, now)
        if not outcome.failed and outcome.attempts == 1:
            seconds = outcome.duration_seconds if outcome.first_byte_seconds is None else outcome.first_byte_seconds
            self._latency.setdefault(outcome.model, _Mean()).add(seconds, now)

    def keep(self, models: Iterable[str]) -> None:
        """Forgets all models but these: the catalogue changed."""
        known = set(models)
        for means in (self._latency, self._failures, self._picks):
            for name in [name for name in means if name not in known]:
                del means[name]

    def latency(self, model: str) -> float | None:
        """Mean seconds to the first byte, times 1 + 9 x failure rate; None when nothing recent is known."""
        seconds, failures = self._recent(self._latency, model), self._recent(self._failures, model)
        if seconds is None:
            return FAILED_SECONDS * (1 + FAILURE_FACTOR * failures) if failures else None
        return seconds * (1 + FAILURE_FACTOR * (failures or 0.0))

    def load(self, model: str) -> float:
        """Picks, each weighing half as much every half-life."""
        picks = self._picks.get(model)
        if picks is None:
            return 0.0
        picks.fade(self._clock())
        return picks.weight

    def _recent(self, means: dict[str, _Mean], model: str) -> float | None:
        mean = means.get(model)
        if mean is None:
            return None
        mean.fade(self._clock())
        return mean.total / mean.weight if mean.weight > FORGOTTEN else None


def _given_up(outcome: Outcome) -> tuple[str, ...]:
    """The models that Envoy tried and left before `outcome.model`. It passes over those whose hosts it knows to be
    down, so that fewer attempts may have been made than models stand before."""
    if outcome.model not in outcome.plan:
        return ()
    before = outcome.plan[: outcome.plan.index(outcome.model)]
    return before[: max(0, outcome.attempts - 1)]
