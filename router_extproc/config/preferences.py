"""`preferences`, `schedules` and `virtual_models` of router.yaml: which of the allowed models are wanted."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from router_extproc.config.clock import Timezone, Window
from router_extproc.config.section import Candidates, Name, Names, Section
from router_extproc.patterns import FILE_BESIDE, HEADER


class Prefer(StrEnum):
    """What matters most among the models that the policy allows: cost, quality, or time to the first byte."""

    CHEAP = "cheap"
    BEST = "best"
    FAST = "fast"


class Preference(Section):
    """What somebody wants, and what they may have."""

    prefer: Prefer | None = Field(
        None,
        description="What matters most: the band's candidates and their fallbacks are taken in this order instead of "
        "the route's `selection`.",
    )
    favourite: Candidates | None = Field(None, description="Models that go first where they are candidates.")
    only: Candidates | None = Field(None, description="No other models, for named ones and fallbacks too.")
    forbidden: Candidates | None = Field(None, description="Never these models.")


class Preferences(Section):
    """Who wants what. A request's own wish counts before its user's, and that before everyone's; what is allowed is
    what `everyone` and the user's entry both allow."""

    header: str | None = Field(
        None,
        pattern=HEADER,
        description="Request header that names the user or tenant. Set or strip it in front of the router: a client "
        "could name another one.",
    )
    users: dict[str, Preference] = Field(default_factory=dict, description="Preferences by that header's value.")
    users_file: str | None = Field(
        None,
        pattern=FILE_BESIDE,
        description="A file beside this one (another key of the same ConfigMap) with more `users`, so that others can "
        "keep them. It is watched too.",
    )
    everyone: Preference = Field(default_factory=Preference, description="Preferences, and the ceiling, of all.")
    client_header: bool = Field(True, description="Whether clients may ask with `x-mom-prefer: cheap | best | fast`.")


class UserTable(Section):
    """What stands in `preferences.users_file`."""

    users: dict[str, Preference] = Field(description="Preferences by the value of `preferences.header`.")


class Schedule(Window):
    """A window of the week in which some models are preferred, or expected to be used more or less."""

    name: Name
    timezone: Timezone = Field("UTC", description="IANA name such as Europe/Paris.")
    favourite: Candidates | None = Field(None, description="Models that go first where they are candidates.")
    scale: dict[str, Annotated[float, Field(ge=0, le=1000)]] = Field(
        default_factory=dict,
        description="Factor per model for whatever scales its replicas; exported as the gauge `mom.model.scale`, 1 "
        "outside of all windows.",
    )


class VirtualModel(Section):
    """A model name that clients send and that asks for routing."""

    prefer: Prefer | None = Field(None, description="What matters most to those who ask for this name.")
    routes: list[str] | None = Field(
        None, description="Names of the routes that apply, in the file's order. Default: all."
    )
    default: Names | None = Field(
        None,
        description="Default models under this name. Default: the file's `default`, by which Envoy goes in any case "
        "while no sidecar answers.",
    )
