"""The shape of router.yaml. One source for validation, JSON Schema and the configuration reference.

Put together here from its sections, which the modules beside this one describe. Only the structure is checked in
them. Names across sections (a route's models, a rule's signals, a classifier's labels) and the parameters of plugins
(signals, selections) are checked when the file is compiled into a `runtime.Runtime`.
"""

from __future__ import annotations

from pydantic import Field

from router_extproc.config.accounting import Budget, Ledger
from router_extproc.config.limits import Limits, Retry
from router_extproc.config.model import Model
from router_extproc.config.policy import Bands, Guard, Route, SignalSpec
from router_extproc.config.preferences import Preferences, Schedule, VirtualModel
from router_extproc.config.section import Name, Names, Section, SignalName
from router_extproc.config.sessions import Sessions
from router_extproc.config.store import Store


class RouterConfig(Section):
    """The whole of router.yaml."""

    version: int = Field(1, ge=1, le=1, description="Version of this format.")
    models: dict[Name, Model] = Field(min_length=1, description="The catalogue.")
    signals: dict[SignalName, SignalSpec] = Field(default_factory=dict, description="Facts that rules can use.")
    routes: list[Route] = Field(default_factory=list, description="The policy; first match wins.")
    default: Names = Field(description="The premium default and its fallbacks: used when no route is certain enough.")
    bands: Bands = Field(default_factory=Bands, description="Confidence thresholds of all routes.")
    guards: list[Guard] = Field(default_factory=list, description="Rules before all routes, also for named models.")
    preferences: Preferences = Field(default_factory=Preferences)
    schedules: list[Schedule] = Field(default_factory=list, description="Preferred models by time.")
    virtual_models: dict[str, VirtualModel] = Field(
        default_factory=lambda: {"auto": VirtualModel()}, description="Model names that ask for routing."
    )
    limits: Limits = Field(default_factory=Limits)
    retry: Retry = Field(default_factory=Retry)
    ledger: Ledger = Field(default_factory=Ledger)
    sessions: Sessions = Field(default_factory=Sessions)
    budgets: list[Budget] = Field(default_factory=list, description="Limits on what requests may cost.")
    store: Store = Field(default_factory=Store)
    passthrough: bool = Field(
        False,
        description="Whether paths that are no LLM API go on to the host of the first default model, with the "
        "client's own headers and without a key of ours. No guard, budget or preference holds there, and a model's "
        "server may generate text at such a path. `false`: they get a 404.",
    )

    def default_of(self, asked: str | None) -> tuple[str, ...]:
        """The default models of requests for the model `asked`."""
        virtual = self.virtual_models.get(asked or "")
        return tuple((virtual.default if virtual is not None else None) or self.default)
