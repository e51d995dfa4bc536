"""What a router.yaml may say and what has no effect as it stands there: no mistake, but hardly meant."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from router_extproc.config.model import Provider
from router_extproc.config.schema import RouterConfig

_VERSIONED = (Provider.AZURE_OPENAI, Provider.ANTHROPIC)


def idle(config: RouterConfig, certain: Collection[str]) -> Iterator[str]:
    """One line for each such thing, with its place. `certain` are the routes whose band no confidence picks."""
    for name, model in config.models.items():
        if model.api_version is not None and model.provider not in _VERSIONED:
            known = " and ".join(_VERSIONED)
            yield f"models.{name}.api_version: has no effect: only {known} are asked for a version"
        for api in model.paths:
            if api not in model.speaks:
                yield f"models.{name}.paths.{api}: has no effect: the model does not speak this API"
    for index, route in enumerate(config.routes):
        for field in ("bands", "second_opinion"):
            if route.name in certain and getattr(route, field) is not None:
                why = f"the rule of `{route.name}` reads no classifier's signal, and `confidence` names none"
                yield f"routes[{index}].{field}: has no effect: {why}"
    for index, schedule in enumerate(config.schedules):
        if schedule.favourite is None and not schedule.scale:
            yield f"schedules[{index}]: `{schedule.name}` has no effect: it has neither `favourite` nor `scale`"
