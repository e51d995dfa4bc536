"""What people say of decisions afterwards: counted at once, kept in the decision log, joined by the report."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from router_extproc.config.schema import RouterConfig
from router_extproc.decision_log import DecisionLog
from router_extproc.errors import ConfigMistakes, Mistake
from router_extproc.recent import Recent
from router_extproc.routes import DEFAULT_ROUTE, NAMED_ROUTE
from router_extproc.telemetry.recorder import Recorder
from router_extproc.validation import did_you_mean

REMEMBERED = 10_000
"""Verdicts that are known, so that one that comes again is not counted again."""
UNKNOWN = "unknown"
"""The route of a decision that this sidecar no longer remembers."""


class Verdict(StrEnum):
    """What somebody says of a decision: of its route, or of a guard."""

    GOOD = "good"
    BAD = "bad"
    FALSE_ALARM = "false_alarm"
    MISSED = "missed"


_TAKES_BACK = {Verdict.GOOD: Verdict.BAD, Verdict.BAD: Verdict.GOOD}


class Feedback(BaseModel):
    """One verdict. `wanted_route` is where the request should have gone, `wanted_label` what should have been seen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decision_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    verdict: Verdict
    wanted_route: Annotated[str, Field(max_length=63)] | None = None
    wanted_label: Annotated[str, Field(pattern=r"^[\w .:/-]{1,64}$")] | None = None


class FeedbackBox:
    """Takes verdicts on the event loop. The same verdict on the same decision counts once."""

    def __init__(
        self, config: Callable[[], RouterConfig], recent: Recent, log: DecisionLog, recorder: Recorder
    ) -> None:
        self._config, self._recent, self._log, self._recorder = config, recent, log, recorder
        self._known: OrderedDict[tuple[str, Verdict], None] = OrderedDict()

    def take(self, feedback: Feedback) -> tuple[bool, bool]:
        """Whether the verdict is new, and whether its decision is among the last ones. Raises ConfigMistakes when no
        such route is configured."""
        routes = [DEFAULT_ROUTE, NAMED_ROUTE, *(route.name for route in self._config().routes)]
        if feedback.wanted_route is not None and feedback.wanted_route not in routes:
            message = f"unknown route `{feedback.wanted_route}`{did_you_mean(feedback.wanted_route, routes)}"
            raise ConfigMistakes([Mistake(("wanted_route",), message)])
        seen = self._recent.find(feedback.decision_id)
        key = (feedback.decision_id, feedback.verdict)
        if key in self._known:
            return False, seen is not None
        self._known[key] = None
        if feedback.verdict in _TAKES_BACK:
            # The last word counts: what is said again after that is new.
            self._known.pop((feedback.decision_id, _TAKES_BACK[feedback.verdict]), None)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        route, guards = UNKNOWN, tuple[str, ...]()
        if seen is not None and seen.decided is not None:
            route, guards = seen.decided.decision.route, seen.decided.decision.guards
        elif seen is not None and seen.refused is not None:
            route, guards = "", seen.refused.guards
        self._recorder.judged(feedback.verdict.value, route, guards)
        self._log.note(
            {
                "id": feedback.decision_id,
                "feedback": feedback.verdict.value,
                "wanted_route": feedback.wanted_route,
                "wanted_label": feedback.wanted_label,
            },
            time.time(),
        )
        return True, seen is not None
