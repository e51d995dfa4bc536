"""`store` of router.yaml: the server that replicas share budgets and classifications through."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from router_extproc.config.section import Section, without_user
from router_extproc.patterns import ENVIRONMENT_VARIABLE, STORE_PREFIX, STORE_URL


class Store(Section):
    """A Redis or Valkey server in which replicas share what budgets have spent and what the classifier has read. Read
    when the process starts: a change needs a restart."""

    url: Annotated[str, without_user("give username, and password_env or password_file")] | None = Field(
        None,
        pattern=STORE_URL,
        description="`redis://host:6379/0`, or `rediss://` for TLS. `memory:` is a store inside the process, to try "
        "things out. Default: none, each replica keeps its own.",
    )
    username: str | None = Field(None, min_length=1, description="User name, where the server has users.")
    password_env: str | None = Field(
        None, pattern=ENVIRONMENT_VARIABLE, description="Environment variable that holds the password."
    )
    password_file: str | None = Field(
        None, min_length=1, description="File that holds the password; read for each connection, so that it can change."
    )
    ca_file: str | None = Field(
        None, min_length=1, description="Certificates that the server's must lead to. Default: the system's."
    )
    prefix: str = Field(
        "mom",
        pattern=STORE_PREFIX,
        description="Beginning of all keys, as `{mom}:`. Replicas that share have the same one.",
    )
    wait_ms: int = Field(
        10,
        ge=0,
        le=500,
        description="Milliseconds that a decision waits for the shared budgets, at most. 0: it never waits, and counts "
        "what other replicas admit a moment later.",
    )
    timeout_ms: int = Field(
        250, ge=10, le=10_000, description="Milliseconds without an answer after which the server counts as down."
    )
    budgets: bool = Field(True, description="Whether replicas share what budgets have spent.")
    classifications: bool = Field(
        True, description="Whether replicas share what the classifier said of texts, under hashes of these."
    )
    classification_seconds: int = Field(
        86_400, ge=1, le=2_592_000, description="How long the store keeps what the classifier said."
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.password_env is not None and self.password_file is not None:
            raise ValueError("give either password_env or password_file")
        if self.ca_file is not None and not (self.url or "").startswith("rediss:"):
            raise ValueError("ca_file belongs to a rediss:// url")
        return self
