"""Which requests belong to one conversation: a key that joins them and that nobody can read anything from.

What makes up a conversation (a session id, or who asked what first) is hashed with a secret of the operator's or of the
sidecar, so that neither the decision log nor a store tells it, and nobody can find out by trying.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

from router_extproc.config.sessions import Sessions
from router_extproc.domain import LlmRequest
from router_extproc.errors import ConfigError

SECRET_FILE = "session.secret"
SECRET_BYTES = 32
DIGEST_BYTES = 12
"""Long enough that no two conversations share one by chance."""
MAX_ID = 256
TEXT_CHARS = 1_000
"""Characters of the system text and of the first human turn that count: enough to tell conversations apart."""

_CHANGING = re.compile(r"x-anthropic-billing-header:[^\n]*")
"""Lines of system texts that a client writes anew for each request."""


class SessionKeys:
    """Makes the keys. Some microseconds each; used on the event loop."""

    def __init__(self, secret: bytes | None = None) -> None:
        """`secret` has at most 64 bytes. Without one, keys hold for this process alone."""
        self._secret = secret or secrets.token_bytes(SECRET_BYTES)

    def key(self, sessions: Sessions, request: LlmRequest, headers: Mapping[str, str], tenant: str) -> str:
        """The key of a request's conversation, 24 hexadecimal digits; "" when nothing tells which one it is."""
        for name in sessions.headers:
            given = headers.get(name)
            if given:
                return self._hash("id", tenant, given[:MAX_ID])
        if not sessions.conversation or not request.opening:
            return ""
        system = request.system[: 2 * TEXT_CHARS]
        if "x-anthropic-billing-header" in system:
            system = _CHANGING.sub("", system)
        parts = [tenant, request.user or "", system.strip()[:TEXT_CHARS], request.opening[:TEXT_CHARS]]
        return self._hash("talk", *parts, *filter(None, [request.client_session]))

    def user(self, user: str | None) -> str:
        """The key of a user whom a body names; "" for none."""
        return self._hash("user", user) if user else ""

    def _hash(self, *parts: str) -> str:
        # Lengths tell the parts apart: ("ab", "c") is not ("a", "bc").
        text = "".join(f"{len(part)}:{part}" for part in parts)
        return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES, key=self._secret).hexdigest()


def session_secret(path: Path | None, state: Path | None) -> bytes | None:
    """The secret in `path`, else the one that is kept in the directory `state`, where it is made once; else None.

    Replicas that shall give one conversation the same key need the same file. Blocks. Raises ConfigError or OSError.
    """
    if path is not None:
        given = path.read_bytes().strip()
        if len(given) < 16:
            raise ConfigError([f"{path}: a secret has at least 16 bytes"])
        return blake2b(given, digest_size=SECRET_BYTES).digest()
    if state is None:
        return None
    state.mkdir(parents=True, exist_ok=True)
    kept = state / SECRET_FILE
    try:
        # Only whoever creates the file writes it, so that two that start at once do not disagree.
        descriptor = os.open(kept, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        found = kept.read_bytes()
        return found[:SECRET_BYTES] if len(found) >= SECRET_BYTES else None
    with os.fdopen(descriptor, "wb") as file:
        made = secrets.token_bytes(SECRET_BYTES)
        file.write(made)
    return made
