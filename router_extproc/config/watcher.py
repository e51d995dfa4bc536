"""Notices that router.yaml changed. Compares content, because that is right for every way in which files change.

Kubernetes swaps a symlink two levels up, editors write a new file and rename it, others overwrite in place; bind mounts
and network volumes send no events at all. Reading a few kilobytes now and then catches them all alike, and takes no
inotify watches, which nodes run out of.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from router_extproc.config.loader import digest_of, read, users_file_of
from router_extproc.errors import ConfigError

log = logging.getLogger(__name__)

MISSING = ""
"""Stands for the digest of a file that is not there or cannot be read."""


def content_digest(path: Path) -> str:
    """SHA-256 of the file, or of router.yaml in the directory, with its users' file; MISSING when it cannot be read."""
    try:
        source, content = read(path)
    except ConfigError:
        return MISSING
    users_file = users_file_of(content)
    if users_file is None:
        return digest_of(content)
    try:
        return digest_of(content, read(source.parent / users_file)[1])
    except ConfigError as error:
        return digest_of(content, str(error).encode())


async def watch(
    path: Path,
    on_change: Callable[[], Awaitable[None]],
    *,
    interval: float = 0.5,
    since: str | None = None,
    digest: Callable[[Path], str] = content_digest,
    settle: bool = False,
) -> None:
    """Calls `on_change` whenever the content of the file, or of router.yaml in the directory, is another than before.

    Runs until cancelled; looks every `interval` seconds, on a thread. `since` is the digest (SHA-256, hex) that counts
    as known at first; without it, that of the content found now. A bad file is reported once, not again until it
    changes. A file that is gone counts as a change when it is still gone at the next look: some editors leave a gap.

    Something else than a router.yaml is watched with another `digest`; with `settle` any change counts only when the
    next look finds the same. A look that ends in an error which nobody has foreseen is logged, and the next one counts.
    """
    known = since if since is not None else await asyncio.to_thread(digest, path)
    before, failed = known, ""
    while True:
        await asyncio.sleep(interval)
        try:
            now = await asyncio.to_thread(digest, path)
        except Exception as error:
            if repr(error) != failed:  # once, not at every look
                log.exception("%s cannot be looked at", path)
            failed = repr(error)
            continue
        failed = ""
        settled = now == before if settle else now != MISSING or before == MISSING
        before = now
        if now != known and settled:
            known = now
            await on_change()
