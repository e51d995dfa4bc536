"""Request bodies, and readers that take them in pieces."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from router_extproc.apis.base import BodyReader
from router_extproc.apis.table import APIS, for_path
from router_extproc.domain import LlmRequest

CHAT, TEXT, RESPONSES, EMBEDDINGS, MESSAGES = APIS
HI = [{"role": "user", "content": "Hi"}]
REMINDER = "<system-reminder>\nThe todo list is empty.\n</system-reminder>"
PNG = "data:image/png;base64," + "iVBORw0KGgoAAAANSUhEUg" * 20


def reader(path: str) -> BodyReader:
    api = for_path(path)
    assert api is not None
    return api.reader()


def read(path: str, body: Mapping[str, Any], chunk: int = 1 << 20) -> LlmRequest:
    raw = json.dumps(body).encode()
    taking = reader(path)
    for at in range(0, len(raw), chunk):
        taking.feed(raw[at : at + chunk])
        taking.partial()
        taking.growing()
    return taking.finish()
