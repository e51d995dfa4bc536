"""`sessions` of router.yaml: what a conversation is told by, and how long it keeps its model."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from router_extproc.config.section import Section
from router_extproc.patterns import HEADER


class Sessions(Section):
    """What makes requests one conversation. The decision log has a hash of it, under a secret of the sidecar's, and
    sticky routes go by it."""

    headers: list[Annotated[str, Field(pattern=HEADER)]] = Field(
        ["x-session-id"], max_length=8, description="Request headers with an id of the conversation; the first counts."
    )
    conversation: bool = Field(
        True,
        description="Where no such header is sent: the user that the body names, the beginning of the system text and "
        "of the first human turn make up the conversation.",
    )
    sticky_seconds: float = Field(
        3600, gt=0, le=7 * 86_400, description="How long a conversation that does not go on keeps its model."
    )
